"""The ASGI middleware: what runs behind the guard, what a refusal becomes, and when the cell is put away."""

import http.client
import logging
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
import sentry_sdk
import uvicorn
from blockbuster import blockbuster_ctx
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.starlette import StarletteIntegration
from sentry_sdk.transport import Transport
from starlette.applications import Starlette
from starlette.authentication import requires as starlette_requires
from starlette.background import BackgroundTask
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from token_guard import (
    ChallengePolicy,
    ConfigurationError,
    InsufficientScope,
    InvalidToken,
    MissingToken,
    ResourceServer,
    TokenGuardError,
    any_of,
    current_access_token,
    requires,
    requires_scope,
)
from token_guard.guard import RequestCell, current_cell
from token_guard.testing import LocalIssuer
from token_guard_asgi import TokenGuardMiddleware
from token_guard_asgi.connection import request_view

pytestmark = pytest.mark.anyio

ISSUER = LocalIssuer()
ORGANIZER = ResourceServer(
    issuer=ISSUER.url, audience="organize", jwks=ISSUER.jwks(), challenge=ChallengePolicy(expose_reasons=True)
)
READER = {"Authorization": f"Bearer {ISSUER.token('read:contacts', subject='reader')}"}
WRITER = {"Authorization": f"Bearer {ISSUER.token('create:contacts', subject='writer')}"}
OWN_PAGE = "an error page of the application"
JUNK = {"Authorization": "Bearer junk"}
PREFLIGHT = {"Origin": "https://app.example", "Access-Control-Request-Method": "GET"}


def guarded(*routes: BaseRoute, server: ResourceServer = ORGANIZER, **options: Any) -> Starlette:
    return Starlette(routes=routes, middleware=[Middleware(TokenGuardMiddleware, server, **options)])


