"""The cache of verified tokens: what it remembers, and everything that ends it."""

import os
import threading
from collections.abc import Callable
from typing import Any

import anyio
import httpx
import pytest

import token_guard.access_token as access_token
from token_guard import (
    AccessToken,
    ConfigurationError,
    InvalidToken,
    Issuer,
    KeyPolicy,
    Reason,
    ResourceServer,
    TemporarilyUnavailable,
)
from token_guard.algorithms import ALGORITHMS
from token_guard.bearer import MAX_TOKEN_BYTES
from token_guard.scopes import ScopeSet
from token_guard.testing import LocalIssuer
from token_guard.testing.keys import base64url
from token_guard.token_cache import Remembered, TokenCache, TokenCacheStatistics

NOW = 1_700_000_000.0
NO_ISSUER: Any = None  # for caches that nobody asks about issuers


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def issuer(clock: Clock) -> LocalIssuer:
    return LocalIssuer(algorithm="Ed25519", clock=clock)


@pytest.fixture
def verifications(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The signatures that were checked."""
    row, checked = ALGORITHMS["Ed25519"], list[bytes]()
    verify = row.verify

    def counted(key: Any, signature: bytes, message: bytes) -> bool:
        checked.append(signature)
        return verify(key, signature, message)

    monkeypatch.setitem(vars(row), "verify", counted)
    return checked


Validate = Callable[[ResourceServer, str], AccessToken]


@pytest.fixture(params=["threads", "asyncio"])
def validate(request: pytest.FixtureRequest) -> Validate:
    if request.param == "threads":
        return ResourceServer.validate
    return lambda server, token: anyio.run(server.validate_async, token)


def server_for(issuer: LocalIssuer, clock: Clock, **options: Any) -> ResourceServer:
    arguments = {"issuer": issuer.url, "audience": "organize", "jwks": issuer.jwks(), "clock": clock}
    return ResourceServer(**{**arguments, **options})


def reason(validate: Validate, server: ResourceServer, token: str) -> Reason:
    with pytest.raises((InvalidToken, TemporarilyUnavailable)) as refused:
        validate(server, token)
    assert isinstance(refused.value, (InvalidToken, TemporarilyUnavailable))
    return refused.value.reason


def test_a_signature_is_checked_once(
    issuer: LocalIssuer, clock: Clock, validate: Validate, verifications: list[bytes]
) -> None:
    """The second time the same token is recognised, and says the same."""
    server, raw = server_for(issuer, clock), issuer.token(scope="read:contacts", claims={"permissions": ["a"]})
    first, second = validate(server, raw), validate(server, raw)
    assert len(verifications) == 1
    assert (second.claims, second.scopes, second.permissions) == (first.claims, first.scopes, first.permissions)


def test_a_token_of_any_tenant_is_recognised(issuer: LocalIssuer, clock: Clock, verifications: list[bytes]) -> None:
    """The issuer of such a token is found by its tenant, the second time as well."""
    tenant = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
    preset = Issuer("https://login.example/{tenantid}/", tenants="any", jwks=issuer.jwks())
    server = ResourceServer(issuer=preset, audience="organize", clock=clock)
    raw = issuer.token(issuer=f"https://login.example/{tenant}/", claims={"tid": tenant})
    assert server.validate(raw).claims == server.validate(raw).claims
    assert len(verifications) == 1


def test_size_zero_switches_it_off(
    issuer: LocalIssuer, clock: Clock, validate: Validate, verifications: list[bytes]
) -> None:
    """With no room every validation checks the signature."""
    server, raw = server_for(issuer, clock, token_cache_size=0), issuer.token()
    validate(server, raw)
    validate(server, raw)
    assert len(verifications) == 2


@pytest.mark.parametrize("size", [-1, True, 1.5, "10", None])
def test_size_is_a_whole_number(issuer: LocalIssuer, clock: Clock, size: object) -> None:
    """A wrong size is told when the server is made."""
    with pytest.raises(ConfigurationError, match="token_cache_size"):
        server_for(issuer, clock, token_cache_size=size)


@pytest.mark.parametrize(
    ("options", "claims", "step", "expected"),
    [
        ({}, {}, 86_400 + 30, Reason.EXPIRED),
        ({"max_token_age": 600}, {}, 631, Reason.TOO_OLD),
        ({}, {"nbf": NOW}, -31, Reason.NOT_YET_VALID),
        ({}, {}, -31, Reason.ISSUED_IN_FUTURE),
    ],
)
def test_times_are_judged_again(
    issuer: LocalIssuer,
    clock: Clock,
    validate: Validate,
    options: dict[str, Any],
    claims: dict[str, Any],
    step: float,
    expected: Reason,
) -> None:
    """SEC-02: what is remembered expires, grows old, and is not good before its time when the clock goes back."""
    server, raw = server_for(issuer, clock, **options), issuer.token(claims=claims)
    validate(server, raw)
    clock.now += step
    assert reason(validate, server, raw) is expected


def test_revocation_is_asked_every_time(issuer: LocalIssuer, clock: Clock, validate: Validate) -> None:
    """SEC-02: a revocation ends what is remembered, and so does a revocation list that cannot be asked."""
    answers: list[Any] = [False, False, True, None]
    server, raw = server_for(issuer, clock, is_revoked=lambda token: answers.pop(0)), issuer.token()
    validate(server, raw)
    validate(server, raw)
    assert reason(validate, server, raw) is Reason.REVOKED
    assert reason(validate, server, raw) is Reason.REVOCATION_UNAVAILABLE


def test_a_withdrawn_key_ends_its_tokens(issuer: LocalIssuer, clock: Clock, validate: Validate) -> None:
    """SEC-02: from the next good fetch on, a token of a key that is gone is refused, remembered or not."""
    monotonic = Clock()
    server = server_for(
        issuer, clock, jwks=None, transport=issuer.transport(), monotonic=monotonic, keys=KeyPolicy(time_to_live=600)
    )
    old, raw = issuer.key, issuer.token()
    for _ in range(3):
        validate(server, raw)
    issuer.rotate()
    issuer.withdraw(old.kid)
    validate(server, raw)
    validate(server, issuer.token())  # an unknown key: the fetch that brings the news
    assert reason(validate, server, raw) is Reason.UNKNOWN_KEY
    server.close()


def test_keys_that_must_be_refreshed_end_what_is_remembered(
    issuer: LocalIssuer, clock: Clock, validate: Validate
) -> None:
    """SEC-02: a hit never outlives the time to live of the keys: they are fetched, and the news is heeded."""
    monotonic = Clock()
    server = server_for(
        issuer, clock, jwks=None, transport=issuer.transport(), monotonic=monotonic, keys=KeyPolicy(time_to_live=600)
    )
    raw = issuer.token()
    for _ in range(3):
        validate(server, raw)
    kid = issuer.key.kid
    issuer.rotate()
    issuer.withdraw(kid)
    monotonic.now += 601
    assert reason(validate, server, raw) is Reason.UNKNOWN_KEY
    server.close()


def test_two_policies_do_not_share(issuer: LocalIssuer, clock: Clock) -> None:
    """A token that is good for one resource server is judged anew by another, whatever the first remembers."""
    raw = issuer.token()
    server_for(issuer, clock).validate(raw)
    strict = server_for(issuer, clock, profile="rfc9068")
    assert reason(ResourceServer.validate, strict, raw) is Reason.CLAIM_MISSING
    other = server_for(issuer, clock, audience="other")
    assert reason(ResourceServer.validate, other, raw) is Reason.WRONG_AUDIENCE


def test_a_refused_token_is_not_remembered(issuer: LocalIssuer, clock: Clock, verifications: list[bytes]) -> None:
    """A tampered twin of a remembered token is another token."""
    server, raw = server_for(issuer, clock), issuer.token()
    server.validate(raw)
    for _ in range(2):
        assert reason(ResourceServer.validate, server, issuer.tampered(raw)) is Reason.BAD_SIGNATURE
    assert len(verifications) == 3


def test_a_handler_cannot_change_what_the_next_one_sees(issuer: LocalIssuer, clock: Clock) -> None:
    """The claims are read anew for each request."""
    server, raw = server_for(issuer, clock), issuer.token(claims={"permissions": ["read"]})
    for _ in range(3):
        token = server.validate(raw)
        assert token.permissions == ("read",)
        token.claims["permissions"].append("admin")


def test_scopes_are_told_without_reading_the_claims(
    issuer: LocalIssuer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are those of the token, also where another token grants others; equal grants share one set."""
    server = server_for(issuer, clock, scope_implications={"write:contacts": ["read:contacts"]})
    raw = {scope: issuer.token(scope) for scope in ("write:contacts", "read:calendar", "")}
    first = {scope: server.validate(token) for scope, token in raw.items()}
    monkeypatch.setattr(access_token, "read_json", lambda _: pytest.fail("the claims were read"))
    again = {scope: server.validate(token).scopes for scope, token in raw.items()}
    assert [list(scopes) for scopes in again.values()] == [["write:contacts", "read:contacts"], ["read:calendar"], []]
    assert all(again[scope] is first[scope].scopes for scope in raw)


def test_many_grants_are_remembered_within_bounds(issuer: LocalIssuer, clock: Clock) -> None:
    """What is remembered of scopes is bounded; those that were forgotten are found again."""
    server = server_for(issuer, clock, token_cache_size=0)
    for _ in range(2):
        assert all(f"read:{n}" in server.validate(issuer.token(f"read:{n}")).scopes for n in range(300))
    assert server._trust.issuers[0].policy._scope_set.cache_info().currsize == 256  # type: ignore[attr-defined]


def test_holds_no_token(issuer: LocalIssuer, clock: Clock) -> None:
    """SEC-03: at rest there are digests and claims; the signature, without which they are no token, is not kept."""
    server, raw = server_for(issuer, clock), issuer.token()
    server.validate(raw)
    everything = repr(vars(server._token_cache))
    assert "Remembered" in everything
    assert raw.rpartition(".")[2] not in everything
    assert raw.split(".")[1] not in everything


def test_is_bounded_and_forgets_what_was_used_longest_ago() -> None:
    """A storm of tokens leaves the newest."""
    cache = TokenCache(10)
    for number in range(1_000):
        cache.put(number.to_bytes(4, "big"), Remembered(NO_ISSUER, b"{}", NOW, NOW, 0, ScopeSet()))
    assert [number for number in range(1_000) if cache.get(number.to_bytes(4, "big"))] == list(range(990, 1_000))


def test_forty_threads_agree(issuer: LocalIssuer, clock: Clock) -> None:
    """Threads that share a small cache get the right claims, each for its own token."""
    server = server_for(issuer, clock, token_cache_size=5)
    tokens = {f"auth0|{number}": issuer.token(subject=f"auth0|{number}") for number in range(20)}
    wrong: list[object] = []

    def ask() -> None:
        for subject, raw in tokens.items():
            if server.validate(raw).subject != subject:
                wrong.append(subject)

    threads = [threading.Thread(target=ask) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_does_not_wait_for_a_lock_that_nobody_holds(issuer: LocalIssuer, clock: Clock) -> None:
    """A lock that was held while the process forked is made anew in the child."""
    server, raw = server_for(issuer, clock), issuer.token()
    server.validate(raw)
    with server._token_cache._lock:
        child = os.fork()
        if child == 0:
            threading.Timer(20, os._exit, [1]).start()
            os._exit(0 if server.validate(raw).issuer == issuer.url else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_knows_tokens_up_to_the_greatest_length() -> None:
    """The limit itself is within the limit; what is longer is refused unseen."""
    cache = TokenCache(1)
    assert cache.digest("e" * MAX_TOKEN_BYTES) is not None
    assert cache.digest("e" * (MAX_TOKEN_BYTES + 1)) is None


@pytest.mark.parametrize("raw", ["", "yJhbGciOiJSUzI1NiJ9.e30.c2ln", "EyJ.e30.c2ln", " eyJ.e30.c2ln", "v2.local.c2ln"])
def test_knows_no_token_that_does_not_begin_as_a_header_does(raw: str) -> None:
    """The first byte of a header, `{`, is always written as `e`: what begins otherwise is refused or verified anew."""
    cache = TokenCache(1)
    assert cache.digest(raw) is None
    assert {cache.digest(base64url(b"{" + bytes([after]))) is None for after in range(256)} == {False}


@pytest.mark.parametrize("raw", ["eyJé.e30.c2ln", "eyJ\ud800.e30.c2ln"])
def test_knows_no_token_beyond_ascii(issuer: LocalIssuer, clock: Clock, raw: str) -> None:
    """No token is; and what no encoding can write is refused, too, not a crash."""
    assert TokenCache(1).digest(raw) is None
    assert reason(ResourceServer.validate, server_for(issuer, clock), raw) is Reason.MALFORMED


def test_begins_anew_empty_and_as_large_as_before() -> None:
    """What a forked child does at once: nothing remembered, nothing counted, and no lock of the parent's."""
    cache = TokenCache(2)
    remembered = Remembered(NO_ISSUER, b"{}", NOW, NOW, 0, ScopeSet())
    cache.put(b"before", remembered)
    assert (cache.get(b"before"), cache.get(b"other")) == (remembered, None)
    with cache._lock:
        cache.begin_anew()
        assert cache.statistics() == TokenCacheStatistics(size=0, max_size=2, hits=0, misses=0, outdated=0)
    for digest in (b"1", b"2", b"3"):
        cache.put(digest, remembered)
    assert [cache.get(digest) for digest in (b"1", b"2", b"3")] == [None, remembered, remembered]
    assert cache.statistics() == TokenCacheStatistics(size=2, max_size=2, hits=2, misses=1, outdated=0)


def test_tells_how_often_it_was_asked(issuer: LocalIssuer, clock: Clock) -> None:
    """Statistics for dashboards: how full, how often in vain; a refused token is never in it."""
    server = server_for(issuer, clock, token_cache_size=2)
    for raw in [issuer.token(subject=str(number)) for number in range(3)] * 2:
        server.validate(raw)
    server.validate(raw)
    reason(ResourceServer.validate, server, issuer.expired())
    assert server.token_cache_statistics() == TokenCacheStatistics(size=2, max_size=2, hits=1, misses=7, outdated=0)


def test_counts_the_hits_whose_signature_is_checked_all_the_same(issuer: LocalIssuer, clock: Clock) -> None:
    """In an outage keys are due for a refresh: a dashboard must not show a cache that helps."""
    monotonic, answers = Clock(), [httpx.Response(200, json=issuer.jwks())]
    transport = httpx.MockTransport(lambda _: answers.pop() if answers else httpx.Response(503))
    options: dict[str, Any] = {"jwks": None, "jwks_uri": f"{issuer.url}jwks.json", "keys": KeyPolicy(time_to_live=600)}
    server = server_for(issuer, clock, transport=transport, monotonic=monotonic, **options)
    raw = issuer.token()
    server.warm_up()
    server.validate(raw)
    server.validate(raw)
    monotonic.now += 601
    for _ in range(3):
        server.validate(raw)
    assert server.token_cache_statistics() == TokenCacheStatistics(
        size=1, max_size=10_000, hits=4, misses=1, outdated=3
    )
    server.close()


def test_counts_no_look_for_what_is_never_remembered(issuer: LocalIssuer, clock: Clock) -> None:
    """An opaque token is none that was not found."""
    server = server_for(issuer, clock)
    assert reason(ResourceServer.validate, server, "opaque") is Reason.MALFORMED
    assert server.token_cache_statistics().misses == 0


def test_a_remembered_token_knows_its_roles(issuer: LocalIssuer, clock: Clock) -> None:
    """As its issuer writes them, and whether there may be more."""
    server, raw = server_for(issuer, clock), issuer.token(claims={"roles": ["reader"]})
    tokens = [server.validate(raw) for _ in range(2)]
    assert server.token_cache_statistics().hits == 1
    assert [(token.roles, token.roles_omitted) for token in tokens] == [(("reader",), False)] * 2


@pytest.mark.parametrize(
    ("claims", "options", "first", "last"),
    [
        ({}, {}, NOW - 30, NOW + 3629.5),
        ({"nbf": NOW + 100}, {}, NOW + 70, NOW + 3629.5),
        ({}, {"max_token_age": 1000}, NOW - 30, NOW + 1030),
        ({}, {"leeway": 0}, NOW, NOW + 3599.5),
    ],
)
def test_a_hit_is_refused_at_the_same_moments_as_a_new_token(
    claims: dict[str, Any], options: dict[str, Any], first: float, last: float, issuer: LocalIssuer, clock: Clock
) -> None:
    """JWT-04, JWT-05: the bounds that spare most hits a look at the claims are those of the rules, to the second."""
    server, fresh = server_for(issuer, clock, **options), server_for(issuer, clock, token_cache_size=0, **options)
    raw = issuer.token(lifetime=3600, claims=claims)
    clock.now = (first + last) / 2
    server.validate(raw)
    for moment in [edge + step / 2 for edge in (first, last) for step in range(-5, 6)]:
        clock.now = moment
        answers = [validated(each, raw) for each in (server, fresh)]
        assert answers[0] == answers[1]
        assert (answers[0] is None) == (first <= moment <= last)


def validated(server: ResourceServer, raw: str) -> Reason | None:
    """Return why a token is refused, or None where it is accepted."""
    try:
        server.validate(raw)
    except InvalidToken as refusal:
        return refusal.reason
    return None
