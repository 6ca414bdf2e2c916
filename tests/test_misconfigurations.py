"""What people set wrongly: the first line of the log names the setting and the fix, and the fix works.

Each mistake is made against a real local issuer with a token that it minted, behind the guard that every adapter uses.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from flask import Flask

from token_guard import ConfigurationError, Issuer, Reason, ResourceServer, all_of, requires_scope
from token_guard.events import QUIET
from token_guard.guard import Guard, Refusal, RequestCell, RequestView
from token_guard.testing import InMemoryTransport, LocalIssuer
from token_guard_flask import TokenGuard

HOURS = 7_200  # seconds that a clock is off by
URL = "https://northwind.example/"
TENANT = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
API_ID = "6e74172b-be56-4843-9ff4-e66a39bb12e3"
POOL = "eu-central-1_AbCdEf123"
PEM = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----\n"

NORTHWIND = LocalIssuer(URL, custom_domain="https://login.northwind.example/", algorithm="ES256")
HMAC = NORTHWIND.add_key("HS256")
OTHER = LocalIssuer("https://other.example/", algorithm="ES256")
KEYCLOAK = LocalIssuer("https://keycloak.example/realms/organizer", algorithm="ES256")
COGNITO = LocalIssuer(f"https://cognito-idp.eu-central-1.amazonaws.com/{POOL}", algorithm="ES256")
ENTRA = LocalIssuer(f"https://login.microsoftonline.com/{TENANT}/v2.0", algorithm="ES256", audience=API_ID)

ENCRYPTION_KEY = {**NORTHWIND.key.public_jwk(), "use": "enc"}
PAGES = {
    f"{URL}login": httpx.Response(200, html="<title>Log in</title>"),
    f"{URL}moved": httpx.Response(302, headers={"Location": f"{URL}.well-known/jwks.json?state=secret"}),
    f"{URL}empty": httpx.Response(200, json={"keys": []}),
    f"{URL}encryption": httpx.Response(200, json={"keys": [ENCRYPTION_KEY]}),
    f"{URL}secrets": httpx.Response(200, json={"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "1"}]}),
    f"{URL}error": httpx.Response(500),
}


class Site(InMemoryTransport):
    """The issuers, and pages beside theirs."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        page = PAGES.get(str(request.url))
        if page is None:
            return await super().handle_async_request(request)
        return httpx.Response(page.status_code, headers=page.headers, stream=httpx.ByteStream(page.content))


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One mistake. `wrong` settings and `token` bring the line that names all of `names`.

    `right` settings, and the token `mended` where the fix is the client's or the issuer's, are let in.
    """

    names: tuple[str, ...]
    reason: Reason
    wrong: Mapping[str, Any] = field(default_factory=dict)
    right: Mapping[str, Any] = field(default_factory=dict)
    token: Callable[[], str] = NORTHWIND.token
    mended: Callable[[], str] | None = None


def of_cognito(client_id: str = "organizer-web") -> str:
    return COGNITO.token(claims={"aud": None, "azp": None, "client_id": client_id, "token_use": "access"})


def of_entra() -> str:
    return ENTRA.token(claims={"ver": "2.0", "tid": TENANT, "scope": None, "scp": "read:contacts"})


def without_scope() -> str:
    return NORTHWIND.token("")


def with_permissions() -> str:
    return NORTHWIND.token("openid profile", claims={"permissions": ["read:contacts"]})


MISTAKES = {
    # Whom we trust.
    "lost slash": Mistake(
        reason=Reason.WRONG_ISSUER,
        wrong={"issuer": URL.rstrip("/")},
        names=("only the slash at the end differs: spell the setting issuer as the token does", repr(URL)),
    ),
    "added slash": Mistake(
        reason=Reason.WRONG_ISSUER,
        wrong={"issuer": f"{KEYCLOAK.url}/"},
        right={"issuer": KEYCLOAK.url},
        token=KEYCLOAK.token,
        names=("only the slash at the end differs: spell the setting issuer as the token does", repr(KEYCLOAK.url)),
    ),
    "custom domain that is not listed": Mistake(
        reason=Reason.WRONG_ISSUER,
        right={"issuer": [URL, "https://login.northwind.example/"]},
        token=lambda: NORTHWIND.token(issuer="https://login.northwind.example/"),
        names=("'https://login.northwind.example/'", "where it is another domain", "list it in the setting issuer"),
    ),
    "another realm": Mistake(
        reason=Reason.WRONG_ISSUER,
        wrong={"issuer": Issuer.keycloak("https://keycloak.example", "Organizer")},
        right={"issuer": Issuer.keycloak("https://keycloak.example", "organizer")},
        token=KEYCLOAK.token,
        names=("realms/organizer'", "realms/Organizer'", "realm of yours, list it in the setting issuer"),
    ),
    "issuer behind a proxy": Mistake(
        reason=Reason.WRONG_ISSUER,
        token=lambda: NORTHWIND.token(issuer="http://northwind.example/"),
        mended=NORTHWIND.token,
        names=("only http and https differ: tell the issuer the public address",),
    ),
    "issuers in one text": Mistake(
        reason=Reason.WRONG_ISSUER,
        wrong={"issuer": f"{URL},{OTHER.url}"},
        right={"issuer": [URL, OTHER.url]},
        names=("the setting issuer is one text with commas: give a list",),
    ),
    "version 1 of Entra ID": Mistake(
        reason=Reason.WRONG_ISSUER,
        wrong={"issuer": Issuer.entra(TENANT, version=1), "audience": API_ID},
        right={"issuer": Issuer.entra(TENANT), "audience": API_ID},
        token=of_entra,
        names=("it is a version 2.0 token", "say Issuer.entra(version=2)"),
    ),
    "version 1 of Entra ID as a URL": Mistake(
        reason=Reason.WRONG_ISSUER,
        wrong={"issuer": f"https://sts.windows.net/{TENANT}/", "audience": API_ID},
        right={"issuer": ENTRA.url, "audience": API_ID},
        token=of_entra,
        names=("it is a version 2.0 token", "say Issuer.entra(version=2)"),
    ),
    "another organization": Mistake(
        reason=Reason.WRONG_ORGANIZATION,
        wrong={"issuer": Issuer(URL, organizations={"org_1"})},
        right={"issuer": Issuer(URL, organizations={"org_1", "org_2"})},
        token=lambda: NORTHWIND.token(claims={"org_id": "org_2"}),
        names=("org_id is 'org_2'", "the issuer's organizations do not list: add it"),
    ),
    # For whom tokens are.
    "client ID as audience": Mistake(
        reason=Reason.WRONG_AUDIENCE,
        wrong={"audience": "organizer-spa"},
        names=("the token is for 'organize'", "the setting audience names the client, not the API"),
    ),
    "ID token": Mistake(
        reason=Reason.WRONG_AUDIENCE,
        token=lambda: NORTHWIND.token("", audience="organizer-spa"),
        mended=NORTHWIND.token,
        names=("for the client itself, as ID tokens are: the client must ask for, and send, an access token",),
    ),
    "ID token with a hash": Mistake(
        reason=Reason.WRONG_TYPE,
        token=lambda: NORTHWIND.token("", audience="organizer-spa", claims={"at_hash": "x"}),
        mended=NORTHWIND.token,
        names=("it has at_hash, as ID tokens do; the client must send its access token",),
    ),
    "Keycloak without an audience mapper": Mistake(
        reason=Reason.WRONG_AUDIENCE,
        wrong={"issuer": KEYCLOAK.url},
        right={"issuer": KEYCLOAK.url},
        token=lambda: KEYCLOAK.token(audience="account", client_id="organize"),
        mended=KEYCLOAK.token,
        names=("the token is for 'account', accepted are 'organize'", "add an audience mapper"),
    ),
    "Entra ID's URI of the API": Mistake(
        reason=Reason.WRONG_AUDIENCE,
        wrong={"issuer": Issuer.entra(TENANT), "audience": f"api://{API_ID}"},
        right={"issuer": Issuer.entra(TENANT), "audience": API_ID},
        token=of_entra,
        names=("api:// differs: spell the setting audience as the token does",),
    ),
    "audiences in one text": Mistake(
        reason=Reason.WRONG_AUDIENCE,
        wrong={"audience": "organize, urn:old"},
        right={"audience": ["organize", "urn:old"]},
        names=("the setting audience is one text with commas: give a list",),
    ),
    "token for another API": Mistake(
        reason=Reason.WRONG_AUDIENCE,
        wrong={"audience": "organise"},
        names=("the token is for 'organize'", "set audience to the name under which the issuer knows this API"),
    ),
    "Cognito without client_ids": Mistake(
        reason=Reason.CLAIM_MISSING,
        wrong={"issuer": COGNITO.url},
        right={"issuer": Issuer.cognito("eu-central-1", POOL, client_ids={"organizer-web"})},
        token=of_cognito,
        names=("the token has no aud", "give Issuer(client_ids=...)", "Amazon Cognito"),
    ),
    "Cognito with another client": Mistake(
        reason=Reason.WRONG_AUDIENCE,
        wrong={"issuer": Issuer.cognito("eu-central-1", POOL, client_ids={"organizer"})},
        right={"issuer": Issuer.cognito("eu-central-1", POOL, client_ids={"organizer", "organizer-web"})},
        token=of_cognito,
        names=("client_id is 'organizer-web'", "not among the issuer's client_ids: add it"),
    ),
    "client_ids without Cognito": Mistake(
        reason=Reason.CLAIM_MISSING,
        wrong={"issuer": Issuer(URL, client_ids={"organizer-spa"})},
        names=("the token has no token_use", "client_ids needs it: leave that out"),
    ),
    # How tokens look.
    "opaque token": Mistake(
        reason=Reason.MALFORMED,
        token=lambda: "2YotnFZFEjr1zCsicMWpAA",
        mended=NORTHWIND.token,
        names=("an opaque token", "the client must ask the issuer for one for this API's audience"),
    ),
    "encrypted token": Mistake(
        reason=Reason.MALFORMED,
        token=lambda: "e30.e30.e30.e30.e30",
        mended=NORTHWIND.token,
        names=("encrypted", "the issuer must be set to sign alone"),
    ),
    "profile of another issuer": Mistake(
        reason=Reason.CLAIM_MISSING,
        wrong={"profile": "rfc9068"},
        names=("the token has no client_id", "profile='rfc9068' demands it"),
    ),
    "profile of tokens with another type": Mistake(
        reason=Reason.WRONG_TYPE,
        wrong={"profile": "rfc9068"},
        token=lambda: NORTHWIND.token(claims={"client_id": "organizer-spa", "jti": "1"}),
        names=("profile='rfc9068' demands: leave the profile out",),
    ),
    "max_token_age without iat": Mistake(
        reason=Reason.CLAIM_MISSING,
        wrong={"max_token_age": 600},
        token=lambda: NORTHWIND.token(claims={"iat": None}),
        names=("the token has no iat", "max_token_age needs it"),
    ),
    "tokens that never expire": Mistake(
        reason=Reason.CLAIM_MISSING,
        wrong={"profile": "rfc9068"},
        token=lambda: NORTHWIND.token(claims={"exp": None}),
        mended=NORTHWIND.token,
        names=("the token has no exp; no token without it is accepted",),
    ),
    "clock that is ahead": Mistake(
        reason=Reason.EXPIRED,
        wrong={"clock": lambda: time.time() + HOURS},
        token=lambda: NORTHWIND.token(lifetime=600),
        names=("s before this machine's time", "where tokens just issued are refused, set the clock of this machine"),
    ),
    "clock that is behind": Mistake(
        reason=Reason.ISSUED_IN_FUTURE,
        wrong={"clock": lambda: time.time() - HOURS},
        names=("s after this machine's time", "set the clock of this machine", "leeway"),
    ),
    "clock that is behind, and nbf": Mistake(
        reason=Reason.NOT_YET_VALID,
        wrong={"clock": lambda: time.time() - HOURS},
        token=lambda: NORTHWIND.token(claims={"nbf": int(time.time())}),
        names=("s after this machine's time", "set the clock of this machine", "leeway"),
    ),
    # Scopes.
    "scopes in permissions": Mistake(
        reason=Reason.INSUFFICIENT_SCOPE,
        right={"scope_claims": ["scope", "permissions"]},
        token=with_permissions,
        names=("its claim 'permissions' holds such: name it in the setting scope_claims",),
    ),
    "scopes in a claim of one's own": Mistake(
        reason=Reason.INSUFFICIENT_SCOPE,
        right={"scope_claims": "https://northwind.example/scope"},
        token=lambda: NORTHWIND.token("", claims={"https://northwind.example/scope": "create:contacts read:contacts"}),
        names=("its claim 'https://northwind.example/scope' holds such", "scope_claims"),
    ),
    "no scope was asked for": Mistake(
        reason=Reason.INSUFFICIENT_SCOPE,
        token=without_scope,
        mended=NORTHWIND.token,
        names=("the token has no scopes at all", "scope_claims names none of ['iss', 'sub', 'aud'"),
    ),
    # Algorithms and keys.
    "algorithm that is not listed": Mistake(
        reason=Reason.ALGORITHM_NOT_ALLOWED,
        wrong={"algorithms": ["RS256"]},
        right={"algorithms": ["RS256", "ES256"]},
        names=("add ES256 to the setting algorithms",),
    ),
    "shared secret at an issuer with keys": Mistake(
        reason=Reason.ALGORITHM_NOT_ALLOWED,
        right={"issuer": Issuer(URL, secret=HMAC.private)},
        token=lambda: NORTHWIND.token(key=HMAC),
        names=("alg HS256", "let the issuer sign with RS256 instead, or give Issuer(secret=...)"),
    ),
    "secret at an issuer with keys": Mistake(
        reason=Reason.ALGORITHM_NOT_ALLOWED,
        wrong={"issuer": Issuer(URL, secret=HMAC.private)},
        names=("alg ES256", "the setting secret accepts HMAC alone: leave it out"),
    ),
    "given keys without one": Mistake(
        reason=Reason.UNKNOWN_KEY,
        wrong={"jwks": {"keys": []}},
        names=(f"jwks of issuer {URL}", "no key that verifies signatures; give public ones, or leave jwks out"),
    ),
    "given keys of another issuer": Mistake(
        reason=Reason.UNKNOWN_KEY,
        wrong={"jwks": OTHER.jwks()},
        names=("jwks has", "put the issuer's new keys there, or leave it out to fetch them"),
    ),
    "jwks_uri of another issuer": Mistake(
        reason=Reason.UNKNOWN_KEY,
        wrong={"jwks_uri": f"{OTHER.url}.well-known/jwks.json"},
        names=("the issuer has", "Where jwks_uri is set, that may be another issuer's, too"),
    ),
    "jwks_uri that answers HTML": Mistake(
        reason=Reason.KEYS_UNAVAILABLE,
        wrong={"jwks_uri": f"{URL}login"},
        names=(f"{URL}login answered with something that is not JSON; check the setting jwks_uri",),
    ),
    "jwks_uri that is absent": Mistake(
        reason=Reason.KEYS_UNAVAILABLE,
        wrong={"jwks_uri": f"{URL}absent"},
        names=(f"{URL}absent answered 404; check the setting jwks_uri",),
    ),
    "jwks_uri that redirects": Mistake(
        reason=Reason.KEYS_UNAVAILABLE,
        wrong={"jwks_uri": f"{URL}moved"},
        right={"jwks_uri": f"{URL}.well-known/jwks.json"},
        names=(f"a redirect to '{URL}.well-known/jwks.json', which is not followed; check the setting jwks_uri",),
    ),
    "jwks_uri that fails": Mistake(
        reason=Reason.KEYS_UNAVAILABLE,
        wrong={"jwks_uri": f"{URL}error"},
        names=(f"{URL}error answered 500; where that lasts, check the setting jwks_uri",),
    ),
    "jwks_uri with a typing error": Mistake(
        reason=Reason.KEYS_UNAVAILABLE,
        wrong={"jwks_uri": "https://nortwhind.example/jwks"},
        names=("https://nortwhind.example/jwks cannot be reached", "check the setting jwks_uri"),
    ),
    "jwks_uri of an empty key set": Mistake(
        reason=Reason.KEYS_UNAVAILABLE,
        wrong={"jwks_uri": f"{URL}empty"},
        names=("no usable signature key (it is empty)", "check the setting jwks_uri"),
    ),
    "jwks_uri of encryption keys": Mistake(
        reason=Reason.KEYS_UNAVAILABLE,
        wrong={"jwks_uri": f"{URL}encryption"},
        names=("no usable signature key (key 0 is skipped: its use is not sig)", "check the setting jwks_uri"),
    ),
    "jwks_uri of shared secrets": Mistake(
        reason=Reason.KEYS_UNAVAILABLE,
        wrong={"jwks_uri": f"{URL}secrets"},
        names=("it holds private or symmetric key material", "the issuer must publish public ones there"),
    ),
    "metadata_url that is absent": Mistake(
        reason=Reason.KEYS_UNAVAILABLE,
        wrong={"issuer": Issuer(URL, metadata_url=f"{URL}absent")},
        names=(f"{URL}absent answered 404; check the setting metadata_url",),
    ),
    "metadata_url of another issuer": Mistake(
        reason=Reason.ISSUER_MISCONFIGURED,
        wrong={"issuer": Issuer(URL, metadata_url=f"{OTHER.url}.well-known/openid-configuration")},
        names=(repr(OTHER.url), "set issuer to what the document says", "otherwise mend metadata_url"),
    ),
    "issuer without metadata": Mistake(
        reason=Reason.KEYS_UNAVAILABLE,
        wrong={"issuer": f"{URL}tenant"},
        token=lambda: NORTHWIND.token(issuer=f"{URL}tenant"),
        mended=NORTHWIND.token,
        names=("answered 404; check the setting issuer",),
    ),
}


def refusal(settings: Mapping[str, Any], token: str) -> Refusal | None:
    """Send a request that needs `read:contacts` through a guard with these settings, and return its refusal."""
    transport = Site(NORTHWIND, OTHER, KEYCLOAK, COGNITO, ENTRA)
    server = ResourceServer(**{"issuer": URL, "audience": "organize", "transport": transport, **settings})
    cell = RequestCell(str)
    Guard(server).decide(cell, RequestView("GET", str, [("Authorization", f"Bearer {token}")]), "/contacts")
    lack = None if cell.token is None else all_of("read:contacts").refusal(cell.token)
    if lack is not None:
        cell.refuse(lack)
    server.close()
    return cell.refusal


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_first_line_of_the_log_names_the_setting_and_the_fix(
    mistake: Mistake, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever reads the first line that is not about success knows what to change, and where."""
    with caplog.at_level(logging.INFO, "token_guard"):
        refused = refusal(mistake.wrong, mistake.token())
    assert refused is not None
    assert refused.reason is mistake.reason
    first = next(record for record in caplog.records if record.__dict__["event"] not in QUIET)
    for name in mistake.names:
        assert name in first.getMessage()


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_the_fix_mends_it(mistake: Mistake) -> None:
    """With the setting that the line names, or with the token that it asks for, the request is let in."""
    assert refusal(mistake.right, (mistake.mended or mistake.token)()) is None


