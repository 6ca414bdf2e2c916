"""Authorize: the one decorator for all frameworks, and the way to the access token inside a handler.

Both read the cell that an adapter put around the handler, so that 401, 403 and 503 look the same everywhere. Knows no
framework: a refusal is rendered by whoever made the cell.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from .access_token import AccessToken
from .errors import ConfigurationError, MissingToken, RequestRejected, TemporarilyUnavailable
from .request import RequestCell, current_cell
from .requirements import Requirement, all_of

View = TypeVar("View", bound=Callable[..., Any])

MARKER = "__token_guard__"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"})
_DISPATCHERS = ("dispatch", "dispatch_request")  # Django and Starlette; Flask


@dataclass(frozen=True)
class Marker:
    """What a decorator left on a view: its requirement, or None where the view is public."""

    requirement: Requirement | None


def requires(*requirements: Requirement | str) -> Callable[[View], View]:
    """Demand `requirements` of the access token before the view runs; a plain string is a scope.

    For sync and async functions, methods, and view classes of Flask, Django and Starlette. Without a guard around the
    view it never runs. Does NOT validate the token: the guard has. The decorator that registers a route goes above it:
    below, it would register the view without its requirement.

    Raises:
        ConfigurationError: a requirement cannot be understood, or the view is `@public`.
        TypeError: what is decorated is no function, method or view class.
    """
    needed = all_of(*requirements)

    def decorate(view: View) -> View:
        guarded: View = _guard_class(view, needed) if inspect.isclass(view) else _guard_function(view, needed)
        return _mark(guarded, needed)

    return decorate


def requires_scope(*scopes: str) -> Callable[[View], View]:
    """Demand all of `scopes`, at least one, before the view runs. See `requires`."""
    if not scopes:
        raise ConfigurationError("requires_scope needs a scope; requires() demands a valid token and nothing more")
    return requires(*scopes)


def public(view: View) -> View:
    """Let everybody in without looking at the token. For Flask and Django views; an ASGI guard has `public_paths`.

    The mark is on the view itself: it is public at every address that it is given. A subclass of a public view class is
    not public by that.

    Raises:
        ConfigurationError: the view also has a requirement.
        TypeError: what is decorated is no function, method or view class.
    """
    if not inspect.isclass(view) and not _is_function(view):
        raise TypeError(f"public takes a function, a method or a view class, not {type(view).__name__}")
    return _mark(view, None)


def is_public(view: object, method: str) -> bool:
    """Tell whether `view`, its class, or its class's handler of this HTTP method is `@public`."""
    view_class = getattr(view, "view_class", None) or getattr(view, "cls", None)  # what as_view() leaves
    if view_class is None:  # a function, as most views are: 0.1 us instead of 0.5
        return _opens(getattr(view, MARKER, None))
    actions = getattr(view, "actions", {})  # how a view set of REST framework names its handlers: {"get": "list"}
    names = ("head", "get") if method == "HEAD" else (method.lower(),) if method in _METHODS else ()
    handler = next(filter(None, (getattr(view_class, actions.get(name, name), None) for name in names)), None)
    own = vars(view_class).get(MARKER)  # not inherited: what is added in a subclass was not meant to be public
    return any(map(_opens, (getattr(view, MARKER, None), getattr(handler, MARKER, None), own)))


def _opens(marker: Marker | None) -> bool:
    return marker is not None and marker.requirement is None


def current_access_token() -> AccessToken:
    """Return the access token of the request that is being handled.

    Raises:
        MissingToken: the request is public or anonymous.
        ConfigurationError: no guard is around the code that asks.
    """
    cell = _decided_cell()
    if cell.token is None:
        raise MissingToken(detail=f"the access token was asked for in a request that is {cell.access}")
    return cell.token


