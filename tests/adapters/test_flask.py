"""The Flask extension: what runs behind the guard, what a refusal becomes, and when the cell is put away."""

import contextvars
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import httpx
import pytest
from a2wsgi import WSGIMiddleware
from flask import (
    Blueprint,
    Flask,
    Response,
    copy_current_request_context,
    g,
    got_request_exception,
    make_response,
    send_file,
    stream_with_context,
)
from flask.views import MethodView, View
from sentry_sdk.integrations.flask import FlaskIntegration
from starlette.testclient import TestClient
from waitress import wasyncore
from waitress.server import create_server
from werkzeug.test import EnvironBuilder, run_wsgi_app

from tests.adapters.applications.error_tracker import recorded_errors
from token_guard import (
    ChallengePolicy,
    ConfigurationError,
    InsufficientScope,
    MissingToken,
    ResourceServer,
    any_of,
    current_access_token,
    public,
    requires,
    requires_scope,
)
from token_guard.guard import Guard, current_cell
from token_guard.testing import LocalIssuer
from token_guard_flask import TokenGuard

ISSUER = LocalIssuer()
ORGANIZER = ResourceServer(
    issuer=ISSUER.url, audience="organize", jwks=ISSUER.jwks(), challenge=ChallengePolicy(expose_reasons=True)
)
READER = {"Authorization": f"Bearer {ISSUER.token('read:contacts', subject='reader')}"}
WRITER = {"Authorization": f"Bearer {ISSUER.token('create:contacts', subject='writer')}"}
JUNK = {"Authorization": "Bearer junk"}
SETTINGS = {"TOKEN_GUARD_ISSUER": ISSUER.url, "TOKEN_GUARD_AUDIENCE": "organize"}


def guarded(name: str = "contacts", **options: Any) -> Flask:
    app = Flask(name)
    TokenGuard(app, ORGANIZER, **options)
    return app


def outcome(response: Any) -> tuple[int, str | None]:
    """Return the status of a response, and the reason if it is one of our refusals."""
    is_ours = response.headers.get("Cache-Control") == "no-store"
    return response.status_code, response.get_json()["reason"] if is_ours else None


def subject() -> str:
    return str(current_access_token().subject)


async def subject_async() -> str:
    return subject()


def fail(*_: object) -> Any:
    raise LookupError("on purpose")


@pytest.fixture(autouse=True)
def _no_cell_is_left() -> Iterator[None]:
    """Whatever a test did: afterwards nobody's cell is left in the thread."""
    yield
    left = current_cell.get()
    current_cell.set(None)
    assert left is None


# Settings


def test_guards_each_application_given_to_init_app() -> None:
    """One extension guards every application that it is given, and leaves the guard in `app.extensions`."""
    extension = TokenGuard(resource_server=ORGANIZER)
    for app in (Flask("contacts"), Flask("calendars")):
        extension.init_app(app)
        guard = app.extensions["token_guard"]
        assert isinstance(guard, Guard)
        assert guard.resource_server is ORGANIZER
        assert outcome(app.test_client().get("/")) == (401, "missing_token")


@pytest.mark.parametrize("named", [ORGANIZER, f"{__name__}.ORGANIZER"], ids=["object", "dotted path"])
def test_takes_resource_server_from_configuration(named: object) -> None:
    """TOKEN_GUARD_* of the configuration take the place of arguments."""
    app = Flask("contacts")
    app.config |= {"TOKEN_GUARD_RESOURCE_SERVER": named, "TOKEN_GUARD_PUBLIC_PATHS": ["/open"]}
    TokenGuard(app)
    client = app.test_client()
    assert outcome(client.get("/closed")) == (401, "missing_token")
    assert outcome(client.get("/open")) == (404, None)


def test_makes_resource_server_from_configuration() -> None:
    """The settings are those of ResourceServer.from_env, and the guard's own."""
    app = Flask("contacts")
    app.config |= {**SETTINGS, "TOKEN_GUARD_REALM": "contacts", "TOKEN_GUARD_ALLOW_ANONYMOUS": True}
    TokenGuard(app)
    client = app.test_client()
    assert client.get("/").status_code == 404
    refused = client.get("/", headers=JUNK)
    assert refused.headers["WWW-Authenticate"].startswith('Bearer realm="contacts", error="invalid_token"')


