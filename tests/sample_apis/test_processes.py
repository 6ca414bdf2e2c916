"""The services as processes: started by `python -m`, called over a socket, stopped by a signal."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from token_guard.testing import LocalIssuer

ROOT = Path(__file__).parents[2]
PATHS = {"contacts": ["/contacts"], "calendars": ["/calendars/events"], "gateway": ["/contacts", "/calendars/events"]}
SCOPE = "read:contacts read:calendar"
PATIENCE = 30  # seconds until a process that hangs fails its test


@dataclass
class Running:
    """A service that listens at `address`, and what it has written so far."""

    process: subprocess.Popen[str]
    address: str
    output: str

    def stop(self, number: signal.Signals) -> int:
        """Send the signal and return the exit status once the process has gone, with all of its output read."""
        self.process.send_signal(number)
        self.output += self.process.communicate(timeout=PATIENCE)[0]
        return self.process.returncode


@pytest.fixture(scope="module")
def served() -> Iterator[LocalIssuer]:
    with LocalIssuer().serve() as issuer:
        yield issuer


def environment(folder: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """Settings of a service on a free port with its database in `folder`, and nothing of the caller's own."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("TOKEN_GUARD_")}
    files = {f"{name}_DATABASE": str(folder / name) for name in ("CONTACTS", "CALENDARS")}
    ports = {f"{name}_PORT": "0" for name in ("CONTACTS", "CALENDARS", "GATEWAY")}
    return {**own, **files, **ports, **settings}


def start(name: str, folder: Path, settings: Mapping[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", f"sample_apis.{name}"],
        cwd=ROOT,
        env=environment(folder, settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextmanager
def running(name: str, folder: Path, settings: Mapping[str, str]) -> Iterator[Running]:
    """Start a service and wait until it says where it listens."""
    with start(name, folder, settings) as process:
        assert process.stdout is not None
        output = ""
        while (address := re.search(r"listens on (\S+)", output)) is None:
            line = process.stdout.readline()
            assert line, f"{name} ended before it listened: {output}"
            output += line
        try:
            yield Running(process, address[1], output)
        finally:
            process.kill()


def refusal(name: str, folder: Path, settings: Mapping[str, str]) -> str:
    """What a service says that does not start."""
    process = start(name, folder, settings)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    return output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", PATHS)
def test_serves_until_a_signal_and_never_prints_a_token(
    name: str, number: signal.Signals, served: LocalIssuer, tmp_path: Path
) -> None:
    """Good, weak and bad tokens, tokens in addresses, and a failure of our own: none leaves a token in the log."""
    good, weak, expired = served.token(SCOPE), served.token("other"), served.expired(SCOPE)
    with (
        running(name, tmp_path, {"TOKEN_GUARD_ISSUER": served.url}) as service,
        httpx.Client(base_url=service.address) as client,
    ):
        for path in PATHS[name]:
            statuses = [
                client.get(path, headers={"Authorization": f"Bearer {token}"}).status_code
                for token in (good, weak, expired, f"{good}x")
            ]
            assert statuses == [200, 403, 401, 401]
            client.get(path, params={"access_token": good})
            client.get(f"{path}/{good}", headers={"Authorization": f"Bearer {good}"})
        assert client.get("/healthz").json()["issuers"][0]["state"] == "fresh"
        for database in tmp_path.glob("C*[A-Z]"):
            with closing(sqlite3.connect(database)) as connection:
                connection.executescript("DROP TABLE IF EXISTS contact; DROP TABLE IF EXISTS event")
        for path in PATHS[name]:
            assert client.get(path, headers={"Authorization": f"Bearer {good}"}).status_code == 500
        status = service.stop(number)
    assert status == 0, service.output
    assert service.output.endswith(f"{name} stopped\n")
    assert "no such table" in service.output
    for token in (good, weak, expired):
        for part in token.split("."):
            assert part not in service.output


@pytest.mark.parametrize("name", PATHS)
def test_starts_without_its_issuer_and_answers_503(name: str, tmp_path: Path) -> None:
    """An outage of the issuer at start-up is no reason not to start, and never a 401."""
    issuer = LocalIssuer()
    with issuer.serve():
        pass  # its URL has a port from now on, and nobody answers there
    with running(name, tmp_path, {"TOKEN_GUARD_ISSUER": issuer.url}) as service:
        headers = {"Authorization": f"Bearer {issuer.token(SCOPE)}"}
        for path in PATHS[name]:
            answer = httpx.get(service.address + path, headers=headers)
            assert (answer.status_code, answer.json()["reason"]) == (503, "keys_unavailable")
            assert int(answer.headers["Retry-After"]) >= 1
        assert httpx.get(f"{service.address}/healthz").json()["issuers"][0]["state"] == "unavailable"
        assert service.stop(signal.SIGTERM) == 0
    assert "starting without keys" in service.output


def test_a_wrong_setting_ends_the_start_with_its_name_and_the_fix(served: LocalIssuer, tmp_path: Path) -> None:
    """No issuer, an issuer that calls itself otherwise, a port that is taken: each is told in one line."""
    trusted = {"TOKEN_GUARD_ISSUER": served.url}
    port = served.url.rstrip("/").rpartition(":")[2]
    assert "TOKEN_GUARD_ISSUER is required" in refusal("contacts", tmp_path, {})
    assert served.url in refusal("contacts", tmp_path, {"TOKEN_GUARD_ISSUER": served.url.rstrip("/")})
    assert "CALENDARS_PORT is 'x': set it" in refusal("calendars", tmp_path, {**trusted, "CALENDARS_PORT": "x"})
    assert "GATEWAY_PORT to an address" in refusal("gateway", tmp_path, {**trusted, "GATEWAY_PORT": port})
