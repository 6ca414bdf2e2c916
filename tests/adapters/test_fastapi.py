"""The FastAPI dependency: alone and behind the middleware it refuses alike, and it documents itself."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import anyio
import anyio.to_thread
import httpx
import pytest
import sentry_sdk
from blockbuster import BlockBuster, blockbuster_ctx
from fastapi import (
    APIRouter,
    BackgroundTasks,
    Body,
    Depends,
    FastAPI,
    HTTPException,
    Request,
    Response,
    Security,
    WebSocket,
)
from fastapi.responses import PlainTextResponse, StreamingResponse
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.fastapi import FastApiIntegration
from sentry_sdk.integrations.starlette import StarletteIntegration
from sentry_sdk.transport import Transport
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount
from starlette.testclient import WebSocketDenialResponse
from starlette.types import ASGIApp, Message, Scope
from starlette.websockets import WebSocketDisconnect

from token_guard import (
    AccessToken,
    ChallengePolicy,
    ConfigurationError,
    InsufficientScope,
    MissingToken,
    RequestRejected,
    ResourceServer,
    TemporarilyUnavailable,
    TokenGuardError,
    current_access_token,
    requires_scope,
)
from token_guard.guard import current_cell
from token_guard.testing import LocalIssuer
from token_guard_asgi import TokenGuardMiddleware
from token_guard_asgi.connection import ConnectionCell
from token_guard_asgi.fastapi import AccessTokenSecurity

pytestmark = pytest.mark.anyio

ISSUER = LocalIssuer()


def resource_server(audience: str = "organize", **options: Any) -> ResourceServer:
    challenge = ChallengePolicy(realm=audience, expose_reasons=True)
    return ResourceServer(issuer=ISSUER.url, audience=audience, jwks=ISSUER.jwks(), challenge=challenge, **options)


ORGANIZER = resource_server()
READER = {"Authorization": f"Bearer {ISSUER.token('read:contacts', subject='reader')}"}
WRITER = {"Authorization": f"Bearer {ISSUER.token('create:contacts', subject='writer')}"}
JUNK = {"Authorization": "Bearer junk"}
OWN_PAGE = "an error page of the application"
LACKING = (403, "insufficient_scope")

access_token = AccessTokenSecurity(ORGANIZER)
AnyToken = Annotated[AccessToken, Security(access_token)]
ReaderToken = Annotated[AccessToken, Security(access_token, scopes=["read:contacts"])]
WriterToken = Annotated[AccessToken, Security(access_token, scopes=["create:contacts"])]


async def fetch(app: ASGIApp, path: str, headers: Any = None, method: str = "GET", **options: Any) -> httpx.Response:
    """Send one request in memory. An exception that the application lets through is raised here."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api.example") as client:
        return await client.request(method, path, headers=headers, **options)


CONNECTION: Scope = {
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "scheme": "http",
    "path": "/",
    "root_path": "",
    "query_string": b"",
    "headers": [],
}


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


def outcome(response: Any) -> tuple[int, str | None]:
    """Return the status of a response, and the reason if it is one of our refusals."""
    is_ours = response.headers.get("Cache-Control") == "no-store"
    return response.status_code, response.json()["reason"] if is_ours else None


def alone(app: FastAPI) -> ASGIApp:
    """Leave everything to the dependency."""
    return app


def with_guard_inside(app: FastAPI) -> ASGIApp:
    """Make the guard one of the application's middlewares."""
    app.add_middleware(TokenGuardMiddleware, resource_server=ORGANIZER, public_paths=["/open/*"])
    return app


def behind_guard(app: Starlette) -> ASGIApp:
    """Put the guard around the application."""
    return TokenGuardMiddleware(app, ORGANIZER, public_paths=["/open/*"])


def mounted(app: FastAPI) -> ASGIApp:
    """Put the application below another one that is guarded."""
    return behind_guard(Starlette(routes=[Mount("/", app)]))


PLACES = [alone, with_guard_inside, behind_guard, mounted]


@pytest.fixture(autouse=True)
def nothing_blocks() -> Iterator[BlockBuster]:
    """Have every call fail that blocks the event loop."""
    with blockbuster_ctx() as watch:
        yield watch


@pytest.fixture(autouse=True)
def _no_cell_is_left() -> Iterator[None]:
    """Whatever a test did: afterwards nobody's cell is left in the thread."""
    yield
    left = current_cell.get()
    current_cell.set(None)
    assert left is None


# Ways into a refusal, and applications that get in its way


async def session() -> AsyncIterator[None]:
    """A dependency of the application that lets every error pass."""
    yield


async def swallows() -> AsyncIterator[None]:
    """A dependency of the application that hides every error."""
    with suppress(Exception):
        yield


