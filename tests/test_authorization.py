"""The one decorator for all frameworks, without any framework: a cell made by hand stands around the view."""

import functools
import inspect
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from token_guard import (
    AccessToken,
    ConfigurationError,
    InsufficientScope,
    InvalidToken,
    MissingToken,
    Reason,
    TemporarilyUnavailable,
    any_of,
    current_access_token,
    permission,
    public,
    requires,
    requires_scope,
    scope,
    user_only,
)
from token_guard.authorization import MARKER, is_public
from token_guard.claims import ClaimPolicy
from token_guard.request import Access, Refusal, RequestCell, current_cell

RAW = "header.payload.signature"
CLAIMS: dict[str, Any] = {"iss": "https://issuer.example/", "sub": "alice", "azp": "spa", "exp": 1}
POLICY = ClaimPolicy(
    issuer="https://issuer.example/",
    audiences=frozenset({"organize"}),
    profile="generic",
    leeway=0,
    scope_claims=("scope",),
)

Render = tuple[int, Reason]


def render(refusal: Refusal) -> Render:
    """What stands for the framework's response."""
    return refusal.status, refusal.reason


def access_token(*scopes: str, **claims: object) -> AccessToken:
    return AccessToken({**CLAIMS, "scope": " ".join(scopes), **claims}, POLICY)


def admitted(*scopes: str, **claims: object) -> RequestCell:
    cell = RequestCell(render)
    cell.admit(access_token(*scopes, **claims), RAW)
    return cell


def opened(access: Access) -> RequestCell:
    cell = RequestCell(render)
    cell.access = access
    return cell


def refused(error: Refusal) -> RequestCell:
    cell = RequestCell(render)
    cell.refuse(error)
    return cell


@contextmanager
def around(cell: RequestCell | None) -> Iterator[None]:
    """Do what an adapter does around a handler."""
    before = current_cell.set(cell)
    try:
        yield
    finally:
        current_cell.reset(before)


# Views of every kind that does its work when it is called: sync and async, plain and as a method.


def plain(ran: list[str]) -> Callable[[], Any]:
    return lambda: ran.append("view") or "answer"  # type: ignore[func-returns-value]


def asynchronous(ran: list[str]) -> Callable[[], Any]:
    async def view() -> str:
        ran.append("view")
        return "answer"

    return view


def returning_a_coroutine(ran: list[str]) -> Callable[[], Any]:
    return lambda: asynchronous(ran)()


def method(ran: list[str]) -> Callable[[], Any]:
    class Handler:
        def view(self) -> Any:
            return plain(ran)()

    return Handler().view


def partial_of_a_method(ran: list[str]) -> Callable[[], Any]:
    return functools.partial(method(ran))


VIEWS = [plain, asynchronous, returning_a_coroutine, method, partial_of_a_method]


def call(view: Callable[[], Any], cell: RequestCell | None) -> Any:
    """Call the view as a framework does, and await its answer where it has to be awaited."""

    async def awaited(answer: Awaitable[Any]) -> Any:
        return await answer

    with around(cell):
        answer = view()
        return anyio.run(awaited, answer) if inspect.isawaitable(answer) else answer


@pytest.mark.parametrize("kind", VIEWS)
def test_a_view_runs_when_its_requirement_is_met(kind: Callable[[list[str]], Callable[[], Any]]) -> None:
    """SCOPE-08: the handler's own answer comes back."""
    ran: list[str] = []
    assert call(requires_scope("read:contacts")(kind(ran)), admitted("read:contacts")) == "answer"
    assert ran == ["view"]


CELLS: list[tuple[Callable[[], RequestCell], Render]] = [
    (lambda: admitted("read:calendar"), (403, Reason.INSUFFICIENT_SCOPE)),
    (lambda: opened(Access.PUBLIC), (401, Reason.MISSING_TOKEN)),
    (lambda: opened(Access.ANONYMOUS), (401, Reason.MISSING_TOKEN)),
    (lambda: refused(MissingToken()), (401, Reason.MISSING_TOKEN)),
    (lambda: refused(TemporarilyUnavailable()), (503, Reason.KEYS_UNAVAILABLE)),
]


