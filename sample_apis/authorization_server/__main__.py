"""Run the development authorization server, or rotate its keys: `python -m sample_apis.authorization_server --help`."""

import argparse
import logging
import os
import signal
import socket
import sys
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from sample_apis.authorization_server.app import create_app
from sample_apis.authorization_server.catalogue import Catalogue, sample_catalogue
from sample_apis.authorization_server.keys import ALGORITHMS, KeyRing, UnknownKey
from sample_apis.authorization_server.tokens import DIALECTS
from sample_apis.service import log_to_stderr, serve_wsgi
from sample_apis.settings import SettingError, open_store, read_address

NAME = "authorization_server"
DEFAULT_PORT = 9400

BANNER = """
    FOR DEVELOPMENT ONLY: everybody knows the passwords and secrets of this server.
    domain    %s    custom domain    %s
    users     alice and bob; the password is the name
    clients   %s
    APIs      %s
"""

_log = logging.getLogger("sample_apis")


def read_command_line() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m sample_apis.{NAME}",
        description="The development authorization server of the samples. It listens on loopback alone.",
        epilog="Environment: AUTHORIZATION_SERVER_HOST (127.0.0.1), AUTHORIZATION_SERVER_PORT, and"
        " AUTHORIZATION_SERVER_DATABASE, the file with users, sessions, consents, tokens and keys"
        " (authorization_server.sqlite3 in the working folder).",
    )
    parser.add_argument("--port", help=f"the port, 0 for any free one (default {DEFAULT_PORT})")
    parser.add_argument(
        "--spa-origin", action="append", default=[], metavar="URL", help="one more app that users may log in to"
    )
    parser.add_argument("--fresh", action="store_true", help="forget everything that an earlier run has kept")
    parser.add_argument(
        "--implicit",
        action="store_true",
        help="answer `id_token token`, which RFC 9700 advises against, as old samples do",
    )
    for option, values in (
        ("lifetime", "SECONDS"),
        ("algorithm", "|".join(ALGORITHMS)),
        ("dialect", "|".join(DIALECTS)),
    ):
        parser.add_argument(
            f"--{option}", action="append", default=[], metavar=f"API={values}", help=f"the {option} of an API's tokens"
        )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="instead of serving")
    commands.add_parser("keys", help="list the signing keys")
    commands.add_parser("rotate-keys", help="sign with the next keys from now on; a running server does so at once")
    commands.add_parser("revoke-key", help="withdraw a key at once").add_argument("kid", metavar="KID")
    return parser.parse_args()


def configured(catalogue: Catalogue, options: argparse.Namespace) -> Catalogue:
    """Return the catalogue with the options that change an API.

    Raises:
        SettingError: there is no such API, or the value does not fit.
    """
    for option, known in (("lifetime", None), ("algorithm", ALGORITHMS), ("dialect", tuple(DIALECTS))):
        for setting in getattr(options, option):
            identifier, _, value = setting.rpartition("=")
            if identifier not in {api.identifier for api in catalogue.apis}:
                raise SettingError(f"--{option} {setting}: write API=VALUE with the identifier of a registered API")
            if value not in known if known else not (value.isascii() and value.isdigit() and int(value[:9]) > 0):
                raise SettingError(f"--{option} {setting}: the value is {' or '.join(known or ('seconds',))}")
            changed = {option: value if known else int(value[:9])}
            apis = (replace(api, **changed) if api.identifier == identifier else api for api in catalogue.apis)  # type: ignore[arg-type]
            catalogue = replace(catalogue, apis=tuple(apis))
    return catalogue


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on loopback.

    Raises:
        SettingError: the host is not on loopback, or the port is taken.
    """
    host = "127.0.0.1" if host == "localhost" else host
    try:
        if not ip_address(host).is_loopback:
            raise ValueError
    except ValueError:
        raise SettingError(
            f"AUTHORIZATION_SERVER_HOST is {host!r}: this server is for development and listens on loopback alone;"
            " leave the variable out"
        ) from None
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise SettingError(f"cannot listen on {host} port {port} ({error}): choose another --port") from error


def serve(options: argparse.Namespace) -> None:
    """Serve until SIGINT or SIGTERM."""
    log_to_stderr()
    catalogue = configured(sample_catalogue(options.spa_origin), options)
    environ = dict(os.environ) | ({f"{NAME.upper()}_PORT": options.port} if options.port is not None else {})
    with listen(*read_address(NAME, environ, default_port=DEFAULT_PORT)) as listener:
        host, port = listener.getsockname()[:2]
        # The first is the main one. The apps are on localhost, and only there the browser lets a hidden frame of
        # theirs see the session: localhost and 127.0.0.1 are different sites.
        domains = (f"http://localhost:{port}/", f"http://{f'[{host}]' if ':' in host else host}:{port}/")

        def open_app(database: Path) -> object:
            if options.fresh:
                for end in ("", "-wal", "-shm"):
                    database.with_name(database.name + end).unlink(missing_ok=True)
            return create_app(database, catalogue, domains=domains, implicit=options.implicit)

        app = open_store(NAME, os.environ, open_app)
        clients = " ".join(client.client_id for client in catalogue.clients)
        _log.info(BANNER.rstrip(), *domains, clients, " ".join(api.identifier for api in catalogue.apis))
        _log.info("%s listens on %s", NAME, domains[0])
        try:
            serve_wsgi(app, listener)  # type: ignore[arg-type]
        finally:
            _log.info("%s stopped", NAME)


def change_keys(command: str, kid: str | None) -> None:
    """Rotate the keys or revoke one, and list them."""
    keys = open_store(NAME, os.environ, KeyRing)
    if command != "revoke-key" and not list(keys.states()):
        raise SettingError(
            f"no server has kept keys here: run this in the server's folder, or set {NAME.upper()}_DATABASE to its file"
        )
    match command:
        case "rotate-keys":
            keys.rotate()
        case "revoke-key":
            keys.revoke(kid or "")
    for algorithm, state, key_id in keys.states():
        print(f"{algorithm:8} {state:9} {key_id}")


def main() -> None:
    options = read_command_line()
    try:
        if options.command:
            change_keys(options.command, getattr(options, "kid", None))
        else:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda number, frame: sys.exit(0))
            serve(options)
    except SettingError as error:
        sys.exit(f"{NAME}: {error}")
    except UnknownKey as error:
        sys.exit(f"{NAME}: there is no key {error}; the command `keys` lists them")


if __name__ == "__main__":
    main()
