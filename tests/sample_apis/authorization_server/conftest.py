"""The authorization server in this process or in one of its own, and a browser small enough to log in with."""

import os
import re
import shutil
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import jwt
import pytest

from sample_apis.authorization_server.app import create_app
from sample_apis.authorization_server.catalogue import Catalogue, sample_catalogue

ROOT = Path(__file__).parent.parent.parent.parent
MAIN, CUSTOM = DOMAINS = ("http://localhost:9400/", "http://127.0.0.1:9400/")
APP = "http://localhost:3000"
ORGANIZE, REPORTS = "organize", "https://reports.example/"
VERIFIER = "a-verifier-of-at-least-forty-three-characters"
OIDC = "openid profile email offline_access"
READING = "read:contacts read:calendar"
STATE, NONCE = "c3RhdGU+L2E=", "bm9uY2U+L2E="  # base64 as the SPA library makes it, with =, + and /
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
_PATIENCE = 30  # seconds that a process has to say something before its test fails

Answer = dict[str, Any]


def authorization_request(**changes: str | None) -> dict[str, str]:
    """What an app asks for at /authorize; None leaves a parameter out."""
    parameters = {
        "client_id": "organizer-spa",
        "response_type": "code",
        "redirect_uri": APP,
        "audience": ORGANIZE,
        "scope": f"{OIDC} {READING}",
        "state": STATE,
        "nonce": NONCE,
        "code_challenge": urlsafe_b64encode(sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
        **changes,
    }
    return {name: value for name, value in parameters.items() if value is not None}


def claims_of(token: str) -> Answer:
    claims: Answer = jwt.decode(token, options={"verify_signature": False})
    return claims


def answer_in(response: httpx.Response) -> dict[str, str]:
    """What the app is sent with a redirect, in the query or in the fragment."""
    assert response.status_code == 302, response.text
    parts = urlsplit(response.headers["Location"])
    return dict(parse_qsl(parts.query or parts.fragment))


class Browser:
    """A person at the pages of the server, and the app that sends them there."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def open(self, **changes: str | None) -> httpx.Response:
        return self.client.get("/authorize", params=authorization_request(**changes))

    def submit(self, page: httpx.Response, **fields: str) -> httpx.Response:
        """Send the form of a page, with what is hidden in it, and follow the server's own redirects."""
        hidden = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.text)
        data = {name: unescape(value) for name, value in hidden} | fields
        response = self.client.post(page.url, data=data)
        return self.client.get(response.headers["Location"]) if response.status_code == 303 else response

    def log_in(self, username: str = "alice", **changes: str | None) -> httpx.Response:
        """Open the pages, and answer each until the app has its answer."""
        return self.answer_pages(self.open(**changes), username)

    def answer_pages(self, response: httpx.Response, username: str = "alice") -> httpx.Response:
        if "password" in response.text:
            response = self.submit(response, username=username, password=username)
        return self.submit(response, action="accept") if "Decline" in response.text else response

    def token(self, client_id: str = "organizer-spa", **parameters: str | None) -> httpx.Response:
        """Ask the token endpoint as this client, in the way that it authenticates."""
        secret = {} if client_id == "organizer-spa" else {"client_secret": f"{client_id}-secret"}
        sent = {"client_id": client_id, **secret, **parameters}
        return self.client.post("/oauth/token", data={name: value for name, value in sent.items() if value is not None})

    def redeem(self, code: str | None, **changes: str | None) -> httpx.Response:
        known = {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER, "redirect_uri": APP}
        client_id = changes.pop("client_id", None) or "organizer-spa"
        return self.token(client_id, **{**known, **changes})

    def tokens(self, username: str = "alice", **changes: str | None) -> Answer:
        """Log in, and get what the token endpoint gives for the code."""
        response = self.redeem(answer_in(self.log_in(username, **changes))["code"])
        assert response.status_code == 200, response.text
        answer: Answer = response.json()
        return answer

    def refresh(self, refresh_token: str, **parameters: str) -> httpx.Response:
        return self.token(grant_type="refresh_token", refresh_token=refresh_token, **parameters)

    def exchange(
        self, subject_token: str | None, client_id: str = "reports-api", **changes: str | None
    ) -> httpx.Response:
        parameters = {"subject_token": subject_token, "subject_token_type": ACCESS_TOKEN, "audience": ORGANIZE}
        return self.token(client_id, grant_type=EXCHANGE, **{**parameters, **changes})

    def introspect(self, token: str) -> Answer:
        auth = ("reports-api", "reports-api-secret")
        answer: Answer = self.client.post("/oauth/introspect", data={"token": token}, auth=auth).json()
        return answer

    def get(self, path: str, token: str) -> httpx.Response:
        return self.client.get(path, headers={"Authorization": f"Bearer {token}"})


@dataclass
class Clock:
    """A clock that the test sets."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def prepared_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with users and keys, which take long to make."""
    path = tmp_path_factory.mktemp("authorization_server") / "prepared.sqlite3"
    create_app(path, sample_catalogue(), domains=DOMAINS)
    return path


Serve = Callable[..., Browser]


@pytest.fixture
def serve(prepared_database: Path, tmp_path: Path, clock: Clock) -> Iterator[Serve]:
    """Make a server with another catalogue or other options, and a browser at one of its domains."""
    database = tmp_path / "authorization_server.sqlite3"
    shutil.copy(prepared_database, database)
    clients = []

    def serve(catalogue: Catalogue | None = None, *, domain: str = MAIN, **options: Any) -> Browser:
        app = create_app(database, catalogue or sample_catalogue(), domains=DOMAINS, clock=clock, **options)
        clients.append(httpx.Client(transport=httpx.WSGITransport(app=app), base_url=domain))
        return Browser(clients[-1])

    yield serve
    for client in clients:
        client.close()


@pytest.fixture
def browser(serve: Serve) -> Browser:
    return serve()


@dataclass
class Process:
    """A server that runs on its own."""

    process: subprocess.Popen[str]
    domain: str
    output: str

    def stop(self) -> str:
        self.process.terminate()
        rest, _ = self.process.communicate(timeout=_PATIENCE)
        assert self.process.returncode == 0, rest
        self.output += rest
        return self.output


class Command:
    """`python -m sample_apis.authorization_server` with its database in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, *arguments: str, **settings: str) -> subprocess.Popen[str]:
        environ: Mapping[str, str] = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AUTHORIZATION_SERVER_")},
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'adapters'}",
            "AUTHORIZATION_SERVER_DATABASE": str(self.folder / "state.sqlite3"),
            **settings,
        }
        command = [sys.executable, "-W", "error", "-m", "sample_apis.authorization_server", *arguments]
        return subprocess.Popen(
            command, cwd=self.folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, *arguments: str, **settings: str) -> tuple[int, str]:
        with self.start(*arguments, **settings) as process:
            output, _ = process.communicate(timeout=_PATIENCE)
        return process.returncode, output

    @contextmanager
    def serving(self, *arguments: str) -> Iterator[Process]:
        with self.start(*arguments) as process:
            assert process.stdout is not None
            output = ""
            while (address := re.search(r"listens on (\S+)", output)) is None:
                line = process.stdout.readline()
                assert line, f"it ended before it listened: {output}"
                output += line
            try:
                yield Process(process, address[1], output)
            finally:
                process.kill()


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One server for all tests that only ask it."""
    with Command(tmp_path_factory.mktemp("served")).serving("--port", "0") as process:
        yield process
