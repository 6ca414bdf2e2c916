"""The one policy for every request that Token Guard makes, against servers that break it, on real sockets."""

import asyncio
import gc
import gzip
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import httpx
import pytest
import trustme

from token_guard import Issuer
from token_guard.discovery import MisconfiguredError
from token_guard.fetch import (
    MAX_BYTES,
    MAX_ETAG_CHARACTERS,
    Document,
    Fetcher,
    FetchFailedError,
    FetchLoop,
    FetchProblem,
    _public_only,
    on_daemon_thread,
)

PATIENCE = 20  # seconds, for what happens at once: only a test that fails waits so long

Script = Callable[[socket.socket], None]

ABSENT, UNAVAILABLE = FetchProblem.ABSENT, FetchProblem.UNAVAILABLE

METADATA = "https://as.example/.well-known/openid-configuration"
OAUTH = "https://as.example/.well-known/oauth-authorization-server"


class RawServer:
    """Listens on a port of 127.0.0.1, reads a request from each connection and answers what the script sends.

    `requests` are the heads received. With `tls` it speaks TLS.
    """

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[str] = []
        self._script = script
        self._tls = tls
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http{'s' if tls else ''}://localhost:{self._socket.getsockname()[1]}/keys"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._answer, args=(self._socket.accept()[0],), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with (
            suppress(OSError),
            connection,
            self._tls.wrap_socket(connection, server_side=True) if self._tls else nullcontext(connection) as spoken,
        ):
            self.requests.append(spoken.recv(65536).decode())
            self._script(spoken)