@pytest.mark.parametrize("kind", VIEWS)
@pytest.mark.parametrize(("make_cell", "answer"), CELLS)
def test_a_view_does_not_run_when_its_requirement_is_not_met(
    kind: Callable[[list[str]], Callable[[], Any]], make_cell: Callable[[], RequestCell], answer: Render
) -> None:
    """SCOPE-07: authentication is decided first; the refusal is rendered, and is the request's answer from then on."""
    ran: list[str] = []
    cell = make_cell()
    pending = call(requires_scope("read:contacts")(kind(ran)), cell)
    assert pending == answer
    assert cell.refusal is not None
    assert render(cell.refusal) == answer
    assert not ran


@pytest.mark.parametrize("kind", VIEWS)
@pytest.mark.parametrize("cell", [None, RequestCell(render)], ids=["no guard", "an undecided guard"])
def test_a_view_without_a_guard_never_runs(
    kind: Callable[[list[str]], Callable[[], Any]], cell: RequestCell | None
) -> None:
    """Closed by default: a forgotten guard is a configuration error that names the fix, never a 200."""
    ran: list[str] = []
    with pytest.raises(ConfigurationError, match="put the Token Guard middleware"):
        call(requires_scope("read:contacts")(kind(ran)), cell)
    assert not ran


@pytest.mark.parametrize("kind", VIEWS)
def test_requires_nothing_but_a_token(kind: Callable[[list[str]], Callable[[], Any]]) -> None:
    """SCOPE-08: an empty requirement means a valid token, and a public request has none."""
    assert call(requires()(kind([])), admitted()) == "answer"
    assert call(requires()(kind([])), opened(Access.PUBLIC)) == (401, Reason.MISSING_TOKEN)


def test_requires_scope_needs_one() -> None:
    """SCOPE-03: one that was forgotten would let every token in."""
    with pytest.raises(ConfigurationError) as refused:
        requires_scope()
    assert str(refused.value) == "requires_scope needs a scope; requires() demands a valid token and nothing more"


def test_requirements_of_every_kind_are_demanded() -> None:
    """SCOPE-08: `requires` takes what `token.require` takes, and all that are written count."""
    rule = requires(any_of(scope("read:contacts"), permission("contacts.read")), user_only)
    assert call(rule(plain([])), admitted("read:contacts")) == "answer"
    assert call(rule(plain([])), admitted(permissions=["contacts.read"])) == "answer"
    assert call(rule(plain([])), admitted("read:contacts", sub="spa")) == (403, Reason.INSUFFICIENT_PERMISSION)
    assert call(rule(plain([])), admitted()) == (403, Reason.INSUFFICIENT_SCOPE)


def test_a_refusal_raised_inside_the_view_is_its_answer() -> None:
    """A demand made by hand ends in the same answer as the decorator's, sync and async."""

    def view() -> str:
        current_access_token().require("delete:contacts")
        return "answer"

    async def async_view() -> str:
        return view()

    for each in (view, async_view):
        cell = admitted("read:contacts")
        assert call(requires_scope("read:contacts")(each), cell) == (403, Reason.INSUFFICIENT_SCOPE)
        assert isinstance(cell.refusal, InsufficientScope)
        assert cell.refusal.scope == "delete:contacts"


def test_a_refusal_of_the_view_s_own_is_its_answer() -> None:
    """An application may refuse for reasons that only it knows, sync and async."""

    def view() -> str:
        raise InvalidToken(Reason.REVOKED)

    async def async_view() -> str:
        return view()

    for each in (view, async_view):
        cell = admitted()
        assert call(requires()(each), cell) == (401, Reason.REVOKED)
        assert isinstance(cell.refusal, InvalidToken)


def test_a_refused_generator_raises() -> None:
    """What is streamed has no place for a response: the refusal crosses the framework, sync and async."""

    def view() -> Iterator[str]:
        yield "answer"

    async def async_view() -> AsyncIterator[str]:
        yield "answer"

    for each in (view, async_view):
        cell = opened(Access.PUBLIC)
        with around(cell), pytest.raises(MissingToken, match="the view needs a token: scope a"):
            requires("a")(each)()
        assert isinstance(cell.refusal, MissingToken)


def test_other_errors_of_the_view_are_its_own() -> None:
    """What is no refusal passes through as it is."""

    def view() -> str:
        raise KeyError("bug")

    cell = admitted()
    with pytest.raises(KeyError, match="bug"):
        call(requires()(view), cell)
    assert cell.refusal is None


