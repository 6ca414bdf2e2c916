"""Events in SQLite. All SQL of the service is here, and every statement names the owner. Knows no HTTP framework.

Moments are texts in the one form of `validation.moment`: they sort as text. The methods block; call them in a thread.
"""

from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from sample_apis.database import Database
from sample_apis.ownership import Owner
from sample_apis.pagination import Cursor, Page
from sample_apis.problems import NotFound

SCHEMA = """
CREATE TABLE IF NOT EXISTS event (
    id        TEXT PRIMARY KEY,
    issuer    TEXT NOT NULL,
    subject   TEXT NOT NULL,
    title     TEXT NOT NULL,
    location  TEXT,
    starts_at TEXT NOT NULL,
    ends_at   TEXT NOT NULL,
    CHECK (starts_at < ends_at)
);
CREATE INDEX IF NOT EXISTS event_by_start ON event (issuer, subject, starts_at, id);
"""


@dataclass(frozen=True)
class Event:
    id: str
    title: str
    location: str | None
    starts_at: str
    ends_at: str


class EventStore:
    """The events of every owner, each owner's out of sight of the others.

    Raises:
        sqlite3.Error: the file cannot be opened or written.
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(path, SCHEMA)

    def add(self, owner: Owner, *, title: str, location: str | None, starts_at: str, ends_at: str) -> Event:
        """Add an event."""
        event = Event(str(uuid4()), title, location, starts_at, ends_at)
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO event (id, issuer, subject, title, location, starts_at, ends_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (event.id, *owner, title, location, starts_at, ends_at),
            )
        return event

    def get(self, owner: Owner, event_id: str) -> Event:
        """Return the owner's event.

        Raises:
            NotFound: the owner has no such event.
        """
        with self._database.transaction() as connection:
            row = connection.execute(
                "SELECT id, title, location, starts_at, ends_at FROM event WHERE issuer = ? AND subject = ? AND id = ?",
                (*owner, event_id),
            ).fetchone()
        if row is None:
            raise NotFound("event")
        return Event(*row)

    def list(self, owner: Owner, *, begin: str, end: str, limit: int, after: Cursor) -> Page[Event]:
        """Return the owner's events that overlap `begin` to `end`, by start, at most `limit`, from behind `after`."""
        with self._database.transaction() as connection:
            rows = connection.execute(
                "SELECT id, title, location, starts_at, ends_at FROM event"
                " WHERE issuer = ? AND subject = ? AND ends_at > ? AND starts_at < ? AND (starts_at, id) > (?, ?)"
                " ORDER BY starts_at, id LIMIT ?",
                (*owner, begin, end, *after, limit + 1),
            ).fetchall()
        return Page.of([Event(*row) for row in rows], limit, lambda event: Cursor(event.starts_at, event.id))

    def replace(
        self, owner: Owner, event_id: str, *, title: str, location: str | None, starts_at: str, ends_at: str
    ) -> Event:
        """Replace the owner's event.

        Raises:
            NotFound: the owner has no such event.
        """
        with self._database.transaction() as connection:
            changed = connection.execute(
                "UPDATE event SET title = ?, location = ?, starts_at = ?, ends_at = ?"
                " WHERE issuer = ? AND subject = ? AND id = ?",
                (title, location, starts_at, ends_at, *owner, event_id),
            ).rowcount
        if not changed:
            raise NotFound("event")
        return Event(event_id, title, location, starts_at, ends_at)

    def delete(self, owner: Owner, event_id: str) -> None:
        """Delete the owner's event.

        Raises:
            NotFound: the owner has no such event.
        """
        with self._database.transaction() as connection:
            deleted = connection.execute(
                "DELETE FROM event WHERE issuer = ? AND subject = ? AND id = ?", (*owner, event_id)
            ).rowcount
        if not deleted:
            raise NotFound("event")