def server(**settings: Any) -> Callable[[], object]:
    return lambda: ResourceServer(**{"issuer": URL, "audience": "organize", **settings})


def environment(**variables: str) -> Callable[[], object]:
    values = {"ISSUER": URL, "AUDIENCE": "organize", **variables}
    return lambda: ResourceServer.from_env({f"TOKEN_GUARD_{name}": value for name, value in values.items()})


def issuer(*arguments: Any, **settings: Any) -> Callable[[], object]:
    return lambda: Issuer(*(arguments or (URL,)), **settings)


def flask(times: int) -> Callable[[], object]:
    app, organizer = Flask("contacts"), ResourceServer(issuer=URL, audience="organize")
    return lambda: [TokenGuard(app, organizer) for _ in range(times)]


def django(**values: Any) -> Callable[[], object]:
    return lambda: Guard.from_settings({"ISSUER": URL, "AUDIENCE": "organize", **values}, "TOKEN_GUARD: ")


# What is wrong, what the error says, and what is right.
AT_START: dict[str, tuple[Callable[[], object], tuple[str, ...], Callable[[], object]]] = {
    "http issuer": (
        server(issuer="http://northwind.example/"),
        ("issuer must be an absolute https URL", "'http://northwind.example/'", "http is accepted for localhost"),
        server(),
    ),
    "issuer without a scheme": (
        server(issuer="northwind.example"),
        ("issuer must be an absolute https URL", "'northwind.example'"),
        server(),
    ),
    "issuer with a space": (
        server(issuer=f"{URL} "),
        ("issuer must be an absolute https URL without spaces",),
        environment(ISSUER=f" {URL} "),
    ),
    "address of the metadata as issuer": (
        server(issuer=f"{URL}.well-known/openid-configuration"),
        ("issuer", "is the address of a document: give the part before /.well-known/"),
        server(),
    ),
    "address of the metadata as jwks_uri": (
        server(jwks_uri="northwind.example/jwks"),
        ("jwks_uri must be an absolute https URL",),
        server(jwks_uri=f"{URL}jwks"),
    ),
    "domain as a tenant of Entra ID": (
        lambda: Issuer.entra("northwind.onmicrosoft.com"),
        ("tenant_id must be the id of a tenant, a GUID",),
        lambda: Issuer.entra(TENANT),
    ),
    "issuer in quotes": (
        environment(ISSUER=f'"{URL}"'),
        ("TOKEN_GUARD_ISSUER begins with a quote", "write it without"),
        environment(),
    ),
    "audience in quotes": (
        environment(AUDIENCE="'organize'"),
        ("TOKEN_GUARD_AUDIENCE begins with a quote", "write it without"),
        environment(),
    ),
    "empty variable": (
        environment(AUDIENCE=""),
        ("TOKEN_GUARD_AUDIENCE is required and empty",),
        environment(),
    ),
    "empty variable that is not required": (
        environment(JWKS_URI=""),
        ("TOKEN_GUARD_JWKS_URI is set but empty: unset it",),
        environment(),
    ),
    "setting of Django in lower case": (
        lambda: Guard.from_settings({"issuer": URL, "audience": "organize"}, "TOKEN_GUARD: "),
        ("TOKEN_GUARD: audience is not a setting", "did you mean TOKEN_GUARD: AUDIENCE?"),
        django(),
    ),
    "setting of Django with a prefix": (
        lambda: Guard.from_settings({"TOKEN_GUARD_ISSUER": URL, "TOKEN_GUARD_AUDIENCE": "organize"}, "TOKEN_GUARD: "),
        ("TOKEN_GUARD: TOKEN_GUARD_AUDIENCE is not a setting", "did you mean TOKEN_GUARD: AUDIENCE?"),
        django(),
    ),
    "misspelt variable": (
        environment(AUDIENCES="organize"),
        ("TOKEN_GUARD_AUDIENCES is not a setting", "did you mean TOKEN_GUARD_AUDIENCE?"),
        environment(),
    ),
    "misspelt setting of Django": (
        django(PUBLIC_PATH=["/health"]),
        ("TOKEN_GUARD: PUBLIC_PATH is not a setting", "did you mean TOKEN_GUARD: PUBLIC_PATHS?"),
        django(PUBLIC_PATHS=["/health"]),
    ),
    "unit of the leeway": (
        environment(LEEWAY="30s"),
        ("TOKEN_GUARD_LEEWAY must be a number of seconds, not '30s'",),
        environment(LEEWAY="30"),
    ),
    "leeway of an hour": (
        server(leeway=3600),
        ("leeway must be a number of seconds, at least 0 and at most 300",),
        server(leeway=300),
    ),
    "algorithms in one text": (
        environment(ALGORITHMS="RS256,ES256"),
        ("algorithms: 'RS256,ES256' is not one of", "separate them by spaces, or give a list"),
        environment(ALGORITHMS="RS256 ES256"),
    ),
    "scope claims in one text": (
        environment(SCOPE_CLAIMS="scope,scp"),
        ("scope_claims: 'scope,scp' is not one claim", "separate them by spaces, or give a list"),
        environment(SCOPE_CLAIMS="scope scp"),
    ),
    "HMAC without a secret": (
        server(algorithms=["HS256"]),
        ("algorithms: HS256 needs Issuer(secret=...)",),
        server(issuer=Issuer(URL, secret=HMAC.private)),
    ),
    "public key as a secret": (
        issuer(secret=PEM),
        ("secret must be random text or bytes, not a key file", "given as jwks="),
        issuer(jwks=NORTHWIND.jwks()),
    ),
    "short secret": (
        issuer(secret="secret"),
        ("HS256 needs a secret of at least 32 bytes",),
        issuer(secret=HMAC.private),
    ),
    "one key as a key set": (
        server(jwks=NORTHWIND.key.public_jwk()),
        (f"jwks of issuer '{URL}'", "an object with an array `keys`"),
        server(jwks=NORTHWIND.jwks()),
    ),
    "address as a key set": (
        server(jwks=f"{URL}jwks"),
        (f"jwks of issuer '{URL}'", "an address is given as jwks_uri="),
        server(jwks_uri=f"{URL}jwks"),
    ),
    "function as a key set": (
        server(jwks=NORTHWIND.jwks),
        ("a function was given: call it",),
        server(jwks=NORTHWIND.jwks()),
    ),
    "no audience": (
        server(audience=None),
        ("audience is required", "the name under which the issuer knows this API"),
        server(),
    ),
    "keys from two places": (
        server(jwks=NORTHWIND.jwks(), jwks_uri=f"{URL}jwks"),
        ("jwks and jwks_uri contradict each other; keep one",),
        server(jwks=NORTHWIND.jwks()),
    ),
    "keys for two issuers": (
        server(issuer=[URL, OTHER.url], jwks_uri=f"{URL}jwks"),
        ("jwks_uri belongs to one issuer: give it to Issuer(",),
        server(issuer=[Issuer(URL, jwks_uri=f"{URL}jwks"), OTHER.url]),
    ),
    "profile that does not exist": (
        environment(PROFILE="at+jwt"),
        ("profile must be one of generic, rfc9068, not 'at+jwt'",),
        environment(PROFILE="rfc9068"),
    ),
    "scope_pattern without its fields": (
        server(scope_pattern="action:resource"),
        ("scope_pattern 'action:resource' must hold {action} and {resource}", "the default is '{action}:{resource}'"),
        server(scope_pattern="{resource}.{action}"),
    ),
    "scopes in one text": (
        lambda: requires_scope("read:contacts read:calendar"),
        ("'read:contacts read:calendar' is not a scope: give one name per string",),
        lambda: requires_scope("read:contacts", "read:calendar"),
    ),
    "two resource servers": (
        django(RESOURCE_SERVER="tests.organizer"),
        ("TOKEN_GUARD: RESOURCE_SERVER and TOKEN_GUARD: AUDIENCE contradict each other; keep one",),
        django(),
    ),
    "everything is public": (
        django(PUBLIC_PATHS=["/*"]),
        ("public_paths: '/*' would open everything; remove the guard if that is meant",),
        django(PUBLIC_PATHS=["/static/*"]),
    ),
    "two guards around one application": (
        flask(2),
        ("the application 'contacts' has a guard already: make one TokenGuard for it",),
        flask(1),
    ),
}


@pytest.mark.parametrize(("wrong", "names", "right"), AT_START.values(), ids=AT_START)
def test_what_can_be_known_is_told_at_start(
    wrong: Callable[[], object], names: tuple[str, ...], right: Callable[[], object]
) -> None:
    """The error names the setting and the fix; with the fix there is none."""
    with pytest.raises(ConfigurationError) as told:
        wrong()
    for name in names:
        assert name in str(told.value)
    right()


def test_a_view_without_a_guard_names_the_guards() -> None:
    """It never runs open; the error says what to put around it, for each framework."""

    @requires_scope("read:contacts")
    def view() -> str:
        return "contacts"

    with pytest.raises(ConfigurationError) as told:
        view()
    for guard in ("token_guard_asgi.TokenGuardM", "token_guard_django.TokenGuardM", "token_guard_flask.TokenGuard"):
        assert guard in str(told.value)
