"""OnBehalfOf and ClientCredentials between a guarded handler, a token endpoint that keeps what it is sent, and an API.

The API is the transport of the caller's own client, the token endpoint that of Token Guard's: so who talks to whom is
seen in each test.
"""

import base64
import io
import logging
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

import token_guard
from tests.token_endpoint import TokenEndpoint
from token_guard import (
    ConfigurationError,
    ExchangeRefused,
    InvalidToken,
    Issuer,
    IssuerResolver,
    MissingToken,
    Reason,
    ResourceServer,
    TemporarilyUnavailable,
    TokenGuardError,
)
from token_guard.exchange import ACCESS_TOKEN_TYPE
from token_guard.guard import Guard, RequestCell, RequestView, current_cell
from token_guard.on_behalf_of import EXPIRY_MARGIN, ClientCredentials, OnBehalfOf
from token_guard.testing import LocalIssuer

PATIENCE = 20  # seconds, for what happens at once: only a test that fails waits so long
ISSUER = "https://issuer.example/"
TOKEN_ENDPOINT = f"{ISSUER}oauth/token"
REPORTS = "https://reports.example/"
CONTACTS = "https://contacts.example/contacts"
SECRET = "reports-api-secret"


class Time:
    """The clock of a test, in seconds; it moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Api:
    """The API that is called: it answers with the statuses it is given, then with 200, and keeps what it is sent."""

    statuses: list[int] = field(default_factory=list)
    requests: list[httpx.Request] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.tokens.append(request.headers["Authorization"].removeprefix("Bearer "))
        return httpx.Response(self.statuses.pop(0) if self.statuses else 200)

    @property
    def subjects(self) -> list[str]:
        return [jwt.decode(token, options={"verify_signature": False})["sub"] for token in self.tokens]


Call = Callable[..., httpx.Response]


@pytest.fixture(params=["sync", "asyncio", "trio"])
def call(request: pytest.FixtureRequest) -> Call:
    """One request through httpx's sync client, and through its async one on a fresh loop each time."""

    def call_sync(auth: httpx.Auth, api: Api, method: str = "GET", **options: Any) -> httpx.Response:
        with httpx.Client(auth=auth, transport=httpx.MockTransport(api)) as client:
            return client.request(method, CONTACTS, **options)

    async def call_async(auth: httpx.Auth, api: Api, method: str = "GET", **options: Any) -> httpx.Response:
        async with httpx.AsyncClient(auth=auth, transport=httpx.MockTransport(api)) as client:
            return await client.request(method, CONTACTS, **options)

    if request.param == "sync":
        return call_sync
    return lambda *args, **options: anyio.run(partial(call_async, *args, **options), backend=request.param)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture(scope="module")
def pem() -> bytes:
    """A private key for private_key_jwt."""
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return rsa.generate_private_key(65537, 2048).private_bytes(encoding, form, serialization.NoEncryption())


@pytest.fixture
def issuer(time: Time) -> LocalIssuer:
    return LocalIssuer(ISSUER, algorithm="Ed25519", audience=REPORTS, clock=time)


@pytest.fixture
def endpoint(issuer: LocalIssuer) -> TokenEndpoint:
    return TokenEndpoint(issuer)


@pytest.fixture
def reports(issuer: LocalIssuer, time: Time) -> ResourceServer:
    return ResourceServer(issuer=ISSUER, audience=REPORTS, jwks=issuer.jwks(), clock=time)


Make = Callable[..., OnBehalfOf]


@pytest.fixture
def on_behalf_of(reports: ResourceServer, endpoint: TokenEndpoint, time: Time) -> Iterator[Make]:
    """Make what is tested, with the test's clock and token endpoint, and close it at the end."""
    made: list[OnBehalfOf] = []

    def make(resource_server: ResourceServer = reports, **options: Any) -> OnBehalfOf:
        settings: dict[str, Any] = {"client_id": "reports-api", "client_secret": SECRET, "audience": "organize"}
        settings |= {"scopes": "read:contacts", "clock": time, "transport": endpoint}
        made.append(OnBehalfOf(resource_server, **{**settings, **options}))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def as_itself(endpoint: TokenEndpoint, time: Time) -> Iterator[Callable[..., ClientCredentials]]:
    made: list[ClientCredentials] = []

    def make(**options: Any) -> ClientCredentials:
        settings: dict[str, Any] = {
            "issuer": ISSUER,
            "client_id": "reports-api",
            "client_secret": SECRET,
            "audience": "organize",
        }
        made.append(ClientCredentials(**{**settings, "clock": time, "transport": endpoint, **options}))
        return made[-1]

    yield make
    for each in made:
        each.close()


@contextmanager
def handling(resource_server: ResourceServer, raw_token: str | None, **guard: Any) -> Iterator[RequestCell]:
    """What is inside handles a request with this token, as behind an adapter."""
    headers = [] if raw_token is None else [("Authorization", f"Bearer {raw_token}")]
    cell = RequestCell(lambda refusal: refusal)
    Guard(resource_server, **guard).decide(cell, RequestView("GET", lambda: REPORTS, headers), "/reports/weekly")
    before = current_cell.set(cell)
    try:
        yield cell
    finally:
        current_cell.reset(before)


