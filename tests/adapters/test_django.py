"""token_guard_django: requests through Django's own handlers, WSGI and ASGI, and through real servers."""

from tests.adapters import django_settings  # noqa: F401 - configures Django

# isort: split

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import httpx
import pytest
import sentry_sdk
import waitress.server
import waitress.wasyncore
from django.contrib.auth.decorators import permission_required
from django.core.asgi import get_asgi_application
from django.core.checks import run_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.core.signals import got_request_exception
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.test import AsyncClient, Client, override_settings
from django.urls import path
from django.utils.decorators import async_only_middleware, method_decorator, sync_only_middleware
from django.views import View
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.django import DjangoIntegration
from sentry_sdk.transport import Transport

from token_guard import (
    AccessToken,
    ChallengePolicy,
    ConfigurationError,
    InvalidToken,
    Reason,
    ResourceServer,
    TemporarilyUnavailable,
    any_of,
    client,
    current_access_token,
    public,
    requires,
    requires_scope,
)
from token_guard.guard import RequestCell, current_cell
from token_guard.testing import LocalIssuer
from token_guard_django import TokenGuardMiddleware
from token_guard_django.guard import guard
from token_guard_django.principal import TokenPrincipal

GUARD = "token_guard_django.TokenGuardMiddleware"
AUTHENTICATION = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]

issuer = LocalIssuer()
organizer = ResourceServer(
    issuer=issuer.url, audience="organize", jwks=issuer.jwks(), challenge=ChallengePolicy(expose_reasons=True)
)
TOKEN_GUARD = {"RESOURCE_SERVER": f"{__name__}.organizer", "PUBLIC_PATHS": ["/health", "/open/*"]}


# The views: each kind of view that Django has, closed, public, and with a requirement.


def describe(request: Any) -> JsonResponse:
    """Answer with what a view can know of its caller."""
    token = request.access_token
    return JsonResponse({"token": token and token.subject, "user": str(getattr(request, "user", None))})


def plain(request: HttpRequest) -> HttpResponse:
    return describe(request)


async def plain_async(request: HttpRequest) -> HttpResponse:
    return describe(request)


