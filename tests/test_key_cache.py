"""When keys may be used and when a fetch is wanted: pure, told every moment, so that hours pass in microseconds."""

import heapq
import math
import tracemalloc
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from token_guard.algorithms import ALGORITHMS
from token_guard.errors import ConfigurationError, InvalidToken, Reason, TemporarilyUnavailable
from token_guard.key_cache import LONGEST_RETRY_AFTER, MIN_LIFETIME, KeyCache, KeyPolicy, Wait, Want
from token_guard.key_set import KeySet, read_key_set
from token_guard.key_store import FileKeyStore
from token_guard.testing import SigningKey

ED = ALGORITHMS["Ed25519"]
KIDS = ("k0", "k1", "k2", "k3")
JWKS = {kid: SigningKey.generate("Ed25519", kid).public_jwk() for kid in KIDS}
POLICY = KeyPolicy(time_to_live=600, stale_limit=3600, unknown_key_cooldown=5)
LIFETIME_ENDS, STALE_ENDS = 600, 600 + 3600
REFRESH = 0.8 * 600


def key_set(*kids: str) -> KeySet:
    return read_key_set({"keys": [JWKS[kid] for kid in kids]})[0]


def empty(policy: KeyPolicy = POLICY, spread: float = 0) -> KeyCache:
    return KeyCache(policy, spread=lambda: spread)


def filled(*kids: str, at: float = 0, max_age: float | None = None, **options: Any) -> KeyCache:
    """A cache that fetched these keys in one moment."""
    cache = empty(**options)
    fetch(cache, *kids, at=at, max_age=max_age)
    return cache


def fetch(cache: KeyCache, *kids: str, at: float, want: Want = Want.FETCH, max_age: float | None = None) -> None:
    cache.started(want, at)
    cache.succeeded(key_set(*kids), max_age, at)


def fail(cache: KeyCache, *, at: float, want: Want = Want.FETCH, **options: Any) -> None:
    cache.started(want, at)
    cache.failed("the issuer is down", at, **options)


def ask(cache: KeyCache, kid: str = "k0", *, at: float, seen: int | None = None, waited: bool = False) -> object:
    """What the cache answers: key IDs, a wanted fetch, or the reason for a refusal."""
    try:
        answer = cache.ask(ED, kid, at, seen=cache.flights if seen is None else seen, waited=waited)
    except (InvalidToken, TemporarilyUnavailable) as refusal:
        return refusal.reason
    return answer.want if isinstance(answer, Wait) else [key.kid for key in answer]


# Freshness.


def test_begins_with_nothing() -> None:
    """No keys, no flight, and no generation that any keys have."""
    cache = empty()
    assert [cache.keys, cache.generation, cache.flights, cache.in_flight] == [None, 0, 0, False]
    assert [cache.fetched_at, cache.last_error, cache.misconfigured] == [None, None, False]
    fetch(cache, "k0", at=0)
    assert (cache.flights, cache.in_flight) == (1, False)


def test_wants_a_first_fetch() -> None:
    """JWK-18: with nothing held a fetch is wanted, and it is no fetch for an unknown key."""
    assert ask(empty(), at=0) is Want.FETCH
    assert empty().state(0) == "never_fetched"


@pytest.mark.parametrize(
    ("at", "answer", "state"),
    [
        (0, ["k0"], "fresh"),
        (LIFETIME_ENDS - 0.1, ["k0"], "fresh"),
        (LIFETIME_ENDS, Want.FETCH, "stale"),
        (STALE_ENDS - 0.1, Want.FETCH, "stale"),
        (STALE_ENDS, Want.FETCH, "never_fetched"),
    ],
)
def test_keys_live_for_their_time(at: float, answer: object, state: str) -> None:
    """JWK-10: after the time to live everybody waits for a fetch, so that a withdrawn key stops working."""
    cache = filled("k0")
    assert ask(cache, at=at) == answer
    assert cache.state(at) == state


@pytest.mark.parametrize(
    ("max_age", "lifetime"), [(None, 600), (120, 120), (0, MIN_LIFETIME), (5, MIN_LIFETIME), (10_000, 600)]
)
def test_the_issuer_may_shorten_the_lifetime_within_bounds(max_age: float | None, lifetime: float) -> None:
    """Cache-Control shortens the time to live, never below a minute and never beyond the policy."""
    cache = filled("k0", max_age=max_age)
    assert ask(cache, at=lifetime - 0.1) == ["k0"]
    assert ask(cache, at=lifetime) is Want.FETCH


