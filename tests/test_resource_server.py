"""The road from a raw token to an access token: settings, the order of the rules, what a refusal never gives away."""

import base64
import json
import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import httpx
import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import JSON_VALUES
from token_guard import (
    AccessToken,
    ChallengePolicy,
    ConfigurationError,
    InsufficientScope,
    InvalidRequest,
    InvalidToken,
    Issuer,
    KeyPolicy,
    MissingToken,
    OnBehalfOf,
    Reason,
    RequestRejected,
    RequestView,
    ResourceServer,
    TemporarilyUnavailable,
    permission,
    user_only,
)
from token_guard.guard import RequestCell, current_cell
from token_guard.testing import InMemoryTransport, LocalIssuer, SigningKey

NOW = 1_700_000_000
ISSUER = "https://northwind.auth0.com/"
CUSTOM_DOMAIN = "https://login.northwind.com/"
TENANT = Issuer(ISSUER)

Validate = Callable[[ResourceServer, str], AccessToken]
Refusal = RequestRejected | TemporarilyUnavailable


def now() -> float:
    return NOW


@pytest.fixture(scope="module")
def issuer() -> LocalIssuer:
    return LocalIssuer(ISSUER, algorithm="Ed25519", clock=now)


@pytest.fixture(scope="module")
def strict_issuer() -> LocalIssuer:
    return LocalIssuer(ISSUER, algorithm="Ed25519", dialect="rfc9068", clock=now)


@pytest.fixture(params=["threads", "asyncio", "trio"])
def validate(request: pytest.FixtureRequest) -> Validate:
    """`validate`, and `validate_async` under either event loop."""
    if request.param == "threads":
        return ResourceServer.validate
    return lambda server, token: anyio.run(server.validate_async, token, backend=request.param)


def server_for(issuer: LocalIssuer, /, **options: Any) -> ResourceServer:
    arguments: dict[str, Any] = {"issuer": issuer.url, "audience": "organize", "jwks": issuer.jwks(), "clock": now}
    return ResourceServer(**{**arguments, **options})


def refusal(question: Callable[[], object]) -> Refusal:
    """The one kind of exception that a token may cause."""
    with pytest.raises(Exception) as raised:  # noqa: PT011  # that nothing else is raised is what is tested
        question()
    assert isinstance(raised.value, (RequestRejected, TemporarilyUnavailable))
    return raised.value


def reason(server: ResourceServer, token: str, validate: Validate = ResourceServer.validate) -> Reason:
    return refusal(lambda: validate(server, token)).reason


