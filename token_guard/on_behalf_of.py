"""OnBehalfOf and ClientCredentials: tokens for the next API, as an `httpx.Auth` for sync and async clients.

The shell around `exchange`: it reads the clock, keeps the tokens and starts the flights. Requests to the token endpoint
go through `fetch`, never through the caller's client. RFC 8693, RFC 6749 4.4.
"""

import asyncio
import hashlib
import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import cachetools
import httpx

from .addresses import check_https
from .authorization import current_access_token
from .discovery import MisconfiguredError
from .errors import ConfigurationError, ExchangeRefused, TemporarilyUnavailable
from .events import Event, tell
from .exchange import (
    Authentication,
    Client,
    Flow,
    Form,
    GrantedToken,
    Target,
    check_subject,
    client_credentials_form,
    exchange_form,
    read_answer,
    unavailable,
)
from .fetch import Fetcher, FetchFailedError
from .flights import FLIGHT_TIMEOUT, FetchThread, fork_aware, wait, wait_async
from .issuer import Issuer, string_set
from .request import current_cell
from .resource_server import ResourceServer

EXPIRY_MARGIN = 30.0  # seconds; a token is not used in the last moments of its life
MAX_TOKENS_KEPT = 1_000
MAX_ACTORS = 3  # behind a subject token; the hosted service refuses one that has four


@dataclass(frozen=True)
class _Need:
    """A token that is needed: under which key it is kept and until when at most, who grants it, what is asked."""

    key: Hashable
    latest: float
    issuer: str
    form: Form = field(repr=False)


class _Tokens:
    """Keeps granted tokens and gets new ones: one flight for all who need the same token."""

    def __init__(
        self,
        client: Client,
        token_endpoint: str | None,
        clock: Callable[[], float],
        transport: httpx.AsyncBaseTransport | None,
    ) -> None:
        self._client = client
        self._token_endpoint = token_endpoint
        self._clock = clock
        self._thread = FetchThread(transport)
        self.begin_anew()
        fork_aware.add(self)

    def begin_anew(self) -> None:
        """Begin anew: also in a forked child, which has neither the flights' thread nor a sound lock or cache."""
        self._lock = threading.Lock()
        self._flights: dict[Hashable, Future[GrantedToken]] = {}
        self._endpoints: dict[str, str] = {}
        self._granted: cachetools.TLRUCache[Hashable, GrantedToken] = cachetools.TLRUCache(
            MAX_TOKENS_KEPT, lambda _, granted, now: granted.expires_at - EXPIRY_MARGIN, self._clock
        )

    def ask(self, need: _Need) -> "Future[GrantedToken]":
        """Return the flight that brings the token; one that has landed, where the token is held.

        Raises:
            TemporarilyUnavailable: the flight cannot be started.
        """
        with self._lock:
            granted = self._granted.get(need.key)
            flight = self._flights.get(need.key)
            if granted is not None:
                flight = Future()
                flight.set_result(granted)
            elif flight is None:
                flight = Future()
                flight.set_running_or_notify_cancel()  # a waiter that is cancelled must not cancel everybody's flight
                try:
                    self._thread.run(self._fly(need, flight))
                except RuntimeError as error:  # no thread can be started, or the interpreter shuts down
                    raise unavailable(f"the fetch thread cannot be started: {error}") from None
                self._flights[need.key] = flight
            return flight

    def drop(self, need: _Need, refused: GrantedToken) -> None:
        """Keep a token no longer that an API has refused; a newer one stays."""
        with self._lock:
            if self._granted.get(need.key) is refused:
                del self._granted[need.key]

    def close(self) -> None:
        self._thread.close()

    async def _fly(self, need: _Need, flight: "Future[GrantedToken]") -> None:
        outcome: GrantedToken | Exception = unavailable("the request for a token was abandoned")
        try:
            async with asyncio.timeout(FLIGHT_TIMEOUT):
                outcome = await self._fetch(self._thread.fetcher(public_only=False), need)
        except (ExchangeRefused, TemporarilyUnavailable) as error:
            outcome = error
        except MisconfiguredError as error:
            outcome = ConfigurationError(str(error))
        except FetchFailedError as error:
            outcome = unavailable(str(error), error.retry_after)
        except TimeoutError:
            outcome = unavailable(f"{need.issuer} took longer than {FLIGHT_TIMEOUT:.0f} s")
        except Exception as error:  # noqa: BLE001  # a transport of the user's may raise anything
            outcome = unavailable(f"the transport raised {type(error).__name__}")
        finally:
            with self._lock:
                self._flights.pop(need.key, None)
                if isinstance(outcome, GrantedToken):
                    self._granted[need.key] = outcome
                elif not isinstance(outcome, ExchangeRefused):
                    self._endpoints.pop(need.issuer, None)  # it may have moved
            if isinstance(outcome, GrantedToken):
                flight.set_result(outcome)
            else:
                # Without its traceback: the frames of this flight hold tokens and secrets.
                flight.set_exception(outcome.with_traceback(None))

    async def _fetch(self, fetcher: Fetcher, need: _Need) -> GrantedToken:
        endpoint = self._token_endpoint or self._endpoints.get(need.issuer)
        if endpoint is None:
            endpoint = await fetcher.endpoint(Issuer(need.issuer), "token_endpoint")
            self._endpoints[need.issuer] = endpoint
        fields, headers = self._client.authenticate(need.issuer, self._clock())
        status, document = await fetcher.post(endpoint, (*need.form, *fields), headers)
        granted = read_answer(status, document, need.form, self._clock())
        if granted.lacks:
            lacks = " ".join(granted.lacks)
            text = "%s granted a token without the scopes %s"
            tell(Event.SCOPES_NOT_GRANTED, text, endpoint, lacks, issuer=need.issuer, scopes=lacks)
        return replace(granted, expires_at=min(granted.expires_at, need.latest))


