"""May these keys be used, and is a fetch wanted? Pure: told the time, starts nothing, waits for nothing.

The promise: a good token whose key has been published for longer than the cooldown is never refused. RFC 8725 3.10.
"""

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum
from functools import partial

from .algorithms import Algorithm
from .errors import ConfigurationError, InvalidToken, Reason, TemporarilyUnavailable, shown
from .issuer import string_set
from .jwk import VerificationKey
from .key_set import KeySet, generations, told_key_ids
from .key_store import KeyStore
from .settings import seconds

MIN_LIFETIME = 60.0  # our own lower bound on an issuer's max-age, seconds: it must not make us fetch on every request
REFRESH_AHEAD = 0.8  # a refresh is wanted from this part of the lifetime on, at a random moment of what remains
FIRST_RETRY = 1.0  # seconds, doubled with each failure
LAST_RETRY = 30.0
LONGEST_RETRY_AFTER = 120.0  # our own upper bound on an issuer's Retry-After: it must not shut us out for a day

FIRST_KEYS_PATIENCE = 11.0  # seconds; a flight ends by itself before
UNKNOWN_KEY_PATIENCE = 6.0  # a hanging issuer must not let junk tokens hold every thread of a server for longer
PATIENCE_IN_OUTAGE = 1.0  # where there is no key for the token: a second after a failure, nobody waits for the next
EXPIRED_KEYS_PATIENCE = 2.0  # then the issuer counts as down, and what is held is used up to the stale limit


@dataclass(frozen=True, kw_only=True)
class KeyPolicy:
    """How long an issuer's keys are used. All in seconds.

    `time_to_live`: keys are fetched again after this time; an issuer's Cache-Control may shorten it.
    `stale_limit`: while the issuer is down, keys are used for this long after their time to live.
    `unknown_key_cooldown`: unknown key IDs cause at most one fetch in this time.
    `store`: where the last good keys are kept, for a process that starts while the issuer is down. Their age counts
    against the same limits. Who can write there can mint tokens for all who read it, unless `pinned_thumbprints` names
    the only keys that are taken from it (RFC 7638, SHA-256, base64url).

    Raises:
        ConfigurationError: a setting is out of range or of the wrong type.
    """

    time_to_live: float = 600
    stale_limit: float = 86_400
    unknown_key_cooldown: float = 5
    store: KeyStore | None = None
    pinned_thumbprints: Collection[str] | None = None

    def __post_init__(self) -> None:
        if self.store is not None and not all(callable(getattr(self.store, name, None)) for name in ("load", "save")):
            raise ConfigurationError(f"KeyPolicy: store must have the methods load and save, not be {self.store!r}")
        if self.pinned_thumbprints is not None:
            pins = frozenset(string_set("KeyPolicy: pinned_thumbprints", self.pinned_thumbprints))
            if self.store is None:
                raise ConfigurationError("KeyPolicy: pinned_thumbprints are for what a store holds; give store= too")
            object.__setattr__(self, "pinned_thumbprints", pins)
        for name, least in (("time_to_live", 1), ("stale_limit", 0), ("unknown_key_cooldown", 0)):
            value = seconds(f"KeyPolicy: {name}", getattr(self, name))
            if value < least:
                raise ConfigurationError(f"KeyPolicy: {name} must be at least {least} seconds, not {value!r}")


class Want(Enum):
    """What the keys' user must do when it gets no keys."""

    FETCH = "fetch"
    FETCH_FOR_UNKNOWN_KEY = "fetch for an unknown key"


@dataclass(frozen=True, slots=True)
class Wait:
    """The fetch to wait for, and for how many seconds from now before asking again, having `waited`."""

    want: Want
    seconds: float


