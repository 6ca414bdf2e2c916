"""token_guard_django.rest_framework: views of REST framework, with the middleware and without."""

from tests.adapters import django_settings  # noqa: F401 - configures Django, which REST framework asks when imported

# isort: split

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.http import JsonResponse
from django.test import override_settings
from django.urls import path
from drf_spectacular.generators import SchemaGenerator
from rest_framework.authentication import BaseAuthentication, BasicAuthentication
from rest_framework.decorators import action, api_view, authentication_classes, permission_classes
from rest_framework.permissions import BasePermission, IsAdminUser, IsAuthenticated
from rest_framework.renderers import BrowsableAPIRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter
from rest_framework.test import APIClient
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from token_guard import (
    AccessToken,
    ChallengePolicy,
    InsufficientScope,
    MissingToken,
    Reason,
    ResourceServer,
    any_of,
    client,
    public,
    requires_scope,
)
from token_guard.guard import Refusal, RequestCell, current_cell
from token_guard.testing import LocalIssuer
from token_guard_django.rest_framework import AccessTokenAuthentication, HasScope

GUARD = "token_guard_django.TokenGuardMiddleware"

issuer = LocalIssuer()
organizer = ResourceServer(
    issuer=issuer.url, audience="organize", jwks=issuer.jwks(), challenge=ChallengePolicy(expose_reasons=True)
)
TOKEN_GUARD = {"RESOURCE_SERVER": f"{__name__}.organizer", "PUBLIC_PATHS": ["/open/*"]}


class IsInsider(BasePermission):
    """Somebody else's permission."""

    def has_permission(self, request: Any, view: APIView) -> bool:
        return request.auth is not None and request.auth.client_id == "insider"


class OwnsObject(BasePermission):
    def has_object_permission(self, request: Request, view: APIView, obj: Any) -> bool:
        return bool(obj == request.user.pk)


def describe(request: Any) -> Response:
    return Response({"user": str(request.user), "scopes": list(request.auth.scopes) if request.auth else None})


class Described(APIView):
    authentication_classes: tuple[type[BaseAuthentication], ...] = (AccessTokenAuthentication,)
    renderer_classes = (JSONRenderer, BrowsableAPIRenderer)

    def get(self, request: Request) -> Response:
        return describe(request)


class Default(APIView):
    """A view of a project that has the middleware and leaves REST framework as it is."""

    permission_classes = (IsAuthenticated, HasScope("read:contacts"))

    def get(self, request: Request) -> Response:
        return describe(request)

    post = get


class Early(Described):
    def get_renderers(self) -> Any:
        assert self.request.user.is_authenticated
        return super().get_renderers()


class ByHand(Described):
    def get(self, request: Any) -> Response:
        request.auth.require("delete:contacts")
        return describe(request)


class OwnObject(Described):
    permission_classes = (HasScope("read:contacts") & OwnsObject,)

    def get(self, request: Request) -> Response:
        self.check_object_permissions(request, "auth0|bob")
        return describe(request)


class Alone(Described):
    authentication_classes = (BasicAuthentication,)
    permission_classes = (HasScope("read:contacts"),)


class Fails(Described):
    def get(self, request: Request) -> Response:
        raise RuntimeError("the view's own failure")


class MarkedMethod(Described):
    @requires_scope("read:contacts")
    def get(self, request: Request) -> Response:
        return describe(request)


@api_view(["GET"])
@authentication_classes([AccessTokenAuthentication])
@permission_classes([HasScope("read:contacts")])
def function(request: Request) -> Response:
    return describe(request)


@requires_scope("read:contacts")
@api_view(["GET"])
def marked_function(request: Request) -> Response:
    return describe(request)


@public
@api_view(["GET"])
def public_function(request: Request) -> Response:
    return describe(request)