@pytest.fixture
def serve() -> Iterator[Callable[..., RawServer]]:
    """Start a server that sends these bytes, or whatever a script sends."""
    servers: list[RawServer] = []

    def start(answer: bytes | Script, **options: ssl.SSLContext) -> RawServer:
        servers.append(RawServer(answer if callable(answer) else lambda each: each.sendall(answer), **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def answer(body: bytes = b'{"keys": []}', *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body


class Client:
    """One fetcher on one event loop, as on the fetch thread."""

    def __init__(self, runner: asyncio.Runner, fetcher: Fetcher) -> None:
        self._runner = runner
        self.fetcher = fetcher

    def get(self, url: str) -> Document:
        return self._runner.run(self.fetcher.get(url))

    def get_all(self, *urls: str) -> list[Document | BaseException]:
        async def gather() -> list[Document | BaseException]:
            return await asyncio.gather(*map(self.fetcher.get, urls), return_exceptions=True)

        return self._runner.run(gather())

    def failure(self, url: str) -> FetchFailedError:
        with pytest.raises(FetchFailedError) as failed:
            self.get(url)
        assert url in str(failed.value)
        return failed.value


@contextmanager
def new_client() -> Iterator[Client]:
    with asyncio.Runner() as runner:
        client = Client(runner, Fetcher())
        yield client
        runner.run(client.fetcher.aclose())


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with new_client() as client:
        yield client


@pytest.fixture
def fresh() -> Iterator[Client]:
    """A client that nobody has used."""
    with new_client() as client:
        yield client


def test_brings_a_document(client: Client, serve: Callable[..., RawServer]) -> None:
    """The document is read as strict JSON; the server is told the address alone and asked for no compression."""
    server = serve(answer(b'{"keys": [{"kty": "RSA"}]}'))
    assert client.get(server.url) == Document({"keys": [{"kty": "RSA"}]}, None)
    [request] = server.requests
    assert request.startswith("GET /keys HTTP/1.1\r\n")
    headers = dict(line.split(": ") for line in request.splitlines()[1:] if line)
    assert {name.lower(): value for name, value in headers.items()} == {
        "host": server.url.split("/")[2],
        "connection": "keep-alive",
        "accept": "application/json",
        "accept-encoding": "identity",
        "user-agent": "token-guard",
    }


@pytest.mark.parametrize(
    ("header", "max_age"),
    [
        ("max-age=120", 120),
        ("public, MAX-AGE=0 , must-revalidate", 0),
        ("s-maxage=9", None),
        ("max-age=-1", None),
        ("max-age=1e3", None),
        ("max-age=999999999", 999999999),
        ("max-age=9999999999", None),
        ("no-store", None),
        ("max-age=120\r\nAge: 50", 70),
        ("max-age=120\r\nAge: 500", 0),
        ("max-age=120\r\nAge: -5", 120),
    ],
)
def test_tells_how_long_a_document_may_be_kept(
    client: Client, serve: Callable[..., RawServer], header: str, max_age: float | None
) -> None:
    """Cache-Control is heeded where it is a plain number of seconds, less the time spent in caches (RFC 9111 4.2)."""
    assert client.get(serve(answer(b"{}", f"Cache-Control: {header}")).url).max_age == max_age


@pytest.mark.parametrize(
    ("response", "problem"),
    [
        (answer(status="204 No Content", body=b""), ABSENT),
        (answer(status="206 Partial Content"), ABSENT),
        (answer(status="400 Bad Request"), ABSENT),
        (answer(status="403 Forbidden"), ABSENT),
        (answer(status="404 Not Found"), ABSENT),
        (answer(b"\x1f\x8b", "Content-Encoding: gzip", status="404 Not Found"), ABSENT),
        (answer(status="429 Too Many Requests"), UNAVAILABLE),
        (answer(status="500 Internal Server Error"), UNAVAILABLE),
        (answer(status="503 Service Unavailable"), UNAVAILABLE),
        (answer(b"<html><body>Sign in</body></html>", "Content-Type: text/html"), ABSENT),
        (answer(b""), ABSENT),
        (answer(b'{"keys": ['), ABSENT),
        (answer(b'{"keys": [NaN]}'), ABSENT),
        (answer(b"\xef\xbb\xbf{}"), ABSENT),
        (answer(b"null"), ABSENT),
        (answer(b"9" * 10_000), ABSENT),
        (answer(b'{"keys": [], "keys": []}'), ABSENT),
        (answer("{}".encode("utf-16")), ABSENT),
        (answer(b'{"keys": "\xff"}'), ABSENT),
        (answer(b"[" * 100_000), ABSENT),
        (answer(b'{"keys": []}', length=100), UNAVAILABLE),
        (answer(gzip.compress(b"{}"), "Content-Encoding: gzip"), UNAVAILABLE),
        (answer(gzip.compress(b"{}"), "Content-Encoding: identity, gzip"), UNAVAILABLE),
        (answer(b"", length=10 * 1024 * 1024) + b" " * 10 * 1024 * 1024, UNAVAILABLE),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"10000\r\n%b\r\n" % (b" " * 65536) * 17,
            UNAVAILABLE,
        ),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000, UNAVAILABLE),
        (b"SSH-2.0-OpenSSH_9.6\r\n", UNAVAILABLE),
        (b"", UNAVAILABLE),
    ],
    ids=lambda value: repr(value[:60]) if isinstance(value, bytes) else value.value,
)
def test_brings_nothing_but_json_within_the_limits(
    client: Client, serve: Callable[..., RawServer], response: bytes, problem: FetchProblem
) -> None:
    """JWK-17, DISC-07: an answer is whole, 200, small, not compressed and JSON; what it says of the address decides."""
    assert client.failure(serve(response).url).problem is problem


def test_reads_a_document_of_the_greatest_size(client: Client, serve: Callable[..., RawServer]) -> None:
    """JWK-17: the limit itself is within the limit, and a byte more is not."""
    assert client.get(serve(answer(b"{}" + b" " * (MAX_BYTES - 2))).url).content == {}
    assert "more than" in str(client.failure(serve(answer(b"{}" + b" " * (MAX_BYTES - 1))).url))


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect"])
def test_follows_no_redirect(client: Client, serve: Callable[..., RawServer], status: str) -> None:
    """JWK-19: a redirect is no document, and nothing is sent to where it points."""
    target = serve(answer())
    assert client.failure(serve(answer(b"", f"Location: {target.url}", status=status)).url).problem is ABSENT
    assert not target.requests


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        *[("7", 7), ("0", 0), ("-1", 0), ("1e3", 0), ("99999999", 99999999), ("999999999", 0), ("", 0)],
        ("Wed, 21 Oct 2026 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2026 07:28:00 GMT\r\nDate: Wed, 21 Oct 2026 07:26:30 GMT", 90),
        ("Wed, 21 Oct 2026 07:28:00 GMT\r\nDate: Wed, 21 Oct 2026 07:30:00 GMT", 0),
        ("Wed, 21 Oct 2026 07:28:00 GMT\r\nDate: today", 0),
        ("Wed, 99 Oct 2026 07:28:00 GMT\r\nDate: Wed, 21 Oct 2026 07:30:00 GMT", 0),
        ("Wed, 21 Oct 2026 07:28:00 -0000\r\nDate: Wed, 21 Oct 2026 07:30:00 GMT", 0),
    ],
)
def test_reads_when_to_come_again(client: Client, serve: Callable[..., RawServer], header: str, seconds: float) -> None:
    """Retry-After counts where it is a plain number of seconds, or a date beside the server's own (RFC 9110 10.2.3)."""
    response = answer(b"", f"Retry-After: {header}", status="503 Service Unavailable")
    assert client.failure(serve(response).url).retry_after == seconds


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example/keys",
        "http://169.254.169.254/latest/meta-data",
        "http://localhost.evil.example/",
        "file:///etc/passwd",
        "ftp://issuer.example/",
        "https://user:secret@issuer.example/",
        "//issuer.example/",
        "https://",
        "https://issuer.example:99999/",
        "https://[::1",
        "",
    ],
)
def test_asks_no_unsafe_address(client: Client, url: str) -> None:
    """JWK-19: https, or http on loopback; anything else is not asked at all."""
    failed = client.failure(url)
    assert (failed.problem, str(failed)) == (ABSENT, f"{url} is not https")