# Settings.


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"issuer": None}, "issuer"),
        ({"issuer": []}, "issuer"),
        ({"issuer": ""}, "issuer"),
        ({"issuer": [7]}, "issuer"),
        ({"issuer": b"https://a.example"}, "issuer"),
        ({"issuer": {"https://a.example": 1}}, "issuer"),
        ({"issuer": "http://a.example"}, "https"),
        ({"issuer": "https://a.example?x"}, "query"),
        ({"issuer": "https://a.example#x"}, "fragment"),
        ({"issuer": "https://user@a.example"}, "https"),
        ({"issuer": [TENANT, ISSUER]}, "twice"),
        ({"audience": None}, "audience"),
        ({"audience": ""}, "audience"),
        ({"audience": []}, "audience"),
        ({"audience": ["organize", ""]}, "audience"),
        ({"audience": [7]}, "audience"),
        ({"audience": b"organize"}, "audience"),
        ({"audience": {"organize": 1}}, "audience"),
        ({"jwks": {}}, "jwks"),
        ({"jwks": []}, "jwks"),
        ({"jwks": {"keys": {}}}, "jwks"),
        ({"jwks": {"keys": []}, "jwks_uri": "https://a.example/"}, "jwks and jwks_uri"),
        ({"jwks_uri": "http://a.example/"}, "jwks_uri"),
        ({"jwks": {"keys": []}, "issuer": [TENANT, CUSTOM_DOMAIN]}, "belongs to one issuer"),
        ({"jwks_uri": "https://a.example/", "issuer": [TENANT, CUSTOM_DOMAIN]}, "belongs to one issuer"),
        ({"jwks_uri": "https://a.example/", "issuer": Issuer(ISSUER, jwks_uri="https://b.example/")}, "jwks_uri"),
        ({"jwks": {"keys": []}, "issuer": Issuer(ISSUER, secret="s" * 32)}, "jwks and secret"),
        ({"algorithms": []}, "algorithms"),
        ({"algorithms": ["none"]}, "none"),
        ({"algorithms": ["rs256"]}, "rs256"),
        ({"algorithms": ["HS256"]}, "secret="),
        ({"algorithms": 7}, "algorithms"),
        ({"profile": "strict"}, "profile"),
        ({"leeway": -1}, "leeway"),
        ({"leeway": 301}, "leeway"),
        ({"leeway": 3600}, "leeway"),
        ({"leeway": "30"}, "leeway"),
        ({"leeway": True}, "leeway"),
        ({"leeway": float("nan")}, "leeway"),
        ({"max_token_age": -1}, "max_token_age"),
        ({"max_token_age": float("inf")}, "max_token_age"),
        ({"scope_claims": []}, "scope_claims"),
        ({"scope_claims": [7]}, "scope_claims"),
        ({"scope_implications": {"a": "b"}}, "scope_implications"),
        ({"scope_implications": {"a": ["b"], "b": ["a"]}}, "cycle"),
        ({"scope_pattern": "{action}"}, "scope_pattern"),
        ({"keys": {"time_to_live": 60}}, "keys must be a KeyPolicy"),
        ({"challenge": "api"}, "challenge must be a ChallengePolicy"),
        ({"is_revoked": True}, "is_revoked"),
        ({"clock": NOW}, "clock"),
        ({"monotonic": 0}, "monotonic"),
        ({"transport": "https://proxy.example"}, "transport"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_refuses_a_wrong_setting_at_once(options: dict[str, Any], names: str) -> None:
    """JWT-06, JWT-12, DISC-06, RES-01: what cannot work is told by the constructor, with the setting's name."""
    arguments: dict[str, Any] = {"issuer": ISSUER, "audience": "organize"}
    with pytest.raises(ConfigurationError, match=names):
        ResourceServer(**{**arguments, **options})


def test_refuses_a_revocation_check_that_must_be_awaited() -> None:
    """A coroutine is no bool: an `async def is_revoked` would answer every request with 503."""

    async def is_revoked(token: AccessToken) -> bool:
        return False

    with pytest.raises(ConfigurationError, match="is_revoked"):
        ResourceServer(issuer=ISSUER, audience="organize", is_revoked=is_revoked)  # type: ignore[arg-type]


def test_demands_issuer_and_audience() -> None:
    """JWT-12: there is no implicit `any`; an audience may be left to issuers that all say it themselves."""
    own = Issuer("https://own.example/", audience="organize")
    with pytest.raises(TypeError, match="issuer"):
        ResourceServer(audience="organize")  # type: ignore[call-arg]
    issuers: Any
    for issuers in (ISSUER, [own, ISSUER]):
        with pytest.raises(ConfigurationError) as told:
            ResourceServer(issuer=issuers)
        assert str(told.value) == (
            "audience is required: the name under which the issuer knows this API; or give every Issuer an audience or"
            " client_ids of its own"
        )
    with pytest.raises(ConfigurationError, match="^audience must be a string or a non-empty collection"):
        ResourceServer(issuer=ISSUER, audience=[])
    assert ResourceServer(issuer=own).health()[0].issuer == own.url


@pytest.mark.parametrize(
    "audience", ["organize", "api://0f1c", "5cdbd0d6", ["organize"], {"organize", "x"}, ("a", "b")]
)
def test_accepts_any_text_as_audience(audience: Any) -> None:
    """JWT-12: an audience is any non-empty string, one or a collection."""
    assert ResourceServer(issuer=ISSUER, audience=audience).health()[0].state == "never_fetched"


def test_reads_every_setting_from_the_environment(issuer: LocalIssuer) -> None:
    """Each variable reaches its setting, and words are separated by spaces."""
    server = ResourceServer.from_env(
        {
            "TOKEN_GUARD_ISSUER": f"{ISSUER} {CUSTOM_DOMAIN}",
            "TOKEN_GUARD_AUDIENCE": "organize  urn:old",
            "TOKEN_GUARD_ALGORITHMS": "Ed25519 ES256",
            "TOKEN_GUARD_PROFILE": "generic",
            "TOKEN_GUARD_LEEWAY": "60",
            "TOKEN_GUARD_SCOPE_CLAIMS": "scope permissions",
            "TOKEN_GUARD_REALM": "organizer",
            "PATH": "/bin",
        },
        clock=now,
        transport=issuer.transport(),
    )
    token = server.validate(issuer.token(audience="urn:old", lifetime=-59, claims={"permissions": ["admin"]}))
    assert set(token.scopes) == {"read:contacts", "admin"}
    assert reason(server, issuer.token(lifetime=-60)) is Reason.EXPIRED
    assert reason(server, issuer.token(key=SigningKey.generate("ES384"))) is Reason.ALGORITHM_NOT_ALLOWED
    assert [health.issuer for health in server.health()] == [ISSUER, CUSTOM_DOMAIN]
    assert dict(server.challenge(MissingToken()).headers)["WWW-Authenticate"] == 'Bearer realm="organizer"'
    server.close()


GOOD_ENVIRONMENT = {"TOKEN_GUARD_ISSUER": ISSUER, "TOKEN_GUARD_AUDIENCE": "organize"}


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({"TOKEN_GUARD_ISSUER": ""}, "TOKEN_GUARD_ISSUER is required"),
        ({"TOKEN_GUARD_AUDIENCE": ""}, "TOKEN_GUARD_AUDIENCE is required"),
        ({"TOKEN_GUARD_AUDIENCE": "  "}, "TOKEN_GUARD_AUDIENCE"),
        ({"TOKEN_GUARD_ISSUER": " "}, "TOKEN_GUARD_ISSUER"),
        ({"TOKEN_GUARD_AUDIENCES": "x"}, "TOKEN_GUARD_AUDIENCES is not a setting"),
        ({"TOKEN_GUARD_": "x"}, "is not a setting"),
        ({"TOKEN_GUARD_LEEWAY": "soon"}, "TOKEN_GUARD_LEEWAY"),
        ({"TOKEN_GUARD_LEEWAY": "nan"}, "leeway"),
        ({"TOKEN_GUARD_LEEWAY": ""}, "TOKEN_GUARD_LEEWAY"),
        ({"TOKEN_GUARD_PROFILE": "RFC9068"}, "profile"),
        ({"TOKEN_GUARD_ALGORITHMS": "RS256,ES256"}, "RS256,ES256"),
        ({"TOKEN_GUARD_JWKS_URI": "http://a.example/"}, "jwks_uri"),
        ({"TOKEN_GUARD_JWKS_URI": ""}, "TOKEN_GUARD_JWKS_URI"),
        ({"TOKEN_GUARD_REALM": ""}, "TOKEN_GUARD_REALM"),
        ({"TOKEN_GUARD_SCOPE_CLAIMS": ""}, "TOKEN_GUARD_SCOPE_CLAIMS"),
    ],
    ids=str,
)
def test_refuses_a_wrong_environment(environ: dict[str, str], names: str) -> None:
    """CONFIG: a variable that is missing, empty, misspelt or malformed stops the start, by its name."""
    with pytest.raises(ConfigurationError, match=names):
        ResourceServer.from_env({**GOOD_ENVIRONMENT, **environ})