def refusal(kind: type[Exception], call: Call, auth: httpx.Auth) -> Any:
    """The error that a call ends with, before anything is sent to the API."""
    api = Api()
    with pytest.raises(kind) as refused:
        call(auth, api)
    assert api.requests == []
    return refused.value


# What is exchanged, and what is sent where.


def test_a_request_carries_a_token_exchanged_from_the_current_one(
    call: Call, on_behalf_of: Make, endpoint: TokenEndpoint, reports: ResourceServer, issuer: LocalIssuer
) -> None:
    """XCHG-01, XCHG-05, OBOA-01: the endpoint of the metadata gets the subject token, the API the other one alone."""
    api, subject_token = Api(), issuer.token("read:reports")
    with handling(reports, subject_token):
        assert call(on_behalf_of(), api).status_code == 200
    (request,) = endpoint.requests
    assert (request.method, str(request.url), endpoint.discoveries) == ("POST", TOKEN_ENDPOINT, 1)
    assert endpoint.forms == [
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": subject_token,
            "subject_token_type": ACCESS_TOKEN_TYPE,
            "requested_token_type": ACCESS_TOKEN_TYPE,
            "audience": "organize",
            "scope": "read:contacts",
        }
    ]
    assert [str(request.url) for request in api.requests] == [CONTACTS]
    assert (api.subjects, subject_token in api.tokens) == (["auth0|alice"], False)
    assert jwt.decode(api.tokens[0], options={"verify_signature": False})["act"] == {"sub": "reports-api"}


def test_a_client_calls_as_itself(
    call: Call, as_itself: Callable[..., ClientCredentials], endpoint: TokenEndpoint
) -> None:
    """CLI-01: without any request around it, and with the client's authentication."""
    api = Api()
    call(as_itself(scopes=["read:contacts"]), api)
    assert endpoint.forms == [{"grant_type": "client_credentials", "audience": "organize", "scope": "read:contacts"}]
    assert api.subjects == ["reports-api@clients"]


def test_the_client_authenticates_as_it_is_told(
    call: Call, as_itself: Callable[..., ClientCredentials], endpoint: TokenEndpoint, pem: bytes
) -> None:
    """CLI-02, PKJ-02, PKJ-04: one of three methods; the audience of an assertion is the issuer."""
    call(as_itself(), Api())
    call(as_itself(client_authentication="post"), Api())
    call(as_itself(client_secret=None, private_key=pem), Api())
    basic, post, assertion = endpoint.requests
    assert base64.b64decode(basic.headers["Authorization"].removeprefix("Basic ")) == f"reports-api:{SECRET}".encode()
    assert "client_secret" not in endpoint.forms[0]
    assert (endpoint.forms[1]["client_secret"], "Authorization" in post.headers) == (SECRET, False)
    claims = jwt.decode(endpoint.forms[2]["client_assertion"], options={"verify_signature": False})
    assert (claims["aud"], "Authorization" in assertion.headers) == (ISSUER, False)


def test_an_assertion_names_its_key_and_algorithm(
    call: Call, as_itself: Callable[..., ClientCredentials], endpoint: TokenEndpoint, pem: bytes
) -> None:
    """PKJ-01: those that the setting names, where the client has more keys than one."""
    call(as_itself(client_secret=None, private_key=pem, key_id="2026", algorithm="PS384"), Api())
    header = jwt.get_unverified_header(endpoint.forms[0]["client_assertion"])
    assert (header["kid"], header["alg"]) == ("2026", "PS384")


def test_a_resource_says_what_the_token_is_for(
    call: Call, as_itself: Callable[..., ClientCredentials], endpoint: TokenEndpoint
) -> None:
    """XCHG-03: an address, or several, in place of an audience (RFC 8707)."""
    call(as_itself(audience=None, resource="https://contacts.example/"), Api())
    assert endpoint.forms[0]["resource"] == "https://contacts.example/"


def test_every_request_has_its_own_assertion(
    call: Call, as_itself: Callable[..., ClientCredentials], endpoint: TokenEndpoint, pem: bytes
) -> None:
    """PKJ-01: asked again, the client signs again."""
    auth, api = as_itself(client_secret=None, private_key=pem), Api([401])
    call(auth, api)
    first, second = (form["client_assertion"] for form in endpoint.forms)
    assert first != second


def test_entra_id_s_flow_is_spoken_where_it_is_chosen(
    call: Call, on_behalf_of: Make, endpoint: TokenEndpoint, reports: ResourceServer, issuer: LocalIssuer
) -> None:
    """OBOM-01: the recorded form, to the endpoint that was given; its answers say no `issued_token_type`."""
    address = "https://login.example/tenant/oauth2/v2.0/token"
    endpoint.changes = {"issued_token_type": None}
    auth = on_behalf_of(flow="entra", audience=None, scopes="api://organize/.default", token_endpoint=address)
    subject_token = issuer.token("", claims={"scp": "access_as_user"})
    with handling(reports, subject_token):
        assert call(auth, Api()).status_code == 200
    assert [str(request.url) for request in endpoint.requests] == [address]
    assert endpoint.discoveries == 0
    assert endpoint.forms == [
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "assertion": subject_token,
            "requested_token_use": "on_behalf_of",
            "scope": "api://organize/.default",
        }
    ]


