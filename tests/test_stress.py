"""Every cache, asked by sixteen threads at once while the interpreter switches between them every microsecond."""

import asyncio
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import httpx
import pytest

from tests.token_endpoint import TokenEndpoint
from token_guard import (
    ClientCredentials,
    InvalidToken,
    KeyPolicy,
    OnBehalfOf,
    Reason,
    RequestView,
    ResourceServer,
    Scope,
    TemporarilyUnavailable,
    jws,
    scopes,
)
from token_guard.algorithms import ALGORITHMS
from token_guard.flights import FetchThread
from token_guard.guard import Guard, RequestCell, current_cell
from token_guard.key_set import read_key_set
from token_guard.scopes import ScopeSet
from token_guard.testing import InMemoryTransport, LocalIssuer, SigningKey
from token_guard.testing.keys import base64url
from token_guard.token_cache import Remembered, TokenCache

THREADS = 16
PATIENCE = 30  # seconds; only a test that fails waits so long
ISSUER = "https://issuer.example/"
NO_ISSUER: Any = None  # for a cache that nobody asks about issuers


@pytest.fixture(autouse=True)
def switching() -> Iterator[None]:
    """Let the interpreter switch threads as often as it can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.fixture
def issuer() -> LocalIssuer:
    return LocalIssuer(ISSUER, algorithm="Ed25519")


def on_threads(errand: Callable[[int], object]) -> list[BaseException]:
    """Run `errand` with the number of each thread, all beginning at once; what it raised."""
    ready, raised = threading.Barrier(THREADS), list[BaseException]()

    def run(number: int) -> None:
        ready.wait(PATIENCE)
        try:
            errand(number)
        except BaseException as error:  # noqa: BLE001  # whatever it is: the test judges it
            raised.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not [thread for thread in threads if thread.is_alive()]
    return raised


def reason(server: ResourceServer, token: str) -> Reason | None:
    """Why the token is refused, None where it is accepted. Nothing but these errors may leave `validate`."""
    try:
        server.validate(token)
    except (InvalidToken, TemporarilyUnavailable) as refusal:
        return refusal.reason
    return None


# What is remembered of tokens.


def test_remembered_tokens_are_never_mixed_up(issuer: LocalIssuer) -> None:
    """SEC-02: a cache too small for its tokens gives each token its own claims, and lets no tampered one in."""
    server = ResourceServer(issuer=ISSUER, audience="organize", jwks=issuer.jwks(), token_cache_size=8)
    tokens = {f"auth0|{number}": issuer.token(subject=f"auth0|{number}") for number in range(12)}
    tampered = [issuer.tampered(token) for token in tokens.values()]

    def ask(number: int) -> None:
        for turn in range(60):
            subject = f"auth0|{(number + turn) % 12}"
            assert server.validate(tokens[subject]).subject == subject
            assert reason(server, tampered[(number + turn) % 12]) is Reason.BAD_SIGNATURE

    assert on_threads(ask) == []


def test_token_cache_is_bounded_and_keeps_each_under_its_own_digest() -> None:
    """SEC-02: whatever the order of puts and gets, nothing is found under another's digest."""
    cache = TokenCache(50)
    remembered = [Remembered(NO_ISSUER, b"", number, number, 0, ScopeSet()) for number in range(200)]

    def use(number: int) -> None:
        for turn in range(1_000):
            which = (number * 31 + turn) % 200
            digest = which.to_bytes(2, "big")
            cache.put(digest, remembered[which])
            assert cache.get(digest) in (None, remembered[which])

    assert on_threads(use) == []
    assert len(cache._remembered) == 50


def test_claims_are_read_once_for_all_who_share_a_token(issuer: LocalIssuer) -> None:
    """A handler may hand its access token on to threads: the claims are read when the first of them asks."""
    server = ResourceServer(issuer=ISSUER, audience="organize", jwks=issuer.jwks())
    raw = issuer.token("read:contacts", claims={"permissions": ["a"]})
    tokens = [server.validate(raw) for _ in range(1_000)]

    def read(_: int) -> None:
        for token in tokens:
            assert token.subject == "auth0|alice"
            assert list(token.scopes) == ["read:contacts"]
            assert token.permissions == ("a",)

    assert on_threads(read) == []