def test_arguments_add_what_the_environment_lacks(issuer: LocalIssuer) -> None:
    """What only code can say comes as an argument; what both say is a contradiction."""
    server = ResourceServer.from_env(GOOD_ENVIRONMENT, jwks=issuer.jwks(), clock=now)
    assert server.validate(issuer.token()).issuer == ISSUER
    with pytest.raises(ConfigurationError, match="audience"):
        ResourceServer.from_env(GOOD_ENVIRONMENT, audience="other")


def test_reads_the_process_environment_by_default() -> None:
    """Without an argument the environment of the process is read, and nothing was read before."""
    assert not {name for name in os.environ if name.startswith("TOKEN_GUARD_")}
    with pytest.raises(ConfigurationError, match="TOKEN_GUARD_ISSUER"):
        ResourceServer.from_env()


# Several issuers.


def test_accepts_every_configured_issuer_with_its_own_keys(validate: Validate) -> None:
    """AUTH0-01, JWK-16: custom domain and tenant side by side; a key of one verifies nothing of the other."""
    tenant, domain = (LocalIssuer(url, algorithm="Ed25519", clock=now) for url in (ISSUER, CUSTOM_DOMAIN))
    issuers = [Issuer(each.url, jwks=each.jwks()) for each in (tenant, domain)]
    server = ResourceServer(issuer=issuers, audience="organize", clock=now)
    assert validate(server, tenant.token()).issuer == ISSUER
    assert validate(server, domain.token()).issuer == CUSTOM_DOMAIN
    assert reason(server, tenant.token(issuer=CUSTOM_DOMAIN), validate) is Reason.UNKNOWN_KEY
    posing = SigningKey("Ed25519", tenant.key.private, domain.key.kid)
    assert reason(server, domain.token(key=posing), validate) is Reason.BAD_SIGNATURE


def test_a_relaxation_is_for_one_issuer_alone(validate: Validate) -> None:
    """AT-02, BCP-01: profile, audience, algorithms and claims of one issuer do not reach another."""
    strict, loose = (LocalIssuer(url, algorithm="Ed25519", clock=now) for url in (ISSUER, CUSTOM_DOMAIN))
    server = ResourceServer(
        issuer=[
            Issuer(strict.url, jwks=strict.jwks()),
            Issuer(loose.url, jwks=loose.jwks(), profile="generic", audience="urn:loose", scope_claims=["roles"]),
        ],
        audience="organize",
        profile="rfc9068",
        clock=now,
    )
    loose_token = loose.token(audience="urn:loose", claims={"roles": ["admin"]})
    assert set(validate(server, loose_token).scopes) == {"admin"}
    assert reason(server, loose.token(), validate) is Reason.WRONG_AUDIENCE
    assert reason(server, strict.token(audience="urn:loose"), validate) is Reason.CLAIM_MISSING


def test_accepts_a_shared_secret_only_where_it_is_configured(validate: Validate) -> None:
    """JWK-07: HS256 is for an issuer with a secret, and that issuer signs with nothing else."""
    issuer = LocalIssuer(ISSUER, algorithm="HS256", clock=now)
    server = server_for(issuer, jwks=None, issuer=Issuer(ISSUER, secret=issuer.key.private))
    assert validate(server, issuer.token()).issuer == ISSUER
    assert reason(server, issuer.signed_by_stranger(), validate) is Reason.BAD_SIGNATURE
    assert reason(server, issuer.token(key=SigningKey.generate("Ed25519")), validate) is Reason.ALGORITHM_NOT_ALLOWED
    public = server_for(issuer)
    assert reason(public, issuer.token(), validate) is Reason.ALGORITHM_NOT_ALLOWED


# Given keys.


def test_odd_given_keys_are_skipped_with_a_warning(issuer: LocalIssuer, caplog: pytest.LogCaptureFixture) -> None:
    """JWK-02, JWK-15: each odd key is told in the log, without its material; the others work."""
    secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"
    odd: list[object] = [None, [], "key", {}, {"kty": "oct", "k": secret}, {"kty": "EC", "crv": "P-256", "x": secret}]
    odd.append({**issuer.key.public_jwk(), "d": secret})
    server = server_for(issuer, jwks={"keys": [*odd, *issuer.jwks()["keys"]]})
    assert len(caplog.records) == len(odd)
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert secret not in caplog.text
    assert server.validate(issuer.token()).issuer == ISSUER
    assert server.health()[0].key_ids == (issuer.key.kid,)


def test_given_keys_that_verify_nothing_are_told(issuer: LocalIssuer, caplog: pytest.LogCaptureFixture) -> None:
    """At the start, and not with the first token."""
    server_for(issuer, jwks={"keys": []})
    [record] = caplog.records
    fix = "it holds no key that verifies signatures; give public ones, or leave jwks out to fetch them"
    assert record.getMessage() == f"jwks of issuer {ISSUER}: {fix}"
    assert (vars(record)["event"], vars(record)["issuer"]) == ("odd_key", ISSUER)


def test_given_keys_never_change(issuer: LocalIssuer) -> None:
    """Configuration is frozen: what is done to the mapping afterwards changes nothing."""
    jwks = issuer.jwks()
    server = server_for(issuer, jwks=jwks)
    jwks["keys"].clear()
    assert server.validate(issuer.token()).issuer == ISSUER
    server.warm_up()
    anyio.run(server.warm_up_async)
    server.close()
    assert server.health()[0].as_dict() == {
        "issuer": ISSUER,
        "state": "fresh",
        "source": "given",
        "age": None,
        "last_success": None,
        "last_error": None,
        "next_attempt": 0,
        "key_ids": (issuer.key.kid,),
    }


