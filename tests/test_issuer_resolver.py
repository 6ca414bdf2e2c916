"""Issuers that are known only when a token names them: whom the resolver is asked about, and what may be fetched."""

import gc
import threading
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from token_guard import (
    ConfigurationError,
    InvalidToken,
    Issuer,
    IssuerResolver,
    Reason,
    ResourceServer,
    TemporarilyUnavailable,
)
from token_guard.issuer_resolver import ResolvedIssuers
from token_guard.testing import InMemoryTransport, LocalIssuer

NAMES = ("red", "blue", "t0", "t1", "t2", "t3", "t4")
HOSTS = {f"{name}.login.example" for name in NAMES}


def tenant(name: str) -> LocalIssuer:
    return LocalIssuer(f"https://{name}.login.example/", algorithm="Ed25519")


class Tenants:
    """The customers of an API: what the resolver is asked, and what it answers."""

    def __init__(self, *urls: str) -> None:
        self.known: dict[str, object] = {url: Issuer(url) for url in urls}
        self.asked: list[str] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def __call__(self, url: str) -> Any:
        self.asked.append(url)
        self.meanwhile()
        answer = self.known.get(url)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def server_of() -> Iterator[Callable[..., ResourceServer]]:
    """Make resource servers whose issuers answer in memory, and close them at the end."""
    servers: list[ResourceServer] = []

    def make(tenants: Tenants, *issuers: LocalIssuer, also: tuple[str, ...] = (), **options: Any) -> ResourceServer:
        resolver = IssuerResolver(tenants, allowed_hosts=HOSTS, **options)
        transport = InMemoryTransport(*issuers)
        servers.append(ResourceServer(issuer=[*also, resolver], audience="organize", transport=transport))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


ServerOf = Callable[..., ResourceServer]


def refusal(server: ResourceServer, token: str) -> Reason:
    try:
        server.validate(token)
    except (InvalidToken, TemporarilyUnavailable) as refused:
        return refused.reason
    raise AssertionError("the token was accepted")


def test_accepts_tokens_of_every_issuer_that_the_resolver_knows(server_of: ServerOf) -> None:
    """Each tenant has keys of its own: a token of one that another has signed is refused (JWK-16)."""
    red, blue = tenant("red"), tenant("blue")
    server = server_of(Tenants(red.url, blue.url), red, blue)
    assert server.validate(red.token()).issuer == red.url
    assert server.validate(blue.token()).issuer == blue.url
    assert refusal(server, red.token(key=blue.key)) is Reason.UNKNOWN_KEY
    assert [health.issuer for health in server.health()] == [red.url, blue.url]


@pytest.mark.parametrize(
    "url",
    [
        *[
            "https://elsewhere.example/",
            "https://red.login.example.elsewhere.example/",
            "https://red.login.example:444/",
        ],
        *[
            "https://RED.login.example/",
            "https://a@red.login.example/",
            "http://red.login.example/",
            "red.login.example",
        ],
        *[
            "http://127.0.0.1/red/",
            "https://127.0.0.1/",
            "https://red.login.example\\@elsewhere.example/",
            "https://[::1]/",
        ],
    ],
)
def test_asks_the_resolver_about_allowed_hosts_alone(url: str, server_of: ServerOf) -> None:
    """JWK-19: what a stranger's token names is compared with the allow-list, before the resolver and before traffic."""
    red = tenant("red")
    tenants = Tenants(red.url, "https://elsewhere.example/")
    server = server_of(tenants, red)
    assert refusal(server, red.token(issuer=url)) is Reason.WRONG_ISSUER
    assert tenants.asked == []


def test_refuses_whom_the_resolver_does_not_know(server_of: ServerOf) -> None:
    """None is an answer, and it causes no request. The log tells which of the two lists lacks the issuer."""
    red = tenant("red")
    server = server_of(Tenants(), red)
    for url, why in (
        (red.url, "the IssuerResolver's resolve does not know it"),
        (
            "https://elsewhere.example/",
            "it is not https, or its host, with the port where there is one, is not in the resolver's allowed_hosts",
        ),
    ):
        with pytest.raises(InvalidToken) as refused:
            server.validate(red.token(issuer=url))
        assert refused.value.detail == f"iss is '{url}'; {why}"
    assert server.health() == ()


