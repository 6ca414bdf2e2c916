"""The life of a service: read the settings, listen, serve until SIGINT or SIGTERM, stop cleanly.

Knows the two servers (waitress for WSGI, uvicorn for ASGI), not what they serve.
"""

import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import uvicorn
from waitress.server import create_server

from sample_apis.cors import Origins, allow_origins_asgi, allow_origins_wsgi, read_origins
from sample_apis.organizer import organizer_from_env
from sample_apis.settings import Environ, SettingError, read_address
from sample_apis.validation import MAX_BODY
from token_guard import ConfigurationError, ResourceServer, TemporarilyUnavailable

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from starlette.types import ASGIApp

GRACE = 5  # seconds that requests under way have to finish once the service is told to stop

# A JWT wherever it appears: in an address, in the message of an exception. Three base64url parts, the first one JSON.
_TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]*")

_log = logging.getLogger("sample_apis")

App = TypeVar("App")


def run(
    name: str,
    *,
    default_port: int,
    resource_server_from_env: Callable[[Environ], ResourceServer] = organizer_from_env,
    build: Callable[[ResourceServer, Environ], App],
    serve: Callable[[App, socket.socket, Origins], None],
) -> None:
    """Run the service `name` until it is told to stop. A wrong setting ends the process with status 1 and the fix."""
    log_to_stderr()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        resource_server = resource_server_from_env(os.environ)
        app, origins = build(resource_server, os.environ), read_origins(os.environ)
        listener = listen(name, *read_address(name, os.environ, default_port=default_port))
        try:
            _warm_up(resource_server)
            host, port = listener.getsockname()[:2]
            _log.info("%s listens on http://%s:%d", name, f"[{host}]" if ":" in host else host, port)
            serve(app, listener, origins)
        finally:
            listener.close()
            resource_server.close()
            _log.info("%s stopped", name)
    except (SettingError, ConfigurationError) as error:
        sys.exit(f"{name}: {error}")


def serve_wsgi(app: "WSGIApplication", listener: socket.socket, origins: Origins = frozenset()) -> None:
    """Serve with waitress, also to the pages of `origins`.

    A body much over the services' limit is refused by the server, before it fills a disk.
    """
    logged = _log_requests(allow_origins_wsgi(app, origins))
    create_server(logged, sockets=[listener], ident=None, max_request_body_size=16 * MAX_BODY).run()


def serve_asgi(app: "ASGIApp", listener: socket.socket, origins: Origins = frozenset()) -> None:
    """Serve with uvicorn, which logs through our handler, also to the pages of `origins`."""
    app = allow_origins_asgi(app, origins)
    config = uvicorn.Config(app, log_config=None, server_header=False, timeout_graceful_shutdown=GRACE)
    uvicorn.Server(config).run(sockets=[listener])


class TokenFreeFormatter(logging.Formatter):
    """Formats a record, traceback included, without anything that looks like a JWT."""

    def format(self, record: logging.LogRecord) -> str:
        return _TOKEN.sub("[token]", super().format(record))


def log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(TokenFreeFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def _log_requests(app: "WSGIApplication") -> "WSGIApplication":
    """Log each request with its status, which waitress leaves to the application and uvicorn does itself."""

    def logged(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Callable[[bytes], object]:
            _log.info("%s %a %s", environ["REQUEST_METHOD"], environ["REQUEST_URI"], status)
            return start_response(status, headers, *error)

        return app(environ, start)

    return logged


def stop(number: int, frame: object) -> None:
    # waitress stops on SystemExit; uvicorn stops by itself and raises the signal again when it is done.
    sys.exit(0)


def listen(name: str, host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, UnicodeError) as error:  # the latter for a host that cannot be the name of one
        raise SettingError(
            f"cannot listen on {host} port {port} ({error}): stop what is listening there, or set"
            f" {name.upper()}_HOST and {name.upper()}_PORT to an address of this machine and a free port"
        ) from error


def _warm_up(resource_server: ResourceServer) -> None:
    # A service that cannot reach its issuer starts all the same: it answers 503 and recovers without a restart. A wrong
    # setting is a ConfigurationError and ends it here, before the first request.
    try:
        resource_server.warm_up()
    except TemporarilyUnavailable as error:
        _log.warning("starting without keys; requests are answered 503 until the issuer answers: %s", error)