def _decided_cell() -> RequestCell:
    cell = current_cell.get()
    if cell is None or (cell.access is None and cell.refusal is None):
        raise ConfigurationError(
            "no guard has decided about this request: put the Token Guard middleware (ASGI, Django) or extension"
            " (Flask) around the application, before anything that asks for the access token:"
            " token_guard_asgi.TokenGuardMiddleware, token_guard_django.TokenGuardMiddleware or"
            " token_guard_flask.TokenGuard. An endpoint of FastAPI may have Security(AccessTokenSecurity(...)) instead"
        )
    return cell


def _check(cell: RequestCell, needed: Requirement) -> RequestRejected | TemporarilyUnavailable | None:
    """Return the refusal of this request, which from here on is its answer."""
    if cell.refusal is not None:
        return cell.refusal
    if cell.token is None:
        return cell.refuse(MissingToken(detail=f"the view needs a token: {needed}"))
    error = needed.refusal(cell.token)
    return None if error is None else cell.refuse(error)


def _guard_function(view: Any, needed: Requirement) -> Any:
    if not _is_function(view):
        raise TypeError(f"requires takes a function, a method or a view class, not {type(view).__name__}")
    if _is_async(view):

        @functools.wraps(view)
        async def guarded_async(*args: Any, **kwargs: Any) -> Any:
            cell = _decided_cell()
            refusal = _check(cell, needed)
            return cell.render(refusal) if refusal else await _answer(cell, view(*args, **kwargs))

        return guarded_async

    is_generator = inspect.isgeneratorfunction(view) or inspect.isasyncgenfunction(view)

    @functools.wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        cell = _decided_cell()
        refusal = _check(cell, needed)
        if refusal and is_generator:
            raise refusal  # FastAPI streams what such a view yields, and could not iterate over a response
        try:
            answer = cell.render(refusal) if refusal else view(*args, **kwargs)
        except (RequestRejected, TemporarilyUnavailable) as error:
            answer = cell.render(cell.refuse(error))
        if inspect.iscoroutine(answer):
            return _answer(cell, answer)
        # Django awaits what the dispatch of an asynchronous view class returns.
        return _completed(answer) if args and getattr(args[0], "view_is_async", False) else answer

    return guarded


def _is_function(view: object) -> bool:
    """Tell whether `view` is a function or a method; what Django's method_decorator hands on is a partial of one."""
    function = view.func if isinstance(view, functools.partial) else view
    return inspect.isroutine(function) and not isinstance(function, (classmethod, staticmethod))


def _is_async(view: Any) -> bool:
    owner = getattr(getattr(view, "func", None), "__self__", None)  # of a method that method_decorator hands on
    return (
        inspect.iscoroutinefunction(view)
        or hasattr(view, "_is_coroutine")  # how Python 3.11 marks what as_view() makes of an asynchronous class
        or getattr(owner, "view_is_async", False)
    )


async def _answer(cell: RequestCell, pending: Any) -> Any:
    """Await a view's answer. A refusal that it raises is an answer too, not a crash."""
    try:
        return await pending
    except (RequestRejected, TemporarilyUnavailable) as error:
        return cell.render(cell.refuse(error))


async def _completed(answer: Any) -> Any:
    return answer


def _guard_class(view: Any, needed: Requirement) -> Any:
    for name in _DISPATCHERS:
        if hasattr(view, name):
            setattr(view, name, _guard_function(getattr(view, name), needed))
            return view
    raise TypeError(f"{view.__name__} is no view class: it has neither dispatch nor dispatch_request")


def _mark(view: View, requirement: Requirement | None) -> View:
    earlier = getattr(view, MARKER, None)
    handlers = [getattr(member, MARKER, None) for member in vars(view).values()] if inspect.isclass(view) else []
    for marker in (earlier, *handlers):
        if isinstance(marker, Marker) and (marker.requirement is None) != (requirement is None):
            raise ConfigurationError(f"{view.__qualname__} is @public and has a requirement: keep one")
    if earlier is not None and requirement is not None:
        requirement = all_of(requirement, earlier.requirement)
    setattr(getattr(view, "__func__", view), MARKER, Marker(requirement))  # a method has its function's attributes
    return view
