"""AccessTokenSecurity: the guard of single FastAPI endpoints, which also documents itself in OpenAPI.

It must not know what a token is, and shares the middleware's decision where there is one. OpenAPI 3.1, "Security
Scheme Object"; RFC 6750 3.
"""

from contextlib import AbstractContextManager, AsyncExitStack
from contextvars import Token
from functools import lru_cache

from fastapi import HTTPException
from fastapi.openapi.models import HTTPBearer
from fastapi.openapi.models import SecurityBase as SecurityBaseModel
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp

from token_guard import AccessToken, ConfigurationError, MissingToken, ResourceServer, all_of
from token_guard.guard import Guard, Refusal, RequestCell, Requirement, current_cell

from .connection import CELL, ConnectionCell, error_handlers, request_view, route_path

__all__ = ["AccessTokenSecurity"]

_SEPARATORS = frozenset(" :./_-")  # of a scope's parts


class AccessTokenSecurity(SecurityBase):
    """A dependency that returns the access token of a request, or refuses it before the endpoint runs.

        access_token = AccessTokenSecurity(organizer)

        @app.get("/events")
        async def list_events(token: Annotated[AccessToken, Security(access_token, scopes=["read:calendar"])]): ...

    Demands all of `scopes`. Inside the endpoint `current_access_token`, `requires` and `token.require` work as behind
    TokenGuardMiddleware, whose decision is used where it was made for the same resource server. To a dependency that
    yields, a refusal is an `HTTPException` whose `refusal` says why.

    Does NOT close an application: an endpoint without the dependency is open, an unknown path is 404 and a body that
    cannot be read is refused before any dependency runs. Put TokenGuardMiddleware around what must be closed.

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
        cell: ConnectionCell | None = connection.scope.get(CELL)
        if cell is None or cell.token is None or cell.guard.resource_server is not self._guard.resource_server:
            cell = ConnectionCell(self._guard, connection.scope)
            pending = self._guard.begin(cell, request_view(connection.scope), route_path(connection.scope))
            if pending is not None:
                await pending
            _enter(cell)
        if cell.token is None:
            cell.refuse(MissingToken(detail="the endpoint needs a token"))  # the first refusal stays, if there is one
        elif refusal := needed.refusal(cell.token):
            cell.refuse(refusal)
        if cell.token is None or cell.refusal is not None:
            raise _Refused(cell)
        return cell.token


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

    An HTTPException, because every other error of a dependency is a crash to FastAPI's telemetry. Its status is none
    that an application has a handler for. `refusal` is no `__cause__`: whoever raised that again would close a circle.
    """

    def __init__(self, cell: ConnectionCell) -> None:
        super().__init__(0, detail="the request was refused")
        self.cell = cell
        error_handlers(cell.scope)[_Refused] = _answer

    @property
    def refusal(self) -> Refusal | None:
        return self.cell.refusal


async def _answer(connection: HTTPConnection, error: _Refused) -> ASGIApp | None:
    # The cell in the scope may be another resource server's, or gone.
    return error.cell.answer_on(connection)


class _Ending(AbstractContextManager["_Ending"]):
    """Has the last word when the endpoint and then the request end: a refusal is the answer, whoever caught what.

    A class, since a stack looks for a context manager first: to find that a method is none takes it 1 us a request.
    """

    __slots__ = ("_cell", "_endpoint_ended", "_refused")

    def __init__(self, cell: ConnectionCell) -> None:
        self._cell = cell
        self._endpoint_ended = False
        self._refused = False

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if not self._endpoint_ended:
            self._endpoint_ended = True
            if isinstance(error, Refusal):
                self._cell.refuse(error)
            self._refused = self._cell.refusal is not None  # a later refusal finds the response under way
        # What is no Exception, such as a cancellation, leaves nobody to answer.
        if self._refused and (error is None or isinstance(error, Exception)):
            raise _Refused(self._cell) from None


def _enter(cell: ConnectionCell) -> None:
    """Make `cell` the current one until the request ends.

    FastAPI ends an endpoint and a request with a stack each. A dependency that yields could not reach the bottom of
    both, below dependencies that began earlier and may turn one error into another; the names in the scope can.
    """
    scope = cell.scope
    # Ended after the answer to a refusal: a circle of scope and cell is dearer to collect than all that the guard does.
    scope["fastapi_middleware_astack"].callback(scope.__setitem__, CELL, scope.get(CELL))
    scope[CELL] = cell
    ending = _Ending(cell)
    for name in ("fastapi_function_astack", "fastapi_inner_astack"):
        stack: AsyncExitStack = scope[name]
        earlier = stack.pop_all()
        stack.push(ending)
        stack.push_async_exit(earlier)
    scope["fastapi_inner_astack"].callback(_leave, cell, current_cell.set(cell))


def _leave(cell: ConnectionCell, before: Token[RequestCell | None]) -> None:
    try:
        current_cell.reset(before)
    except ValueError:
        # A route class of the application's may run endpoints in a task of its own, whose context is out of our reach,
        # and may serve others: there the cell is one that nothing was decided about.
        cell.access = cell.token = cell.raw_token = None
