"""What every adapter does with every request: closed by default, and open only where a rule says so."""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import anyio
import pytest

from token_guard import ConfigurationError, Reason, RequestView, ResourceServer
from token_guard.guard import Guard, RequestCell
from token_guard.request import Access
from token_guard.testing import InMemoryTransport, LocalIssuer

Decide = Callable[..., None]

PREFLIGHT = (("Origin", "https://app.example"), ("Access-Control-Request-Method", "GET"))


@pytest.fixture(scope="module")
def issuer() -> LocalIssuer:
    return LocalIssuer(algorithm="Ed25519")


@pytest.fixture(scope="module")
def organizer(issuer: LocalIssuer) -> ResourceServer:
    return ResourceServer(issuer=issuer.url, audience="organize", jwks=issuer.jwks())


def begin_and_await(guard: Guard, *arguments: Any, **options: Any) -> None:
    async def decide() -> None:
        pending = guard.begin(*arguments, **options)
        if pending is not None:
            await pending

    anyio.run(decide)


@pytest.fixture(params=[Guard.decide, begin_and_await], ids=["sync", "async"])
def decide(request: pytest.FixtureRequest) -> Decide:
    """`decide`, and `begin` on a loop."""
    decide: Decide = request.param
    return decide


def decided(
    decide: Decide,
    guard: Guard,
    *headers: tuple[str, str],
    method: str = "GET",
    path: str = "/contacts",
    **options: Any,
) -> RequestCell:
    """The cell of one request, after the guard's decision."""
    cell = RequestCell(lambda refusal: refusal)
    decide(guard, cell, RequestView(method=method, url=lambda: path, headers=headers), path, **options)
    return cell


def outcome(cell: RequestCell) -> object:
    """How the request got in, or the reason why it did not."""
    assert (cell.access is None) is (cell.refusal is not None)
    assert (cell.token is None) is (cell.access is not Access.TOKEN)
    return cell.access or (cell.refusal and cell.refusal.reason)


def bearer(token: str) -> tuple[str, str]:
    return ("Authorization", f"Bearer {token}")


# The decision.


def test_a_good_token_gets_in(decide: Decide, organizer: ResourceServer, issuer: LocalIssuer) -> None:
    """BEARER-01: the cell holds the access token, and the raw one for token exchange alone."""
    raw = issuer.token()
    cell = decided(decide, Guard(organizer), bearer(raw))
    assert outcome(cell) is Access.TOKEN
    assert cell.token is not None
    assert (cell.token.subject, cell.raw_token) == ("auth0|alice", raw)


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([], Reason.MISSING_TOKEN),
        ([("Authorization", "Basic dTpw")], Reason.MISSING_TOKEN),
        ([("Cookie", "access_token=x")], Reason.MISSING_TOKEN),
        ([("Authorization", "Bearer")], Reason.MALFORMED_REQUEST),
        ([("Authorization", "Bearer a b")], Reason.MALFORMED_REQUEST),
        ([("Authorization", "Bearer a"), ("Authorization", "Bearer a")], Reason.MALFORMED_REQUEST),
        ([("Authorization", "Bearer junk")], Reason.MALFORMED),
    ],
)
def test_everything_else_is_refused(
    decide: Decide, organizer: ResourceServer, headers: list[tuple[str, str]], reason: Reason
) -> None:
    """BEARER-05 to BEARER-08: closed by default, and a refused request keeps nothing of what it sent."""
    cell = decided(decide, Guard(organizer), *headers)
    assert outcome(cell) is reason
    assert (cell.raw_token, cell.target) == (None, ("GET", "/contacts"))


def test_an_outage_refuses_without_a_judgement(decide: Decide, issuer: LocalIssuer) -> None:
    """JWK-18: where the token cannot be checked, nobody gets in and the answer is 503, anonymous access or not."""
    down = ResourceServer(issuer=issuer.url, audience="organize", transport=InMemoryTransport())
    for guard in (Guard(down), Guard(down, allow_anonymous=True)):
        cell = decided(decide, guard, bearer(issuer.token()))
        assert outcome(cell) is Reason.KEYS_UNAVAILABLE
        assert cell.refusal is not None
        assert guard.answer(cell.refusal).status == 503
    down.close()