def test_a_demand_stays_refused_even_if_the_view_catches_it() -> None:
    """The first refusal is the request's answer, whatever the application does afterwards."""
    cell = admitted("read:contacts")
    with around(cell):
        for name in ("delete:contacts", "delete:calendar"):
            with pytest.raises(InsufficientScope):
                current_access_token().require(name)
    assert isinstance(cell.refusal, InsufficientScope)
    assert cell.refusal.scope == "delete:contacts"
    assert call(requires("read:contacts")(plain([])), cell) == (403, Reason.INSUFFICIENT_SCOPE)


def test_a_demand_of_another_token_is_not_the_request_s() -> None:
    """A token that was validated beside the request's own says nothing about the request."""
    cell = admitted()
    with around(cell), pytest.raises(InsufficientScope):
        access_token().require("read:contacts")
    assert cell.refusal is None


def test_the_requirements_of_stacked_decorators_all_count() -> None:
    """Each decorator demands its own, and the marker that a route report reads names them all."""
    view = requires_scope("a")(requires_scope("b")(plain([])))
    assert call(view, admitted("a", "b")) == "answer"
    for scopes in (["a"], ["b"], []):
        assert call(view, admitted(*scopes)) == (403, Reason.INSUFFICIENT_SCOPE)
    requirement = getattr(view, MARKER).requirement
    assert "scope a" in str(requirement)
    assert "scope b" in str(requirement)


def test_knows_an_asynchronous_view_by_what_its_framework_left() -> None:
    """What `as_view()` of an asynchronous Django class makes, and its method as `method_decorator` hands it on."""

    class View:
        view_is_async = True

        def dispatch(self) -> Any:
            return asynchronous([])()

    made = plain([])
    made._is_coroutine = object()  # type: ignore[attr-defined]
    for view in (made, functools.partial(View().dispatch)):
        answer = requires("a")(view)()
        assert inspect.isawaitable(answer)
        assert call(lambda answer=answer: answer, opened(Access.PUBLIC)) == (401, Reason.MISSING_TOKEN)  # type: ignore[misc]


def test_a_guarded_view_looks_like_the_view() -> None:
    """Name, documentation and signature stay, for type checkers and for frameworks that read them."""

    async def view(contact: int, *, depth: str = "full") -> str:
        """Return a contact."""
        return depth

    guarded = requires("read:contacts")(view)
    assert (guarded.__name__, guarded.__doc__) == ("view", "Return a contact.")
    assert inspect.signature(guarded) == inspect.signature(view)
    assert inspect.iscoroutinefunction(guarded)


# View classes.


class DjangoLike:
    """Dispatches as the class-based views of Django do."""

    view_is_async = False

    def dispatch(self, handler: str = "get") -> Any:
        return getattr(self, handler)()

    def get(self) -> Any:
        return "answer"


class FlaskLike:
    """Dispatches as the class-based views of Flask do."""

    def dispatch_request(self) -> Any:
        return "answer"


class StarletteLike:
    """Dispatches as the endpoints of Starlette do."""

    async def dispatch(self) -> Any:
        return "answer"


@pytest.mark.parametrize(
    ("base", "dispatcher"), [(DjangoLike, "dispatch"), (FlaskLike, "dispatch_request"), (StarletteLike, "dispatch")]
)
def test_a_view_class_is_guarded_where_it_dispatches(base: type, dispatcher: str) -> None:
    """The class stays the same class, its base class stays as it was, and a subclass is guarded too."""
    view_class: Any = type("View", (base,), {})
    assert requires("read:contacts")(view_class) is view_class
    subclass: Any = type("Sub", (view_class,), {})
    for each in (view_class, subclass):
        assert call(getattr(each(), dispatcher), admitted("read:contacts")) == "answer"
        assert call(getattr(each(), dispatcher), admitted()) == (403, Reason.INSUFFICIENT_SCOPE)
    assert call(getattr(base(), dispatcher), None) == "answer"