def test_the_issuer_of_the_subject_token_is_asked(
    call: Call, on_behalf_of: Make, endpoint: TokenEndpoint, issuer: LocalIssuer, time: Time
) -> None:
    """OBOA-01: a token of the custom domain is exchanged there."""
    issuer.custom_domain = "https://login.example/"
    trusted = [Issuer(url, jwks=issuer.jwks()) for url in issuer.urls]
    both = ResourceServer(issuer=trusted, audience=REPORTS, clock=time)
    auth = on_behalf_of(both)
    for url in issuer.urls:
        with handling(both, issuer.token(issuer=url)):
            call(auth, Api())
    assert [request.url.host for request in endpoint.requests] == ["issuer.example", "login.example"]


# What is never exchanged.


def test_without_a_guard_it_is_a_mistake_of_ours(call: Call, on_behalf_of: Make, endpoint: TokenEndpoint) -> None:
    """XCHG-05: there is no token to act for: ConfigurationError, and nothing is sent anywhere."""
    assert "no guard has decided" in str(refusal(ConfigurationError, call, on_behalf_of()))
    assert endpoint.requests == []


def test_an_anonymous_request_has_nobody_to_act_for(
    call: Call, on_behalf_of: Make, endpoint: TokenEndpoint, reports: ResourceServer
) -> None:
    """XCHG-05: a request without a token, on a public path or let in anonymously, is MissingToken."""
    for guard in ({"allow_anonymous": True}, {"public_paths": ["/reports/*"]}):
        with handling(reports, None, **guard):
            error = refusal(MissingToken, call, on_behalf_of())
        assert error.reason is Reason.MISSING_TOKEN
    assert endpoint.requests == []


def test_a_guard_that_keeps_no_raw_token_is_named(
    call: Call, on_behalf_of: Make, reports: ResourceServer, issuer: LocalIssuer
) -> None:
    """An adapter that fills the cell by hand is told what to do."""
    with handling(reports, issuer.token()) as cell:
        cell.raw_token = None
        assert str(refusal(ConfigurationError, call, on_behalf_of())) == (
            "the current request's token is not known: let a Guard decide about requests"
        )


@pytest.mark.parametrize(
    ("other", "reason"),
    [({"audience": "organize"}, Reason.WRONG_AUDIENCE), ({"issuer": "https://other.example/"}, Reason.WRONG_ISSUER)],
)
def test_a_token_that_was_issued_for_another_api_is_not_exchanged(
    call: Call,
    on_behalf_of: Make,
    endpoint: TokenEndpoint,
    issuer: LocalIssuer,
    time: Time,
    other: dict[str, str],
    reason: Reason,
) -> None:
    """OBOM-02, XCHG-05: another guard in the process may have let it in; nothing is sent."""
    setting = {"issuer": ISSUER, "audience": REPORTS, **other}
    elsewhere = ResourceServer(**setting, jwks=issuer.jwks(), clock=time)  # type: ignore[arg-type]
    with handling(elsewhere, issuer.token(**other)):  # type: ignore[arg-type]
        assert refusal(InvalidToken, call, on_behalf_of()).reason is reason
    assert endpoint.requests == []


@pytest.mark.parametrize(
    ("options", "claims"),
    [
        ({"flow": "entra"}, {"gty": "client-credentials", "scp": "read"}),
        ({"allowed_actors": ["svc1"]}, {"act": {"sub": "svc2", "act": {"sub": "svc1"}}}),
        ({"allowed_actors": "svc1"}, {"act": {"sub": "svc"}}),
        ({}, {"act": {"sub": "4", "act": {"sub": "3", "act": {"sub": "2", "act": {"sub": "1"}}}}}),
        ({"max_actors": 0}, {"act": {"sub": "svc1"}}),
    ],
)
def test_a_subject_token_that_may_not_be_used_is_not_sent(
    call: Call,
    on_behalf_of: Make,
    endpoint: TokenEndpoint,
    reports: ResourceServer,
    issuer: LocalIssuer,
    options: dict[str, Any],
    claims: dict[str, Any],
) -> None:
    """ACT-01, ACT-04, OBOA-02, OBOM-02: no user, a wrong actor, or a chain that is too long."""
    with handling(reports, issuer.token(claims=claims)):
        assert refusal(ExchangeRefused, call, on_behalf_of(**options)).error == "invalid_grant"
    assert endpoint.requests == []


def test_a_chain_that_is_allowed_goes_on(
    call: Call, on_behalf_of: Make, reports: ResourceServer, issuer: LocalIssuer
) -> None:
    """ACT-01, OBOA-02: three parties may stand behind a token, and the outermost is the one that is looked at."""
    chain = {"act": {"sub": "svc3", "act": {"sub": "svc2", "act": {"sub": "svc1"}}}}
    with handling(reports, issuer.token(claims=chain)):
        assert call(on_behalf_of(allowed_actors={"svc3"}), Api()).status_code == 200


