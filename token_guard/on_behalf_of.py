"""OnBehalfOf and ClientCredentials: tokens for the next API, as an `httpx.Auth` for sync and async clients.

The shell around `exchange`: it reads the clock, keeps the tokens and starts the flights. Requests to the token endpoint
go through `fetch`, never through the caller's client. RFC 8693, RFC 6749 4.4.
"""

import hashlib
import threading
import time
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Hashable
from concurrent.futures import Future

import cachetools
import httpx

from .access_token import AccessToken
from .authorization import current_access_token
from .discovery import MisconfiguredError
from .errors import ConfigurationError, ExchangeRefused, TemporarilyUnavailable
from .exchange import (
    Authentication,
    Client,
    Flow,
    Form,
    GrantedToken,
    check_endpoint,
    check_subject,
    client_credentials_form,
    exchange_form,
    read_answer,
    target,
)
from .fetch import Fetcher, FetchFailedError
from .flights import FetchThread, fork_aware, wait, wait_async
from .issuer import Issuer
from .request import current_cell
from .resource_server import ResourceServer

EXPIRY_MARGIN = 30.0  # seconds; a token is not used in the last moments of its life
MAX_TOKENS_KEPT = 1_000
MAX_ACTORS = 4  # how many actors a subject token may have behind it: an issuer of ours may refuse a fifth


class _Errand:
    """One token that is needed: who grants it, what is asked, and until when the answer may be kept."""

    __slots__ = ("exchanged", "form", "issuer", "key", "latest")

    def __init__(self, key: Hashable, issuer: str, form: Form, *, exchanged: bool, latest: float) -> None:
        self.key = key
        self.issuer = issuer
        self.form = form
        self.exchanged = exchanged
        self.latest = latest


class _TokenAuth(httpx.Auth):
    """Sends a token that it gets from a token endpoint; one request there for all who wait for the same token."""

    def __init__(
        self,
        client: Client,
        *,
        token_endpoint: str | None,
        clock: Callable[[], float],
        transport: httpx.AsyncBaseTransport | None,
    ) -> None:
        self._client = client
        self._token_endpoint = None if token_endpoint is None else check_endpoint(token_endpoint)
        self._clock = clock
        self._thread = FetchThread(transport)
        self._granted: cachetools.LRUCache[Hashable, GrantedToken] = cachetools.LRUCache(MAX_TOKENS_KEPT)
        self._lock = threading.Lock()
        self._flights: dict[Hashable, Future[GrantedToken]] = {}
        fork_aware.add(self)

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the request with a token, and once more with a new one where the answer is 401. Called by httpx."""
        errand = self._errand()
        for attempt in (1, 2):
            answer = self._ask(errand)
            if isinstance(answer, Future):
                answer = wait(answer)
            request.headers["Authorization"] = f"Bearer {answer.raw_token}"
            response = yield request
            if not self._is_worth_another(attempt, request, response, errand, answer):
                return

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Do what `sync_auth_flow` does, without blocking the event loop. Called by httpx."""
        errand = self._errand()
        for attempt in (1, 2):
            answer = self._ask(errand)
            if isinstance(answer, Future):
                answer = await wait_async(answer)
            request.headers["Authorization"] = f"Bearer {answer.raw_token}"
            response = yield request
            if not self._is_worth_another(attempt, request, response, errand, answer):
                return

    def close(self) -> None:
        """End the fetch thread. A later request starts a new one."""
        self._thread.close()

    def forget_flights(self) -> None:
        """Begin anew in a forked child, which has neither the flights' thread nor a sound lock."""
        self._lock = threading.Lock()
        self._flights = {}

    def _errand(self) -> _Errand:
        """Return what this request needs."""
        raise NotImplementedError

    def _ask(self, errand: _Errand) -> "GrantedToken | Future[GrantedToken]":
        with self._lock:
            granted = self._granted.get(errand.key)
            if granted is not None and self._clock() < granted.expires_at - EXPIRY_MARGIN:
                return granted
            flight = self._flights.get(errand.key)
            if flight is None:
                flight = self._flights[errand.key] = Future()
                flight.set_running_or_notify_cancel()  # a waiter that is cancelled must not cancel everybody's flight
                try:
                    self._thread.run(self._fly(errand, flight))
                except RuntimeError as error:  # no thread can be started while the interpreter shuts down
                    del self._flights[errand.key]
                    raise TemporarilyUnavailable(detail=f"the fetch thread cannot be started: {error}") from None
            return flight

    def _is_worth_another(
        self, attempt: int, request: httpx.Request, response: httpx.Response, errand: _Errand, used: GrantedToken
    ) -> bool:
        if response.status_code != httpx.codes.UNAUTHORIZED:
            return False
        with self._lock:
            if self._granted.get(errand.key) is used:
                del self._granted[errand.key]
        return attempt == 1 and isinstance(request.stream, httpx.ByteStream)  # a streamed body is gone

    async def _fly(self, errand: _Errand, flight: "Future[GrantedToken]") -> None:
        outcome: GrantedToken | Exception = TemporarilyUnavailable(detail="the request for a token was abandoned")
        try:
            outcome = await self._fetch(self._thread.fetcher(), errand)
        except FetchFailedError as error:
            outcome = TemporarilyUnavailable(detail=str(error), retry_after=error.retry_after)
        except MisconfiguredError as error:
            outcome = ConfigurationError(str(error))
        except (ExchangeRefused, TemporarilyUnavailable) as error:
            outcome = error
        except Exception as error:  # noqa: BLE001  # a transport of the user's may raise anything
            outcome = TemporarilyUnavailable(detail=f"the transport raised {type(error).__name__}")
        finally:
            with self._lock:
                self._flights.pop(errand.key, None)
                if isinstance(outcome, GrantedToken):
                    self._granted[errand.key] = outcome
            if isinstance(outcome, GrantedToken):
                flight.set_result(outcome)
            else:
                flight.set_exception(outcome)

    async def _fetch(self, fetcher: Fetcher, errand: _Errand) -> GrantedToken:
        endpoint = self._token_endpoint or await fetcher.endpoint(Issuer(errand.issuer), "token_endpoint")
        form = list(errand.form)
        headers = self._client.authenticate(form, issuer=errand.issuer, now=self._clock())
        status, document = await fetcher.post(endpoint, form, headers)
        granted = read_answer(status, document, exchanged=errand.exchanged, now=self._clock())
        return GrantedToken(granted.raw_token, min(granted.expires_at, errand.latest), granted.scope)


