"""The application of each framework in a process of its own, behind a resource server that tells its reasons.

Knows nothing about faults and load.
"""

import logging
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from tests.chaos.clock import ManualClock
from token_guard import ChallengePolicy, FileKeyStore, KeyPolicy, ResourceServer

TIME_TO_LIVE = 60.0  # seconds, so that an outage of ten minutes is ten lifetimes of the keys
COOLDOWN = 1.0

THREADS = 16  # of a WSGI server

# Processes are forked from one that has imported the frameworks, so that they start at once. What a resource server
# imports with its first fetch is not among them: a cold one has to do that under load.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [f"tests.adapters.applications.in_{name}" for name in ("flask", "django", "starlette")]
)


@dataclass(frozen=True)
class Settings:
    """What a resource server is told, in this process or in that of an application."""

    issuer: str
    clock: Path | None = None
    store: Path | None = None

    def resource_server(self) -> ResourceServer:
        store = None if self.store is None else FileKeyStore(self.store)
        return ResourceServer(
            issuer=self.issuer,
            audience="organize",
            keys=KeyPolicy(time_to_live=TIME_TO_LIVE, unknown_key_cooldown=COOLDOWN, store=store),
            challenge=ChallengePolicy(expose_reasons=True),
            monotonic=time.monotonic if self.clock is None else ManualClock(self.clock),
        )


def serve_flask(organizer: ResourceServer, listener: socket.socket) -> None:
    from waitress.server import create_server

    from tests.adapters.applications.in_flask import application

    app = application(organizer, asynchronous=False, catches=False, debug=False)
    create_server(app, sockets=[listener], threads=THREADS).run()


def serve_django(organizer: ResourceServer, listener: socket.socket) -> None:
    from waitress.server import create_server

    from tests.adapters.applications.in_django import application

    with application(organizer, asynchronous=False, catches=False, debug=False, asgi=False) as app:
        create_server(app, sockets=[listener], threads=THREADS).run()


def serve_starlette(organizer: ResourceServer, listener: socket.socket) -> None:
    import uvicorn

    from tests.adapters.applications.in_starlette import application

    app = application(organizer, asynchronous=True, catches=False, debug=False)
    uvicorn.Server(uvicorn.Config(app, log_config=None)).run(sockets=[listener])


SERVE = {"flask": serve_flask, "django": serve_django, "starlette": serve_starlette}


def serve(name: str, settings: Settings, log: Path, told: Connection) -> None:
    """Serve one application on a free port, tell its address, and go on until the process is ended."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    logging.basicConfig(filename=log, level=logging.INFO)
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    told.send(f"http://127.0.0.1:{listener.getsockname()[1]}")
    SERVE[name](settings.resource_server(), listener)


def end_with_parent() -> None:
    """A test that is killed leaves no application behind."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def running(folder: Path, settings: Settings) -> Iterator[dict[str, str]]:
    """Start every application and yield where each listens; end them with the block. Their logs are in `folder`."""
    with ExitStack() as stack:
        addresses = {}
        for name in SERVE:
            addresses[name], told = PROCESSES.Pipe(duplex=False)
            process = PROCESSES.Process(target=serve, args=(name, settings, folder / f"{name}.log", told), daemon=True)
            process.start()
            stack.callback(process.join)
            stack.callback(process.kill)
            told.close()
        yield {name: address.recv() for name, address in addresses.items()}
