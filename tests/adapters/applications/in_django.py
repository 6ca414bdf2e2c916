"""The application in Django, under WSGI and ASGI. Its settings hold while it is used."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.adapters import django_settings  # noqa: F401 - configures Django

# isort: split

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path
from django.views.decorators.http import require_http_methods

from tests.adapters.applications.routes import CAUGHT, METHODS, PUBLIC_PATHS, ROUTES, Route
from token_guard import ResourceServer, public, requires


@contextmanager
def application(
    server: ResourceServer, *, asynchronous: bool, catches: bool, debug: bool, asgi: bool
) -> Iterator[Callable[..., Any]]:
    """Yield the application behind a guard."""
    with override_settings(
        DEBUG=debug,
        MIDDLEWARE=["token_guard_django.TokenGuardMiddleware", *([f"{__name__}.Catch"] if catches else [])],
        ROOT_URLCONF=tuple(path(route.path[1:], _view(route, asynchronous)) for route in ROUTES),
        TOKEN_GUARD={"RESOURCE_SERVER": server, "PUBLIC_PATHS": PUBLIC_PATHS},
    ):
        yield get_asgi_application() if asgi else get_wsgi_application()


class Catch:
    """Middleware that answers every exception of a view."""

    sync_capable = async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse:
        body, status = CAUGHT
        return HttpResponse(body, status=status)


def _view(route: Route, asynchronous: bool) -> Callable[..., Any]:
    def sync(request: HttpRequest) -> HttpResponse:
        return HttpResponse(route.handler())

    async def not_sync(request: HttpRequest) -> HttpResponse:
        return HttpResponse(route.handler())

    view: Callable[..., Any] = require_http_methods(METHODS)(not_sync if asynchronous else sync)
    if route.marked_public:
        return public(view)
    return requires(route.requirement)(view) if route.requirement else view
