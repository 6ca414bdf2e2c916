"""Challenge: a refusal becomes status, headers and body. Pure, and the only place that formats WWW-Authenticate.

RFC 6750 3; RFC 9110 11.6.1 and 5.6.4; RFC 6585 and 9110 10.2.3 for Retry-After.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import ConfigurationError, RequestRejected, TemporarilyUnavailable
from .request import Refusal

DEFAULT_REALM = "api"

_OUTSIDE_QUOTED_TEXT = re.compile(r"[^\x20-\x7E]")


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete HTTP answer, ready for any framework."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True, kw_only=True)
class ChallengePolicy:
    """How refusals look.

    `realm` names the protected space. `expose_reasons` adds the `reason` to the body; leave it off in public, since
    without a valid signature it answers questions about audiences and keys. `error_body` receives the refusal and
    returns what is sent as JSON in place of the body; it never changes status or headers.

    Raises:
        ConfigurationError: the realm fits no header, or `error_body` is no function.
    """

    realm: str = DEFAULT_REALM
    expose_reasons: bool = False
    error_body: Callable[[Refusal], Any] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.realm, str) or not self.realm or _OUTSIDE_QUOTED_TEXT.search(self.realm):
            raise ConfigurationError(f"realm must be printable ASCII text, not {self.realm!r}")
        if self.error_body is not None and not callable(self.error_body):
            raise ConfigurationError(f"error_body must be a function that takes the refusal, not {self.error_body!r}")


def challenge(error: Refusal, policy: ChallengePolicy) -> Answer:
    """Return the answer that `error` demands.

    Raises:
        ConfigurationError: `error_body` returned something that is not JSON.
    """
    headers = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]
    body: dict[str, str] = {}
    if isinstance(error, TemporarilyUnavailable):
        headers.append(("Retry-After", str(max(1, math.ceil(error.retry_after)))))
        body = {"error": "temporarily_unavailable", "error_description": error.description}
    else:
        headers.append(("WWW-Authenticate", _www_authenticate(error, policy.realm)))
        headers.append(("Access-Control-Expose-Headers", "WWW-Authenticate"))
        if error.error is not None:
            body = {"error": error.error, "error_description": error.description}
    if policy.expose_reasons:
        body["reason"] = str(error.reason)
    content = body if policy.error_body is None else policy.error_body(error)
    try:
        text = json.dumps(content, allow_nan=False)
    except (TypeError, ValueError) as problem:
        raise ConfigurationError(f"error_body returned something that is not JSON: {problem}") from None
    return Answer(error.status, tuple(headers), text.encode())


def _www_authenticate(error: RequestRejected, realm: str) -> str:
    # RFC 6750 3.1: a request without credentials is told no error. CHAL-03: `Bearer` needs at least one parameter.
    parameters: Mapping[str, str | None] = {
        "realm": realm,
        "error": error.error,
        "error_description": error.description if error.error else None,
        "scope": error.scope or None,
    }
    return "Bearer " + ", ".join(f"{name}={_quoted(value)}" for name, value in parameters.items() if value is not None)


def _quoted(text: str) -> str:
    """Return `text` as a quoted-string (RFC 9110 5.6.4). What cannot stand in a header line becomes a question mark."""
    return '"' + _OUTSIDE_QUOTED_TEXT.sub("?", text).replace("\\", "\\\\").replace('"', '\\"') + '"'