async def fetch(app: ASGIApp, path: str, headers: Any = None, method: str = "GET") -> httpx.Response:
    """Send one request in memory. An exception that the application lets through is raised here."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api.example") as client:
        return await client.request(method, path, headers=headers)


def outcome(response: Any) -> tuple[int, str | None]:
    """Return the status of a response, and the reason if it is one of our refusals."""
    is_ours = response.headers.get("Cache-Control") == "no-store"
    return response.status_code, response.json()["reason"] if is_ours else None


def http_scope(path: str = "/", headers: dict[str, str] | None = None, method: str = "GET") -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "root_path": "",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
    }


def websocket_scope(headers: dict[str, str] | None = None) -> Scope:
    scope = http_scope("/", headers)
    del scope["method"]
    return {**scope, "type": "websocket", "subprotocols": []}


async def messages(app: ASGIApp, scope: Scope, *received: Message) -> list[Message]:
    """Return what the application sends, message by message."""
    sent: list[Message] = []
    waiting = list(received)

    async def receive() -> Message:
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


async def subject(request: Request) -> Response:
    return PlainTextResponse(current_access_token().subject)


def subject_sync(request: Request) -> Response:
    return PlainTextResponse(current_access_token().subject)


async def fail(request: Request) -> Response:
    raise LookupError("on purpose")


async def own_page(request: Request, error: Exception) -> Response:
    return PlainTextResponse(OWN_PAGE, 500)


@pytest.fixture(autouse=True)
def _nothing_blocks_the_event_loop() -> Iterator[None]:
    with blockbuster_ctx():
        yield


# Who gets in


async def test_lets_good_token_in() -> None:
    """A valid access token reaches the handler, in async and sync handlers alike."""
    app = guarded(Route("/async", subject), Route("/sync", subject_sync))
    assert [(await fetch(app, path, READER)).text for path in ("/async", "/sync")] == ["reader", "reader"]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, (401, "missing_token")),
        ({"Authorization": "Basic YTpi"}, (401, "missing_token")),
        ({"Authorization": "Bearer"}, (400, "malformed_request")),
        ({"Authorization": "Bearer a b"}, (400, "malformed_request")),
        (JUNK, (401, "malformed")),
        ({"Authorization": f"Bearer {ISSUER.expired()}"}, (401, "expired")),
        ({"Authorization": f"Bearer {ISSUER.token(audience='elsewhere')}"}, (401, "wrong_audience")),
        ({"Authorization": f"Bearer {ISSUER.signed_by_stranger()}"}, (401, "bad_signature")),
    ],
)
async def test_refuses_before_application_runs(headers: dict[str, str], expected: tuple[int, str]) -> None:
    """What is not a valid token never reaches the application."""
    ran: list[str] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        ran.append(scope["path"])

    assert outcome(await fetch(TokenGuardMiddleware(application, ORGANIZER), "/", headers)) == expected
    assert ran == []


async def test_refusal_is_complete_answer() -> None:
    """Status, challenge and body are those of the resource server, and nothing is added to them."""
    server = ResourceServer(issuer=ISSUER.url, audience="organize", jwks=ISSUER.jwks())
    response = await fetch(guarded(server=server), "/")
    assert (response.status_code, response.content) == (401, b"{}")
    assert dict(response.headers) == {
        "content-type": "application/json",
        "content-length": "2",
        "cache-control": "no-store",
        "www-authenticate": 'Bearer realm="api"',
        "access-control-expose-headers": "WWW-Authenticate",
    }


async def test_unknown_path_needs_token_first() -> None:
    """Which paths and methods exist is told to those with a token only."""
    app = guarded(Route("/known", subject))
    assert outcome(await fetch(app, "/unknown")) == (401, "missing_token")
    assert outcome(await fetch(app, "/unknown", READER)) == (404, None)
    assert outcome(await fetch(app, "/known", method="POST")) == (401, "missing_token")
    assert outcome(await fetch(app, "/known", READER, method="POST")) == (405, None)


async def test_joins_repeated_authorization_lines() -> None:
    """Two Authorization lines are one field with a comma, of which the first scheme decides."""
    app = guarded(Route("/", subject))
    basic = ("Authorization", "Basic YTpi")
    bearer = ("authorization", READER["Authorization"])
    assert outcome(await fetch(app, "/", [bearer, bearer])) == (400, "malformed_request")
    assert outcome(await fetch(app, "/", [basic, bearer])) == (401, "missing_token")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/health", 200),
        ("/static/logo.svg", 200),
        ("/static/", 200),
        ("/health/", 401),
        ("//health", 401),
        ("/static", 401),
        ("/statics", 401),
    ],
)
async def test_public_path_is_exact_or_prefix(path: str, status: int) -> None:
    """A public path is compared as it is, without any normalisation; the token is not looked at."""

    async def open_to_all(request: Request) -> Response:
        return PlainTextResponse("open")

    app = guarded(Route("/{path:path}", open_to_all), public_paths=["/health", "/static/*"])
    assert (await fetch(app, path, JUNK)).status_code == status


async def test_public_path_of_mounted_application_begins_after_mount() -> None:
    """A mounted application with its own guard compares the path that its router sees."""

    async def open_to_all(request: Request) -> Response:
        return PlainTextResponse("open")

    inner = guarded(Route("/health", open_to_all), Route("/apihealth", open_to_all), public_paths=["/health", "/api"])
    gateway = Starlette(routes=[Mount("/api", inner)])
    assert (await fetch(gateway, "/api/health")).status_code == 200
    assert outcome(await fetch(gateway, "/api/apihealth")) == (401, "missing_token")
    assert outcome(await fetch(gateway, "/api/")) == (401, "missing_token")
    assert outcome(await fetch(gateway, "/api/api/health")) == (401, "missing_token")


async def test_public_path_is_whole_where_root_path_is_no_part_of_it() -> None:
    """A proxy may strip the root path: then the router sees the path as it is, and so does the guard."""

    async def open_to_all(request: Request) -> Response:
        return PlainTextResponse("open")

    app = guarded(Route("/apidocs", open_to_all), public_paths=["/apidocs"])
    start, _ = await messages(app, {**http_scope("/apidocs"), "root_path": "/api"})
    assert start["status"] == 200


async def test_anonymous_request_gets_in_where_allowed() -> None:
    """With allow_anonymous no credentials are needed, but a token that is sent is checked."""

    async def whoever(request: Request) -> Response:
        return PlainTextResponse(request.user.display_name)

    app = guarded(Route("/", whoever), Route("/closed", requires_scope("read:contacts")(whoever)), allow_anonymous=True)
    assert (await fetch(app, "/")).text == ""
    assert (await fetch(app, "/", READER)).text == "reader"
    assert outcome(await fetch(app, "/", JUNK)) == (401, "malformed")
    assert outcome(await fetch(app, "/closed")) == (401, "missing_token")
    assert (await fetch(app, "/closed", READER)).text == "reader"


async def test_preflight_passes_through() -> None:
    """A CORS preflight carries no token and reaches the CORS middleware; the request that follows it does not."""
    cors = Middleware(CORSMiddleware, allow_origins=["https://app.example"])
    guard = Middleware(TokenGuardMiddleware, ORGANIZER)
    app = Starlette(routes=[Route("/", subject)], middleware=[guard, cors])
    assert (await fetch(app, "/", PREFLIGHT, method="OPTIONS")).headers["Access-Control-Allow-Origin"]
    assert outcome(await fetch(app, "/", PREFLIGHT)) == (401, "missing_token")
    assert outcome(await fetch(app, "/", method="OPTIONS")) == (401, "missing_token")


async def test_answers_503_while_keys_are_unavailable() -> None:
    """A token that cannot be checked is not refused: the client is told to come back."""
    transport = ISSUER.transport()
    transport.failing = True
    server = ResourceServer(issuer=ISSUER.url, audience="organize", transport=transport)
    try:
        response = await fetch(guarded(Route("/", subject), server=server), "/", READER)
    finally:
        server.close()
    assert (response.status_code, response.json()["error"]) == (503, "temporarily_unavailable")
    assert int(response.headers["Retry-After"]) > 0
    assert "WWW-Authenticate" not in response.headers


async def test_head_refusal_has_headers_of_get_and_no_body() -> None:
    """A HEAD request is told the Content-Length of the GET answer, and sent nothing."""
    app = guarded(Route("/", requires_scope("create:contacts")(subject)))
    for headers in ({}, READER):
        got, head = [await messages(app, http_scope("/", headers, method)) for method in ("GET", "HEAD")]
        assert head[0] == got[0]
        assert [len(message["body"]) > 0 for message in (got[1], head[1])] == [True, False]


@pytest.mark.parametrize("kind", ["lifespan", "mqtt"])
async def test_other_scopes_pass_untouched(kind: str) -> None:
    """What is neither HTTP nor a WebSocket reaches the application with its very scope, receive and send."""
    seen: list[Any] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend((scope, receive, send, current_cell.get()))

    async def receive() -> Message:
        return {}

    async def send(message: Message) -> None:
        return None

    scope = {"type": kind}
    await TokenGuardMiddleware(application, ORGANIZER)(scope, receive, send)
    assert seen == [scope, receive, send, None]
    assert scope == {"type": kind}


def test_lifespan_runs_behind_guard() -> None:
    """Start-up and shutdown of the application work as without a guard."""
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(app: object) -> AsyncIterator[None]:
        events.append("start-up")
        yield
        events.append("shutdown")

    with TestClient(TokenGuardMiddleware(Starlette(lifespan=lifespan), ORGANIZER)):
        pass
    assert events == ["start-up", "shutdown"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resource_server": "organize"}, "resource_server must be a ResourceServer"),
        ({"public_paths": "/health"}, "public_paths must be a collection"),
        ({"public_paths": ["health"]}, "public_paths: 'health' is neither"),
        ({"allow_anonymous": "no"}, "allow_anonymous must be True or False"),
    ],
)
def test_refuses_wrong_settings(options: dict[str, Any], message: str) -> None:
    """A wrong argument is told when the middleware is made."""
    with pytest.raises(ConfigurationError, match=message):
        TokenGuardMiddleware(Starlette(), **{"resource_server": ORGANIZER, **options})


# What a handler is given


async def test_starlette_finds_user_and_scopes() -> None:
    """`request.user` and `request.auth` are filled, so that Starlette's own `requires` works."""

    async def whoever(request: Request) -> Response:
        user = request.user
        token = None if not user.is_authenticated else user.token.subject
        return JSONResponse([user.is_authenticated, user.display_name, token, request.auth.scopes])

    async def starlette_only(request: Request) -> Response:
        return PlainTextResponse("in")

    app = guarded(
        Route("/", whoever),
        Route("/open", whoever),
        Route("/starlette", starlette_requires("read:contacts")(starlette_only)),
        public_paths=["/open"],
    )
    assert (await fetch(app, "/", READER)).json() == [True, "reader", "reader", ["read:contacts"]]
    assert (await fetch(app, "/open", READER)).json() == [False, "", None, []]
    assert (await fetch(app, "/starlette", READER)).text == "in"
    assert (await fetch(app, "/starlette", WRITER)).status_code == 403


