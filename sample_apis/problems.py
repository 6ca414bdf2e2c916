"""The house style of error answers: application/problem+json (RFC 9457), the same from every service.

Knows no framework: each service turns a `Problem` into its own kind of response. Refused access tokens are not
described here; Token Guard answers those itself (400, 401, 403 and 503).
"""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus

PROBLEM_JSON = "application/problem+json"


class Problem(Exception):
    """An answer that says what is wrong with a request.

    `errors` lists the members of the request that need a change, each as `{"field": ..., "fix": ...}`.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """Return the answer's body. The type is `about:blank`, so the title is the status in words (RFC 9457 4.2.1)."""
        members: dict[str, object] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            members["errors"] = self.errors
        return json.dumps(members).encode()


class NotFound(Problem):
    """What was asked for does not exist, or belongs to somebody else: the caller cannot tell which."""

    def __init__(self, what: str) -> None:
        super().__init__(HTTPStatus.NOT_FOUND, f"There is no such {what}.")


class Conflict(Problem):
    """The request is well formed and contradicts what is stored."""

    def __init__(self, detail: str) -> None:
        super().__init__(HTTPStatus.CONFLICT, detail)


class InvalidFields(Problem):
    """Members of the body or of the query that need a change, each named with its fix."""

    def __init__(self, fixes: Mapping[str, str]) -> None:
        errors = [{"field": field, "fix": fix} for field, fix in fixes.items()]
        super().__init__(HTTPStatus.UNPROCESSABLE_ENTITY, f"To be changed: {', '.join(fixes)}.", errors=errors)