# What is remembered of keys.


class Visits(InMemoryTransport):
    """A transport that takes its time, and counts the visits that overlap another."""

    def __init__(self, issuer: LocalIssuer) -> None:
        super().__init__(issuer)
        self.under_way = self.overlapping = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.under_way += 1
        self.overlapping += self.under_way > 1
        try:
            await asyncio.sleep(0.001)
            return await super().handle_async_request(request)
        finally:
            self.under_way -= 1


@pytest.mark.parametrize("failing", [False, True], ids=["rotations", "rotations and failures"])
def test_keys_under_rotation_refuse_nothing_good_and_accept_nothing_bad(issuer: LocalIssuer, failing: bool) -> None:
    """JWK-01, JWK-10, JWK-17: one flight at a time; a new key is found at once, where the issuer can be asked."""
    transport = Visits(issuer)
    policy = KeyPolicy(time_to_live=1, unknown_key_cooldown=0)
    server = ResourceServer(issuer=ISSUER, audience="organize", transport=transport, keys=policy, token_cache_size=20)
    server.warm_up()
    stranger = SigningKey.generate("Ed25519")
    good = {None, Reason.KEYS_UNAVAILABLE} if failing else {None}
    bad = {Reason.BAD_SIGNATURE, Reason.UNKNOWN_KEY, Reason.KEYS_UNAVAILABLE} - (set() if failing else good)

    def ask(number: int) -> None:
        for turn in range(12):
            if number == 0:
                issuer.rotate()
                transport.failing = failing and turn % 3 == 0
            if number == 1 and not failing:
                server.refresh()
            token = issuer.token()
            kid = issuer.key.kid if turn % 2 else "junk"
            assert reason(server, token) in good
            assert reason(server, issuer.token(key=stranger, headers={"kid": kid})) in bad
            assert server.health()[0].state in {"fresh", "stale"}

    assert on_threads(ask) == []
    assert transport.overlapping == 0
    server.close()


def test_cold_threads_cause_one_flight(issuer: LocalIssuer) -> None:
    """JWK-17: however often the first tokens come at once, the issuer is asked once."""
    token = issuer.token()
    for _ in range(15):
        transport = Visits(issuer)
        server = ResourceServer(issuer=ISSUER, audience="organize", transport=transport)
        assert on_threads(lambda _, server=server: server.validate(token)) == []  # type: ignore[misc]
        assert len(transport.requests) == 2
        server.close()


def test_chosen_keys_are_the_same_for_all_and_bounded() -> None:
    """JWK-17: keys are built when they are first needed, and the table of choices holds published key IDs alone."""
    names = ("Ed25519", "ES256", "RS256")
    keys = [SigningKey.generate(name, kid=f"{name}-{number}") for name in names for number in range(2)]
    document = {"keys": [key.public_jwk() for key in keys]}
    sets = [read_key_set(document)[0] for _ in range(40)]

    def choose(number: int) -> None:
        for key_set in sets:
            for turn in range(len(keys)):
                key = keys[(number + turn) % len(keys)]
                (chosen,) = key_set.candidates(ALGORITHMS[key.algorithm], key.kid)
                assert chosen.kid == key.kid
                assert chosen.public_key == key.private.public_key()
                assert key_set.candidates(ALGORITHMS[key.algorithm], f"junk-{number}") == []

    assert on_threads(choose) == []
    assert {len(key_set._chosen) for key_set in sets} == {len(keys)}


# What is remembered of headers and scopes.


def test_headers_are_never_mixed_up() -> None:
    """The table of headers is bounded, and gives each segment its own header."""
    segments = [base64url(b'{"alg":"RS256","kid":"%d"}' % number).encode() for number in range(400)]

    def read(number: int) -> None:
        for turn in range(400):
            which = (number * 25 + turn) % 400
            assert jws._remembered_header(segments[which]).kid == str(which)

    assert on_threads(read) == []
    table = jws._remembered_header.cache_info()
    assert table.currsize == table.maxsize


