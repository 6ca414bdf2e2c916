"""An issuer on a real socket whose answers can be made wrong at any moment.

It publishes what a `LocalIssuer` publishes, by hand, so that no server library mends what is meant to be broken. Knows
nothing about who asks.
"""

import datetime as dt
import gzip
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, NamedTuple, Self

import httpx
import trustme

from token_guard import Reason
from token_guard.testing import LocalIssuer, SigningKey
from token_guard.testing.server import answer

METADATA = "/.well-known/openid-configuration"
KEYS = "/.well-known/jwks.json"

SLOW = 1.0  # seconds before an answer that comes in time
DRIP = 0.2  # seconds between the drops of one that does not
TWO_HOURS = 7_200
MEBIBYTE = 1024 * 1024
GZIP_BOMB = gzip.compress(bytes(80 * MEBIBYTE))


@dataclass(frozen=True)
class Visit:
    """A request, the right answer to it, and the connection to say something else on.

    `over` is set when the fault ends: whoever hangs or drips waits for it.
    """

    path: str
    right: httpx.Response
    connection: socket.socket
    over: threading.Event
    elsewhere: str

    @property
    def document(self) -> Any:
        """The JSON of the right answer."""
        return self.right.json()

    def send(
        self, body: bytes, headers: Mapping[str, str] | None = None, *, status: int = 200, length: int | None = None
    ) -> None:
        """Answer with these bytes, `length` of them as the head has it."""
        fields = {"Content-Length": str(len(body) if length is None else length), "Connection": "close"}
        lines = [f"HTTP/1.1 {status} -", *(f"{name}: {value}" for name, value in {**fields, **(headers or {})}.items())]
        self.connection.sendall("".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body)

    def send_json(self, path: str, document: Any) -> None:
        """Answer with this document where `path` is asked, and rightly everywhere else."""
        self.send(json.dumps(document).encode()) if self.path == path else right(self)

    def drip(self, piece: bytes) -> None:
        """Send the piece again and again."""
        while not self.over.wait(DRIP):
            self.connection.sendall(piece)


def right(visit: Visit) -> None:
    visit.send(visit.right.content, status=visit.right.status_code)


def slow(visit: Visit) -> None:
    visit.over.wait(SLOW)
    right(visit)


def hanging(visit: Visit) -> None:
    visit.over.wait()


def dripping_headers(visit: Visit) -> None:
    visit.connection.sendall(b"HTTP/1.1 200 OK\r\n")
    visit.drip(b"X: y\r\n")


def dripping_body(visit: Visit) -> None:
    visit.send(b"", length=100_000)
    visit.drip(b" ")


def reset(visit: Visit) -> None:
    # Closing with no time to linger throws away what is not sent and resets the connection.
    visit.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def endless(visit: Visit) -> None:
    """80 MB, which the head announces and the body delivers."""
    visit.send(b"", length=80 * MEBIBYTE)
    for _ in range(80):
        visit.connection.sendall(b" " * MEBIBYTE)


def redirect(visit: Visit) -> None:
    visit.send(b"", {"Location": visit.elsewhere + visit.path}, status=302)


def duplicate_key_ids(visit: Visit) -> None:
    """Before each key comes a stranger's under the same key ID."""
    keys = visit.document.get("keys", [])
    strangers = [SigningKey.generate(key["alg"], key["kid"]).public_jwk() for key in keys]
    visit.send_json(KEYS, {"keys": [each for pair in zip(strangers, keys, strict=True) for each in pair]})


def dated(offset: float) -> Callable[[Visit], None]:
    """Answer rightly, as a server whose clock is off."""
    then = formatdate(time.time() + offset, usegmt=True)
    return lambda visit: visit.send(visit.right.content, {"Date": then, "Last-Modified": then, "Expires": then})


class Fault(NamedTuple):
    """What is wrong with an issuer, and what a resource server without keys says meanwhile.

    `cold` is the reason of its 503s, None where the keys arrive all the same. Whoever has visited the issuer before
    needs no metadata, and gets keys where those alone are wrong.
    """

    answer: Callable[[Visit], None] = right
    cold: Reason | None = Reason.KEYS_UNAVAILABLE
    certificate_expired: bool = False
    name_unknown: bool = False
    metadata_alone: bool = False


def in_keys_alone(fault: Fault) -> Fault:
    return fault._replace(answer=lambda visit: fault.answer(visit) if visit.path == KEYS else right(visit))


def in_metadata_alone(fault: Fault) -> Fault:
    return fault._replace(
        answer=lambda visit: right(visit) if visit.path == KEYS else fault.answer(visit), metadata_alone=True
    )


NO_FAULT = Fault(cold=None)

# Wrong answers, whatever is asked for. None brings keys.
WRONG_ANSWERS = {
    "hanging": Fault(hanging),
    "dripping headers": Fault(dripping_headers),
    "dripping body": Fault(dripping_body),
    "connection reset": Fault(reset),
    "no answer at all": Fault(lambda _: None),
    "429": Fault(lambda visit: visit.send(b"", {"Retry-After": "20"}, status=429)),
    "304": Fault(lambda visit: visit.send(b"", status=304)),
    "404": Fault(lambda visit: visit.send(b"", status=404)),
    "HTML": Fault(lambda visit: visit.send(b"<html><body>We are back soon", {"Content-Type": "text/html"})),
    "truncated JSON": Fault(lambda visit: visit.send(visit.right.content[:-2])),
    "truncated body": Fault(lambda visit: visit.send(visit.right.content[:-2], length=len(visit.right.content))),
    "80 MB": Fault(endless),
    "gzip bomb": Fault(lambda visit: visit.send(GZIP_BOMB, {"Content-Encoding": "gzip"})),
    "redirect elsewhere": Fault(redirect),
    "500": Fault(lambda visit: visit.send(b"", status=500)),
}