def test_a_key_that_was_not_given_is_unknown(issuer: LocalIssuer, validate: Validate) -> None:
    """JWK-09: with given keys nothing is fetched; an unknown key is a 401 at once."""
    token = issuer.unknown_key()
    kid = jwt.get_unverified_header(token)["kid"]
    with pytest.raises(InvalidToken) as refused:
        validate(server_for(issuer), token)
    assert refused.value.reason is Reason.UNKNOWN_KEY
    assert refused.value.detail == (
        f"no given key for alg {issuer.key.algorithm} and kid '{kid}'; jwks has ['{issuer.key.kid}']: put the issuer's"
        " new keys there, or leave it out to fetch them"
    )


# Revocation.


def test_asks_for_revocation_on_every_validation(issuer: LocalIssuer, validate: Validate) -> None:
    """SEC-02: a token that was good a moment ago is refused as soon as it is revoked."""
    revoked: set[object] = set()
    server = server_for(issuer, is_revoked=lambda token: token.claims.get("jti") in revoked)
    token = issuer.token(claims={"jti": "1"})
    validate(server, token)
    revoked.add("1")
    with pytest.raises(InvalidToken, match="^revoked: is_revoked says so$"):
        validate(server, token)


@pytest.mark.parametrize(
    "answer", [None, 0, 1, "no", [], ValueError("down"), InvalidToken(Reason.REVOKED), TimeoutError()]
)
def test_an_unclear_answer_about_revocation_is_503(answer: object, issuer: LocalIssuer, validate: Validate) -> None:
    """JWK-18, SEC-02: whoever cannot say yes or no has not judged the token; None is no `no`."""

    def is_revoked(token: AccessToken) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    kind = type(answer).__name__
    told = f"is_revoked raised {kind}" if isinstance(answer, Exception) else f"is_revoked returned {kind}, not a bool"
    with pytest.raises(TemporarilyUnavailable, match=f"^revocation_unavailable: {told}$"):
        validate(server_for(issuer, is_revoked=is_revoked), issuer.token())


def test_revocation_is_asked_about_genuine_tokens_alone(issuer: LocalIssuer, validate: Validate) -> None:
    """BCP-03: what fails the signature check is shown to nobody."""
    asked: list[AccessToken] = []
    server = server_for(issuer, is_revoked=lambda token: bool(asked.append(token)))  # type: ignore[func-returns-value]
    assert reason(server, issuer.signed_by_stranger(), validate) is Reason.BAD_SIGNATURE
    assert reason(server, issuer.tampered(issuer.token()), validate) is Reason.BAD_SIGNATURE
    assert not asked


def test_a_token_that_one_api_accepted_is_judged_anew_by_another(issuer: LocalIssuer, validate: Validate) -> None:
    """SEC-01: audience and scopes are checked each time, whatever was accepted in this process a moment ago."""
    contacts, reports = server_for(issuer), server_for(issuer, audience="https://reports.example/")
    raw = issuer.token("read:contacts")
    token = validate(contacts, raw)
    assert reason(reports, raw, validate) is Reason.WRONG_AUDIENCE
    for _ in range(2):
        token.require("read:contacts")
        assert refusal(lambda: token.require("read:reports")).reason is Reason.INSUFFICIENT_SCOPE


# Claims, end to end.


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        (ISSUER[:-1], Reason.WRONG_ISSUER),
        (f"{ISSUER}/", Reason.WRONG_ISSUER),
        ("https://NORTHWIND.auth0.com/", Reason.WRONG_ISSUER),
        ("https://northwind.auth0.com:443/", Reason.WRONG_ISSUER),
        ("https://northwind%2Eauth0.com/", Reason.WRONG_ISSUER),
        ("https://northwind.auth0.com/\u0301", Reason.WRONG_ISSUER),
        (f" {ISSUER}", Reason.WRONG_ISSUER),
        ("", Reason.WRONG_ISSUER),
        ([ISSUER], Reason.CLAIM_MALFORMED),
        ({ISSUER: 1}, Reason.CLAIM_MALFORMED),
        (7, Reason.CLAIM_MALFORMED),
        (None, Reason.CLAIM_MISSING),
    ],
    ids=repr,
)
def test_compares_issuers_to_the_letter(name: object, refused: Reason, issuer: LocalIssuer, validate: Validate) -> None:
    """JWT-07, AUTH0-01: no normalisation of any kind, and only a string is an issuer."""
    assert reason(server_for(issuer), issuer.token(claims={"iss": name}), validate) is refused


def test_reads_the_issuer_under_its_own_name_alone(issuer: LocalIssuer) -> None:
    """JWT-14: `ISS` does not count as `iss`."""
    assert reason(server_for(issuer), issuer.token(claims={"iss": None, "ISS": ISSUER})) is Reason.CLAIM_MISSING


def test_judges_times_by_the_given_clock_in_any_time_zone() -> None:
    """JWT-06: times are seconds since the epoch, wherever the server stands."""
    program = """
from token_guard import ResourceServer
from token_guard.testing import LocalIssuer
issuer = LocalIssuer()
server = ResourceServer(issuer=issuer.url, audience="organize", jwks=issuer.jwks(), leeway=0)
print(server.validate(issuer.token(lifetime=60, claims={"nbf": int(issuer.clock())})).subject)
"""
    environ = {**os.environ, "TZ": "Asia/Kolkata"}
    ended = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    assert ended.stdout == "auth0|alice\n"


@pytest.mark.parametrize("typ", ["at+jwt", "at+JWT", "AT+JWT", "application/at+jwt", "Application/AT+JWT"])
def test_strict_profile_accepts_every_spelling_of_its_type(
    typ: str, strict_issuer: LocalIssuer, validate: Validate
) -> None:
    """AT-01, BCP-05: the type is compared without regard to case, with or without `application/`."""
    server = server_for(strict_issuer, profile="rfc9068")
    assert validate(server, strict_issuer.token(headers={"typ": typ})).client_id == "organizer-spa"


