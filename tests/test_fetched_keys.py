"""The keys of an issuer on real threads, loops, processes and sockets: one flight for all, no outage becomes a 401."""

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

import token_guard.fetched_keys as fetched_keys
from token_guard import (
    AccessToken,
    ConfigurationError,
    FileKeyStore,
    InvalidToken,
    Issuer,
    KeyPolicy,
    Reason,
    ResourceServer,
    TemporarilyUnavailable,
    TokenGuardError,
)
from token_guard.jwk import thumbprint
from token_guard.kept_keys import KeptKeys
from token_guard.key_cache import EXPIRED_KEYS_PATIENCE
from token_guard.testing import InMemoryTransport, LocalIssuer, SigningKey

PATIENCE = 20  # seconds, for what happens at once: only a test that fails waits so long
ISSUER = "https://issuer.example/"
OPENID, OAUTH = ".well-known/openid-configuration", ".well-known/oauth-authorization-server"
METADATA_URL, JWKS_URL = f"{ISSUER}{OPENID}", f"{ISSUER}.well-known/jwks.json"
VISIT = [("GET", METADATA_URL), ("GET", JWKS_URL)]

Validate = Callable[[ResourceServer, str], AccessToken]


class Time:
    """The clock of a test, in seconds; it moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Gate(InMemoryTransport):
    """A transport whose requests get no answer until the gate is open."""

    def __init__(self, *issuers: LocalIssuer) -> None:
        super().__init__(*issuers)
        self.is_open = threading.Event()
        self.asked = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        while not self.is_open.is_set():  # noqa: ASYNC110  # the test opens it from another thread or loop
            await asyncio.sleep(0.001)
        return await super().handle_async_request(request)


class Script(httpx.AsyncBaseTransport):
    """A transport that answers each URL with what is written for it, and raises what is an exception; else 404."""

    def __init__(self, answers: dict[str, object]) -> None:
        self.answers = answers
        self.requests: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(str(request.url))
        match self.answers.get(str(request.url), 404):
            case BaseException() as error:
                raise error
            case int(status):
                return httpx.Response(status, stream=httpx.ByteStream(b"{}"))
            case httpx.Response(status_code=status, headers=headers, content=content):
                return httpx.Response(status, headers=headers, stream=httpx.ByteStream(content))
            case document:
                return httpx.Response(200, stream=httpx.ByteStream(json.dumps(document).encode()))


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def issuer(time: Time) -> LocalIssuer:
    return LocalIssuer(ISSUER, algorithm="Ed25519", clock=time)


@pytest.fixture
def server_of(time: Time) -> Iterator[Callable[..., ResourceServer]]:
    """Make resource servers that read the test's clock, and close them at the end."""
    servers: list[ResourceServer] = []

    def make(transport: httpx.AsyncBaseTransport | None, issuer: object = ISSUER, **options: Any) -> ResourceServer:
        arguments: dict[str, Any] = {"audience": "organize", "clock": time, "monotonic": time, "transport": transport}
        servers.append(ResourceServer(issuer=issuer, **{**arguments, **options}))  # type: ignore[arg-type]
        return servers[-1]

    yield make
    for server in servers:
        server.close()


ServerOf = Callable[..., ResourceServer]


@pytest.fixture(params=["threads", "asyncio", "trio"])
def validate(request: pytest.FixtureRequest) -> Validate:
    """`validate`, and `validate_async` on a fresh loop each time: a new loop needs nothing of the last one."""
    if request.param == "threads":
        return ResourceServer.validate
    return lambda server, token: anyio.run(server.validate_async, token, backend=request.param)


def refusal(validate: Validate, server: ResourceServer, token: str) -> Reason:
    with pytest.raises(TokenGuardError) as refused:
        validate(server, token)
    assert isinstance(refused.value, (InvalidToken, TemporarilyUnavailable))
    return refused.value.reason


# Fetching once, when it is needed.


def test_fetches_when_the_first_token_comes(validate: Validate, issuer: LocalIssuer, server_of: ServerOf) -> None:
    """JWK-17, DISC-05: nothing before the first token; then metadata and keys, once."""
    transport = issuer.transport()
    server = server_of(transport)
    assert (transport.requests, server.health()[0].state) == ([], "never_fetched")
    for _ in range(3):
        assert validate(server, issuer.token()).subject == "auth0|alice"
    assert transport.requests == VISIT


def test_remembers_no_token_that_waited_for_its_key(
    validate: Validate, issuer: LocalIssuer, server_of: ServerOf
) -> None:
    """It would be remembered under the keys before, which nobody holds any more."""
    server, raw = server_of(issuer.transport()), issuer.token()
    sizes = []
    for _ in range(2):
        validate(server, raw)
        sizes.append(server.token_cache_statistics().size)
    assert sizes == [0, 1]


def test_accepts_a_rotated_key_after_one_fetch(validate: Validate, issuer: LocalIssuer, server_of: ServerOf) -> None:
    """JWK-10: a new key is found at once, without a restart, and the old one still verifies."""
    transport = issuer.transport()
    server = server_of(transport)
    old = issuer.token()
    validate(server, old)
    issuer.rotate()
    validate(server, issuer.token())
    validate(server, old)
    assert transport.requests == VISIT * 2


def test_a_withdrawn_key_ends_with_the_next_refresh(
    validate: Validate, issuer: LocalIssuer, server_of: ServerOf, time: Time
) -> None:
    """JWK-10, SEC-02: a key that is published no longer verifies nothing once its time to live is over."""
    server = server_of(issuer.transport(), keys=KeyPolicy(time_to_live=600))
    old, kid = issuer.token(), issuer.key.kid
    validate(server, old)
    issuer.rotate()
    issuer.withdraw(kid)
    validate(server, old)
    time.now += 600
    assert refusal(validate, server, old) is Reason.UNKNOWN_KEY


def test_a_thousand_random_key_ids_cause_one_fetch(
    validate: Validate, issuer: LocalIssuer, server_of: ServerOf, time: Time
) -> None:
    """JWK-09: unknown keys cause one fetch per cooldown, and each is a 401."""
    transport = issuer.transport()
    server = server_of(transport)
    validate(server, issuer.token())
    stranger = SigningKey.generate("Ed25519")
    for number in range(50 if validate is not ResourceServer.validate else 1000):
        token = issuer.token(key=stranger, headers={"kid": f"junk-{number}"})
        assert refusal(validate, server, token) is Reason.UNKNOWN_KEY
    assert transport.requests == VISIT * 2
    time.now += 5
    refusal(validate, server, issuer.unknown_key())
    assert transport.requests == VISIT * 3


def test_the_issuer_says_how_long_its_keys_may_be_kept(issuer: LocalIssuer, server_of: ServerOf, time: Time) -> None:
    """By Cache-Control: a key that is withdrawn meanwhile ends then, and not with our own time to live."""
    keys = httpx.Response(200, json=issuer.jwks(), headers={"Cache-Control": "max-age=100"})
    transport = Script({METADATA_URL: issuer.metadata(), JWKS_URL: keys})
    server, raw, kid = server_of(transport), issuer.token(lifetime=3600), issuer.key.kid
    server.validate(raw)
    issuer.rotate()
    issuer.withdraw(kid)
    transport.answers[JWKS_URL] = issuer.jwks()
    time.now += 79
    server.validate(raw)
    time.now += 22
    assert refusal(ResourceServer.validate, server, raw) is Reason.UNKNOWN_KEY


def test_refreshes_ahead_and_waits_for_nobody(issuer: LocalIssuer, server_of: ServerOf, time: Time) -> None:
    """JWK-17: a refresh before the keys expire is nobody's wait, and several tokens start one."""
    transport = Gate(issuer)
    transport.is_open.set()
    server = server_of(transport)
    server.validate(issuer.token())
    transport.is_open.clear()
    time.now += 599.999
    for _ in range(10):
        server.validate(issuer.token())
    transport.is_open.set()
    server.warm_up()  # joins the flight under way, or makes one of its own
    assert len(transport.requests) in (4, 6)
    assert server.health()[0].age == 0


