"""What the app remembers of each browser, on the server. The browser holds nothing but the name of its session."""

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from secrets import token_urlsafe

from cachetools import TTLCache

from sample_apis.web_backend.login import Grant, PendingRequest, User

LIFETIME = 8 * 3600.0  # seconds
MOST_SESSIONS = 10_000
REQUEST_LIFETIME = 600.0  # seconds that a user has to log in
MOST_REQUESTS = 10  # that one browser has pending; the oldest gives way
MOST_ANSWERS = 6  # that the page shows


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What an API answered, to be shown."""

    title: str
    request: str
    status: str
    tone: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A message for the next page. `retry` names the API for which a visible request would help."""

    words: str
    retry: str | None = None


@dataclass
class Session:
    """One browser. `grants` are by the name of their API, `pending` by state."""

    user: User | None = None
    grants: dict[str, Grant] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    notice: Notice | None = None
    pending: MutableMapping[str, PendingRequest] = field(
        default_factory=lambda: TTLCache(MOST_REQUESTS, REQUEST_LIFETIME)
    )

    def show(self, answer: Answer) -> None:
        """Put an answer on top of the page."""
        self.answers = [answer, *self.answers][:MOST_ANSWERS]


class Sessions:
    """The sessions by their secret names. They are in memory: a restart logs everybody out."""

    def __init__(self) -> None:
        self._sessions: MutableMapping[str, Session] = TTLCache(MOST_SESSIONS, LIFETIME)

    def find(self, name: str | None) -> Session | None:
        return self._sessions.get(name or "")

    def keep(self, session: Session) -> str:
        """Give the session a name that nobody has seen before, and return it."""
        name = token_urlsafe(32)
        self._sessions[name] = session
        return name

    def forget(self, name: str | None) -> None:
        self._sessions.pop(name or "", None)
