"""OnBehalfOf and ClientCredentials: tokens for the next API, as an `httpx.Auth` for sync and async clients.

The shell around `exchange`: it reads the clock, keeps the tokens and starts the flights. Requests to the token endpoint
go through `fetch`, never through the caller's client. RFC 8693, RFC 6749 4.4.
"""

import asyncio
import hashlib
import logging
import math
import threading
import time
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field

import cachetools
import httpx

from .authorization import current_access_token
from .discovery import MisconfiguredError
from .errors import ConfigurationError, ExchangeRefused, TemporarilyUnavailable
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
from .issuer import Issuer, check_https, string_set
from .request import current_cell
from .resource_server import ResourceServer

EXPIRY_MARGIN = 30.0  # seconds; a token is not used in the last moments of its life
MAX_TOKENS_KEPT = 1_000
MAX_ACTORS = 3  # behind a subject token; the hosted service refuses one that has four

_log = logging.getLogger("token_guard")


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
        self.forget_flights()
        fork_aware.add(self)

    def forget_flights(self) -> None:
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
                outcome = await self._fetch(self._thread.fetcher(), need)
        except ExchangeRefused as error:
            outcome = error
        except MisconfiguredError as error:
            outcome = ConfigurationError(str(error))
        except FetchFailedError as error:
            outcome = unavailable(str(error), error.retry_after)
        except TemporarilyUnavailable as error:
            outcome = error
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
            _log.warning("%s granted a token without the scopes %s", endpoint, " ".join(granted.lacks))
        return replace(granted, expires_at=min(granted.expires_at, need.latest))


@dataclass(frozen=True, kw_only=True, eq=False)
class _TokenAuth(httpx.Auth):
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
        self._set("_target", Target(audience=self.audience, resource=self.resource, scopes=self.scopes))
        self._set("_tokens", _Tokens(client, self.token_endpoint, self.clock, self.transport))

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Give the request its token. Called by httpx."""
        need = self._need()
        granted = wait(self._tokens.ask(need))
        response = yield _bearing(request, granted)
        if self._is_worth_another(request, response, need, granted):
            yield _bearing(request, wait(self._tokens.ask(need)))

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Do what `sync_auth_flow` does, without blocking the event loop. Called by httpx."""
        need = self._need()
        granted = await wait_async(self._tokens.ask(need))
        response = yield _bearing(request, granted)
        if self._is_worth_another(request, response, need, granted):
            yield _bearing(request, await wait_async(self._tokens.ask(need)))

    def close(self) -> None:
        """End the thread that asks for tokens. A later request starts a new one."""
        self._tokens.close()
