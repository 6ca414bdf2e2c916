"""AccessTokenSecurity: the guard of single FastAPI endpoints, which also documents itself in OpenAPI.

It must not know what a token is, and shares the middleware's decision where there is one. OpenAPI 3.1, "Security
Scheme Object"; RFC 6750 3.
"""

from contextlib import AbstractContextManager, AsyncExitStack
from functools import lru_cache

from fastapi.openapi.models import HTTPBearer
from fastapi.openapi.models import SecurityBase as SecurityBaseModel
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import Scope

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
        cell = await self._decided(connection.scope)
        if cell.token is None:
            cell.refuse(MissingToken(detail="the endpoint needs a token"))  # the first refusal stays, if there is one
        elif refusal := needed.refusal(cell.token):
            cell.refuse(refusal)
        if cell.token is None or cell.refusal is not None:
            raise _Refused(cell)
        return cell.token

    async def _decided(self, scope: Scope) -> ConnectionCell:
        cell = scope.get(CELL)
        if cell is not None and cell.token is not None and cell.guard.resource_server is self._guard.resource_server:
            decided: ConnectionCell = cell
            return decided
        cell = ConnectionCell(self._guard, scope)
        pending = self._guard.begin(cell, request_view(scope), route_path(scope))
        if pending is not None:
            await pending
        _enter(cell)
        return cell


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


class _Ending(AbstractContextManager["_Ending"]):
    """Has the last word when the endpoint and then the request end: a refusal is the answer, whoever caught what."""

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
    scope["fastapi_inner_astack"].callback(current_cell.reset, current_cell.set(cell))
