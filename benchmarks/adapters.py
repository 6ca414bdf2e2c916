"""What the guard of each framework adds to a request whose token it remembers: in this process, without sockets."""

from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from typing import Any

from benchmarks.applications import BODY, FRAMEWORKS, Guarding, fastapi_with_idle_dependency
from benchmarks.measure import Case, Timing, finish, measure
from benchmarks.plan import Plan
from benchmarks.report import AT_MOST, Cell, Chart, Table, say
from benchmarks.tokens import FLOOR, bare, mint, resource_server
from token_guard.testing import LocalIssuer
from token_guard_asgi import TokenGuardMiddleware

HIT_AT_MOST = {"Starlette": 0.2, "FastAPI": 0.75, "Flask": 0.5, "Django": 1.5}
MESSAGES = 100  # of one WebSocket


def run(plan: Plan) -> Iterator[Table]:
    """Ask every application, open and guarded, for the same requests."""
    say(f"adapters: {plan.rounds} rounds")
    issuer = LocalIssuer()
    tokens, organizer = mint(issuer, plan.tokens), resource_server(issuer)
    cases = [bare(issuer, tokens)]
    for framework in FRAMEWORKS:
        for kind, guarding in (("open", None), ("hit", organizer)):
            ask, requests = client(framework, guarding, tokens)
            cases.append(Case(f"{framework}, {kind}", ask, requests, FLOOR))
    cases += idle_dependency(tokens)
    cases += connections(organizer, tokens)
    timings = measure(cases, plan.rounds)
    floor = timings.pop(FLOOR)
    names = list(timings)
    rows = [
        _row(timings[unguarded], timings[guarded], floor)
        for unguarded, guarded in zip(names[::2], names[1::2], strict=True)
    ]
    columns = ("guarded", "open, best µs", "with a hit", "added", "added / bare RS256", "of medians", AT_MOST)
    chart = Chart("adapters.svg", ("added / bare RS256",), "times the bare signature check")
    yield Table("What a hit adds in process", columns, rows, chart=chart, limited="added / bare RS256")


def _row(unguarded: Timing, guarded: Timing, floor: Timing) -> tuple[Cell, ...]:
    name = guarded.case.name.partition(",")[0]
    added = guarded.best - unguarded.best
    of_medians = (guarded.median - unguarded.median) / floor.median
    return name, unguarded.best, guarded.best, added, added / floor.best, of_medians, HIT_AT_MOST.get(name)


def client(framework: str, guarding: Guarding, tokens: list[str]) -> tuple[Callable[[Any], None], list[Any]]:
    """Return what asks an application for one request, and requests with these tokens."""
    app = FRAMEWORKS[framework](guarding)
    if framework in ("Starlette", "FastAPI"):
        return partial(_ask_asgi, app), [_scope("http", token) for token in tokens]
    return partial(_ask_wsgi, app), [_environ(token) for token in tokens]


def idle_dependency(tokens: list[str]) -> Iterator[Case]:
    """What FastAPI takes for any security dependency at all."""
    requests = [_scope("http", token) for token in tokens]
    for kind, app in (("open", FRAMEWORKS["FastAPI"](None)), ("idle", fastapi_with_idle_dependency())):
        yield Case(f"of that FastAPI's own, {kind}", partial(_ask_asgi, app), requests, FLOOR)


def connections(organizer: Any, tokens: list[str]) -> Iterator[Case]:
    """What is no request: the messages of a WebSocket that is open, and the life of the application."""
    scopes = {
        "WebSocket of 100 messages": [_scope("websocket", token) for token in tokens],
        "lifespan": [{"type": "lifespan"} for _ in tokens],
    }
    for name, inputs in scopes.items():
        for kind, app in (("open", _talk), ("hit", TokenGuardMiddleware(_talk, organizer))):
            yield Case(f"{name}, {kind}", partial(_connect, app), inputs, FLOOR)


def _connect(app: Any, scope: dict[str, Any]) -> None:
    finish(app(dict(scope), _receive, _ignore))


async def _talk(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        return
    await send({"type": "websocket.accept"})
    for _ in range(MESSAGES):
        await send({"type": "websocket.send", "text": BODY})


def _ask_asgi(app: Any, scope: dict[str, Any]) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    finish(app(dict(scope), _receive, send))
    if sent[0]["status"] != 200:
        raise AssertionError(f"the application answers {sent[0]['status']}")


async def _receive() -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _ignore(_: Any) -> None:
    pass


def _ask_wsgi(app: Any, environ: dict[str, Any]) -> None:
    def start_response(status: str, *_: Any) -> None:
        if status != "200 OK":
            raise AssertionError(f"the application answers {status}")

    answer = app(environ | {"wsgi.input": BytesIO()}, start_response)
    list(answer)
    answer.close()


def _scope(kind: str, token: str) -> dict[str, Any]:
    return {
        "type": kind,
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"accept", b"*/*"), (b"authorization", f"Bearer {token}".encode())],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 80),
        "state": {},
    }


def _environ(token: str) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost",
        "HTTP_ACCEPT": "*/*",
        "HTTP_AUTHORIZATION": f"Bearer {token}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": BytesIO(),
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