OTHER_KINDS = [
    "JWT",
    "jwt",
    "application/jwt",
    None,
    "dpop+jwt",
    "id_token+jwt",
    "logout+jwt",
    "secevent+jwt",
    "token-introspection+jwt",
    "statuslist+jwt",
    "txntoken+jwt",
    "client-authentication+jwt",
    "oauth-id-jag+jwt",
    "at+jwt;x",
    "application/application/at+jwt",
    "",
]


@pytest.mark.parametrize("typ", OTHER_KINDS)
def test_strict_profile_refuses_every_other_kind_of_token(
    typ: str | None, strict_issuer: LocalIssuer, validate: Validate
) -> None:
    """AT-01, AT-05, BCP-04: another kind of JWT is no access token, though signature and audience are right."""
    server = server_for(strict_issuer, profile="rfc9068")
    error = refusal(lambda: validate(server, strict_issuer.token(headers={"typ": typ})))
    assert (error.status, error.reason) == (401, Reason.WRONG_TYPE)


@pytest.mark.parametrize("typ", OTHER_KINDS[4:])
def test_every_profile_refuses_kinds_with_a_name_of_their_own(typ: str, issuer: LocalIssuer) -> None:
    """BCP-04: outside the strict profile `JWT` and no type at all may be access tokens, and nothing else."""
    assert reason(server_for(issuer), issuer.token(headers={"typ": typ})) is Reason.WRONG_TYPE


@pytest.mark.parametrize("segment", [0, 1, 2], ids=["header", "payload", "signature"])
def test_refuses_a_token_with_any_bit_flipped(segment: int, strict_issuer: LocalIssuer) -> None:
    """AT-04: each bit of each segment counts."""
    server, token = server_for(strict_issuer, profile="rfc9068"), strict_issuer.token()
    segments = token.split(".")
    raw = base64.urlsafe_b64decode(segments[segment] + "==")
    for position in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[position // 8] ^= 1 << position % 8
        changed = [*segments]
        changed[segment] = base64.urlsafe_b64encode(flipped).rstrip(b"=").decode()
        assert refusal(partial(server.validate, ".".join(changed))).status == 401


# What hosted services issue.


def test_accepts_both_dialects_of_the_hosted_service(
    issuer: LocalIssuer, strict_issuer: LocalIssuer, validate: Validate
) -> None:
    """AUTH0-02: each dialect names its client in its own claim; the strict profile accepts its own alone."""
    assert validate(server_for(issuer), issuer.token()).client_id == "organizer-spa"
    assert validate(server_for(strict_issuer), strict_issuer.token()).client_id == "organizer-spa"
    assert reason(server_for(issuer, profile="rfc9068"), issuer.token(), validate) is Reason.CLAIM_MISSING


def test_accepts_our_audience_beside_the_userinfo_endpoint(issuer: LocalIssuer, validate: Validate) -> None:
    """AUTH0-03: the array that the hosted service writes is fine; userinfo alone is not us."""
    userinfo = f"{ISSUER}userinfo"
    assert validate(server_for(issuer), issuer.token(audience=["organize", userinfo])).audience[0] == "organize"
    assert reason(server_for(issuer), issuer.token(audience=[userinfo]), validate) is Reason.WRONG_AUDIENCE


def test_refuses_an_id_token(issuer: LocalIssuer, validate: Validate) -> None:
    """AUTH0-04, BCP-04: an ID token is for the client; with our audience it would still be no access token."""
    identity: dict[str, Any] = {"nonce": "n", "name": "Alice", "email": "alice@northwind.com", "azp": None}
    token = issuer.token("", audience="organizer-spa", claims=identity)
    assert reason(server_for(issuer), token, validate) is Reason.WRONG_TYPE
    without_nonce = issuer.token("", audience="organizer-spa", claims={**identity, "nonce": None})
    assert reason(server_for(issuer), without_nonce, validate) is Reason.WRONG_AUDIENCE


def test_tells_machines_from_users(issuer: LocalIssuer, strict_issuer: LocalIssuer, validate: Validate) -> None:
    """AUTH0-05, AT-08: a machine's token is a client's own in both dialects; a rule for users refuses it."""
    for each in (issuer, strict_issuer):
        machine, user = (
            validate(server_for(each), token) for token in (each.client_token("read:contacts"), each.token())
        )
        assert (machine.is_client, user.is_client) == (True, False)
        user.require(user_only)
        assert refusal(lambda token=machine: token.require(user_only)).reason is Reason.INSUFFICIENT_PERMISSION  # type: ignore[misc]


def test_permissions_are_no_scopes(issuer: LocalIssuer, validate: Validate) -> None:
    """AUTH0-06: a permission counts in `permissions` alone, and a scope in its own claims alone."""
    by_scope = validate(server_for(issuer), issuer.token("read:contacts"))
    by_permission = validate(server_for(issuer), issuer.token("", claims={"permissions": ["read:contacts"]}))
    by_permission.require(permission("read:contacts"))
    by_scope.require("read:contacts")
    assert refusal(lambda: by_scope.require(permission("read:contacts"))).status == 403
    assert refusal(lambda: by_permission.require("read:contacts")).status == 403


def test_refuses_tokens_of_other_organizations(issuer: LocalIssuer, validate: Validate) -> None:
    """AUTH0-07: an issuer's organizations are a 401 of their own."""
    restricted = Issuer(ISSUER, jwks=issuer.jwks(), organizations={"org_1"})
    server = ResourceServer(issuer=restricted, audience="organize", clock=now)
    assert validate(server, issuer.token(claims={"org_id": "org_1"})).organization == "org_1"
    for claims in ({"org_id": "org_2"}, {}):
        error = refusal(lambda claims=claims: validate(server, issuer.token(claims=claims)))  # type: ignore[misc]
        assert (error.status, error.reason) == (401, Reason.WRONG_ORGANIZATION)


@pytest.mark.parametrize("token", ["x" * 32, "a.b.c.d.e", f"eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..{'x' * 16}.x.x"])
def test_refuses_opaque_and_encrypted_tokens(token: str, issuer: LocalIssuer, validate: Validate) -> None:
    """AUTH0-10: what is no JWS is an invalid token, not a crash."""
    error = refusal(lambda: validate(server_for(issuer), token))
    assert (error.status, error.reason) == (401, Reason.MALFORMED)


@pytest.mark.parametrize(
    "token",
    [
        None,
        b"a.b.c",
        7,
        "",
        ".",
        "..",
        "\ud800.a.b",
        "a.b.\x00",
        "é.é.é",
        [],
        {},
        pytest.param(object(), id="object"),
        "a" * 20_000,
    ],
    ids=repr,
)
def test_nothing_but_a_refusal_leaves_validate(token: Any, issuer: LocalIssuer, validate: Validate) -> None:
    """AUTH0-10: whatever comes in place of a token, the answer is a 401."""
    assert reason(server_for(issuer), token, validate) in (Reason.MALFORMED, Reason.TOO_LARGE)


# Whole requests.


def request(*headers: tuple[str, str]) -> RequestView:
    return RequestView(method="GET", url=lambda: "https://api.example/contacts", headers=headers)


def test_authenticates_a_whole_request(issuer: LocalIssuer) -> None:
    """BEARER-01, SEC-04: the Authorization field counts; what a proxy or a client writes elsewhere does not."""
    server, token = server_for(issuer), issuer.token()
    good = request(("X-User", "bob"), ("authorization", f"bearer {token}"), ("X-Forwarded-User", "bob"))
    assert server.authenticate(good).subject == "auth0|alice"
    assert anyio.run(server.authenticate_async, good).subject == "auth0|alice"


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ([], MissingToken),
        ([("X-User", "bob"), ("X-Access-Token", "t"), ("Proxy-Authorization", "Bearer t")], MissingToken),
        ([("Authorization", "Basic dTpw")], MissingToken),
        ([("Authorization", "Bearer")], InvalidRequest),
        ([("Authorization", "Bearer a"), ("Authorization", "Bearer a")], InvalidRequest),
        ([("Authorization", "Bearer junk")], InvalidToken),
    ],
)
def test_refuses_a_request_without_one_token(
    headers: list[tuple[str, str]], refused: type[RequestRejected], issuer: LocalIssuer
) -> None:
    """BEARER-05 to BEARER-08, SEC-04: none, another scheme, none after the scheme, or two."""
    server = server_for(issuer)
    assert type(refusal(lambda: server.authenticate(request(*headers)))) is refused
    assert type(refusal(lambda: anyio.run(server.authenticate_async, request(*headers)))) is refused