def test_an_expired_token_is_refused_before_its_scopes_are_looked_at(
    decide: Decide, organizer: ResourceServer, issuer: LocalIssuer
) -> None:
    """SCOPE-07: a 401 that says nothing about the scopes that the route needs."""
    guard = Guard(organizer)
    cell = decided(decide, guard, bearer(issuer.expired("")))
    assert outcome(cell) is Reason.EXPIRED
    assert cell.refusal is not None
    answer = guard.answer(cell.refusal)
    assert answer.status == 401
    assert "scope" not in dict(answer.headers)["WWW-Authenticate"]


# What is open.


@pytest.mark.parametrize(
    ("path", "is_open"),
    [
        ("/health", True),
        ("/health/", False),
        ("/healthz", False),
        ("/HEALTH", False),
        ("//health", False),
        ("/static/app.js", True),
        ("/static/", True),
        ("/static", False),
        ("/statics", False),
        ("/v1/static/app.js", False),
        ("/", False),
        ("", False),
        ("/%68ealth", False),
        ("/contacts/../health", False),
    ],
)
def test_public_paths_are_compared_as_they_are(
    decide: Decide, organizer: ResourceServer, path: str, is_open: bool
) -> None:
    """Exact paths and prefixes, compared with what the router sees and never normalised."""
    guard = Guard(organizer, public_paths=["/health", "/static/*"])
    assert outcome(decided(decide, guard, path=path)) is (Access.PUBLIC if is_open else Reason.MISSING_TOKEN)


def test_the_token_of_a_public_request_is_not_looked_at(
    decide: Decide, organizer: ResourceServer, issuer: LocalIssuer
) -> None:
    """A public path and a public view let a bad token in as well, and admit no good one."""
    guard = Guard(organizer, public_paths={"/health"})
    for token in ("junk", issuer.token()):
        assert outcome(decided(decide, guard, bearer(token), path="/health")) is Access.PUBLIC
        assert outcome(decided(decide, guard, bearer(token), marked_public=True)) is Access.PUBLIC


def test_anonymous_requests_get_in_where_they_may(
    decide: Decide, organizer: ResourceServer, issuer: LocalIssuer
) -> None:
    """A request without credentials is anonymous; a token that is sent is checked, and a bad one refused."""
    guard = Guard(organizer, allow_anonymous=True)
    assert outcome(decided(decide, guard)) is Access.ANONYMOUS
    assert outcome(decided(decide, guard, bearer(issuer.token()))) is Access.TOKEN
    assert outcome(decided(decide, guard, bearer(issuer.expired()))) is Reason.EXPIRED
    assert outcome(decided(decide, guard, ("Authorization", "Bearer"))) is Reason.MALFORMED_REQUEST


def test_keeps_the_raw_token_of_a_request_that_waited_for_keys(decide: Decide, issuer: LocalIssuer) -> None:
    """It can be exchanged like that of any other request; one whose keys do not come has none."""
    transport = issuer.transport()
    server = ResourceServer(issuer=issuer.url, audience="organize", transport=transport)
    token = issuer.token()
    transport.failing = True
    assert outcome(decided(decide, Guard(server), bearer(token))) is Reason.KEYS_UNAVAILABLE
    transport.failing = False
    server = ResourceServer(issuer=issuer.url, audience="organize", transport=transport)
    cell = decided(decide, Guard(server), bearer(token))
    server.close()
    assert (cell.access, cell.raw_token) == (Access.TOKEN, token)


def test_a_preflight_passes(decide: Decide, organizer: ResourceServer) -> None:
    """A CORS preflight carries no credentials; names of header fields come in any case."""
    guard = Guard(organizer)
    assert outcome(decided(decide, guard, *PREFLIGHT, method="OPTIONS")) is Access.PUBLIC
    lower = [(name.lower(), value) for name, value in PREFLIGHT]
    assert outcome(decided(decide, guard, *lower, method="OPTIONS")) is Access.PUBLIC


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", PREFLIGHT),
        ("POST", PREFLIGHT),
        ("options", PREFLIGHT),
        ("OPTIONS", PREFLIGHT[:1]),
        ("OPTIONS", PREFLIGHT[1:]),
        ("OPTIONS", ()),
    ],
)
def test_what_only_looks_like_a_preflight_does_not_pass(
    decide: Decide, organizer: ResourceServer, method: str, headers: tuple[tuple[str, str], ...]
) -> None:
    """The request that follows a preflight needs its token, and so does a plain OPTIONS."""
    assert outcome(decided(decide, Guard(organizer), *headers, method=method)) is Reason.MISSING_TOKEN