@dataclass(frozen=True, kw_only=True, eq=False)
class _TokenAuth(httpx.Auth, ABC):
    """Sends a token from a token endpoint with each request, and once more a new one where the answer is 401."""

    client_id: str
    client_secret: str | None = field(default=None, repr=False)
    private_key: str | bytes | None = field(default=None, repr=False)
    key_id: str | None = None
    algorithm: str = "RS256"
    client_authentication: Authentication | None = None
    audience: str | None = None
    resource: str | Collection[str] = ()
    scopes: str | Collection[str] = ()
    token_endpoint: str | None = None
    clock: Callable[[], float] = field(default=time.time, repr=False)
    transport: httpx.AsyncBaseTransport | None = field(default=None, repr=False)
    _target: Target = field(init=False, repr=False)
    _tokens: _Tokens = field(init=False, repr=False)

    def __post_init__(self) -> None:
        client = Client(
            client_id=self.client_id,
            secret=self.client_secret,
            private_key=self.private_key,
            key_id=self.key_id,
            algorithm=self.algorithm,
            authentication=self.client_authentication,
        )
        if self.token_endpoint is not None:
            check_https("token_endpoint", self.token_endpoint)
        object.__setattr__(self, "_target", Target(audience=self.audience, resource=self.resource, scopes=self.scopes))
        object.__setattr__(self, "_tokens", _Tokens(client, self.token_endpoint, self.clock, self.transport))

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Give the request its token. Called by httpx."""
        need, is_repeatable = self._need(), _is_repeatable(request)
        granted = wait(self._tokens.ask(need))
        response = yield _bearing(request, granted)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            self._tokens.drop(need, granted)
            if is_repeatable:
                yield _bearing(request, wait(self._tokens.ask(need)))

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Do what `sync_auth_flow` does, without blocking the event loop. Called by httpx."""
        need, is_repeatable = self._need(), _is_repeatable(request)
        granted = await wait_async(self._tokens.ask(need))
        response = yield _bearing(request, granted)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            self._tokens.drop(need, granted)
            if is_repeatable:
                yield _bearing(request, await wait_async(self._tokens.ask(need)))

    def close(self) -> None:
        """End the thread that asks for tokens. A later request starts a new one."""
        self._tokens.close()

    @abstractmethod
    def _need(self) -> _Need:
        """Return what this request needs."""