@pytest.mark.parametrize(
    ("configuration", "arguments", "message"),
    [
        ({}, {}, "TOKEN_GUARD_ISSUER is required"),
        ({**SETTINGS, "TOKEN_GUARD_ISUER": "typo"}, {}, "TOKEN_GUARD_ISUER is not a setting"),
        ({**SETTINGS, "TOKEN_GUARD_PUBLIC_PATHS": "/open"}, {}, "public_paths must be a collection"),
        ({**SETTINGS, "TOKEN_GUARD_RESOURCE_SERVER": ORGANIZER}, {}, "RESOURCE_SERVER and TOKEN_GUARD_AUDIENCE contra"),
        (SETTINGS, {"resource_server": ORGANIZER}, "_AUDIENCE and the argument resource_server contradict .*keep one"),
        ({"TOKEN_GUARD_RESOURCE_SERVER": ORGANIZER}, {"resource_server": ORGANIZER}, "argument resource_server contra"),
        ({**SETTINGS, "TOKEN_GUARD_PUBLIC_PATHS": ["/a"]}, {"public_paths": ["/b"]}, "argument public_paths contradi"),
        ({**SETTINGS, "TOKEN_GUARD_ALLOW_ANONYMOUS": True}, {"allow_anonymous": False}, "argument allow_anonymous co"),
    ],
)
def test_refuses_wrong_settings(configuration: dict[str, Any], arguments: dict[str, Any], message: str) -> None:
    """A wrong setting is told at start-up, by name and with the fix, and the application stays as it was."""
    app = Flask("contacts")
    app.config |= configuration
    with pytest.raises(ConfigurationError, match=message):
        TokenGuard(app, **arguments)
    assert "token_guard" not in app.extensions


@pytest.mark.parametrize(
    "configuration", [{}, {"TOKEN_GUARD_AUDIENCE": "organize"}, {"TOKEN_GUARD_PUBLIC_PATHS": ["/open"]}], ids=str
)
def test_settings_of_the_environment_are_not_those_of_the_application(
    configuration: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flask reads no environment by itself; the error says so, and how to read it."""
    monkeypatch.setenv("TOKEN_GUARD_ISSUER", ISSUER.url)
    monkeypatch.setenv("TOKEN_GUARD_AUDIENCE", "organize")
    app = Flask("contacts")
    app.config |= configuration
    with pytest.raises(ConfigurationError) as told:
        TokenGuard(app)
    assert str(told.value) == (
        "TOKEN_GUARD_ISSUER is in the environment and not in app.config, where TokenGuard(app) looks: say"
        " TokenGuard(app, ResourceServer.from_env())"
    )
    TokenGuard(Flask("contacts"), ResourceServer.from_env())


def test_the_configuration_counts_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in app.config is all that there is."""
    monkeypatch.setenv("TOKEN_GUARD_ISSUER", "https://other.example/")
    app = Flask("contacts")
    app.config |= SETTINGS
    TokenGuard(app)
    assert app.extensions["token_guard"].resource_server.health()[0].issuer == SETTINGS["TOKEN_GUARD_ISSUER"]


def test_refuses_second_guard() -> None:
    """Two guards around one application would contradict each other."""
    app = guarded()
    with pytest.raises(ConfigurationError, match="'contacts' has a guard already: make one TokenGuard for it"):
        TokenGuard(app, ORGANIZER)


# Closed by default


def test_decides_before_any_code_of_the_application() -> None:
    """What the application runs before its views, even if it was registered before the guard, needs a token, too."""
    app = Flask("contacts")
    seen: list[str] = []
    app.url_value_preprocessor(lambda endpoint, values: seen.append(f"preprocessor for {subject()}"))
    app.before_request(lambda: seen.append(f"before_request for {g.access_token.subject}"))
    TokenGuard(app, ORGANIZER)
    client = app.test_client()
    assert outcome(client.get("/")) == (401, "missing_token")
    assert seen == []
    assert outcome(client.get("/", headers=READER)) == (404, None)
    assert seen == ["preprocessor for reader", "before_request for reader"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/contacts", 200),
        ("HEAD", "/contacts", 200),
        ("POST", "/contacts", 405),
        ("OPTIONS", "/contacts", 200),
        ("GET", "/unknown", 404),
        ("GET", "/static/contact.txt", 200),
    ],
)
def test_closes_every_path_and_method(method: str, path: str, status: int, tmp_path: Path) -> None:
    """Unknown paths, wrong methods, static files and plain OPTIONS need a token, and are Flask's as ever with one."""
    (tmp_path / "contact.txt").write_text("Alice")
    app = Flask("contacts", static_folder=tmp_path, static_url_path="/static")
    app.add_url_rule("/contacts", view_func=subject)
    TokenGuard(app, ORGANIZER)
    client = app.test_client()
    with client.open(path, method=method, headers=READER) as answered:
        assert outcome(answered) == (status, None)
    refused = client.open(path, method=method)
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"] == 'Bearer realm="api"'


