"""The last good keys of an issuer, kept for a process that starts while the issuer is down.

What a store brings is outside input: it is judged as strictly as what an issuer sends, and by whose it is and how old.
Whoever can write to a store can mint tokens for all who read it. Knows nothing about the network.
"""

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .errors import ConfigurationError, shown
from .jwk import OddKeyError, VerificationKey, thumbprint
from .jws import read_document
from .key_set import MAX_KEYS, KeySet, read_key_set

FORMAT = 1
MAX_BYTES = 2 * 1024 * 1024  # twice what an issuer may send
CLOCK_TOLERANCE = 300.0  # seconds that a store may be ahead of our clock: the clocks of two machines differ


class KeyStore(Protocol):
    """Keeps the last good keys of issuers. Called on a thread of its own; whatever it raises is logged and ignored."""

    def load(self, issuer: str) -> bytes | None:
        """Return what was saved last for this issuer, or None."""

    def save(self, issuer: str, content: bytes) -> None:
        """Keep `content` for this issuer instead of what was kept before."""


class FileKeyStore:
    """A folder with one file an issuer, replaced atomically, which only its owner may read (mode 0600).

    A file or folder that somebody else owns or may write is not believed. The folder is made when something is saved.

    Raises:
        ConfigurationError: `folder` is not the path of a folder.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        if not isinstance(folder, (str, os.PathLike)) or not str(folder):
            raise ConfigurationError(f"FileKeyStore: folder must be the path of a folder, not {folder!r}")
        self._folder = Path(folder)
        if self._folder.exists() and not self._folder.is_dir():
            raise ConfigurationError(f"FileKeyStore: {str(folder)!r} is a file; give the path of a folder")

    def load(self, issuer: str) -> bytes | None:
        """Return what was saved last for this issuer, or None.

        Raises:
            PermissionError: somebody else could have written the file.
            OSError: it cannot be read.
        """
        try:
            descriptor = os.open(self._path(issuer), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise PermissionError(f"{self._path(issuer)} must be a file")
            _check_owner(self._path(issuer), os.fstat(descriptor), "600")
            _check_owner(self._folder, self._folder.stat(), "700")
            return file.read(MAX_BYTES + 1)

    def save(self, issuer: str, content: bytes) -> None:
        """Keep `content` for this issuer instead of what was kept before.

        Raises:
            PermissionError: somebody else may write the folder, so that `load` would not believe it.
            OSError: it cannot be written; what was kept before is still there.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_owner(self._folder, self._folder.stat(), "700")
        descriptor, name = tempfile.mkstemp(dir=self._folder)  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            Path(name).replace(self._path(issuer))
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise

    def __repr__(self) -> str:
        return f"FileKeyStore({str(self._folder)!r})"

    def _path(self, issuer: str) -> Path:
        return self._folder / f"{hashlib.sha256(issuer.encode()).hexdigest()}.json"


def _check_owner(path: Path, status: os.stat_result, mode: str) -> None:
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
        raise PermissionError(
            f"{path} must belong to this process's user, and nobody else may write it: run chown {os.geteuid()} and"
            f" chmod {mode} on it"
        )


@dataclass(frozen=True, slots=True)
class StoredKeys:
    """Keys that a store has kept. `fetched_at` is in seconds since the epoch."""

    keys: KeySet
    jwks_uri: str
    fetched_at: float


def stored_content(issuer: str, jwks_uri: str, document: Mapping[str, Any], fetched_at: float) -> bytes:
    """Return what a store keeps of a good key set: its usable keys alone, so that nothing private is ever written."""
    keys = [jwk for jwk in document["keys"][:MAX_KEYS] if _is_usable(jwk)]
    content = {"format": FORMAT, "issuer": issuer, "jwks_uri": jwks_uri, "fetched_at": fetched_at, "keys": keys}
    # As short as it came, or it could be more than is read again.
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def read_stored(
    content: bytes, issuer: str, *, now: float, oldest: float, pins: Collection[str] | None = None
) -> StoredKeys:
    """Return the keys that a store has kept for `issuer`. `now` is since the epoch, `oldest` is an age, in seconds.

    Raises:
        ValueError: not what we saved, of another issuer, too old, from the future, or without one usable key.
    """
    try:
        document = read_document(content) if len(content) <= MAX_BYTES else None
    except ValueError:
        document = None
    if not isinstance(document, Mapping) or document.get("format") != FORMAT:
        raise ValueError("the store does not hold what was saved")
    if document.get("issuer") != issuer:
        raise ValueError(f"the store holds keys of another issuer, {shown(document.get('issuer'))}")
    fetched_at, jwks_uri, members = (document.get(name) for name in ("fetched_at", "jwks_uri", "keys"))
    if not isinstance(fetched_at, float) or not isinstance(jwks_uri, str) or not isinstance(members, list):
        raise ValueError("the store does not say which keys were fetched, when and where")
    if not -CLOCK_TOLERANCE <= now - fetched_at < oldest:
        raise ValueError(f"the stored keys are {now - fetched_at:.0f} s old, at most {oldest:.0f} s are allowed")
    if pins is not None:
        members = [jwk for jwk in members if _is_usable(jwk) and thumbprint(jwk) in pins]
    keys, _ = read_key_set({"keys": members})
    if not keys.is_usable:
        raise ValueError("the store holds no usable key" + (" with a pinned thumbprint" if pins is not None else ""))
    return StoredKeys(keys, jwks_uri, min(fetched_at, now))


def _is_usable(jwk: object) -> bool:
    try:
        return VerificationKey(jwk).public_key is not None
    except OddKeyError:
        return False
