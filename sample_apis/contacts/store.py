"""Contacts in SQLite. All SQL of the service is here, and every statement names the owner. Knows no HTTP framework."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from sample_apis.database import Database
from sample_apis.ownership import Owner
from sample_apis.pagination import Cursor, Page
from sample_apis.problems import Conflict, NotFound

SCHEMA = """
CREATE TABLE IF NOT EXISTS contact (
    id      TEXT PRIMARY KEY,
    issuer  TEXT NOT NULL,
    subject TEXT NOT NULL,
    name    TEXT NOT NULL COLLATE NOCASE,
    email   TEXT COLLATE NOCASE,
    phone   TEXT,
    UNIQUE (issuer, subject, email)
);
CREATE INDEX IF NOT EXISTS contact_by_name ON contact (issuer, subject, name, id);
"""


@dataclass(frozen=True)
class Contact:
    id: str
    name: str
    email: str | None
    phone: str | None


class ContactStore:
    """The contacts of every owner, each owner's out of sight of the others.

    Raises:
        sqlite3.Error: the file cannot be opened or written.
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(path, SCHEMA)

    def add(self, owner: Owner, *, name: str, email: str | None, phone: str | None) -> Contact:
        """Add a contact.

        Raises:
            Conflict: the owner has a contact with this e-mail address.
        """
        contact = Contact(str(uuid4()), name, email, phone)
        with self._database.transaction() as connection, _unique_email():
            connection.execute(
                "INSERT INTO contact (id, issuer, subject, name, email, phone) VALUES (?, ?, ?, ?, ?, ?)",
                (contact.id, *owner, name, email, phone),
            )
        return contact

    def get(self, owner: Owner, contact_id: str) -> Contact:
        """Return the owner's contact.

        Raises:
            NotFound: the owner has no such contact.
        """
        with self._database.transaction() as connection:
            row = connection.execute(
                "SELECT id, name, email, phone FROM contact WHERE issuer = ? AND subject = ? AND id = ?",
                (*owner, contact_id),
            ).fetchone()
        if row is None:
            raise NotFound("contact")
        return Contact(*row)

    def list(self, owner: Owner, *, limit: int, after: Cursor) -> Page[Contact]:
        """Return the owner's contacts by name, at most `limit`, from behind `after`."""
        with self._database.transaction() as connection:
            rows = connection.execute(
                "SELECT id, name, email, phone FROM contact"
                " WHERE issuer = ? AND subject = ? AND (name, id) > (?, ?) ORDER BY name, id LIMIT ?",
                (*owner, *after, limit + 1),
            ).fetchall()
        return Page.of([Contact(*row) for row in rows], limit, lambda contact: Cursor(contact.name, contact.id))

    def replace(self, owner: Owner, contact_id: str, *, name: str, email: str | None, phone: str | None) -> Contact:
        """Replace the owner's contact.

        Raises:
            NotFound: the owner has no such contact.
            Conflict: another one has this e-mail address.
        """
        with self._database.transaction() as connection, _unique_email():
            changed = connection.execute(
                "UPDATE contact SET name = ?, email = ?, phone = ? WHERE issuer = ? AND subject = ? AND id = ?",
                (name, email, phone, *owner, contact_id),
            ).rowcount
        if not changed:
            raise NotFound("contact")
        return Contact(contact_id, name, email, phone)

    def delete(self, owner: Owner, contact_id: str) -> None:
        """Delete the owner's contact.

        Raises:
            NotFound: the owner has no such contact.
        """
        with self._database.transaction() as connection:
            deleted = connection.execute(
                "DELETE FROM contact WHERE issuer = ? AND subject = ? AND id = ?", (*owner, contact_id)
            ).rowcount
        if not deleted:
            raise NotFound("contact")


@contextmanager
def _unique_email() -> Iterator[None]:
    try:
        yield
    except sqlite3.IntegrityError:  # the one constraint that input can break is UNIQUE (issuer, subject, email)
        raise Conflict("Another of your contacts has this e-mail address. Change that one, or send another.") from None
