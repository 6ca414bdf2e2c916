"""How a local issuer is asked: its answers to HTTP requests, and the two roads by which they come.

`answer` is the whole server as a function; the transport calls it in memory, the HTTP server on a loopback port. It
must not know how a token is made. RFC 8414, section 3 (where metadata is), RFC 6749, sections 2.3.1, 4.4 and 5 (the
token endpoint).
"""

import base64
import json
import secrets
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote_plus, urlsplit

import httpx

if TYPE_CHECKING:
    from token_guard.testing.local_issuer import LocalIssuer

_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}  # RFC 6749, section 5.1


@dataclass(frozen=True)
class Client:
    """A client that the token endpoint knows. `scope` is all that it may be granted."""

    client_id: str
    secret: str = field(repr=False)
    scope: str


def answer(issuer: "LocalIssuer", request: httpx.Request) -> httpx.Response:
    """Answer one request as the issuer, under the name that the request's host gives it."""
    names = (url for url in issuer.urls if httpx.URL(url).netloc == request.url.netloc)
    name = next(names, issuer.url)
    metadata = issuer.metadata(name)
    base = httpx.URL(name).path.rstrip("/")
    endpoints: dict[str, tuple[str, Callable[[], httpx.Response]]] = {
        f"{base}/.well-known/openid-configuration": ("GET", lambda: httpx.Response(200, json=metadata)),
        f"/.well-known/oauth-authorization-server{base}": ("GET", lambda: httpx.Response(200, json=metadata)),
        httpx.URL(metadata["jwks_uri"]).path: ("GET", lambda: httpx.Response(200, json=issuer.jwks())),
        httpx.URL(metadata["token_endpoint"]).path: ("POST", lambda: _token_endpoint(issuer, name, request)),
    }
    if request.url.path not in endpoints:
        return httpx.Response(404, json={"error": "not_found"})
    method, endpoint = endpoints[request.url.path]
    if request.method != method:
        return httpx.Response(405, json={"error": "method_not_allowed"}, headers={"Allow": method})
    return endpoint()


class _TokenError(Exception):
    """An error answer of the token endpoint (RFC 6749, section 5.2)."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        self.status = status
        self.body = {"error": error, "error_description": description}


def _token_endpoint(issuer: "LocalIssuer", name: str, request: httpx.Request) -> httpx.Response:
    try:
        return httpx.Response(200, json=_grant(issuer, name, request), headers=_NO_STORE)
    except _TokenError as error:
        challenge = {"WWW-Authenticate": 'Basic realm="token endpoint"'} if error.status == 401 else {}
        return httpx.Response(error.status, json=error.body, headers=_NO_STORE | challenge)


def _grant(issuer: "LocalIssuer", name: str, request: httpx.Request) -> dict[str, Any]:
    """Judge a client-credentials request and mint the token (RFC 6749, section 4.4)."""
    try:
        parameters = _parameters(request)
        client_id, secret = _credentials(request, parameters)
    except (TypeError, ValueError):
        raise _TokenError("invalid_request", "The request cannot be read.") from None
    if "grant_type" not in parameters:
        raise _TokenError("invalid_request", "The parameter grant_type is missing.")
    if parameters["grant_type"] != "client_credentials":
        raise _TokenError("unsupported_grant_type", "Only client_credentials is supported.")
    client = _authenticate(issuer, client_id, secret)
    if parameters.get("audience") != issuer.audience:
        raise _TokenError("invalid_request", "The parameter audience does not name an API of this issuer.")
    scope = parameters.get("scope", client.scope).split()
    if not set(scope) <= set(client.scope.split()):
        raise _TokenError("invalid_scope", "The client may not have all of this scope.")
    lifetime = issuer.lifetime
    token = issuer.client_token(" ".join(scope), client.client_id, lifetime=lifetime, issuer=name)
    return {"access_token": token, "token_type": "Bearer", "expires_in": lifetime}


def _parameters(request: httpx.Request) -> dict[str, str]:
    """The body's parameters, form or JSON. Those without a value count as omitted (RFC 6749, section 3.2)."""
    media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    body = request.content.decode()
    pairs: list[tuple[Any, Any]]
    match media_type:
        case "application/x-www-form-urlencoded":
            pairs = parse_qsl(body)
        case "application/json":
            pairs = json.loads(body, object_pairs_hook=list)
        case _:
            raise ValueError("neither form nor JSON")
    pairs = [(name, value) for name, value in pairs if value != ""]
    if len(dict(pairs)) != len(pairs) or not all(isinstance(value, str) and value.isprintable() for _, value in pairs):
        raise ValueError("a parameter is repeated or not text")
    return dict(pairs)