def test_a_closed_port_is_unavailable(client: Client) -> None:
    """Nobody listens: nothing can be concluded about the address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert client.failure(f"http://127.0.0.1:{port}/keys").problem is UNAVAILABLE


def test_believes_no_certificate_of_an_unknown_authority(client: Client, serve: Callable[..., RawServer]) -> None:
    """JWK-19: https means a verified server."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(tls)
    server = serve(answer(), tls=tls)
    failed = client.failure(server.url)
    assert failed.problem is UNAVAILABLE
    assert "CERTIFICATE_VERIFY_FAILED" in str(failed)
    assert not server.requests


def test_gives_up_on_servers_that_dawdle(client: Client, serve: Callable[..., RawServer]) -> None:
    """JWK-17: the time limit is for the whole answer: silence, dripped headers and a dripped body all end at once."""
    ended = threading.Event()

    def drip(before: bytes, piece: bytes) -> Script:
        def script(connection: socket.socket) -> None:
            connection.sendall(before)
            while not ended.wait(0.2):
                connection.sendall(piece)

        return script

    scripts = [
        lambda _: ended.wait() and None,
        drip(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        drip(answer(b"", length=100_000), b" "),
    ]
    outcomes = client.get_all(*(serve(script).url for script in scripts))
    ended.set()
    for outcome in outcomes:
        assert isinstance(outcome, FetchFailedError)
        assert outcome.problem is UNAVAILABLE
        assert str(outcome).endswith("/keys did not answer within 5 s")


# Documents that have not changed.


def versioned(connection: socket.socket, request: str, etag: str = '"v1"') -> None:
    """Send a document with a validator, and 304 to whoever has it (RFC 9110 13.1.2)."""
    if f"if-none-match: {etag}" in request.lower():
        connection.sendall(answer(b"", "Cache-Control: max-age=90", status="304 Not Modified"))
    else:
        connection.sendall(answer(b'{"keys": [1]}', f"ETag: {etag}", "Cache-Control: max-age=60"))


def test_asks_whether_a_document_has_changed(client: Client, serve: Callable[..., RawServer]) -> None:
    """A document is kept with the name of its version; an answer 304 brings it again, with a lifetime of its own."""
    requests: list[str] = []
    server = serve(lambda connection: versioned(connection, requests[-1]))
    requests = server.requests
    assert [client.get(server.url) for _ in range(3)] == [
        Document({"keys": [1]}, 60),
        Document({"keys": [1]}, 90),
        Document({"keys": [1]}, 90),
    ]


def test_forgets_a_version_that_has_no_name(client: Client, serve: Callable[..., RawServer]) -> None:
    """A newer document without a validator replaces the one that had one: a 304 then brings nothing back."""
    answers = [answer(b"[1]", 'ETag: "v1"'), answer(b"[2]"), answer(b"", status="304 Not Modified")]
    server = serve(lambda connection: connection.sendall(answers.pop(0)))
    assert [client.get(server.url).content for _ in range(2)] == [[1], [2]]
    assert client.failure(server.url).problem is ABSENT
    assert ["if-none-match" in request.lower() for request in server.requests] == [False, True, False]


@pytest.mark.parametrize(("characters", "is_sent"), [(MAX_ETAG_CHARACTERS, True), (MAX_ETAG_CHARACTERS + 1, False)])
def test_sends_no_endless_validator(
    characters: int, is_sent: bool, client: Client, serve: Callable[..., RawServer]
) -> None:
    """A validator that is too long is not sent back; the limit itself is within the limit."""
    server = serve(answer(b"[1]", f"ETag: {'x' * characters}"))
    client.get(server.url)
    client.get(server.url)
    assert ("if-none-match" in server.requests[1].lower()) is is_sent


def test_believes_no_unasked_304(client: Client, serve: Callable[..., RawServer]) -> None:
    """An answer that a document has not changed, to somebody who has none, brings nothing."""
    assert client.failure(serve(answer(b"", status="304 Not Modified")).url).problem is ABSENT


# Issuers that the operator has not named.


@pytest.mark.parametrize(
    ("host", "told"),
    [("127.0.0.1", "All connection attempts failed"), ("localhost", "the host has no public address")],
)
def test_connects_to_no_private_address_for_a_stranger(host: str, told: str, serve: Callable[..., RawServer]) -> None:
    """JWK-19: the address is judged when it is connected to, whether it was written or looked up; nothing is sent."""
    server = serve(answer())
    with asyncio.Runner(loop_factory=FetchLoop) as runner:
        stranger = Client(runner, Fetcher(public_only=True))
        failed = stranger.failure(server.url.replace("localhost", host))
        assert (failed.problem, server.requests) == (UNAVAILABLE, [])
        assert str(failed).endswith(f" cannot be reached: ConnectError: {told}")
        assert Client(runner, Fetcher()).get(server.url).content == {"keys": []}


def test_connects_to_a_public_address_for_a_stranger(
    serve: Callable[..., RawServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """JWK-19: the address itself is judged, each time; here loopback stands for a public one."""
    monkeypatch.setattr("token_guard.fetch.is_public_address", lambda address: address == "127.0.0.1")
    with asyncio.Runner(loop_factory=FetchLoop) as runner:
        assert Client(runner, Fetcher(public_only=True)).get(serve(answer()).url).content == {"keys": []}


def test_names_the_address_that_it_does_not_connect_to() -> None:
    """For whoever reads a traceback: httpx tells no more than that it failed."""

    async def connect() -> None:
        _public_only.set(True)
        with socket.socket() as unconnected:
            await asyncio.get_running_loop().sock_connect(unconnected, ("127.0.0.1", 9))

    refused = pytest.raises(PermissionError, match=r"^127\.0\.0\.1 is not a public address$")
    with asyncio.Runner(loop_factory=FetchLoop) as runner, refused:
        runner.run(connect())


def test_takes_no_proxy_for_a_stranger(serve: Callable[..., RawServer], monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would look the name up itself, and connect wherever it leads."""
    proxy = serve(answer())
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    with asyncio.Runner(loop_factory=FetchLoop) as runner:
        Client(runner, Fetcher(public_only=True)).failure("https://nowhere.invalid/keys")
        assert proxy.requests == []
        Client(runner, Fetcher()).failure("https://nowhere.invalid/keys")
        assert proxy.requests[0].startswith("CONNECT nowhere.invalid:443")


@pytest.mark.parametrize("etag", [b'"caf\xe9"', b'"' + b"x" * 300 + b'"'])
def test_an_odd_validator_breaks_no_later_fetch(etag: bytes, client: Client, serve: Callable[..., RawServer]) -> None:
    """RFC 9110 8.8.3 allows bytes that no request of ours may hold: such a document is fetched anew each time."""
    server = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nETag: " + etag + b"\r\n\r\n[]")
    assert [client.get(server.url).content for _ in range(2)] == [[], []]


def test_keeps_no_cookies(fresh: Client, serve: Callable[..., RawServer]) -> None:
    """What one issuer, or one user's exchange, is given to remember, is not another's to get."""
    server = serve(answer(b"[]", "Set-Cookie: session=alice; Path=/", "Set-Cookie: wide=1; Domain=localhost"))
    fresh.get(server.url)
    fresh.get(server.url)
    assert "cookie" not in server.requests[1].lower()


@pytest.mark.parametrize(
    "script", [b"SECRET\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{SECRET}"]
)
def test_tells_nothing_of_what_breaks_http(script: bytes, client: Client, serve: Callable[..., RawServer]) -> None:
    """SEC-03: an answer may hold a token, or echo our secret; the error names its kind alone."""
    assert "SECRET" not in str(client.failure(serve(script).url))


def test_remembers_a_bounded_number_of_bytes(fresh: Client, serve: Callable[..., RawServer]) -> None:
    """An issuer that names another address each time does not fill the memory."""
    server = serve(answer(b'"' + b"x" * (MAX_BYTES - 2) + b'"', 'ETag: "v1"'))
    for number in range(6):
        fresh.get(f"{server.url}{number}")
    assert 3 * MAX_BYTES < fresh.fetcher._known.currsize <= 4 * MAX_BYTES


def test_a_304_keeps_the_lifetime_that_the_document_had(client: Client, serve: Callable[..., RawServer]) -> None:
    """RFC 9111 4.3.4: what a 304 does not say is as it was."""
    answers = [answer(b"[1]", 'ETag: "v1"', "Cache-Control: max-age=60"), answer(b"", status="304 Not Modified")]
    server = serve(lambda connection: connection.sendall(answers.pop(0)))
    assert [client.get(server.url) for _ in range(2)] == [Document([1], 60), Document([1], 60)]


def test_keeps_no_connection(fresh: Client, serve: Callable[..., RawServer]) -> None:
    """A visit every ten minutes needs none: the connection is closed with the answer, also where the server waits."""
    closed = threading.Event()

    def script(connection: socket.socket) -> None:
        connection.sendall(answer())
        if connection.recv(1) == b"":
            closed.set()

    fresh.get(serve(script).url)
    assert closed.wait(PATIENCE)


@pytest.mark.parametrize("public_only", [False, True])
def test_believes_the_authorities_of_the_environment(
    public_only: bool, serve: Callable[..., RawServer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever runs an authority of their own names it in SSL_CERT_FILE, also for issuers that nobody has named."""
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    with asyncio.Runner() as runner:  # on another loop than ours, the address is not judged
        assert Client(runner, Fetcher(public_only=public_only)).get(serve(answer(), tls=tls).url).content == {
            "keys": []
        }


class Broken(httpx.AsyncBaseTransport):
    """A transport whose requests fail."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise self._error


@pytest.mark.parametrize(
    ("cause", "told"),
    [
        (answer(b"<html>"), "answered with something that is not JSON"),
        (answer(status="404 Not Found"), "answered 404"),
        (answer(status="500 Internal Server Error"), "answered 500"),
        (
            answer(b"", "Location: https://login.example/?a=b?c", status="302 Found"),
            "answered 302 with a redirect to 'https://login.example/', which is not followed",
        ),
        (answer(b"{}", "Content-Encoding: br"), "answered with a compressed body, which was not asked for"),
        (answer(b"{}" + b" " * MAX_BYTES), f"answered with more than {MAX_BYTES} bytes"),
        (httpx.ConnectError("no\nroute"), "cannot be reached: ConnectError: no\\nroute"),
        (OSError("no route"), "cannot be reached: OSError: no route"),
        (httpx.InvalidURL("odd"), "cannot be reached: InvalidURL: odd"),
        (httpx.RemoteProtocolError("a token"), "cannot be reached: RemoteProtocolError"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_tells_what_is_wrong(cause: bytes | Exception, told: str, serve: Callable[..., RawServer]) -> None:
    """The whole text: the address and what came from it, escaped, and neither a body nor a query."""
    transport = Broken(cause) if isinstance(cause, Exception) else None
    url = "https://issuer.example/keys" if isinstance(cause, Exception) else serve(cause).url
    with asyncio.Runner() as runner:
        assert str(Client(runner, Fetcher(transport)).failure(url)) == f"{url} {told}"


def test_reads_what_a_transport_of_the_user_has_ready() -> None:
    """A response that was made of its content comes from no socket, and is read all the same."""
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json={"asked": str(request.url)}))
    with asyncio.Runner() as runner:
        for url in ("https://as.example/keys", "http://127.0.0.1:9/keys"):
            assert Client(runner, Fetcher(transport)).get(url).content == {"asked": url}


def test_a_failed_fetch_says_nothing_of_when_to_come_again_by_itself() -> None:
    """That is for the server to say."""
    assert FetchFailedError(ABSENT, "the address is not https").retry_after == 0


def test_tells_of_every_place_where_an_endpoint_was_looked_for() -> None:
    """DISC-03: why each of them had none, and when the last of them wants to be asked again."""
    statuses = {METADATA: 404, OAUTH: 503}
    headers = {"Retry-After": "7"}
    transport = httpx.MockTransport(lambda request: httpx.Response(statuses[str(request.url)], headers=headers))
    with asyncio.Runner() as runner, pytest.raises(FetchFailedError) as failed:
        runner.run(Fetcher(transport).endpoint(Issuer("https://as.example/"), "token_endpoint"))
    assert str(failed.value) == f"{METADATA} answered 404; {OAUTH} answered 503"
    assert (failed.value.problem, failed.value.retry_after) == (UNAVAILABLE, 7)


def test_finds_an_endpoint_of_the_metadata() -> None:
    """DISC-07: the one that was asked for, of the document of this issuer alone."""
    document = {"issuer": "https://as.example/", "jwks_uri": "https://as.example/k", "token_endpoint": "https://a/t"}
    fetcher = Fetcher(httpx.MockTransport(lambda _: httpx.Response(200, json=document)))
    with asyncio.Runner() as runner:
        assert runner.run(fetcher.endpoint(Issuer("https://as.example/"), "token_endpoint")) == "https://a/t"
        with pytest.raises(MisconfiguredError, match=f"^{METADATA} names the issuer 'https://as.example/', but"):
            runner.run(fetcher.endpoint(Issuer("https://as.example"), "token_endpoint"))


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.0.0.2", "[::1]", "[0:0:0:0:0:0:0:1]"])
def test_takes_no_proxy_to_this_machine(
    serve: Callable[..., RawServer], monkeypatch: pytest.MonkeyPatch, variable: str, host: str
) -> None:
    """Plain http is for loopback alone, whatever its spelling: a proxy would read it, and answer in our place."""
    proxy = serve(answer(b'{"from": "proxy"}'))
    monkeypatch.setenv(variable, proxy.url)
    with asyncio.Runner() as runner:
        Client(runner, Fetcher()).failure(f"http://{host}:9/keys")
    assert proxy.requests == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [("NO_PROXY", "[::1]"), ("ALL_PROXY", "gopher://proxy.example"), ("SSL_CERT_FILE", "nowhere/ca.pem")],
)
def test_names_the_variables_when_the_environment_makes_no_client(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """A wrong proxy or certificate file is told as what it is."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(FetchFailedError) as failed:
        Fetcher()
    assert re.fullmatch(
        r"no HTTP client can be made \((InvalidURL|ValueError|FileNotFoundError)\): look at the environment variables"
        " HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY and SSL_CERT_FILE",
        str(failed.value),
    )


@pytest.mark.parametrize("coding", ["identity", "Identity", ""])
def test_reads_a_body_that_is_said_to_be_plain(client: Client, serve: Callable[..., RawServer], coding: str) -> None:
    """RFC 9110 8.4.1: `identity` is no compression, in any case."""
    assert client.get(serve(answer(b"[]", f"Content-Encoding: {coding}")).url).content == []


# The loop.


def test_looks_names_up_as_the_system_does() -> None:
    """The loop's own way to look up a name brings what the system's brings, for the same questions."""
    question = {"family": socket.AF_INET, "type": socket.SOCK_STREAM, "proto": socket.IPPROTO_TCP}
    with asyncio.Runner(loop_factory=FetchLoop) as runner:
        found = runner.run(runner.get_loop().getaddrinfo("127.0.0.9", 443, **question))
    assert found == socket.getaddrinfo("127.0.0.9", 443, **question)


@pytest.mark.parametrize("host", ["1.1.1.1", "2606:4700::1111"])
def test_looks_up_public_addresses_for_a_stranger(host: str) -> None:
    """Where an address is public, it is the answer."""

    async def look_up() -> object:
        _public_only.set(True)
        return await asyncio.get_running_loop().getaddrinfo(host, 443, type=socket.SOCK_STREAM)

    with asyncio.Runner(loop_factory=FetchLoop) as runner:
        assert runner.run(look_up()) == socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)


def test_a_loop_that_nobody_closed_is_told() -> None:
    """As asyncio does: only half a loop ends silently."""

    def leave_behind() -> None:
        FetchLoop()
        gc.collect()

    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        leave_behind()


def test_runs_errands_on_daemon_threads() -> None:
    """Nobody waits for their end, and a debugger shows whose they are; what they raise is raised."""

    def fail() -> None:
        raise OSError("no such disk")

    thread = asyncio.run(on_daemon_thread(threading.current_thread))
    assert (thread.name, thread.daemon) == ("token-guard-errand", True)
    with pytest.raises(OSError, match="no such disk"):
        asyncio.run(on_daemon_thread(fail))
