"""The application in Flask, also behind an ASGI gateway."""

from collections.abc import Callable
from typing import Any

from a2wsgi import WSGIMiddleware
from flask import Flask
from starlette.types import ASGIApp
from werkzeug.exceptions import HTTPException

from tests.adapters.applications.routes import CAUGHT, METHODS, PUBLIC_PATHS, ROUTES, Route
from token_guard import ResourceServer, public, requires
from token_guard_flask import TokenGuard


def application(server: ResourceServer, *, asynchronous: bool, catches: bool, debug: bool) -> Flask:
    """Return the application behind a guard."""
    app = Flask("application")
    app.debug = debug
    TokenGuard(app, server, public_paths=PUBLIC_PATHS)
    for route in ROUTES:
        app.add_url_rule(route.path, route.path, _view(route, asynchronous), methods=METHODS)
    for error in (Exception, 401, 403, 503) if catches else ():
        app.register_error_handler(error, catch)
    return app


def behind_gateway(server: ResourceServer, *, asynchronous: bool, catches: bool, debug: bool) -> ASGIApp:
    """Return the application behind a guard as an ASGI application."""
    app = application(server, asynchronous=asynchronous, catches=catches, debug=debug)
    gateway: Any = WSGIMiddleware(app)  # type: ignore[arg-type]  # a2wsgi types WSGI its own way
    return gateway  # type: ignore[no-any-return]


def catch(error: Exception) -> Any:
    # To Flask its own 404 and 405 are exceptions like any other.
    return error if isinstance(error, HTTPException) and error.code in (404, 405) else CAUGHT


def _view(route: Route, asynchronous: bool) -> Callable[[], Any]:
    def sync() -> str:
        return route.handler()

    async def not_sync() -> str:
        return route.handler()

    view: Callable[[], Any] = not_sync if asynchronous else sync
    if route.marked_public:
        return public(view)
    return requires(route.requirement)(view) if route.requirement else view