def test_a_tenant_that_is_forgotten_is_refused_at_once(server_of: ServerOf) -> None:
    """The resolver is asked for every token, also for one that was verified a moment ago."""
    red = tenant("red")
    tenants = Tenants(red.url)
    server = server_of(tenants, red)
    token = red.token()
    server.validate(token)
    server.validate(token)
    assert tenants.asked == [red.url] * 2
    del tenants.known[red.url]
    assert refusal(server, token) is Reason.WRONG_ISSUER


def test_a_remembered_token_stays_remembered_while_its_issuer_is_trusted(server_of: ServerOf) -> None:
    """A token of a resolved issuer is as cheap the second time as any other, for as long as the resolver knows it."""
    red = tenant("red")
    tenants = Tenants(red.url)
    trust = server_of(tenants, red)._trust
    found = trust.find({"iss": red.url})
    assert found is not None
    assert trust.still_holds(found)
    del tenants.known[red.url]
    assert not trust.still_holds(found)


def test_a_token_outlives_no_issuer_that_others_pushed_out(server_of: ServerOf) -> None:
    """What was found of an issuer is gone: its token is verified anew, and remembered again."""
    red, blue = tenant("red"), tenant("blue")
    server = server_of(Tenants(red.url, blue.url), red, blue, at_most=1)
    token = red.token()
    for one in (token, token, token, blue.token()):
        server.validate(one)
    gc.collect()
    server.validate(token)
    statistics = server.token_cache_statistics()
    assert (statistics.hits, statistics.misses, statistics.outdated) == (2, 3, 1)


def test_a_key_that_is_withdrawn_while_the_resolver_answers_verifies_nothing(server_of: ServerOf) -> None:
    """The resolver may take its time: the keys are looked at after it, for a token that is remembered as for any."""
    red = tenant("red")
    tenants = Tenants(red.url)
    server = server_of(tenants, red)
    token, kid = red.token(), red.key.kid
    for _ in range(2):
        server.validate(token)
    red.rotate()
    red.withdraw(kid)
    tenants.meanwhile = server.refresh
    assert refusal(server, token) is Reason.UNKNOWN_KEY


def test_changed_settings_count_at_once(server_of: ServerOf) -> None:
    """SEC-02: what was verified under other settings, or other keys, is judged anew."""
    red = tenant("red")
    tenants = Tenants()
    tenants.known[red.url] = Issuer(red.url, jwks=red.jwks())
    server = server_of(tenants, red)
    token = red.token()
    server.validate(token)
    tenants.known[red.url] = Issuer(red.url, jwks=red.jwks(), audience="elsewhere")
    assert refusal(server, token) is Reason.WRONG_AUDIENCE
    tenants.known[red.url] = Issuer(red.url, jwks=tenant("other").jwks())
    assert refusal(server, token) is Reason.UNKNOWN_KEY


def test_configured_issuers_need_no_resolver(server_of: ServerOf) -> None:
    """A resolver may stand beside issuers that are listed; it is not asked about those."""
    red, blue = tenant("red"), LocalIssuer("https://elsewhere.example/", algorithm="Ed25519")
    tenants = Tenants(red.url)
    server = server_of(tenants, red, blue, also=(blue.url,))
    assert server.validate(blue.token()).issuer == blue.url
    assert tenants.asked == []
    assert server.validate(red.token()).issuer == red.url


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (OSError("no database"), "the issuer resolver raised OSError"),
        *(
            (answer, f"the issuer resolver must return None or an Issuer('https://red.login.example/'), not {answer!r}")
            for answer in ("https://red.login.example/", True, Issuer("https://blue.login.example/"))
        ),
    ],
    ids=str,
)
def test_a_resolver_that_fails_is_an_outage(answer: object, why: str, server_of: ServerOf) -> None:
    """What cannot be decided is a 503, whatever the resolver does; the log tells what it did."""
    red = tenant("red")
    tenants = Tenants()
    tenants.known[red.url] = answer
    with pytest.raises(TemporarilyUnavailable) as unavailable:
        server_of(tenants, red).validate(red.token())
    assert (unavailable.value.reason, unavailable.value.detail) == (Reason.ISSUER_MISCONFIGURED, why)