def converts() -> Iterator[None]:
    """A dependency of the application that turns every error into another."""
    try:
        yield
    except Exception as error:
        raise HTTPException(500, OWN_PAGE) from error


DEPENDENCIES: dict[str, Any] = {
    "lets pass": Depends(session),
    "swallows": Depends(swallows),
    "converts": Depends(converts),
    "swallows before the response": Depends(swallows, scope="function"),
    "converts before the response": Depends(converts, scope="function"),
}


def add_endpoints(app: FastAPI, before: Any) -> None:
    """Add an endpoint for each way into a refusal; `before` is a dependency that begins before ours."""

    @app.get("/async", dependencies=[before])
    async def asynchronous(token: ReaderToken) -> str | None:
        return token.subject

    @app.get("/sync", dependencies=[before])
    def synchronous(token: ReaderToken) -> str | None:
        return token.subject

    @app.get("/decorated", dependencies=[before])
    @requires_scope("delete:contacts")
    async def decorated(token: ReaderToken) -> str:
        raise AssertionError("not reached")

    @app.get("/decorated-sync", dependencies=[before])
    @requires_scope("delete:contacts")
    def decorated_sync(token: ReaderToken) -> str:
        raise AssertionError("not reached")

    @app.get("/by-hand", dependencies=[before])
    async def by_hand(token: ReaderToken) -> str:
        token.require("delete:contacts")
        return "not reached"

    @app.get("/by-hand-sync", dependencies=[before])
    def by_hand_sync(token: ReaderToken) -> str:
        current_access_token().require("delete:contacts")
        return "not reached"

    @app.get("/caught", dependencies=[before])
    async def caught(token: ReaderToken) -> str:
        with suppress(Exception):
            token.require("delete:contacts")
        return "caught"

    @app.get("/turned-into-another-error", dependencies=[before])
    async def turned_into_another_error(token: ReaderToken) -> str:
        try:
            token.require("delete:contacts")
        except RequestRejected as error:
            raise HTTPException(418) from error
        return "not reached"

    @app.get("/streamed", dependencies=[before], response_model=None)
    @requires_scope("delete:contacts")
    async def streamed(token: ReaderToken) -> AsyncIterator[str]:
        yield "not reached"


WAYS: dict[str, tuple[str, dict[str, str], tuple[int, str]]] = {
    "no token": ("/async", {}, (401, "missing_token")),
    "two words": ("/async", {"Authorization": "Bearer a b"}, (400, "malformed_request")),
    "junk": ("/sync", JUNK, (401, "malformed")),
    "expired": ("/sync", {"Authorization": f"Bearer {ISSUER.expired()}"}, (401, "expired")),
    "lacking scope": ("/async", WRITER, LACKING),
    "lacking scope, sync": ("/sync", WRITER, LACKING),
    "decorated": ("/decorated", READER, LACKING),
    "decorated, sync": ("/decorated-sync", READER, LACKING),
    "by hand": ("/by-hand", READER, LACKING),
    "by hand, sync": ("/by-hand-sync", READER, LACKING),
    "caught": ("/caught", READER, LACKING),
    "turned into another error": ("/turned-into-another-error", READER, LACKING),
    "streamed": ("/streamed", READER, LACKING),
}


async def own_page(request: Request, error: Exception) -> PlainTextResponse:
    return PlainTextResponse(OWN_PAGE, 500)


OWN_HANDLERS: dict[Any, Any] = dict.fromkeys(
    [Exception, HTTPException, TokenGuardError, MissingToken, 400, 401, 403, 418, 503], own_page
)
APPLICATIONS: dict[str, dict[str, Any]] = {
    "FastAPI": {},
    "debug": {"debug": True},
    "own handlers": {"exception_handlers": OWN_HANDLERS},
}