class Contacts(ViewSet):
    authentication_classes = (AccessTokenAuthentication,)

    def list(self, request: Request) -> Response:
        return describe(request)

    @requires_scope("delete:contacts")
    def create(self, request: Request) -> Response:
        return describe(request)

    @public
    @action(detail=False)
    def open(self, request: Request) -> Response:
        return describe(request)

    @action(detail=False, permission_classes=[HasScope("delete:contacts")])
    def strict(self, request: Request) -> Response:
        return describe(request)


@public
class Open(ViewSet):
    def list(self, request: Request) -> Response:
        return describe(request)


def with_permission(permission: Any) -> Any:
    class Permitted(Described):
        permission_classes = (permission,)

    return Permitted.as_view()


READ, DELETE = HasScope("read:contacts"), HasScope("delete:contacts")
COMBINED: dict[str, Any] = {
    "alone": READ,
    "both": READ & DELETE,
    "either": READ | DELETE,
    "authenticated_and": IsAuthenticated & READ,
    "and_authenticated": READ & IsAuthenticated,
    "or_other": READ | IsInsider,
    "other_or": IsInsider | READ,
    "nested": (READ & IsAuthenticated) | (IsInsider & ~IsAdminUser),
    "not": ~DELETE,
    "requirement": HasScope(any_of("read:contacts", client("insider"))),
}

router = SimpleRouter()
router.register("contacts", Contacts, basename="contacts")
router.register("everybody", Open, basename="everybody")

urlpatterns = [
    path("described", Described.as_view()),
    path("default", Default.as_view()),
    path("by_hand", ByHand.as_view()),
    path("own_object", OwnObject.as_view()),
    path("alone", Alone.as_view()),
    path("early", Early.as_view()),
    path("fails", Fails.as_view()),
    path("open/described", Described.as_view()),
    path("authenticated", with_permission(IsAuthenticated)),
    path("function", function),
    path("marked/method", MarkedMethod.as_view()),
    path("marked/function", marked_function),
    path("public/function", public_function),
    *(path(f"combined/{name}", with_permission(permission)) for name, permission in COMBINED.items()),
    *router.urls,
]


handled: list[int | None] = []


def catch_everything(error: Exception, context: dict[str, Any]) -> Response:
    """A project's own exception handler, which makes a 500 of whatever it gets."""
    handled.append(getattr(error, "status_code", None))
    return Response({"caught": type(error).__name__}, status=500)


def catch_everything_in_django(error: Exception, context: dict[str, Any]) -> JsonResponse:
    """The same with a response that REST framework does not render."""
    return JsonResponse({"caught": type(error).__name__}, status=500)


def ask(url: str, token: str | None = None, *, method: str = "GET", **headers: str) -> Any:
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return APIClient(enforce_csrf_checks=True, raise_request_exception=False).generic(method, url, headers=headers)


@pytest.fixture(autouse=True)
def project() -> Iterator[None]:
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[GUARD], TOKEN_GUARD=TOKEN_GUARD):
        yield


@pytest.fixture(params=[[GUARD], []], ids=["with_middleware", "without"])
def anyway(request: pytest.FixtureRequest) -> Iterator[None]:
    """With the middleware, and without it."""
    with override_settings(MIDDLEWARE=request.param):
        yield


def is_answer_to(refusal: Refusal, response: Any) -> bool:
    """Tell whether a response is exactly the answer that the refusal demands."""
    answer = organizer.challenge(refusal)
    headers = {name: response.headers.get(name) for name, _ in answer.headers}
    return (response.status_code, headers, response.content) == (answer.status, dict(answer.headers), answer.body)


def lacking(needed: str, reason: Reason = Reason.INSUFFICIENT_SCOPE) -> InsufficientScope:
    return InsufficientScope(reason, scope=needed)


@pytest.mark.usefixtures("anyway")
def test_token_and_principal_are_where_views_look() -> None:
    """`request.auth` is the AccessToken, `request.user` its principal."""
    response = ask("/described", issuer.token("read:contacts delete:contacts"))
    assert response.json() == {"user": "auth0|alice", "scopes": ["read:contacts", "delete:contacts"]}