class PlainClass(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return describe(request)


class PlainAsyncClass(View):
    async def get(self, request: HttpRequest) -> HttpResponse:
        return describe(request)


class OverriddenDispatch(PlainAsyncClass):
    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        current_access_token().require("delete:contacts")
        return super().dispatch(request, *args, **kwargs)


PLAIN: dict[str, Any] = {
    "function": plain,
    "async": plain_async,
    "class": PlainClass.as_view(),
    "async_class": PlainAsyncClass.as_view(),
}


def decorated(decorator: Callable[[Any], Any]) -> dict[str, Any]:
    """Return a view for each place where a decorator can stand."""

    @decorator
    def function(request: HttpRequest) -> HttpResponse:
        return describe(request)

    @decorator
    async def function_async(request: HttpRequest) -> HttpResponse:
        return describe(request)

    @decorator
    class Class(View):
        def get(self, request: HttpRequest) -> HttpResponse:
            return describe(request)

    @decorator
    class AsyncClass(View):
        async def get(self, request: HttpRequest) -> HttpResponse:
            return describe(request)

    class Method(View):
        @decorator
        def get(self, request: HttpRequest) -> HttpResponse:
            return describe(request)

    class AsyncMethod(View):
        @decorator
        async def get(self, request: HttpRequest) -> HttpResponse:
            return describe(request)

    @method_decorator(decorator, name="dispatch")
    class Dispatch(PlainClass):
        pass

    @method_decorator(decorator, name="dispatch")
    class AsyncDispatch(PlainAsyncClass):
        pass

    @method_decorator(decorator, name="get")
    class NamedMethod(PlainClass):
        pass

    @method_decorator(decorator, name="get")
    class AsyncNamedMethod(PlainAsyncClass):
        pass

    classes = [Class, AsyncClass, Method, AsyncMethod, Dispatch, AsyncDispatch, NamedMethod, AsyncNamedMethod]
    return {
        "function": function,
        "function_async": function_async,
        **{view.__name__: view.as_view() for view in classes},
        "AsView": decorator(PlainClass.as_view()),
        "AsyncAsView": decorator(PlainAsyncClass.as_view()),
    }


CLOSED = decorated(requires_scope("read:contacts"))
PUBLIC = decorated(public)


@requires(any_of("admin:contacts", client("batch")))
def any_of_view(request: HttpRequest) -> HttpResponse:
    return describe(request)


def by_hand(request: HttpRequest) -> HttpResponse:
    current_access_token().require("delete:contacts")
    return describe(request)


async def by_hand_async(request: HttpRequest) -> HttpResponse:
    current_access_token().require("delete:contacts")
    return describe(request)


def swallows(request: HttpRequest) -> HttpResponseBase:
    try:
        current_access_token().require("delete:contacts")
    except Exception:  # noqa: BLE001
        return FileResponse(Path(__file__).open("rb"))
    return describe(request)


def asks_nothing(request: HttpRequest) -> HttpResponse:
    return describe(request)


def asks_for_token(request: HttpRequest) -> HttpResponse:
    return HttpResponse(current_access_token().subject)


def raises_rejected(request: HttpRequest) -> HttpResponse:
    raise InvalidToken(Reason.REVOKED)


def raises_unavailable(request: HttpRequest) -> HttpResponse:
    raise TemporarilyUnavailable(retry_after=1.5)


async def raises_unavailable_async(request: HttpRequest) -> HttpResponse:
    raise TemporarilyUnavailable(retry_after=1.5)


def fails(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("the view's own failure")


async def fails_async(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("the view's own failure")


@permission_required("contacts.change_contact", raise_exception=True)
def permitted(request: HttpRequest) -> HttpResponse:
    return describe(request)


@permission_required("contacts.change_contact", raise_exception=True)
async def permitted_async(request: HttpRequest) -> HttpResponse:
    return describe(request)


@requires_scope("read:contacts")
def writes_then_demands(request: HttpRequest) -> HttpResponse:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO written VALUES (1)")
    current_access_token().require("delete:contacts")
    return describe(request)


def handler500(request: HttpRequest) -> HttpResponse:
    return HttpResponse("the project's own page", status=500)


urlpatterns = [
    *(path(f"plain/{name}", view) for name, view in PLAIN.items()),
    *(path(f"closed/{name}", view) for name, view in CLOSED.items()),
    *(path(f"public/{name}", view) for name, view in PUBLIC.items()),
    path("health", plain),
    path("open/page", plain),
    path("openly", plain),
    path("slash/", plain),
    path("any_of", any_of_view),
    path("by_hand/sync", by_hand),
    path("by_hand/async", by_hand_async),
    path("by_hand/dispatch", requires_scope("read:contacts")(OverriddenDispatch).as_view()),
    path("swallows", swallows),
    path("raises/rejected", raises_rejected),
    path("raises/unavailable", raises_unavailable),
    path("raises/unavailable_async", raises_unavailable_async),
    path("fails/sync", fails),
    path("fails/async", fails_async),
    path("public/asks", public(asks_for_token)),
    path("asks", asks_for_token),
    path("permitted/sync", permitted),
    path("permitted/async", permitted_async),
    path("writes", writes_then_demands),
]


# The middleware of a user's project, further in than the guard.


def answers_by_itself(get_response: Callable[[HttpRequest], HttpResponseBase]) -> Any:
    """Answer some paths without a view, as a middleware for static files does."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if request.path_info.endswith("/static.py"):
            return FileResponse(Path(__file__).open("rb"))
        if request.method == "OPTIONS" and "HTTP_ORIGIN" in request.META:
            return HttpResponse(headers={"Access-Control-Allow-Origin": "*"})
        return get_response(request)

    return middleware


class CatchesEverything:
    """Make a 500 of its own of every exception, and add a header to every answer."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        response["X-Project"] = "organizer"
        return response

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse:
        return JsonResponse({"caught": type(error).__name__}, status=500)


def rewrites(change: Callable[[Any], None]) -> Any:
    """Return middleware of a project that changes every error to its taste."""

    def factory(get_response: Callable[[HttpRequest], HttpResponseBase]) -> Any:
        def middleware(request: HttpRequest) -> HttpResponseBase:
            response = get_response(request)
            if response.status_code >= 400:
                change(response)
            return response

        return middleware

    return factory


rewrites_status = rewrites(lambda response: setattr(response, "status_code", 200))
rewrites_body = rewrites(lambda response: setattr(response, "content", b"<h1>Something went wrong</h1>"))
rewrites_header = rewrites(lambda response: response.__setitem__("Cache-Control", "public"))


def chooses_urls(get_response: Callable[[HttpRequest], HttpResponseBase]) -> Any:
    """Route by another URLconf, where what was public is not, and the other way round."""
    urls = (path("public/function", plain), path("plain/function", public(asks_nothing)))

    def middleware(request: Any) -> HttpResponseBase:
        request.urlconf = urls
        return get_response(request)

    return middleware


@sync_only_middleware
def only_sync(get_response: Callable[[HttpRequest], HttpResponseBase]) -> Any:
    return lambda request: get_response(request)


@async_only_middleware
def only_async(get_response: Any) -> Any:
    async def middleware(request: HttpRequest) -> HttpResponseBase:
        response: HttpResponseBase = await get_response(request)
        return response

    return middleware


# Asking.

Ask = Callable[..., Any]
CLIENT: dict[str, Any] = {"enforce_csrf_checks": True, "raise_request_exception": False}


def bearer(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def ask_wsgi(url: str, token: str | None = None, *, method: str = "GET", headers: dict[str, str] | None = None) -> Any:
    return Client(**CLIENT).generic(method, url, headers={**bearer(token), **(headers or {})})


def ask_asgi(url: str, token: str | None = None, *, method: str = "GET", headers: dict[str, str] | None = None) -> Any:
    async def ask() -> Any:
        return await AsyncClient(**CLIENT).generic(method, url, headers={**bearer(token), **(headers or {})})

    return asyncio.run(ask())


@pytest.fixture(params=[ask_wsgi, ask_asgi], ids=["wsgi", "asgi"])
def ask(request: pytest.FixtureRequest) -> Ask:
    asker: Ask = request.param
    return asker


@pytest.fixture(autouse=True)
def project() -> Iterator[None]:
    """The settings of a small project; no request may leave its cell behind."""
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[GUARD], TOKEN_GUARD=TOKEN_GUARD):
        yield
    assert current_cell.get() is None


def inside(*names: str) -> list[str]:
    return [GUARD, *(f"{__name__}.{name}" for name in names)]


def reason(response: Any) -> str:
    """Return the reason of a refusal that is exactly ours."""
    assert response["Cache-Control"] == "no-store"
    assert response["Content-Type"] == "application/json"
    found: str = response.json()["reason"]
    return found


# Closed by default.


@pytest.mark.parametrize("kind", PLAIN)
def test_admits_good_token(ask: Ask, kind: str) -> None:
    """Every kind of view gets the token and its principal."""
    response = ask(f"/plain/{kind}", issuer.token())
    assert response.status_code == 200
    assert response.json() == {"token": "auth0|alice", "user": "auth0|alice"}


@pytest.mark.parametrize("kind", PLAIN)
def test_refuses_missing_token(ask: Ask, kind: str) -> None:
    """Without a token no view runs, and the challenge names no error (RFC 6750 3.1)."""
    response = ask(f"/plain/{kind}")
    assert (response.status_code, reason(response)) == (401, "missing_token")
    assert response["WWW-Authenticate"] == 'Bearer realm="api"'


@pytest.mark.parametrize(
    ("authorization", "status", "expected"),
    [
        ("Basic YWxpY2U6c2VjcmV0", 401, "missing_token"),
        ("Bearer", 400, "malformed_request"),
        ("Bearer a b", 400, "malformed_request"),
        ("Bearer junk", 401, "malformed"),
        (f"Bearer {issuer.expired()}", 401, "expired"),
        (f"Bearer {issuer.token(audience='reports')}", 401, "wrong_audience"),
        (f"Bearer {issuer.unknown_key()}", 401, "unknown_key"),
        (f"Bearer {issuer.signed_by_stranger()}", 401, "bad_signature"),
        (f"Bearer {issuer.token()},Bearer {issuer.token()}", 400, "malformed_request"),
    ],
)
def test_refuses_bad_credentials(ask: Ask, authorization: str, status: int, expected: str) -> None:
    """What is wrong with the credentials decides about status and reason."""
    response = ask("/plain/function", headers={"Authorization": authorization})
    assert (response.status_code, reason(response)) == (status, expected)


def test_answers_503_while_keys_are_unavailable(ask: Ask) -> None:
    """An issuer that is down is no judgement on the token."""
    transport = issuer.transport()
    transport.failing = True
    server = ResourceServer(issuer=issuer.url, audience="organize", transport=transport)
    with override_settings(TOKEN_GUARD={"RESOURCE_SERVER": server}):
        response = ask("/plain/async", issuer.token())
    server.close()
    assert (response.status_code, response["Retry-After"]) == (503, "1")
    assert "WWW-Authenticate" not in response
    assert response.json()["error"] == "temporarily_unavailable"


def test_unknown_path_is_401_without_token_and_404_with_one(ask: Ask) -> None:
    """Whoever has no token does not learn which paths exist."""
    refused = ask("/nowhere")
    assert (refused.status_code, reason(refused)) == (401, "missing_token")
    assert ask("/nowhere", issuer.token()).status_code == 404


def test_wrong_method_is_401_without_token_and_405_with_one(ask: Ask) -> None:
    """The guard is asked before the view class looks at the method."""
    assert ask("/plain/async_class", method="POST").status_code == 401
    assert ask("/plain/async_class", issuer.token(), method="POST").status_code == 405


def test_slash_is_appended_only_for_those_with_a_token(ask: Ask) -> None:
    """CommonMiddleware redirects before a view is chosen."""
    with override_settings(MIDDLEWARE=[GUARD, "django.middleware.common.CommonMiddleware"]):
        assert reason(ask("/slash")) == "missing_token"
        assert ask("/slash", issuer.token())["Location"] == "/slash/"


def test_head_refusal_has_headers_of_get_and_no_body(ask: Ask) -> None:
    """RFC 9110 9.3.2."""
    get, head = ask("/closed/function"), ask("/closed/function", method="HEAD")
    assert head.status_code == 401
    assert dict(head.items()) == dict(get.items())
    assert head["Content-Length"] == str(len(get.content))
    # Test clients take the body away; a server may not.
    environ = {"REQUEST_METHOD": "HEAD", "PATH_INFO": "/closed/function"}
    setup_testing_defaults(environ)
    application: Any = get_wsgi_application()
    with closing(application(environ, lambda *_: None)) as response:
        assert b"".join(response) == b""


@pytest.mark.parametrize("kind", PUBLIC)
def test_public_view_does_not_look_at_token(ask: Ask, kind: str) -> None:
    """@public works wherever a decorator can stand, even for a caller with a bad token."""
    response = ask(f"/public/{kind}", issuer.expired())
    assert response.status_code == 200
    assert response.json() == {"token": None, "user": "None"}


@pytest.mark.parametrize(("url", "status"), [("/health", 200), ("/open/page", 200), ("/openly", 401), ("/open", 401)])
def test_public_paths_are_exact_or_prefixes(ask: Ask, url: str, status: int) -> None:
    """A prefix ends at its slash."""
    assert ask(url, issuer.expired()).status_code == status


def test_public_path_is_compared_without_script_name() -> None:
    """Where the server mounts the project under a prefix, the router does not see it, and nor does the guard."""
    assert Client().get("/health", SCRIPT_NAME="/api").status_code == 200
    assert [answer.status_code for answer in asgi("/api/health", [], root_path="/api")] == [200]


def test_public_head_follows_public_get(ask: Ask) -> None:
    """A view class answers HEAD with its get."""
    assert ask("/public/Method", method="HEAD").status_code == 200


def test_public_method_does_not_open_other_methods(ask: Ask) -> None:
    """@public on `get` says nothing about POST."""
    assert reason(ask("/public/Method", method="POST")) == "missing_token"


def test_preflight_passes_and_the_request_does_not(ask: Ask) -> None:
    """The application's own CORS middleware answers a preflight."""
    headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "GET"}
    with override_settings(MIDDLEWARE=inside("answers_by_itself")):
        assert ask("/plain/function", method="OPTIONS", headers=headers)["Access-Control-Allow-Origin"] == "*"
        assert reason(ask("/plain/function", headers=headers)) == "missing_token"
        del headers["Access-Control-Request-Method"]
        assert reason(ask("/plain/function", method="OPTIONS", headers=headers)) == "missing_token"


def test_anonymous_is_admitted_where_allowed(ask: Ask) -> None:
    """ALLOW_ANONYMOUS lets in who sends no token; a token that is sent is checked, and a requirement needs one."""
    with override_settings(TOKEN_GUARD={**TOKEN_GUARD, "ALLOW_ANONYMOUS": True}):
        assert ask("/plain/function").json() == {"token": None, "user": "None"}
        assert reason(ask("/plain/function", issuer.expired())) == "expired"
        assert reason(ask("/closed/function")) == "missing_token"
        assert reason(ask("/asks")) == "missing_token"


def test_asking_for_token_in_public_view_is_401(ask: Ask) -> None:
    """A public view that nevertheless needs a token says so."""
    response = ask("/public/asks", issuer.token())
    assert (response.status_code, reason(response)) == (401, "missing_token")


# Requirements.


@pytest.mark.parametrize("kind", CLOSED)
def test_scope_is_required(ask: Ask, kind: str) -> None:
    """@requires_scope works wherever a decorator can stand, and its 403 names the scope."""
    assert ask(f"/closed/{kind}", issuer.token("read:contacts")).status_code == 200
    response = ask(f"/closed/{kind}", issuer.token("read:calendar"))
    assert (response.status_code, reason(response)) == (403, "insufficient_scope")
    assert 'scope="read:contacts"' in response["WWW-Authenticate"]


@pytest.mark.parametrize("kind", CLOSED)
def test_missing_guard_is_500_and_no_view_runs(ask: Ask, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """A view with a requirement never runs unguarded, and the log says what to do."""
    with override_settings(MIDDLEWARE=[]):
        response = ask(f"/closed/{kind}", issuer.token())
    assert (response.status_code, b"auth0|alice" in response.content) == (500, False)
    assert "put the Token Guard middleware" in caplog.text


def test_any_of_is_satisfied_by_one(ask: Ask) -> None:
    """`requires` takes any requirement."""
    assert ask("/any_of", issuer.token(client_id="batch")).status_code == 200
    assert reason(ask("/any_of", issuer.token())) == "insufficient_scope"


@pytest.mark.parametrize("url", ["/by_hand/sync", "/by_hand/async", "/by_hand/dispatch", "/swallows"])
def test_demand_by_hand_is_final(ask: Ask, url: str) -> None:
    """What `token.require` refuses stays refused, even where the view catches the exception and answers 200."""
    response = ask(url, issuer.token())
    assert (response.status_code, reason(response)) == (403, "insufficient_scope")
    assert 'scope="delete:contacts"' in response["WWW-Authenticate"]
    assert "Content-Disposition" not in response


# A refusal is an ordinary answer.

REFUSED = [
    ("/plain/function", None, 401),
    ("/plain/async", "junk", 401),
    ("/nowhere", None, 401),
    ("/closed/AsyncClass", issuer.token(""), 403),
    ("/by_hand/sync", issuer.token(), 403),
    ("/by_hand/async", issuer.token(), 403),
    ("/raises/rejected", issuer.token(), 401),
    ("/raises/unavailable", issuer.token(), 503),
    ("/raises/unavailable_async", issuer.token(), 503),
    ("/public/asks", None, 401),
]
refused = pytest.mark.parametrize(("url", "token", "status"), REFUSED)


@contextmanager
def exceptions_told() -> Iterator[list[str]]:
    told: list[str] = []

    def tell(request: HttpRequest, **_: object) -> None:
        told.append(request.path_info)

    got_request_exception.connect(tell)
    try:
        yield told
    finally:
        got_request_exception.disconnect(tell)


@pytest.mark.parametrize(
    "settings",
    [{}, {"DEBUG": True}, {"DEBUG_PROPAGATE_EXCEPTIONS": True}],
    ids=["production", "debug", "propagate"],
)
@refused
def test_refusal_is_no_crash(
    ask: Ask, url: str, token: str | None, status: int, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is told of an exception, no debug page is made, and Django logs nothing."""
    caplog.set_level(logging.INFO)
    with override_settings(**settings), exceptions_told() as told:
        response = ask(url, token)
    assert (response.status_code, told) == (status, [])
    assert reason(response)
    assert {record.name for record in caplog.records if record.levelno > logging.DEBUG} - {"asyncio"} == {"token_guard"}


@pytest.mark.parametrize("url", ["/fails/sync", "/fails/async"])
def test_failure_of_a_view_stays_its_own(ask: Ask, url: str) -> None:
    """The guard touches only refusals."""
    with exceptions_told() as told:
        response = ask(url, issuer.token())
    assert (response.status_code, told) == (500, [url])
    assert response.content == b"the project's own page"
    assert "WWW-Authenticate" not in response


def test_cell_is_reset_when_exceptions_propagate(ask: Ask) -> None:
    """Not even an exception that leaves Django leaves the cell behind."""
    with override_settings(DEBUG_PROPAGATE_EXCEPTIONS=True), pytest.raises(RuntimeError, match="own failure"):
        ask("/fails/sync", issuer.token())
    assert current_cell.get() is None


@refused
def test_middleware_that_catches_everything_does_not_change_refusal(
    ask: Ask, url: str, token: str | None, status: int
) -> None:
    """Only MissingToken of `current_access_token()` and what a view raises itself are the application's to catch."""
    with override_settings(MIDDLEWARE=inside("CatchesEverything")):
        response = ask(url, token)
    if url.startswith(("/raises", "/public")):
        assert response.json().keys() == {"caught"}
    else:
        assert (response.status_code, bool(reason(response))) == (status, True)


def test_middleware_may_add_headers_to_refusal(ask: Ask) -> None:
    """So that a browser may read an answer to which CORS headers were added further in."""
    with override_settings(MIDDLEWARE=inside("CatchesEverything")):
        assert ask("/plain/function")["X-Project"] == "organizer"


@pytest.mark.parametrize("middleware", ["rewrites_status", "rewrites_body", "rewrites_header"])
@refused
def test_middleware_that_rewrites_errors_does_not_change_refusal(
    ask: Ask, url: str, token: str | None, status: int, middleware: str
) -> None:
    """Status, challenge and body are ours."""
    with override_settings(MIDDLEWARE=inside(middleware)):
        response = ask(url, token)
    assert (response.status_code, bool(reason(response))) == (status, True)


def test_middleware_that_answers_by_itself_is_guarded(ask: Ask) -> None:
    """No path is open because no view is asked; with a token, or on a public path, the file is sent."""
    with override_settings(MIDDLEWARE=inside("answers_by_itself")):
        assert reason(ask("/static.py")) == "missing_token"
        for response in (ask("/static.py", issuer.token()), ask("/open/static.py")):
            assert response["Content-Disposition"] == 'inline; filename="test_django.py"'
            response.close()


def test_view_that_runs_decides_whether_it_is_public(ask: Ask) -> None:
    """Middleware further in may choose another URLconf; its views count."""
    with override_settings(MIDDLEWARE=inside("chooses_urls")):
        assert reason(ask("/public/function")) == "missing_token"
        assert ask("/plain/function").status_code == 200


# Django's own protections.


def test_guarded_view_needs_no_csrf_token(ask: Ask) -> None:
    """A token in a header is no cookie: another site's form does not send it."""
    with override_settings(MIDDLEWARE=[GUARD, "django.middleware.csrf.CsrfViewMiddleware"]):
        assert ask("/plain/function", issuer.token(), method="POST").status_code == 200


def test_public_and_anonymous_views_need_csrf_token(ask: Ask) -> None:
    """Where no token is looked at, a session may decide, and CSRF protection stays on."""
    csrf = [GUARD, "django.middleware.csrf.CsrfViewMiddleware"]
    with override_settings(MIDDLEWARE=csrf, TOKEN_GUARD={**TOKEN_GUARD, "ALLOW_ANONYMOUS": True}):
        assert ask("/public/function", issuer.token(), method="POST").status_code == 403
        assert ask("/plain/function", method="POST").status_code == 403


def test_login_is_required_on_public_views_only(ask: Ask) -> None:
    """LoginRequiredMiddleware finds a token's principal on guarded views, and decides as ever on public ones."""
    login = [*AUTHENTICATION, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
    with override_settings(MIDDLEWARE=[GUARD, *login]):
        assert ask("/plain/function", issuer.token()).json() == {"token": "auth0|alice", "user": "auth0|alice"}
        assert reason(ask("/plain/function")) == "missing_token"
        assert ask("/public/function", issuer.token())["Location"] == "/accounts/login/?next=/public/function"


def test_public_view_keeps_session_user(ask: Ask) -> None:
    """What AuthenticationMiddleware set is there where no token is looked at."""
    with override_settings(MIDDLEWARE=[GUARD, *AUTHENTICATION]):
        assert ask("/public/function", issuer.token()).json() == {"token": None, "user": "AnonymousUser"}


@pytest.mark.parametrize("url", ["/permitted/sync", "/permitted/async"])
def test_principal_has_no_django_permission(ask: Ask, url: str) -> None:
    """permission_required asks `request.user` or `request.auser()` and is told no: the 403 is Django's own."""
    response = ask(url, issuer.token())
    assert (response.status_code, "WWW-Authenticate" in response) == (403, False)


def test_principal_is_what_django_expects_of_a_user() -> None:
    """An authenticated user without a row in a table, who is nobody's staff."""
    user = TokenPrincipal(organizer.validate(issuer.token()))
    assert (user.pk, user.id, user.username, user.get_username(), str(user)) == ("auth0|alice",) * 5
    assert (user.is_authenticated, user.is_active, user.has_perms([])) == (True, True, True)
    denied = (user.is_anonymous, user.is_staff, user.is_superuser, user.has_perm("a.b"), user.has_perms(["a.b"]))
    assert not any((*denied, user.has_module_perms("a"), asyncio.run(user.ahas_perm("a.b"))))
    nobody = TokenPrincipal(organizer.validate(issuer.token(claims={"sub": None})))
    assert (nobody.pk, str(nobody)) == (None, "")


def test_view_refused_half_way_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ATOMIC_REQUESTS a refusal undoes what the view had written, though a decorator catches the exception."""
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE written (number INTEGER)")
        response = ask_wsgi("/writes", issuer.token())
        cursor.execute("SELECT COUNT(*) FROM written")
        assert (reason(response), cursor.fetchone()) == ("insufficient_scope", (0,))
        assert ask_wsgi("/writes", issuer.token("read:contacts delete:contacts")).status_code == 200
        cursor.execute("SELECT COUNT(*) FROM written")
        assert cursor.fetchone() == (1,)
        cursor.execute("DROP TABLE written")


# Sync and async, and whose thread it is.


@pytest.mark.parametrize(
    "middleware",
    [inside("only_sync"), inside("only_async"), inside("only_sync", "only_async"), inside()],
    ids=["sync_inside", "async_inside", "both_inside", "alone"],
)
@pytest.mark.parametrize("outside", [[], ["only_sync"], ["only_async"]], ids=["first", "after_sync", "after_async"])
@pytest.mark.parametrize("kind", PLAIN)
def test_works_among_sync_and_async_middleware(ask: Ask, middleware: list[str], outside: list[str], kind: str) -> None:
    """Django adapts sync to async and back; the token finds its way through each change of thread."""
    names = [f"{__name__}.{name}" for name in outside]
    with override_settings(MIDDLEWARE=[*names, *middleware]):
        assert ask(f"/plain/{kind}", issuer.token()).json()["token"] == "auth0|alice"
        assert reason(ask(f"/plain/{kind}")) == "missing_token"
        for url in ("/by_hand/sync", "/by_hand/async"):
            assert reason(ask(url, issuer.token())) == "insufficient_scope"


def test_asgi_decides_on_the_event_loop() -> None:
    """No request is sent to a thread to be decided about."""
    threads = []

    def is_revoked(token: AccessToken) -> bool:
        threads.append(threading.current_thread())
        return False

    server = ResourceServer(issuer=issuer.url, audience="organize", jwks=issuer.jwks(), is_revoked=is_revoked)
    with override_settings(TOKEN_GUARD={"RESOURCE_SERVER": server}):
        assert ask_asgi("/plain/async", issuer.token()).status_code == 200
        assert ask_asgi("/nowhere", issuer.token()).status_code == 404
    assert threads == [threading.current_thread()] * 2


def test_cell_of_an_outer_guard_is_restored(ask: Ask) -> None:
    """A project behind another guard leaves that guard's cell as it was."""
    outer = RequestCell(str)
    before = current_cell.set(outer)
    try:
        assert ask("/plain/function", issuer.token()).status_code == 200
        assert current_cell.get() is outer
    finally:
        current_cell.reset(before)


def test_reused_wsgi_thread_never_sees_the_last_token() -> None:
    """One thread serves admitted, refused, failing and public requests over a real socket."""
    application = get_wsgi_application()
    cells = []

    def recording(environ: Any, start_response: Any) -> Any:
        cells.append(current_cell.get())
        try:
            return application(environ, start_response)
        finally:
            cells.append(current_cell.get())

    asked = [("/plain/function", 200), ("/fails/sync", 500), ("/by_hand/async", 403), ("/public/asks", 401)]
    with served(recording) as url, httpx.Client(base_url=url) as http:
        http.headers["Authorization"] = f"Bearer {issuer.token()}"
        assert [(path, http.get(path).status_code) for path, _ in asked] == asked
        twice = http.get("/plain/function", headers=[("Authorization", "Bearer a"), ("Authorization", "Bearer b")])
        assert (twice.status_code, twice.json()["reason"]) == (400, "malformed_request")
        assert (http.head("/closed/function").status_code, http.head("/nowhere").content) == (200, b"")
    assert cells == [None] * 14


@contextmanager
def served(application: Any) -> Iterator[str]:
    """Serve a WSGI application from one thread on a free loopback port."""
    server: Any = waitress.server.create_server(application, host="127.0.0.1", port=0, threads=1)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.effective_port}"
    finally:
        with suppress(OSError):  # the server may close its trigger before it was pulled all the way
            server.trigger.pull_trigger(lambda: waitress.wasyncore.close_all(server._map, ignore_all=True))
        thread.join()
        server.task_dispatcher.shutdown()


def test_asgi_application_joins_repeated_authorization_fields() -> None:
    """Two Authorization lines are one field with a comma, whatever server sends them."""
    line = ("Authorization", f"Bearer {issuer.token()}")
    good, twice = asgi("/plain/async", [line], [line, line])
    assert good.json() == {"token": "auth0|alice", "user": "auth0|alice"}
    assert twice.json()["reason"] == "malformed_request"


def asgi(url: str, *headers: list[tuple[str, str]], root_path: str = "") -> list[httpx.Response]:
    """Ask the ASGI application once for each list of header fields."""

    async def ask() -> list[httpx.Response]:
        application: Any = get_asgi_application()
        transport = httpx.ASGITransport(application, root_path=root_path)
        async with httpx.AsyncClient(transport=transport, base_url="http://api.example") as http:
            return [await http.get(url, headers=each) for each in headers]

    return asyncio.run(ask())


# Error trackers.


class Recorder(Transport):
    def __init__(self) -> None:
        super().__init__()
        self.events: list[Any] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        if (event := envelope.get_event()) is not None:
            self.events.append(event)


@pytest.fixture
def sentry() -> Iterator[Recorder]:
    recorder = Recorder()
    sentry_sdk.init(
        dsn="https://key@sentry.example/1",
        transport=recorder,
        integrations=[DjangoIntegration(middleware_spans=True)],
        auto_enabling_integrations=False,
        traces_sample_rate=1.0,
    )
    yield recorder
    sentry_sdk.get_client().close()
    sentry_sdk.get_global_scope().set_client(None)


def test_sentry_records_failures_and_no_refusals(ask: Ask, sentry: Recorder) -> None:
    """A refusal is no error event; a view's own failure is one."""
    for url, token, status in REFUSED:
        assert ask(url, token).status_code == status
    assert sentry.events == []
    assert ask("/fails/sync", issuer.token()).status_code == 500
    assert [event["exception"]["values"][-1]["type"] for event in sentry.events] == ["RuntimeError"]


# Settings and system checks.


def test_guard_is_made_once_and_anew_for_other_settings(ask: Ask) -> None:
    """All requests share one guard; a test's override gets its own."""
    first = guard()
    ask("/plain/function", issuer.token())
    assert guard() is first
    with override_settings(TOKEN_GUARD={**TOKEN_GUARD, "ALLOW_ANONYMOUS": True}):
        assert guard() is not first
        assert guard().resource_server is organizer


def test_settings_describe_a_resource_server() -> None:
    """The names are those of the environment variables, without their prefix."""
    values = {"ISSUER": issuer.url, "AUDIENCE": "organize", "REALM": "contacts", "PUBLIC_PATHS": ["/health"]}
    with override_settings(TOKEN_GUARD=values):
        assert ask_wsgi("/plain/function")["WWW-Authenticate"] == 'Bearer realm="contacts"'
        assert ask_wsgi("/health").status_code == 200


@pytest.mark.parametrize("start", [get_wsgi_application, get_asgi_application])
def test_wrong_setting_is_told_at_start(start: Callable[[], object]) -> None:
    """The server does not start with a setting that cannot work."""
    with (
        override_settings(TOKEN_GUARD={"ISSUER": "https://issuer.example/"}),
        pytest.raises(ConfigurationError, match="TOKEN_GUARD: AUDIENCE is required"),
    ):
        start()


def check_ids() -> list[str]:
    return [message.id for message in run_checks() if message.id and message.id.startswith("token_guard.")]


def test_checks_are_silent_when_all_is_well() -> None:
    """Middleware that only adds headers may come before the guard."""
    with override_settings(MIDDLEWARE=["django.middleware.security.SecurityMiddleware", GUARD, *AUTHENTICATION]):
        assert check_ids() == []


def test_check_finds_missing_middleware() -> None:
    """token_guard.E001; a subclass of the middleware is one."""
    with override_settings(MIDDLEWARE=AUTHENTICATION):
        assert check_ids() == ["token_guard.E001"]
    with override_settings(MIDDLEWARE=[f"{__name__}.OwnMiddleware"]):
        assert check_ids() == []


class OwnMiddleware(TokenGuardMiddleware):
    pass


@pytest.mark.parametrize("value", [None, "https://issuer.example/", {"ISSUER": ""}, {"RESOURCE_SERVER": "no.such"}])
def test_check_finds_wrong_setting(value: object) -> None:
    """token_guard.E002, for a setting that is missing, too."""
    with override_settings(TOKEN_GUARD=value):
        assert check_ids() == ["token_guard.E002"]


@pytest.mark.parametrize(
    "path",
    [
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
        "django.middleware.cache.FetchFromCacheMiddleware",
    ],
)
def test_check_finds_middleware_that_acts_before_the_guard(path: str) -> None:
    """token_guard.W001 for what would refuse, or answer, before the token is checked."""
    with override_settings(MIDDLEWARE=[path, GUARD]):
        assert check_ids() == ["token_guard.W001"]
    with override_settings(MIDDLEWARE=[GUARD, path]):
        assert check_ids() == []


def test_manage_check_prints_errors_with_hints() -> None:
    """What `python manage.py check` says names the fix."""
    told = r"(?s)token_guard.E001.*HINT: Put .*token_guard.E002.*HINT: Set TOKEN_GUARD"
    with override_settings(MIDDLEWARE=[], TOKEN_GUARD=None), pytest.raises(SystemCheckError, match=told):
        call_command("check")