def _credentials(request: httpx.Request, parameters: dict[str, str]) -> tuple[str, str]:
    """The client's id and secret, from the Authorization field or the body (RFC 6749, section 2.3.1)."""
    if "Authorization" not in request.headers:
        return parameters.get("client_id", ""), parameters.get("client_secret", "")
    if "client_secret" in parameters:
        raise ValueError("two ways of authentication in one request")
    scheme, _, encoded = request.headers["Authorization"].partition(" ")
    if scheme.lower() != "basic":
        return "", ""  # RFC 6749, section 5.2: a method that is not supported is an unknown client.
    client_id, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    return unquote_plus(client_id), unquote_plus(secret)


def _authenticate(issuer: "LocalIssuer", client_id: str, secret: str) -> Client:
    client = issuer.clients.get(client_id)
    if client is None or not secrets.compare_digest(client.secret.encode(), secret.encode()):
        raise _TokenError("invalid_client", "The client is unknown or its secret is wrong.", 401)
    return client


class InMemoryTransport(httpx.AsyncBaseTransport):
    """Carries requests to local issuers without a socket; any other host cannot be connected to.

    `requests` lists the method and URL of every attempt. While `failing` is true each ends in `httpx.ConnectError`,
    or in the exception that `failing` is.
    """

    def __init__(self, *issuers: "LocalIssuer") -> None:
        self.requests: list[tuple[str, str]] = []
        self.failing: bool | Exception = False
        self._issuers = issuers

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer as the issuer that the host names."""
        self.requests.append((request.method, str(request.url)))
        if isinstance(self.failing, Exception):
            raise self.failing
        asked = (i for i in self._issuers if request.url.netloc in {httpx.URL(url).netloc for url in i.urls})
        issuer = next(asked, None)
        if self.failing or issuer is None:
            raise httpx.ConnectError(f"nobody answers at {request.url.host}", request=request)
        await request.aread()
        response = answer(issuer, request)
        # A stream, as from a socket: a response made from content refuses aiter_raw(), which the caller may count with.
        return httpx.Response(response.status_code, headers=response.headers, stream=httpx.ByteStream(response.content))


class HttpServer(ThreadingTCPServer):
    """Serves answers on a port of 127.0.0.1, from daemon threads, until `stop`.

    Raises: OSError when the port is taken.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response], port: int) -> None:
        self.answer = answer
        self._connections: set[Any] = set()
        super().__init__(("127.0.0.1", port), _RequestHandler)
        self.port: int = self.server_address[1]
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), name="local issuer", daemon=True)
        self._thread.start()

    def moved_here(self, url: str, host: str) -> str:
        """The URL moved to this server under a host name; as it is if it names this server's port already."""
        parts = urlsplit(url)
        moved = parts._replace(scheme="http", netloc=f"{host}:{self.port}")
        return url if parts.port == self.port else moved.geturl()

    def stop(self) -> None:
        """Stop listening and end every connection, kept-alive ones too: an issuer that is down answers nobody."""
        self.shutdown()
        self._thread.join()
        self.server_close()
        for connection in tuple(self._connections):
            with suppress(OSError):  # Its client may just have closed it.
                connection.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection while it is open."""
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection as it closes."""
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no error of the server; everything else is printed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _RequestHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # One write an answer: header and body in two small packets would wait for an acknowledgement.
    server: HttpServer

    def do_GET(self) -> None:
        host = self.headers.get("Host", f"127.0.0.1:{self.server.port}")
        request = httpx.Request(
            self.command,
            f"http://{host}{self.path}",
            headers=[(name.encode("latin-1"), value.encode("latin-1")) for name, value in self.headers.items()],
            content=self.rfile.read(int(self.headers.get("Content-Length", 0))),
        )
        response = self.server.answer(request)
        self.send_response(response.status_code)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(response.content)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any, **__: Any) -> None:
        """Silence: a test's output is for the test."""