@pytest.mark.usefixtures("anyway")
@pytest.mark.parametrize("accept", ["application/json", "text/html"])
@pytest.mark.parametrize(
    ("authorization", "status", "reason"),
    [
        ("", 401, "missing_token"),
        ("Basic YWxpY2U6c2VjcmV0", 401, "missing_token"),
        ("Bearer a b", 400, "malformed_request"),
        (f"Bearer {issuer.expired()}", 401, "expired"),
        (f"Bearer {issuer.signed_by_stranger()}", 401, "bad_signature"),
    ],
)
def test_refusal_is_our_answer(accept: str, authorization: str, status: int, reason: str) -> None:
    """Status, challenge and body are as everywhere, whatever renderer the client asks for."""
    response = ask("/described", Authorization=authorization, Accept=accept)
    assert (response.status_code, response.json()["reason"]) == (status, reason)
    assert response["Content-Type"] == "application/json"
    assert response["Cache-Control"] == "no-store"
    assert response["WWW-Authenticate"].startswith('Bearer realm="api"')


@pytest.mark.usefixtures("anyway")
def test_missing_token_is_answered_exactly() -> None:
    """The bare challenge of RFC 6750 3.1, and nothing of REST framework's own."""
    assert is_answer_to(MissingToken(), ask("/described"))


@pytest.mark.usefixtures("anyway")
def test_answers_503_while_keys_are_unavailable(caplog: pytest.LogCaptureFixture) -> None:
    """An issuer that is down is no judgement on the token, and no error in Django's log."""
    transport = issuer.transport()
    transport.failing = True
    server = ResourceServer(issuer=issuer.url, audience="organize", transport=transport)
    with override_settings(TOKEN_GUARD={"RESOURCE_SERVER": server}):
        response = ask("/described", issuer.token())
    server.close()
    assert (response.status_code, response["Retry-After"]) == (503, "1")
    assert response.json()["error"] == "temporarily_unavailable"
    assert {record.name for record in caplog.records if record.levelno >= logging.WARNING} == {"token_guard"}


@pytest.mark.usefixtures("anyway")
def test_exception_handler_of_project_does_not_change_refusal() -> None:
    """A project may have its own exception handler for its own errors; of ours it is told the status."""
    handled.clear()
    with override_settings(REST_FRAMEWORK={"EXCEPTION_HANDLER": f"{__name__}.catch_everything"}):
        assert is_answer_to(lacking("read:contacts"), ask("/function", issuer.token("")))
        assert ask("/fails", issuer.token()).json() == {"caught": "RuntimeError"}
    assert handled == [403, None]


def test_middleware_corrects_any_exception_handler() -> None:
    """With the middleware not even a handler that leaves REST framework changes a refusal."""
    with override_settings(REST_FRAMEWORK={"EXCEPTION_HANDLER": f"{__name__}.catch_everything_in_django"}):
        assert is_answer_to(lacking("read:contacts"), ask("/function", issuer.token("")))
        assert is_answer_to(lacking("delete:contacts"), ask("/by_hand", issuer.token()))


@pytest.mark.usefixtures("anyway")
def test_refusal_before_content_negotiation_is_our_answer() -> None:
    """A view may look at its user before it knows how to render."""
    assert is_answer_to(MissingToken(), ask("/early"))
    assert ask("/early", issuer.token()).status_code == 200


@pytest.mark.usefixtures("anyway")
def test_token_is_validated_once() -> None:
    """Authentication and permission share one decision."""
    seen = []

    def is_revoked(token: AccessToken) -> bool:
        seen.append(token)
        return False

    server = ResourceServer(issuer=issuer.url, audience="organize", jwks=issuer.jwks(), is_revoked=is_revoked)
    with override_settings(TOKEN_GUARD={"RESOURCE_SERVER": server}):
        assert ask("/function", issuer.token()).status_code == 200
    assert len(seen) == 1


@pytest.mark.usefixtures("anyway")
def test_scope_is_required_by_permission() -> None:
    """HasScope in a list of permissions, for functions and for the actions of a view set."""
    assert ask("/function", issuer.token()).status_code == 200
    assert is_answer_to(lacking("read:contacts"), ask("/function", issuer.token("read:calendar")))
    assert is_answer_to(lacking("delete:contacts"), ask("/contacts/strict/", issuer.token()))


