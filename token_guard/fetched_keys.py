"""The keys of one issuer, fetched by one flight for all who wait.

The shell around KeyCache: it reads the clock, holds the lock and starts the flights. A flight is one visit to the
issuer: metadata where it is needed, then the keys; where it brings none and none are held, the key store is asked.
Knows nothing about tokens beyond algorithm and key ID.
"""

import asyncio
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from typing import Any

from .algorithms import Algorithm
from .discovery import MisconfiguredError
from .errors import TemporarilyUnavailable, shown
from .events import Event, tell
from .fetch import Fetcher, FetchFailedError, FetchProblem
from .flights import FLIGHT_TIMEOUT, FetchThread, fork_aware, wait, wait_async
from .issuer import Issuer
from .kept_keys import KeptKeys
from .key_cache import KeyCache, KeyPolicy, Wait, Want
from .key_set import Key, KeySet, read_key_set
from .key_source import Clocks, IssuerHealth
from .key_store import StoredKeys

MOST_KEYS_TOLD = 10  # our own bound on what a log line names


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What a flight has brought."""

    keys: KeySet
    odd: list[str]
    max_age: float | None
    document: Any


@dataclass(frozen=True, slots=True)
class _Failed:
    """Why a flight has brought nothing."""

    problem: str
    misconfigured: bool = False
    retry_after: float = 0.0


@dataclass(frozen=True, slots=True)
class _Pending:
    """A flight, and for how many seconds to wait for it before asking again."""

    flight: "Future[None]"
    patience: float


class FetchedKeys:
    """Keys that are fetched from the issuer when they are needed; `public_only` as in Fetcher."""

    def __init__(
        self, issuer: Issuer, policy: KeyPolicy, thread: FetchThread, clocks: Clocks, *, public_only: bool
    ) -> None:
        self._issuer = issuer
        self._public_only = public_only
        self._policy = policy
        self._kept = None if policy.store is None else KeptKeys(issuer, policy, policy.store, clocks.clock)
        self._cache = KeyCache(policy)
        self._thread = thread
        self._monotonic = clocks.monotonic
        self._clock = clocks.clock
        self._last_success: float | None = None
        self._source: str | None = None
        self._has_told_stale = False
        self._jwks_uri = issuer.jwks_uri
        self._lock = threading.Lock()
        self._flight: Future[None] | None = None
        self._saved: Future[None] | None = None
        fork_aware.add(self)

    def ready(self, algorithm: Algorithm, kid: str | None) -> Sequence[Key]:
        return self._cache.ready(algorithm, kid, self._monotonic())

    def find(self, algorithm: Algorithm, kid: str | None) -> Sequence[Key]:
        seen, waited = self._cache.flights, False
        while isinstance(answer := self._ask(algorithm, kid, seen, waited), _Pending):
            try:
                wait(answer.flight, answer.patience)
            except TemporarilyUnavailable:
                waited = True
        return answer

    async def find_async(self, algorithm: Algorithm, kid: str | None) -> Sequence[Key]:
        seen, waited = self._cache.flights, False
        while isinstance(answer := self._ask(algorithm, kid, seen, waited), _Pending):
            try:
                await wait_async(answer.flight, answer.patience)
            except TemporarilyUnavailable:
                waited = True
        return answer

    def generation(self) -> int | None:
        return self._cache.fresh_generation(self._monotonic())

    def fetch(self) -> "Future[None]":
        """Return the flight under way, or a new one, whatever the cache wants."""
        with self._lock:
            return self._flight or self._start(Want.FETCH)

    def flight(self) -> "Future[None] | None":
        return self._flight

    def saved(self) -> "Future[None] | None":
        return self._saved

    def health(self) -> IssuerHealth:
        now, cache = self._monotonic(), self._cache
        age = None if cache.fetched_at is None else now - cache.fetched_at
        return IssuerHealth(
            issuer=self._issuer.url,
            state=cache.state(now),
            source=self._source,
            age=age,
            last_success=self._last_success,
            last_error=cache.last_error,
            next_attempt=max(0, cache.retry_at - now),
            key_ids=() if cache.keys is None else cache.keys.key_ids,
        )

    def begin_anew(self) -> None:
        """Begin anew in a forked child, which has neither the flight's thread nor a sound lock."""
        self._lock = threading.Lock()
        self._flight = self._saved = None
        self._cache.in_flight = False

    def _ask(self, algorithm: Algorithm, kid: str | None, seen: int, waited: bool) -> "Sequence[Key] | _Pending":
        with self._lock:
            now = self._monotonic()
            answer = self._cache.ask(algorithm, kid, now, seen=seen, waited=waited)
            if isinstance(answer, Wait):
                return _Pending(self._flight or self._start(answer.want), answer.seconds)
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
        saved: Future[None] = Future()
        try:
            outcome = await self._land_with_outcome(flight, saved)
            if isinstance(outcome, _Loaded) and self._kept is not None:  # nobody's token waits for the store
                await self._kept.save(self._jwks_uri or "", outcome.document)
        finally:
            saved.set_result(None)

    async def _land_with_outcome(self, flight: "Future[None]", saved: "Future[None]") -> _Loaded | _Failed:
        outcome: _Loaded | _Failed = _Failed("the fetch was abandoned")
        stored = None
        try:
            outcome = await self._visit()
            self._tell_outcome(outcome)  # without the lock: a log may be slow, or raise
            if isinstance(outcome, _Failed) and not outcome.misconfigured and self._cache.keys is None:
                stored = await self._restored()
        finally:
            with self._lock:
                self._note(outcome, stored, self._monotonic())
                self._saved = saved
                self._land(flight)
        return outcome

    def _note(self, outcome: _Loaded | _Failed, stored: StoredKeys | None, now: float) -> None:
        if isinstance(outcome, _Loaded):
            self._cache.succeeded(outcome.keys, outcome.max_age, now)
            self._last_success, self._source = self._clock(), "issuer"
            return
        self._cache.failed(outcome.problem, now, misconfigured=outcome.misconfigured, retry_after=outcome.retry_after)
        if stored is not None:
            self._cache.restored(stored.keys, now - (self._clock() - stored.fetched_at))
            self._last_success, self._source = stored.fetched_at, "key_store"

    async def _visit(self) -> _Loaded | _Failed:
        try:
            async with asyncio.timeout(FLIGHT_TIMEOUT):
                return await self._load(self._thread.fetcher(public_only=self._public_only))
        except MisconfiguredError as error:
            advice = "" if self._issuer.metadata_url is None else "; otherwise mend metadata_url"
            return _Failed(f"{error}{advice}", misconfigured=True)
        except FetchFailedError as error:
            advice = "check" if error.problem is FetchProblem.ABSENT else "where that lasts, check"
            return _Failed(f"{error}; {advice} the setting {self._setting}", retry_after=error.retry_after)
        except TimeoutError:
            return _Failed(f"the issuer took longer than {FLIGHT_TIMEOUT:.0f} s")
        except Exception as error:  # noqa: BLE001  # a transport of the user's may raise anything
            return _Failed(f"the transport raised {type(error).__name__}")

    async def _restored(self) -> StoredKeys | None:
        stored = None if self._kept is None else await self._kept.restore()
        # What pins do not cover must not lead to keys that they do not cover.
        if stored is not None and self._kept is not None and not self._kept.pinned:
            self._jwks_uri = stored.jwks_uri
        return stored

    def _tell_outcome(self, outcome: _Loaded | _Failed) -> None:
        """Log what is new since the flight before: a failure, keys that are stale from now on, other keys, recovery."""
        cache = self._cache
        if isinstance(outcome, _Failed):
            self._tell(Event.KEY_FETCH_FAILED, outcome.problem)
            if cache.is_stale(self._monotonic()) and not self._has_told_stale:
                self._has_told_stale = True
                limit = f"for at most {self._policy.stale_limit:.0f} s (stale_limit) after their time to live"
                self._tell(Event.STALE_KEYS_USED, f"those of the last good fetch are used, {limit}")
            return
        self._has_told_stale = False
        if cache.last_error is not None:
            self._tell(Event.ISSUER_RECOVERED, "the issuer answers again")
        if cache.keys is None or cache.keys.identity != outcome.keys.identity:
            self._tell_keys(cache.keys, outcome.keys, outcome.odd)

    def _tell_keys(self, held: KeySet | None, fetched: KeySet, odd: list[str]) -> None:
        after = fetched.key_ids
        before = after if held is None else held.key_ids
        fields = {
            "key_ids": _listed(after),
            "added": _listed(kid for kid in after if kid not in before),
            "withdrawn": _listed(kid for kid in before if kid not in after),
        }
        count = len(fetched.identity)
        texts = [f"{name} {' '.join(kids)}" for name, kids in fields.items() if kids]
        event = Event.KEYS_FETCHED if held is None else Event.KEYS_CHANGED
        self._tell(event, "; ".join([f"{count} usable", *texts, *odd[:MOST_KEYS_TOLD]]), keys=count, **fields)

    def _tell(self, event: Event, text: str, **fields: Any) -> None:
        tell(event, "keys of issuer %s: %s", self._issuer.url, text, issuer=self._issuer.url, **fields)

    def _land(self, flight: "Future[None]") -> None:
        if self._flight is flight:
            self._flight = None
        flight.set_result(None)

    async def _load(self, fetcher: Fetcher) -> _Loaded:
        if self._issuer.jwks_uri is None:
            self._jwks_uri = await self._discover(fetcher)
        url = self._jwks_uri
        document = await fetcher.get(url or "")
        try:
            keys, odd = read_key_set(document.content)
        except ValueError as error:
            raise FetchFailedError(FetchProblem.ABSENT, f"{url}: {error}") from None
        if not keys.is_usable:
            why = "; ".join(odd[:MOST_KEYS_TOLD]) or "it is empty"
            problem = f"{url} holds no usable signature key ({why}): the issuer must publish public ones there"
            raise FetchFailedError(FetchProblem.ABSENT, problem)
        return _Loaded(keys, odd, document.max_age, document.content)

    @property
    def _setting(self) -> str:
        """The name of the setting that led to the addresses that are asked."""
        return next(
            (name for name in ("jwks_uri", "metadata_url") if getattr(self._issuer, name) is not None), "issuer"
        )

    async def _discover(self, fetcher: Fetcher) -> str:
        """Return the `jwks_uri`: of today's metadata, or of the last good one where none can be had."""
        try:
            return await fetcher.endpoint(self._issuer, "jwks_uri")
        except FetchFailedError:
            if self._jwks_uri is None:
                raise
            return self._jwks_uri


def _listed(key_ids: Iterable[str]) -> list[str]:
    """Return the first of some key IDs, as a log may hold them."""
    return [shown(kid)[1:-1] for kid in islice(key_ids, MOST_KEYS_TOLD)]