NO_ENDPOINT = (
    "token_endpoint is required where an IssuerResolver finds issuers: our secret and the user's token must not be sent"
    " wherever one of them says"
)
RESOLVING = ResourceServer(issuer=IssuerResolver(Issuer, allowed_hosts=["issuer.example"]), audience="organize")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"client_secret": None}, "needs either a client_secret or a private_key"),
        ({"audience": None, "scopes": ()}, "say for which API"),
        ({"token_endpoint": "http://issuer.example/token"}, "token_endpoint must be an absolute https URL"),
        ({"flow": "okta"}, "flow must be 'rfc8693' or 'entra'"),
        ({"allowed_actors": [7]}, "allowed_actors must hold non-empty strings"),
        ({"resource_server": "reports"}, "resource_server must be a ResourceServer"),
        ({"resource_server": RESOLVING}, f"^{NO_ENDPOINT}$"),
    ],
)
def test_a_wrong_setting_is_told_at_once(on_behalf_of: Make, options: dict[str, Any], message: str) -> None:
    """CLI-01, OBOA-01: before the first request, with the name of the setting."""
    with pytest.raises(ConfigurationError, match=message):
        on_behalf_of(**options)


def test_a_client_s_issuer_is_an_issuer(as_itself: Callable[..., ClientCredentials]) -> None:
    """CLI-01: the secret goes nowhere without https."""
    with pytest.raises(ConfigurationError, match="issuer must be an absolute https URL"):
        as_itself(issuer="http://issuer.example/")


# How long a token is kept, and for whom.


def test_a_token_is_kept_until_shortly_before_its_end(
    call: Call, as_itself: Callable[..., ClientCredentials], endpoint: TokenEndpoint, time: Time
) -> None:
    """CLI-06: asked again before it expires, not after; the endpoint is discovered once."""
    auth, api = as_itself(), Api()
    for moved in (0, 3600 - EXPIRY_MARGIN - 0.5, 0.5, 1):
        time.now += moved
        call(auth, api)
    assert len(endpoint.requests) == 2
    assert [api.tokens.index(token) for token in api.tokens] == [0, 0, 2, 2]
    assert endpoint.discoveries == 1


def test_a_token_is_kept_no_longer_than_its_subject_token(
    call: Call, on_behalf_of: Make, endpoint: TokenEndpoint, reports: ResourceServer, issuer: LocalIssuer, time: Time
) -> None:
    """XCHG-06: the earlier of both ends counts."""
    auth, api = on_behalf_of(), Api()
    with handling(reports, issuer.token(lifetime=100)):
        for moved in (0, 100 - EXPIRY_MARGIN - 0.5, 0.5):
            time.now += moved
            call(auth, api)
    assert [api.tokens.index(token) for token in api.tokens] == [0, 0, 2]


def test_a_token_that_lives_too_short_to_be_kept_is_used_once(
    call: Call, as_itself: Callable[..., ClientCredentials], endpoint: TokenEndpoint
) -> None:
    """CLI-06: it is good for the call that it was asked for."""
    endpoint.changes = {"expires_in": EXPIRY_MARGIN}
    auth, api = as_itself(), Api()
    assert [call(auth, api).status_code for _ in range(2)] == [200, 200]
    assert len(set(api.tokens)) == len(endpoint.requests) == 2


def test_two_users_never_share_a_token(
    call: Call, on_behalf_of: Make, endpoint: TokenEndpoint, reports: ResourceServer, issuer: LocalIssuer
) -> None:
    """CLI-06, XCHG-06: each has their own, each from the cache afterwards."""
    auth, api = on_behalf_of(), Api()
    tokens = {name: issuer.token(subject=name) for name in ("alice", "bob")}
    for name in ("alice", "bob", "alice", "bob"):
        with handling(reports, tokens[name]):
            call(auth, api)
    assert api.subjects == ["alice", "bob", "alice", "bob"]
    assert len(endpoint.requests) == 2


def test_a_weaker_token_of_the_same_user_never_gets_what_a_stronger_one_got(
    call: Call, on_behalf_of: Make, endpoint: TokenEndpoint, reports: ResourceServer, issuer: LocalIssuer
) -> None:
    """XCHG-06: a token is kept for the very subject token, of which a digest alone is held."""
    auth, api = on_behalf_of(), Api()
    strong, weak = issuer.token("read:reports admin"), issuer.token("read:reports")
    for subject_token in (strong, weak):
        with handling(reports, subject_token):
            call(auth, api)
    assert [form["subject_token"] for form in endpoint.forms] == [strong, weak]
    assert len(set(api.tokens)) == 2
    assert not any(strong in repr(entry) for entry in auth._tokens._granted.items())


def test_each_target_has_its_own_token(
    call: Call, on_behalf_of: Make, endpoint: TokenEndpoint, reports: ResourceServer, issuer: LocalIssuer
) -> None:
    """CLI-06: another scope is another token, asked for with the least scopes."""
    contacts, calendars = on_behalf_of(scopes="read:contacts"), on_behalf_of(scopes="read:calendar")
    with handling(reports, issuer.token()):
        for auth in (contacts, calendars, contacts, calendars):
            call(auth, Api())
    assert [form["scope"] for form in endpoint.forms] == ["read:contacts", "read:calendar"]


