"""Advisories about fetching keys: from where, how often, how much, and for how long they count."""

import gzip
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.advisories.conftest import now, refused
from token_guard import Reason, ResourceServer
from token_guard.testing import InMemoryTransport, LocalIssuer, SigningKey


class Server(ThreadingHTTPServer):
    """Answers every request on a port of 127.0.0.1 with this status, these headers and this body."""

    daemon_threads = True

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.paths: list[str] = []
        paths = self.paths

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                paths.append(self.path)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Silence: a test's output is for the test."""

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/keys"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, *_: Any) -> None:
        """Hear of it without a word: whoever has read enough hangs up."""


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(body: bytes, *, status: int = 200, **headers: str) -> Server:
        servers.append(Server(status, {name.replace("_", "-"): value for name, value in headers.items()}, body))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


class Ticking:
    """A monotonic clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Ticking:
    return Ticking()


ServerOf = Callable[..., ResourceServer]


@pytest.fixture
def fetching(issuer: LocalIssuer, time: Ticking) -> Iterator[ServerOf]:
    """Make resource servers for the issuer that have to fetch its keys."""
    servers: list[ResourceServer] = []

    def make(**options: Any) -> ResourceServer:
        given = {"issuer": issuer.url, "audience": "organize", "clock": now, "monotonic": time, **options}
        servers.append(ResourceServer(**given))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


class MisleadingIssuer(LocalIssuer):
    """An issuer whose metadata have other members than they should have."""

    changes: dict[str, Any]

    def metadata(self, issuer: str | None = None) -> dict[str, Any]:
        return super().metadata(issuer) | self.changes


def keys_for(key: SigningKey) -> bytes:
    return json.dumps({"keys": [key.public_jwk()]}).encode()


@pytest.mark.parametrize("scheme", ["file://{path}", "ftp://127.0.0.1{path}", "data:application/json,{text}", "{path}"])
def test_keys_come_over_https_alone(fetching: ServerOf, tmp_path: Path, scheme: str) -> None:
    """CVE-2026-48522 (PyJWT): keys were fetched by any scheme, so that a file which a stranger filled held the keys."""
    issuer = MisleadingIssuer(clock=now)
    path = tmp_path / "jwks.json"
    path.write_bytes(keys_for(issuer.key))
    issuer.changes = {"jwks_uri": scheme.format(path=path, text=path.read_text())}
    transport = issuer.transport()
    assert refused(fetching(transport=transport), issuer.token()).reason is Reason.ISSUER_MISCONFIGURED
    assert [url for _, url in transport.requests] == [f"{issuer.url}.well-known/openid-configuration"]


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/latest/meta-data/", "http://keys.example/", "https://u:p@keys.example/"]
)
def test_keys_come_from_no_address_in_the_clear(fetching: ServerOf, url: str) -> None:
    """CVE-2026-48522 (PyJWT): an address of keys is also a way to make the server ask its neighbours."""
    issuer = MisleadingIssuer(clock=now)
    issuer.changes = {"jwks_uri": url}
    transport = issuer.transport()
    assert refused(fetching(transport=transport), issuer.token()).reason is Reason.ISSUER_MISCONFIGURED
    assert len(transport.requests) == 1


def test_metadata_of_another_issuer_are_refused(fetching: ServerOf) -> None:
    """CVE-2025-59936 (get-jwks) and issuer mix-up: keys were taken before anybody asked whose they are."""
    issuer = MisleadingIssuer(clock=now)
    issuer.changes = {"issuer": "https://evil.example/"}
    transport = issuer.transport()
    assert refused(fetching(transport=transport), issuer.token()).reason is Reason.ISSUER_MISCONFIGURED
    assert len(transport.requests) == 1


def test_an_issuer_of_the_token_is_not_asked(issuer: LocalIssuer, fetching: ServerOf) -> None:
    """CVE-2025-59936 (get-jwks): whatever issuer a token named was asked for keys, and theirs were cached for all."""
    stranger = LocalIssuer("https://evil.example/", clock=now)
    transport = InMemoryTransport(issuer, stranger)
    server = fetching(transport=transport)
    for _ in range(3):
        assert refused(server, stranger.token()).reason is Reason.WRONG_ISSUER
    assert not transport.requests
    assert refused(server, issuer.token(key=stranger.key)).reason is Reason.UNKNOWN_KEY
    assert all(url.startswith(issuer.url) for _, url in transport.requests)


@pytest.mark.parametrize("member", ["jku", "x5u", "jwks_uri", "iss", "kid"])
def test_an_address_in_a_token_is_not_asked(
    issuer: LocalIssuer, fetching: ServerOf, serve: Callable[..., Server], member: str
) -> None:
    """Invicti, "Unvalidated JWT x5u parameter", and Acunetix, "JWT signature bypass via unvalidated jku parameter".

    The token named where its key is to be fetched: that forges tokens, and makes the server ask whom it should not.
    """
    own = SigningKey.generate("RS256")
    theirs = serve(keys_for(own))
    server = fetching(transport=issuer.transport())
    forged = issuer.token(key=own, headers={member: theirs.url})
    assert refused(server, forged).reason is Reason.UNKNOWN_KEY
    assert not theirs.paths


def test_unknown_key_ids_cause_one_fetch(issuer: LocalIssuer, fetching: ServerOf, time: Ticking) -> None:
    """CVE-2026-48524 (PyJWT, GHSA-fhv5-28vv-h8m8): each unknown key ID made a request to the issuer."""
    transport = issuer.transport()
    server = fetching(transport=transport)
    server.validate(issuer.token())
    held = len(transport.requests)
    for number in range(200):
        assert refused(server, issuer.token(headers={"kid": f"k{number}"})).reason is Reason.UNKNOWN_KEY
    caused = len(transport.requests) - held
    assert caused == held  # once metadata and keys, as at first
    time.now += 6
    assert refused(server, issuer.token(headers={"kid": "k1000"})).reason is Reason.UNKNOWN_KEY
    assert len(transport.requests) == 3 * held


def test_a_failed_fetch_throws_no_keys_away(issuer: LocalIssuer, fetching: ServerOf) -> None:
    """CVE-2026-48524 (PyJWT): an unknown key ID while the issuer was down emptied the cache, for everybody."""
    transport = issuer.transport()
    server = fetching(transport=transport, token_cache_size=0)
    server.validate(issuer.token())
    transport.failing = True
    assert refused(server, issuer.token(headers={"kid": "junk"})).reason is Reason.KEYS_UNAVAILABLE
    server.validate(issuer.token())


def test_a_withdrawn_key_is_gone(fetching: ServerOf, time: Ticking) -> None:
    """GHSA-675f-rq2r-jw82 (jwkset): a refresh added keys and dropped none, so a stolen one could not be withdrawn."""
    issuer = LocalIssuer(clock=now)
    server = fetching(transport=issuer.transport())
    stolen = issuer.key
    token = issuer.token()
    server.validate(token)
    issuer.rotate()
    issuer.withdraw(stolen.kid)
    time.now += 601
    server.validate(issuer.token())
    assert refused(server, token).reason is Reason.UNKNOWN_KEY
    assert refused(server, issuer.token(key=stolen)).reason is Reason.UNKNOWN_KEY


def test_an_answer_has_a_greatest_size(issuer: LocalIssuer, fetching: ServerOf, serve: Callable[..., Server]) -> None:
    """CVE-2025-61920 (Authlib), for a key set: whatever comes from outside is read to a limit and no further."""
    keys = json.dumps(issuer.jwks()).encode()
    fetching(jwks_uri=serve(keys).url).validate(issuer.token())
    huge = serve(keys + b" " * 20_000_000)
    assert refused(fetching(jwks_uri=huge.url), issuer.token()).reason is Reason.KEYS_UNAVAILABLE


@pytest.mark.parametrize("encoding", ["gzip", "gzip, gzip", "deflate", "br", "zstd"])
def test_an_answer_is_not_decompressed(
    issuer: LocalIssuer, fetching: ServerOf, serve: Callable[..., Server], encoding: str
) -> None:
    """CVE-2025-66471 and CVE-2025-66418 (urllib3): a few bytes from the server became gigabytes here."""
    keys = json.dumps(issuer.jwks()).encode()
    for body in (keys, keys + b" " * 10_000_000):
        server = fetching(jwks_uri=serve(gzip.compress(body), content_encoding=encoding).url)
        assert refused(server, issuer.token()).reason is Reason.KEYS_UNAVAILABLE


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(
    issuer: LocalIssuer, fetching: ServerOf, serve: Callable[..., Server], status: int
) -> None:
    """CVE-2026-21441 (urllib3): the body of a redirect was decompressed without a limit on the way to its target."""
    target = serve(json.dumps(issuer.jwks()).encode())
    bomb = gzip.compress(b" " * 10_000_000)
    first = serve(bomb, status=status, location=target.url, content_encoding="gzip")
    assert refused(fetching(jwks_uri=first.url), issuer.token()).reason is Reason.KEYS_UNAVAILABLE
    assert first.paths
    assert not target.paths
