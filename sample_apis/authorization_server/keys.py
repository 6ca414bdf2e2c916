"""The signing keys and their rotation: the next key is published before it signs, the previous one after it did.

Knows SQLite and JWK, not what is signed. RFC 7517 5 (the key set), OpenID Connect Core 10.1.1 (rotation).
"""

import json
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path

from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey, import_key

from sample_apis.authorization_server.catalogue import HS256_SECRET
from sample_apis.database import Database

STATES = ("next", "current", "previous")

SCHEMA = """
CREATE TABLE IF NOT EXISTS signing_key (
    algorithm TEXT, state TEXT, kid TEXT NOT NULL UNIQUE, jwk TEXT NOT NULL, PRIMARY KEY (algorithm, state)
);
"""

GENERATORS: Mapping[str, Callable[..., Key]] = {
    "RS256": partial(RSAKey.generate_key, 2048),
    "PS256": partial(RSAKey.generate_key, 2048),
    "ES256": partial(ECKey.generate_key, "P-256"),
    "Ed25519": partial(OKPKey.generate_key, "Ed25519"),
}
ALGORITHMS = (*GENERATORS, "HS256")


class UnknownKey(Exception):
    """No published key has this key ID."""


class KeyRing:
    """The keys of each algorithm: `next`, `current` and, after a rotation, `previous`.

    Every answer is read from the file, so a rotation by another process holds at once.

    Raises:
        sqlite3.Error: the file cannot be opened or written.
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(path, SCHEMA)

    def signing_key(self, algorithm: str) -> Key:
        """Return the key that signs now. The first one is made when it is asked for."""
        if algorithm == "HS256":
            return OctKey.import_key(HS256_SECRET)
        current = self._find(algorithm)
        if current is None:
            for state in ("current", "next"):
                self._add(algorithm, state)
            current = self._find(algorithm)
        assert current is not None  # noqa: S101 - somebody has just added it
        return _imported(current)

    def jwks(self) -> dict[str, object]:
        """Return the public halves of all keys (RFC 7517 5)."""
        with self._database.transaction() as connection:
            rows = connection.execute("SELECT jwk FROM signing_key ORDER BY algorithm, state").fetchall()
        return {"keys": [_imported(jwk).as_dict(private=False) for (jwk,) in rows]}

    def states(self) -> list[tuple[str, str, str]]:
        """Return the algorithm, state and key ID of every key."""
        with self._database.transaction() as connection:
            rows = connection.execute("SELECT algorithm, state, kid FROM signing_key ORDER BY algorithm, state")
            return [(algorithm, state, kid) for algorithm, state, kid in rows]

    def rotate(self) -> None:
        """Sign with the next keys from now on. The keys that signed stay published; those before them are withdrawn."""
        for algorithm in {algorithm for algorithm, _, _ in self.states()}:
            self._advance(algorithm, withdrawn="previous")

    def revoke(self, kid: str) -> None:
        """Withdraw a key at once: nothing that it signed can be verified any longer.

        Raises:
            UnknownKey: it is not published.
        """
        found = next(((algorithm, state) for algorithm, state, known in self.states() if known == kid), None)
        match found:
            case None:
                raise UnknownKey(kid)
            case algorithm, "current":
                self._advance(algorithm, withdrawn="current")
            case algorithm, state:
                with self._database.transaction() as connection:
                    connection.execute("DELETE FROM signing_key WHERE kid = ?", (kid,))
                if state == "next":
                    self._add(algorithm, "next")

    def _advance(self, algorithm: str, *, withdrawn: str) -> None:
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM signing_key WHERE algorithm = ? AND state = ?", (algorithm, withdrawn))
            for before, after in (("current", "previous"), ("next", "current")):
                connection.execute(
                    "UPDATE signing_key SET state = ? WHERE algorithm = ? AND state = ?", (after, algorithm, before)
                )
        self._add(algorithm, "next")

    def _find(self, algorithm: str) -> str | None:
        with self._database.transaction() as connection:
            row = connection.execute(
                "SELECT jwk FROM signing_key WHERE algorithm = ? AND state = 'current'", (algorithm,)
            ).fetchone()
        return row[0] if row else None

    def _add(self, algorithm: str, state: str) -> None:
        key = GENERATORS[algorithm]({"use": "sig", "alg": algorithm}, auto_kid=True)
        row = (algorithm, state, key.kid, json.dumps(key.as_dict(private=True)))
        with self._database.transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO signing_key VALUES (?, ?, ?, ?)", row)


@lru_cache(maxsize=32)
def _imported(jwk: str) -> Key:
    return import_key(json.loads(jwk))
