"""The key store of one issuer at work: told of new keys, and asked where nothing else is left.

A store may be slow, hang, fail or lie: no token waits for it, and what it does is logged and never raised. Runs on the
fetch thread's event loop.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeGuard

from .errors import ConfigurationError, shown
from .events import Event, tell
from .fetch import TIMEOUT, on_daemon_thread
from .issuer import Issuer
from .key_cache import KeyPolicy
from .key_store import KeyStore, StoredKeys, read_stored, stored_content

MOST_CHARACTERS_TOLD = 400  # our own bound on a store's words: a long path, and what to do about it


class KeptKeys:
    """What a key store keeps of one issuer.

    Raises:
        ConfigurationError: pins for an issuer whose keys are limited to tenants, which a thumbprint does not cover.
    """

    def __init__(self, issuer: Issuer, policy: KeyPolicy, store: KeyStore, clock: Callable[[], float]) -> None:
        self._issuer = issuer
        self._store = store
        self._clock = clock
        self._oldest = policy.time_to_live + policy.stale_limit
        self._pins = policy.pinned_thumbprints
        self._unsaved: bytes | None = None
        self._saver: asyncio.Task[None] | None = None
        self._loader: asyncio.Task[bytes | None] | None = None
        if self.pinned and issuer.tenants is not None:
            raise ConfigurationError(
                f"pinned_thumbprints cannot be kept for issuer {issuer.url!r}: they do not cover which of its tenants a"
                " key is for; give that issuer a ResourceServer without pins"
            )

    @property
    def pinned(self) -> bool:
        """Whether only keys that the configuration names are taken from the store."""
        return self._pins is not None

    async def restore(self) -> StoredKeys | None:
        """Return what the store has kept, where its keys may still be used.

        One thread loads at a time: where the one before still hangs, its answer is waited for.
        """
        url = self._issuer.url
        if not _is_under_way(self._loader):
            self._loader = asyncio.create_task(on_daemon_thread(partial(self._store.load, url)))
        try:
            async with asyncio.timeout(TIMEOUT):
                content = await asyncio.shield(self._loader)
            if content is None:
                return None
            stored = read_stored(content, url, now=self._clock(), oldest=self._oldest, pins=self._pins)
            if self._issuer.jwks_uri not in (None, stored.jwks_uri):
                raise ValueError("the stored keys were fetched from another jwks_uri")
        except Exception as error:  # noqa: BLE001  # a store of the user's may raise anything
            self._tell(Event.KEY_STORE_IGNORED, f"the key store is not used: {_told(error)}")
            return None
        self._tell(Event.KEY_STORE_USED, "keys come from the key store while the issuer is down")
        return stored

    async def save(self, jwks_uri: str, document: Any) -> None:
        """Keep the keys of a good document. Returns when they are saved, or the store takes too long.

        One thread saves at a time, the newest keys last, so that no slow one puts older keys in their place.
        """
        self._unsaved = stored_content(self._issuer.url, jwks_uri, document, float(self._clock()))
        if not _is_under_way(self._saver):
            self._saver = asyncio.create_task(self._save_newest())
        await asyncio.wait({self._saver}, timeout=TIMEOUT)

    async def _save_newest(self) -> None:
        while self._unsaved is not None:
            content, self._unsaved = self._unsaved, None
            try:
                await on_daemon_thread(partial(self._store.save, self._issuer.url, content))
            except Exception as error:  # noqa: BLE001  # a store of the user's may raise anything
                self._tell(Event.KEY_STORE_FAILED, f"the keys could not be stored: {_told(error)}")

    def _tell(self, event: Event, text: str) -> None:
        tell(event, "keys of issuer %s: %s", self._issuer.url, text, issuer=self._issuer.url)


def _is_under_way(task: asyncio.Task[Any] | None) -> TypeGuard[asyncio.Task[Any]]:
    return task is not None and not task.done() and task.get_loop() is asyncio.get_running_loop()


def _told(error: Exception) -> str:
    """Return what a log may say of an error that is not ours: its kind, and its text, escaped and short."""
    return f"{type(error).__name__}: {shown(str(error), MOST_CHARACTERS_TOLD)}"
