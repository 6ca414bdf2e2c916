"""The application that every framework serves: its routes, the requirement of each, and what each answers.

Knows no framework. A handler answers with plain text, so that bodies can be compared.
"""

from collections.abc import Callable
from dataclasses import dataclass

from token_guard import TokenGuardError, any_of, current_access_token
from token_guard.guard import Requirement

PUBLIC_PATHS = ["/health"]
METHODS = ["GET", "HEAD", "OPTIONS"]
CAUGHT = "caught by the application", 500


@dataclass(frozen=True)
class Route:
    """A path that answers METHODS. One that is `marked_public` needs no token where a framework has such a mark."""

    path: str
    handler: Callable[[], str]
    requirement: Requirement | str | None = None
    marked_public: bool = False


def name_subject() -> str:
    return current_access_token().subject or ""


def require_by_hand() -> str:
    current_access_token().require("read:contacts")
    return name_subject()


def require_and_catch() -> str:
    try:
        return require_by_hand()
    except TokenGuardError:
        return "caught by the handler"


def fail() -> str:
    raise LookupError("this handler fails on its own")


ROUTES = (
    Route("/me", name_subject),
    Route("/contacts", name_subject, "read:contacts"),
    Route("/either", name_subject, any_of("read:contacts", "read:everything")),
    Route("/by-hand", require_by_hand),
    Route("/catches", require_and_catch),
    Route("/fails", fail),
    Route("/preflight", lambda: "passed"),
    Route("/health", lambda: "healthy"),
    Route("/public", lambda: "public", marked_public=True),
)
