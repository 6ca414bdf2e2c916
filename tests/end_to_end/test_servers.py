"""Real servers with several processes: keys fetched before a fork, rotations, reloads, and an end without a hang."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from token_guard.testing import LocalIssuer, SigningKey

ROOT = Path(__file__).parents[2]
APPLICATIONS = "tests.end_to_end.served"
PATIENCE = 30  # seconds until a process that hangs fails its test

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

GUNICORN = ("gunicorn", "--workers=2", "--bind=127.0.0.1:0", "--graceful-timeout=5", "--preload")
UVICORN = ("uvicorn", "--host=127.0.0.1", "--port=0")
SERVERS = {
    "gunicorn, Flask": (*GUNICORN, f"{APPLICATIONS}.in_flask:app"),
    "gunicorn with threads, Flask": (*GUNICORN, "--threads=4", f"{APPLICATIONS}.in_flask:app"),
    "gunicorn, Django": (*GUNICORN, f"{APPLICATIONS}.in_django:app"),
    "uvicorn, Starlette": (
        *UVICORN,
        "--workers=2",
        "--timeout-worker-healthcheck=30",
        f"{APPLICATIONS}.in_starlette:app",
    ),
}


class CountingIssuer(LocalIssuer):
    """A local issuer that counts how often its keys are fetched, and publishes one more of `upcoming` after each."""

    fetches = 0
    upcoming: tuple[SigningKey, ...] = ()

    def jwks(self) -> dict[str, Any]:
        published = super().jwks()
        self.fetches += 1
        self.keys, self.upcoming = self.keys + self.upcoming[:1], self.upcoming[1:]
        return published

    def upcoming_token(self, subject: str) -> str:
        """A token under one more upcoming key."""
        self.upcoming += (self.add_key("Ed25519", publish=False),)
        return self.token(key=self.upcoming[-1], subject=subject)


@pytest.fixture
def issuer() -> Iterator[CountingIssuer]:
    with CountingIssuer(algorithm="Ed25519").serve() as issuer:
        yield issuer


@dataclass
class Served:
    """A server, a client of it, and the file that all of its processes write to."""

    process: "subprocess.Popen[bytes]"
    client: httpx.Client
    log: Path

    def ask(self, token: str) -> tuple[int, int]:
        """The status of one request, and the process that answered; 0 where it does not say."""
        response = self.client.get("/", headers={"Authorization": f"Bearer {token}", "Connection": "close"})
        return response.status_code, response.json().get("process", 0)

    def workers(self, token: str, besides: frozenset[int] = frozenset(), count: int = 2) -> frozenset[int]:
        """The processes that answer, when `count` others than `besides` have; each must accept the token."""
        seen: set[int] = set()

        def enough() -> bool:
            status, process = self.ask(token)
            assert status == 200
            seen.add(process)
            return len(seen - besides) == count

        until(enough)
        return frozenset(seen - besides)

    def end(self) -> None:
        """Tell the server to end: it does, soon and well, and no process of it has had anything to complain about."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) == 0
        said = self.log.read_text()
        assert not re.search("Traceback|Error|Exception|CRITICAL", said), said


def until(is_so: Callable[[], bool]) -> None:
    """Ask again and again, until it is so."""
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def environment(issuer: LocalIssuer) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("TOKEN_GUARD_")}
    settings = {"TOKEN_GUARD_ISSUER": issuer.url, "TOKEN_GUARD_AUDIENCE": issuer.audience}
    return {**own, **settings, "FIRST_TOKEN": issuer.token(key=issuer.add_key("Ed25519"))}


@contextmanager
def served(issuer: LocalIssuer, log: Path, *command: str) -> Iterator[Served]:
    """Start a server, and wait until it says where it listens."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env=environment(issuer),
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        until(lambda: "http://" in log.read_text() or process.poll() is not None)
        address = re.search(r"http://127.0.0.1:(\d+)", log.read_text())
        assert address, log.read_text()
        until(lambda: listens(int(address[1])))  # uvicorn says where before it does
        with httpx.Client(base_url=address[0], timeout=PATIENCE) as client:
            yield Served(process, client, log)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its workers, too, where a test has failed
        process.wait()


@pytest.mark.parametrize("command", SERVERS.values(), ids=SERVERS)
def test_workers_follow_rotations_and_reloads_and_end(
    command: tuple[str, ...], issuer: CountingIssuer, tmp_path: Path
) -> None:
    """JWK-10, JWK-17: each worker begins with the keys from before the fork, finds new ones by itself, and ends."""
    with served(issuer, tmp_path / "log", *command) as server:
        first, old_kid = issuer.token(), issuer.key.kid
        workers = server.workers(first)
        assert "--preload" not in command or issuer.fetches == 1
        issuer.rotate()
        issuer.withdraw(old_kid)
        assert server.workers(issuer.token()) == workers
        assert {server.ask(first)[0] for _ in range(10)} == {401}
        server.process.send_signal(signal.SIGHUP)
        assert server.workers(issuer.token(), besides=workers)
        server.end()


def test_a_change_of_the_source_reloads(issuer: LocalIssuer, tmp_path: Path) -> None:
    """A developer's server begins anew with each change, and its old process does not hang on its fetch thread."""
    source = tmp_path / "source.py"
    source.touch()
    command = (*UVICORN, "--reload", f"--reload-dir={tmp_path}", f"{APPLICATIONS}.in_starlette:app")
    with served(issuer, tmp_path / "log", *command) as server:
        (before,) = server.workers(issuer.token(), count=1)
        source.write_text("# changed")
        assert server.workers(issuer.token(), frozenset({before}), count=1)
        server.end()


def run_python(issuer: LocalIssuer, program: str, *arguments: str, tokens: list[str]) -> list[str]:
    """Run a program that reads tokens and must end well, without a complaint; the words of its output."""
    ended = subprocess.run(
        [sys.executable, "-W", "default", "-W", "ignore:.*fork:DeprecationWarning", "-c", program, *arguments],
        cwd=ROOT,
        env=environment(issuer),
        input=" ".join(tokens),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.split()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_of_a_pool_fetch_for_themselves(method: str, issuer: CountingIssuer) -> None:
    """A resource server works in the processes of `multiprocessing`, whichever way they are started."""
    program = """
import multiprocessing, sys
from tests.end_to_end.served.organizer import subject_of
if __name__ == "__main__":
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        print(*pool.map(subject_of, sys.stdin.read().split(), chunksize=1))
        pool.close()
        pool.join()
"""
    tokens = [issuer.token(), issuer.upcoming_token("auth0|bob")]
    assert run_python(issuer, program, method, tokens=tokens) == ["auth0|alice", "auth0|bob"]


def test_a_child_of_a_child_fetches_for_itself(issuer: CountingIssuer) -> None:
    """Each generation of processes asks for the newest keys, also where its parent was asking as it forked."""
    program = """
import os, sys, threading
from tests.end_to_end.served.organizer import organizer, subject_of
for token in sys.stdin.read().split():
    threading.Thread(target=organizer.refresh).start()
    child = os.fork()
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    organizer.refresh()
    print(subject_of(token), flush=True)
"""
    subjects = [f"auth0|{number}" for number in range(4)]
    assert run_python(issuer, program, tokens=list(map(issuer.upcoming_token, subjects))) == subjects
