"""What must outlive a restart, in SQLite: passwords, sessions, consents, authorizations and what was issued on them.

All SQL but that of the keys is here. Codes, tokens and session cookies are kept as hashes, so the file opens no door.
It must not know what a token says. RFC 6749 10.4 and 10.5, RFC 9700 4.14 (refresh tokens).
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

from werkzeug.security import check_password_hash, generate_password_hash

from sample_apis.database import Database

SESSION_LIFETIME = 3 * 86_400  # seconds

SCHEMA = """
CREATE TABLE IF NOT EXISTS user (username TEXT PRIMARY KEY, password_hash TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS session (
    hash TEXT PRIMARY KEY, username TEXT NOT NULL, auth_time INTEGER NOT NULL, expires_at INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS consent (
    username TEXT, client_id TEXT, audience TEXT, scope TEXT, PRIMARY KEY (username, client_id, audience, scope)
);
CREATE TABLE IF NOT EXISTS authorization (id TEXT PRIMARY KEY, members TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS issued (
    hash             TEXT PRIMARY KEY,
    kind             TEXT NOT NULL,
    authorization_id TEXT NOT NULL,
    client_id        TEXT NOT NULL,
    expires_at       INTEGER NOT NULL,
    members          TEXT NOT NULL,
    spent            INTEGER NOT NULL DEFAULT 0
);
"""


@dataclass(frozen=True, kw_only=True)
class Authorization:
    """What a client was allowed, by a user or in its own name; all that is issued on it ends with it."""

    id: str
    issuer: str
    client_id: str
    subject: str
    audience: str
    scope: str
    username: str | None = None  # None where the client acts for itself
    organization: str | None = None
    auth_time: int | None = None


@dataclass(frozen=True)
class Session:
    username: str
    auth_time: int


@dataclass(frozen=True)
class Issued:
    """A code, refresh token or access token. `members` are what its kind needs; an access token's are its claims."""

    kind: str
    authorization: Authorization
    client_id: str
    expires_at: int
    members: Mapping[str, Any]

    @property
    def audiences(self) -> list[str]:
        """The audience of an access token, which is a string or an array."""
        audience = self.members["aud"]
        return [audience] if isinstance(audience, str) else audience

    def get_redirect_uri(self) -> str | None:
        redirect_uri: str | None = self.members["redirect_uri"]
        return redirect_uri

    def check_client(self, client: Any) -> bool:
        return bool(self.client_id == client.client_id)


class Store:
    """The state of the server, in one file.

    Raises:
        sqlite3.Error: the file cannot be opened or written.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._database = Database(path, SCHEMA)
        with self._database.transaction() as connection:
            for table in ("session", "issued"):
                connection.execute(f"DELETE FROM {table} WHERE expires_at <= ?", (self.now,))  # noqa: S608 - ours
            connection.execute("DELETE FROM authorization WHERE id NOT IN (SELECT authorization_id FROM issued)")

    @property
    def now(self) -> int:
        """Seconds since 1970."""
        return int(self._clock())

    # Users, their sessions and consents.

    def add_users(self, usernames: Iterable[str]) -> None:
        """Add the users that are missing, with their names as passwords."""
        with self._database.transaction() as connection:
            known = {name for (name,) in connection.execute("SELECT username FROM user")}
            rows = [(name, generate_password_hash(name)) for name in usernames if name not in known]
            connection.executemany("INSERT OR IGNORE INTO user VALUES (?, ?)", rows)

    def knows_password(self, username: str, password: str) -> bool:
        """Tell whether a user exists and has this password."""
        with self._database.transaction() as connection:
            row = connection.execute("SELECT password_hash FROM user WHERE username = ?", (username,)).fetchone()
        return row is not None and check_password_hash(row[0], password)

    def open_session(self, username: str) -> str:
        """Begin a session, and return the secret that names it."""
        secret = token_urlsafe()
        row = (_hash(secret), username, self.now, self.now + SESSION_LIFETIME)
        with self._database.transaction() as connection:
            connection.execute("INSERT INTO session VALUES (?, ?, ?, ?)", row)
        return secret

    def session(self, secret: str) -> Session | None:
        with self._database.transaction() as connection:
            row = connection.execute(
                "SELECT username, auth_time FROM session WHERE hash = ? AND expires_at > ?", (_hash(secret), self.now)
            ).fetchone()
        return Session(*row) if row else None

    def end_session(self, secret: str) -> None:
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM session WHERE hash = ?", (_hash(secret),))

    def consents(self, username: str, client_id: str) -> set[tuple[str, str]]:
        """Return what the user has allowed the client: audience and scope."""
        with self._database.transaction() as connection:
            rows = connection.execute(
                "SELECT audience, scope FROM consent WHERE username = ? AND client_id = ?", (username, client_id)
            )
            return {(audience, scope) for audience, scope in rows}

    def add_consents(self, username: str, client_id: str, scopes: Iterable[tuple[str, str]]) -> None:
        rows = [(username, client_id, *one) for one in scopes]
        with self._database.transaction() as connection:
            connection.executemany("INSERT OR IGNORE INTO consent VALUES (?, ?, ?, ?)", rows)

    # Authorizations and what is issued on them.

    def begin(self, **members: Any) -> Authorization:
        """Keep a new authorization."""
        authorization = Authorization(id=token_urlsafe(), **members)
        row = (authorization.id, json.dumps(asdict(authorization)))
        with self._database.transaction() as connection:
            connection.execute("INSERT INTO authorization VALUES (?, ?)", row)
        return authorization

    def end(self, authorization: Authorization) -> None:
        """End an authorization: nothing that was issued on it is good any longer."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM authorization WHERE id = ?", (authorization.id,))

    def issue(
        self,
        kind: str,
        authorization: Authorization,
        lifetime: int,
        members: Mapping[str, Any],
        text: str | None = None,
    ) -> str:
        """Keep what is issued on an authorization, for `lifetime` seconds, and return it: `text`, or a random one."""
        text = text or token_urlsafe(32)
        ends_at = self.now + lifetime
        row = (_hash(text), kind, authorization.id, authorization.client_id, ends_at, json.dumps(members))
        with self._database.transaction() as connection:
            # Two tokens of the same second may say the same, and are then one token, which ends with the later.
            connection.execute("INSERT OR REPLACE INTO issued VALUES (?, ?, ?, ?, ?, ?, 0)", row)
        return text

    def find(self, text: str, kinds: Sequence[str] = ("access", "refresh")) -> Issued | None:
        """Return what was issued under this text, as long as it is good."""
        with self._database.transaction() as connection:
            row = connection.execute(
                "SELECT kind, authorization.members, client_id, expires_at, issued.members"
                " FROM issued JOIN authorization ON authorization.id = authorization_id"
                " WHERE hash = ? AND expires_at > ? AND NOT spent",
                (_hash(text), self.now),
            ).fetchone()
        if row is None or row[0] not in kinds:
            return None
        kind, authorization, client_id, expires_at, members = row
        return Issued(kind, Authorization(**json.loads(authorization)), client_id, expires_at, json.loads(members))

    def spend(self, text: str, kind: str, client_id: str, issuer: str) -> Issued | None:
        """Return a code or refresh token that this client may use here, which nobody can use again.

        A second use means that it was stolen, from the client or by it: then everything issued with it ends.
        """
        found = self.find(text, (kind,))
        if found and (found.client_id, found.authorization.issuer) != (client_id, issuer):
            return None
        with self._database.transaction() as connection:
            named = (_hash(text), kind)
            if connection.execute(
                "UPDATE issued SET spent = 1 WHERE hash = ? AND kind = ? AND NOT spent", named
            ).rowcount:
                return found
            connection.execute(
                "DELETE FROM authorization"
                " WHERE id IN (SELECT authorization_id FROM issued WHERE hash = ? AND kind = ?)",
                named,
            )
        return None

    def drop(self, text: str) -> None:
        """End one token alone."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM issued WHERE hash = ?", (_hash(text),))


def _hash(text: str) -> str:
    return sha256(text.encode(errors="surrogatepass")).hexdigest()