def test_nobody_waits_longer_than_the_cache_says(
    validate: Validate, issuer: LocalIssuer, server_of: ServerOf, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JWK-18: keys that have expired are used where a fetch hangs, after two seconds, and one wait."""
    transport = Gate(issuer)
    transport.is_open.set()
    server, token = server_of(transport), issuer.token()
    server.validate(token)
    transport.is_open.clear()
    time.now += 600
    patiences: list[float] = []

    def give_up(flight: object, patience: float = 11) -> None:
        patiences.append(patience)
        raise TemporarilyUnavailable

    async def give_up_async(flight: object, patience: float = 11) -> None:
        give_up(flight, patience)

    monkeypatch.setattr("token_guard.fetched_keys.wait", give_up)
    monkeypatch.setattr("token_guard.fetched_keys.wait_async", give_up_async)
    assert validate(server, token).subject == "auth0|alice"
    assert patiences == [EXPIRED_KEYS_PATIENCE]
    transport.is_open.set()


# One flight for all.


def test_two_hundred_threads_cause_one_fetch(issuer: LocalIssuer, server_of: ServerOf) -> None:
    """JWK-17: all threads wait for the first one's flight."""
    transport = Gate(issuer)
    server, token = server_of(transport), issuer.token()
    ready = threading.Barrier(201)

    def ask(_: int) -> AccessToken:
        ready.wait(PATIENCE)
        return server.validate(token)

    with ThreadPoolExecutor(200) as threads:
        answers = threads.map(ask, range(200))
        ready.wait(PATIENCE)
        transport.is_open.set()
        assert Counter(answer.subject for answer in answers) == {"auth0|alice": 200}
    assert transport.requests == VISIT


@pytest.mark.parametrize(
    ("anyio_backend", "callers"), [("asyncio", 10_000), ("trio", 1_000)], indirect=["anyio_backend"], ids=str
)
@pytest.mark.anyio
async def test_thousands_of_tasks_cause_one_fetch(callers: int, time: Time, server_of: ServerOf) -> None:
    """JWK-17: all tasks of a loop wait for the first one's flight, and the loop goes on meanwhile."""
    issuer = LocalIssuer(ISSUER, clock=time)  # RS256 is the quickest to verify
    transport = Gate(issuer)
    server, token = server_of(transport), issuer.token()
    answers: list[str | None] = []

    async def ask(number: int) -> None:
        if number == 500:  # the flight has a time limit, and ten thousand tasks take a while to begin
            assert not answers
            transport.is_open.set()
        answers.append((await server.validate_async(token)).subject)

    async with anyio.create_task_group() as tasks:
        for number in range(callers):
            tasks.start_soon(ask, number)
    assert Counter(answers) == {"auth0|alice": callers}
    assert transport.requests == VISIT


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
@pytest.mark.anyio
async def test_a_cancelled_request_strands_nobody(anyio_backend: str, issuer: LocalIssuer, server_of: ServerOf) -> None:
    """JWK-17: the client whose request started the flight may hang up; the others get their answer from it."""
    transport = Gate(issuer)
    server, token = server_of(transport), issuer.token()
    answers = []

    async def ask() -> None:
        answers.append((await server.validate_async(token)).subject)

    async with anyio.create_task_group() as followers:
        async with anyio.create_task_group() as leader:
            leader.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            followers.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            leader.cancel_scope.cancel()
        transport.is_open.set()
    assert answers == ["auth0|alice"]
    assert transport.requests == VISIT


def test_threads_and_loops_share_a_flight(issuer: LocalIssuer, server_of: ServerOf) -> None:
    """One object serves threads and event loops of both kinds at once."""
    transport = Gate(issuer)
    server, token = server_of(transport), issuer.token()
    with ThreadPoolExecutor(3) as threads:
        answers = [
            threads.submit(server.validate, token),
            threads.submit(lambda: anyio.run(server.validate_async, token, backend="asyncio")),
            threads.submit(lambda: anyio.run(server.validate_async, token, backend="trio")),
        ]
        transport.is_open.set()
        assert [answer.result(PATIENCE).subject for answer in answers] == ["auth0|alice"] * 3
    assert transport.requests == VISIT


@pytest.mark.parametrize("known", [1, 50])
def test_a_known_key_never_waits_behind_an_unknown_one(
    validate: Validate, known: int, issuer: LocalIssuer, server_of: ServerOf
) -> None:
    """JWK-17: while a fetch for junk hangs, good tokens are answered."""
    transport = Gate(issuer)
    transport.is_open.set()
    server = server_of(transport)
    validate(server, issuer.token())
    transport.is_open.clear()
    with ThreadPoolExecutor(1) as threads:
        unknown = threads.submit(refusal, validate, server, issuer.unknown_key())
        for _ in range(known):
            validate(server, issuer.token())
        assert not unknown.done()
        transport.is_open.set()
        assert unknown.result(PATIENCE) is Reason.UNKNOWN_KEY


def test_a_loop_that_ended_strands_nobody(issuer: LocalIssuer, server_of: ServerOf) -> None:
    """A loop that is closed while its task waits leaves a flight behind that the next loop joins."""
    transport = Gate(issuer)
    server, token = server_of(transport), issuer.token()

    async def give_up() -> None:
        with anyio.move_on_after(0.01):
            await server.validate_async(token)

    for backend in ("asyncio", "trio"):
        anyio.run(give_up, backend=backend)
    transport.is_open.set()
    assert anyio.run(server.validate_async, token).subject == "auth0|alice"
    assert transport.requests == VISIT


# Outages.

FAILURES: dict[str, object] = {
    "no connection": httpx.ConnectError("refused"),
    "timeout": httpx.ReadTimeout("slow"),
    "500": 500,
    "503": 503,
    "429": 429,
    "404": 404,
    "redirect": httpx.Response(302, headers={"Location": "https://evil.example/"}),
    "204": 204,
    "HTML": httpx.Response(200, html="<html>Sign in</html>"),
    "truncated JSON": httpx.Response(200, content=b'{"keys": ['),
    "array": [],
    "no keys": {},
    "keys no array": {"keys": {}},
    "not one key": {"keys": []},
    "not one usable key": {"keys": [{"kty": "XYZ"}, None]},
    "a bug of the transport": RuntimeError("boom"),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_without_keys_a_failed_fetch_is_503(
    validate: Validate, failure: object, issuer: LocalIssuer, server_of: ServerOf
) -> None:
    """JWK-01, JWK-18, DISC-07: whatever comes in place of keys, it is no judgement on the token."""
    transport = Script({METADATA_URL: issuer.metadata(), JWKS_URL: failure})
    server = server_of(transport)
    assert refusal(validate, server, issuer.token()) is Reason.KEYS_UNAVAILABLE
    assert server.health()[0].state == "unavailable"
    assert refusal(validate, server, issuer.token()) is Reason.KEYS_UNAVAILABLE
    assert transport.requests == [METADATA_URL, JWKS_URL]


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_a_failed_fetch_keeps_the_keys(failure: object, issuer: LocalIssuer, server_of: ServerOf, time: Time) -> None:
    """JWK-01, JWK-18: good keys outlast whatever comes in place of new ones, up to the stale limit."""
    transport = Script({METADATA_URL: issuer.metadata(), JWKS_URL: issuer.jwks()})
    server = server_of(transport, keys=KeyPolicy(time_to_live=600, stale_limit=3600))
    server.validate(issuer.token())
    transport.answers[JWKS_URL] = failure
    time.now += 700
    server.validate(issuer.token())
    assert server.health()[0].state == "stale"
    assert refusal(ResourceServer.validate, server, issuer.unknown_key()) is Reason.KEYS_UNAVAILABLE
    server.validate(issuer.token())
    time.now += 3600
    assert refusal(ResourceServer.validate, server, issuer.token()) is Reason.KEYS_UNAVAILABLE


def test_recovers_when_the_issuer_does(
    validate: Validate, issuer: LocalIssuer, server_of: ServerOf, time: Time
) -> None:
    """The end of an outage needs no restart: the next attempt is a second away."""
    transport = issuer.transport()
    transport.failing = True
    server = server_of(transport)
    assert refusal(validate, server, issuer.token()) is Reason.KEYS_UNAVAILABLE
    transport.failing = False
    assert refusal(validate, server, issuer.token()) is Reason.KEYS_UNAVAILABLE
    time.now += 1
    validate(server, issuer.token())
    assert server.health()[0].last_error is None


def test_says_when_to_come_again(issuer: LocalIssuer, server_of: ServerOf) -> None:
    """JWK-18: Retry-After of the issuer reaches our client, within bounds."""
    busy = httpx.Response(503, headers={"Retry-After": "17"})
    server = server_of(Script({METADATA_URL: issuer.metadata(), JWKS_URL: busy}))
    with pytest.raises(TemporarilyUnavailable) as unavailable:
        server.validate(issuer.token())
    assert unavailable.value.retry_after == 17
    assert dict(server.challenge(unavailable.value).headers)["Retry-After"] == "17"


def test_an_expired_token_during_an_outage_is_401(validate: Validate, issuer: LocalIssuer, server_of: ServerOf) -> None:
    """JWK-18: what can be refused without keys is refused without a fetch."""
    transport = issuer.transport()
    transport.failing = True
    server = server_of(transport)
    assert refusal(validate, server, issuer.expired()) is Reason.EXPIRED
    assert refusal(validate, server, issuer.token(audience="other")) is Reason.WRONG_AUDIENCE
    assert transport.requests == []


def test_an_unknown_issuer_causes_no_traffic(validate: Validate, issuer: LocalIssuer, server_of: ServerOf) -> None:
    """BCP-02, AUTH0-01: who is not configured is not asked: neither by name, nor under a spelling of ours."""
    transport = issuer.transport()
    server = server_of(transport)
    for name in ("https://evil.example", "https://issuer.example", "https://ISSUER.example/", f"{ISSUER}x"):
        assert refusal(validate, server, issuer.token(issuer=name)) is Reason.WRONG_ISSUER
    assert transport.requests == []


def test_a_forbidden_algorithm_causes_no_traffic(validate: Validate, issuer: LocalIssuer, server_of: ServerOf) -> None:
    """BCP-01: the algorithm is judged for that issuer before any key is looked for."""
    other = LocalIssuer("https://other.example/", algorithm="ES256", clock=issuer.clock)
    transport = InMemoryTransport(issuer, other)
    server = server_of(transport, [Issuer(issuer.url, algorithms=["Ed25519"]), Issuer(other.url, algorithms=["ES256"])])
    crossed = other.token(issuer=issuer.url)
    assert refusal(validate, server, crossed) is Reason.ALGORITHM_NOT_ALLOWED
    assert transport.requests == []


def test_a_token_names_no_source_of_keys(validate: Validate, issuer: LocalIssuer, server_of: ServerOf) -> None:
    """JWS-20, JWK-19: `jku`, `jwk` and `x5u` of a stranger are neither asked nor believed."""
    transport = issuer.transport()
    server = server_of(transport)
    stranger = LocalIssuer("https://evil.example/", algorithm="Ed25519", clock=issuer.clock)
    for headers in (
        {"jku": "https://evil.example/jwks", "x5u": "https://evil.example/"},
        {"jwk": stranger.key.public_jwk()},
        {"kid": issuer.key.kid, "jwk": stranger.key.public_jwk()},
    ):
        token = issuer.token(key=stranger.key, headers=headers)
        assert refusal(validate, server, token) in (Reason.UNKNOWN_KEY, Reason.BAD_SIGNATURE)
    assert {httpx.URL(url).host for _, url in transport.requests} == {"issuer.example"}


def test_keys_belong_to_one_issuer(validate: Validate, issuer: LocalIssuer, server_of: ServerOf) -> None:
    """JWK-16: a key of one trusted issuer verifies no token that names another."""
    other = LocalIssuer("https://other.example/", algorithm="Ed25519", clock=issuer.clock)
    server = server_of(InMemoryTransport(issuer, other), [issuer.url, other.url])
    validate(server, issuer.token())
    validate(server, other.token())
    assert refusal(validate, server, other.token(issuer=issuer.url)) is Reason.UNKNOWN_KEY
    same_kid = SigningKey("Ed25519", other.key.private, issuer.key.kid)
    assert refusal(validate, server, issuer.token(key=same_kid)) is Reason.BAD_SIGNATURE


# Discovery.


@pytest.mark.parametrize(
    ("url", "tried"),
    [
        ("https://as.example/t1/", [f"t1/{OPENID}", f"{OAUTH}/t1", f"{OPENID}/t1"]),
        ("https://as.example/", [OPENID, OAUTH]),
    ],
)
@pytest.mark.parametrize("absent", [404, 403, httpx.Response(200, html="<html></html>")], ids=["404", "403", "HTML"])
def test_tries_the_forms_of_the_address_in_order(
    url: str, tried: list[str], absent: object, time: Time, server_of: ServerOf
) -> None:
    """DISC-03: metadata under the last form is found after exactly the earlier attempts."""
    issuer = LocalIssuer(url, algorithm="Ed25519", clock=time)
    urls = [f"https://as.example/{path}" for path in tried]
    jwks_uri = issuer.metadata()["jwks_uri"]
    transport = Script({**dict.fromkeys(urls, absent), urls[-1]: issuer.metadata(), jwks_uri: issuer.jwks()})
    server_of(transport, url).validate(issuer.token())
    assert transport.requests == [*urls, jwks_uri]


@pytest.mark.parametrize("down", [500, httpx.ConnectTimeout("slow")], ids=["500", "timeout"])
def test_an_outage_is_no_reason_to_look_elsewhere(down: object, issuer: LocalIssuer, server_of: ServerOf) -> None:
    """DISC-03: a server that does not answer has not said that its metadata is elsewhere."""
    transport = Script({METADATA_URL: down, f"{ISSUER}{OAUTH}": issuer.metadata(), JWKS_URL: issuer.jwks()})
    assert refusal(ResourceServer.validate, server_of(transport), issuer.token()) is Reason.KEYS_UNAVAILABLE
    assert transport.requests == [METADATA_URL]


@pytest.mark.parametrize(
    "change", [{"issuer": ISSUER[:-1]}, {"jwks_uri": "http://issuer.example/jwks"}, {"jwks_uri": None}]
)
def test_a_wrong_setting_does_not_look_like_an_outage(
    validate: Validate, change: dict[str, Any], issuer: LocalIssuer, server_of: ServerOf
) -> None:
    """DISC-04, DISC-05, DISC-08: misconfigured in health, an error with the fix from warm_up, 503 to clients."""
    transport = Script({METADATA_URL: {**issuer.metadata(), **change}, JWKS_URL: issuer.jwks()})
    server = server_of(transport)
    assert refusal(validate, server, issuer.token()) is Reason.ISSUER_MISCONFIGURED
    assert server.health()[0].state == "misconfigured"
    with pytest.raises(ConfigurationError) as misconfigured:
        server.warm_up()
    assert repr(ISSUER) in str(misconfigured.value)
    assert str(next(iter(change))) in str(misconfigured.value)
    assert set(transport.requests) == {METADATA_URL}


def test_a_given_address_of_keys_needs_no_discovery(
    validate: Validate, issuer: LocalIssuer, server_of: ServerOf
) -> None:
    """DISC-08: `jwks_uri` is asked and nothing else."""
    transport = Script({"https://keys.example/": issuer.jwks()})
    validate(server_of(transport, jwks_uri="https://keys.example/"), issuer.token())
    assert transport.requests == ["https://keys.example/"]


def test_a_given_address_of_metadata_is_the_only_one(
    validate: Validate, issuer: LocalIssuer, server_of: ServerOf
) -> None:
    """DISC-04: `metadata_url` is asked and its issuer is compared as ever."""
    transport = Script({"https://meta.example/": issuer.metadata(), JWKS_URL: issuer.jwks()})
    validate(server_of(transport, Issuer(ISSUER, metadata_url="https://meta.example/")), issuer.token())
    assert transport.requests == ["https://meta.example/", JWKS_URL]


def test_a_new_address_of_keys_takes_effect(issuer: LocalIssuer, server_of: ServerOf, time: Time) -> None:
    """DISC-12: metadata is read again with every fetch."""
    transport = Script({METADATA_URL: issuer.metadata(), JWKS_URL: issuer.jwks()})
    server = server_of(transport)
    server.validate(issuer.token())
    issuer.rotate()
    transport.answers[METADATA_URL] = {**issuer.metadata(), "jwks_uri": "https://new.example/"}
    transport.answers["https://new.example/"] = issuer.jwks()
    server.validate(issuer.token())
    assert transport.requests[2:] == [METADATA_URL, "https://new.example/"]


ODD_KEYS = [{"kid": "\ud800"}, {"x5c": ["\ud800"]}, {"\ud800": 1}, {"key_ops": ["verify", "\udfff"]}]


@pytest.mark.parametrize("odd", [*ODD_KEYS, "\ud800"], ids=ascii)
def test_an_odd_text_spoils_no_document(odd: object, issuer: LocalIssuer, server_of: ServerOf) -> None:
    """JWK-02, JWK-03: neither that of another key, nor one of the metadata that nobody reads."""
    keys = {"keys": [{"kty": "RSA", **odd} if isinstance(odd, dict) else odd, *issuer.jwks()["keys"]]}
    transport = Script({METADATA_URL: {**issuer.metadata(), "op_policy_uri": odd}, JWKS_URL: keys})
    assert server_of(transport).validate(issuer.token()).subject == "auth0|alice"


def test_metadata_with_a_repeated_name_are_looked_for_elsewhere(issuer: LocalIssuer, server_of: ServerOf) -> None:
    """DISC-07: what cannot be read says nothing, and contradicts nothing."""
    repeated = httpx.Response(200, content=b'{"issuer": "a", "issuer": "b"}')
    other = f"{ISSUER}.well-known/oauth-authorization-server"
    transport = Script({METADATA_URL: repeated, other: issuer.metadata(), JWKS_URL: issuer.jwks()})
    assert server_of(transport).validate(issuer.token()).subject == "auth0|alice"


@pytest.mark.parametrize("failure", [500, 404, httpx.ConnectError("refused")], ids=str)
def test_keys_outlive_an_outage_of_the_metadata(failure: object, issuer: LocalIssuer, server_of: ServerOf) -> None:
    """DISC-12: without new metadata the last good address of the keys is asked."""
    transport = Script({METADATA_URL: issuer.metadata(), JWKS_URL: issuer.jwks()})
    server = server_of(transport)
    server.validate(issuer.token())
    issuer.rotate()
    transport.answers |= {METADATA_URL: failure, JWKS_URL: issuer.jwks()}
    server.validate(issuer.token())


def test_metadata_of_another_issuer_later_weakens_nothing(issuer: LocalIssuer, server_of: ServerOf, time: Time) -> None:
    """DISC-12, DISC-04: metadata that suddenly names somebody else brings no keys; those held stay."""
    transport = Script({METADATA_URL: issuer.metadata(), JWKS_URL: issuer.jwks()})
    server, good = server_of(transport), issuer.token()
    server.validate(good)
    evil = LocalIssuer("https://evil.example/", algorithm="Ed25519", clock=time)
    transport.answers |= {METADATA_URL: evil.metadata(), evil.metadata()["jwks_uri"]: evil.jwks()}
    assert refusal(ResourceServer.validate, server, evil.token(issuer=ISSUER)) is Reason.ISSUER_MISCONFIGURED
    assert server.validate(good).issuer == ISSUER


# Odd keys.


def test_secrets_that_an_issuer_publishes_are_neither_used_nor_logged(
    issuer: LocalIssuer, server_of: ServerOf, caplog: pytest.LogCaptureFixture
) -> None:
    """JWK-02, JWK-15: odd keys are skipped one by one, and the log says so without their material."""
    secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"
    odd = [
        {"kty": "oct", "k": secret, "kid": "o"},
        {**issuer.key.public_jwk(), "d": secret, "kid": "p"},
        {"kty": "XYZ"},
    ]
    transport = Script({METADATA_URL: issuer.metadata(), JWKS_URL: {"keys": [*odd, *issuer.jwks()["keys"]]}})
    server = server_of(transport)
    with caplog.at_level(logging.DEBUG):
        server.validate(issuer.token())
    assert server.health()[0].key_ids == (issuer.key.kid,)
    [record] = [record for record in caplog.records if record.name == "token_guard"]
    assert record.message.count("is skipped") == 3
    assert secret not in caplog.text


# The log.


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, dict[str, Any]]]:
    """Return the level, the event and the fields of each line since the last time."""
    lines = [(record.levelname, vars(record)) for record in caplog.records if record.name == "token_guard"]
    names = ("keys", "key_ids", "added", "withdrawn")
    told = [(level, held["event"], {name: held[name] for name in names if name in held}) for level, held in lines]
    assert {held["issuer"] for _, held in lines} <= {ISSUER}
    caplog.clear()
    return told