class KeyCache:
    """The keys of one issuer and what is known of their freshness. `now` is always a monotonic time in seconds."""

    def __init__(self, policy: KeyPolicy, *, spread: Callable[[], float] = random.random) -> None:
        self._policy = policy
        self._spread = spread
        self.keys: KeySet | None = None
        self.generation: int = 0
        self.fetched_at: float | None = None
        self.last_error: str | None = None
        self.misconfigured: bool = False
        self.retry_at: float = 0.0
        self.flights: int = 0
        self.in_flight: bool = False
        self._started_at = 0.0
        self._last_good_flight = 0
        self._failures = 0
        self._refresh_at = self._expires_at = self._unusable_at = 0.0
        self._cooled_down_at = self._retry_unknown_at = 0.0

    def ready(self, algorithm: Algorithm, kid: str | None, now: float) -> list[VerificationKey]:
        """Return the fitting keys while they are fresh and no refresh is wanted; otherwise none. The hot path."""
        keys = self.keys
        return keys.candidates(algorithm, kid) if keys is not None and now < self._refresh_at else []

    def fresh_generation(self, now: float) -> int | None:
        """Return which keys are held, while no refresh is wanted. It changes when the usable keys do."""
        return self.generation if now < self._refresh_at else None

    def ask(
        self, algorithm: Algorithm, kid: str | None, now: float, *, seen: int, waited: bool = False
    ) -> list[VerificationKey] | Wait:
        """Return the keys to try, or the fetch to wait for: the one in flight, or a new one.

        `seen` is the number of `flights` that had begun when the question first came up. Keys of a later flight are the
        answer, however long it took: so a question never waits for more than two flights. `waited` says that it has
        waited for as long as it may.

        Raises:
            InvalidToken: `unknown_key`; a fetch within the cooldown has shown that the issuer has no such key.
            TemporarilyUnavailable: no usable keys, and it is too early to try again.
        """
        keys = self.keys
        just_fetched = self._last_good_flight > seen
        # Asked for what must hold, here and below, which nothing does where the clock says NaN.
        if keys is None or not (just_fetched or now < self._unusable_at):
            patience = PATIENCE_IN_OUTAGE if self._failures else FIRST_KEYS_PATIENCE
            return self._wait_or_unavailable(Want.FETCH, patience, now, waited)
        expired = not (just_fetched or self._failures or now < self._expires_at)
        candidates = keys.candidates(algorithm, kid)
        if candidates:
            patience = self._left_of(EXPIRED_KEYS_PATIENCE, now)
            return Wait(Want.FETCH, patience) if expired and patience > 0 and not waited else candidates
        if expired:
            return self._wait_or_unavailable(Want.FETCH, UNKNOWN_KEY_PATIENCE, now, waited)
        if self._failures:  # the key may be new: a fetch that failed has not shown that it does not exist
            return self._wait_or_unavailable(Want.FETCH_FOR_UNKNOWN_KEY, PATIENCE_IN_OUTAGE, now, waited)
        if not just_fetched and (self.in_flight or now >= self._cooled_down_at):
            return self._wait_or_unavailable(Want.FETCH_FOR_UNKNOWN_KEY, UNKNOWN_KEY_PATIENCE, now, waited)
        raise InvalidToken(Reason.UNKNOWN_KEY, detail=partial(_unknown_key, algorithm.name, kid, keys.key_ids))

    def wants_refresh(self, now: float) -> bool:
        """Whether a fetch is due that nobody needs to wait for."""
        return not (now < self._refresh_at or now < self.retry_at or self.in_flight)

    def unavailable(self, now: float) -> TemporarilyUnavailable:
        """Return the 503 of an issuer whose keys cannot be had."""
        reason = Reason.ISSUER_MISCONFIGURED if self.misconfigured else Reason.KEYS_UNAVAILABLE
        detail = self.last_error or "the issuer has not answered yet"
        return TemporarilyUnavailable(reason, detail=detail, retry_after=max(1.0, self.retry_at - now))

    def started(self, want: Want, now: float) -> None:
        """Record an attempt, before it is made. The cooldown counts from here, so that no slow fetch stretches it."""
        self.flights += 1
        self.in_flight = True
        self._started_at = now
        if want is Want.FETCH_FOR_UNKNOWN_KEY:
            self._cooled_down_at = now + self._policy.unknown_key_cooldown

    def succeeded(self, keys: KeySet, max_age: float | None, now: float) -> None:
        """Replace the keys: those that the issuer no longer publishes are gone."""
        lifetime = self._policy.time_to_live
        if max_age is not None:
            lifetime = min(lifetime, max(max_age, MIN_LIFETIME))
        self._hold(keys, now, lifetime)
        self.in_flight = False
        self._last_good_flight = self.flights
        self.last_error, self.misconfigured, self._failures = None, False, 0
        self.retry_at = self._retry_unknown_at = 0.0

    def restored(self, keys: KeySet, fetched_at: float) -> None:
        """Hold keys that were fetched at an earlier time, where none are held. The issuer goes on being asked."""
        if self.keys is None:
            self._hold(keys, fetched_at, self._policy.time_to_live)

    def failed(self, error: str, now: float, *, misconfigured: bool = False, retry_after: float = 0) -> None:
        """Keep what is held, and wait before the next attempt: 1 s, doubling, at most 30 s, shortened at random."""
        wait = min(LAST_RETRY, FIRST_RETRY * 2.0 ** min(self._failures, 10)) * (1 - self._spread() / 2)
        self._failures += 1
        self.in_flight = False
        earliest = now + min(retry_after, LONGEST_RETRY_AFTER)
        self.retry_at = max(now + wait, earliest)
        # The key may be new: where the issuer is back, nobody waits for the end of a long back-off to learn that.
        unknown_at = max(self._cooled_down_at, now + FIRST_RETRY)
        self._retry_unknown_at = max(min(now + wait, unknown_at), earliest)
        self.last_error, self.misconfigured = error, misconfigured

    def state(self, now: float) -> str:
        """Return `fresh`, `stale`, `misconfigured`, `unavailable` or `never_fetched`."""
        if self.misconfigured:
            return "misconfigured"
        if self.keys is None or now >= self._unusable_at:
            return "unavailable" if self._failures else "never_fetched"
        return "stale" if self.is_stale(now) else "fresh"

    def is_stale(self, now: float) -> bool:
        """Tell whether keys are held beyond their time to live, and may still be used."""
        return self.keys is not None and self._expires_at <= now < self._unusable_at

    def _hold(self, keys: KeySet, fetched_at: float, lifetime: float) -> None:
        changed = self.keys is None or keys.identity != self.keys.identity
        self.keys = keys
        if changed:  # after the keys: whoever reads the generation first never takes old keys for those of a new one
            self.generation = next(generations)
        self.fetched_at = fetched_at
        self._refresh_at = fetched_at + lifetime * (REFRESH_AHEAD + (1 - REFRESH_AHEAD) * self._spread())
        self._expires_at = fetched_at + lifetime
        self._unusable_at = self._expires_at + self._policy.stale_limit

    def _wait_or_unavailable(self, want: Want, patience: float, now: float, waited: bool) -> Wait:
        left = self._left_of(patience, now)
        retry_at = self._retry_unknown_at if want is Want.FETCH_FOR_UNKNOWN_KEY else self.retry_at
        if waited or left <= 0 or (now < retry_at and not self.in_flight):
            raise self.unavailable(now)
        return Wait(want, left)

    def _left_of(self, patience: float, now: float) -> float:
        """Return what is left of a patience that counts from the beginning of the flight, where one is under way."""
        return self._started_at + patience - now if self.in_flight else patience


def _unknown_key(alg: str, kid: str | None, key_ids: tuple[str, ...]) -> str:
    detail = f"no key for alg {alg} and kid {shown(kid)}; the issuer has {told_key_ids(key_ids)}"
    detail += ": was it withdrawn, or is the token another issuer's?"
    return f"{detail} Where jwks_uri is set, that may be another issuer's, too"
