"""An ASGI connection as the core sees it, and the cell that goes with it.

Its job is to translate: scope -> request, refusal -> response. It must not know who decides, nor when an answer is
sent. ASGI 3.0, "HTTP & WebSocket" and its extension "WebSocket Denial Response"; RFC 6750 3 is the core's.
"""

from typing import Any

from starlette.datastructures import URL
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.status import WS_1008_POLICY_VIOLATION
from starlette.types import ASGIApp, Scope
from starlette.websockets import WebSocketClose, WebSocketState

from token_guard.guard import Guard, Refusal, RequestCell, RequestView

CELL = "token_guard"  # the key of the scope under which a connection finds its own cell

# The header fields that a guard reads, in lower case as ASGI demands. To decode all of a browser's 17 takes 0.8 us.
_READ = {name.encode(): name for name in ("authorization", "origin", "access-control-request-method")}
_DENIAL = "websocket.http.response"  # the extension by which a server refuses a WebSocket with a whole response
_CLOSE = WebSocketClose(WS_1008_POLICY_VIOLATION)


def request_view(scope: Scope) -> RequestView:
    """Return the connection as the core sees it."""
    read = [(_READ[name], value.decode("latin-1")) for name, value in scope["headers"] if name in _READ]
    # The scope of a WebSocket names no method: its handshake is a GET (RFC 6455 4.1).
    return RequestView(scope.get("method", "GET"), lambda: str(URL(scope=scope)), read)


def route_path(scope: Scope) -> str:
    """Return the path that the router compares: inside a mounted application it begins after the mount."""
    path: str = scope["path"]
    mount: str = scope.get("root_path", "")
    if not mount:
        return path
    below = path.removeprefix(mount)
    return below if not below or below.startswith("/") else path


class ConnectionCell(RequestCell):
    """The guard's decision about one connection, and the guard that made it."""

    def __init__(self, guard: Guard, scope: Scope) -> None:
        self.guard: Guard = guard
        self.scope: Scope = scope

    def render(self, refusal: Refusal) -> Response:
        """Return the response that a refusal demands."""
        answer = self.guard.answer(refusal)
        response = Response(answer.body, answer.status)
        for name, value in answer.headers:
            response.headers.append(name, value)
        if self.scope.get("method") == "HEAD":
            response.body = b""  # after Content-Length was counted as for GET (RFC 9110 9.3.2)
        return response

    def refuse(self, error: Refusal) -> Refusal:
        """Make `error` the answer, and have Starlette give it where the error is raised.

        An error that left a mounted application would be a crash to its catch-all handler and to error trackers. Where
        the application has a handler of its own for this error, what that answers is replaced by the middleware.
        """
        handlers = error_handlers(self.scope)
        if not any(kind in handlers for kind in type(error).__mro__):
            handlers[type(error)] = answer_refusal
        return super().refuse(error)

    def answer(self, refusal: Refusal, *, accepted: bool) -> ASGIApp:
        """Return what gives a refusal to the client: a response, or the end of a WebSocket where none can be sent."""
        if self.scope["type"] == "websocket" and (accepted or _DENIAL not in (self.scope.get("extensions") or ())):
            return _CLOSE
        return self.render(refusal)

    def answer_on(self, connection: HTTPConnection) -> ASGIApp | None:
        """Return what gives the refusal to the client; nothing where the connection has ended."""
        state = getattr(connection, "application_state", None)
        if self.refusal is None or state is WebSocketState.DISCONNECTED:
            return None
        return self.answer(self.refusal, accepted=state is WebSocketState.CONNECTED)


def error_handlers(scope: Scope) -> dict[type[Exception], Any]:
    """Return the handlers of the Starlette or FastAPI application that `scope` has reached, by class of error.

    Not documented, but the only place where an application that runs already can be given one more.
    """
    handlers: dict[type[Exception], Any] = scope.get("starlette.exception_handlers", ({},))[0]
    return handlers


async def answer_refusal(connection: HTTPConnection, error: Refusal) -> ASGIApp | None:
    """Answer a refusal that a handler raised. For Starlette's exception handlers."""
    cell: ConnectionCell | None = connection.scope.get(CELL)
    if cell is None:
        raise error  # the application's own, raised outside of a guard
    cell.refuse(error)
    return cell.answer_on(connection)