class ClientCredentials(_TokenAuth):
    """Calls another API as this service itself (RFC 6749 4.4): `httpx.Client(auth=ClientCredentials(...))`.

    `issuer` grants the token; its token endpoint is found by discovery where it is not given. The client authenticates
    with `client_secret` (`client_authentication` "basic" or "post") or with `private_key` (private_key_jwt; PEM,
    `key_id`, `algorithm`). One of `audience`, `resource` and `scopes` says what the token is for.

    Does NOT look into the token. Times are in seconds.

    Raises:
        ConfigurationError: a setting is missing, wrong, or contradicts another.
        ExchangeRefused, TemporarilyUnavailable: when a request is sent, and no token can be had for it.
    """

    def __init__(
        self,
        *,
        issuer: str,
        client_id: str,
        client_secret: str | None = None,
        private_key: str | bytes | None = None,
        key_id: str | None = None,
        algorithm: str = "RS256",
        client_authentication: Authentication | None = None,
        audience: str | None = None,
        resource: str | Collection[str] = (),
        scopes: str | Collection[str] = (),
        token_endpoint: str | None = None,
        clock: Callable[[], float] = time.time,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        client = Client(
            client_id=client_id,
            secret=client_secret,
            private_key=private_key,
            key_id=key_id,
            algorithm=algorithm,
            authentication=client_authentication,
        )
        super().__init__(client, token_endpoint=token_endpoint, clock=clock, transport=transport)
        form = client_credentials_form(target(audience, resource, scopes))
        self._needed = _Errand(None, Issuer(issuer).url, form, exchanged=False, latest=float("inf"))

    def _errand(self) -> _Errand:
        return self._needed


class OnBehalfOf(_TokenAuth):
    """Calls another API on behalf of the user of the current request: `httpx.Client(auth=OnBehalfOf(...))`.

    Inside a guarded handler the request's own token is exchanged for one that is meant for the other API (RFC 8693);
    it is never forwarded. `resource_server` is this API: a token that was not issued for it is not exchanged. The
    issuer of that token is asked, at its discovered token endpoint where none is given. `scopes` are the least that the
    call needs. `allowed_actors` and `max_actors` limit who may already be acting for the user. `flow="entra"` speaks
    Entra ID's form of the grant. Client authentication and targets: as in `ClientCredentials`.

    A token is kept for the subject token it was exchanged for, until shortly before the earlier of both ends.

    Raises:
        ConfigurationError: a setting is missing, wrong, or contradicts another; or no guard is around the caller.
        MissingToken: the current request has no token.
        ExchangeRefused, TemporarilyUnavailable: when a request is sent, and no token can be had for it.
    """

    def __init__(
        self,
        resource_server: ResourceServer,
        *,
        client_id: str,
        client_secret: str | None = None,
        private_key: str | bytes | None = None,
        key_id: str | None = None,
        algorithm: str = "RS256",
        client_authentication: Authentication | None = None,
        audience: str | None = None,
        resource: str | Collection[str] = (),
        scopes: str | Collection[str] = (),
        token_endpoint: str | None = None,
        flow: Flow = "rfc8693",
        allowed_actors: Collection[str] | None = None,
        max_actors: int = MAX_ACTORS,
        clock: Callable[[], float] = time.time,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        client = Client(
            client_id=client_id,
            secret=client_secret,
            private_key=private_key,
            key_id=key_id,
            algorithm=algorithm,
            authentication=client_authentication,
        )
        super().__init__(client, token_endpoint=token_endpoint, clock=clock, transport=transport)
        if flow not in ("rfc8693", "entra"):
            raise ConfigurationError(f"flow must be 'rfc8693' or 'entra', not {flow!r}")
        self._resource_server = resource_server
        self._target = target(audience, resource, scopes)
        self._flow: Flow = flow
        self._allowed_actors = None if allowed_actors is None else frozenset(allowed_actors)
        self._max_actors = max_actors

    def _errand(self) -> _Errand:
        token = current_access_token()
        cell = current_cell.get()
        raw_token = cell.raw_token if cell is not None else None
        if raw_token is None:
            raise ConfigurationError("the current request's token is not known: a guard must be around the caller")
        self._resource_server.check_own(token)
        check_subject(token, self._flow)
        self._check_actors(token)
        digest = hashlib.sha256(raw_token.encode()).digest()  # at rest there are digests alone (RFC 9700 4.9.3)
        form = exchange_form(raw_token, self._target, self._flow)
        return _Errand(digest, token.issuer, form, exchanged=self._flow == "rfc8693", latest=float(token.expires_at))

    def _check_actors(self, token: AccessToken) -> None:
        actors, actor = 0, token.actor
        if actor is not None and self._allowed_actors is not None and actor.subject not in self._allowed_actors:
            raise ExchangeRefused("invalid_grant", "the party that acts for the user may not cause another exchange")
        while actor is not None:
            actors, actor = actors + 1, actor.actor
        if actors > self._max_actors:
            raise ExchangeRefused("invalid_grant", f"{actors} parties act for the user already")