@pytest.fixture(scope="module")
def applications() -> dict[tuple[str, str, str], ASGIApp]:
    made: dict[tuple[str, str, str], ASGIApp] = {}
    for place in PLACES:
        for name, options in APPLICATIONS.items():
            for dependency, before in DEPENDENCIES.items():
                app = FastAPI(**options)
                add_endpoints(app, before)
                made[place.__name__, name, dependency] = place(app)
    return made


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("before", DEPENDENCIES)
@pytest.mark.parametrize("application", APPLICATIONS)
@pytest.mark.parametrize("place", [place.__name__ for place in PLACES])
async def test_refusal_is_the_answer_whoever_catches_it(
    applications: dict[tuple[str, str, str], ASGIApp],
    place: str,
    application: str,
    before: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """However a refusal comes about and whatever the application does with it, the client gets ours, and no crash."""
    app = applications[place, application, before]
    answers = {name: await fetch(app, path, headers) for name, (path, headers, _) in WAYS.items()}
    assert {name: outcome(answer) for name, answer in answers.items()} == {name: way[2] for name, way in WAYS.items()}
    assert {answer.headers["WWW-Authenticate"].partition(",")[0] for answer in answers.values()} == {
        'Bearer realm="organize"'
    }
    assert [record for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize("place", PLACES)
async def test_good_token_reaches_endpoint(place: Any) -> None:
    """The endpoint gets the token as an argument, in async and sync endpoints alike."""
    app = FastAPI()
    add_endpoints(app, Depends(session))
    guarded = place(app)
    for path in ("/async", "/sync"):
        response = await fetch(guarded, path, READER)
        assert (response.status_code, response.json()) == (200, "reader")


@pytest.mark.parametrize("place", PLACES)
async def test_error_of_endpoint_stays_its_own(place: Any) -> None:
    """Errors that are no refusals keep their answers."""
    app = FastAPI()

    @app.get("/teapot")
    async def teapot(token: AnyToken) -> None:
        raise HTTPException(418, OWN_PAGE)

    @app.get("/fails")
    async def fails(token: AnyToken) -> None:
        raise LookupError("on purpose")

    guarded = place(app)
    assert (await fetch(guarded, "/teapot", READER)).json() == {"detail": OWN_PAGE}
    with pytest.raises(LookupError, match="on purpose"):
        await fetch(guarded, "/fails", READER)


@pytest.mark.parametrize("place", PLACES)
async def test_uncaught_refusal_is_an_answer(place: Any) -> None:
    """A refusal that the cell does not know, such as that of another token, is answered when it leaves."""
    app = FastAPI(exception_handlers={Exception: own_page})

    @app.get("/")
    def endpoint(token: AnyToken) -> None:
        ORGANIZER.validate("junk")

    assert outcome(await fetch(place(app), "/", READER)) == (401, "malformed")


async def test_refusal_is_the_same_alone_and_behind_middleware() -> None:
    """Status, headers and body do not tell who decided."""
    answers = []
    for place in PLACES:
        app = FastAPI()
        add_endpoints(app, Depends(session))
        guarded = place(app)
        responses = [await fetch(guarded, path, headers) for path, headers, _ in WAYS.values()]
        answers.append([(response.status_code, response.headers.raw, response.content) for response in responses])
    assert answers == [answers[0]] * len(PLACES)


async def test_token_comes_before_parameters() -> None:
    """What is wrong with the parameters is told to those with a token only."""
    app = FastAPI()

    @app.get("/")
    async def page(number: int, token: AnyToken) -> int:
        return number

    assert outcome(await fetch(app, "/?number=many")) == (401, "missing_token")
    assert outcome(await fetch(app, "/?number=many", READER)) == (422, None)


async def test_body_is_read_before_dependencies() -> None:
    """FastAPI parses a body before any dependency runs: only the middleware comes before that."""
    app = FastAPI()

    @app.post("/")
    async def create(contact: Annotated[dict[str, str], Body()], token: AnyToken) -> None:
        return None

    json = {"Content-Type": "application/json"}
    assert outcome(await fetch(app, "/", json, "POST", content="{")) == (422, None)
    assert outcome(await fetch(behind_guard(app), "/", json, "POST", content="{")) == (401, "missing_token")


async def test_middleware_alone_guards_endpoints() -> None:
    """Without the dependency, the decorator and the current token work in endpoints of every kind."""
    app = FastAPI()

    @app.get("/")
    def endpoint() -> str | None:
        return current_access_token().subject

    @app.get("/decorated")
    @requires_scope("delete:contacts")
    async def decorated() -> str:
        raise AssertionError("not reached")

    @app.get("/streamed", response_model=None)
    @requires_scope("delete:contacts")
    async def streamed() -> AsyncIterator[str]:
        yield "not reached"

    @app.get("/by-hand")
    def by_hand() -> None:
        current_access_token().require("delete:contacts")

    for place in (behind_guard, mounted):
        guarded = place(app)
        assert (await fetch(guarded, "/", READER)).json() == "reader"
        for path in ("/decorated", "/streamed", "/by-hand"):
            assert outcome(await fetch(guarded, path, READER)) == LACKING


# Who decides


class Counting:
    """How often a token was validated, as revocation sees it."""

    def __init__(self) -> None:
        self.times = 0
        self.server = resource_server(is_revoked=self.count)

    def count(self, token: AccessToken) -> bool:
        self.times += 1
        return False


@pytest.mark.parametrize("guarded", [True, False])
async def test_token_is_validated_once(guarded: bool) -> None:
    """Behind the middleware, and with several dependencies on one endpoint, a token is validated a single time."""
    counting = Counting()
    token = AccessTokenSecurity(counting.server)
    router = APIRouter(dependencies=[Security(token, scopes=["read:contacts"])])

    @router.get("/")
    async def both(one: Annotated[AccessToken, Security(token, scopes=["create:contacts"])]) -> str | None:
        return one.subject

    app = FastAPI()
    app.include_router(router)
    if guarded:
        app.add_middleware(TokenGuardMiddleware, resource_server=counting.server)
    everything = {"Authorization": f"Bearer {ISSUER.token('read:contacts create:contacts')}"}
    assert outcome(await fetch(app, "/", everything)) == (200, None)
    assert counting.times == 1
    assert outcome(await fetch(app, "/", READER)) == LACKING
    assert outcome(await fetch(app, "/", WRITER)) == LACKING


async def test_other_resource_server_decides_for_itself() -> None:
    """A token that the middleware's resource server accepted is not yet one for the dependency's."""
    app = FastAPI()

    @app.get("/")
    async def report(token: Annotated[AccessToken, Security(AccessTokenSecurity(resource_server("reports")))]) -> str:
        return ",".join(current_access_token().audience)

    both = {"Authorization": f"Bearer {ISSUER.token(audience=['organize', 'reports'])}"}
    refused = await fetch(behind_guard(app), "/", READER)
    assert outcome(refused) == (401, "wrong_audience")
    assert 'realm="reports"' in refused.headers["WWW-Authenticate"]
    assert (await fetch(behind_guard(app), "/", both)).json() == "organize,reports"


async def test_endpoint_on_public_path_decides_for_itself() -> None:
    """Where the middleware did not look at the token, the dependency does."""
    app = FastAPI()

    @app.get("/open/closed")
    async def closed(token: ReaderToken) -> str | None:
        return current_access_token().subject

    for place in (behind_guard, mounted):
        assert outcome(await fetch(place(app), "/open/closed")) == (401, "missing_token")
        assert outcome(await fetch(place(app), "/open/closed", WRITER)) == LACKING
        assert (await fetch(place(app), "/open/closed", READER)).json() == "reader"


async def test_request_within_a_request_needs_its_own_token() -> None:
    """An endpoint that asks another application in the same process does not lend it the caller's token."""
    inner, outer = FastAPI(), FastAPI()

    @inner.get("/")
    async def inside(token: AnyToken) -> str:
        raise AssertionError("not reached")

    @outer.get("/")
    async def outside(token: AnyToken) -> list[Any]:
        answer = outcome(await fetch(inner, "/"))
        return [*answer, current_access_token().subject]

    for place in (alone, behind_guard):
        assert (await fetch(place(outer), "/", READER)).json() == [401, "missing_token", "reader"]


async def test_preflight_is_answered_without_token() -> None:
    """A preflight reaches the CORS middleware; an endpoint that answers OPTIONS itself still demands a token."""
    app = FastAPI()
    app.add_middleware(CORSMiddleware, allow_origins=["https://app.example"])
    plain = FastAPI()

    @app.get("/")
    @plain.options("/")
    async def endpoint(token: AnyToken) -> str:
        return "in"

    preflight = {"Origin": "https://app.example", "Access-Control-Request-Method": "GET"}
    assert (await fetch(app, "/", preflight, method="OPTIONS")).headers["Access-Control-Allow-Origin"]
    assert outcome(await fetch(app, "/", preflight)) == (401, "missing_token")
    assert outcome(await fetch(plain, "/", preflight, method="OPTIONS")) == (401, "missing_token")


async def test_head_refusal_has_no_body() -> None:
    """A refused HEAD request is told the Content-Length of the GET answer, and sent nothing."""
    app = FastAPI()

    @app.head("/")
    @app.get("/")
    async def endpoint(token: ReaderToken) -> str:
        return "in"

    got, head = [await messages(app, {**CONNECTION, "type": "http", "method": method}) for method in ("GET", "HEAD")]
    assert got[0] == head[0]
    assert [got[1]["body"], head[1]["body"]] == [b'{"reason": "missing_token"}', b""]


async def test_answers_503_while_keys_are_unavailable() -> None:
    """A token that cannot be checked is not refused: the client is told to come back."""
    transport = ISSUER.transport()
    transport.failing = True
    server = ResourceServer(issuer=ISSUER.url, audience="organize", transport=transport)
    app = FastAPI(exception_handlers=OWN_HANDLERS)

    @app.get("/")
    async def endpoint(token: Annotated[AccessToken, Security(AccessTokenSecurity(server))]) -> None:
        raise AssertionError("not reached")

    try:
        response = await fetch(app, "/", READER)
    finally:
        server.close()
    assert (response.status_code, response.json()["error"]) == (503, "temporarily_unavailable")
    assert int(response.headers["Retry-After"]) > 0


async def test_scope_that_cannot_be_one_closes_the_endpoint() -> None:
    """A mistake in the scopes of an endpoint is an error of the application, never an open door."""
    app = FastAPI()

    @app.get("/")
    async def endpoint(token: Annotated[AccessToken, Security(access_token, scopes=["read contacts"])]) -> None:
        raise AssertionError("not reached")

    with pytest.raises(ConfigurationError, match="'read contacts' is not a scope"):
        await fetch(app, "/", READER)


@pytest.mark.parametrize("text", ["read:calendar", "calendar.read", "calendar/read", "read_calendar", "a b"])
@pytest.mark.parametrize(
    ("dependencies", "headers"),
    [([], {}), ([Security(access_token, scopes=["read:contacts"])], READER)],
    ids=["without a token", "beside a list"],
)
async def test_scopes_in_one_text_are_told_with_the_first_request(
    text: str, dependencies: list[Any], headers: dict[str, str]
) -> None:
    """FastAPI hands on the letters of a text, each once. The error says how the list is written."""
    app = FastAPI(dependencies=dependencies)

    @app.get("/")
    async def endpoint(token: Annotated[AccessToken, Security(access_token, scopes=text)]) -> None:
        raise AssertionError("not reached")

    with pytest.raises(ConfigurationError) as told:
        await fetch(app, "/", headers)
    assert str(told.value) == (
        'Security: scopes must be a list, scopes=["read:calendar"]; of a text, FastAPI takes each letter for a scope'
    )


@pytest.mark.parametrize("scopes", [["*"], ["r", "w"], ["r:c", "-"]])
async def test_scopes_of_one_letter_are_scopes(scopes: list[str]) -> None:
    """A short name is nobody's mistake."""
    app = FastAPI()

    @app.get("/")
    async def endpoint(token: Annotated[AccessToken, Security(access_token, scopes=scopes)]) -> None: ...

    token = ISSUER.token(" ".join(scopes))
    assert (await fetch(app, "/", {"Authorization": f"Bearer {token}"})).status_code == 200
    assert outcome(await fetch(app, "/", READER)) == LACKING


def test_needs_resource_server() -> None:
    """A wrong argument is told when the dependency is made."""
    with pytest.raises(ConfigurationError, match="resource_server must be a ResourceServer"):
        AccessTokenSecurity("organize")  # type: ignore[arg-type]


# The cell


async def test_token_is_current_until_the_request_has_ended() -> None:
    """Endpoint, later dependencies, stream and background task have the token; the context afterwards has not."""
    seen: list[str | None] = []

    def note() -> None:
        seen.append(current_access_token().subject)

    async def later(token: AnyToken) -> AsyncIterator[None]:
        note()
        yield
        note()

    app = FastAPI()

    @app.get("/", dependencies=[Depends(later)])
    async def endpoint(tasks: BackgroundTasks) -> StreamingResponse:
        async def lines() -> AsyncIterator[str]:
            note()
            yield "line"

        tasks.add_task(note)
        note()
        return StreamingResponse(lines())

    for place in (alone, behind_guard):
        assert (await fetch(place(app), "/", READER)).text == "line"
        assert seen == ["reader"] * 5
        seen.clear()
        with pytest.raises(ConfigurationError, match="no guard has decided"):
            current_access_token()


async def test_context_is_reset_on_every_path() -> None:
    """After a request, however it ended, nobody's token is left in the context."""
    app = FastAPI()
    add_endpoints(app, Depends(session))

    @app.get("/fails")
    async def fails(token: AnyToken) -> None:
        raise LookupError("on purpose")

    @app.get("/both")
    async def two_servers(
        one: AnyToken, other: Annotated[AccessToken, Security(AccessTokenSecurity(resource_server("reports")))]
    ) -> list[str]:
        return list(current_access_token().audience)

    both = {"Authorization": f"Bearer {ISSUER.token(audience=['organize', 'reports'])}"}
    requests = [(path, headers) for path, headers, _ in WAYS.values()]
    for path, headers in [*requests, ("/async", READER), ("/both", READER), ("/both", both), ("/fails", READER)]:
        try:
            await fetch(app, path, headers)
        except LookupError:
            assert path == "/fails"
        assert current_cell.get() is None


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio does not tell which thread it will reuse
async def test_reused_worker_thread_never_sees_last_caller() -> None:
    """One worker thread serves two requests, and has no token in between."""
    threads: list[int] = []
    app = FastAPI()

    @app.get("/")
    def endpoint(token: AnyToken) -> str | None:
        threads.append(threading.get_ident())
        return current_access_token().subject

    def outside() -> None:
        threads.append(threading.get_ident())
        with pytest.raises(ConfigurationError, match="no guard has decided"):
            current_access_token()

    anyio.to_thread.current_default_thread_limiter().total_tokens = 1
    assert (await fetch(app, "/", READER)).json() == "reader"
    await anyio.to_thread.run_sync(outside)
    assert (await fetch(app, "/", WRITER)).json() == "writer"
    assert len(threads) == 3
    assert len(set(threads)) == 1


async def test_requests_at_the_same_time_keep_their_own_tokens() -> None:
    """Requests that wait for one another in one event loop do not mix."""
    arrived = [anyio.Event(), anyio.Event()]
    answers: dict[str, str] = {}
    app = FastAPI()

    @app.get("/{index}")
    async def meet(index: int, token: AnyToken) -> str | None:
        arrived[index].set()
        for event in arrived:
            await event.wait()
        return current_access_token().subject

    async def ask(path: str, headers: dict[str, str]) -> None:
        answers[path] = (await fetch(app, path, headers)).json()

    async with anyio.create_task_group() as group:
        group.start_soon(ask, "/0", READER)
        group.start_soon(ask, "/1", WRITER)
    assert answers == {"/0": "reader", "/1": "writer"}


async def test_refusal_after_the_response_comes_too_late() -> None:
    """What a background task may not do changes nothing about the answer that was given."""
    app = FastAPI()

    def demand() -> None:
        with suppress(RequestRejected):
            current_access_token().require("delete:contacts")

    @app.get("/")
    async def endpoint(token: AnyToken, tasks: BackgroundTasks) -> str:
        tasks.add_task(demand)
        return "done"

    response = await fetch(app, "/", READER)
    assert (response.status_code, response.json()) == (200, "done")


async def test_what_a_dependency_demands_at_its_end_counts() -> None:
    """Before the response it is the answer, even where the dependency began before ours."""
    app = FastAPI()

    async def demanding() -> AsyncIterator[None]:
        yield
        with suppress(RequestRejected):
            current_access_token().require("delete:contacts")

    @app.get("/", dependencies=[Depends(demanding, scope="function")])
    async def endpoint(token: AnyToken) -> str:
        return "done"

    assert outcome(await fetch(app, "/", READER)) == LACKING


async def unavailable() -> AsyncIterator[None]:
    """A dependency of the application whose other API is down."""
    try:
        yield
    except LookupError as error:
        raise TemporarilyUnavailable(detail="the other API") from error


@pytest.mark.parametrize("options", APPLICATIONS.values(), ids=APPLICATIONS)
async def test_dependency_that_began_before_may_refuse(options: dict[str, Any]) -> None:
    """A refusal that such a dependency makes of another error is the answer, as if the endpoint had raised it."""
    app = FastAPI(**options)

    @app.get("/", dependencies=[Depends(unavailable, scope="function")])
    async def endpoint(token: AnyToken) -> None:
        raise LookupError("on purpose")

    assert outcome(await fetch(app, "/", READER)) == (503, "keys_unavailable")


async def test_refusal_is_answered_by_the_cell_that_made_it() -> None:
    """Where two resource servers guard an endpoint, the one that is content does not answer for the other."""
    app = FastAPI()
    both = {"Authorization": f"Bearer {ISSUER.token('read:contacts', audience=['organize', 'reports'])}"}
    reports = AccessTokenSecurity(resource_server("reports"))

    @app.get("/")
    async def endpoint(
        one: AnyToken,
        between: Annotated[None, Depends(unavailable, scope="function")],
        other: Annotated[AccessToken, Security(reports)],
    ) -> None:
        raise LookupError("on purpose")

    assert outcome(await fetch(app, "/", both)) == (503, "keys_unavailable")


async def test_a_mounted_router_may_run_in_a_task_of_its_own() -> None:
    """Middleware of Starlette's between the application and the router runs it in another task and context."""

    async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)

    app, router = FastAPI(), APIRouter()

    @router.get("/")
    async def endpoint(token: ReaderToken) -> str | None:
        return token.subject

    middleware = [Middleware(BaseHTTPMiddleware, dispatch=pass_on)]
    app.router.routes.append(Mount("/api", routes=router.routes, middleware=middleware))
    assert (await fetch(app, "/api/", READER)).json() == "reader"
    assert outcome(await fetch(app, "/api/", WRITER)) == LACKING


def route_class(run: Callable[[Coroutine[Any, Any, Response]], Awaitable[Response]]) -> type[APIRoute]:
    """Return a route class of an application that has its endpoints run by `run`."""

    class Route(APIRoute):
        def get_route_handler(self) -> Any:
            handle = super().get_route_handler()

            async def handle_elsewhere(request: Request) -> Response:
                return await run(handle(request))

            return handle_elsewhere

    return Route


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_endpoint_may_run_in_a_task_of_its_own() -> None:
    """As where a route class of the application's gives every endpoint so much time."""

    app, router = FastAPI(), APIRouter(route_class=route_class(lambda handling: asyncio.wait_for(handling, 60)))

    @router.get("/")
    async def endpoint(token: ReaderToken) -> str | None:
        return current_access_token().subject

    app.include_router(router)
    assert (await fetch(app, "/", READER)).json() == "reader"
    assert outcome(await fetch(app, "/", WRITER)) == LACKING


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_context_that_serves_others_keeps_no_token() -> None:
    """A route class may run endpoints in one context for all: the token of one request opens nothing to the next."""
    shared = copy_context()

    app, router = FastAPI(), APIRouter(route_class=route_class(partial(asyncio.create_task, context=shared)))

    @router.get("/guarded")
    async def guarded(token: ReaderToken) -> str | None:
        return token.subject

    @router.get("/unguarded")
    @requires_scope("read:contacts")
    async def unguarded() -> str:
        return "secret"

    app.include_router(router)
    assert (await fetch(app, "/guarded", READER)).json() == "reader"
    for headers in ({}, JUNK, READER):
        with pytest.raises(ConfigurationError, match="no guard has decided"):
            await fetch(app, "/unguarded", headers)
    assert outcome(await fetch(app, "/guarded", WRITER)) == LACKING
    assert (await fetch(app, "/guarded", READER)).json() == "reader"


async def test_an_error_handler_that_demands_gets_no_token() -> None:
    """The guard of a single endpoint ends with it: what the handler of its error demands would come too late."""
    app = FastAPI()

    @app.exception_handler(LookupError)
    async def handle(request: Request, error: LookupError) -> PlainTextResponse:
        with suppress(RequestRejected):
            current_access_token().require("delete:contacts")
        return PlainTextResponse("details")

    @app.get("/")
    async def endpoint(token: AnyToken) -> None:
        raise LookupError("on purpose")

    with pytest.raises(ConfigurationError, match="no guard has decided"):
        await fetch(app, "/", READER)


@pytest.mark.skipif(not hasattr(FastAPI, "frontend"), reason="FastAPI before it serves files")
@pytest.mark.parametrize("options", APPLICATIONS.values(), ids=APPLICATIONS)
def test_files_of_a_guarded_application_are_guarded(
    options: dict[str, Any], tmp_path: Path, nothing_blocks: BlockBuster
) -> None:
    """FastAPI solves an application's dependencies for its files, too, outside of an endpoint's handlers."""
    nothing_blocks.deactivate()  # FastAPI looks for files in the event loop
    (tmp_path / "index.html").write_text("secret")
    app = FastAPI(dependencies=[Security(access_token, scopes=["read:contacts"])], **options)
    app.frontend("/", directory=tmp_path)
    client = TestClient(app)
    assert outcome(client.get("/index.html", headers=WRITER)) == LACKING
    assert outcome(client.get("/index.html")) == (401, "missing_token")
    assert client.get("/index.html", headers=READER).text == "secret"


async def test_dependency_learns_why_a_request_was_refused() -> None:
    """What passes through an earlier dependency is FastAPI's kind of error; its cause is the refusal."""
    causes: list[BaseException | None] = []

    async def watching() -> AsyncIterator[None]:
        try:
            yield
        except HTTPException as error:
            causes.append(getattr(error, "refusal", None))
            raise

    app = FastAPI()
    add_endpoints(app, Depends(watching))
    for path, headers in (("/async", WRITER), ("/by-hand", READER)):
        assert outcome(await fetch(app, path, headers)) == LACKING
    assert [type(cause) for cause in causes] == [InsufficientScope] * 2


async def test_cancelled_request_stays_cancelled() -> None:
    """A refusal does not keep a request alive that was given up."""
    app = FastAPI()

    @app.get("/")
    async def endpoint(token: AnyToken) -> None:
        with suppress(RequestRejected):
            token.require("delete:contacts")
        scope.cancel()
        await anyio.sleep_forever()

    with anyio.CancelScope() as scope:
        await fetch(app, "/", READER)
    assert scope.cancelled_caught


# WebSockets


def chatting() -> FastAPI:
    app = FastAPI()

    @app.websocket("/")
    async def greet(websocket: WebSocket, token: ReaderToken) -> None:
        await websocket.accept()
        await websocket.send_text(str(current_access_token().subject))
        await websocket.close()

    @app.websocket("/before-accept")
    async def before_accept(websocket: WebSocket, token: ReaderToken) -> None:
        token.require("delete:contacts")

    @app.websocket("/after-accept")
    async def after_accept(websocket: WebSocket, token: ReaderToken) -> None:
        await websocket.accept()
        token.require("delete:contacts")

    @app.websocket("/after-close")
    async def after_close(websocket: WebSocket, token: ReaderToken) -> None:
        await websocket.accept()
        await websocket.close(4000)
        token.require("delete:contacts")

    return app


@pytest.mark.parametrize("place", [alone, behind_guard])
def test_websocket_with_good_token_is_accepted(place: Any) -> None:
    """A WebSocket's handshake is a request like any other."""
    with TestClient(place(chatting())).websocket_connect("/", headers=READER) as websocket:
        assert websocket.receive_text() == "reader"


@pytest.mark.parametrize("place", [alone, behind_guard])
@pytest.mark.parametrize(
    ("path", "headers", "expected"),
    [("/", {}, (401, "missing_token")), ("/", WRITER, LACKING), ("/before-accept", READER, LACKING)],
)
def test_websocket_is_denied_with_our_response(
    place: Any, path: str, headers: dict[str, str], expected: tuple[int, str]
) -> None:
    """Before it is accepted, a refused WebSocket gets the answer that a request would get."""
    connect = TestClient(place(chatting())).websocket_connect(path, headers=headers)
    with pytest.raises(WebSocketDenialResponse) as denied, connect:
        pass
    assert outcome(denied.value) == expected


@pytest.mark.parametrize("place", [alone, behind_guard])
def test_accepted_websocket_is_closed(place: Any) -> None:
    """After it was accepted, a refused WebSocket is closed with 1008."""
    connect = TestClient(place(chatting())).websocket_connect("/after-accept", headers=READER)
    with connect as websocket, pytest.raises(WebSocketDisconnect) as closed:
        websocket.receive_text()
    assert closed.value.code == 1008


async def test_closed_websocket_stays_closed() -> None:
    """There is nobody to tell any more."""
    scope = {**CONNECTION, "type": "websocket", "path": "/after-close", "subprotocols": []}
    authorization = [(b"authorization", READER["Authorization"].encode())]
    sent = await messages(chatting(), {**scope, "headers": authorization}, {"type": "websocket.connect"})
    assert [message.get("code") for message in sent] == [None, 4000]


# What it tells of itself


def test_scheme_and_scopes_are_in_openapi() -> None:
    """The document names the scheme, and for each operation the scopes that it demands."""
    app = FastAPI()
    reports = AccessTokenSecurity(resource_server("reports"), scheme_name="Reports")

    @app.get("/contacts")
    async def list_contacts(token: ReaderToken) -> None: ...

    @app.get("/report")
    async def report(token: Annotated[AccessToken, Security(reports)]) -> None: ...

    document = app.openapi()
    assert document["openapi"].startswith("3.1")
    assert document["components"]["securitySchemes"] == {
        name: {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"} for name in ("AccessToken", "Reports")
    }
    assert document["paths"]["/contacts"]["get"]["security"] == [{"AccessToken": ["read:contacts"]}]
    assert document["paths"]["/report"]["get"]["security"] == [{"Reports": []}]


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
        integrations=[StarletteIntegration(), FastApiIntegration()],
        auto_enabling_integrations=False,
        traces_sample_rate=1.0,
    )
    yield transport
    sentry_sdk.get_global_scope().set_client(None)


@pytest.mark.parametrize("place", PLACES)
def test_error_tracker_sees_no_refusal(tracker: Events, place: Any) -> None:
    """A refusal is no event for the error tracker's integration; an endpoint that fails on its own is one."""
    app = FastAPI()
    add_endpoints(app, Depends(session))

    @app.get("/fails")
    async def fails(token: AnyToken) -> None:
        raise LookupError("on purpose")

    client = TestClient(place(app), raise_server_exceptions=False)
    for path, headers, expected in WAYS.values():
        assert outcome(client.get(path, headers=headers)) == expected
    assert tracker.errors == []
    assert client.get("/fails", headers=READER).status_code == 500
    assert tracker.errors == ["LookupError"]


async def test_leaves_no_circle_for_the_garbage_collector() -> None:
    """Scope and cell name each other while a request lasts; to collect such pairs costs more than to guard."""
    app = FastAPI()

    @app.get("/")
    async def whoever(token: ReaderToken) -> str | None:
        return token.subject

    headers = [(name.lower().encode(), value.encode()) for name, value in READER.items()]
    gc.collect()
    gc.disable()
    before = cells()  # what another test's thread still holds
    try:
        for _ in range(3):
            scope = {**CONNECTION, "type": "http", "method": "GET", "headers": headers}
            await messages(app, scope, {"type": "http.request"})
        del scope
        left = [cell for cell in cells() if cell not in before]
    finally:
        gc.enable()
    assert left == []


def cells() -> list[ConnectionCell]:
    """Every cell that there is, garbage or not."""
    return [each for each in gc.get_objects() if issubclass(type(each), ConnectionCell)]