def test_a_lifetime_below_the_minimum_is_the_operator_s_to_choose() -> None:
    """The lower bound is for the issuer's header, not for the policy."""
    cache = filled("k0", policy=KeyPolicy(time_to_live=1), max_age=0)
    assert ask(cache, at=1) is Want.FETCH


@pytest.mark.parametrize(("spread", "refresh_at"), [(0, REFRESH), (0.5, 540), (0.99, 598.8)])
def test_wants_a_refresh_ahead_at_a_random_moment(spread: float, refresh_at: float) -> None:
    """A refresh is wanted before the keys expire, while they go on being used; many processes spread theirs."""
    cache = filled("k0", spread=spread)
    before = refresh_at - 0.01
    assert not cache.wants_refresh(before)
    assert cache.ready(ED, "k0", before)
    assert cache.wants_refresh(refresh_at + 0.01)
    assert not cache.ready(ED, "k0", refresh_at + 0.01)
    assert ask(cache, at=refresh_at + 0.01) == ["k0"]


def test_keys_are_at_hand_until_a_refresh_is_wanted() -> None:
    """And not at that very moment, when whoever comes first must start it."""
    cache = filled("k0")
    before, at = math.nextafter(REFRESH, 0), REFRESH
    assert [key.kid for key in cache.ready(ED, "k0", before)] == ["k0"]
    assert (cache.fresh_generation(before), cache.wants_refresh(before)) == (cache.generation, False)
    assert cache.ready(ED, "k0", at) == []
    assert (cache.fresh_generation(at), cache.wants_refresh(at)) == (None, True)


def test_wants_one_refresh_at_a_time() -> None:
    """JWK-17: while a fetch is under way no other is wanted."""
    cache = filled("k0")
    cache.started(Want.FETCH, REFRESH)
    assert not cache.wants_refresh(REFRESH + 1)
    assert ask(cache, at=REFRESH + 1) == ["k0"]


def test_withdrawn_keys_are_gone_with_the_next_fetch() -> None:
    """JWK-10, SEC-02: a key that is no longer published verifies nothing after the next good fetch."""
    cache = filled("k0", "k1")
    fetch(cache, "k1", at=10)
    assert ask(cache, "k0", at=10, seen=0) is Reason.UNKNOWN_KEY
    assert ask(cache, "k1", at=10) == ["k1"]


@pytest.mark.parametrize(("kids", "changes"), [(("k0",), False), (("k0", "k1"), True), (("k1",), True)])
def test_the_generation_changes_with_the_keys_alone(kids: tuple[str, ...], changes: bool) -> None:
    """A refetch of the same keys is no new generation; a key more or less is."""
    cache = filled("k0")
    before = cache.generation
    fetch(cache, *kids, at=10)
    assert (cache.generation != before) is changes


def test_no_two_issuers_share_a_generation() -> None:
    """SEC-02: what keys of one issuer verified is never taken for verified by those of another, or of its successor."""
    assert len({filled("k0").generation for _ in range(3)}) == 3


def test_the_order_of_the_keys_is_no_new_generation() -> None:
    """Issuers publish the same keys in any order."""
    cache = filled("k0", "k1")
    before = cache.generation
    fetch(cache, "k1", "k0", at=10)
    assert cache.generation == before


# Unknown keys.


def test_an_unknown_key_wants_a_fetch_at_once() -> None:
    """JWK-10: neither the first fetch nor a scheduled one starts a cooldown."""
    cache = filled("k0")
    assert ask(cache, "k1", at=0.001) is Want.FETCH_FOR_UNKNOWN_KEY
    fetch(cache, "k0", at=500)
    assert ask(cache, "k1", at=500.001) is Want.FETCH_FOR_UNKNOWN_KEY


def test_the_cooldown_counts_from_the_start_of_the_fetch() -> None:
    """JWK-09: an unknown key causes one fetch per cooldown, and a slow fetch does not stretch it."""
    cache = filled("k0")
    cache.started(Want.FETCH_FOR_UNKNOWN_KEY, 10)
    cache.succeeded(key_set("k0"), None, 14)
    assert ask(cache, "k1", at=14.9) is Reason.UNKNOWN_KEY
    assert ask(cache, "k1", at=15) is Want.FETCH_FOR_UNKNOWN_KEY