@pytest.mark.usefixtures("anyway")
@pytest.mark.parametrize(
    ("name", "scopes", "client_id", "needed"),
    [
        ("alone", "read:contacts", "spa", None),
        ("alone", "", "spa", "read:contacts"),
        ("both", "read:contacts delete:contacts", "spa", None),
        ("both", "delete:contacts", "spa", "read:contacts delete:contacts"),
        ("either", "delete:contacts", "spa", None),
        ("either", "", "spa", "read:contacts"),
        ("authenticated_and", "read:contacts", "spa", None),
        ("authenticated_and", "", "spa", "read:contacts"),
        ("and_authenticated", "read:contacts", "spa", None),
        ("and_authenticated", "", "spa", "read:contacts"),
        ("or_other", "", "insider", None),
        ("or_other", "read:contacts", "spa", None),
        ("or_other", "", "spa", "read:contacts"),
        ("other_or", "", "insider", None),
        ("other_or", "read:contacts", "spa", None),
        ("other_or", "", "spa", "read:contacts"),
        ("nested", "", "insider", None),
        ("nested", "read:contacts", "spa", None),
        ("nested", "", "spa", "read:contacts"),
        ("not", "", "spa", None),
        ("requirement", "", "insider", None),
        ("requirement", "", "spa", "read:contacts"),
    ],
)
def test_permissions_combine(name: str, scopes: str, client_id: str, needed: str | None) -> None:
    """HasScope combines with itself and with other permissions; a denial is our 403 with the scope."""
    response = ask(f"/combined/{name}", issuer.token(scopes, client_id=client_id))
    assert response.status_code == 200 if needed is None else is_answer_to(lacking(needed), response)


@pytest.mark.usefixtures("anyway")
def test_denial_by_another_permission_stays_its_own() -> None:
    """REST framework answers what its own permissions deny."""
    for url in ("/own_object", "/combined/not"):
        response = ask(url, issuer.token("read:contacts delete:contacts"))
        assert (response.status_code, response.json().keys()) == (403, {"detail"})
        assert "WWW-Authenticate" not in response


@pytest.mark.usefixtures("anyway")
def test_anonymous_request_has_no_principal() -> None:
    """Where a request needs no token, other permissions may still demand one: their 401 has our challenge."""
    with override_settings(TOKEN_GUARD={**TOKEN_GUARD, "ALLOW_ANONYMOUS": True}):
        assert ask("/described").json() == {"user": "AnonymousUser", "scopes": None}
        assert is_answer_to(MissingToken(), ask("/function"))
        response = ask("/authenticated")
        assert (response.status_code, response["WWW-Authenticate"]) == (401, 'Bearer realm="api"')


@pytest.mark.usefixtures("anyway")
def test_public_path_is_not_looked_at() -> None:
    """A bad token does no harm where none is asked for."""
    assert ask("/open/described", issuer.expired()).json() == {"user": "AnonymousUser", "scopes": None}


@pytest.mark.usefixtures("anyway")
def test_failure_of_a_view_stays_its_own() -> None:
    """The guard touches only refusals."""
    response = ask("/fails", issuer.token())
    assert (response.status_code, "WWW-Authenticate" in response) == (500, False)


@pytest.mark.usefixtures("anyway")
def test_head_refusal_has_no_body() -> None:
    """RFC 9110 9.3.2."""
    get, head = ask("/function", issuer.token("")), ask("/function", issuer.token(""), method="HEAD")
    assert (head.status_code, head.content, head["Content-Length"]) == (403, b"", str(len(get.content)))
    assert head["WWW-Authenticate"] == get["WWW-Authenticate"]


