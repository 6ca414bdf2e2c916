"""A request as the core sees it, and the cell that carries the guard's decision to the handler.

Knows no framework, no configuration and nothing of what is inside a token. Each adapter puts one mutable cell per
request into `current_cell` and takes it out again on every path, so that a reused worker thread never sees the last
caller's token.
"""

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from .errors import TOLD_TO_CLIENT, RequestRejected, TemporarilyUnavailable, shown
from .events import Event, tell

if TYPE_CHECKING:
    from .access_token import AccessToken

Refusal = RequestRejected | TemporarilyUnavailable


@dataclass(slots=True)  # a frozen one costs three times as much to make
class RequestView:
    """A whole request, in the form that every framework can give it.

    `headers` keeps repeated fields as separate pairs, with names in any case. `url` is called only where a rule needs
    the URL. `client_certificate` is the DER certificate of the TLS client, where the server knows it.
    """

    method: str
    url: Callable[[], str]
    headers: Sequence[tuple[str, str]] = field(repr=False)  # they hold the token
    client_certificate: bytes | None = None


# What a guard reads of a preflight request.
_PREFLIGHT = (
    ("Origin", "HTTP_ORIGIN"),
    ("Access-Control-Request-Method", "HTTP_ACCESS_CONTROL_REQUEST_METHOD"),
)


def wsgi_headers(environ: Mapping[str, Any], method: str) -> list[tuple[str, str]]:
    """Return the header fields that a guard reads, of a WSGI environ (PEP 3333) or of Django's META.

    Repeated fields are joined with a comma there (RFC 3875 4.1.18).
    """
    headers = [("Authorization", environ["HTTP_AUTHORIZATION"])] if "HTTP_AUTHORIZATION" in environ else []
    if method == "OPTIONS":  # 0.1 us less than to look for these in every request
        headers += [(name, environ[key]) for name, key in _PREFLIGHT if key in environ]
    return headers


class Access(StrEnum):
    """How a request got past the guard."""

    TOKEN = "token"
    PUBLIC = "public"
    ANONYMOUS = "anonymous"


class RequestCell:
    """The guard's decision about one request. `access` is None until the guard has decided.

    `render` turns a refusal into the framework's own response object. `raw_token` is kept for token exchange alone.
    `target` is the request's method and path, for the log.
    """

    # The class's own until they are set: so a subclass can make a cell by itself.
    access: Access | None = None
    token: "AccessToken | None" = None
    raw_token: str | None = None
    refusal: Refusal | None = None
    target: tuple[str, str] | None = None
    render: Callable[[Refusal], Any]

    def __init__(self, render: Callable[[Refusal], Any]) -> None:
        self.render = render

    def admit(self, token: "AccessToken", raw_token: str) -> None:
        """Let the request in with its access token."""
        self.access = Access.TOKEN
        self.token = token
        self.raw_token = raw_token

    def refuse(self, error: Refusal) -> Refusal:
        """Make `error` the answer to this request, whatever the application answers afterwards. The first one stays.

        Logged as a warning where the answer does not tell the client why: Python shows warnings by default.
        """
        if self.refusal is None:
            self.refusal = error.with_traceback(None)  # whose frames hold the cell, and with it the raw token
            is_told = error.reason in TOLD_TO_CLIENT and not isinstance(error, TemporarilyUnavailable)
            method, path = (shown(part)[1:-1] for part in self.target or ("", ""))
            target = f" ({method} {path})" if self.target else ""
            fields = {"reason": error.reason, "method": method, "path": path}
            cause = error.__cause__ if isinstance(error, TemporarilyUnavailable) else None
            tell(Event.REQUEST_REFUSED, "request refused: %s%s", error, target, quietly=is_told, cause=cause, **fields)
        return self.refusal


current_cell: ContextVar[RequestCell | None] = ContextVar("token_guard_request", default=None)