def test_lets_preflight_pass() -> None:
    """A CORS preflight carries no credentials (BEARER-16)."""
    app = guarded()
    app.add_url_rule("/contacts", view_func=subject)
    preflight = {"Origin": "https://app.example", "Access-Control-Request-Method": "GET"}
    assert app.test_client().options("/contacts", headers=preflight).status_code == 200
    assert outcome(app.test_client().get("/contacts", headers=preflight)) == (401, "missing_token")


def test_compares_public_paths_with_the_path_that_the_router_sees() -> None:
    """Exact paths and prefixes are open, static files among them; nothing is normalised (design, section 4)."""
    app = guarded(public_paths=["/health", "/static/*"])
    app.add_url_rule("/health", view_func=lambda: {"token": g.access_token})
    client = app.test_client()
    assert client.get("/health", headers=JUNK).get_json() == {"token": None}
    assert client.get("/health", base_url="http://localhost/mounted").status_code == 200
    assert outcome(client.get("/static/none.css")) == (404, None)
    for path in ("/health/", "/Health", "/x/../health", "/static", "/staticfiles"):
        assert outcome(client.get(path)) == (401, "missing_token"), path


def test_lets_anonymous_in_but_checks_a_token_that_is_sent() -> None:
    """With allow_anonymous only `requires_scope` closes a view, and a bad token stays bad."""
    app = guarded(allow_anonymous=True)
    app.add_url_rule("/open", view_func=lambda: {"token": g.access_token})
    app.add_url_rule("/closed", view_func=requires_scope("read:contacts")(subject))
    client = app.test_client()
    assert client.get("/open").get_json() == {"token": None}
    assert outcome(client.get("/open", headers=JUNK)) == (401, "malformed")
    assert outcome(client.get("/closed")) == (401, "missing_token")
    assert client.get("/closed", headers=READER).text == "reader"


def test_takes_repeated_authorization_lines_as_one() -> None:
    """WSGI joins repeated lines with a comma, and two tokens are none (BEARER-08)."""
    environ = EnvironBuilder("/").get_environ() | {"HTTP_AUTHORIZATION": "Bearer a,Bearer b"}
    assert outcome(guarded().test_client().open(environ)) == (400, "malformed_request")


def test_answers_503_while_keys_are_unavailable() -> None:
    """What cannot be checked is no judgement on the token."""
    transport = ISSUER.transport()
    transport.failing = True
    app = Flask("contacts")
    unreachable = ResourceServer(issuer=ISSUER.url, audience="organize", transport=transport)
    TokenGuard(app, unreachable)
    refused = app.test_client().get("/", headers=READER)
    unreachable.close()
    assert refused.status_code == 503
    assert refused.get_json()["error"] == "temporarily_unavailable"
    assert refused.headers["Retry-After"] == "1"
    assert "WWW-Authenticate" not in refused.headers


# Views


class PublicView(View):
    def dispatch_request(self) -> dict[str, object]:
        return {"token": g.access_token}


class HalfPublic(MethodView):
    @public
    def get(self) -> dict[str, object]:
        return {"token": g.access_token}

    async def post(self) -> str:
        return subject()


class DecoratedView(PublicView):
    decorators = [public]  # noqa: RUF012


def open_view() -> dict[str, object]:
    return {"token": g.access_token}


async def open_view_async() -> dict[str, object]:
    return open_view()


