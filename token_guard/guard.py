"""Guard: what every adapter does with every request. For the authors of adapters; applications use the adapters.

An adapter makes a cell, lets the guard decide, and either answers the cell's refusal or runs the application with the
cell in `current_cell`. Knows no framework. RFC 6750 3; the Fetch standard for preflight requests.
"""

import importlib
from collections.abc import Awaitable, Collection, Mapping

from .access_token import AccessToken
from .authorization import is_public
from .bearer import bearer_credential, not_one_token
from .challenge import Answer
from .errors import ConfigurationError, MissingToken, RequestRejected, TemporarilyUnavailable
from .events import Event
from .request import Access, Refusal, RequestCell, RequestView, current_cell, wsgi_headers
from .requirements import Requirement
from .resource_server import ResourceServer
from .settings import read_settings

__all__ = [
    "Answer",
    "Event",
    "Guard",
    "Refusal",
    "RequestCell",
    "RequestView",
    "Requirement",
    "current_cell",
    "is_public",
    "wsgi_headers",
]

_OWN_SETTINGS = ("PUBLIC_PATHS", "ALLOW_ANONYMOUS")


class Guard:
    """Closed by default: every request needs a valid token, unless a rule of this class lets it in.

    `public_paths` are exact paths or prefixes such as `/static/*`, compared with the path as the router sees it and
    never normalised. With `allow_anonymous` a request without credentials gets in; a token that is sent is checked.

    Raises:
        ConfigurationError: an argument is of the wrong kind, or a path would open everything.
    """

    def __init__(
        self, resource_server: ResourceServer, *, public_paths: Collection[str] = (), allow_anonymous: bool = False
    ) -> None:
        if not isinstance(resource_server, ResourceServer):
            raise ConfigurationError(f"resource_server must be a ResourceServer, not {type(resource_server).__name__}")
        if not isinstance(allow_anonymous, bool):
            raise ConfigurationError(f"allow_anonymous must be True or False, not {allow_anonymous!r}")
        self.resource_server = resource_server
        self._allow_anonymous = allow_anonymous
        self._exact, self._prefixes = _read_paths(public_paths)

    @classmethod
    def from_settings(cls, values: Mapping[str, object], where: str) -> "Guard":
        """Return a guard made from a framework's settings: those of `ResourceServer.from_env`, or RESOURCE_SERVER.

        RESOURCE_SERVER is a ResourceServer or a dotted path to one. PUBLIC_PATHS and ALLOW_ANONYMOUS are the guard's
        own. `where` is what error messages put before a setting's name.

        Raises:
            ConfigurationError: a setting is missing, unknown, malformed, or contradicts another.
        """
        own = {name: values[name] for name in _OWN_SETTINGS if name in values}
        others = {name: value for name, value in values.items() if name not in own}
        named = others.pop("RESOURCE_SERVER", None)
        if named is not None and others:
            raise ConfigurationError(f"{where}RESOURCE_SERVER and {where}{min(others)} contradict each other; keep one")
        server = (
            ResourceServer(**read_settings(others, where, also=(*_OWN_SETTINGS, "RESOURCE_SERVER")))
            if named is None
            else _import_server(named, where)
        )
        return cls(server, **{name.lower(): value for name, value in own.items()})  # type: ignore[arg-type]

    def decide(self, cell: RequestCell, request: RequestView, path: str, *, marked_public: bool = False) -> None:
        """Decide about `request`: afterwards the cell has its `access`, or its `refusal`.

        `marked_public` tells that the view is `@public`, where the framework knows its view in advance.
        """
        if not self._is_open(cell, request, path, marked_public):
            raw_token = None
            try:
                raw_token = bearer_credential(request.headers)
                cell.admit(self.resource_server.validate(raw_token), raw_token)
            except (RequestRejected, TemporarilyUnavailable) as error:
                self._refuse(cell, error, raw_token)

    def begin(
        self, cell: RequestCell, request: RequestView, path: str, *, marked_public: bool = False
    ) -> Awaitable[None] | None:
        """Do what `decide` does, without blocking the event loop while keys are fetched.

        Nearly every request is decided at once. What is returned must be awaited: then the cell is decided.
        """
        if not self._is_open(cell, request, path, marked_public):
            raw_token = None
            try:
                raw_token = bearer_credential(request.headers)
                begun = self.resource_server.begin(raw_token)
                if not isinstance(begun, AccessToken):
                    return self._finish(cell, raw_token, begun)
                cell.admit(begun, raw_token)
            except (RequestRejected, TemporarilyUnavailable) as error:
                self._refuse(cell, error, raw_token)
        return None

    async def _finish(self, cell: RequestCell, raw_token: str, begun: Awaitable[AccessToken]) -> None:
        try:
            cell.admit(await begun, raw_token)
        except (RequestRejected, TemporarilyUnavailable) as error:
            self._refuse(cell, error)

    def answer(self, refusal: Refusal) -> Answer:
        """Return the HTTP answer of a refusal."""
        return self.resource_server.challenge(refusal)

    def _is_open(self, cell: RequestCell, request: RequestView, path: str, marked_public: bool) -> bool:
        cell.target = request.method, path
        is_open = marked_public or path in self._exact or path.startswith(self._prefixes)
        if is_open or (request.method == "OPTIONS" and _is_preflight(request)):
            cell.access = Access.PUBLIC
        return cell.access is not None

    def _refuse(self, cell: RequestCell, error: Refusal, raw_token: str | None = None) -> None:
        if self._allow_anonymous and isinstance(error, MissingToken):
            cell.access = Access.ANONYMOUS
        else:
            error = error.with_traceback(None)  # whose frames hold the raw token
            cell.refuse((raw_token is not None and not_one_token(raw_token)) or error)


def _is_preflight(request: RequestView) -> bool:
    """A CORS preflight carries no credentials; the request that follows it does."""
    return {"origin", "access-control-request-method"} <= {name.lower() for name, _ in request.headers}


def _read_paths(paths: object) -> tuple[frozenset[str], tuple[str, ...]]:
    if not isinstance(paths, Collection) or isinstance(paths, (str, bytes)):
        raise ConfigurationError(f"public_paths must be a collection of paths, not {paths!r}")
    for path in paths:
        if not isinstance(path, str) or not path.startswith("/") or "*" in path.removesuffix("/*"):
            raise ConfigurationError(
                f"public_paths: {path!r} is neither a path like '/health' nor one like '/static/*'"
            )
        if path == "/*":
            raise ConfigurationError("public_paths: '/*' would open everything; remove the guard if that is meant")
    exact = frozenset(path for path in paths if not path.endswith("/*"))
    return exact, tuple(path.removesuffix("*") for path in paths if path.endswith("/*"))


def _import_server(named: object, where: str) -> ResourceServer:
    if isinstance(named, str):
        module, _, name = named.rpartition(".")
        try:
            named = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigurationError(f"{where}RESOURCE_SERVER {named!r} cannot be imported: {error}") from error
    if not isinstance(named, ResourceServer):
        raise ConfigurationError(f"{where}RESOURCE_SERVER must be (a dotted path to) a ResourceServer, not {named!r}")
    return named
