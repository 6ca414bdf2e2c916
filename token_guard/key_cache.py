"""May these keys be used, and is a fetch wanted? Pure: told the time, starts nothing, waits for nothing.

The promise: a good token whose key has been published for longer than the cooldown is never refused. RFC 8725 3.10.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from .algorithms import Algorithm
from .errors import ConfigurationError, InvalidToken, Reason, TemporarilyUnavailable, shown
from .jwk import VerificationKey
from .key_set import KeySet

MIN_LIFETIME = 60.0  # our own lower bound on an issuer's max-age, seconds: it must not make us fetch on every request
REFRESH_AHEAD = 0.8  # a refresh is wanted from this part of the lifetime on, at a random moment of what remains
FIRST_RETRY = 1.0  # seconds, doubled with each failure
LAST_RETRY = 30.0


@dataclass(frozen=True, kw_only=True)
class KeyPolicy:
    """How long an issuer's keys are used. All in seconds.

    `time_to_live`: keys are fetched again after this time; an issuer's Cache-Control may shorten it.
    `stale_limit`: while the issuer is down, keys are used for this long after their time to live.
    `unknown_key_cooldown`: unknown key IDs cause at most one fetch in this time.
    """

    time_to_live: float = 600
    stale_limit: float = 86_400
    unknown_key_cooldown: float = 5

    def __post_init__(self) -> None:
        for name, least in (("time_to_live", 1), ("stale_limit", 0), ("unknown_key_cooldown", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < float("inf"):
                raise ConfigurationError(f"KeyPolicy: {name} must be at least {least} seconds, not {value!r}")


class Want(Enum):
    """What the keys' user must do when it gets no keys."""

    FETCH = "fetch"
    FETCH_FOR_UNKNOWN_KEY = "fetch for an unknown key"


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
        self._last_good_flight = 0
        self._failures = 0
        self._refresh_at = self._expires_at = self._unusable_at = 0.0
        self._cooled_down_at = 0.0

    def ready(self, algorithm: Algorithm, kid: str | None, now: float) -> list[VerificationKey]:
        """Return the fitting keys while they are fresh and no refresh is wanted; otherwise none. The hot path."""
        keys = self.keys
        return keys.candidates(algorithm, kid) if keys is not None and now < self._refresh_at else []

    def fresh_generation(self, now: float) -> int | None:
        """Return which keys are held, while no refresh is wanted. It changes when the usable keys do."""
        return self.generation if now < self._refresh_at else None

    def ask(self, algorithm: Algorithm, kid: str | None, now: float, seen: int) -> list[VerificationKey] | Want:
        """Return the keys to try, or the fetch to wait for: the one in flight, or a new one.

        `seen` is the number of `flights` that had begun when the question first came up. Keys of a later flight are the
        answer, however long it took: so a question never waits for more than two flights.

        Raises:
            InvalidToken: `unknown_key`; a fetch within the cooldown has shown that the issuer has no such key.
            TemporarilyUnavailable: no usable keys, and it is too early to try again.
        """
        keys = self.keys
        just_fetched = self._last_good_flight > seen
        if keys is None or now >= self._unusable_at:
            return self._fetch_or_unavailable(Want.FETCH, now)
        if now >= self._expires_at and not self._failures and not just_fetched:
            return Want.FETCH
        candidates = keys.candidates(algorithm, kid)
        if candidates:
            return candidates
        if self._failures:  # the key may be new: a fetch that failed has not shown that it does not exist
            return self._fetch_or_unavailable(Want.FETCH_FOR_UNKNOWN_KEY, now)
        if not just_fetched and (self.in_flight or now >= self._cooled_down_at):
            return Want.FETCH_FOR_UNKNOWN_KEY
        raise InvalidToken(
            Reason.UNKNOWN_KEY,
            detail=f"no key for alg {algorithm.name} and kid {shown(kid)}; the issuer has {shown(list(keys.key_ids))}",
        )

    def wants_refresh(self, now: float) -> bool:
        """Whether a fetch is due that nobody needs to wait for."""
        return now >= self._refresh_at and now >= self.retry_at and not self.in_flight

    def unavailable(self, now: float) -> TemporarilyUnavailable:
        """Return the 503 of an issuer whose keys cannot be had."""
        reason = Reason.ISSUER_MISCONFIGURED if self.misconfigured else Reason.KEYS_UNAVAILABLE
        return TemporarilyUnavailable(reason, detail=self.last_error or "", retry_after=max(1.0, self.retry_at - now))

    def started(self, want: Want, now: float) -> None:
        """Record an attempt, before it is made. The cooldown counts from here, so that no slow fetch stretches it."""
        self.flights += 1
        self.in_flight = True
        if want is Want.FETCH_FOR_UNKNOWN_KEY:
            self._cooled_down_at = now + self._policy.unknown_key_cooldown

    def succeeded(self, keys: KeySet, max_age: float | None, now: float) -> None:
        """Replace the keys: those that the issuer no longer publishes are gone."""
        changed = self.keys is None or keys.identity != self.keys.identity
        lifetime = self._policy.time_to_live
        if max_age is not None:
            lifetime = min(lifetime, max(max_age, MIN_LIFETIME))
        self.keys = keys
        if changed:  # after the keys: whoever reads the generation first never takes old keys for those of a new one
            self.generation += 1
        self.in_flight = False
        self._last_good_flight = self.flights
        self.fetched_at = now
        self.last_error, self.misconfigured, self.retry_at, self._failures = None, False, 0.0, 0
        self._refresh_at = now + lifetime * (REFRESH_AHEAD + (1 - REFRESH_AHEAD) * self._spread())
        self._expires_at = now + lifetime
        self._unusable_at = self._expires_at + self._policy.stale_limit

    def failed(self, error: str, now: float, *, misconfigured: bool = False, retry_after: float = 0) -> None:
        """Keep what is held, and wait before the next attempt: 1 s, doubling, at most 30 s, shortened at random."""
        wait = min(LAST_RETRY, FIRST_RETRY * 2.0 ** min(self._failures, 10)) * (1 - self._spread() / 2)
        self._failures += 1
        self.in_flight = False
        self.retry_at = now + max(wait, min(retry_after, LAST_RETRY))
        self.last_error, self.misconfigured = error, misconfigured

    def state(self, now: float) -> str:
        """Return `fresh`, `stale`, `misconfigured`, `unavailable` or `never_fetched`."""
        if self.misconfigured:
            return "misconfigured"
        if self.keys is None or now >= self._unusable_at:
            return "unavailable" if self._failures else "never_fetched"
        return "fresh" if now < self._expires_at else "stale"

    def _fetch_or_unavailable(self, want: Want, now: float) -> Want:
        if now < self.retry_at and not self.in_flight:
            raise self.unavailable(now)
        return want
