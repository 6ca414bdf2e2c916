"""Where the keys of one issuer come from: given with the configuration, or fetched by one flight for all who wait.

The shell around KeyCache: it reads the clock, holds the lock and starts the flights. A flight is one visit to the
issuer: metadata where it is needed, then the keys. Knows nothing about tokens beyond algorithm and key ID.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from .algorithms import Algorithm
from .discovery import MisconfiguredError
from .errors import ConfigurationError, InvalidToken, Reason, shown
from .fetch import Fetcher, FetchFailedError, FetchProblem
from .flights import FLIGHT_TIMEOUT, FetchThread, fork_aware, wait, wait_async
from .issuer import Issuer
from .key_cache import KeyCache, Want
from .key_set import Key, KeySet, SharedSecret, read_key_set

_log = logging.getLogger("token_guard")


@dataclass(frozen=True)
class Clocks:
    """Two clocks that return seconds: `clock`, since the epoch, judges tokens; `monotonic` judges keys."""

    clock: Callable[[], float]
    monotonic: Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class IssuerHealth:
    """What is known of one issuer's keys.

    `age` of the keys and `next_attempt` from now are in seconds; `last_success` is in seconds since the epoch.
    """

    issuer: str
    state: str
    age: float | None
    last_success: float | None
    last_error: str | None
    next_attempt: float
    key_ids: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary that JSON can hold."""
        return asdict(self)


class Keys(Protocol):
    """Where the keys of one issuer come from."""

    def ready(self, algorithm: Algorithm, kid: str | None) -> Sequence[Key]:
        """Return the keys to try where nothing has to be fetched or refreshed; otherwise none."""

    def find(self, algorithm: Algorithm, kid: str | None) -> Sequence[Key]:
        """Return the keys to try, after a fetch where one is wanted."""

    async def find_async(self, algorithm: Algorithm, kid: str | None) -> Sequence[Key]:
        """Do the same without blocking the event loop."""

    def generation(self) -> int | None:
        """Return which keys are held, or None where that must be found out first."""

    def fetch(self) -> "Future[None] | None":
        """Return a flight to the issuer to wait for, where there is anything to fetch."""

    def health(self) -> IssuerHealth:
        """Return what is known, without any I/O."""