def test_the_cooldown_is_one_for_all_unknown_keys() -> None:
    """JWK-09: a thousand random key IDs cause no more fetches than one, and known keys are answered meanwhile."""
    cache = filled("k0")
    fetch(cache, "k0", at=10, want=Want.FETCH_FOR_UNKNOWN_KEY)
    assert {ask(cache, f"junk-{number}", at=10 + number / 250) for number in range(1000)} == {Reason.UNKNOWN_KEY}
    assert ask(cache, "k0", at=11) == ["k0"]


def test_an_unknown_key_joins_the_fetch_under_way() -> None:
    """JWK-17: even within the cooldown it waits for a fetch that somebody else caused."""
    cache = filled("k0")
    fetch(cache, "k0", at=10, want=Want.FETCH_FOR_UNKNOWN_KEY)
    cache.started(Want.FETCH, 12)
    assert ask(cache, "k1", at=12.5) is Want.FETCH_FOR_UNKNOWN_KEY
    cache.succeeded(key_set("k0", "k1"), None, 13)
    assert ask(cache, "k1", at=13) == ["k1"]


def test_a_question_is_answered_by_a_fetch_that_began_after_it() -> None:
    """However long the fetch took, its keys are the answer: no question waits for more than two flights."""
    cache = empty()
    fetch(cache, "k0", at=0)
    assert ask(cache, "k1", at=1000, seen=0) is Reason.UNKNOWN_KEY
    assert ask(cache, "k0", at=700, seen=0) == ["k0"]


def test_a_question_is_not_answered_by_a_fetch_that_began_before_it() -> None:
    """The issuer may have published the key after it answered that fetch."""
    cache = empty()
    cache.started(Want.FETCH, 0)
    seen = cache.flights
    cache.succeeded(key_set("k0"), None, 1)
    assert ask(cache, "k1", at=1, seen=seen) is Want.FETCH_FOR_UNKNOWN_KEY


@pytest.mark.parametrize("at", [STALE_ENDS + 1, math.inf, math.nan])
def test_a_question_never_waits_for_more_than_two_flights(at: float) -> None:
    """Keys of a flight that began after it are the answer, though they are past all limits when it looks."""
    cache = filled("k0")
    assert ask(cache, at=at) is Want.FETCH
    fetch(cache, "k0", at=0)
    assert ask(cache, at=at, seen=1) == ["k0"]


def test_a_clock_that_tells_no_time_keeps_no_keys() -> None:
    """Nothing is earlier than NaN: neither now, nor the end of keys that were fetched then."""
    cache = filled("k0")
    assert cache.ready(ED, "k0", math.nan) == []
    assert cache.fresh_generation(math.nan) is None
    assert ask(cache, at=math.nan) is Want.FETCH
    assert cache.wants_refresh(math.nan)
    cache = filled("k0", at=math.nan)
    assert cache.ready(ED, "k0", 1) == []
    assert ask(cache, at=1) is Want.FETCH
    assert cache.wants_refresh(1)
    fetch(cache, "k1", at=2)
    assert (ask(cache, at=3), ask(cache, "k1", at=3)) == (Want.FETCH_FOR_UNKNOWN_KEY, ["k1"])


def test_the_log_tells_what_an_unknown_key_may_come_from() -> None:
    """JWK-09: true whether the keys' address was set or found."""
    cache = filled("k0")
    cache.started(Want.FETCH_FOR_UNKNOWN_KEY, 1)
    cache.succeeded(key_set("k0"), None, 1)
    with pytest.raises(InvalidToken) as refused:
        cache.ask(ED, "k1", 1, seen=0)
    assert refused.value.reason is Reason.UNKNOWN_KEY
    assert refused.value.detail == (
        "no key for alg Ed25519 and kid 'k1'; the issuer has ['k0']: was it withdrawn, or is the token another"
        " issuer's? Where jwks_uri is set, that may be another issuer's, too"
    )


def test_a_key_that_does_not_fit_is_unknown() -> None:
    """JWK-07: the key ID of a key of another type finds nothing, and nothing is guessed."""
    cache = filled("k0")
    answer = cache.ask(ALGORITHMS["RS256"], "k0", 1, seen=cache.flights)
    assert isinstance(answer, Wait)
    assert answer.want is Want.FETCH_FOR_UNKNOWN_KEY


