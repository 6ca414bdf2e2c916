"""The life of an app that browsers open: listen, serve until SIGINT or SIGTERM, stop cleanly. Knows no app.

The APIs' own is `sample_apis.service.run`; an app is no resource server, so nothing is set up or warmed up here.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.types import ASGIApp

from sample_apis.service import listen, log_to_stderr, serve_asgi, stop
from sample_apis.settings import Environ, SettingError, read_address

_log = logging.getLogger("sample_apis")


def run_app(name: str, *, default_port: int, build: Callable[[Environ], ASGIApp]) -> None:
    """Run the app `name` until it is told to stop. A wrong setting ends the process with status 1 and the fix."""
    log_to_stderr()
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)  # addresses that a login returns to hold its code
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        app = build(os.environ)
        with listen(name, *read_address(name, os.environ, default_port=default_port)) as listener:
            host, port = listener.getsockname()[:2]
            _log.info("%s listens on http://%s:%d", name, f"[{host}]" if ":" in host else host, port)
            serve_asgi(app, listener)
    except SettingError as error:
        sys.exit(f"{name}: {error}")


def read_origin(name: str, environ: Environ, default: str) -> str:
    """Return an origin, `https://login.example`, from the environment. A slash at its end may be there or not.

    Raises:
        SettingError: it is not an origin.
    """
    value = (environ.get(name) or default).removesuffix("/")
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or value != f"{parts.scheme}://{parts.netloc}" or ";" in value:
        raise SettingError(f"{name} is {value!r}: set it to an address without a path, as in {default}")
    return value