# The order of the rules, and every reason.

LIMITS: dict[str, Any] = {"max_token_age": 600}


def limited(issuer: LocalIssuer, **options: Any) -> ResourceServer:
    """A resource server on which every rule that can be switched on is on."""
    restricted = Issuer(ISSUER, jwks=issuer.jwks(), organizations={"org_1"}, algorithms=["Ed25519"])
    return ResourceServer(
        issuer=restricted,
        audience="organize",
        clock=now,
        leeway=0,
        max_token_age=600,
        is_revoked=lambda _: True,
        **options,
    )


# From the first rule to the last: the reason, and what makes a token break that rule in its header, claims or key.
FAULTS: list[tuple[Reason, dict[str, Any], dict[str, Any]]] = [
    (Reason.ALGORITHM_NOT_ALLOWED, {"alg": "RS1"}, {}),
    (Reason.UNSUPPORTED_CRITICAL, {"crit": ["exp"]}, {}),
    (Reason.WRONG_TYPE, {"typ": "logout+jwt"}, {}),
    (Reason.WRONG_ISSUER, {}, {"iss": "https://evil.example/"}),
    (Reason.ALGORITHM_NOT_ALLOWED, {"alg": "ES256"}, {}),
    (Reason.CLAIM_MALFORMED, {}, {"sub": 7}),
    (Reason.WRONG_TYPE, {}, {"at_hash": "x"}),
    (Reason.SENDER_CONSTRAINED, {}, {"cnf": {}}),
    (Reason.WRONG_AUDIENCE, {}, {"aud": "other"}),
    (Reason.WRONG_ORGANIZATION, {}, {"org_id": "org_2"}),
    (Reason.EXPIRED, {}, {"exp": NOW}),
    (Reason.NOT_YET_VALID, {}, {"nbf": NOW + 1}),
    (Reason.TOO_OLD, {}, {"iat": NOW - 601}),
    (Reason.UNKNOWN_KEY, {"kid": "other"}, {}),
    (Reason.BAD_SIGNATURE, {}, {}),
]


@pytest.mark.parametrize("first", range(len(FAULTS)), ids=[f"{place}-{fault[0]}" for place, fault in enumerate(FAULTS)])
def test_refuses_for_the_first_fault_alone(first: int, issuer: LocalIssuer, validate: Validate) -> None:
    """Design 5: a token with several faults is refused for the first, so the signature of junk is never looked at."""
    headers: dict[str, Any] = {"typ": "JWT", "kid": issuer.key.kid}
    claims: dict[str, Any] = {"org_id": "org_1"}
    for _, in_header, in_claims in reversed(FAULTS[first:]):
        headers |= in_header
        claims |= in_claims
    token = issuer.token(headers=headers, claims=claims, key=SigningKey.generate("Ed25519"))
    assert reason(limited(issuer), token, validate) is FAULTS[first][0]


def test_size_and_form_come_before_the_header(issuer: LocalIssuer) -> None:
    """Design 5: what is too large is not decoded, and what is no JWS has no header to judge."""
    faulty = issuer.token(headers={"alg": "none", "crit": []})
    assert reason(limited(issuer), f"{faulty}.{'x' * 20_000}") is Reason.TOO_LARGE
    assert reason(limited(issuer), f"{faulty}.x") is Reason.MALFORMED