def test_no_key_id_finds_only_a_single_key() -> None:
    """JWK-11: without a key ID one fitting key is used, and none of two."""
    one, two = filled("k0"), filled("k0", "k1")
    assert [key.kid for key in one.ready(ED, None, 1)] == ["k0"]
    assert not two.ready(ED, None, 1)


# Failures.


@pytest.mark.parametrize(("spread", "shortest"), [(0, 1.0), (0.5, 0.75), (0.999, 0.5005)])
def test_backs_off_after_failures(spread: float, shortest: float) -> None:
    """The waits double from 1 s to at most 30 s, for ever; jitter only shortens them, at most by half."""
    cache = empty(spread=spread)
    waits = []
    for _ in range(3000):
        fail(cache, at=100)
        waits.append(cache.retry_at - 100)
    assert waits[:7] == pytest.approx([wait * shortest for wait in (1, 2, 4, 8, 16, 30, 30)])
    assert waits[-1] == pytest.approx(30 * shortest)


def test_a_success_ends_the_back_off() -> None:
    """After a good fetch the next failure waits a second again."""
    cache = empty()
    for _ in range(5):
        fail(cache, at=0)
    fetch(cache, "k0", at=10)
    assert (cache.retry_at, cache.last_error, cache.misconfigured) == (0, None, False)
    fail(cache, at=20)
    assert cache.retry_at == 21


@pytest.mark.parametrize(("retry_after", "retry_at"), [(0, 1), (0.5, 1), (7, 7), (86_400, LONGEST_RETRY_AFTER)])
def test_heeds_what_the_issuer_asks_for_within_bounds(retry_after: float, retry_at: float) -> None:
    """Retry-After of the issuer lengthens the wait, but a day of it must not keep us down for a day."""
    cache = empty()
    fail(cache, at=0, retry_after=retry_after)
    assert cache.retry_at == retry_at


def test_without_keys_everything_is_unavailable_until_the_next_attempt() -> None:
    """JWK-18: a failure to get keys is no judgement on the token; the 503 says when to come again."""
    cache = empty()
    for _ in range(3):
        fail(cache, at=0)
    with pytest.raises(TemporarilyUnavailable) as unavailable:
        cache.ask(ED, "k0", 1.5, seen=cache.flights)
    assert unavailable.value.reason is Reason.KEYS_UNAVAILABLE
    assert unavailable.value.retry_after == 2.5
    assert cache.state(1.5) == "unavailable"
    assert ask(cache, at=4) is Want.FETCH


def test_a_refusal_never_promises_less_than_a_second() -> None:
    """Retry-After is at least one second, also a moment before the next attempt."""
    cache = empty()
    fail(cache, at=0)
    with pytest.raises(TemporarilyUnavailable) as unavailable:
        cache.ask(ED, "k0", 0.999, seen=cache.flights)
    assert unavailable.value.retry_after == 1


def test_waits_for_the_attempt_under_way_instead_of_the_next() -> None:
    """During a back-off that an attempt of somebody else has ended, its outcome is waited for."""
    cache = empty()
    fail(cache, at=0)
    cache.started(Want.FETCH, 0.5)
    assert ask(cache, at=0.6) is Want.FETCH


@pytest.mark.parametrize(
    ("at", "answer", "state"),
    [
        (LIFETIME_ENDS + 1, ["k0"], "stale"),
        (STALE_ENDS - 0.1, ["k0"], "stale"),
        (STALE_ENDS, Want.FETCH, "unavailable"),
        (STALE_ENDS + 99_999, Want.FETCH, "unavailable"),
    ],
)
def test_stale_keys_are_used_while_the_issuer_is_down(at: float, answer: object, state: str) -> None:
    """JWK-18: a failed fetch throws no good keys away, and nobody waits, up to the stale limit."""
    cache = filled("k0")
    fail(cache, at=REFRESH)
    assert ask(cache, at=at) == answer
    assert cache.state(at) == state


def test_stale_keys_are_refused_at_the_limit() -> None:
    """JWK-18: staleness is bounded; between two attempts the answer is then 503."""
    cache = filled("k0")
    fail(cache, at=STALE_ENDS)
    assert ask(cache, at=STALE_ENDS + 0.5) is Reason.KEYS_UNAVAILABLE


