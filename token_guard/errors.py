"""The error tree, and the reason for every refusal.

    TokenGuardError
    ├─ ConfigurationError          ours to fix; raised at start-up wherever that is possible
    ├─ TemporarilyUnavailable 503  the token could not be checked
    ├─ ExchangeRefused             the authorization server gave us no token for another API
    └─ RequestRejected             the request was judged and refused
       ├─ InvalidRequest      400  invalid_request
       ├─ MissingToken        401  no error code (RFC 6750 3.1)
       ├─ InvalidToken        401  invalid_token
       └─ InsufficientScope   403  insufficient_scope

Every refusal has three texts. `description` is for the client: fixed ASCII that tells apart only what a client can act
on. `reason` is for programs: the same word in logs, metrics and tests. `detail` is for the operator's log: it names
what was found, and never holds a token. This module knows nothing about HTTP beyond the status.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import ClassVar


class Reason(StrEnum):
    """Why a request was refused. Stable: logs, metrics and tests may depend on these words."""

    MISSING_TOKEN = "missing_token"
    MALFORMED_REQUEST = "malformed_request"
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    ALGORITHM_NOT_ALLOWED = "algorithm_not_allowed"
    UNSUPPORTED_CRITICAL = "unsupported_critical"
    WRONG_TYPE = "wrong_type"
    WRONG_ISSUER = "wrong_issuer"
    WRONG_AUDIENCE = "wrong_audience"
    CLAIM_MISSING = "claim_missing"
    CLAIM_MALFORMED = "claim_malformed"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    ISSUED_IN_FUTURE = "issued_in_future"
    TOO_OLD = "too_old"
    UNKNOWN_KEY = "unknown_key"
    BAD_SIGNATURE = "bad_signature"
    SENDER_CONSTRAINED = "sender_constrained"
    REVOKED = "revoked"
    WRONG_ORGANIZATION = "wrong_organization"
    INSUFFICIENT_SCOPE = "insufficient_scope"
    INSUFFICIENT_PERMISSION = "insufficient_permission"
    KEYS_UNAVAILABLE = "keys_unavailable"
    ISSUER_MISCONFIGURED = "issuer_misconfigured"
    REVOCATION_UNAVAILABLE = "revocation_unavailable"
    TOKEN_UNAVAILABLE = "token_unavailable"


_NOT_ACCEPTED = "The access token is not accepted by this API"
_MALFORMED = "The access token is malformed"

# What the client is told. Reasons that would answer questions about keys, audiences or issuers share one sentence.
_DESCRIPTIONS: dict[Reason, str] = {
    Reason.MALFORMED_REQUEST: "The Authorization header must hold one Bearer token",
    Reason.MALFORMED: _MALFORMED,
    Reason.TOO_LARGE: _MALFORMED,
    Reason.EXPIRED: "The access token expired",
    Reason.INSUFFICIENT_SCOPE: "The access token lacks a scope that this operation needs",
    Reason.INSUFFICIENT_PERMISSION: "The access token does not permit this operation",
    Reason.TOKEN_UNAVAILABLE: "Another API that this operation needs cannot be called at the moment",
}


# A client that gets one of these learns from the answer what it lacks. Of all others only the log tells the reason.
TOLD_TO_CLIENT = frozenset({Reason.MISSING_TOKEN, *_DESCRIPTIONS})


class TokenGuardError(Exception):
    """The root of everything that Token Guard raises on purpose."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class ConfigurationError(TokenGuardError):
    """A setting is missing, wrong or contradicts another. The message names the setting and the fix."""


class _Reasoned(TokenGuardError):
    """An error whose text is its reason and detail. It is made when it is read: most are counted and never printed."""

    reason: Reason
    _detail: str | Callable[[], str]

    @property
    def detail(self) -> str:
        """What was found, for the operator's log. Where a function was given, it makes it now."""
        detail = self._detail
        if callable(detail):
            self._detail = detail = detail()
        return detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else str(self.reason)


class TemporarilyUnavailable(_Reasoned):
    """The token could not be checked because something else is down: 503, never a judgement on the token.

    `retry_after` is in seconds; the Retry-After header rounds it up.
    """

    status: ClassVar[int] = 503

    def __init__(self, reason: Reason = Reason.KEYS_UNAVAILABLE, *, detail: str = "", retry_after: float = 1) -> None:
        self.reason = reason
        self._detail = detail
        self.retry_after = retry_after

    @property
    def description(self) -> str:
        """What the client may know: fixed ASCII text."""
        return _DESCRIPTIONS.get(self.reason, "The access token cannot be checked at the moment")


class ExchangeRefused(TokenGuardError):
    """The authorization server gave us no token for another API.

    `error` and `description` are its own words (RFC 6749 5.2), such as `consent_required`, `interaction_required` or
    `invalid_grant`; `invalid_answer` where it granted something that is no bearer token. `claims` is its claims
    challenge, where it sent one, for the client to log in again with.
    """

    def __init__(self, error: str, description: str = "", *, claims: str | None = None) -> None:
        self.error = error
        self.description = description
        self.claims = claims

    def __str__(self) -> str:
        return f"{shown(self.error)}: {shown(self.description)}" if self.description else shown(self.error)


class RequestRejected(_Reasoned):
    """The request was judged and refused. Raised only as one of its subclasses.

    `detail` may be a function without arguments: to word an advice takes longer than to find out that a token is bad.
    """

    status: ClassVar[int]
    error: ClassVar[str | None]

    def __init__(self, reason: Reason, *, detail: str | Callable[[], str] = "", scope: str | None = None) -> None:
        self.reason = reason
        self._detail = detail
        self.scope = scope

    @property
    def description(self) -> str:
        """What the client may know: fixed ASCII text, the same for all reasons that a client cannot act on."""
        return _DESCRIPTIONS.get(self.reason, _NOT_ACCEPTED)


class InvalidRequest(RequestRejected):
    """The Authorization header cannot be read (RFC 6750 3.1)."""

    status: ClassVar[int] = 400
    error: ClassVar[str | None] = "invalid_request"

    def __init__(self, *, detail: str = "") -> None:
        super().__init__(Reason.MALFORMED_REQUEST, detail=detail)


class MissingToken(RequestRejected):
    """No credentials, or none of a scheme that this API knows: a bare challenge (RFC 6750 3.1)."""

    status: ClassVar[int] = 401
    error: ClassVar[str | None] = None

    def __init__(self, *, detail: str = "") -> None:
        super().__init__(Reason.MISSING_TOKEN, detail=detail)


class InvalidToken(RequestRejected):
    """The access token is not genuine, not current, or not meant for this API."""

    status: ClassVar[int] = 401
    error: ClassVar[str | None] = "invalid_token"


class InsufficientScope(RequestRejected):
    """The access token is good but too weak. `scope` names all scopes that the operation needs, space-separated."""

    status: ClassVar[int] = 403
    error: ClassVar[str | None] = "insufficient_scope"


def shown(value: object, most: int = 100) -> str:
    """Return text from a stranger as a log line may hold it: escaped, ASCII and of `most` characters."""
    text = ascii(value)
    return text if len(text) <= most else f"{text[:most]}..."