def _is_repeatable(request: httpx.Request) -> bool:
    """Tell whether the body is held: one that is streamed is gone once it is sent. A transport may read it, too."""
    return isinstance(request.stream, httpx.ByteStream)


def _bearing(request: httpx.Request, granted: GrantedToken) -> httpx.Request:
    request.headers["Authorization"] = f"Bearer {granted.raw_token}"
    return request


@dataclass(frozen=True, kw_only=True, eq=False)
class ClientCredentials(_TokenAuth):
    """Calls another API as this service itself (RFC 6749 4.4): `httpx.Client(auth=ClientCredentials(...))`.

    `issuer` grants the token; its token endpoint is found by discovery where it is not given. The client authenticates
    with `client_secret` (`client_authentication` "basic" or "post") or with `private_key` (private_key_jwt; PEM,
    `key_id`, `algorithm`). One of `audience`, `resource` and `scopes` says what the token is for.

    A token is kept until shortly before its end. Where the API answers 401 it is dropped, and the request is sent once
    more with a new one, unless its body was a stream. Does NOT look into the token. Times are in seconds.

    Raises:
        ConfigurationError: a setting is missing, wrong, or contradicts another.
        ExchangeRefused, TemporarilyUnavailable: when a request is sent, and no token can be had for it.
    """

    issuer: str

    def __post_init__(self) -> None:
        super().__post_init__()
        Issuer(self.issuer)

    def _need(self) -> _Need:
        return _Need(None, math.inf, self.issuer, client_credentials_form(self._target))


@dataclass(frozen=True, kw_only=True, eq=False)
class OnBehalfOf(_TokenAuth):
    """Calls another API on behalf of the user of the current request: `httpx.Client(auth=OnBehalfOf(...))`.

    Inside a guarded handler the request's own token is exchanged for one that is meant for the other API (RFC 8693);
    it is never forwarded. `resource_server` is this API: a token that was not issued for it is not exchanged. The
    issuer of that token is asked, at its discovered token endpoint where none is given; so all issuers of the resource
    server must be names of one authorization server, which knows this client. `scopes` are the least that the call
    needs. `allowed_actors` and `max_actors` limit who may already be acting for the user. `flow="entra"` speaks
    Entra ID's form of the grant. All else: as in `ClientCredentials`.

    A token is kept for the subject token that it was exchanged for, until shortly before the earlier of both ends.

    Raises:
        ConfigurationError: a setting is missing, wrong, or contradicts another; or no guard is around the caller.
        MissingToken: the current request has no token.
        InvalidToken: the current request's token was issued for another API.
        ExchangeRefused, TemporarilyUnavailable: when a request is sent, and no token can be had for it.
    """

    resource_server: ResourceServer = field(kw_only=False)
    flow: Flow = "rfc8693"
    allowed_actors: Collection[str] | None = None
    max_actors: int = MAX_ACTORS

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.resource_server, ResourceServer):
            raise ConfigurationError(f"resource_server must be a ResourceServer, not {self.resource_server!r}")
        if self.resource_server.resolves_issuers and self.token_endpoint is None:
            raise ConfigurationError(
                "token_endpoint is required where an IssuerResolver finds issuers: our secret and the user's token must"
                " not be sent wherever one of them says"
            )
        if self.flow not in ("rfc8693", "entra"):
            raise ConfigurationError(f"flow must be 'rfc8693' or 'entra', not {self.flow!r}")
        if self.allowed_actors is not None:
            object.__setattr__(self, "allowed_actors", frozenset(string_set("allowed_actors", self.allowed_actors)))

    def _need(self) -> _Need:
        token = current_access_token()
        self.resource_server.check_own(token)
        check_subject(token, self.flow, self.allowed_actors, self.max_actors)
        cell = current_cell.get()
        if cell is None or cell.raw_token is None:
            raise ConfigurationError("the current request's token is not known: let a Guard decide about requests")
        digest = hashlib.sha256(cell.raw_token.encode()).digest()  # at rest there are digests alone (RFC 9700 4.9.3)
        return _Need(digest, token.expires_at, token.issuer, exchange_form(cell.raw_token, self._target, self.flow))