def test_no_staleness_where_the_policy_allows_none() -> None:
    """A stale limit of 0 ends the keys with their time to live."""
    cache = filled("k0", policy=KeyPolicy(stale_limit=0))
    fail(cache, at=REFRESH)
    assert ask(cache, at=600 - 0.1) == ["k0"]
    fail(cache, at=600)
    assert ask(cache, at=600.5) is Reason.KEYS_UNAVAILABLE


def test_an_unknown_key_during_an_outage_is_no_judgement() -> None:
    """JWK-18: after a failed fetch nobody knows whether the key exists: 503, and a known key works on."""
    cache = filled("k0")
    fail(cache, at=10, want=Want.FETCH_FOR_UNKNOWN_KEY)
    assert ask(cache, "k1", at=10.5) is Reason.KEYS_UNAVAILABLE
    assert ask(cache, "k0", at=10.5) == ["k0"]
    assert ask(cache, "k1", at=11) is Want.FETCH_FOR_UNKNOWN_KEY


def test_a_refresh_waits_for_the_end_of_the_back_off() -> None:
    """A failed refresh is tried again after its wait, not with every request."""
    cache = filled("k0")
    fail(cache, at=REFRESH)
    assert not cache.wants_refresh(REFRESH + 0.9)
    assert cache.wants_refresh(REFRESH + 1)


def test_misconfigured_is_not_an_outage() -> None:
    """A wrong setting has its own state and reason, with keys held or without; the next success clears it."""
    cache = empty()
    fail(cache, at=0, misconfigured=True)
    assert ask(cache, at=0.5) is Reason.ISSUER_MISCONFIGURED
    assert cache.state(0.5) == "misconfigured"
    fetch(cache, "k0", at=1)
    assert cache.state(1) == "fresh"
    fail(cache, at=2, misconfigured=True)
    assert (cache.state(2), ask(cache, at=2)) == ("misconfigured", ["k0"])
    fail(cache, at=4)
    assert cache.state(4) == "fresh"


@pytest.mark.parametrize("name", ["time_to_live", "stale_limit", "unknown_key_cooldown"])
@pytest.mark.parametrize("value", [-1, "60", None, True, float("inf"), float("nan")], ids=repr)
def test_policy_refuses_what_is_no_time(name: str, value: object) -> None:
    """CONFIG: the error names the setting."""
    with pytest.raises(ConfigurationError, match=name):
        KeyPolicy(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"store": object()},
        {"store": "keys"},
        {"pinned_thumbprints": ["x"]},
        {"store": FileKeyStore("keys"), "pinned_thumbprints": []},
        {"store": FileKeyStore("keys"), "pinned_thumbprints": [b"x"]},
    ],
)
def test_policy_refuses_what_is_no_store(options: dict[str, Any]) -> None:
    """A store that cannot be asked, pins without a store and pins that are no text are told at once, by name."""
    with pytest.raises(ConfigurationError, match=f"KeyPolicy: {list(options)[-1]}"):
        KeyPolicy(**options)


# Patience: whom a slow issuer may keep waiting, and for how long.


def wait_for(cache: KeyCache, kid: str, at: float) -> Wait:
    answer = cache.ask(ED, kid, at, seen=cache.flights)
    assert isinstance(answer, Wait)
    return answer


def test_policy_says_what_is_wrong_of_its_pins() -> None:
    """And keeps right ones as a set, which nobody changes afterwards."""
    with pytest.raises(ConfigurationError) as refused:
        KeyPolicy(pinned_thumbprints=["a"])
    assert str(refused.value) == "KeyPolicy: pinned_thumbprints are for what a store holds; give store= too"
    with pytest.raises(ConfigurationError, match="^KeyPolicy: pinned_thumbprints must be"):
        KeyPolicy(pinned_thumbprints=[])
    with pytest.raises(ConfigurationError, match="^KeyPolicy: time_to_live must be at least 1 seconds, not 0.0$"):
        KeyPolicy(time_to_live=0)
    pins = ["a"]
    policy = KeyPolicy(store=FileKeyStore("anywhere"), pinned_thumbprints=pins)
    pins.append("b")
    assert policy.pinned_thumbprints == {"a"}


