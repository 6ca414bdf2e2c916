"""The only network code: one policy for every request that Token Guard makes.

https (loopback excepted), no redirects, 5 seconds in total, 1 MiB, JSON; for issuers that the operator has not
named, public addresses alone, judged when a connection is made, so that no name can change its mind. httpx is imported
here, when something is fetched for the first time. Runs on the fetch thread's event loop and knows nothing about keys.
"""

import asyncio
import re
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode, urlsplit

import cachetools

from .addresses import is_loopback, is_public_address, is_safe_address
from .discovery import metadata_urls, read_metadata
from .errors import shown
from .issuer import Issuer
from .jws import read_document

if TYPE_CHECKING:
    import ssl

    import httpx

TIMEOUT = 5.0  # seconds, from the first byte sent to the last received
MAX_BYTES = 1024 * 1024
MAX_ETAG_CHARACTERS = 256  # our own bound on what is sent back
MAX_CONNECTIONS = 100
_BYTES_REMEMBERED = 4 * MAX_BYTES  # of documents that may be asked for again, for each fetcher

Result = TypeVar("Result")

_public_only: ContextVar[bool] = ContextVar("public_only", default=False)

_MAX_AGE = re.compile(r"(?:^|,)\s*max-age=(\d{1,9})\s*(?:,|$)", re.ASCII | re.IGNORECASE)


class FetchProblem(Enum):
    """What a failed fetch says about the address."""

    ABSENT = "absent"  # the server answered, and this is not there: look elsewhere
    UNAVAILABLE = "unavailable"  # nothing can be concluded: try again later


class FetchFailedError(Exception):
    """A fetch that brought nothing. The message names the address, never a body."""

    def __init__(self, problem: FetchProblem, message: str, *, retry_after: float = 0) -> None:
        super().__init__(message)
        self.problem = problem
        self.retry_after = retry_after


@dataclass(frozen=True)
class Document:
    """A fetched JSON document, and for how many seconds its server lets it be kept."""

    content: Any
    max_age: float | None


@dataclass(frozen=True)
class _Known:
    """A document as it came, how its server calls this version of it (RFC 9110 8.8.3), and how long it may be kept."""

    body: bytes
    etag: str
    max_age: float | None

    @property
    def size(self) -> int:
        return len(self.body)


class FetchLoop(asyncio.SelectorEventLoop):
    """An event loop that looks names up on daemon threads, and connects to public addresses alone where it must.

    asyncio's own threads are waited for when the interpreter ends, however long a name server hangs.
    """

    _is_whole = False

    def __init__(self) -> None:
        super().__init__()
        self._is_whole = True

    def __del__(self) -> None:
        if self._is_whole:  # without a file descriptor left, half a loop is made, and asyncio's own end of it fails
            super().__del__()

    async def getaddrinfo(self, host: Any, port: Any, **options: int) -> Any:
        """Do what `socket.getaddrinfo` does, without blocking the loop."""
        found = await on_daemon_thread(lambda: socket.getaddrinfo(host, port, **options))
        if _public_only.get() and not any(is_public_address(str(address[0])) for *_, address in found):
            raise PermissionError("the host has no public address")  # told here: a failed connection tells less
        return found

    async def sock_connect(self, sock: Any, address: Any) -> None:
        """Connect to an address that has been looked up, unless it is one that must not be connected to."""
        if _public_only.get() and not is_public_address(address[0]):
            raise PermissionError(f"{address[0]} is not a public address")
        await super().sock_connect(sock, address)


async def on_daemon_thread(function: Callable[[], Result]) -> Result:
    """Return what `function` returns on a thread that nobody waits for, neither a caller that gives up nor the exit."""
    answer: Future[Result] = Future()
    answer.set_running_or_notify_cancel()  # whoever gives up waiting does not cancel the call

    def call() -> None:
        try:
            answer.set_result(function())
        except Exception as error:  # noqa: BLE001  # handed on to whoever waits
            answer.set_exception(error)

    threading.Thread(target=call, name="token-guard-errand", daemon=True).start()
    return await asyncio.wrap_future(answer)


