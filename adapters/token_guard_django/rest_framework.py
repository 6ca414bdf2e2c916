"""REST framework: the access token as `request.auth`, and scopes as permissions.

Knows how a refusal crosses REST framework's exception handling, and nothing about tokens. RFC 6750 3.
"""

import functools
from typing import TYPE_CHECKING, Any, NoReturn, Self

from django.http import HttpResponse
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import APIException
from rest_framework.permissions import SingleOperandHolder
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from token_guard import AccessToken, ConfigurationError, MissingToken, all_of, any_of
from token_guard.guard import Refusal, RequestCell, Requirement, current_cell

from .guard import Cell, answer, guard, new_cell, request_view
from .principal import TokenPrincipal

if TYPE_CHECKING:
    from rest_framework.views import APIView  # it reads the settings that name AccessTokenAuthentication


class AccessTokenAuthentication(BaseAuthentication):
    """Authenticates with the access token that TokenGuardMiddleware has accepted.

    Without the middleware it asks the guard itself. Then only the views that name it are guarded, and by HasScope
    alone: `requires_scope`, `current_access_token` and `token.require` need the middleware.
    """

    def authenticate(self, request: Request) -> tuple[TokenPrincipal, AccessToken] | None:
        """Return the token's principal and the AccessToken; None where the request is public or anonymous."""
        cell = _decided_cell(request)
        if cell.refusal is not None:
            raise _Refused(request, cell.refusal)
        return None if cell.token is None else (TokenPrincipal(cell.token), cell.token)

    def authenticate_header(self, request: Request) -> str:
        """Return the challenge of a 401 that others answer; without one it would become a 403."""
        return dict(guard().answer(MissingToken()).headers)["WWW-Authenticate"]


class HasScope(SingleOperandHolder):
    """A permission: demands scopes, or other requirements, of the access token. Combines with `&`, `|` and `~`.

    Raises:
        ConfigurationError: no requirement, or one that cannot be understood.
    """

    def __init__(self, *requirements: Requirement | str) -> None:
        if not requirements:  # views call a class that stands in `permission_classes` without arguments
            raise ConfigurationError('HasScope needs a scope: HasScope("read:contacts")')
        self._needed = all_of(*requirements)

    def __call__(self, *_: object, **__: object) -> Self:
        """Return itself: views call what stands in `permission_classes`."""
        return self

    def __and__(self, other: Any) -> Any:
        return HasScope(self._needed, other._needed) if isinstance(other, HasScope) else super().__and__(other)

    def __or__(self, other: Any) -> Any:
        return HasScope(any_of(self._needed, other._needed)) if isinstance(other, HasScope) else super().__or__(other)

    def has_permission(self, request: Request, view: "APIView") -> bool:
        """Tell whether the token meets the requirements. If not, and if nothing else permits, our 403 is the answer."""
        cell = _decided_cell(request)
        refusal = self._refusal(cell.token)
        if refusal is not None:
            # Only the view knows whether the alternatives of `|` deny it as well: it then calls this.
            view.permission_denied = functools.partial(_deny, cell, refusal)  # type: ignore[method-assign]
        return refusal is None

    def has_object_permission(self, request: Request, view: "APIView", obj: object) -> bool:
        """Return True: `has_permission` was asked before."""
        return True

    def _refusal(self, token: AccessToken | None) -> Refusal | None:
        return MissingToken(detail=f"the view needs {self._needed}") if token is None else self._needed.refusal(token)


def _decided_cell(request: Request) -> RequestCell:
    """Return the middleware's cell or, where there is none, one that stays with the request."""
    cell = current_cell.get()
    if not isinstance(cell, Cell):  # no middleware, or the guard of an application that this one is mounted in
        cell = vars(request).setdefault("_token_guard", new_cell(request))
    if cell.access is None:
        guard().decide(cell, request_view(request), request.path_info)
    return cell


def _deny(cell: RequestCell, refusal: Refusal, request: Request, **_: object) -> NoReturn:
    raise _Refused(request, cell.refuse(refusal))


class _Refused(APIException):
    """Takes a refusal through REST framework's exception handling. What it makes of it is rendered as our answer."""

    def __init__(self, request: Request, refusal: Refusal) -> None:
        super().__init__(refusal.description)
        self.status_code = refusal.status
        request.accepted_renderer = _AnswerRenderer(answer(request, refusal))
        request.accepted_media_type = _AnswerRenderer.media_type


class _AnswerRenderer(BaseRenderer):
    media_type = "application/json"
    format = "json"
    charset = None

    def __init__(self, refused: HttpResponse) -> None:
        self._refused = refused

    def render(self, data: object, accepted_media_type: object = None, renderer_context: Any = None) -> bytes:
        response = renderer_context["response"]
        response.status_code = self._refused.status_code
        for name, value in self._refused.headers.items():
            response[name] = value
        response._has_been_logged = True  # noqa: SLF001 - as in the answer itself
        return self._refused.content