# Settings.


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"resource_server": None}, "resource_server"),
        ({"resource_server": "organizer"}, "resource_server must be a ResourceServer, not str"),
        ({"allow_anonymous": 1}, "allow_anonymous"),
        ({"allow_anonymous": None}, "allow_anonymous"),
        ({"public_paths": "/health"}, "public_paths"),
        ({"public_paths": None}, "public_paths"),
        ({"public_paths": 7}, "public_paths"),
        ({"public_paths": [7]}, "public_paths"),
        ({"public_paths": [""]}, "public_paths"),
        ({"public_paths": ["health"]}, "public_paths"),
        ({"public_paths": ["*"]}, "public_paths"),
        ({"public_paths": ["/static*"]}, "public_paths"),
        ({"public_paths": ["/*/health"]}, "public_paths"),
        ({"public_paths": ["/**"]}, "public_paths"),
        ({"public_paths": ["/*"]}, r"^public_paths: '/\*' would open everything; remove the guard if that is meant$"),
    ],
    ids=repr,
)
def test_refuses_a_wrong_setting(options: dict[str, Any], names: str, organizer: ResourceServer) -> None:
    """CONFIG: what would open too much, or nothing at all, is told by its name."""
    with pytest.raises(ConfigurationError, match=names):
        Guard(**{"resource_server": organizer, **options})


def test_is_made_of_a_framework_s_settings(decide: Decide, issuer: LocalIssuer) -> None:
    """The names of the environment variables, and the guard's own two."""
    values = {"ISSUER": issuer.url, "AUDIENCE": ["organize"], "PUBLIC_PATHS": ["/health"], "ALLOW_ANONYMOUS": True}
    guard = Guard.from_settings(values, "TOKEN_GUARD_")
    assert outcome(decided(decide, guard, path="/health")) is Access.PUBLIC
    assert outcome(decided(decide, guard)) is Access.ANONYMOUS
    assert guard.resource_server.health()[0].issuer == issuer.url


def test_takes_a_resource_server_or_a_path_to_one(organizer: ResourceServer) -> None:
    """RESOURCE_SERVER is the object or the name under which it can be imported."""
    module = ModuleType("of_this_test.organizer")
    module.organizer = organizer  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    for named in (organizer, f"{module.__name__}.organizer"):
        assert Guard.from_settings({"RESOURCE_SERVER": named}, "").resource_server is organizer
    del sys.modules[module.__name__]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({}, "ISSUER is required"),
        ({"ISSUER": "https://a.example/"}, "AUDIENCE is required"),
        (
            {"ISSUER": "https://a.example/", "AUDIENCE": "a", "PUBLIC": "/"},
            "TOKEN_GUARD_PUBLIC is not a setting; .*, REALM, PUBLIC_PATHS, ALLOW_ANONYMOUS, RESOURCE_SERVER",
        ),
        ({"ISSUER": "https://a.example/", "AUDIENCE": "a", "LEEWAY": []}, "LEEWAY"),
        ({"ISSUER": "https://a.example/", "AUDIENCE": "a", "ALLOW_ANONYMOUS": "yes"}, "allow_anonymous"),
        ({"RESOURCE_SERVER": "token_guard.missing"}, "RESOURCE_SERVER"),
        ({"RESOURCE_SERVER": "no_such_module.organizer"}, "RESOURCE_SERVER"),
        ({"RESOURCE_SERVER": "organizer"}, "RESOURCE_SERVER"),
        ({"RESOURCE_SERVER": ""}, "RESOURCE_SERVER"),
        ({"RESOURCE_SERVER": "token_guard.Reason"}, "TOKEN_GUARD_RESOURCE_SERVER must be"),
        ({"RESOURCE_SERVER": 7}, "TOKEN_GUARD_RESOURCE_SERVER must be"),
        ({"RESOURCE_SERVER": "a.b", "AUDIENCE": "organize"}, "contradict"),
    ],
    ids=repr,
)
def test_refuses_wrong_settings_of_a_framework(values: dict[str, object], names: str) -> None:
    """CONFIG: a framework's setting is named as its user wrote it."""
    with pytest.raises(ConfigurationError, match=names):
        Guard.from_settings(values, "TOKEN_GUARD_")
