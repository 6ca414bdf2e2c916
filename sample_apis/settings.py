"""Settings of a service, from environment variables. A wrong one is told with its name, its value and the fix.

What Token Guard reads from the environment (TOKEN_GUARD_ISSUER, ...) is not repeated here: see `organizer.py`.
"""

import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

DEFAULT_HOST = "127.0.0.1"

Environ = Mapping[str, str]
Store = TypeVar("Store")


class SettingError(Exception):
    """A setting that cannot be used. The message names the variable and the fix."""


def read_address(service: str, environ: Environ, *, default_port: int) -> tuple[str, int]:
    """Return where to listen: `CONTACTS_HOST` and `CONTACTS_PORT` for the service `contacts`. Port 0 is any free one.

    Raises:
        SettingError: the port is not a port.
    """
    name = f"{service.upper()}_PORT"
    port = environ.get(name) or str(default_port)
    if not (port.isascii() and port.isdigit() and int(port[:6]) <= 65535):
        raise SettingError(f"{name} is {port!r}: set it to a port from 0 (any free one) to 65535, or leave it out")
    return environ.get(f"{service.upper()}_HOST") or DEFAULT_HOST, int(port)


def require(name: str, environ: Environ, what: str) -> str:
    """Return a setting that has no default. `what` says in words what it is.

    Raises:
        SettingError: it is not set.
    """
    value = environ.get(name)
    if not value:
        raise SettingError(f"{name} is not set: set it to {what}")
    return value


def read_url(name: str, environ: Environ, *, default: str) -> str:
    """Return the address of another service.

    Raises:
        SettingError: it is not an http or https address.
    """
    url = environ.get(name) or default
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise SettingError(f"{name} is {url!r}: set it to an address such as {default}, or leave it out")
    return url


def open_store(service: str, environ: Environ, store: Callable[[Path], Store]) -> Store:
    """Open the store of the service `contacts` in the SQLite file `CONTACTS_DATABASE`, by default `contacts.sqlite3`.

    Raises:
        SettingError: the file cannot be used.
    """
    name = f"{service.upper()}_DATABASE"
    path = environ.get(name) or f"{service}.sqlite3"
    try:
        return store(Path(path))
    except sqlite3.Error as error:
        raise SettingError(
            f"{name} is {path!r}, which cannot be used ({error}): name a file of this service in a folder that exists"
            " and may be written"
        ) from error