class Fetcher:
    """One HTTP client on one event loop. Not for other loops or threads.

    `public_only`: it connects to no private, loopback or link-local address, and takes no proxy, which would decide for
    us. A transport of the user's own decides itself.

    Raises:
        FetchFailedError: the environment's proxies or certificates cannot be used.
    """

    def __init__(self, transport: "httpx.AsyncBaseTransport | None" = None, *, public_only: bool = False) -> None:
        import httpx

        self._public_only = public_only
        self._known: cachetools.LRUCache[str, _Known] = cachetools.LRUCache(_BYTES_REMEMBERED, lambda known: known.size)
        try:
            tls = httpx.create_ssl_context()  # with the certificate authorities of the environment, in any case
            self._client = self._direct = _client(transport, tls, trust_env=not public_only)
            if transport is None and not public_only:
                # No proxy to this machine: it would look for its own, and read what plain http sends.
                self._direct = _client(None, tls, trust_env=False)
        except Exception as error:  # noqa: BLE001  # each kind of mistake there raises another kind
            names = "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY and SSL_CERT_FILE"
            problem = f"no HTTP client can be made ({type(error).__name__}): look at the environment variables {names}"
            raise _unavailable(problem) from None

    async def get(self, url: str) -> Document:
        """Return the JSON document at `url`; the one we have, where its server says that it has not changed.

        Does NOT judge what is in it.

        Raises:
            FetchFailedError: the address is not allowed, or no JSON came within the limits.
        """
        known = self._known.get(url)
        validators = {} if known is None else {"If-None-Match": known.etag}
        status, headers, body = await self._ask("GET", url, headers=validators)
        max_age, etag = _lifetime(headers), headers.get("ETag")
        if status == 304 and known is not None:
            body, etag = known.body, known.etag
            max_age = known.max_age if max_age is None else max_age  # RFC 9111 4.3.4
        try:
            content = read_document(body)
        except ValueError:
            raise _absent(f"{url} answered with something that is not JSON") from None
        if content is None:
            raise _absent(f"{url} answered with no object, or one with a repeated member name")
        self._known.pop(url, None)
        if etag is not None and len(etag) <= MAX_ETAG_CHARACTERS and etag.isascii():
            self._known[url] = _Known(body, etag, max_age)
        return Document(content, max_age)

    async def endpoint(self, issuer: Issuer, member: str) -> str:
        """Return one endpoint of the issuer's metadata: of the first document among the places where it may be.

        Raises:
            FetchFailedError: there is none, or the issuer does not answer.
            MisconfiguredError: the document contradicts the configuration.
        """
        problems = []
        for url in (issuer.metadata_url,) if issuer.metadata_url else metadata_urls(issuer.url):
            try:
                document = await self.get(url)
            except FetchFailedError as error:
                problems.append(error)
                if error.problem is FetchProblem.UNAVAILABLE:
                    break
            else:
                return read_metadata(document.content, issuer=issuer.url, url=url, member=member)
        last = problems[-1]
        raise FetchFailedError(last.problem, "; ".join(map(str, problems)), retry_after=last.retry_after)

    async def post(self, url: str, form: tuple[tuple[str, str], ...], headers: dict[str, str]) -> tuple[int, Any]:
        """Return the status and the JSON document that `url` answers to a form; None where it is not JSON.

        Does NOT judge either of them.

        Raises:
            FetchFailedError: the address is not allowed, or no answer came within the limits.
        """
        headers = {**headers, "Content-Type": "application/x-www-form-urlencoded"}
        status, _, body = await self._ask("POST", url, content=urlencode(form).encode(), headers=headers)
        try:
            return status, read_document(body)
        except ValueError:
            return status, None

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()
        await self._direct.aclose()

    async def _ask(self, method: str, url: str, **request: Any) -> "tuple[int, httpx.Headers, bytes]":
        import httpx

        if not is_safe_address(url):
            raise _absent(f"{url} is not https")
        _public_only.set(self._public_only)  # each errand has a context of its own
        try:
            async with asyncio.timeout(TIMEOUT):
                return await self._read(method, url, **request)
        except TimeoutError:
            raise _unavailable(f"{url} did not answer within {TIMEOUT:.0f} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            # What breaks HTTP is quoted in the error: it may be a token, or our own secret sent back.
            told = "" if isinstance(error, httpx.ProtocolError) else f": {shown(str(error))[1:-1]}"
            raise _unavailable(f"{url} cannot be reached: {type(error).__name__}{told}") from None

    async def _read(self, method: str, url: str, **request: Any) -> "tuple[int, httpx.Headers, bytes]":
        client = self._direct if is_loopback(urlsplit(url).hostname or "") else self._client
        async with client.stream(method, url, **request) as response:
            if response.status_code == 429 or response.status_code >= 500:
                problem = f"{url} answered {response.status_code}"
                raise _unavailable(problem, retry_after=_retry_after(response.headers))
            if response.status_code == 304 and "If-None-Match" in request.get("headers", {}):
                return response.status_code, response.headers, b""
            if method == "GET" and response.status_code != 200:  # whatever its body is: it is not read
                raise _absent(f"{url} answered {response.status_code}{_redirect(response.headers)}")
            if response.headers.get("Content-Encoding", "").strip().lower() not in ("", "identity"):
                raise _unavailable(f"{url} answered with a compressed body, which was not asked for")
            body = bytearray()
            async for chunk in response.aiter_bytes():  # not raw: a transport may bring a body that is read already
                body += chunk
                if len(body) > MAX_BYTES:
                    raise _unavailable(f"{url} answered with more than {MAX_BYTES} bytes")
            return response.status_code, response.headers, bytes(body)


def _client(
    transport: "httpx.AsyncBaseTransport | None", tls: "ssl.SSLContext", *, trust_env: bool
) -> "httpx.AsyncClient":
    import httpx

    return httpx.AsyncClient(
        transport=transport,
        verify=tls,
        trust_env=trust_env,
        follow_redirects=False,
        timeout=TIMEOUT,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # none: one issuer's are not another's to get
        limits=httpx.Limits(
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=0,  # a visit every ten minutes needs no open connection
        ),
        headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "token-guard"},
    )


