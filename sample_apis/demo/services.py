"""The sample services as processes of their own. Knows how one is started, found and ended, not what it is asked."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

STARTS_WITHIN = 30.0  # seconds
STOPS_WITHIN = 8.0  # seconds; a service gives the requests under way a little less
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_ADDRESS = re.compile(r" listens on (http://\S+)")

# Settings of the caller's own services and proxies are not ours: they would lead the services astray.
_FOREIGN = re.compile(
    r"(TOKEN_GUARD|CONTACTS|CALENDARS|GATEWAY|REPORTS|AUTHORIZATION_SERVER|WEB)_.*|.*_proxy", re.IGNORECASE
)


class StartError(Exception):
    """A service did not start."""


class Service:
    """One service, `python -m sample_apis.NAME`, with its log and its databases in a folder.

    It listens on a free port unless it is given one, and on the same one after a restart. Its process belongs to our
    process group.
    """

    def __init__(
        self, name: str, folder: Path, settings: Mapping[str, str], *, port: int = 0, arguments: Sequence[str] = ()
    ) -> None:
        self.name = name
        self.arguments = tuple(arguments)  # of its command line, from the next start on
        self.url = f"http://localhost:{port}" if port else ""
        self._folder = folder
        self._log = folder / f"{name}.log"
        self._settings = {name: value for name, value in os.environ.items() if not _FOREIGN.fullmatch(name)}
        self._settings.update(settings)
        self._began_at = 0  # where in the log the present process begins
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process; `wait_until_ready` says when it listens, so that several can start side by side."""
        settings = {**self._settings, f"{self.name.upper()}_PORT": str(urlsplit(self.url).port or 0)}
        command = [sys.executable, "-m", f"sample_apis.{self.name}", *self.arguments]
        with self._log.open("ab") as log, uninterrupted():
            self._began_at = log.tell()
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                command, cwd=self._folder, env=settings, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def wait_until_ready(self) -> None:
        """Wait until the service listens, and learn its address from its log.

        Raises:
            StartError: it ended, or took too long.
        """
        deadline = time.monotonic() + STARTS_WITHIN
        while (address := _ADDRESS.search(log := self._log.read_bytes()[self._began_at :].decode())) is None:
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                raise StartError(f"{self.name} did not start; its last words: {' '.join(log.splitlines()[-1:])}")
            time.sleep(0.05)
        self.url = address[1]

    def restart(self) -> None:
        """Stop the service and start it again, with nothing in its memory."""
        self.stop()
        self.start()
        self.wait_until_ready()

    def terminate(self) -> None:
        """Tell the process to end."""
        if self._process is not None:
            self._process.terminate()

    def stop(self) -> None:
        """End the process and wait until it is gone; one that does not end by itself is killed."""
        self.terminate()
        if self._process is not None:
            try:
                self._process.wait(STOPS_WITHIN)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


@contextmanager
def running(*services: Service) -> Iterator[None]:
    """Start the services, and end them when the block ends, however it ends."""
    try:
        for service in services:
            service.start()
        for service in services:
            service.wait_until_ready()
        yield
    finally:
        with uninterrupted():
            for service in services:
                service.terminate()
            for service in services:
                service.stop()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let a signal to stop wait for the end of the block: half a start or half an end would leave a process behind."""
    waiting: list[int] = []
    handlers = {number: signal.signal(number, lambda number, _: waiting.append(number)) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if waiting:
            signal.raise_signal(waiting[0])
