"""TokenGuardMiddleware: asks the guard about every request, for sync and async views under WSGI and ASGI.

It belongs before all middleware that acts on views or answers by itself; what only adds headers to every answer (CORS,
security headers) may come before it. Knows nothing about tokens. RFC 6750 2.1 and 3.
"""

from collections.abc import Callable
from contextvars import Token
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from token_guard.guard import Refusal, RequestCell, current_cell, is_public

from .guard import answer, guard, new_cell, request_view
from .principal import TokenPrincipal

View = Callable[..., Any]


class TokenGuardMiddleware:
    """Lets a request through to its view with a valid access token, or where the view or its path is public.

    A guarded view finds the AccessToken in `request.access_token` and its subject in `request.user`; no session user
    and no CSRF token is looked at. On public and anonymous requests `request.access_token` is None, and all else is as
    without this middleware. `current_access_token` ends with the view: what streams a body later asks the request.
    Does NOT check scopes: that is what `requires_scope` is for.

    Raises:
        ConfigurationError: the setting TOKEN_GUARD is missing or wrong.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        guard()  # so that a wrong setting is told when the server starts
        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)
        # Only here is the view known that will run: middleware further in may choose another URLconf.
        # Under ASGI a sync hook would be sent to a thread for every request.
        self.process_view: Callable[..., Any] = self._decide_async if self._is_async else self._decide

    def __call__(self, request: HttpRequest) -> Any:
        """Answer the request, or under ASGI return a coroutine that does."""
        if self._is_async:
            return self.__acall__(request)
        cell, before = _enter(request)
        try:
            response = self._get_response(request)
        finally:
            current_cell.reset(before)
        if cell.access is None and cell.refusal is None:  # no view: no such path, or middleware answered by itself
            guard().decide(cell, request_view(request), request.path_info)
        return response if cell.refusal is None else _settle(request, cell.refusal, response)

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer the request."""
        cell, before = _enter(request)
        try:
            response = await self._get_response(request)
        finally:
            current_cell.reset(before)
        if cell.access is None and cell.refusal is None:
            pending = guard().begin(cell, request_view(request), request.path_info)
            if pending is not None:
                await pending
        return response if cell.refusal is None else _settle(request, cell.refusal, response)

    def _decide(self, request: HttpRequest, view: View, args: object, kwargs: object) -> HttpResponse | None:
        marked_public = is_public(view, request.method or "")
        cell: Any = current_cell.get()
        guard().decide(cell, request_view(request), request.path_info, marked_public=marked_public)
        return _admit(request, cell)

    async def _decide_async(
        self, request: HttpRequest, view: View, args: object, kwargs: object
    ) -> HttpResponse | None:
        marked_public = is_public(view, request.method or "")
        cell: Any = current_cell.get()
        pending = guard().begin(cell, request_view(request), request.path_info, marked_public=marked_public)
        if pending is not None:
            await pending
        return _admit(request, cell)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Answer a refusal that a view raised. It is no crash: nobody is told of an exception."""
        cell: Any = current_cell.get()
        return answer(request, cell.refuse(error)) if isinstance(error, Refusal) else None


def _enter(request: Any) -> tuple[RequestCell, Token[RequestCell | None]]:
    request.access_token = None
    cell = new_cell(request)
    return cell, current_cell.set(cell)


def _admit(request: Any, cell: RequestCell) -> HttpResponse | None:
    """Answer a refused request; give an admitted one its token, so that nothing further in looks for a session."""
    if cell.refusal is not None:
        return answer(request, cell.refusal)
    if cell.token is not None:
        principal = TokenPrincipal(cell.token)

        async def auser() -> TokenPrincipal:
            return principal

        request.access_token, request.user, request.auser = cell.token, principal, auser
        request.csrf_processing_done = True  # a token in a header is not sent by another site's form
    return None


def _settle(request: HttpRequest, refusal: Refusal, response: HttpResponseBase) -> HttpResponseBase:
    """Return `response`, unless something else than the answer of the refusal came out."""
    refused = answer(request, refusal)
    # What middleware further in has added to our answer, such as CORS headers, stays.
    if (
        response.status_code == refused.status_code
        and getattr(response, "content", None) == refused.content
        and refused.headers.items() <= response.headers.items()
    ):
        return response
    _take_over_files(refused, response)
    return refused


def _take_over_files(answer: Any, discarded: Any) -> None:
    # Closing the discarded answer itself would tell Django that the request is finished.
    answer._resource_closers.extend(discarded._resource_closers)  # noqa: SLF001