def test_the_log_names_an_algorithm_that_is_not_allowed(issuer: LocalIssuer) -> None:
    """ALG-01: for whom it is not, and what to do if it should be."""
    with pytest.raises(InvalidToken) as refused:
        server_for(issuer, algorithms=["RS256"]).validate(issuer.token())
    assert refused.value.reason is Reason.ALGORITHM_NOT_ALLOWED
    alg = issuer.key.algorithm
    assert refused.value.detail == (
        f"alg {alg} is not allowed for issuer {ISSUER}; add {alg} to the setting algorithms, if that is how the issuer"
        " signs"
    )


def test_revocation_is_asked_last(issuer: LocalIssuer) -> None:
    """Design 5: only a token that is good in all else is asked about."""
    assert reason(limited(issuer), issuer.token(claims={"org_id": "org_1"})) is Reason.REVOKED


def call_during_an_outage(issuer: LocalIssuer) -> None:
    """Call another API on behalf of the user while the authorization server is down."""
    server, raw, cell = server_for(issuer), issuer.token(), RequestCell(lambda refusal: refusal)
    cell.admit(server.validate(raw), raw)
    transport = issuer.transport()
    transport.failing = True
    auth = OnBehalfOf(server, client_id="reports", client_secret="secret", audience="next", transport=transport)
    before = current_cell.set(cell)
    try:
        with httpx.Client(auth=auth) as client:
            client.get("https://next.example/")
    finally:
        current_cell.reset(before)
        auth.close()


# Each reason, and how a request comes to it.
REACHED: dict[Reason, Callable[[LocalIssuer], object]] = {
    Reason.MISSING_TOKEN: lambda issuer: limited(issuer).authenticate(request()),
    Reason.MALFORMED_REQUEST: lambda issuer: limited(issuer).authenticate(request(("Authorization", "Bearer a b"))),
    Reason.MALFORMED: lambda issuer: limited(issuer).validate(f"{issuer.token()}."),
    Reason.TOO_LARGE: lambda issuer: limited(issuer).validate(issuer.token(headers={"x": "x" * 5000})),
    Reason.ALGORITHM_NOT_ALLOWED: lambda issuer: limited(issuer).validate(issuer.unsigned()),
    Reason.UNSUPPORTED_CRITICAL: lambda issuer: limited(issuer).validate(issuer.token(headers={"crit": []})),
    Reason.WRONG_TYPE: lambda issuer: limited(issuer).validate(issuer.token(claims={"token_use": "id"})),
    Reason.WRONG_ISSUER: lambda issuer: limited(issuer).validate(issuer.token(issuer="https://evil.example/")),
    Reason.WRONG_AUDIENCE: lambda issuer: limited(issuer).validate(issuer.token(audience="other")),
    Reason.CLAIM_MISSING: lambda issuer: limited(issuer).validate(issuer.token(claims={"exp": None})),
    Reason.CLAIM_MALFORMED: lambda issuer: limited(issuer).validate(issuer.token(claims={"exp": "soon"})),
    Reason.EXPIRED: lambda issuer: server_for(issuer).validate(issuer.expired()),
    Reason.NOT_YET_VALID: lambda issuer: server_for(issuer).validate(issuer.token(claims={"nbf": NOW + 60})),
    Reason.ISSUED_IN_FUTURE: lambda issuer: server_for(issuer).validate(issuer.token(claims={"iat": NOW + 60})),
    Reason.TOO_OLD: lambda issuer: server_for(issuer, **LIMITS).validate(issuer.token(claims={"iat": NOW - 700})),
    Reason.UNKNOWN_KEY: lambda issuer: server_for(issuer).validate(issuer.unknown_key()),
    Reason.BAD_SIGNATURE: lambda issuer: server_for(issuer).validate(issuer.signed_by_stranger()),
    Reason.SENDER_CONSTRAINED: lambda issuer: server_for(issuer).validate(issuer.token(claims={"cnf": {"jkt": "x"}})),
    Reason.REVOKED: lambda issuer: server_for(issuer, is_revoked=lambda _: True).validate(issuer.token()),
    Reason.WRONG_ORGANIZATION: lambda issuer: limited(issuer).validate(issuer.token()),
    Reason.INSUFFICIENT_SCOPE: lambda issuer: server_for(issuer).validate(issuer.token()).require("delete:contacts"),
    Reason.INSUFFICIENT_PERMISSION: lambda issuer: (
        server_for(issuer).validate(issuer.client_token()).require(user_only)
    ),
    Reason.KEYS_UNAVAILABLE: lambda issuer: server_for(issuer, jwks=None, transport=InMemoryTransport()).validate(
        issuer.token()
    ),
    Reason.ISSUER_MISCONFIGURED: lambda issuer: server_for(
        issuer, jwks=None, issuer=ISSUER[:-1], transport=issuer.transport()
    ).validate(issuer.token(issuer=ISSUER[:-1])),
    Reason.REVOCATION_UNAVAILABLE: lambda issuer: server_for(issuer, is_revoked=lambda _: None).validate(
        issuer.token()
    ),
    Reason.TOKEN_UNAVAILABLE: call_during_an_outage,
}


@pytest.mark.parametrize("wanted", Reason)
def test_every_reason_can_be_reached(wanted: Reason, issuer: LocalIssuer) -> None:
    """AT-05: a reason is not a word in a list: each is what some request is refused for."""
    assert refusal(lambda: REACHED[wanted](issuer)).reason is wanted


STATUS = {
    InvalidRequest: (400, "invalid_request"),
    MissingToken: (401, None),
    InvalidToken: (401, "invalid_token"),
    InsufficientScope: (403, "insufficient_scope"),
    TemporarilyUnavailable: (503, "temporarily_unavailable"),
}


