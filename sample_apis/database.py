"""SQLite for the stores: a connection for every transaction, so that threads share nothing. Knows no tables."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

BUSY_TIMEOUT = 5.0  # seconds that a transaction waits for another one to finish


class Database:
    """One SQLite file with its schema, created where it does not exist.

    Raises:
        sqlite3.Error: the file cannot be opened or written, or is no database.
    """

    def __init__(self, path: Path, schema: str) -> None:
        self._path = path
        with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")  # readers do not wait for the writer
            connection.executescript(schema)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection whose work is kept when the block ends and undone when it raises."""
        with closing(sqlite3.connect(self._path, timeout=BUSY_TIMEOUT)) as connection, connection:
            connection.row_factory = sqlite3.Row
            yield connection