@pytest.mark.parametrize(
    "view",
    [
        public(open_view),
        public(open_view_async),
        public(type("Marked", (PublicView,), {})).as_view("marked"),  # type: ignore[attr-defined]
        DecoratedView.as_view("decorated"),
        HalfPublic.as_view("half"),
    ],
    ids=["function", "async function", "class", "decorators", "method"],
)
def test_does_not_look_at_token_of_public_view(view: Callable[..., Any]) -> None:
    """`@public` opens functions, view classes and single methods, whatever token is sent; HEAD is public as GET is."""
    app = guarded()
    app.add_url_rule("/", view_func=view)
    client = app.test_client()
    for headers in ({}, JUNK, READER):
        assert client.get("/", headers=headers).get_json() == {"token": None}
        assert client.head("/", headers=headers).status_code == 200


def test_public_method_leaves_others_closed() -> None:
    """One public handler of a class does not open the others, nor a method that the class does not have."""
    app = guarded()
    app.add_url_rule("/", view_func=HalfPublic.as_view("half"))
    client = app.test_client()
    for method in ("POST", "OPTIONS", "DELETE"):
        assert outcome(client.open("/", method=method)) == (401, "missing_token")
    assert client.post("/", headers=WRITER).text == "writer"


needs_read = requires_scope("read:contacts")


class Method(MethodView):
    @needs_read
    def get(self) -> str:
        return subject()


class AsyncMethod(MethodView):
    @needs_read
    async def get(self) -> str:
        return subject()


@needs_read
class Class(MethodView):
    async def get(self) -> str:
        return subject()


@needs_read
class AsyncClass(View):
    async def dispatch_request(self) -> str:  # type: ignore[override]  # Flask awaits it all the same
        return subject()


class Decorators(MethodView):
    decorators = [requires(any_of("read:contacts", "read:all"))]  # noqa: RUF012

    def get(self) -> str:
        return subject()


GUARDED_VIEWS: dict[str, Callable[..., Any]] = {
    "function": needs_read(subject),
    "async": needs_read(subject_async),
    "method": Method.as_view("method"),
    "async-method": AsyncMethod.as_view("async-method"),
    "class": Class.as_view("class"),
    "async-class": AsyncClass.as_view("async-class"),
    "decorators": Decorators.as_view("decorators"),
}


@pytest.mark.parametrize("kind", GUARDED_VIEWS)
def test_guards_views_of_every_kind(kind: str) -> None:
    """`requires` closes functions, methods, view classes and `decorators`, sync and async, in nested blueprints too."""
    inner, outer, app = Blueprint("inner", __name__), Blueprint("outer", __name__), guarded()
    inner.add_url_rule("/", view_func=GUARDED_VIEWS[kind])
    outer.register_blueprint(inner, url_prefix="/inner")
    app.register_blueprint(outer, url_prefix="/outer")
    client = app.test_client()
    assert client.get("/outer/inner/", headers=READER).text == "reader"
    refused = client.get("/outer/inner/", headers=WRITER)
    assert outcome(refused) == (403, "insufficient_scope")
    assert 'scope="read:contacts"' in refused.headers["WWW-Authenticate"]


@pytest.mark.parametrize("view", [subject, subject_async], ids=["sync", "async"])
def test_view_without_guard_never_runs(view: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    """A guard that is missing is a 500 whose cause is in the log, never a 200."""
    app = Flask("contacts")
    app.add_url_rule("/", view_func=needs_read(view))
    assert app.test_client().get("/", headers=READER).status_code == 500
    [record] = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ConfigurationError)
    assert "extension (Flask)" in str(record.exc_info[1])


# A refusal is an ordinary answer


def require_by_hand() -> str:
    current_access_token().require("read:contacts")
    return "unreachable"


async def require_by_hand_async() -> str:
    return require_by_hand()


def swallow() -> str:
    try:
        return require_by_hand()
    except InsufficientScope:
        return "swallowed"


def raise_another() -> str:
    try:
        return require_by_hand()
    except InsufficientScope as error:
        raise LookupError("on purpose") from error