def test_a_refusal_of_an_asynchronous_django_class_can_be_awaited() -> None:
    """Its `dispatch` is a plain function whose answer Django awaits."""

    @requires("read:contacts")
    class View(DjangoLike):
        view_is_async = True

        async def get(self) -> str:
            return "answer"

    with around(admitted()):
        answer = View().dispatch()
        assert inspect.isawaitable(answer)
    assert call(View().dispatch, admitted("read:contacts")) == "answer"

    async def refusal() -> Any:
        return await answer

    assert anyio.run(refusal) == (403, Reason.INSUFFICIENT_SCOPE)


# What cannot be decorated.


@pytest.mark.parametrize(
    "view",
    [
        None,
        "view",
        7,
        pytest.param(object(), id="object"),
        [len],
        pytest.param(property(len), id="property"),
        staticmethod(len),
        classmethod(len),  # type: ignore[arg-type]
        functools.partial(object),
    ],
    ids=repr,
)
@pytest.mark.parametrize("decorate", [requires(), public], ids=["requires", "public"])
def test_refuses_to_decorate_what_is_no_view(decorate: Callable[[Any], Any], view: object) -> None:
    """Functions, methods and view classes; anything else would be guarded only in appearance."""
    with pytest.raises(TypeError, match=f"a function, a method or a view class, not {type(view).__name__}$"):
        decorate(view)


def test_refuses_a_class_that_does_not_dispatch() -> None:
    """A class without `dispatch` or `dispatch_request` has no place for the check."""
    with pytest.raises(TypeError, match="dispatch"):
        requires("a")(type("Plain", (), {}))


@pytest.mark.parametrize(
    "requirement", ["", "a b", 'a"b', "é", None, 7, ["a"], pytest.param(plain([]), id="view")], ids=repr
)
def test_refuses_what_is_no_requirement(requirement: Any) -> None:
    """SCOPE-03: a scope is one name; a decorator without its parentheses is told so at import, not at a request."""
    with pytest.raises(ConfigurationError):
        requires(requirement)


# Public views.


def test_a_public_view_is_itself() -> None:
    """`@public` leaves a marker and no check: without a guard the view runs as well."""
    view = plain([])
    assert public(view) is view
    assert call(view, None) == "answer"


def test_a_method_can_be_public() -> None:
    """A method that is handed to a framework as a view takes the marker too."""

    class Handlers:
        def health(self) -> str:
            return "answer"

    view = public(Handlers().health)
    assert is_public(view, "GET")
    assert call(view, None) == "answer"


@pytest.mark.parametrize("kind", VIEWS[:3])
def test_public_and_a_requirement_contradict_each_other(kind: Callable[[list[str]], Callable[[], Any]]) -> None:
    """Either order is a configuration error: nobody can say which one was meant."""
    with pytest.raises(ConfigurationError, match="@public"):
        public(requires("a")(kind([])))
    with pytest.raises(ConfigurationError, match="@public"):
        requires("a")(public(kind([])))


def test_public_and_a_requirement_contradict_each_other_on_a_class() -> None:
    """The same for a class and for a class with one of its handlers."""

    def handler(self: object) -> str:
        return "answer"

    with pytest.raises(ConfigurationError, match="@public"):
        public(requires("a")(type("View", (DjangoLike,), {})))
    with pytest.raises(ConfigurationError, match="@public"):
        requires("a")(public(type("View", (DjangoLike,), {})))
    with pytest.raises(ConfigurationError, match="@public"):
        requires("a")(type("View", (DjangoLike,), {"get": public(handler)}))


def test_a_public_class_with_a_guarded_handler_is_a_contradiction() -> None:
    """The handler could never be reached: in a public request there is no token to check."""

    def handler(self: object) -> str:
        return "answer"

    with pytest.raises(ConfigurationError, match="@public"):
        public(type("View", (DjangoLike,), {"get": requires("a")(handler)}))