class GivenKeys:
    """Keys that were given with the configuration: nothing is ever fetched."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self._secret = SharedSecret(issuer.secret) if isinstance(issuer.secret, bytes) else None
        try:
            self._keys, odd = read_key_set(issuer.jwks if self._secret is None else {"keys": []})
        except ValueError as error:
            raise ConfigurationError(f"jwks of issuer {issuer.url!r}: {error}") from None
        for sentence in odd:
            _log.warning("jwks of issuer %s: %s", issuer.url, sentence, extra={"event": "odd_key"})

    def ready(self, algorithm: Algorithm, kid: str | None) -> Sequence[Key]:
        return (self._secret,) if self._secret is not None else self._keys.candidates(algorithm, kid)

    def find(self, algorithm: Algorithm, kid: str | None) -> Sequence[Key]:
        raise InvalidToken(Reason.UNKNOWN_KEY, detail=f"no given key for alg {algorithm.name} and kid {shown(kid)}")

    async def find_async(self, algorithm: Algorithm, kid: str | None) -> Sequence[Key]:
        return self.find(algorithm, kid)

    def generation(self) -> int | None:
        return 0

    def fetch(self) -> None:
        return None

    def health(self) -> IssuerHealth:
        return IssuerHealth(
            issuer=self._issuer.url,
            state="fresh",
            age=None,
            last_success=None,
            last_error=None,
            next_attempt=0,
            key_ids=self._keys.key_ids,
        )


class FetchedKeys:
    """Keys that are fetched from the issuer when they are needed."""

    def __init__(self, issuer: Issuer, cache: KeyCache, thread: FetchThread, clocks: Clocks) -> None:
        self._issuer = issuer
        self._cache = cache
        self._thread = thread
        self._monotonic = clocks.monotonic
        self._clock = clocks.clock
        self._last_success: float | None = None
        self._jwks_uri = issuer.jwks_uri
        self._lock = threading.Lock()
        self._flight: Future[None] | None = None
        fork_aware.add(self)

    def ready(self, algorithm: Algorithm, kid: str | None) -> Sequence[Key]:
        return self._cache.ready(algorithm, kid, self._monotonic())

    def find(self, algorithm: Algorithm, kid: str | None) -> Sequence[Key]:
        seen = self._cache.flights
        while isinstance(answer := self._ask(algorithm, kid, seen), Future):
            wait(answer)
        return answer

    async def find_async(self, algorithm: Algorithm, kid: str | None) -> Sequence[Key]:
        seen = self._cache.flights
        while isinstance(answer := self._ask(algorithm, kid, seen), Future):
            await wait_async(answer)
        return answer

    def generation(self) -> int | None:
        return self._cache.fresh_generation(self._monotonic())

    def fetch(self) -> "Future[None]":
        """Return the flight under way, or a new one, whatever the cache wants."""
        with self._lock:
            return self._flight or self._start(Want.FETCH)

    def health(self) -> IssuerHealth:
        now, cache = self._monotonic(), self._cache
        age = None if cache.fetched_at is None else now - cache.fetched_at
        return IssuerHealth(
            issuer=self._issuer.url,
            state=cache.state(now),
            age=age,
            last_success=self._last_success,
            last_error=cache.last_error,
            next_attempt=max(0, cache.retry_at - now),
            key_ids=() if cache.keys is None else cache.keys.key_ids,
        )

    def begin_anew(self) -> None:
        """Begin anew in a forked child, which has neither the flight's thread nor a sound lock."""
        self._lock = threading.Lock()
        self._flight = None
        self._cache.in_flight = False

    def _ask(self, algorithm: Algorithm, kid: str | None, seen: int) -> "Sequence[Key] | Future[None]":
        with self._lock:
            now = self._monotonic()
            answer = self._cache.ask(algorithm, kid, now, seen)
            if isinstance(answer, Want):
                return self._flight or self._start(answer)
            if self._cache.wants_refresh(now):
                self._start(Want.FETCH)
            return answer

    def _start(self, want: Want) -> "Future[None]":
        flight: Future[None] = Future()
        flight.set_running_or_notify_cancel()  # a waiter that is cancelled must not cancel everybody's flight
        self._flight = flight
        self._cache.started(want, self._monotonic())
        try:
            self._thread.run(self._fly(flight))
        except RuntimeError as error:  # no thread can be started while the interpreter shuts down
            self._cache.failed(f"the fetch thread cannot be started: {error}", self._monotonic())
            self._land(flight)
        return flight

    async def _fly(self, flight: "Future[None]") -> None:
        problem, misconfigured, retry_after = "the fetch was abandoned", False, 0.0
        loaded = None
        try:
            async with asyncio.timeout(FLIGHT_TIMEOUT):
                loaded = await self._load(self._thread.fetcher())
        except MisconfiguredError as error:
            problem, misconfigured = str(error), True
        except FetchFailedError as error:
            problem, retry_after = str(error), error.retry_after
        except TimeoutError:
            problem = f"the issuer took longer than {FLIGHT_TIMEOUT:.0f} s"
        except Exception as error:  # noqa: BLE001  # a transport of the user's may raise anything
            problem = f"the transport raised {type(error).__name__}"
        finally:
            try:
                if loaded is None:  # told without the lock: a log may be slow, or raise
                    _log.warning(
                        "keys of issuer %s: %s", self._issuer.url, problem, extra={"event": "key_fetch_failed"}
                    )
            finally:
                with self._lock:
                    now = self._monotonic()
                    if loaded is not None:
                        self._cache.succeeded(*loaded, now)
                        self._last_success = self._clock()
                    else:
                        self._cache.failed(problem, now, misconfigured=misconfigured, retry_after=retry_after)
                    self._land(flight)

    def _land(self, flight: "Future[None]") -> None:
        if self._flight is flight:
            self._flight = None
        flight.set_result(None)

    async def _load(self, fetcher: Fetcher) -> "tuple[KeySet, float | None]":
        if self._issuer.jwks_uri is None:
            self._jwks_uri = await self._discover(fetcher)
        url = self._jwks_uri
        document = await fetcher.get(url or "")
        try:
            keys, odd = read_key_set(document.content)
        except ValueError as error:
            raise FetchFailedError(FetchProblem.ABSENT, f"{url}: {error}") from None
        for sentence in odd:
            _log.info("keys of issuer %s: %s", self._issuer.url, sentence, extra={"event": "odd_key"})
        if not keys.is_usable:
            raise FetchFailedError(FetchProblem.ABSENT, f"{url} holds no usable signature key")
        return keys, document.max_age

    async def _discover(self, fetcher: Fetcher) -> str:
        """Return the `jwks_uri`: of today's metadata, or of the last good one where none can be had."""
        try:
            return await fetcher.endpoint(self._issuer, "jwks_uri")
        except FetchFailedError:
            if self._jwks_uri is None:
                raise
            return self._jwks_uri