async def test_token_without_subject_has_empty_identity() -> None:
    """Where the issuer names nobody, the user is authenticated and has no name."""

    async def whoever(request: Request) -> Response:
        return JSONResponse([request.user.is_authenticated, request.user.identity, request.user.display_name])

    nobody = {"Authorization": f"Bearer {ISSUER.token(claims={'sub': None})}"}
    assert (await fetch(guarded(Route("/", whoever)), "/", nobody)).json() == [True, "", ""]


async def test_request_reaches_core_whole() -> None:
    """The core can ask for the URL, the method and the header lines that it reads, repeats and odd bytes kept."""
    scope = {**http_scope("/contacts", {"Host": "api.example", "Origin": "\xe9"}), "query_string": b"page=2"}
    view = request_view(scope)
    assert (view.method, view.url()) == ("GET", "http://api.example/contacts?page=2")
    assert view.headers == [("origin", "\xe9".encode().decode("latin-1"))]
    assert request_view(websocket_scope()).method == "GET"


# Refusals from inside


async def require_by_hand(request: Request) -> Response:
    current_access_token().require("create:contacts")
    return PlainTextResponse("not reached")


def require_by_hand_sync(request: Request) -> Response:
    current_access_token().require("create:contacts")
    return PlainTextResponse("not reached")