def test_tells_a_public_view_by_view_class_or_handler() -> None:
    """The guard asks in advance: about the view, the class that `as_view()` left, and the handler of this method."""

    def handler(self: object) -> str:
        return "answer"

    def view_of(view_class: type) -> Any:
        view = plain([])
        view.view_class = view_class  # type: ignore[attr-defined]
        return view

    one_handler = view_of(type("View", (DjangoLike,), {"get": public(handler)}))
    assert [is_public(one_handler, method) for method in ("GET", "HEAD", "POST")] == [True, True, False]
    assert is_public(view_of(public(type("View", (DjangoLike,), {}))), "POST")
    assert is_public(public(view_of(DjangoLike)), "GET")
    assert is_public(public(plain([])), "GET")
    assert is_public(view_of(type("View", (DjangoLike,), {"head": public(handler)})), "HEAD")
    view_set = SimpleNamespace(cls=type("ViewSet", (), {"list": public(handler)}), actions={"get": "list"})
    assert [is_public(view_set, method) for method in ("GET", "POST")] == [True, False]
    for closed in (plain([]), requires()(plain([])), view_of(DjangoLike), None, object()):
        assert not is_public(closed, "GET")


# The access token of the request.


def test_a_handler_gets_the_access_token() -> None:
    """The cell's token, and nothing raw."""
    cell = admitted("read:contacts")
    with around(cell):
        assert current_access_token() is cell.token


@pytest.mark.parametrize("access", [Access.PUBLIC, Access.ANONYMOUS])
def test_a_request_without_a_token_has_none_to_give(access: Access) -> None:
    """Never None: asking in a public or anonymous request is a missing token, which does not yet refuse the request."""
    cell = opened(access)
    with around(cell), pytest.raises(MissingToken, match=access):
        current_access_token()
    assert cell.refusal is None


@pytest.mark.parametrize("cell", [None, RequestCell(render)], ids=["no guard", "an undecided guard"])
def test_asking_without_a_guard_is_a_configuration_error(cell: RequestCell | None) -> None:
    """Closed by default: code outside of a guard is told so."""
    with around(cell), pytest.raises(ConfigurationError) as error:
        current_access_token()
    assert str(error.value) == (
        "no guard has decided about this request: put the Token Guard middleware (ASGI, Django) or extension (Flask)"
        " around the application, before anything that asks for the access token:"
        " token_guard_asgi.TokenGuardMiddleware, token_guard_django.TokenGuardMiddleware"
        " or token_guard_flask.TokenGuard. An endpoint of FastAPI may have Security(AccessTokenSecurity(...)) instead"
    )


def test_requests_do_not_see_each_other() -> None:
    """BCP-03: each thread and task sees its own request's token; a reused thread sees none of the last one."""
    ready = threading.Barrier(2)

    def handle(name: str) -> str | None:
        with around(admitted(sub=name)):
            ready.wait(10)
            return current_access_token().subject

    with ThreadPoolExecutor(2) as threads:
        assert sorted(threads.map(handle, ["alice", "bob"]), key=str) == ["alice", "bob"]
        assert list(threads.map(lambda _: current_cell.get(), range(2))) == [None, None]


def test_a_refusal_is_logged_once_and_without_the_token(caplog: pytest.LogCaptureFixture) -> None:
    """BEARER-15: one line per refused request, with its reason as a field."""
    cell = admitted("read:contacts")
    with caplog.at_level(logging.DEBUG, "token_guard"):
        for _ in range(3):
            call(requires("delete:contacts")(plain([])), cell)
    [record] = caplog.records
    assert (record.levelname, vars(record)["reason"]) == ("INFO", Reason.INSUFFICIENT_SCOPE)
    assert RAW not in repr(vars(record))
    assert RAW not in repr(cell)


def test_an_outage_is_logged_louder_than_a_refusal(caplog: pytest.LogCaptureFixture) -> None:
    """What is down is the operator's business; what a client sends is not."""
    refused(TemporarilyUnavailable(detail="the issuer is down"))
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_subclass_of_a_public_view_class_is_not_public_by_that() -> None:
    """What is added in a subclass was not meant to be public, unless it says so itself."""

    @public
    class Open:
        def dispatch(self) -> None: ...

    class Extended(Open):
        def delete(self) -> None: ...

    assert is_public(SimpleNamespace(view_class=Open), "GET")
    assert not is_public(SimpleNamespace(view_class=Extended), "GET")
    assert not is_public(SimpleNamespace(view_class=Extended), "DELETE")


def test_a_public_method_is_found_by_an_http_method_alone() -> None:
    """A request cannot name a helper of the view class as its method."""

    class Service:
        def dispatch(self) -> None: ...

        @public
        def health(self) -> None: ...

    assert not is_public(SimpleNamespace(view_class=Service), "HEALTH")