class Application:
    """An application that refuses in every way that there is, and that has handlers for everything in `caught`."""

    def __init__(self, *caught: Any, **configuration: object) -> None:
        self.errors: list[Exception] = []
        self.app = guarded(public_paths=["/public/*"])
        self.app.config |= configuration
        blueprints = {name: Blueprint(name, __name__) for name in ("contacts", "before", "after", "handler")}
        views: dict[str, Callable[..., Any]] = {"hand": require_by_hand, "async-hand": require_by_hand_async}
        for name, view in {**GUARDED_VIEWS, **views}.items():
            blueprints["contacts"].add_url_rule(f"/{name}", name, view)
        blueprints["contacts"].add_url_rule("/public/hand", view_func=subject)
        blueprints["before"].add_url_rule("/before", view_func=subject)
        blueprints["before"].before_request(require_by_hand)
        blueprints["after"].add_url_rule("/after", view_func=subject)
        blueprints["after"].after_request(lambda response: Response(require_by_hand()))
        blueprints["handler"].add_url_rule("/handler", view_func=fail)
        blueprints["handler"].register_error_handler(LookupError, lambda error: require_by_hand())
        for blueprint in blueprints.values():
            for error in caught:
                self.app.register_error_handler(error, self.handle)
                blueprint.register_error_handler(error, self.handle)
            self.app.register_blueprint(blueprint)
        got_request_exception.connect(self.note, self.app)

    def handle(self, error: Exception) -> tuple[str, int]:
        self.errors.append(error)
        return "caught", 500

    def note(self, sender: Flask, exception: Exception, **_: object) -> None:
        self.errors.append(exception)


WAYS = {
    "/unknown": ({}, 401, "missing_token"),
    "/function": (JUNK, 401, "malformed"),
    **{f"/{name}": (WRITER, 403, "insufficient_scope") for name in GUARDED_VIEWS},
    "/hand": (WRITER, 403, "insufficient_scope"),
    "/async-hand": (WRITER, 403, "insufficient_scope"),
    "/public/hand": ({}, 401, "missing_token"),
    "/before": (WRITER, 403, "insufficient_scope"),
    "/after": (WRITER, 403, "insufficient_scope"),
    "/handler": (WRITER, 403, "insufficient_scope"),
}