def test_a_known_key_waits_two_seconds_at_the_end_of_its_time() -> None:
    """A fetch that hangs is an outage after two seconds for keys that are held, counted from its beginning."""
    cache = filled("k0")
    assert wait_for(cache, "k0", LIFETIME_ENDS) == Wait(Want.FETCH, 2)
    cache.started(Want.FETCH, LIFETIME_ENDS)
    assert wait_for(cache, "k0", LIFETIME_ENDS + 1.5) == Wait(Want.FETCH, 0.5)
    assert ask(cache, at=LIFETIME_ENDS + 1, waited=True) == ["k0"]
    assert ask(cache, at=LIFETIME_ENDS + 2) == ["k0"]


def test_without_staleness_a_known_key_waits_for_the_fetch() -> None:
    """Where the policy allows no staleness, a hanging issuer makes nobody use keys whose time is over."""
    cache = filled("k0", policy=KeyPolicy(stale_limit=0))
    cache.started(Want.FETCH, LIFETIME_ENDS)
    assert wait_for(cache, "k0", LIFETIME_ENDS + 9) == Wait(Want.FETCH, 2)
    assert ask(cache, at=LIFETIME_ENDS + 9, waited=True) is Reason.KEYS_UNAVAILABLE


def test_an_unknown_key_waits_six_seconds_of_a_fetch() -> None:
    """A new key is waited for; but anybody can name one, and a hanging issuer must not hold every thread for long."""
    cache = filled("k0")
    cache.started(Want.FETCH_FOR_UNKNOWN_KEY, 100)
    assert wait_for(cache, "k1", 101) == Wait(Want.FETCH_FOR_UNKNOWN_KEY, 5)
    assert ask(cache, "k1", at=102, waited=True) is Reason.KEYS_UNAVAILABLE
    assert ask(cache, "k1", at=106) is Reason.KEYS_UNAVAILABLE
    assert ask(cache, "k0", at=106) == ["k0"]


def test_an_unknown_key_is_looked_for_again_before_a_long_back_off_ends() -> None:
    """Once the issuer is back, a new key is found at the pace of the cooldown, and not a back-off later."""
    cache = filled("k0")
    for _ in range(7):
        fail(cache, at=100, want=Want.FETCH_FOR_UNKNOWN_KEY)
    assert cache.retry_at == 130
    assert ask(cache, "k1", at=104.9) is Reason.KEYS_UNAVAILABLE
    assert ask(cache, "k1", at=105) is Want.FETCH_FOR_UNKNOWN_KEY
    assert not cache.wants_refresh(105)


def test_an_unknown_key_heeds_what_the_issuer_asks_for() -> None:
    """A Retry-After is for everybody."""
    cache = filled("k0")
    fail(cache, at=100, want=Want.FETCH_FOR_UNKNOWN_KEY, retry_after=60)
    assert ask(cache, "k1", at=159) is Reason.KEYS_UNAVAILABLE
    assert ask(cache, "k1", at=160) is Want.FETCH_FOR_UNKNOWN_KEY


def test_without_a_cooldown_an_unknown_key_waits_a_second_after_a_failure() -> None:
    """No setting makes junk tokens ask an issuer that is down on every request."""
    cache = filled("k0", policy=KeyPolicy(unknown_key_cooldown=0))
    for _ in range(7):
        fail(cache, at=100, want=Want.FETCH_FOR_UNKNOWN_KEY)
    assert ask(cache, "k1", at=100.9) is Reason.KEYS_UNAVAILABLE
    assert ask(cache, "k1", at=101) is Want.FETCH_FOR_UNKNOWN_KEY


def test_an_unknown_key_waits_once_at_the_end_of_the_keys_time() -> None:
    """Whoever has waited for as long as it may is told so."""
    cache = filled("k0")
    assert ask(cache, "k1", at=LIFETIME_ENDS) is Want.FETCH
    assert ask(cache, "k1", at=LIFETIME_ENDS, waited=True) is Reason.KEYS_UNAVAILABLE
    fail(cache, at=LIFETIME_ENDS)
    assert ask(cache, "k1", at=LIFETIME_ENDS + 2) is Want.FETCH_FOR_UNKNOWN_KEY
    assert ask(cache, "k1", at=LIFETIME_ENDS + 2, waited=True) is Reason.KEYS_UNAVAILABLE