def test_the_log_tells_when_keys_change_and_nothing_while_they_do_not(
    issuer: LocalIssuer, server_of: ServerOf, caplog: pytest.LogCaptureFixture
) -> None:
    """Keys fetched, keys added, keys withdrawn: a line each, and none for a fetch that brings the same."""
    caplog.set_level(logging.DEBUG, "token_guard")
    server = server_of(issuer.transport())
    server.refresh()
    old = issuer.key.kid
    assert told(caplog) == [("INFO", "keys_fetched", {"keys": 1, "key_ids": [old], "added": [], "withdrawn": []})]
    server.refresh()
    assert told(caplog) == []
    new = issuer.rotate().kid
    server.refresh()
    assert told(caplog) == [
        ("INFO", "keys_changed", {"keys": 2, "key_ids": [old, new], "added": [new], "withdrawn": []})
    ]
    issuer.withdraw(old)
    server.refresh()
    assert told(caplog) == [("INFO", "keys_changed", {"keys": 1, "key_ids": [new], "added": [], "withdrawn": [old]})]


def test_the_log_tells_once_in_an_outage_that_keys_are_stale_and_then_that_it_is_over(
    issuer: LocalIssuer, server_of: ServerOf, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    """A line for each flight that fails, one for the keys that are used all the same, one for the end."""
    caplog.set_level(logging.DEBUG, "token_guard")
    transport = issuer.transport()
    server = server_of(transport)
    server.refresh()
    token = issuer.token()
    told(caplog)
    for _ in range(2):
        transport.failing = True
        with pytest.raises(TemporarilyUnavailable):
            server.refresh()
        assert told(caplog) == [("WARNING", "key_fetch_failed", {})]
        time.now += 601
        with pytest.raises(TemporarilyUnavailable):
            server.refresh()
        for _ in range(100):
            server.validate(token)
        assert server.health()[0].state == "stale"
        assert told(caplog) == [("WARNING", "key_fetch_failed", {}), ("WARNING", "stale_keys_used", {})]
        time.now += 30
        with pytest.raises(TemporarilyUnavailable):
            server.refresh()
        assert told(caplog) == [("WARNING", "key_fetch_failed", {})]
        transport.failing = False
        server.refresh()
        assert told(caplog) == [("INFO", "issuer_recovered", {})]


def test_the_log_says_in_a_line_each_what_became_of_the_keys(
    issuer: LocalIssuer, server_of: ServerOf, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    """Which were fetched, which are new, which are odd, until when old ones are used, and that it is over."""
    caplog.set_level(logging.DEBUG, "token_guard")
    transport = Script({METADATA_URL: issuer.metadata(), JWKS_URL: {"keys": [None, *issuer.jwks()["keys"]]}})
    server, old = server_of(transport), issuer.key.kid
    server.refresh()
    new = issuer.rotate().kid
    transport.answers[JWKS_URL] = issuer.jwks()
    server.refresh()
    time.now += 601
    transport.answers[JWKS_URL] = 500
    with pytest.raises(TemporarilyUnavailable):
        server.refresh()
    transport.answers[JWKS_URL] = issuer.jwks()
    server.refresh()
    assert [record.getMessage().removeprefix(f"keys of issuer {ISSUER}: ") for record in caplog.records] == [
        f"1 usable; key_ids {old}; key 0 is skipped: it is not a JSON object with unique member names",
        f"2 usable; key_ids {old} {new}; added {new}",
        f"{JWKS_URL} answered 500; where that lasts, check the setting issuer",
        "those of the last good fetch are used, for at most 86400 s (stale_limit) after their time to live",
        "the issuer answers again",
    ]


@pytest.mark.parametrize("is_down", [False, True])
def test_a_flood_of_unknown_keys_logs_no_more_than_the_flights_do(
    is_down: bool, issuer: LocalIssuer, server_of: ServerOf, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever strangers send, the key engine writes a line a flight, and flights have a cooldown."""
    caplog.set_level(logging.DEBUG, "token_guard")
    transport = issuer.transport()
    server = server_of(transport)
    server.refresh()
    told(caplog)
    transport.failing = is_down
    reason = Reason.KEYS_UNAVAILABLE if is_down else Reason.UNKNOWN_KEY
    for token in [issuer.unknown_key() for _ in range(50)]:
        assert refusal(ResourceServer.validate, server, token) is reason
    assert told(caplog) == ([("WARNING", "key_fetch_failed", {})] if is_down else [])
    assert transport.requests == VISIT * 2


def test_hostile_key_ids_of_an_issuer_are_logged_escaped_and_bounded(
    issuer: LocalIssuer, server_of: ServerOf, caplog: pytest.LogCaptureFixture
) -> None:
    """JWK-13: a log line stays a line, however many key IDs of whatever length an issuer publishes."""
    keys = [{**issuer.key.public_jwk(), "kid": f"{number}\n\u202e{'x' * 5_000}"} for number in range(60)]
    odd = [{"kty": "oct"}] * 30
    transport = Script({METADATA_URL: issuer.metadata(), JWKS_URL: {"keys": keys + odd}})
    with caplog.at_level(logging.DEBUG, "token_guard"):
        server_of(transport).refresh()
    [record] = [record for record in caplog.records if record.name == "token_guard"]
    text = f"{record.getMessage()}{vars(record)['added']}"
    assert text.isascii()
    assert text.isprintable()
    assert len(text) < 5_000


# Health and warm-up.


def test_every_state_of_health_can_be_reached_and_read(issuer: LocalIssuer, server_of: ServerOf, time: Time) -> None:
    """What a health endpoint shows is one of five words, and JSON."""
    transport = Script({METADATA_URL: httpx.ConnectError("down")})
    server = server_of(transport)

    def health(now: float) -> tuple[str, str | None]:
        time.now = 1_700_000_000 + now
        [read] = json.loads(json.dumps([each.as_dict() for each in server.health()]))
        return read["state"], read["source"]

    def refreshed(now: float, *problems: type[TokenGuardError]) -> tuple[str, str | None]:
        time.now = 1_700_000_000 + now
        with pytest.raises(problems) if problems else nullcontext():
            server.refresh()
        return health(now)

    assert health(0) == ("never_fetched", None)
    assert refreshed(0, TemporarilyUnavailable) == ("unavailable", None)
    transport.answers[METADATA_URL] = {"issuer": "https://other.example/"}
    assert refreshed(10, ConfigurationError) == ("misconfigured", None)
    transport.answers |= {METADATA_URL: issuer.metadata(), JWKS_URL: issuer.jwks()}
    assert refreshed(20) == ("fresh", "issuer")
    transport.answers[JWKS_URL] = 500
    assert refreshed(30, TemporarilyUnavailable) == ("fresh", "issuer")
    assert health(620) == ("stale", "issuer")
    assert health(620 + 86_400) == ("unavailable", "issuer")


PUBLISH = "the issuer must publish public ones there; check the setting issuer"
NO_KEY = "is skipped: it is not a JSON object with unique member names"


@pytest.mark.parametrize(
    ("answer", "metadata_url", "told"),
    [
        (404, None, f"{JWKS_URL} answered 404; check the setting issuer"),
        (404, METADATA_URL, f"{JWKS_URL} answered 404; check the setting metadata_url"),
        (500, None, f"{JWKS_URL} answered 500; where that lasts, check the setting issuer"),
        (KeyError("of the transport"), None, "the transport raised KeyError"),
        (
            {"keys": "none"},
            None,
            f"{JWKS_URL}: a key set is an object with an array `keys` (RFC 7517 5); check the setting issuer",
        ),
        (
            {"keys": []},
            None,
            f"{JWKS_URL} holds no usable signature key (it is empty): {PUBLISH}",
        ),
        (
            {"keys": [None, 7]},
            None,
            f"{JWKS_URL} holds no usable signature key (key 0 {NO_KEY}; key 1 {NO_KEY}): {PUBLISH}",
        ),
    ],
)
def test_health_tells_why_no_keys_came(
    answer: object, metadata_url: str | None, told: str, issuer: LocalIssuer, server_of: ServerOf
) -> None:
    """And the setting that led there."""
    transport = Script({METADATA_URL: issuer.metadata(), JWKS_URL: answer})
    server = server_of(transport, Issuer(ISSUER, metadata_url=metadata_url))
    with pytest.raises(TemporarilyUnavailable):
        server.warm_up()
    assert server.health()[0].last_error == told


@pytest.mark.parametrize(
    ("metadata_url", "fix"),
    [(None, "if that is whom you trust"), (METADATA_URL, "if that is whom you trust; otherwise mend metadata_url")],
)
def test_health_tells_how_to_mend_a_contradiction(
    metadata_url: str | None, fix: str, issuer: LocalIssuer, server_of: ServerOf
) -> None:
    """In the setting of the issuer, or in that which led to the document."""
    transport = Script({METADATA_URL: {**issuer.metadata(), "issuer": "https://else.example/"}})
    server = server_of(transport, Issuer(ISSUER, metadata_url=metadata_url))
    with pytest.raises(ConfigurationError):
        server.warm_up()
    assert str(server.health()[0].last_error).endswith(f": set issuer to what the document says, {fix}")


def test_a_flight_has_an_end(issuer: LocalIssuer, server_of: ServerOf, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a transport takes."""
    monkeypatch.setattr(fetched_keys, "FLIGHT_TIMEOUT", 0.01)
    server = server_of(Gate(issuer))
    with pytest.raises(TemporarilyUnavailable, match=": the issuer took longer than 0 s$"):
        server.warm_up()


def test_health_tells_what_is_known_without_asking(issuer: LocalIssuer, server_of: ServerOf, time: Time) -> None:
    """Health is a frozen record per issuer that JSON can hold; it causes no request."""
    transport = issuer.transport()
    server = server_of(transport)
    assert (server.health()[0].state, server.health()[0].last_success) == ("never_fetched", None)
    server.warm_up()
    time.now += 60
    assert server.health()[0].as_dict() == {
        "issuer": ISSUER,
        "state": "fresh",
        "source": "issuer",
        "age": 60,
        "last_success": 1_700_000_000,
        "last_error": None,
        "next_attempt": 0,
        "key_ids": (issuer.key.kid,),
    }
    assert json.dumps(server.health()[0].as_dict())
    transport.failing = True
    with pytest.raises(TemporarilyUnavailable):
        server.refresh()
    server.warm_up()  # there is something to begin with
    health = server.health()[0]
    assert (health.state, health.last_success) == ("fresh", 1_700_000_000)
    assert JWKS_URL in str(health.last_error)
    assert 0 < health.next_attempt <= 2
    assert transport.requests == VISIT * 3


@pytest.mark.parametrize("backend", [None, "asyncio", "trio"])
def test_warm_up_is_content_with_what_is_held(backend: str | None, issuer: LocalIssuer, server_of: ServerOf) -> None:
    """Keys that are held are something to begin with, whatever became of the fetch."""
    transport = issuer.transport()
    server = server_of(transport)
    server.warm_up()
    transport.failing = True
    server.warm_up() if backend is None else anyio.run(server.warm_up_async, backend=backend)
    assert server.validate(issuer.token()).subject == "auth0|alice"


@pytest.mark.parametrize("backend", [None, "asyncio", "trio"])
def test_warm_up_tries_every_issuer(backend: str | None, issuer: LocalIssuer, server_of: ServerOf) -> None:
    """Warm-up fetches what it can, then names those that failed."""
    transport = issuer.transport()
    server = server_of(transport, ["https://down.example/", ISSUER, "https://gone.example/"])
    with pytest.raises(TemporarilyUnavailable) as failed:
        server.warm_up() if backend is None else anyio.run(server.warm_up_async, backend=backend)
    assert "https://down.example/" in str(failed.value)
    assert "https://gone.example/" in str(failed.value)
    assert "; https://gone.example/: " in str(failed.value)
    assert f"{ISSUER}:" not in str(failed.value)
    assert [health.state for health in server.health()] == ["unavailable", "fresh", "unavailable"]


# Fetching anew.


@pytest.mark.parametrize("backend", [None, "asyncio", "trio"])
def test_refresh_refuses_a_withdrawn_key_at_once(backend: str | None, issuer: LocalIssuer, server_of: ServerOf) -> None:
    """JWK-10: whoever cannot wait for the next refresh asks for it; the token cache forgets with the keys."""
    server = server_of(issuer.transport())
    token = issuer.token()
    server.validate(token)
    issuer.withdraw(issuer.key.kid)
    issuer.rotate()
    assert server.validate(token).subject == "auth0|alice"
    server.refresh() if backend is None else anyio.run(server.refresh_async, backend=backend)
    assert refusal(ResourceServer.validate, server, token) is Reason.UNKNOWN_KEY


@pytest.mark.parametrize("backend", [None, "asyncio", "trio"])
def test_refresh_is_not_content_with_a_fetch_that_began_before(
    backend: str | None, issuer: LocalIssuer, server_of: ServerOf
) -> None:
    """A fetch under way may bring the keys of before: another one follows it."""
    transport = Gate(issuer)
    server = server_of(transport)
    with ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(server.validate, issuer.token())
        while not transport.asked:
            pass
        refresh = server.refresh if backend is None else partial(anyio.run, server.refresh_async, backend=backend)
        refreshed = threads.submit(refresh)
        transport.is_open.set()
        waiting.result(PATIENCE)
        refreshed.result(PATIENCE)
    assert transport.requests == VISIT * 2


@pytest.mark.parametrize("backend", [None, "asyncio", "trio"])
def test_refresh_tells_of_a_failure_and_keeps_the_keys(
    backend: str | None, issuer: LocalIssuer, server_of: ServerOf
) -> None:
    """A refresh that fails is an error for whoever asked, and no outage for anybody else."""
    transport = issuer.transport()
    server = server_of(transport)
    server.refresh()
    transport.failing = True
    with pytest.raises(TemporarilyUnavailable, match=ISSUER):
        server.refresh() if backend is None else anyio.run(server.refresh_async, backend=backend)
    assert server.validate(issuer.token()).subject == "auth0|alice"


# A store for restarts.


class Memory:
    """A store in memory that counts and fails as it is told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.kept: dict[str, bytes] = {}
        self.error = error

    def load(self, issuer: str) -> bytes | None:
        if self.error is not None:
            raise self.error
        return self.kept.get(issuer)

    def save(self, issuer: str, content: bytes) -> None:
        if self.error is not None:
            raise self.error
        self.kept[issuer] = content


def restarted(server_of: ServerOf, issuer: LocalIssuer, store: object, **options: Any) -> ResourceServer:
    """A resource server of a new process, whose issuer is down."""
    transport = issuer.transport()
    transport.failing = True
    return server_of(transport, keys=KeyPolicy(store=store, **options))  # type: ignore[arg-type]


@pytest.fixture
def store(issuer: LocalIssuer, server_of: ServerOf) -> Memory:
    """A store that another process has filled."""
    store = Memory()
    server_of(issuer.transport(), keys=KeyPolicy(store=store)).warm_up()
    while not store.kept:
        pass
    return store


def test_a_restart_during_an_outage_serves_from_the_store(
    validate: Validate, issuer: LocalIssuer, server_of: ServerOf, store: Memory, time: Time
) -> None:
    """Good tokens are accepted, bad ones refused, and health says since when the keys are held."""
    time.now += 700
    server = restarted(server_of, issuer, store)
    assert validate(server, issuer.token()).subject == "auth0|alice"
    assert refusal(validate, server, issuer.tampered(issuer.token())) is Reason.BAD_SIGNATURE
    assert refusal(validate, server, issuer.unknown_key()) is Reason.KEYS_UNAVAILABLE
    health = server.health()[0]
    assert (health.state, health.age, health.last_success) == ("stale", 700, 1_700_000_000)
    assert health.source == "key_store"
    server.warm_up()


def test_the_log_tells_that_stored_keys_are_stale(
    issuer: LocalIssuer, server_of: ServerOf, store: Memory, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, as of keys that were fetched."""
    time.now += 700
    server = restarted(server_of, issuer, store)
    for _ in range(3):
        with pytest.raises(TemporarilyUnavailable):
            server.refresh()
    assert [event for _, event, _ in told(caplog)].count("stale_keys_used") == 1


@pytest.mark.parametrize(
    ("later", "policy", "why"),
    [
        (601, {"stale_limit": 0}, "are 601 s old, at most 600 s are allowed"),
        (-301, {}, "are -301 s old"),
        (0, {"pinned_thumbprints": ["another"]}, "no usable key with a pinned thumbprint"),
    ],
    ids=["too old", "from the future", "not pinned"],
)
def test_a_store_that_may_not_be_used_is_ignored_and_logged(
    later: float,
    policy: dict[str, Any],
    why: str,
    issuer: LocalIssuer,
    server_of: ServerOf,
    store: Memory,
    time: Time,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Age and pins decide; the outage stays a 503."""
    time.now += later
    server = restarted(server_of, issuer, store, **policy)
    assert refusal(ResourceServer.validate, server, issuer.token()) is Reason.KEYS_UNAVAILABLE
    [record] = [each for each in caplog.records if getattr(each, "event", "") == "key_store_ignored"]
    assert why in record.getMessage()


def test_a_pinned_key_comes_from_the_store(issuer: LocalIssuer, server_of: ServerOf, store: Memory) -> None:
    """Of the keys that a store holds, pins let in those that they name."""
    pin = thumbprint(issuer.key.public_jwk())
    server = restarted(server_of, issuer, store, pinned_thumbprints={pin})
    assert server.validate(issuer.token()).subject == "auth0|alice"


def test_a_store_that_fails_is_ignored_and_logged(
    validate: Validate, issuer: LocalIssuer, server_of: ServerOf, caplog: pytest.LogCaptureFixture
) -> None:
    """A broken store costs nobody anything while the issuer is up, and is an outage like any other while it is down."""
    transport = issuer.transport()
    server = server_of(transport, keys=KeyPolicy(store=Memory(OSError("no space left"))))
    assert validate(server, issuer.token()).subject == "auth0|alice"
    down = restarted(server_of, issuer, Memory(OSError("no such disk")))
    assert refusal(validate, down, issuer.token()) is Reason.KEYS_UNAVAILABLE
    server.refresh()
    events = {getattr(record, "event", None): record.getMessage() for record in caplog.records}
    assert "OSError: 'no such disk'" in events["key_store_ignored"]
    assert "OSError: 'no space left'" in events["key_store_failed"]


def test_the_issuer_replaces_what_the_store_brought(
    issuer: LocalIssuer, server_of: ServerOf, store: Memory, time: Time
) -> None:
    """From the first good fetch on, the issuer's keys count: one that it has withdrawn is refused."""
    transport = issuer.transport()
    transport.failing = True
    server = server_of(transport, keys=KeyPolicy(store=store))
    token = issuer.token()
    server.validate(token)
    issuer.withdraw(issuer.key.kid)
    issuer.rotate()
    transport.failing = False
    time.now += 1
    server.refresh()
    assert refusal(ResourceServer.validate, server, token) is Reason.UNKNOWN_KEY
    assert server.validate(issuer.token()).subject == "auth0|alice"


@pytest.mark.parametrize("pinned", [False, True])
def test_metadata_of_the_store_finds_keys_while_discovery_is_down(
    pinned: bool, issuer: LocalIssuer, server_of: ServerOf, store: Memory
) -> None:
    """DISC-12: the last good address of the keys is kept, too; but not where pins limit what a store may bring."""
    pins = {thumbprint(issuer.key.public_jwk())} if pinned else None
    transport = Script({METADATA_URL: httpx.ConnectError("down"), JWKS_URL: 500})
    server = server_of(transport, keys=KeyPolicy(store=store, pinned_thumbprints=pins))
    server.warm_up()
    transport.answers[JWKS_URL] = issuer.jwks()
    with pytest.raises(TemporarilyUnavailable) if pinned else nullcontext():
        server.refresh()


def test_without_a_store_nothing_is_restored(issuer: LocalIssuer, server_of: ServerOf) -> None:
    """Most resource servers have none: an outage at their start is no error of ours besides."""
    keys: Any = server_of(issuer.transport())._trust.issuers[0].keys
    assert anyio.run(keys._restored) is None


def test_a_flight_that_fails_saves_nothing(issuer: LocalIssuer, server_of: ServerOf) -> None:
    """And ends well itself: the failure is told, and there is nothing to keep."""
    store = Memory()
    keys: Any = server_of(Script({}), keys=KeyPolicy(store=store))._trust.issuers[0].keys
    anyio.run(keys._fly, flight := Future[None]())
    assert (flight.done(), store.kept) == (True, {})
    assert keys.health().last_error.startswith(METADATA_URL)


def test_a_store_of_another_jwks_uri_is_ignored(
    issuer: LocalIssuer, server_of: ServerOf, store: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    """Keys that were fetched from somewhere else than is configured now are not used."""
    transport = issuer.transport()
    transport.failing = True
    server = server_of(transport, jwks_uri=f"{ISSUER}other", keys=KeyPolicy(store=store))
    assert refusal(ResourceServer.validate, server, issuer.token()) is Reason.KEYS_UNAVAILABLE
    assert "another jwks_uri" in caplog.text


def test_a_wrong_setting_is_not_covered_up_by_the_store(
    issuer: LocalIssuer, server_of: ServerOf, store: Memory
) -> None:
    """DISC-04: metadata that names another issuer is no outage."""
    server = server_of(Script({METADATA_URL: {"issuer": "https://other.example"}}), keys=KeyPolicy(store=store))
    assert refusal(ResourceServer.validate, server, issuer.token()) is Reason.ISSUER_MISCONFIGURED


def test_warm_up_ends_when_the_keys_are_stored(issuer: LocalIssuer, server_of: ServerOf, tmp_path: Path) -> None:
    """A job that fills the store and exits at once has filled it."""
    store = FileKeyStore(tmp_path)
    server_of(issuer.transport(), keys=KeyPolicy(store=store)).warm_up()
    assert store.load(ISSUER) is not None


class Slow(Memory):
    """A store whose first save takes until it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go_on = threading.Event()
        self.saves = 0

    def save(self, issuer: str, content: bytes) -> None:
        self.saves += 1
        if self.saves == 1:
            self.may_go_on.wait(PATIENCE)
        super().save(issuer, content)


def test_a_slow_save_puts_no_older_keys_in_the_place_of_newer(issuer: LocalIssuer, server_of: ServerOf) -> None:
    """JWK-10: a key that was withdrawn meanwhile does not come back with a restart: the newest are saved last."""
    store = Slow()
    server = server_of(issuer.transport(), keys=KeyPolicy(store=store))
    stolen = issuer.token()
    server.validate(stolen)
    for _ in range(5):
        issuer.withdraw(issuer.key.kid)
        issuer.rotate()
    with ThreadPoolExecutor(1) as threads:
        refreshed = threads.submit(server.refresh)
        store.may_go_on.set()
        refreshed.result(PATIENCE)
    restarted_server = restarted(server_of, issuer, store)
    assert restarted_server.validate(issuer.token()).subject == "auth0|alice"
    assert refusal(ResourceServer.validate, restarted_server, stolen) is Reason.KEYS_UNAVAILABLE
    assert store.saves == 2


class Crowded(Memory):
    """A store that counts how many save into it at once."""

    def __init__(self) -> None:
        super().__init__()
        self.at_once = self.most_at_once = 0

    def save(self, issuer: str, content: bytes) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        threading.Event().wait(0.01)
        super().save(issuer, content)
        self.at_once -= 1


def test_one_thread_saves_at_a_time(issuer: LocalIssuer, time: Time) -> None:
    """Whether the one before has ended or not, and on a new event loop, the newest keys are the ones kept."""
    store = Crowded()
    kept = KeptKeys(Issuer(ISSUER), KeyPolicy(store=store), store, time)
    documents = [{"keys": [SigningKey.generate("Ed25519", kid=f"{number}").public_jwk()]} for number in range(6)]

    async def save(*numbers: int) -> None:
        async with anyio.create_task_group() as tasks:
            for number in numbers:
                tasks.start_soon(kept.save, JWKS_URL, documents[number])
                while not store.at_once:  # noqa: ASYNC110  # the store is on a thread of its own
                    await anyio.sleep(0.001)

    async def save_all() -> None:
        await save(0, 1)
        await save(2, 3)

    for errand, newest in ((save_all, "3"), (partial(save, 4, 5), "5")):
        anyio.run(errand)
        assert json.loads(store.kept[ISSUER])["keys"][0]["kid"] == newest
    assert store.most_at_once == 1


class Hanging(Memory):
    """A store that answers nobody until it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go_on = threading.Event()
        self.loads = 0

    def load(self, issuer: str) -> bytes | None:
        self.loads += 1
        self.may_go_on.wait(PATIENCE)
        return super().load(issuer)

    def save(self, issuer: str, content: bytes) -> None:
        self.may_go_on.wait(PATIENCE)
        super().save(issuer, content)


def test_a_store_that_hangs_is_given_up(
    issuer: LocalIssuer, server_of: ServerOf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No flight and no warm-up waits for it without end."""
    monkeypatch.setattr("token_guard.kept_keys.TIMEOUT", 0.01)
    store = Hanging()
    assert refusal(ResourceServer.validate, restarted(server_of, issuer, store), issuer.token()) is (
        Reason.KEYS_UNAVAILABLE
    )
    assert "the key store is not used: TimeoutError" in caplog.text
    server_of(issuer.transport(), keys=KeyPolicy(store=store)).warm_up()
    assert store.kept == {}
    store.may_go_on.set()


def test_a_store_that_hangs_holds_one_thread(
    issuer: LocalIssuer, server_of: ServerOf, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many flights fail in the meantime. When it answers at last, its keys are used."""
    monkeypatch.setattr("token_guard.kept_keys.TIMEOUT", 0.01)
    store = Hanging()
    store.may_go_on.set()
    server_of(issuer.transport(), keys=KeyPolicy(store=store)).warm_up()
    store.may_go_on.clear()
    server = restarted(server_of, issuer, store)
    for _ in range(5):
        assert refusal(ResourceServer.validate, server, issuer.token()) is Reason.KEYS_UNAVAILABLE
        time.now += 30
    assert [thread.name for thread in threading.enumerate()].count("token-guard-errand") == 1
    store.may_go_on.set()
    assert store.loads == 1
    monkeypatch.undo()
    assert server.validate(issuer.token()).subject == "auth0|alice"


def test_the_log_tells_what_became_of_the_store(
    issuer: LocalIssuer, server_of: ServerOf, store: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    """Used, ignored or failed: a warning each, of the issuer that it is about."""
    restarted(server_of, issuer, store).warm_up()
    transport = issuer.transport()
    transport.failing = True
    with pytest.raises(TemporarilyUnavailable):
        server_of(transport, jwks_uri=f"{ISSUER}other", keys=KeyPolicy(store=store)).warm_up()
    server_of(issuer.transport(), keys=KeyPolicy(store=Memory(OSError("no space left")))).warm_up()
    lines = [
        (record.levelname, record.__dict__["event"], record.__dict__["issuer"], record.getMessage())
        for record in caplog.records
        if str(record.__dict__["event"]).startswith("key_store_")
    ]
    assert lines == [
        ("WARNING", event, ISSUER, f"keys of issuer {ISSUER}: {text}")
        for event, text in (
            ("key_store_used", "keys come from the key store while the issuer is down"),
            (
                "key_store_ignored",
                "the key store is not used: ValueError: 'the stored keys were fetched from another jwks_uri'",
            ),
            ("key_store_failed", "the keys could not be stored: OSError: 'no space left'"),
        )
    ]


def test_a_folder_that_would_not_be_believed_is_told_with_the_first_fetch(
    issuer: LocalIssuer, server_of: ServerOf, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in the outage, when it is too late; and with the whole command, however long the path is."""
    folder = tmp_path / ("k" * 100)
    folder.mkdir()
    folder.chmod(0o777)
    server_of(issuer.transport(), keys=KeyPolicy(store=FileKeyStore(folder))).warm_up()
    [line] = [record.getMessage() for record in caplog.records if record.__dict__["event"] == "key_store_failed"]
    assert line == (
        f'keys of issuer {ISSUER}: the keys could not be stored: PermissionError: "{folder} must belong to this'
        f" process's user, and nobody else may write it: run chown {os.geteuid()} and chmod 700 on it\""
    )
    assert list(folder.iterdir()) == []


def test_no_store_fills_the_log(issuer: LocalIssuer, server_of: ServerOf, caplog: pytest.LogCaptureFixture) -> None:
    """What it says of its failure is cut."""
    server_of(issuer.transport(), keys=KeyPolicy(store=Memory(OSError("x" * 1000)))).warm_up()
    [line] = [record.getMessage() for record in caplog.records if record.__dict__["event"] == "key_store_failed"]
    assert line.endswith(f"OSError: '{'x' * 399}...")


def test_pins_cover_no_tenants(server_of: ServerOf, issuer: LocalIssuer) -> None:
    """A thumbprint does not cover for which tenant a key is: the two are refused together."""
    template = Issuer("https://login.example/{tenantid}/", tenants="any", jwks_uri="https://login.example/keys")
    policy = KeyPolicy(store=Memory(), pinned_thumbprints={"x"})
    with pytest.raises(ConfigurationError) as refused:
        server_of(issuer.transport(), template, keys=policy)
    assert str(refused.value) == (
        "pinned_thumbprints cannot be kept for issuer 'https://login.example/{tenantid}/': they do not cover which of"
        " its tenants a key is for; give that issuer a ResourceServer without pins"
    )


# The shell itself.


class Raising(logging.Handler):
    """A log handler that is broken."""

    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("the log is full")


def test_a_broken_log_handler_strands_nobody(validate: Validate, issuer: LocalIssuer, server_of: ServerOf) -> None:
    """A flight lands whatever happens to the report about it."""
    handler = Raising()
    logging.getLogger("token_guard").addHandler(handler)
    try:
        server = server_of(Script({}))
        with pytest.raises(TemporarilyUnavailable, match="answered 404"):
            validate(server, issuer.token())
    finally:
        logging.getLogger("token_guard").removeHandler(handler)


def test_close_keeps_the_keys_and_a_later_fetch_starts_anew(
    validate: Validate, issuer: LocalIssuer, server_of: ServerOf
) -> None:
    """Closing ends the thread, not the resource server."""
    transport = issuer.transport()
    server = server_of(transport)
    validate(server, issuer.token())
    server.close()
    validate(server, issuer.token())
    assert transport.requests == VISIT
    issuer.rotate()
    validate(server, issuer.token())
    assert transport.requests == VISIT * 2


def test_close_answers_those_who_wait(validate: Validate, issuer: LocalIssuer, server_of: ServerOf) -> None:
    """A flight that is cut short is an outage for those who wait for it: 503, at once."""
    transport = Gate(issuer)
    server = server_of(transport)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(refusal, validate, server, issuer.token())
        while not server.health()[0].last_error:
            server.close()
        assert waiting.result(PATIENCE) is Reason.KEYS_UNAVAILABLE


def test_close_ends_a_warm_up(issuer: LocalIssuer, server_of: ServerOf) -> None:
    """Whoever waits for keys, and for the store, is told at once that there are none."""
    transport = Gate(issuer)
    server = server_of(transport, keys=KeyPolicy(store=Memory()))
    with ThreadPoolExecutor(1) as threads:
        warming = threads.submit(server.warm_up)
        while not server.health()[0].last_error:
            server.close()
        with pytest.raises(TemporarilyUnavailable, match=r": the fetch was abandoned$"):
            warming.result(PATIENCE)


# Real sockets and processes.


def test_fetches_over_http(validate: Validate) -> None:
    """The whole way on real sockets, rotation and outage included."""
    issuer = LocalIssuer(algorithm="Ed25519")
    with issuer.serve():
        server = ResourceServer(issuer=issuer.url, audience="organize")
        validate(server, issuer.token())
        issuer.rotate()
        validate(server, issuer.token())
    validate(server, issuer.token())
    assert refusal(validate, server, issuer.unknown_key()) is Reason.UNKNOWN_KEY
    server.close()


def run_python(program: str, *arguments: str) -> str:
    """Run a program that must end well, without a word about anything not cleaned up; its output."""
    ended = subprocess.run(
        [sys.executable, "-W", "default", "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


@pytest.mark.parametrize("hanging", [False, True], ids=["after a fetch", "during a fetch"])
def test_a_forked_child_fetches_for_itself(hanging: bool) -> None:
    """A server that forks its workers after the first fetch, or in the midst of one, has working children."""
    program = """
import os, sys, threading, time, warnings
from token_guard import ResourceServer
from token_guard.testing import LocalIssuer
warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
hanging = sys.argv[1] == "True"
issuer = LocalIssuer()
issuer.start()
answer = issuer._server.answer
server = ResourceServer(issuer=issuer.url, audience="organize")
if hanging:
    held, asked = threading.Event(), threading.Event()
    issuer._server.answer = lambda request: (asked.set(), held.wait(), answer(request))[-1]
    threading.Thread(target=server.validate, args=(issuer.token(),)).start()
    asked.wait()
    issuer._server.answer = answer
else:
    server.validate(issuer.token())
    issuer.rotate()
child = os.fork()
if child == 0:
    print(server.validate(issuer.token()).subject, flush=True)
    os._exit(0)
print(os.waitpid(child, 0)[1], flush=True)
if hanging:
    held.set()
print(server.validate(issuer.token()).subject, flush=True)
server.close()
issuer.stop()
"""
    assert run_python(program, str(hanging)).split() == ["auth0|alice", "0", "auth0|alice"]


def out_of(exhaust: str, give_back: str) -> tuple[str, str]:
    """What a process says that lacks something when its first token comes, and once it has that again."""
    program = f"""
import os, resource, threading
from token_guard import ResourceServer, TemporarilyUnavailable
from token_guard.testing import LocalIssuer
now = 0
issuer = LocalIssuer()
transport = issuer.transport()
server = ResourceServer(issuer=issuer.url, audience="organize", transport=transport, monotonic=lambda: now)
most = resource.getrlimit(resource.RLIMIT_NOFILE)
{exhaust}
try:
    server.validate(issuer.token())
except TemporarilyUnavailable as error:
    print(error)
{give_back}
now = 1
print(server.validate(issuer.token()).subject)
server.close()
"""
    first, second = run_python(program).splitlines()
    return first, second


def test_a_machine_out_of_threads_is_an_outage() -> None:
    """JWK-18: where the fetch thread cannot be started the answer is 503, nothing leaks, and the next attempt works."""
    first, second = out_of("threading.stack_size(1 << 46)", "threading.stack_size(0)")
    assert first.startswith("keys_unavailable: the fetch thread cannot be started")
    assert second == "auth0|alice"


def test_a_process_out_of_file_descriptors_is_an_outage() -> None:
    """JWK-18: whoever can open many connections can cause it; once descriptors are free, keys are fetched again."""
    first, second = out_of(
        "resource.setrlimit(resource.RLIMIT_NOFILE, (os.dup(0), most[1]))",
        "resource.setrlimit(resource.RLIMIT_NOFILE, most)",
    )
    assert first.startswith("keys_unavailable: the fetch thread cannot be started: OSError")
    assert second == "auth0|alice"


def test_the_interpreter_ends_while_a_name_server_hangs() -> None:
    """The most common outage of all: asyncio alone would look names up on a thread that the interpreter waits for."""
    program = """
import socket, threading, time
from token_guard import ResourceServer
asked = threading.Event()
socket.getaddrinfo = lambda *_, **__: (asked.set(), time.sleep(600))
server = ResourceServer(issuer="https://issuer.example/", audience="organize")
threading.Thread(target=server.warm_up, daemon=True).start()
asked.wait()
print("ended")
"""
    assert run_python(program) == "ended\n"


@pytest.mark.parametrize("closing", ["server.close()", "del server", "pass"])
def test_the_interpreter_ends_while_a_fetch_hangs(closing: str) -> None:
    """A fetch that hangs keeps no process from ending, with a close, with a forgotten one, or in the midst."""
    program = f"""
import logging, socket, threading
logging.disable()
from token_guard import ResourceServer, TemporarilyUnavailable
from token_guard.testing import LocalIssuer
silent = socket.create_server(("127.0.0.1", 0))
issuer = LocalIssuer("http://127.0.0.1:%d/" % silent.getsockname()[1])
server = ResourceServer(issuer=issuer.url, audience="organize")
def ask(server):
    try:
        server.validate(issuer.token())
    except TemporarilyUnavailable:
        pass
threading.Thread(target=ask, args=(server,), daemon=True).start()
silent.accept()[0].detach()  # connected, and never answered
silent.close()
{closing}
print("ended")
"""
    assert run_python(program) == "ended\n"


def test_begins_anew_in_the_midst_of_a_flight(issuer: LocalIssuer, server_of: ServerOf, time: Time) -> None:
    """A forked child waits neither for the parent's flight nor for its lock; it fetches when that is due."""
    transport = issuer.transport()
    server = server_of(transport)
    server.warm_up()
    keys: Any = server._trust.issuers[0].keys
    keys._flight = keys._saved = Future()
    keys._cache.in_flight = True
    with keys._lock:
        keys.begin_anew()
        assert (keys.flight(), keys.saved()) == (None, None)
        time.now += 600
        assert server.validate(issuer.token()).subject == "auth0|alice"
    assert transport.requests == VISIT * 2