@pytest.mark.parametrize("mode", ["PROPAGATE_EXCEPTIONS", "TESTING", "DEBUG", "TRAP_HTTP_EXCEPTIONS"])
@pytest.mark.parametrize("caught", [(), (Exception,), (401, 403, 500), (InsufficientScope, MissingToken)])
def test_refusal_is_an_ordinary_answer(mode: str, caught: tuple[Any, ...], caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the application catches, in every mode of Flask: our answer, no handler, no signal, no error logged."""
    application = Application(*caught, **{mode: True})
    client = application.app.test_client()
    for path, (headers, status, reason) in WAYS.items():
        assert outcome(client.get(path, headers=headers)) == (status, reason), path
    assert application.errors == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_error_tracker_sees_no_refusal() -> None:
    """A refusal is no event for the error tracker's integration; a view that fails on its own is one."""
    with recorded_errors(FlaskIntegration()) as errors:
        application = Application()
        application.app.add_url_rule("/fails", view_func=fail)
        client = application.app.test_client()
        for path, (headers, _, _) in WAYS.items():
            client.get(path, headers=headers)
        assert errors == []
        assert client.get("/fails", headers=READER).status_code == 500
        assert ["LookupError" in str(error) for error in errors] == [True]


@pytest.mark.parametrize("debug", [False, True])
def test_view_that_fails_on_its_own_stays_its_own(debug: bool) -> None:
    """An error that is no refusal goes where it went before: to a 500 and its signal, in debug mode to the debugger."""
    application = Application(DEBUG=debug)
    application.app.add_url_rule("/fails", view_func=fail)
    client = application.app.test_client()
    if debug:
        with pytest.raises(LookupError, match="on purpose"):
            client.get("/fails", headers=READER)
    else:
        assert outcome(client.get("/fails", headers=READER)) == (500, None)
    assert [type(error) for error in application.errors] == [LookupError]


def test_sends_our_headers_and_nothing_else() -> None:
    """Werkzeug neither rewrites the challenge nor adds a charset; HEAD has the headers of GET and no body (CHAL-05)."""
    app = guarded()
    app.add_url_rule("/", view_func=needs_read(subject))
    expected = ORGANIZER.challenge(needs_more())
    for method, body in (("GET", expected.body), ("HEAD", b"")):
        environ = EnvironBuilder("/", method=method, headers=WRITER.items()).get_environ()
        pieces, status, headers = run_wsgi_app(app, environ, buffered=True)
        assert status == "403 FORBIDDEN"
        assert list(headers) == [*expected.headers, ("Content-Length", str(len(expected.body)))]
        assert b"".join(pieces) == body


def needs_more() -> InsufficientScope:
    with pytest.raises(InsufficientScope) as caught:
        ORGANIZER.validate(WRITER["Authorization"].removeprefix("Bearer ")).require("read:contacts")
    return caught.value


@pytest.mark.parametrize("view", [swallow, raise_another])
def test_replaces_whatever_a_view_made_of_a_refusal(view: Callable[[], str]) -> None:
    """A refusal that a view catches by itself is the answer all the same."""
    app = guarded()
    app.register_error_handler(LookupError, lambda error: ("caught", 404))
    app.add_url_rule("/", view_func=view)
    assert outcome(app.test_client().get("/", headers=WRITER)) == (403, "insufficient_scope")


def test_closes_response_that_it_replaces() -> None:
    """A response that is not sent gives back what it holds."""
    app = guarded()
    closed: list[str] = []

    def view() -> Response:
        response = Response(swallow())
        response.call_on_close(lambda: closed.append("closed"))
        return response

    app.add_url_rule("/", view_func=view)
    assert outcome(app.test_client().get("/", headers=WRITER)) == (403, "insufficient_scope")
    assert closed == ["closed"]


def test_leaves_what_others_add_to_a_refusal() -> None:
    """Decorators and `after_request` functions, CORS above all, add their headers to a refusal as to any response."""
    app = guarded()

    @app.after_request
    def allow_origin(response: Response) -> Response:
        response.headers["Access-Control-Allow-Origin"] = "https://app.example"
        return response

    def view() -> Response:
        response = make_response(needs_read(subject)())
        response.headers["X-Version"] = "1"
        return response

    app.add_url_rule("/", view_func=view)
    client = app.test_client()
    for headers, expected in (({}, (401, "missing_token", None)), (WRITER, (403, "insufficient_scope", "1"))):
        refused = client.get("/", headers=headers)
        assert (*outcome(refused), refused.headers.get("X-Version")) == expected
        assert refused.headers["Access-Control-Allow-Origin"] == "https://app.example"


def test_answers_although_after_request_function_fails(caplog: pytest.LogCaptureFixture) -> None:
    """An `after_request` function that needs what a `before_request` function makes does not turn a 401 into a 500."""
    app = guarded()
    app.before_request(lambda: setattr(g, "started", 0))
    app.after_request(lambda response: Response(g.started))
    assert outcome(app.test_client().get("/")) == (401, "missing_token")
    [record] = [record for record in caplog.records if record.name == "contacts"]
    assert (record.levelname, vars(record)["event"]) == ("WARNING", "after_request_failed")
    assert "failed on a refused request" in record.getMessage()


def test_makes_refusal_a_response_of_the_application() -> None:
    """Where the application has a response class of its own, its `after_request` functions get one of it."""

    class HouseResponse(Response):
        def stamp(self) -> "HouseResponse":
            self.headers["X-House"] = "organizer"
            return self

    app = guarded()
    app.response_class = HouseResponse
    app.after_request(lambda response: cast(HouseResponse, response).stamp())
    app.add_url_rule("/", view_func=swallow)
    client = app.test_client()
    for headers, expected in (({}, (401, "missing_token")), (WRITER, (403, "insufficient_scope"))):
        refused = client.get("/", headers=headers)
        assert outcome(refused) == expected
        assert refused.headers["X-House"] == "organizer"


# The cell is put away on every path; a fixture looks after each test whether it was


@pytest.mark.parametrize("place", ["before_request", "after_request", "teardown_request", "view"])
def test_puts_cell_away_when_application_fails(place: str) -> None:
    """Code of the application that fails, even while the request is torn down, does not leave the caller's cell."""
    app = guarded()
    app.testing = True
    if place == "view":
        app.add_url_rule("/", view_func=fail)
    else:
        getattr(app, place)(fail)
    with pytest.raises(LookupError, match="on purpose"):
        app.test_client().get("/", headers=READER)
    assert current_cell.get() is None


@pytest.mark.parametrize("name", ["contacts", "calendars"])
def test_request_inside_a_request_restores_the_outer_one(name: str) -> None:
    """A view that sends a request, to its own application or to another, has its own token again afterwards."""
    app = guarded()
    inner = app if name == "contacts" else guarded(name)

    @app.get("/outer")
    def outer() -> list[str]:
        with app.test_request_context("/"):
            pass
        answers = [inner.test_client().get("/inner", headers=headers) for headers in (WRITER, JUNK)]
        assert [response.status_code for response in answers] == [200, 401]
        return [answers[0].text, subject(), g.access_token.subject]

    inner.add_url_rule("/inner", view_func=subject)
    assert app.test_client().get("/outer", headers=READER).get_json() == ["writer", "reader", "reader"]


def test_copied_context_leaves_the_request_its_cell() -> None:
    """A function that runs with a copy of the request, in another thread or in the same one, does not end it."""
    app = guarded()

    @app.get("/")
    def view() -> list[str]:
        seen: list[object] = []
        function = copy_current_request_context(lambda: seen.append(current_cell.get()))
        thread = threading.Thread(target=function)
        thread.start()
        thread.join()
        copy_current_request_context(subject)()
        return [str(seen), subject()]

    assert app.test_client().get("/", headers=READER).get_json() == ["[None]", "reader"]


def test_guards_request_that_is_made_by_hand() -> None:
    """A request context pushed by hand, as in a shell, has its cell from `preprocess_request` to its end."""
    app = guarded()
    app.add_url_rule("/", view_func=needs_read(subject))
    with app.test_request_context("/", headers=READER):
        assert app.preprocess_request() is None
        assert app.full_dispatch_request().get_data(as_text=True) == "reader"
        with app.test_request_context("/", headers=WRITER):
            assert app.preprocess_request() is None
            assert [subject(), g.access_token.subject] == ["writer", "writer"]
        with app.test_request_context("/"):
            pass
        assert [subject(), g.access_token.subject] == ["reader", "reader"]
    assert current_cell.get() is None
    with app.test_request_context("/"):
        assert app.full_dispatch_request().status_code == 401


def test_ends_request_made_by_hand_although_its_teardown_fails() -> None:
    """A teardown function that fails keeps no cell, not even in a shell."""
    app = guarded()
    app.teardown_request(fail)
    context = app.test_request_context("/", headers=READER)
    context.push()
    app.preprocess_request()
    with pytest.raises(LookupError, match="on purpose"):
        context.pop()
    assert current_cell.get() is None


def test_client_with_preserved_context_sees_the_token() -> None:
    """Flask's way to look into a request from a test: `g` is kept while the client's block lasts, the cell is not."""
    app = guarded()
    app.add_url_rule("/", view_func=subject)
    with app.test_client() as client:
        client.get("/", headers=READER)
        assert g.access_token.subject == "reader"
        assert current_cell.get() is None


@pytest.mark.parametrize("with_context", [False, True])
def test_streamed_body_is_made_with_the_cell(with_context: bool) -> None:
    """A stream goes on after the request was torn down, with its token; between two pieces the thread is free of it."""
    app = guarded()
    closed: list[str] = []

    @app.get("/")
    def view() -> Response:
        def pieces() -> Iterator[str]:
            try:
                yield subject()
                yield g.access_token.subject if with_context else subject()
            finally:
                closed.append("closed")

        return Response(stream_with_context(pieces()) if with_context else pieces())

    body, status, _ = run_wsgi_app(app, EnvironBuilder("/", headers=READER.items()).get_environ())
    stream = iter(body)
    assert status == "200 OK"
    assert next(stream) == b"reader"
    assert current_cell.get() is None
    assert list(stream) == [b"reader"]
    assert closed == ["closed"]


def test_stream_can_send_a_request() -> None:
    """A stream that asks its own application for something has its own token again afterwards."""
    app = guarded()
    app.add_url_rule("/inner", view_func=subject)

    @app.get("/")
    def view() -> Iterator[str]:
        yield app.test_client().get("/inner", headers=WRITER).text
        yield subject()

    assert app.test_client().get("/", headers=READER).text == "writerreader"


def test_closes_streamed_body_that_nobody_reads() -> None:
    """A HEAD request closes the body of the stream as ever (PEP 3333)."""

    class Body:
        closed = False

        def __iter__(self) -> Iterator[bytes]:
            return iter([b"contact"])

        def close(self) -> None:
            self.closed = True

    app, body = guarded(), Body()
    app.add_url_rule("/", view_func=lambda: Response(body))
    with app.test_client().head("/", headers=READER) as response:
        assert response.status_code == 200
    assert body.closed


def test_leaves_files_to_the_server(tmp_path: Path) -> None:
    """A file reaches the server as the wrapper that the server itself provided (PEP 3333, `wsgi.file_wrapper`)."""

    class Wrapper:
        def __init__(self, file: BinaryIO, size: int) -> None:
            file.close()

        def __iter__(self) -> Iterator[bytes]:
            return iter([])

    (tmp_path / "contact.txt").write_text("Alice")
    app = guarded()
    app.add_url_rule("/", view_func=lambda: send_file(tmp_path / "contact.txt"))
    environ = EnvironBuilder("/", headers=READER.items()).get_environ() | {"wsgi.file_wrapper": Wrapper}
    assert isinstance(app(environ, lambda *_: lambda piece: None), Wrapper)


def test_cell_stays_in_its_context() -> None:
    """A request that runs in a context of its own, as an ASGI gateway runs it, leaves no cell there either."""
    app = guarded()
    app.add_url_rule("/", view_func=subject_async)
    context = contextvars.copy_context()
    assert context.run(app.test_client().get, "/", headers=READER).text == "reader"
    assert context.get(current_cell) is None


# Servers


@pytest.fixture
def served() -> Iterator[tuple[str, list[tuple[int, object]]]]:
    """An application on a loopback port with two threads, and what each thread held when a request came in."""
    app, seen = guarded(), list[tuple[int, object]]()
    app.add_url_rule("/", view_func=subject)
    app.add_url_rule("/async", view_func=subject_async)
    app.add_url_rule("/public", view_func=public(lambda: str(g.access_token)), endpoint="public")

    def watched(environ: Any, start_response: Any) -> Any:
        seen.append((threading.get_ident(), current_cell.get()))
        return app(environ, start_response)

    sockets: dict[int, Any] = {}
    server: Any = create_server(watched, host="127.0.0.1", port=0, threads=2, map=sockets)
    thread = threading.Thread(target=server.run)
    thread.start()
    yield f"http://127.0.0.1:{server.effective_port}", seen
    with suppress(OSError):  # the server may close its trigger before it was pulled all the way
        server.trigger.pull_trigger(lambda: wasyncore.close_all(sockets))
    thread.join()
    server.task_dispatcher.shutdown()


def test_reused_thread_never_sees_the_last_caller(served: tuple[str, list[tuple[int, object]]]) -> None:
    """Many callers share the threads of a server, and each request begins with nobody's token."""
    url, seen = served
    tokens = [ISSUER.token(subject=f"caller {number}") for number in range(8)]
    with httpx.Client(base_url=url) as client:
        for number, token in enumerate(tokens):
            headers = {"Authorization": f"Bearer {token}"}
            assert client.get("/", headers=headers).text == f"caller {number}"
            assert client.get("/async", headers=headers).text == f"caller {number}"
            assert client.get("/public").text == "None"
            assert client.get("/").status_code == 401
    threads, cells = zip(*seen, strict=True)
    assert set(cells) == {None}
    assert len(set(threads)) <= 2 < len(threads)


def test_works_behind_an_asgi_gateway() -> None:
    """Through a2wsgi: sync and async views, refusals, and repeated Authorization lines, which it joins by a comma."""
    app = guarded()
    app.add_url_rule("/", view_func=needs_read(subject))
    app.add_url_rule("/async", view_func=needs_read(subject_async))
    client = TestClient(WSGIMiddleware(app))  # type: ignore[arg-type]  # a2wsgi types WSGI its own way
    for path in ("/", "/async"):
        assert client.get(path, headers=READER).text == "reader"
        assert client.get(path, headers=WRITER).json()["reason"] == "insufficient_scope"
        assert client.get(path).json()["reason"] == "missing_token"
        twice = client.get(path, headers=[*READER.items(), *READER.items()])
        assert (twice.status_code, twice.json()["reason"]) == (400, "malformed_request")