def test_scope_patterns_are_never_mixed_up() -> None:
    """The table of compiled patterns is bounded, and reads each scope by its own pattern."""

    def read(number: int) -> None:
        for turn in range(100):
            which = (number * 7 + turn) % 100
            scope = Scope(f"p{which}.contacts.read", pattern=f"p{which}.{{resource}}.{{action}}")
            assert (scope.action, scope.resource) == ("read", "contacts")

    assert on_threads(read) == []
    table = scopes._compile.cache_info()
    assert table.currsize == table.maxsize


# Tokens for other APIs, and the thread that fetches.


def send(auth: httpx.Auth) -> str:
    """Send one request with `auth`; the subject of the token that it carried, and the token."""
    sent: list[str] = []

    def api(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers["Authorization"].removeprefix("Bearer "))
        return httpx.Response(200)

    with httpx.Client(auth=auth, transport=httpx.MockTransport(api)) as client:
        client.get("https://contacts.example/contacts")
    return sent[0]


def test_a_client_gets_one_token_for_all_threads(issuer: LocalIssuer) -> None:
    """XCHG-01: threads that need the same token cause one flight, and send the same."""
    for _ in range(3):
        endpoint = TokenEndpoint(issuer)
        auth = ClientCredentials(
            issuer=ISSUER, client_id="reports-api", client_secret="s3cret", audience="organize", transport=endpoint
        )
        sent: list[str] = []
        assert on_threads(lambda _, auth=auth, sent=sent: sent.extend(send(auth) for _ in range(5))) == []  # type: ignore[misc]
        assert (len(sent), len(set(sent)), len(endpoint.requests)) == (5 * THREADS, 1, 1)
        auth.close()


def test_a_user_never_gets_the_token_of_another(issuer: LocalIssuer) -> None:
    """XCHG-05: requests of several users at once: one flight each, and each sends its own user's token."""
    endpoint = TokenEndpoint(issuer)
    reports = ResourceServer(issuer=ISSUER, audience="organize", jwks=issuer.jwks())
    auth = OnBehalfOf(reports, client_id="reports-api", client_secret="s3cret", audience="other", transport=endpoint)
    users = [issuer.token(subject=f"auth0|{number}") for number in range(4)]
    other = ResourceServer(issuer=ISSUER, audience="other", jwks=issuer.jwks())

    def handle(number: int) -> None:
        cell = RequestCell(str)
        headers = [("Authorization", f"Bearer {users[number % 4]}")]
        Guard(reports).decide(cell, RequestView("GET", str, headers), "/reports")
        current_cell.set(cell)  # a thread of its own has a context of its own
        for _ in range(5):
            assert other.validate(send(auth)).subject == f"auth0|{number % 4}"

    assert on_threads(handle) == []
    assert len(endpoint.requests) == 4
    auth.close()


def test_every_errand_lands_while_others_close_the_thread() -> None:
    """JWK-17: whenever the thread is closed, an errand ends, done or cancelled, and no thread is left in the end."""
    before = set(threading.enumerate())
    thread = FetchThread(None)
    outcomes: list[Future[Any]] = []

    async def errand(outcome: "Future[str]") -> None:
        try:
            await asyncio.sleep(0)
            outcome.set_result("done")
        except asyncio.CancelledError:
            outcome.set_result("cancelled")

    def work(number: int) -> None:
        for turn in range(20):
            if (number + turn) % 4 == 0:
                thread.close()
            outcomes.append(Future())
            thread.run(errand(outcomes[-1]))

    assert on_threads(work) == []
    landed = Counter(outcome.result(PATIENCE) for outcome in outcomes)
    thread.close()
    for left in set(threading.enumerate()) - before:
        left.join(PATIENCE)
        assert not left.is_alive()
    assert landed.keys() <= {"done", "cancelled"}
    assert landed.total() == 20 * THREADS