def test_an_unknown_key_waits_one_second_of_a_fetch_during_an_outage() -> None:
    """An issuer that hangs again and again does not let junk tokens hold every thread of a server: they get a 503."""
    cache = filled("k0")
    fail(cache, at=100)
    assert wait_for(cache, "k1", 101) == Wait(Want.FETCH_FOR_UNKNOWN_KEY, 1)
    cache.started(Want.FETCH_FOR_UNKNOWN_KEY, 101)
    assert wait_for(cache, "k1", 101.75) == Wait(Want.FETCH_FOR_UNKNOWN_KEY, 0.25)
    assert ask(cache, "k1", at=102) is Reason.KEYS_UNAVAILABLE
    assert ask(cache, "k0", at=102) == ["k0"]


def test_without_keys_a_question_waits_one_second_of_a_fetch_during_an_outage() -> None:
    """Junk that names an issuer that hangs holds nobody's threads again and again."""
    cache = empty()
    assert wait_for(cache, "k0", 0) == Wait(Want.FETCH, 11)
    fail(cache, at=100)
    assert wait_for(cache, "k0", 101) == Wait(Want.FETCH, 1)


def test_tells_that_the_issuer_has_not_answered_yet() -> None:
    """JWK-18: whoever has waited for as long as may be learns what is known, which is nothing."""
    cache = empty()
    cache.started(Want.FETCH, 0)
    with pytest.raises(TemporarilyUnavailable) as unavailable:
        cache.ask(ED, "k0", 5, seen=0, waited=True)
    assert unavailable.value.detail == "the issuer has not answered yet"


@pytest.mark.parametrize(
    ("at", "stale"),
    [(LIFETIME_ENDS - 1, False), (LIFETIME_ENDS, True), (STALE_ENDS - 1, True), (STALE_ENDS, False)],
)
def test_keys_are_stale_between_their_time_and_the_limit(at: float, stale: bool) -> None:
    """Before they are fresh, and after they are none."""
    assert filled("k0").is_stale(at) is stale
    assert not empty().is_stale(at)


# Keys from a store.


def test_restored_keys_are_used_within_the_limits_of_their_age() -> None:
    """Keys that were fetched before this process began count from then on, and the issuer goes on being asked."""
    cache = empty()
    fail(cache, at=1000)
    cache.restored(key_set("k0"), 900)
    assert (ask(cache, at=1000), cache.state(1000), cache.fetched_at) == (["k0"], "fresh", 900)
    assert not cache.wants_refresh(1000.5)
    assert cache.wants_refresh(900 + REFRESH)
    assert (ask(cache, at=900 + LIFETIME_ENDS), cache.state(900 + LIFETIME_ENDS)) == (["k0"], "stale")
    assert ask(cache, at=900 + STALE_ENDS) is Want.FETCH


def test_restored_keys_judge_no_unknown_key() -> None:
    """While the issuer has not been reached, a key ID that the store does not know is a 503."""
    cache = empty()
    fail(cache, at=1000)
    cache.restored(key_set("k0"), 900)
    assert ask(cache, "k1", at=1000) is Reason.KEYS_UNAVAILABLE


def test_restored_keys_replace_no_fetched_ones() -> None:
    """The issuer's own word counts."""
    cache = filled("k1", at=1000)
    cache.restored(key_set("k0"), 999)
    assert (ask(cache, "k1", at=1000), cache.fetched_at) == (["k1"], 1000)


# The promise, against a model of issuer and shell.


@dataclass
class Question:
    """Somebody with a token signed by `kid`, from the moment of asking to the outcome."""

    asked: float
    kid: str
    seen: int = 0
    outcome: object = None


@dataclass
class Simulation:
    """An issuer that publishes keys at given times, and the shell: one flight for all who wait.

    A flight takes `durations` seconds in turn, reads the issuer's keys halfway, and fails where `failures` says so.
    """

    published: dict[str, float]
    durations: list[float]
    failures: list[bool]
    cache: KeyCache = field(default_factory=lambda: KeyCache(POLICY))
    caused_by_unknown_key: list[float] = field(default_factory=list)

    def run(self, questions: list[Question]) -> None:
        order = count()
        events: list[tuple[float, int, list[Question] | KeySet | None]] = [
            (question.asked, next(order), [question]) for question in questions
        ]
        heapq.heapify(events)
        waiting: list[Question] | None = None  # a list while a flight is under way

        def start(want: Want, now: float) -> None:
            nonlocal waiting
            waiting = []
            number = self.cache.flights
            self.cache.started(want, now)
            if want is Want.FETCH_FOR_UNKNOWN_KEY:
                self.caused_by_unknown_key.append(now)
            duration = self.durations[number % len(self.durations)]
            read = [kid for kid, since in self.published.items() if since <= now + duration / 2]
            failed = self.failures[number % len(self.failures)]
            heapq.heappush(events, (now + duration, next(order), None if failed else key_set(*read)))

        while events:
            now, _, event = heapq.heappop(events)
            if isinstance(event, list):
                for question in event:
                    question.seen = self.cache.flights
            else:
                if event is None:
                    self.cache.failed("the issuer is down", now)
                else:
                    self.cache.succeeded(event, None, now)
                event, waiting = waiting or [], None
            for question in event:
                question.outcome = ask(self.cache, question.kid, at=now, seen=question.seen)
                if isinstance(question.outcome, Want):
                    if waiting is None:
                        start(question.outcome, now)
                    assert waiting is not None
                    waiting.append(question)
                elif waiting is None and self.cache.wants_refresh(now):
                    start(Want.FETCH, now)