def test_less_than_was_asked_for_is_told_to_the_operator(
    call: Call, as_itself: Callable[..., ClientCredentials], endpoint: TokenEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """CLI-03: the log names the scopes that the token lacks, and no token."""
    endpoint.changes = {"scope": "read:contacts"}
    api = Api()
    call(as_itself(scopes=["read:contacts", "read:calendar", "read:reports"]), api)
    [line] = [vars(record) for record in caplog.records if record.name == "token_guard"]
    lacks = "read:calendar read:reports"
    assert line["message"] == f"{TOKEN_ENDPOINT} granted a token without the scopes {lacks}"
    assert (line["event"], line["issuer"], line["scopes"]) == ("scopes_not_granted", ISSUER, lacks)
    assert api.tokens[0] not in caplog.text


def test_a_refresh_token_is_neither_kept_nor_sent(
    call: Call, as_itself: Callable[..., ClientCredentials], endpoint: TokenEndpoint, time: Time
) -> None:
    """CLI-07: nothing here refreshes: an ended token is asked for anew, by the same grant."""
    endpoint.changes = {"refresh_token": "not-asked-for"}
    auth = as_itself()
    for _ in range(2):
        call(auth, Api())
        time.now += 3600
    assert [form["grant_type"] for form in endpoint.forms] == ["client_credentials"] * 2
    assert not any(b"not-asked-for" in request.content for request in endpoint.requests)


# When the API answers 401.


def test_a_refused_token_is_dropped_and_the_request_sent_once_more(
    call: Call, on_behalf_of: Make, endpoint: TokenEndpoint, reports: ResourceServer, issuer: LocalIssuer
) -> None:
    """CLI-06: with a new token and the same body; the new one is kept."""
    auth, api = on_behalf_of(), Api([401])
    with handling(reports, issuer.token()):
        assert call(auth, api, "POST", json={"name": "Grace"}).status_code == 200
        assert call(auth, api).status_code == 200
    assert [request.content for request in api.requests] == [b'{"name":"Grace"}'] * 2 + [b""]
    assert [api.tokens.index(token) for token in api.tokens] == [0, 1, 1]
    assert len(endpoint.requests) == 2


def test_a_second_401_is_the_answer(
    call: Call, as_itself: Callable[..., ClientCredentials], endpoint: TokenEndpoint
) -> None:
    """CLI-06: an API that refuses everything costs two calls and, from then on, one token a request: no stampede."""
    auth, api = as_itself(), Api([401] * 4)
    assert [call(auth, api).status_code for _ in range(2)] == [401, 401]
    assert (len(api.requests), len(endpoint.requests)) == (4, 3)


@pytest.mark.parametrize("status", [200, 302, 400, 403, 404, 500, 503])
def test_any_other_answer_is_the_caller_s(
    call: Call, as_itself: Callable[..., ClientCredentials], endpoint: TokenEndpoint, status: int
) -> None:
    """CLI-06: the token stays."""
    auth, api = as_itself(), Api([status])
    assert call(auth, api).status_code == status
    assert call(auth, api).status_code == 200
    assert (len(api.requests), len(endpoint.requests)) == (2, 1)


def test_a_streamed_body_is_never_sent_again(
    as_itself: Callable[..., ClientCredentials], endpoint: TokenEndpoint
) -> None:
    """CLI-06: it is gone after the first time: the 401 is the answer, and the token is dropped."""
    auth, api = as_itself(), Api([401, 401, 401])
    client = httpx.Client(auth=auth, transport=httpx.MockTransport(api))
    assert client.post(CONTACTS, content=iter([b"a", b"b"])).status_code == 401
    assert client.post(CONTACTS, files={"file": io.BytesIO(b"a")}).status_code == 401
    assert len(api.requests) == 2

    async def body() -> AsyncIterator[bytes]:
        yield b"a"

    async def post() -> httpx.Response:
        async with httpx.AsyncClient(auth=auth, transport=httpx.MockTransport(api)) as client:
            return await client.post(CONTACTS, content=body())

    assert anyio.run(post).status_code == 401
    assert len(api.requests) == len(set(api.tokens)) == len(endpoint.requests) == 3


def test_a_late_401_does_not_drop_a_newer_token(
    as_itself: Callable[..., ClientCredentials], endpoint: TokenEndpoint
) -> None:
    """CLI-06: of several requests that were refused with one token, the first gets a new one for all."""
    auth = as_itself()
    flows = [auth.sync_auth_flow(httpx.Request("GET", CONTACTS)) for _ in range(5)]
    for flow in flows:
        next(flow)
    tokens = [flow.send(httpx.Response(401)).headers["Authorization"] for flow in flows]
    assert len(set(tokens)) == 1
    assert len(endpoint.requests) == 2


# One flight for all.


def test_fifty_threads_cause_one_exchange(
    on_behalf_of: Make, endpoint: TokenEndpoint, reports: ResourceServer, issuer: LocalIssuer
) -> None:
    """CLI-06: all wait for the first one's flight, and all of them get its token."""
    auth, api, ready = on_behalf_of(), Api(), threading.Barrier(51)
    endpoint.is_open.clear()

    def ask(_: int) -> int:
        ready.wait(PATIENCE)
        return httpx.Client(auth=auth, transport=httpx.MockTransport(api)).get(CONTACTS).status_code

    with handling(reports, issuer.token()), ThreadPoolExecutor(50) as threads:
        answers = [threads.submit(copy_context().run, ask, number) for number in range(50)]
        ready.wait(PATIENCE)
        endpoint.is_open.set()
        assert [answer.result(PATIENCE) for answer in answers] == [200] * 50
    assert (len(endpoint.requests), len(set(api.tokens))) == (1, 1)


@pytest.mark.anyio
async def test_fifty_tasks_cause_one_exchange(
    anyio_backend: str, on_behalf_of: Make, endpoint: TokenEndpoint, reports: ResourceServer, issuer: LocalIssuer
) -> None:
    """CLI-06: the same for tasks of either loop, and one that is cancelled strands nobody, were it the first."""
    auth, api = on_behalf_of(), Api()
    endpoint.is_open.clear()
    client = httpx.AsyncClient(auth=auth, transport=httpx.MockTransport(api))
    with handling(reports, issuer.token()):
        async with client, anyio.create_task_group() as followers:
            async with anyio.create_task_group() as leader:
                leader.start_soon(client.get, CONTACTS)
                await anyio.wait_all_tasks_blocked()
                for _ in range(50):
                    followers.start_soon(client.get, CONTACTS)
                await anyio.wait_all_tasks_blocked()
                leader.cancel_scope.cancel()
            endpoint.is_open.set()
    assert (len(api.requests), len(endpoint.requests), len(set(api.tokens))) == (50, 1, 1)


def test_threads_and_loops_share_a_flight(as_itself: Callable[..., ClientCredentials], endpoint: TokenEndpoint) -> None:
    """CLI-06: one object serves threads and event loops of both kinds at once."""
    auth, api = as_itself(), Api()
    endpoint.is_open.clear()

    async def get() -> int:
        async with httpx.AsyncClient(auth=auth, transport=httpx.MockTransport(api)) as client:
            return (await client.get(CONTACTS)).status_code

    with ThreadPoolExecutor(3) as threads:
        answers = [
            threads.submit(
                lambda: httpx.Client(auth=auth, transport=httpx.MockTransport(api)).get(CONTACTS).status_code
            ),
            threads.submit(lambda: anyio.run(get, backend="asyncio")),
            threads.submit(lambda: anyio.run(get, backend="trio")),
        ]
        endpoint.is_open.set()
        assert [answer.result(PATIENCE) for answer in answers] == [200] * 3
    assert len(endpoint.requests) == 1


def test_one_user_never_waits_behind_another(
    on_behalf_of: Make, endpoint: TokenEndpoint, reports: ResourceServer, issuer: LocalIssuer
) -> None:
    """CLI-06: a flight is for one subject token; a failed one fails nobody else."""
    auth, api = on_behalf_of(), Api()
    call = partial(httpx.Client(auth=auth, transport=httpx.MockTransport(api)).get, CONTACTS)
    with handling(reports, issuer.token(subject="bob")):
        call()
        endpoint.is_open.clear()
        with handling(reports, issuer.token(subject="alice")), ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(copy_context().run, call)
            while len(endpoint.requests) < 2:
                assert not waiting.done()
            with handling(reports, issuer.token(subject="bob")):
                assert call().status_code == 200
            endpoint.answer = httpx.Response(400, json={"error": "invalid_grant"})
            endpoint.is_open.set()
            with pytest.raises(ExchangeRefused):
                waiting.result(PATIENCE)
        assert call().status_code == 200


def test_close_answers_those_who_wait(as_itself: Callable[..., ClientCredentials], endpoint: TokenEndpoint) -> None:
    """A flight that is cut short is an outage for those who wait for it, and no end of the object."""
    auth, api = as_itself(), Api()
    client = httpx.Client(auth=auth, transport=httpx.MockTransport(api))
    endpoint.is_open.clear()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(client.get, CONTACTS)
        while not endpoint.requests:
            assert not waiting.done()
        auth.close()
        with pytest.raises(TemporarilyUnavailable, match=": the request for a token was abandoned$") as refused:
            waiting.result(PATIENCE)
    assert refused.value.reason is Reason.TOKEN_UNAVAILABLE
    endpoint.is_open.set()
    assert client.get(CONTACTS).status_code == 200


# When there is no token.


def test_a_token_endpoint_that_hangs_is_given_up(
    call: Call, as_itself: Callable[..., ClientCredentials], endpoint: TokenEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All requests of a flight together have a limit, whatever the transport makes of its own."""
    monkeypatch.setattr("token_guard.on_behalf_of.FLIGHT_TIMEOUT", 0.01)
    auth = as_itself()
    endpoint.is_open.clear()
    hanging = refusal(TemporarilyUnavailable, call, auth)
    assert str(hanging) == f"token_unavailable: {ISSUER} took longer than 0 s"
    endpoint.is_open.set()
    monkeypatch.undo()
    assert call(auth, Api()).status_code == 200


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, "invalid_grant"),
        (400, "invalid_scope"),
        (400, "invalid_target"),
        (401, "invalid_client"),
        (403, "consent_required"),
        (400, "interaction_required"),
    ],
)
def test_what_the_authorization_server_refuses_is_the_caller_s_to_know(
    call: Call,
    on_behalf_of: Make,
    endpoint: TokenEndpoint,
    reports: ResourceServer,
    issuer: LocalIssuer,
    status: int,
    error: str,
) -> None:
    """CLI-05, XCHG-06, OBOM-03: as ExchangeRefused in its own words, claims included; nothing is kept of it."""
    auth, claims = on_behalf_of(), '{"access_token":{}}'
    body = {"error": error, "error_description": "In words.", "claims": claims}
    endpoint.answer = httpx.Response(status, json=body)
    with handling(reports, issuer.token()):
        refused = refusal(ExchangeRefused, call, auth)
        assert (refused.error, refused.description, refused.claims) == (error, "In words.", claims)
        endpoint.answer = None
        assert call(auth, Api()).status_code == 200


OUTAGES: dict[str, tuple[httpx.Response | Exception, str, float]] = {
    "HTML 502": (httpx.Response(502, html="<html>Bad gateway</html>"), "answered 502", 0),
    "503 for a while": (httpx.Response(503, headers={"Retry-After": "17"}), "answered 503", 17),
    "429 for a while": (httpx.Response(429, json={"error": "slow_down"}, headers={"Retry-After": "3"}), "429", 3),
    "timeout": (httpx.ReadTimeout("slow"), "ReadTimeout", 0),
    "refused connection": (httpx.ConnectError("refused"), "ConnectError", 0),
    "HTML 200": (httpx.Response(200, html="<html>Sign in</html>"), "answered 200 without a JSON object", 1),
    "redirect": (httpx.Response(302, headers={"Location": "https://elsewhere.example/"}), "answered 302", 1),
    "array": (httpx.Response(200, json=["access_token"]), "without a JSON object", 1),
    "repeated members": (httpx.Response(200, text='{"access_token":"a","access_token":"b"}'), "JSON object", 1),
    "oversized": (httpx.Response(200, content=b" " * (1024 * 1024 + 1)), "more than", 0),
    "bug": (KeyError("of the transport"), "the transport raised KeyError", 1),
}


@pytest.mark.parametrize(("outage", "words", "retry_after"), OUTAGES.values(), ids=OUTAGES)
def test_an_outage_is_no_refusal(
    call: Call,
    as_itself: Callable[..., ClientCredentials],
    endpoint: TokenEndpoint,
    outage: httpx.Response | Exception,
    words: str,
    retry_after: float,
) -> None:
    """CLI-05: 503 and not a word about the token; once the server is back, its endpoint is discovered again."""
    auth = as_itself()
    endpoint.answer = outage
    error = refusal(TemporarilyUnavailable, call, auth)
    assert (error.reason, error.retry_after) == (Reason.TOKEN_UNAVAILABLE, retry_after)
    assert words in error.detail
    endpoint.answer = None
    assert call(auth, Api()).status_code == 200
    assert endpoint.discoveries == 2


def test_a_server_that_names_another_issuer_is_a_wrong_setting(
    call: Call, as_itself: Callable[..., ClientCredentials], endpoint: TokenEndpoint
) -> None:
    """DISC-04: no outage: the message names both spellings. The secret was sent nowhere."""
    error = refusal(ConfigurationError, call, as_itself(issuer=ISSUER.rstrip("/")))
    assert f"names the issuer '{ISSUER}', but the setting issuer is '{ISSUER[:-1]}'" in str(error)
    assert endpoint.requests == []


def test_answers_that_are_no_bearer_token_are_not_kept(
    call: Call, on_behalf_of: Make, endpoint: TokenEndpoint, reports: ResourceServer, issuer: LocalIssuer
) -> None:
    """CLI-03, XCHG-04, XCHG-05: neither used nor kept; what they are is table and test of exchange.py."""
    subject_token, auth = issuer.token(), on_behalf_of()
    for changes in ({"token_type": "N_A"}, {"issued_token_type": None}, {"access_token": subject_token}):
        endpoint.changes = changes
        with handling(reports, subject_token):
            assert refusal(ExchangeRefused, call, auth).error == "invalid_answer"
    assert len(endpoint.requests) == 3


# What is never told.


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(400, json={"error": "invalid_grant"}),
        httpx.Response(200, json={"access_token": "granted.token"}),
        httpx.Response(200, html="<html></html>"),
        httpx.Response(502),
        httpx.ConnectError("refused"),
    ],
)
@pytest.mark.parametrize("client_authentication", ["basic", "post"])
def test_no_error_holds_a_token_or_a_secret(
    call: Call,
    on_behalf_of: Make,
    endpoint: TokenEndpoint,
    reports: ResourceServer,
    issuer: LocalIssuer,
    caplog: pytest.LogCaptureFixture,
    client_authentication: str,
    answer: httpx.Response | Exception,
) -> None:
    """CLI-05: neither its text nor the values in its frames, which error trackers print; nor any log."""
    caplog.set_level(logging.DEBUG)
    subject_token, auth = issuer.token(), on_behalf_of(client_authentication=client_authentication)
    endpoint.answer = answer
    with handling(reports, subject_token), pytest.raises(TokenGuardError) as refused:
        call(auth, Api())
    frames = traceback.TracebackException.from_exception(refused.value, capture_locals=True)
    ours = [frame for frame in frames.stack if frame.filename != __file__]
    assert any("on_behalf_of" in frame.filename for frame in ours)
    printed = "".join((repr(refused.value), str(refused.value), caplog.text, *(str(frame.locals) for frame in ours)))
    basic = base64.b64encode(f"reports-api:{SECRET}".encode()).decode()
    for secret in (subject_token, SECRET, basic, "granted.token"):
        assert secret not in printed


def test_what_is_printed_holds_no_secret(
    call: Call, on_behalf_of: Make, reports: ResourceServer, issuer: LocalIssuer, pem: bytes
) -> None:
    """CLI-05: settings are told by their names, and secrets, keys and tokens not at all."""
    auth, api = on_behalf_of(), Api()
    with handling(reports, issuer.token()):
        call(auth, api)
    printed = repr(auth) + repr(on_behalf_of(client_secret=None, private_key=pem))
    assert "client_id='reports-api'" in printed
    for secret in (SECRET, "PRIVATE", *api.tokens):
        assert secret not in printed


# Real sockets and processes.


def test_asks_over_http(call: Call) -> None:
    """CLI-01: the whole way on real sockets: a served issuer, and a secret that it does not know."""
    with LocalIssuer(algorithm="Ed25519").serve() as issuer:
        issuer.add_client("reports-api", SECRET, scope="read:contacts read:calendar")
        settings: dict[str, Any] = {"issuer": issuer.url, "audience": "organize", "client_id": "reports-api"}
        auth = ClientCredentials(**settings, client_secret=SECRET, scopes="read:contacts")
        wrong = ClientCredentials(**settings, client_secret="wrong")
        api = Api()
        assert call(auth, api).status_code == 200
        organizer = ResourceServer(issuer=issuer.url, audience="organize", jwks=issuer.jwks())
        organizer.validate(api.tokens[0]).require("read:contacts")
        assert refusal(ExchangeRefused, call, wrong).error == "invalid_client"
    auth.close()
    wrong.close()


def test_a_machine_out_of_threads_is_an_outage() -> None:
    """Where the fetch thread cannot be started nobody waits for it, and the next attempt works."""
    program = f"""
import threading
import httpx
from token_guard import ClientCredentials, TemporarilyUnavailable
from token_guard.testing import LocalIssuer
issuer = LocalIssuer()
issuer.add_client("reports-api", "{SECRET}", scope="read:contacts")
auth = ClientCredentials(
    issuer=issuer.url, client_id="reports-api", client_secret="{SECRET}", audience="organize",
    transport=issuer.transport(),
)
client = httpx.Client(auth=auth, transport=httpx.MockTransport(lambda request: httpx.Response(204)))
threading.stack_size(1 << 46)
try:
    client.get("https://contacts.example/")
except TemporarilyUnavailable as error:
    print(error)
threading.stack_size(0)
print(client.get("https://contacts.example/").status_code)
"""
    command = [sys.executable, "-W", "error", "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    first, second = ended.stdout.splitlines()
    assert first.startswith("token_unavailable: the fetch thread cannot be started: RuntimeError: ")
    assert (second, ended.stderr) == ("204", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_begins_anew() -> None:
    """A flight that the parent waits for is not the child's: it has no thread, and may find the lock taken."""
    program = f"""
import os, warnings, threading
warnings.simplefilter("ignore", DeprecationWarning)
import httpx
from token_guard import ClientCredentials
from token_guard.testing import LocalIssuer
issuer = LocalIssuer()
issuer.add_client("reports-api", "{SECRET}", scope="read:contacts")
issuer.start()
auth = ClientCredentials(issuer=issuer.url, client_id="reports-api", client_secret="{SECRET}", audience="organize")
client = httpx.Client(auth=auth, transport=httpx.MockTransport(lambda request: httpx.Response(204)))
print(client.get("https://contacts.example/").status_code, flush=True)
auth._tokens._lock.acquire()
auth._tokens._flights[None] = None
child = os.fork()
if child == 0:
    print(client.get("https://contacts.example/").status_code, flush=True)
    os._exit(0)
print(os.waitpid(child, 0)[1])
issuer.stop()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.split() == ["204", "204", "0"]


def test_both_are_names_of_the_package() -> None:
    """They are imported when they are asked for, as they bring httpx; nothing else of their file is a public name."""
    assert (token_guard.OnBehalfOf, token_guard.ClientCredentials) == (OnBehalfOf, ClientCredentials)
    with pytest.raises(AttributeError, match=r"^module 'token_guard' has no attribute 'EXPIRY_MARGIN'$"):
        token_guard.EXPIRY_MARGIN  # noqa: B018