def test_settings_that_contradict_the_token_s_issuer_are_an_outage(server_of: ServerOf) -> None:
    """Given keys that are no key set are told when they are needed."""
    red = tenant("red")
    tenants = Tenants()
    tenants.known[red.url] = Issuer(red.url, jwks={"keys": "none"})
    with pytest.raises(
        TemporarilyUnavailable, match="^issuer_misconfigured: jwks of issuer 'https://red.login.example/'"
    ):
        server_of(tenants, red).validate(red.token())


def test_keeps_a_bounded_number_of_issuers(server_of: ServerOf) -> None:
    """Whoever names many tenants makes us keep no more than agreed; those of before are fetched again."""
    tenants = [tenant(f"t{number}") for number in range(5)]
    server = server_of(Tenants(*(each.url for each in tenants)), *tenants, at_most=2)
    for each in (*tenants, tenants[0]):
        assert server.validate(each.token()).issuer == each.url
    assert {health.issuer for health in server.health()} == {tenants[4].url, tenants[0].url}


def test_a_remembered_token_keeps_no_issuer(server_of: ServerOf) -> None:
    """Its keys are gone with the issuer, and not only when ten thousand other tokens have been remembered."""
    tenants = [tenant(f"t{number}") for number in range(5)]
    server = server_of(Tenants(*(each.url for each in tenants)), *tenants, at_most=2)
    for each in tenants:
        server.validate(each.token())
        server.validate(each.token())  # its keys are here now: only with them is a token remembered
    gc.collect()
    remembered = [entry.trusted() for entry in server._token_cache._remembered.values()]
    assert [trusted and trusted.policy.issuer for trusted in remembered] == [None] * 3 + [
        each.url for each in tenants[3:]
    ]
    assert server.validate(tenants[0].token()).issuer == tenants[0].url


def test_many_threads_make_one_issuer_of_a_name() -> None:
    """The first tokens of a tenant come together: its keys are fetched once."""
    red = tenant("red")
    transport = InMemoryTransport(red)
    server = ResourceServer(
        issuer=IssuerResolver(Tenants(red.url), allowed_hosts=HOSTS), audience="organize", transport=transport
    )
    tokens = [red.token(subject=f"user {number}") for number in range(20)]
    threads = [threading.Thread(target=server.validate, args=(token,)) for token in tokens]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    server.close()
    assert len(transport.requests) == 2


def test_what_a_resolved_issuer_leaves_open_is_the_resource_server_s() -> None:
    """Its profile, for one: nobody is judged more mildly for being found later."""
    red = tenant("red")
    resolver = IssuerResolver(Tenants(red.url), allowed_hosts=HOSTS)
    transport = InMemoryTransport(red)
    server = ResourceServer(issuer=resolver, audience="organize", transport=transport, profile="rfc9068")
    assert refusal(server, red.token()) is Reason.CLAIM_MISSING
    server.close()


def test_connects_to_no_private_address() -> None:
    """JWK-19: an allowed name that resolves to loopback is not connected to, and the token is not judged."""
    issuer = LocalIssuer("https://localhost:9/red/", algorithm="Ed25519")
    resolver = IssuerResolver(Tenants(issuer.url), allowed_hosts=["localhost:9"])
    server = ResourceServer(issuer=resolver, audience="organize")
    with pytest.raises(TemporarilyUnavailable, match="the host has no public address") as refused:
        server.validate(issuer.token())
    server.close()
    assert refused.value.reason is Reason.KEYS_UNAVAILABLE


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"resolve": None}, "resolve must be a function"),
        ({"allowed_hosts": []}, "allowed_hosts"),
        ({"allowed_hosts": ["https://login.example"]}, "allowed_hosts must hold whole hosts"),
        ({"allowed_hosts": ["login.example/"]}, "allowed_hosts must hold whole hosts"),
        ({"allowed_hosts": ["*.login.example"]}, "allowed_hosts must hold whole hosts"),
        ({"allowed_hosts": [".login.example"]}, "allowed_hosts must hold whole hosts"),
        ({"allowed_hosts": ["Login.example"]}, "allowed_hosts must hold whole hosts"),
        ({"allowed_hosts": ["login.example:443"]}, "allowed_hosts must hold whole hosts"),
        ({"at_most": 0}, "at_most must be a whole number"),
        ({"at_most": True}, "at_most must be a whole number"),
    ],
)
def test_refuses_wrong_settings(options: dict[str, Any], why: str) -> None:
    """A wrong setting is told at once, by its name."""
    settings: dict[str, Any] = {"resolve": Tenants(), "allowed_hosts": HOSTS} | options
    with pytest.raises(ConfigurationError, match=f"^IssuerResolver: {why}"):
        IssuerResolver(settings.pop("resolve"), **settings)