async def require_and_catch(request: Request) -> Response:
    try:
        return await require_by_hand(request)
    except Exception:  # noqa: BLE001
        return PlainTextResponse("caught")


async def require_and_fail(request: Request) -> Response:
    try:
        return await require_by_hand(request)
    except InsufficientScope as error:
        raise LookupError from error


async def validate_by_hand(request: Request) -> Response:
    await ORGANIZER.validate_async("junk")
    return PlainTextResponse("not reached")


@requires_scope("create:contacts")
class Endpoint(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        return PlainTextResponse("not reached")


class Contacts(HTTPEndpoint):
    @requires(any_of("create:contacts", "delete:contacts"))
    async def get(self, request: Request) -> Response:
        return PlainTextResponse("not reached")


async def stream_by_hand(request: Request) -> Response:
    async def lines() -> AsyncIterator[str]:
        yield "not reached"

    response = StreamingResponse(lines())
    await require_and_catch(request)
    return response


LACKING = (403, "insufficient_scope")
WAYS: dict[str, tuple[Callable[..., Any], dict[str, str], tuple[int, str]]] = {
    "/no-token": (subject, {}, (401, "missing_token")),
    "/decorated": (requires_scope("create:contacts")(subject), READER, LACKING),
    "/decorated-sync": (requires_scope("create:contacts")(subject_sync), READER, LACKING),
    "/decorated-class": (Endpoint, READER, LACKING),
    "/decorated-method": (Contacts, READER, LACKING),
    "/by-hand": (require_by_hand, READER, LACKING),
    "/by-hand-sync": (require_by_hand_sync, READER, LACKING),
    "/caught": (require_and_catch, READER, LACKING),
    "/turned-into-another-error": (require_and_fail, READER, LACKING),
    "/streamed": (stream_by_hand, READER, LACKING),
}
# The cell does not know of these until they have left the handler.
UNKNOWN_WAYS: dict[str, tuple[Callable[..., Any], dict[str, str], tuple[int, str]]] = {
    "/open/async": (subject, {}, (401, "missing_token")),
    "/open/sync": (subject_sync, READER, (401, "missing_token")),
    "/validated-by-hand": (validate_by_hand, READER, (401, "malformed")),
}
ROUTES = [Route(path, view) for path, (view, _, _) in {**WAYS, **UNKNOWN_WAYS}.items()]
GUARD = Middleware(TokenGuardMiddleware, ORGANIZER, public_paths=["/open/*"])


class CatchAll:
    """An application's own middleware that answers every error, with no idea of what it is."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        except Exception:  # noqa: BLE001
            await PlainTextResponse(OWN_PAGE, 500)(scope, receive, send)


class Copying(CatchAll):
    """A middleware that hands its application a scope of its own."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(dict(scope), receive, send)


async def catch_all(request: Request, call_next: RequestResponseEndpoint) -> Response:
    try:
        return await call_next(request)
    except Exception:  # noqa: BLE001
        return PlainTextResponse(OWN_PAGE, 500)


def mounted(**options: Any) -> Starlette:
    return Starlette(routes=[Mount("/", Starlette(routes=ROUTES, **options))], middleware=[GUARD])


OWN_HANDLERS = {TokenGuardError: own_page, InsufficientScope: own_page, Exception: own_page, 401: own_page}
ARRANGEMENTS: dict[str, ASGIApp] = {
    "Starlette": Starlette(routes=ROUTES, middleware=[GUARD]),
    "debug": Starlette(routes=ROUTES, middleware=[GUARD], debug=True),
    "own handlers": Starlette(routes=ROUTES, middleware=[GUARD], exception_handlers=OWN_HANDLERS),
    "guard outermost": TokenGuardMiddleware(Starlette(routes=ROUTES), ORGANIZER, public_paths=["/open/*"]),
    "mounted": mounted(),
    "mounted, debug": mounted(debug=True),
    "mounted, catch-all handler": mounted(exception_handlers={Exception: own_page}),
    "mounted, own handlers": mounted(exception_handlers=OWN_HANDLERS),
    "mounted guard": Starlette(routes=[Mount("/", Starlette(routes=ROUTES, middleware=[GUARD]))], debug=True),
    "catching middleware": Starlette(routes=ROUTES, middleware=[GUARD, Middleware(CatchAll)]),
    "copying middleware": Starlette(routes=ROUTES, middleware=[GUARD, Middleware(Copying)]),
}


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
@pytest.mark.parametrize("path", WAYS)
async def test_refusal_is_the_answer_whoever_catches_it(
    arrangement: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """However a refusal comes about and whatever the application does with it, the client gets ours, and no crash."""
    _, headers, expected = WAYS[path]
    assert outcome(await fetch(ARRANGEMENTS[arrangement], path, headers)) == expected
    assert [record for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # on trio BaseHTTPMiddleware itself leaves a generator behind
@pytest.mark.parametrize("path", WAYS)
async def test_refusal_is_the_answer_whoever_runs_the_application_in_a_task(path: str) -> None:
    """Starlette's BaseHTTPMiddleware, which runs the application in a task of its own, changes nothing."""
    _, headers, expected = WAYS[path]
    app = Starlette(routes=ROUTES, middleware=[GUARD, Middleware(BaseHTTPMiddleware, catch_all)])
    assert outcome(await fetch(app, path, headers)) == expected


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
@pytest.mark.parametrize("path", UNKNOWN_WAYS)
async def test_uncaught_refusal_is_an_answer(arrangement: str, path: str, caplog: pytest.LogCaptureFixture) -> None:
    """A refusal that the cell does not know, such as that of a token which is not there, is answered when it leaves."""
    _, headers, expected = UNKNOWN_WAYS[path]
    assert outcome(await fetch(ARRANGEMENTS[arrangement], path, headers)) == expected
    assert [record for record in caplog.records if record.exc_info] == []


async def test_caught_missing_token_is_the_applications_own() -> None:
    """A handler may ask whether there is a token, and go on without."""

    async def whoever(request: Request) -> Response:
        try:
            return PlainTextResponse(current_access_token().subject)
        except MissingToken:
            return PlainTextResponse("nobody")

    app = guarded(Route("/", whoever), allow_anonymous=True)
    assert [(await fetch(app, "/", headers)).text for headers in ({}, READER)] == ["nobody", "reader"]


@pytest.mark.parametrize(
    ("app", "page"),
    [
        (guarded(Route("/", fail)), "Internal Server Error"),
        (guarded(Mount("/", Starlette(routes=[Route("/", fail)], exception_handlers={Exception: own_page}))), OWN_PAGE),
    ],
    ids=["Starlette", "mounted, catch-all handler"],
)
def test_error_of_handler_stays_its_own(app: Starlette, page: str) -> None:
    """An error that is no refusal goes where it went before: through the application's handlers, and out."""
    with pytest.raises(LookupError, match="on purpose"):
        TestClient(app).get("/", headers=READER)
    response = TestClient(app, raise_server_exceptions=False).get("/", headers=READER)
    assert (response.status_code, response.text) == (500, page)


async def test_error_that_the_caller_handles_is_no_refusal() -> None:
    """A request sent from within the handling of our error, as a fallback may be, is judged on its own."""
    try:
        ORGANIZER.validate("junk")
    except InvalidToken:
        response = await fetch(guarded(Route("/", subject)), "/", READER)
    assert (response.status_code, response.text) == (200, "reader")


async def test_answers_once_and_drops_what_application_sends() -> None:
    """After our answer nothing of the application's own reaches the client."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            current_access_token().require("create:contacts")
        except InsufficientScope:
            for _ in range(2):
                await PlainTextResponse("mine")(scope, receive, send)
        raise LookupError("after the answer")

    sent = await messages(TokenGuardMiddleware(application, ORGANIZER), http_scope("/", READER))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 403


@pytest.mark.parametrize("catch", [True, False])
async def test_refusal_after_response_has_started_comes_too_late(catch: bool) -> None:
    """A response that is under way is not replaced; an uncaught refusal is then the application's error."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            current_access_token().require("create:contacts")
        except InsufficientScope:
            if not catch:
                raise
        await send({"type": "http.response.body", "body": b"mine"})

    guard = TokenGuardMiddleware(application, ORGANIZER)
    if catch:
        assert [m.get("status", m.get("body")) for m in await messages(guard, http_scope("/", READER))] == [
            200,
            b"mine",
        ]
    else:
        with pytest.raises(InsufficientScope) as caught:
            await messages(guard, http_scope("/", READER))
        assert caught.value.reason == "insufficient_scope"


async def test_refusal_that_came_too_late_is_not_logged_as_one(caplog: pytest.LogCaptureFixture) -> None:
    """The log tells of refused requests, and of no other: an error after the response has started is just that."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        current_access_token()

    caplog.set_level(logging.INFO, "token_guard")
    with pytest.raises(MissingToken) as caught:
        await messages(TokenGuardMiddleware(application, ORGANIZER, allow_anonymous=True), http_scope())
    assert caught.value.reason == "missing_token"
    assert caplog.records == []


async def test_early_messages_do_not_begin_the_answer() -> None:
    """What a server may send ahead of a response, such as early hints, leaves the answer open."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.early_hint", "links": []})
        current_access_token().require("create:contacts")

    sent = await messages(TokenGuardMiddleware(application, ORGANIZER), http_scope("/", READER))
    assert [message.get("status") for message in sent] == [None, 403, None]


@pytest.mark.parametrize("handlers", [{}, {TokenGuardError: own_page}])
async def test_unguarded_routes_keep_their_errors(handlers: dict[Any, Any]) -> None:
    """What an application does with our errors outside of a guard stays as it was, also after a refusal elsewhere."""
    guarded_part = TokenGuardMiddleware(Starlette(routes=[Route("/", subject)]), ORGANIZER)
    app = Starlette(
        routes=[Mount("/guarded", guarded_part), Route("/by-hand", validate_by_hand)], exception_handlers=handlers
    )
    assert outcome(await fetch(app, "/guarded/", JUNK)) == (401, "malformed")
    if handlers:
        assert (await fetch(app, "/by-hand")).text == OWN_PAGE
    else:
        with pytest.raises(InvalidToken) as caught:
            await fetch(app, "/by-hand")
        assert caught.value.reason == "malformed"


# Guards within guards


async def test_each_application_behind_a_gateway_keeps_its_own_guard() -> None:
    """Around a guarded application another guard may stand: the inner one decides about its own routes."""
    reports = ResourceServer(
        issuer=ISSUER.url, audience="reports", jwks=ISSUER.jwks(), challenge=ChallengePolicy(expose_reasons=True)
    )
    both = {"Authorization": f"Bearer {ISSUER.token('read:contacts', audience=['organize', 'reports'])}"}
    inner = Starlette(
        routes=[Route("/", subject), Route("/by-hand", require_by_hand)],
        middleware=[Middleware(TokenGuardMiddleware, reports)],
    )
    gateway = guarded(Mount("/reports", inner), Route("/", subject))
    assert outcome(await fetch(gateway, "/reports/", READER)) == (401, "wrong_audience")
    assert outcome(await fetch(gateway, "/reports/", both)) == (200, None)
    assert outcome(await fetch(gateway, "/reports/by-hand", both)) == (403, "insufficient_scope")
    assert outcome(await fetch(gateway, "/", READER)) == (200, None)


# The cell


async def test_context_is_reset_on_every_path() -> None:
    """After a request, however it ended, the context is what it was before."""
    app = guarded(Route("/", subject), Route("/fails", fail), Route("/by-hand", require_by_hand))
    for path, headers in (("/", {}), ("/", READER), ("/by-hand", READER), ("/fails", READER)):
        try:
            await fetch(app, path, headers)
        except LookupError:
            assert path == "/fails"
        with pytest.raises(ConfigurationError, match="no guard has decided"):
            current_access_token()
    before = RequestCell(str)
    token = current_cell.set(before)
    await fetch(app, "/", READER)
    assert current_cell.get() is before
    current_cell.reset(token)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio does not tell which thread it will reuse
async def test_reused_worker_thread_never_sees_last_caller() -> None:
    """One worker thread serves two requests, and has no token in between."""
    threads: list[int] = []

    def whoever(request: Request) -> Response:
        threads.append(threading.get_ident())
        return PlainTextResponse(current_access_token().subject)

    def outside() -> None:
        threads.append(threading.get_ident())
        with pytest.raises(ConfigurationError, match="no guard has decided"):
            current_access_token()

    app = guarded(Route("/", whoever))
    anyio.to_thread.current_default_thread_limiter().total_tokens = 1
    assert (await fetch(app, "/", READER)).text == "reader"
    await anyio.to_thread.run_sync(outside)
    assert (await fetch(app, "/", WRITER)).text == "writer"
    assert len(threads) == 3
    assert len(set(threads)) == 1


async def test_requests_at_the_same_time_keep_their_own_tokens() -> None:
    """Requests that wait for one another in one event loop do not mix."""
    arrived = [anyio.Event(), anyio.Event()]
    answers: dict[str, str] = {}

    async def meet(request: Request) -> Response:
        arrived[request.path_params["index"]].set()
        for event in arrived:
            await event.wait()
        return PlainTextResponse(current_access_token().subject)

    app = guarded(Route("/{index:int}", meet))

    async def ask(path: str, headers: dict[str, str]) -> None:
        answers[path] = (await fetch(app, path, headers)).text

    async with anyio.create_task_group() as group:
        group.start_soon(ask, "/0", READER)
        group.start_soon(ask, "/1", WRITER)
    assert answers == {"/0": "reader", "/1": "writer"}


async def test_stream_and_background_task_have_the_token() -> None:
    """What runs after the response has begun belongs to the request still."""
    later: list[str | None] = []

    def remember() -> None:
        later.append(current_access_token().subject)

    async def streamed(request: Request) -> Response:
        async def lines() -> AsyncIterator[str]:
            yield f"{current_access_token().subject} "
            yield f"{current_access_token().subject}"

        return StreamingResponse(
            lines(), background=BackgroundTask(lambda: later.append(current_access_token().subject))
        )

    assert (await fetch(guarded(Route("/", streamed)), "/", READER)).text == "reader reader"
    assert later == ["reader"]


# WebSockets


async def greet(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(str(current_access_token().subject))
    await websocket.close()


async def require_after_accept(websocket: WebSocket) -> None:
    await websocket.accept()
    websocket.user.token.require("create:contacts")


async def require_before_accept(websocket: WebSocket) -> None:
    current_access_token().require("create:contacts")


async def require_and_go_on(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        await require_before_accept(websocket)
    except InsufficientScope:
        await websocket.send_text("a secret")


async def token_of_public_connection(websocket: WebSocket) -> None:
    await websocket.accept()
    current_access_token()


@requires_scope("create:contacts")
class Chat(WebSocketEndpoint):
    async def on_connect(self, websocket: WebSocket) -> None:
        raise AssertionError("not reached")


SOCKETS: dict[str, Callable[..., Any]] = {
    "/": greet,
    "/decorated": requires_scope("create:contacts")(greet),
    "/decorated-class": Chat,
    "/before-accept": require_before_accept,
    "/after-accept": require_after_accept,
    "/go-on": require_and_go_on,
    "/open": token_of_public_connection,
}
CHATTING = guarded(*(WebSocketRoute(path, view) for path, view in SOCKETS.items()), public_paths=["/open"])


def test_websocket_with_good_token_is_accepted() -> None:
    """A WebSocket's handshake is a request like any other."""
    with TestClient(CHATTING).websocket_connect("/", headers=READER) as websocket:
        assert websocket.receive_text() == "reader"


@pytest.mark.parametrize(
    ("path", "headers", "expected"),
    [
        ("/", {}, (401, "missing_token")),
        ("/", JUNK, (401, "malformed")),
        ("/unknown", {}, (401, "missing_token")),
        ("/decorated", READER, LACKING),
        ("/decorated-class", READER, LACKING),
        ("/before-accept", READER, LACKING),
    ],
)
def test_websocket_is_denied_with_our_response(path: str, headers: dict[str, str], expected: tuple[int, str]) -> None:
    """Before it is accepted, a refused WebSocket gets the answer that a request would get."""
    with (
        pytest.raises(WebSocketDenialResponse) as denied,
        TestClient(CHATTING).websocket_connect(path, headers=headers),
    ):
        pass
    assert outcome(denied.value) == expected
    assert denied.value.headers["WWW-Authenticate"].startswith("Bearer ")


@pytest.mark.parametrize(("path", "headers"), [("/after-accept", READER), ("/go-on", READER), ("/open", {})])
def test_accepted_websocket_is_closed(path: str, headers: dict[str, str]) -> None:
    """After it was accepted, a refused WebSocket is closed with 1008, and hears nothing more of the application."""
    connect = TestClient(CHATTING).websocket_connect(path, headers=headers)
    with connect as websocket, pytest.raises(WebSocketDisconnect) as closed:
        websocket.receive_text()
    assert closed.value.code == 1008


@pytest.mark.parametrize("extensions", [{}, {"extensions": None}, {"extensions": {}}])
@pytest.mark.parametrize("path", ["/", "/decorated", "/decorated-class", "/before-accept"])
async def test_websocket_is_closed_where_no_response_can_be_sent(path: str, extensions: dict[str, Any]) -> None:
    """A server that cannot deny a WebSocket with a response is told to close it with 1008."""
    headers = {} if path == "/" else READER
    sent = await messages(CHATTING, {**websocket_scope(headers), "path": path, **extensions})
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1008)]


async def test_refusal_after_websocket_was_closed_comes_too_late() -> None:
    """There is nobody to tell any more: the refusal is the application's error."""

    async def require_after_close(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()
        current_access_token().require("create:contacts")

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await require_after_close(WebSocket(scope, receive, send))

    with pytest.raises(InsufficientScope) as caught:
        await messages(
            TokenGuardMiddleware(application, ORGANIZER), websocket_scope(READER), {"type": "websocket.connect"}
        )
    assert caught.value.reason == "insufficient_scope"


async def judge_first_message(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        token = await ORGANIZER.validate_async(await websocket.receive_text())
    except InvalidToken:
        await websocket.send_text("log in again")
        token = await ORGANIZER.validate_async(await websocket.receive_text())
    await websocket.send_text(str(token.subject))
    await websocket.close()


def test_browser_brings_its_token_in_a_message() -> None:
    """On a public path a handler may judge a token itself and handle its refusal; what it raises closes with 1008."""
    client = TestClient(guarded(WebSocketRoute("/", judge_first_message), public_paths=["/"]))
    with client.websocket_connect("/") as websocket:
        websocket.send_text("junk")
        assert websocket.receive_text() == "log in again"
        websocket.send_text(ISSUER.token(subject="reader"))
        assert websocket.receive_text() == "reader"
    with client.websocket_connect("/") as websocket:
        websocket.send_text("junk")
        assert websocket.receive_text() == "log in again"
        websocket.send_text("junk")
        with pytest.raises(WebSocketDisconnect) as closed:
            websocket.receive_text()
    assert closed.value.code == 1008


# Real servers and trackers


@contextmanager
def served(app: ASGIApp) -> Iterator[http.client.HTTPConnection]:
    """Serve an application with uvicorn on a free loopback port, and connect to it."""
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", ws="wsproto"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connection = http.client.HTTPConnection("127.0.0.1", listening.getsockname()[1], timeout=10)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield connection
        finally:
            connection.close()
            server.should_exit = True
            thread.join()


HANDSHAKE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}
CLOSE_1008 = b"\x88\x02\x03\xf0"  # RFC 6455 5.5.1: an unmasked close frame with two bytes of status code


def test_real_server_denies_and_closes_websockets(caplog: pytest.LogCaptureFixture) -> None:
    """Under uvicorn a refused handshake is an HTTP response, a later refusal a close frame, and neither an error."""
    with served(CHATTING) as connection:
        connection.request("GET", "/", headers=HANDSHAKE)
        denied = connection.getresponse()
        assert (denied.status, denied.headers["WWW-Authenticate"]) == (401, 'Bearer realm="api"')
        assert b"missing_token" in denied.read()
        connection.close()
        connection.request("GET", "/after-accept", headers={**HANDSHAKE, **READER})
        accepted = connection.getresponse()
        assert accepted.status == 101
        assert accepted.fp.read(len(CLOSE_1008)) == CLOSE_1008
    assert [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR] == []


def test_real_server_sends_no_body_to_head() -> None:
    """Under uvicorn a HEAD request gets the headers of the refusal alone, and the connection stays usable."""
    with served(guarded(Route("/", subject))) as connection:
        answers = []
        for method in ("GET", "HEAD"):
            connection.request(method, "/")
            response = connection.getresponse()
            body = response.read()
            answers.append((response.status, response.headers["Content-Length"], body))
        assert [(status, length) for status, length, _ in answers] == [(401, str(len(answers[0][2])))] * 2
        assert answers[1][2] == b""


def test_view_without_guard_never_runs(caplog: pytest.LogCaptureFixture) -> None:
    """A forgotten middleware is a 500 and not an open door, and the log says what is missing."""
    ran: list[bool] = []

    @requires_scope("read:contacts")
    async def forgotten(request: Request) -> Response:
        ran.append(True)
        return PlainTextResponse("not reached")

    with served(Starlette(routes=[Route("/", forgotten)])) as connection:
        connection.request("GET", "/", headers=READER)
        response = connection.getresponse()
        assert (response.status, response.read()) == (500, b"Internal Server Error")
    assert ran == []
    causes = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert [type(cause) for cause in causes] == [ConfigurationError]
    assert "put the Token Guard middleware" in str(causes[0])


class Events(Transport):
    """Where the error tracker's SDK would send its events."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        events = [item.get_event() for item in envelope.items]
        self.errors += [str(event["exception"]["values"][-1]["type"]) for event in events if event]


@pytest.fixture
def tracker() -> Iterator[Events]:
    """Run the error tracker's SDK, its tracing too, with events kept in memory."""
    transport = Events()
    sentry_sdk.init(
        "https://key@tracker.example/1",
        transport=transport,
        integrations=[StarletteIntegration()],
        auto_enabling_integrations=False,
        traces_sample_rate=1.0,
    )
    yield transport
    sentry_sdk.get_global_scope().set_client(None)


def test_error_tracker_sees_no_refusal(tracker: Events) -> None:
    """A refusal is no event for the error tracker's integration, mounted or not; a handler that fails is one."""
    routes = [*ROUTES, Route("/fails", fail)]
    applications = [
        Starlette(routes=routes, middleware=[GUARD]),
        Starlette(routes=[Mount("/", Starlette(routes=routes, debug=True))], middleware=[GUARD]),
    ]
    for app in applications:
        client = TestClient(app, raise_server_exceptions=False)
        for path, (_, headers, expected) in WAYS.items():
            if path != "/turned-into-another-error":
                assert outcome(client.get(path, headers=headers)) == expected
        assert tracker.errors == []
        assert client.get("/fails", headers=READER).status_code == 500
        assert tracker.errors == ["LookupError"]
        tracker.errors.clear()
