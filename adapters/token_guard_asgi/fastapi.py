"""AccessTokenSecurity: the guard of single FastAPI endpoints, which also documents itself in OpenAPI.

It must not know what a token is, and shares the middleware's decision where there is one. OpenAPI 3.1, "Security
Scheme Object"; RFC 6750 3.
"""

from collections.abc import Awaitable
from contextlib import AbstractContextManager, AsyncExitStack
from functools import lru_cache

from fastapi.openapi.models import HTTPBearer
from fastapi.openapi.models import SecurityBase as SecurityBaseModel
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from token_guard import AccessToken, ConfigurationError, MissingToken, ResourceServer, all_of
from token_guard.guard import Guard, Refusal, Requirement, current_cell

from .connection import CELL, ConnectionCell, answer_refusal, error_handlers, request_view, route_path

__all__ = ["AccessTokenSecurity"]

_SEPARATORS = frozenset(" :./_-")  # of a scope's parts


class AccessTokenSecurity(SecurityBase):
    """A dependency that returns the access token of a request, or refuses it before the endpoint runs.

        access_token = AccessTokenSecurity(organizer)

        @app.get("/events")
        async def list_events(token: Annotated[AccessToken, Security(access_token, scopes=["read:calendar"])]): ...

    Demands all of `scopes`. Inside the endpoint `current_access_token`, `requires` and `token.require` work as behind
    TokenGuardMiddleware, whose decision is used where it was made for the same resource server. Does NOT close an
    application: an endpoint without the dependency is open, an unknown path is 404 and a body that cannot be read is
    refused before any dependency runs. Put TokenGuardMiddleware around what must be closed by default.

    `scheme_name` is its name in OpenAPI; two resource servers in one application need two names.

    Raises:
        ConfigurationError: `resource_server` is none. With the first request: `scopes` cannot be scopes.
    """

    def __init__(self, resource_server: ResourceServer, *, scheme_name: str = "AccessToken") -> None:
        self.model: SecurityBaseModel = HTTPBearer(bearerFormat="JWT")
        self.scheme_name: str = scheme_name
        self._guard = Guard(resource_server)

    async def __call__(self, connection: HTTPConnection, security_scopes: SecurityScopes) -> AccessToken:
        """Return the access token. FastAPI calls this for every request."""
        needed = _all_of(*security_scopes.scopes)
        cell = connection.scope.get(CELL)
        if cell is None or cell.token is None or cell.guard.resource_server is not self._guard.resource_server:
            cell = _Cell(self._guard, connection.scope)
            pending = cell.begin()
            if pending is not None:
                await pending
        token: AccessToken | None = cell.token
        if token is None:
            cell.refuse(MissingToken(detail="the endpoint needs a token"))  # the first refusal stays, if there is one
        elif refusal := needed.refusal(token):
            cell.refuse(refusal)
        if token is None or cell.refusal is not None:
            raise _Refused(cell)
        return token


@lru_cache  # the scopes of an endpoint are the same for every request
def _all_of(*scopes: str) -> Requirement:
    letters = {scope for scope in scopes if len(scope) == 1}
    if len(letters) > 1 and letters & _SEPARATORS:  # a word alone could be a list of letters
        raise ConfigurationError(
            'Security: scopes must be a list, scopes=["read:calendar"]; of a text, FastAPI takes each letter for a'
            " scope"
        )
    return all_of(*scopes)


class _Refused(HTTPException):
    """Takes a refusal from a dependency to the application's exception handlers, where ours waits for it.

    An HTTPException, because every other error of a dependency is a crash to FastAPI's telemetry. Its status is one
    that no handler of the application can be registered for.
    """

    def __init__(self, cell: ConnectionCell) -> None:
        super().__init__(0, detail="the request was refused")
        error_handlers(cell.scope)[_Refused] = answer_refusal


class _Cell(ConnectionCell):
    """The cell of one request, and the current one from the dependency to the end of all that FastAPI does for it."""

    def begin(self) -> Awaitable[None] | None:
        """Have the guard decide about the request, as `Guard.begin` does."""
        scope = self.scope
        # Left after the answer to a refusal: a circle of scope and cell is dearer to collect than all that we do.
        scope["fastapi_middleware_astack"].enter_context(self)
        scope["fastapi_function_astack"].push(_Ending(self))
        return self.guard.begin(self, request_view(scope), route_path(scope))

    def __enter__(self) -> None:
        self._outer, self.scope[CELL] = self.scope.get(CELL), self
        self._before = current_cell.set(self)

    def __exit__(self, *error: object) -> None:
        current_cell.reset(self._before)
        self.scope[CELL] = self._outer

    def refuse(self, error: Refusal) -> Refusal:
        """Make `error` the answer, and have it raised when the endpoint and then the request end."""
        if self.refusal is None:
            _raise_last(self, "fastapi_function_astack", "fastapi_inner_astack")
        return super().refuse(error)


class _Ending(AbstractContextManager["_Ending"]):
    """Makes a refusal of which the cell does not know the answer, where it leaves the endpoint."""

    __slots__ = ("_cell",)

    def __init__(self, cell: ConnectionCell) -> None:
        self._cell = cell

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if isinstance(error, Refusal):
            self._cell.refuse(error)


def _raise_last(cell: ConnectionCell, name: str, *later: str) -> None:
    """Have the refusal raised when the stack of this name ends, and then each later one, whoever caught what.

    A dependency that yields could not reach the bottom of a stack, below dependencies that began earlier and may turn
    one error into another; the names in the scope can. Where the endpoint has ended, so that the response is under way,
    its stack comes to no end again, and nothing is raised.
    """

    def end(kind: object, error: BaseException | None, traceback: object) -> None:
        if later:
            _raise_last(cell, *later)
        # What is no Exception, such as a cancellation, leaves nobody to answer.
        if error is None or isinstance(error, Exception):
            raise _Refused(cell) from None

    stack: AsyncExitStack = cell.scope[name]
    earlier = stack.pop_all()
    stack.push(end)
    stack.push_async_exit(earlier)