def test_takes_the_least_settings() -> None:
    """One issuer may be enough; the hosts are a set from then on."""
    resolver = IssuerResolver(Tenants(), allowed_hosts=["red.login.example"], at_most=1)
    assert (resolver.allowed_hosts, resolver.at_most) == (frozenset({"red.login.example"}), 1)


def test_makes_each_issuer_once_and_anew_where_it_changes() -> None:
    """What is dear, a key cache with its fetches, is made for the first token and kept for the next."""
    tenants = Tenants("https://red.login.example/")
    numbers = count(1)
    resolved = ResolvedIssuers(IssuerResolver(tenants, allowed_hosts=HOSTS), lambda issuer: next(numbers))
    assert [resolved.get("https://red.login.example/") for _ in range(3)] == [1, 1, 1]
    tenants.known["https://red.login.example/"] = Issuer("https://red.login.example/", audience="other")
    assert [resolved.get("https://red.login.example/") for _ in range(3)] == [2, 2, 2]
    assert resolved.values() == [2]


def test_the_quicker_of_two_makes_the_issuer_of_both() -> None:
    """What is made in the time that another one needs is kept: there are no two key caches for one issuer."""
    url = "https://red.login.example/"
    numbers = count(1)

    def make(issuer: Issuer) -> int:
        number = next(numbers)
        if number == 1:
            resolved.get(url)
        return number

    resolved = ResolvedIssuers(IssuerResolver(Tenants(url), allowed_hosts=HOSTS), make)
    assert (resolved.get(url), resolved.values()) == (2, [2])


def test_begins_anew_without_a_lock_that_may_be_held() -> None:
    """In a forked child, which makes its issuers for itself."""
    url, numbers = "https://red.login.example/", count(1)
    resolved = ResolvedIssuers(IssuerResolver(Tenants(url), allowed_hosts=HOSTS), lambda issuer: next(numbers))
    assert resolved.get(url) == 1
    with resolved._lock:
        resolved.begin_anew()
        assert resolved.get(url) == 2


def test_refuses_a_resolver_that_is_awaited() -> None:
    """A coroutine is no issuer, and nothing here could wait for it."""

    async def resolve(url: str) -> Issuer | None:
        return None

    with pytest.raises(ConfigurationError, match="^IssuerResolver: resolve must be a function that is not awaited$"):
        IssuerResolver(resolve, allowed_hosts=HOSTS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"jwks": {"keys": []}}, "jwks belongs to one issuer"),
        ({"jwks_uri": "https://login.example/keys"}, "jwks_uri belongs to one issuer"),
        ({"audience": None}, "^audience is required: the name under which the issuer knows this API$"),
        (
            {"issuer": [IssuerResolver(Tenants(), allowed_hosts=HOSTS)] * 2},
            "^issuer holds two IssuerResolvers; keep one$",
        ),
    ],
)
def test_refuses_options_that_contradict_a_resolver(arguments: dict[str, Any], why: str) -> None:
    """What belongs to one issuer cannot be said for all that a resolver may find."""
    settings: dict[str, Any] = {"issuer": IssuerResolver(Tenants(), allowed_hosts=HOSTS), "audience": "organize"}
    with pytest.raises(ConfigurationError, match=why):
        ResourceServer(**settings | arguments)
