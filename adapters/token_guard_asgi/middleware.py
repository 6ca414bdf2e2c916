"""TokenGuardMiddleware: the guard around an ASGI application.

It sees every message that the application sends, so that a refusal is the client's answer whoever catches what. It
must not know what a token is, nor which framework runs inside. ASGI 3.0; RFC 6750 3.
"""

import sys
from collections.abc import Awaitable, Collection

from starlette.authentication import AuthCredentials, BaseUser, UnauthenticatedUser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from token_guard import AccessToken, ResourceServer
from token_guard.guard import Guard, Refusal, current_cell

from .connection import CELL, ConnectionCell, request_view, route_path

# What begins an answer, and whether a refusal may still come after it: an accepted WebSocket can be closed.
_BEGINNINGS = {
    "http.response.start": False,
    "websocket.http.response.start": False,
    "websocket.close": False,
    "websocket.accept": True,
    "websocket.send": True,
}


class TokenUser(BaseUser):
    """What Starlette's `request.user` is behind a guard: the subject of the access token, which is `token`."""

    def __init__(self, token: AccessToken) -> None:
        self.token = token

    @property
    def is_authenticated(self) -> bool:
        return True

    @property
    def display_name(self) -> str:
        return self.identity

    @property
    def identity(self) -> str:
        return self.token.subject or ""


class TokenCredentials(AuthCredentials):
    """What Starlette's `request.auth` is behind a guard: the scopes of the access token, read when asked for."""

    def __init__(self, token: AccessToken) -> None:
        self._token = token

    @property
    def scopes(self) -> list[str]:  # type: ignore[override]  # Starlette's is an attribute
        return list(self._token.scopes)


class TokenGuardMiddleware:
    """Let only requests with a valid access token reach `app`. For HTTP and WebSockets; other scopes pass untouched.

    `public_paths` are exact paths or prefixes such as `/static/*`, compared with the path as the router sees it: inside
    a mounted application without the mount. With `allow_anonymous` a request without credentials gets in; a token that
    is sent is checked. Inside, `request.user.token` is the token and `request.auth.scopes` are its scopes.

    A WebSocket that is refused before it is accepted gets the same response as a request, where the server can send
    one; otherwise, and afterwards, it is closed with code 1008. Browsers cannot send an Authorization header with a
    WebSocket, and a token anywhere else is ignored. To serve them, let the path in through `public_paths` and judge the
    token that the first message brings with `ResourceServer.validate_async`: a refusal that it raises closes, too.

    Does NOT check scopes: that is what `requires_scope` and `AccessToken.require` are for.

    Raises:
        ConfigurationError: an argument is of the wrong kind, or a path would open everything.
    """

    def __init__(
        self,
        app: ASGIApp,
        resource_server: ResourceServer,
        *,
        public_paths: Collection[str] = (),
        allow_anonymous: bool = False,
    ) -> None:
        self.app = app
        self._guard = Guard(resource_server, public_paths=public_paths, allow_anonymous=allow_anonymous)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        cell = ConnectionCell(self._guard, scope)
        exchange = _Exchange(cell, receive, send)
        request, path = request_view(scope), route_path(scope)
        del scope  # it holds the token, and error trackers send the locals of a traceback away
        pending = self._guard.begin(cell, request, path)
        if pending is not None:
            await pending
        if cell.refusal is None:
            token, outer = cell.token, cell.scope.get(CELL)
            cell.scope[CELL] = cell
            cell.scope["user"] = UnauthenticatedUser() if token is None else TokenUser(token)
            cell.scope["auth"] = AuthCredentials() if token is None else TokenCredentials(token)
            before = current_cell.set(cell)
            try:
                await self.app(cell.scope, receive, exchange.send)
            except Exception as error:
                if exchange.refusal_for(error) is None:
                    raise
            finally:
                current_cell.reset(before)
                # The outer guard's again; and no circle is left for the garbage collector, dearer than all of this.
                cell.scope[CELL] = outer
        if cell.refusal is not None and exchange.open:
            await exchange.answer(cell.refusal)


class _Exchange:
    """The messages of one connection. A refusal takes the application's place for as long as it can."""

    open = True  # whether the answer can still be ours
    _accepted = False
    _answered = False

    def __init__(self, cell: ConnectionCell, receive: Receive, send: Send) -> None:
        self._cell = cell
        self._receive = receive
        self._outer_error = sys.exception()  # what our caller handles is none of the application's
        self._send = send

    def send(self, message: Message) -> Awaitable[None]:
        """Pass a message of the application on, unless a refusal is the answer: then that, once, and nothing more.

        Hands on what is to be awaited: with a coroutine around it, a message takes 0.22 us more than bare, and 0.15 so.
        """
        if self._answered:
            return _nothing()
        kind = message["type"]
        if kind in _BEGINNINGS:
            # An error page is sent while the error is handled: Starlette's handlers do so, and do not tell what it was.
            error = sys.exception() if kind == "http.response.start" else None
            if error is not self._outer_error or self._cell.refusal is not None:
                refusal = self.refusal_for(None if error is self._outer_error else error)
                if refusal is not None:
                    return self.answer(refusal)
            self.open = self._accepted = _BEGINNINGS[kind]
        return self._send(message)

    def refusal_for(self, error: BaseException | None) -> Refusal | None:
        """Return the refusal that the client gets in place of `error`, or of what the application has to say."""
        if self.open and isinstance(error, Refusal):
            self._cell.refuse(error)
        return self._cell.refusal if self.open or self._answered else None

    async def answer(self, refusal: Refusal) -> None:
        """Send a refusal as the answer."""
        self.open, self._answered = False, True
        answer = self._cell.answer(refusal, accepted=self._accepted)
        await answer(self._cell.scope, self._receive, self._send)


async def _nothing() -> None:
    pass
