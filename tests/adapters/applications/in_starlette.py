"""The application in Starlette, and inside another one that has the guard."""

from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp

from tests.adapters.applications.routes import CAUGHT, METHODS, PUBLIC_PATHS, ROUTES, Route
from token_guard import ResourceServer, requires
from token_guard_asgi import TokenGuardMiddleware


def application(server: ResourceServer, *, asynchronous: bool, catches: bool, debug: bool) -> ASGIApp:
    """Return the application behind a guard."""
    return _application(asynchronous=asynchronous, catches=catches, debug=debug, middleware=[_guard(server)])


def mounted(server: ResourceServer, *, asynchronous: bool, catches: bool, debug: bool) -> ASGIApp:
    """Return a guarded application in which the application is mounted."""
    inner = _application(asynchronous=asynchronous, catches=catches, debug=debug, middleware=[])
    return Starlette(debug=debug, routes=[Mount("/", inner)], middleware=[_guard(server)])


async def catch(request: Request, error: Exception) -> Response:
    return PlainTextResponse(*CAUGHT)


CATCHES: dict[Any, Any] = {Exception: catch, 401: catch, 403: catch, 503: catch}


def _guard(server: ResourceServer) -> Middleware:
    return Middleware(TokenGuardMiddleware, resource_server=server, public_paths=PUBLIC_PATHS)


def _application(*, asynchronous: bool, catches: bool, debug: bool, middleware: list[Middleware]) -> Starlette:
    return Starlette(
        debug=debug,
        routes=[StarletteRoute(route.path, _endpoint(route, asynchronous), methods=METHODS) for route in ROUTES],
        exception_handlers=CATCHES if catches else {},
        middleware=middleware,
    )


def _endpoint(route: Route, asynchronous: bool) -> Callable[[Request], Any]:
    def sync(request: Request) -> Response:
        return PlainTextResponse(route.handler())

    async def not_sync(request: Request) -> Response:
        return PlainTextResponse(route.handler())

    endpoint: Callable[[Request], Any] = not_sync if asynchronous else sync
    return requires(route.requirement)(endpoint) if route.requirement else endpoint