FAULTS = {
    **WRONG_ANSWERS,
    "slow": Fault(slow, cold=None),
    "empty key set": Fault(lambda visit: visit.send_json(KEYS, {"keys": []})),
    "duplicate key ids": Fault(duplicate_key_ids, cold=None),
    "wrong issuer": Fault(
        lambda visit: visit.send_json(METADATA, visit.document | {"issuer": "https://elsewhere.example/"}),
        cold=Reason.ISSUER_MISCONFIGURED,
    ),
    "JSON of something else": Fault(
        lambda visit: visit.send(b'{"status": "maintenance"}'), cold=Reason.ISSUER_MISCONFIGURED
    ),
    "expired certificate": Fault(certificate_expired=True),
    "DNS failure": Fault(name_unknown=True),
    "clock two hours ahead": Fault(dated(TWO_HOURS), cold=None),
    "clock two hours behind": Fault(dated(-TWO_HOURS), cold=None),
}

FAULTS_OF_ONE_DOCUMENT = {
    **{f"{name}, keys alone": in_keys_alone(fault) for name, fault in WRONG_ANSWERS.items()},
    **{f"{name}, metadata alone": in_metadata_alone(fault) for name, fault in WRONG_ANSWERS.items()},
}

EVERY_FAULT = FAULTS | FAULTS_OF_ONE_DOCUMENT

AUTHORITY = trustme.CA()


def server_side(not_after: dt.datetime | None = None) -> ssl.SSLContext:
    """What a server needs to speak TLS as localhost."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("localhost", not_after=not_after).configure_cert(context)
    return context


CERTIFICATE = server_side()
EXPIRED_CERTIFICATE = server_side(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))


class FaultyIssuer:
    """Serves `issuer` on localhost, over TLS where it is asked for, with the `fault` of the moment.

    `visits` are the paths asked for so far, in order; `elsewhere` those that were asked for where a redirect points.
    Over TLS it is reached by its own `transport`, which trusts its certificate and finds its name.
    """

    def __init__(self, issuer: LocalIssuer | None = None, *, tls: bool = False) -> None:
        self.issuer = issuer or LocalIssuer(algorithm="ES256")
        self.visits: list[str] = []
        self.elsewhere: list[str] = []
        self._tls = tls
        self._fault = NO_FAULT
        self._over = threading.Event()
        self._listener = self._listen(0, self._answer)
        self._elsewhere = self._listen(0, self._answer_elsewhere)
        self.issuer.url = f"http{'s' if tls else ''}://localhost:{self._listener.getsockname()[1]}/"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for listener in (self._listener, self._elsewhere):
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    @property
    def fault(self) -> Fault:
        """What is wrong with the answers from now on. A change of it ends those that hang."""
        return self._fault

    @fault.setter
    def fault(self, fault: Fault) -> None:
        over, self._over, self._fault = self._over, threading.Event(), fault
        over.set()

    @property
    def flights(self) -> int:
        """How often somebody came for metadata, and so for keys."""
        return self.visits.count(METADATA)

    def transport(self) -> httpx.AsyncBaseTransport:
        """The way to this issuer: its certificate is trusted, and its name found unless that is the fault."""
        return _Transport(self)

    def _listen(self, port: int, answer: Callable[[socket.socket], None]) -> socket.socket:
        listener = socket.create_server(("localhost", port), backlog=256)

        def accept() -> None:
            with suppress(OSError):  # the listener is closed
                while True:
                    threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return listener

    def _answer(self, connection: socket.socket) -> None:
        fault, over = self._fault, self._over
        with suppress(OSError), connection:  # whoever asked may be gone
            if self._tls:
                certificate = EXPIRED_CERTIFICATE if fault.certificate_expired else CERTIFICATE
                connection = certificate.wrap_socket(connection, server_side=True)
            with connection:
                path = read_path(connection)
                self.visits.append(path)
                request = httpx.Request("GET", httpx.URL(self.issuer.url).join(path))
                elsewhere = f"http://localhost:{self._elsewhere.getsockname()[1]}"
                fault.answer(Visit(path, answer(self.issuer, request), connection, over, elsewhere))

    def _answer_elsewhere(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            self.elsewhere.append(read_path(connection))


def read_path(connection: socket.socket) -> str:
    head = b""
    while b"\r\n\r\n" not in head:
        received = connection.recv(65_536)
        if not received:
            raise ConnectionResetError
        head += received
    return head.split()[1].decode()


class _Transport(httpx.AsyncHTTPTransport):
    """Trusts the certificate authority of the tests, and asks for a name that nobody has while that is the fault."""

    def __init__(self, faulty: FaultyIssuer) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        AUTHORITY.configure_trust(context)
        super().__init__(verify=context, limits=httpx.Limits(max_keepalive_connections=0))
        self._faulty = faulty

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._faulty.fault.name_unknown:
            request.url = request.url.copy_with(host="issuer.invalid")  # RFC 2606, section 2: it never resolves
        return await super().handle_async_request(request)