def _redirect(headers: "httpx.Headers") -> str:
    # Without the query, in which a redirect to a login may carry what is secret.
    location = headers.get("Location", "").partition("?")[0]
    return f" with a redirect to {shown(location)}, which is not followed" if location else ""


def _lifetime(headers: "httpx.Headers") -> float | None:
    """Return for how many seconds a document may be kept, less those that it has spent in caches (RFC 9111 4.2)."""
    max_age, age = _MAX_AGE.search(headers.get("Cache-Control", "")), headers.get("Age", "")
    return max(0.0, float(max_age[1]) - _whole_seconds(age)) if max_age else None


def _retry_after(headers: "httpx.Headers") -> float:
    """Return in how many seconds the server wants to be asked again: a number, or a date (RFC 9110 10.2.3).

    A date is compared with the server's own, so that nobody's clock matters.
    """
    wait = headers.get("Retry-After", "")
    try:
        until, now = parsedate_to_datetime(wait), parsedate_to_datetime(headers.get("Date", ""))
        return max(0.0, (until - now).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return _whole_seconds(wait)


def _whole_seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0.0


def _unavailable(message: str, *, retry_after: float = 0) -> FetchFailedError:
    return FetchFailedError(FetchProblem.UNAVAILABLE, message, retry_after=retry_after)


def _absent(message: str) -> FetchFailedError:
    return FetchFailedError(FetchProblem.ABSENT, message)