@pytest.mark.parametrize("wanted", Reason)
def test_every_refusal_has_its_answer(wanted: Reason, issuer: LocalIssuer) -> None:
    """AT-05, JWK-18: status and error follow from the kind of refusal; only `expose_reasons` tells the reason."""
    error = refusal(lambda: REACHED[wanted](issuer))
    status, code = STATUS[type(error)]
    answer = server_for(issuer).challenge(error)
    assert answer.status == status
    assert json.loads(answer.body).get("error") == code
    assert "reason" not in json.loads(answer.body)
    exposed = server_for(issuer, challenge=ChallengePolicy(expose_reasons=True)).challenge(error)
    assert json.loads(exposed.body)["reason"] == wanted


# What a refusal never gives away.


class RememberingIssuer(LocalIssuer):
    """An issuer that keeps every token that it mints."""

    def __init__(self) -> None:
        super().__init__(ISSUER, algorithm="Ed25519", clock=now)
        self.minted: list[str] = []

    def token(self, *arguments: Any, **options: Any) -> str:
        self.minted.append(super().token(*arguments, **options))
        return self.minted[-1]


@pytest.mark.parametrize(
    "wanted", [each for each in Reason if "request" not in each and each is not Reason.MISSING_TOKEN]
)
def test_no_refusal_holds_the_token(wanted: Reason, caplog: pytest.LogCaptureFixture) -> None:
    """BEARER-15, BCP-03: no segment of a token in a log, a text, an answer, or what the exception carries."""
    issuer = RememberingIssuer()
    with caplog.at_level(logging.DEBUG):
        error = refusal(lambda: REACHED[wanted](issuer))
        answer = server_for(issuer).challenge(error)
        logging.getLogger("application").error("refused", exc_info=error)
    carried = [repr(error), str(error), repr(error.args), repr(vars(error)), repr(answer)]
    traces = traceback.format_exception(error)
    everything = "\n".join([*carried, *traces, caplog.text, *(repr(vars(record)) for record in caplog.records)])
    assert "refused" in everything
    secrets = [segment for token in issuer.minted for segment in token.split(".")[1:] if segment]
    assert secrets
    assert not [segment for segment in secrets if segment in everything]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["validate", "validate_async"])
def test_a_traceback_has_no_token_among_its_locals(issuer: LocalIssuer, asynchronous: bool) -> None:
    """SEC-03: error trackers send away the locals of all frames; ours keep their lines and forget the credentials."""
    server = server_for(issuer)
    refused = [issuer.expired(), issuer.tampered(issuer.token()), issuer.token() + "x", f"{issuer.token()} again"]
    errors = []
    while refused:
        request = RequestView("GET", lambda: "https://api.example/", [("Authorization", f"Bearer {refused.pop()}")])
        with pytest.raises(RequestRejected) as raised:
            anyio.run(server.authenticate_async, request) if asynchronous else server.authenticate(request)
        errors.append(raised.value)
    traces = [
        "".join(traceback.TracebackException.from_exception(each, capture_locals=True).format()) for each in errors
    ]
    assert all("in _extract" in trace or "in validate" in trace for trace in traces)
    assert not [trace for trace in traces if "eyJ" in trace]  # as every token begins


def test_an_accepted_token_is_nowhere_in_what_a_handler_gets(
    issuer: LocalIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    """BEARER-15, SEC-03: neither the access token, nor the log, nor the resource server keeps the raw token."""
    server, raw = server_for(issuer, jwks=None, transport=issuer.transport(), keys=KeyPolicy()), issuer.token()
    with caplog.at_level(logging.DEBUG):
        token = server.validate(raw)
    held = [
        repr(token),
        repr(token.claims),
        repr(token.scopes),
        repr(server),
        repr(vars(server)),
        repr(server.health()),
    ]
    signature = raw.rpartition(".")[2]
    assert signature not in "\n".join([*held, caplog.text])
    assert not [name for name in dir(token) if signature in repr(getattr(token, name))]
    server.close()


# Whatever the input.

OPTIONS = [
    *("issuer", "audience", "jwks", "jwks_uri", "algorithms", "profile", "leeway", "max_token_age", "scope_claims"),
    *(
        "scope_implications",
        "scope_pattern",
        "is_revoked",
        "token_cache_size",
        "keys",
        "challenge",
        "clock",
        "transport",
    ),
]


@given(st.dictionaries(st.sampled_from(OPTIONS), JSON_VALUES | st.binary(), min_size=1, max_size=3))
@settings(max_examples=200, deadline=None)
def test_any_settings_are_a_resource_server_or_a_configuration_error(options: dict[str, Any]) -> None:
    """What cannot work is told at start-up, in a sentence, whatever kind of value it is."""
    try:
        ResourceServer(**{"issuer": ISSUER, "audience": "organize", **options})
    except ConfigurationError as refused:
        assert str(refused)  # noqa: PT017


MINTING = LocalIssuer(ISSUER, algorithm="Ed25519", clock=now)
MINTING_SERVER = server_for(MINTING)
GOOD_TOKEN = MINTING.token()
EDITS = st.tuples(
    st.integers(0, 10_000) | st.just(-1),  # the last character has bits to spare
    st.sampled_from(["insert", "replace", "remove"]),
    st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=. ") | st.characters(),
)


@given(st.lists(EDITS, max_size=3))
@settings(max_examples=200, deadline=None)
def test_no_other_spelling_of_a_good_token_is_accepted(edits: list[tuple[int, str, str]]) -> None:
    """JWS-04, CHAL-12: a token is accepted as it was minted, or it is refused; and the second time as the first."""
    token = GOOD_TOKEN
    for place, edit, character in edits:
        place %= len(token)
        end = place if edit == "insert" else place + 1
        token = token[:place] + ("" if edit == "remove" else character) + token[end:]
    for validate in (MINTING_SERVER.validate, lambda raw: anyio.run(MINTING_SERVER.validate_async, raw)):
        if token == GOOD_TOKEN:
            assert validate(token).subject == "auth0|alice"
        else:
            assert isinstance(refusal(lambda: validate(token)), InvalidToken)  # noqa: B023