moments = st.integers(0, 120).map(lambda quarters: quarters / 4)  # coarse, so that things happen close together
simulations = st.builds(
    Simulation,
    published=st.fixed_dictionaries({"k0": st.just(-1.0), "k1": moments, "k2": moments, "k3": st.just(float("inf"))}),
    durations=st.lists(st.sampled_from([0.01, 1.0, 2.9]), min_size=1, max_size=5),
    failures=st.just([False]),
)
long_durations = st.lists(st.sampled_from([0.01, 1.0, 4.5, 9.5]), min_size=1, max_size=5)
questions = st.lists(st.builds(Question, asked=moments, kid=st.sampled_from(KIDS)), min_size=1, max_size=25)


@settings(max_examples=250, deadline=None)
@given(simulations, questions)
def test_never_refuses_a_key_published_for_longer_than_the_cooldown(
    simulation: Simulation, questions: list[Question]
) -> None:
    """The promise, at random times of publishing, fetching and asking; and JWK-09: one caused fetch per cooldown."""
    simulation.run(questions)
    for question in questions:
        if question.asked - simulation.published[question.kid] > POLICY.unknown_key_cooldown:
            assert question.outcome == [question.kid]
        else:
            assert question.outcome in ([question.kid], Reason.UNKNOWN_KEY)
    starts = simulation.caused_by_unknown_key
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert all(gap >= POLICY.unknown_key_cooldown - 1e-6 for gap in gaps)


@settings(max_examples=250, deadline=None)
@given(simulations, long_durations, st.lists(st.booleans(), min_size=1, max_size=7), questions)
def test_an_issuer_that_fails_or_hangs_makes_nobody_throw_a_good_token_away(
    simulation: Simulation, durations: list[float], failures: list[bool], questions: list[Question]
) -> None:
    """JWK-18: whatever fails, a key published for longer than the cooldown is never refused: accepted, or 503."""
    simulation.durations, simulation.failures = durations, failures
    simulation.run(questions)
    for question in questions:
        assert not isinstance(question.outcome, Want)
        if question.asked - simulation.published[question.kid] > POLICY.unknown_key_cooldown:
            assert question.outcome in ([question.kid], Reason.KEYS_UNAVAILABLE)


class Watched(KeyCache):
    """A cache that tells which keys were held when the generation changed."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "generation" and value:
            held.append(self.keys)
        super().__setattr__(name, value)


held: list[KeySet | None] = []


def test_the_generation_changes_after_the_keys() -> None:
    """SEC-02: who reads the generation and then the keys never takes withdrawn keys for those of the new generation."""
    cache = Watched(POLICY)
    held.clear()
    fetch(cache, "k0", at=0)
    fetch(cache, "k1", at=1)
    assert [keys.key_ids for keys in held if keys is not None] == [("k0",), ("k1",)]


def test_long_key_ids_make_no_refusal_dear() -> None:
    """An issuer may publish a hundred, of ten thousand letters each, and a stranger may name others again and again."""
    keys = [JWKS["k0"] | {"kid": f"{number}" + "k" * 10_000} for number in range(100)]
    cache = empty()
    cache.started(Want.FETCH_FOR_UNKNOWN_KEY, 0)
    cache.succeeded(read_key_set({"keys": keys})[0], None, 0)
    with pytest.raises(InvalidToken) as refused:
        cache.ask(ED, "unknown", 1, seen=cache.flights)
    tracemalloc.start()
    try:
        assert "the issuer has ['0kkk" in refused.value.detail
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
