"""What the middleware and REST framework share: the guard of this process, its questions and its answers.

Knows neither of them. RFC 6750 3.
"""

import functools
from collections.abc import Mapping

from django.conf import settings
from django.core.signals import setting_changed
from django.db import connections
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse

from token_guard import ConfigurationError
from token_guard.guard import Guard, Refusal, RequestCell, RequestView, wsgi_headers


@functools.cache
def guard() -> Guard:
    """Return the guard that the setting TOKEN_GUARD describes. It is made once, and anew when a test overrides it.

    Raises:
        ConfigurationError: the setting is missing, or something in it is missing, unknown or malformed.
    """
    values = getattr(settings, "TOKEN_GUARD", None)
    if not isinstance(values, Mapping):
        raise ConfigurationError(f"the setting TOKEN_GUARD must be a dictionary, not {type(values).__name__}")
    return Guard.from_settings(values, "TOKEN_GUARD: ")


@receiver(setting_changed)
def _forget_guard(*, setting: str, **_: object) -> None:
    if setting == "TOKEN_GUARD":
        guard.cache_clear()


def request_view(request: HttpRequest) -> RequestView:
    """Return what the guard may know of a request."""
    method = request.method or ""
    return RequestView(method, request.build_absolute_uri, wsgi_headers(request.META, method))


class Cell(RequestCell):
    """The cell of a request of Django's. Another guard's, further out, decides nothing here."""


def new_cell(request: HttpRequest) -> Cell:
    """Return a cell for a request that nothing is decided about."""
    return Cell(functools.partial(_answer_in_view, request))


class _RefusalResponse(HttpResponse):
    # The guard logged the refusal with its reason. Django would log it again, a 503 even as an error for the ADMINS.
    _has_been_logged = True


def answer(request: HttpRequest, refusal: Refusal) -> HttpResponse:
    """Return the response that a refusal demands."""
    made = guard().answer(refusal)
    body = b"" if request.method == "HEAD" else made.body
    response = _RefusalResponse(body, status=made.status, headers=dict(made.headers))
    response["Content-Length"] = str(len(made.body))
    return response


def _answer_in_view(request: HttpRequest, refusal: Refusal) -> HttpResponse:
    """Answer in place of a view. One that was refused half-way leaves nothing behind where ATOMIC_REQUESTS is set."""
    for connection in connections.all(initialized_only=True):
        if connection.settings_dict["ATOMIC_REQUESTS"] and connection.in_atomic_block:
            connection.set_rollback(True)
    return answer(request, refusal)