def test_middleware_serves_a_project_that_changes_no_view() -> None:
    """SessionAuthentication takes the principal, HasScope finds the token, and no CSRF token is asked for."""
    for method in ("GET", "POST"):
        assert ask("/default", issuer.token(), method=method).json() == {"user": "auth0|alice", "scopes": None}
        assert is_answer_to(lacking("read:contacts"), ask("/default", issuer.token(""), method=method))
        assert is_answer_to(MissingToken(), ask("/default", method=method))


def test_has_scope_alone_asks_the_guard() -> None:
    """Without middleware and without AccessTokenAuthentication a view with HasScope is as closed as any."""
    with override_settings(MIDDLEWARE=[]):
        assert is_answer_to(MissingToken(), ask("/alone"))
        assert ask("/alone", issuer.expired()).json()["reason"] == "expired"
        assert is_answer_to(lacking("read:contacts"), ask("/alone", issuer.token("")))
        assert ask("/alone", issuer.token()).status_code == 200


@pytest.mark.parametrize("debug", [False, True])
def test_demand_by_hand_is_final(debug: bool) -> None:
    """`token.require` in a view passes REST framework's exception handling and becomes our 403."""
    with override_settings(DEBUG=debug):
        assert is_answer_to(lacking("delete:contacts"), ask("/by_hand", issuer.token()))


@pytest.mark.parametrize("url", ["/marked/method", "/marked/function"])
def test_decorators_work_on_views_of_rest_framework(url: str) -> None:
    """@requires_scope around an api_view, and on a method of a view class."""
    assert ask(url, issuer.token()).status_code == 200
    assert is_answer_to(lacking("read:contacts"), ask(url, issuer.token("")))


def test_decorators_work_on_view_sets() -> None:
    """A router names the handlers of a view set differently; @public and @requires_scope are found there, too."""
    assert ask("/contacts/open/").status_code == 200
    assert ask("/contacts/open/", method="HEAD").status_code == 200
    assert ask("/everybody/").status_code == 200
    assert ask("/public/function").status_code == 200
    assert is_answer_to(MissingToken(), ask("/contacts/"))
    assert is_answer_to(lacking("delete:contacts"), ask("/contacts/", issuer.token(), method="POST"))


def test_openapi_document_has_bearer_scheme() -> None:
    """drf-spectacular knows AccessTokenAuthentication once `token_guard_django` is in INSTALLED_APPS."""
    generator: Any = SchemaGenerator
    document = generator(patterns=[path("function", function)]).get_schema(public=True)
    scheme = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    assert document["components"]["securitySchemes"] == {"accessToken": scheme}
    assert document["paths"]["/function"]["get"]["security"] == [{"accessToken": []}]


@pytest.mark.parametrize("path", ["/scoped", "/plain"])
def test_the_guard_of_an_outer_application_decides_nothing_here(path: str) -> None:
    """Without the middleware, inside the guard of another resource server: our own guard judges the request."""
    foreign = LocalIssuer("https://other.example/")
    cell = RequestCell(lambda refusal: refusal)
    outer = ResourceServer(issuer=foreign.url, audience="gateway", jwks=foreign.jwks())
    raw = foreign.token(audience="gateway")
    cell.admit(outer.validate(raw), raw)
    before = current_cell.set(cell)
    try:
        with override_settings(MIDDLEWARE=[], TOKEN_GUARD=TOKEN_GUARD, ROOT_URLCONF=Inside):
            refused = APIClient().get(path, headers={"Authorization": f"Bearer {raw}"})
            admitted = APIClient().get(path, headers={"Authorization": f"Bearer {issuer.token()}"})
    finally:
        current_cell.reset(before)
    assert (refused.status_code, refused.json()["reason"]) == (401, "wrong_issuer")
    assert admitted.status_code == 200


class Inside:
    """The URLs of an application that is mounted inside another one."""

    class Plain(APIView):
        authentication_classes = (AccessTokenAuthentication,)
        permission_classes: tuple[Any, ...] = ()

        def get(self, request: Request) -> Response:
            return Response()

    class Scoped(Plain):
        permission_classes = (HasScope("read:contacts"),)

    urlpatterns = (path("plain", Plain.as_view()), path("scoped", Scoped.as_view()))
