"""The application in FastAPI: its endpoints depend on an access token, with or without a guard around them."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import FastAPI, Security
from fastapi.responses import PlainTextResponse
from starlette.middleware import Middleware
from starlette.types import ASGIApp

from tests.adapters.applications.in_starlette import CATCHES
from tests.adapters.applications.routes import METHODS, PUBLIC_PATHS, ROUTES, Route
from token_guard import AccessToken, ResourceServer, requires
from token_guard_asgi import TokenGuardMiddleware
from token_guard_asgi.fastapi import AccessTokenSecurity

_OPEN = {*PUBLIC_PATHS, "/preflight", "/public"}  # endpoints without the dependency


def application(server: ResourceServer, *, asynchronous: bool, catches: bool, debug: bool) -> ASGIApp:
    """Return the application, in which each endpoint looks after itself."""
    return _application(server, asynchronous=asynchronous, catches=catches, debug=debug, middleware=[])


def behind_guard(server: ResourceServer, *, asynchronous: bool, catches: bool, debug: bool) -> ASGIApp:
    """Return the application behind a guard, whose decision the endpoints share."""
    guard = Middleware(TokenGuardMiddleware, resource_server=server, public_paths=PUBLIC_PATHS)
    return _application(server, asynchronous=asynchronous, catches=catches, debug=debug, middleware=[guard])


def _application(
    server: ResourceServer, *, asynchronous: bool, catches: bool, debug: bool, middleware: list[Middleware]
) -> FastAPI:
    app = FastAPI(debug=debug, exception_handlers=CATCHES if catches else {}, middleware=middleware)
    access_token = AccessTokenSecurity(server)
    for route in ROUTES:
        make = _open_endpoint if route.path in _OPEN else _endpoint
        app.add_api_route(
            route.path, make(route, access_token, asynchronous), methods=METHODS, response_class=PlainTextResponse
        )
    return app


def _endpoint(route: Route, access_token: AccessTokenSecurity, asynchronous: bool) -> Callable[..., Any]:
    # A dependency demands scopes; every other requirement is a decorator's.
    scopes = [route.requirement] if isinstance(route.requirement, str) else []
    dependency = Security(access_token, scopes=scopes)

    def sync(token: Annotated[AccessToken, dependency]) -> str:
        return route.handler()

    async def not_sync(token: Annotated[AccessToken, dependency]) -> str:
        return route.handler()

    endpoint: Callable[..., Any] = not_sync if asynchronous else sync
    return requires(route.requirement)(endpoint) if route.requirement and not scopes else endpoint


def _open_endpoint(route: Route, access_token: AccessTokenSecurity, asynchronous: bool) -> Callable[..., Any]:
    def sync() -> str:
        return route.handler()

    async def not_sync() -> str:
        return route.handler()

    return not_sync if asynchronous else sync
