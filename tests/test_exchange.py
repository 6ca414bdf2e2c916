"""What is sent to a token endpoint, and what of its answers is a token: forms and answers alone, nothing on the way."""

import base64
import json
import re
from typing import Any
from urllib.parse import unquote_plus

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import JSON_VALUES
from token_guard import AccessToken, ConfigurationError, ExchangeRefused, Reason, TemporarilyUnavailable
from token_guard.claims import ClaimPolicy
from token_guard.exchange import (
    ACCESS_TOKEN_TYPE,
    CLIENT_ASSERTION_TYPE,
    DEFAULT_EXPIRES_IN,
    JWT_BEARER,
    TOKEN_EXCHANGE,
    Client,
    Target,
    check_subject,
    client_credentials_form,
    exchange_form,
    read_answer,
)

ISSUER = "https://issuer.example/"
NOW = 1_700_000_000.0
TARGET = Target(audience="organize", scopes=("read:contacts", "read:calendar"))
FOR_ITSELF = client_credentials_form(TARGET)
FOR_THE_USER = exchange_form("subject.token", TARGET, "rfc8693")
GOOD: dict[str, Any] = {
    "access_token": "next.access.token",
    "token_type": "Bearer",
    "issued_token_type": ACCESS_TOKEN_TYPE,
    "expires_in": 3600,
}


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


RSA, EC = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())

POLICY = ClaimPolicy(
    issuer=ISSUER,
    audiences=frozenset({"organize"}),
    profile="generic",
    leeway=0,
    scope_claims=("scope",),
)


def token(**claims: Any) -> AccessToken:
    """An access token of alice with further claims; how it was validated is not this file's matter."""
    return AccessToken({"iss": ISSUER, "sub": "auth0|alice", "exp": NOW, **claims}, POLICY)


# Who asks.


def test_basic_authentication_form_encodes_id_and_secret() -> None:
    """CLI-02: both are form-encoded before they are joined, so a colon or an umlaut arrives as it was; nothing else."""
    fields, headers = Client(client_id="a:b", secret="p+ä/% ").authenticate(ISSUER, NOW)
    scheme, encoded = headers["Authorization"].split(" ")
    client_id, secret = base64.b64decode(encoded).decode("ascii").split(":")
    assert (scheme, client_id, secret) == ("Basic", "a%3Ab", "p%2B%C3%A4%2F%25+")
    assert (unquote_plus(client_id), unquote_plus(secret)) == ("a:b", "p+ä/% ")
    assert fields == ()


def test_a_secret_in_the_body_is_the_only_authentication() -> None:
    """CLI-02: one method per request: with `post` there is no Authorization header."""
    client = Client(client_id="reports-api", secret="fake", authentication="post")
    assert client.authenticate(ISSUER, NOW) == ((("client_id", "reports-api"), ("client_secret", "fake")), {})


@pytest.mark.parametrize(("key", "algorithm"), [(RSA, "RS256"), (RSA, "PS384"), (EC, "ES256")])
def test_an_assertion_says_who_asks_whom_and_for_a_minute(key: Any, algorithm: str) -> None:
    """PKJ-01 to PKJ-05: claims, the issuer as the one audience, the type, the form, and a short life."""
    client = Client(client_id="reports-api", private_key=pem(key), algorithm=algorithm, key_id="r1")
    fields, headers = client.authenticate(ISSUER, NOW)
    form = dict(fields)
    assert (len(form), headers) == (len(fields), {})
    assertion = form.pop("client_assertion")
    assert form == {"client_id": "reports-api", "client_assertion_type": CLIENT_ASSERTION_TYPE}
    assert jwt.get_unverified_header(assertion) == {
        "alg": algorithm,
        "kid": "r1",
        "typ": "client-authentication+jwt",
    }
    claims = jwt.decode(assertion, key.public_key(), [algorithm], options={"verify_exp": False, "verify_aud": False})
    assert claims.pop("jti")
    assert claims == {"iss": "reports-api", "sub": "reports-api", "aud": ISSUER, "iat": NOW, "exp": NOW + 60}


def test_every_assertion_is_fresh() -> None:
    """PKJ-01: the `jti` differs, at the same moment too."""
    client = Client(client_id="reports-api", private_key=pem(RSA))
    assertions = [dict(client.authenticate(ISSUER, NOW)[0])["client_assertion"] for _ in range(2)]
    first, second = (jwt.decode(assertion, options={"verify_signature": False}) for assertion in assertions)
    assert first.pop("jti") != second.pop("jti")
    assert first == second


ASYMMETRIC = "private_key_jwt needs an asymmetric algorithm, such as RS256 or ES256"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"client_id": ""}, "^client_id must not be empty$"),
        ({"secret": None}, "needs either a client_secret or a private_key"),
        ({"secret": ""}, "needs either a client_secret or a private_key"),
        ({"private_key": pem(RSA)}, "needs either a client_secret or a private_key"),
        ({"authentication": "none"}, "client_authentication must be one of basic, post, not 'none'"),
        ({"authentication": "private_key_jwt"}, "client_authentication must be one of basic, post"),
        ({"secret": None, "private_key": pem(RSA), "authentication": "basic"}, "must be one of private_key_jwt"),
        ({"secret": None, "private_key": pem(RSA), "algorithm": "HS256"}, f"^{ASYMMETRIC}$"),
        ({"secret": None, "private_key": pem(RSA), "algorithm": "none"}, f"^{ASYMMETRIC}$"),
        ({"secret": None, "private_key": pem(RSA), "algorithm": "ES256"}, "private_key cannot sign with ES256"),
        (
            {"secret": None, "private_key": pem(RSA), "algorithm": "RS257"},
            r"RS257 \(NotImplementedError\): give a private key in PEM form, and the algorithm that it is for$",
        ),
        ({"secret": None, "private_key": "no key"}, "private_key cannot sign with RS256"),
    ],
)
def test_a_client_that_cannot_authenticate_is_told_at_once(settings: dict[str, Any], message: str) -> None:
    """CLI-02, OBOA-01, PKJ-05: a public client, two methods, or a key that does not fit: before anything is sent."""
    with pytest.raises(ConfigurationError, match=message) as refused:
        Client(**{"client_id": "reports-api", "secret": "fake", **settings})
    assert "PRIVATE" not in str(refused.value)


def test_a_client_keeps_its_secrets_to_itself() -> None:
    """CLI-05: neither secret nor key is in what is printed."""
    assert "fake" not in repr(Client(client_id="reports-api", secret="fake"))
    assert "PRIVATE" not in repr(Client(client_id="reports-api", private_key=pem(RSA)))


# What is asked for.


def test_a_client_asks_for_itself() -> None:
    """CLI-01: the grant type, and the target in full."""
    target = Target(audience="organize", resource="https://api.example/v1", scopes=["read:contacts", "read:calendar"])
    assert client_credentials_form(target) == (
        ("grant_type", "client_credentials"),
        ("audience", "organize"),
        ("resource", "https://api.example/v1"),
        ("scope", "read:contacts read:calendar"),
    )


def test_a_user_s_token_is_exchanged() -> None:
    """XCHG-01, XCHG-02, OBOA-01, OBOA-03: both types are that of an access token; of an actor token nothing is said."""
    assert FOR_THE_USER == (
        ("grant_type", TOKEN_EXCHANGE),
        ("subject_token", "subject.token"),
        ("subject_token_type", ACCESS_TOKEN_TYPE),
        ("requested_token_type", ACCESS_TOKEN_TYPE),
        ("audience", "organize"),
        ("scope", "read:contacts read:calendar"),
    )


def test_entra_id_is_asked_in_its_own_form() -> None:
    """OBOM-01: the JWT bearer grant with the incoming token as its assertion."""
    assert exchange_form("subject.token", Target(scopes="api://organize/.default"), "entra") == (
        ("grant_type", JWT_BEARER),
        ("assertion", "subject.token"),
        ("requested_token_use", "on_behalf_of"),
        ("scope", "api://organize/.default"),
    )


def test_several_resources_are_repeated_fields() -> None:
    """XCHG-03: never joined by a comma; one text stands for one resource."""
    several = Target(resource=["https://a.example/", "urn:b"]).fields()
    assert several == (("resource", "https://a.example/"), ("resource", "urn:b"))
    assert Target(resource="urn:b").fields() == (("resource", "urn:b"),)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "^say for which API the token is: audience=, resource= or scopes=$"),
        ({"resource": "organize"}, "must be an absolute URI without a fragment"),
        ({"resource": "/contacts"}, "must be an absolute URI without a fragment"),
        ({"resource": "https://a.example/#part"}, "must be an absolute URI without a fragment"),
        ({"resource": "https://[a.example/"}, "must be an absolute URI without a fragment"),
        ({"resource": [""]}, "resource must hold non-empty strings"),
        ({"scopes": "read:contacts read:calendar"}, "is not a scope"),
        ({"scopes": [1]}, "scopes must hold non-empty strings"),
    ],
)
def test_a_wrong_target_is_told_at_once(settings: dict[str, Any], message: str) -> None:
    """XCHG-03: an absolute URI without a fragment; one scope a string; and a target at all."""
    with pytest.raises(ConfigurationError, match=message):
        Target(**settings)


# For whom.

NO_USER = "an application's own token cannot be used on behalf of a user"


def test_the_chain_of_actors_is_limited() -> None:
    """OBOA-02: who stands behind the token is counted, to the exact bound."""
    chain = token(act={"sub": "svc2", "act": {"sub": "svc1"}})
    check_subject(token(), "rfc8693", None, 0)
    check_subject(chain, "rfc8693", None, 2)
    with pytest.raises(ExchangeRefused, match="2 parties act for the user already") as refused:
        check_subject(chain, "rfc8693", None, 1)
    assert refused.value.error == "invalid_grant"


@pytest.mark.parametrize(
    ("act", "may"),
    [
        (None, True),
        ({"sub": "svc1"}, True),
        ({"sub": "svc1", "iss": ISSUER}, True),
        ({"sub": "svc1", "act": {"sub": "svc2"}}, True),
        ({"sub": "svc2", "act": {"sub": "svc1"}}, False),
        ({"sub": "svc"}, False),
        ({"sub": "svc1", "iss": "https://elsewhere.example/"}, False),
        ({}, False),
    ],
)
def test_only_an_allowed_actor_may_cause_an_exchange(act: dict[str, Any] | None, may: bool) -> None:
    """ACT-01, ACT-04: the outermost actor decides, as its issuer knows it; those before it are history."""
    subject = token() if act is None else token(act=act)
    if may:
        check_subject(subject, "rfc8693", frozenset({"svc1"}), 5)
        return
    with pytest.raises(
        ExchangeRefused, match="': 'who acts for the user now may not cause another exchange'$"
    ) as refused:
        check_subject(subject, "rfc8693", frozenset({"svc1"}), 5)
    assert refused.value.error == "invalid_grant"


@pytest.mark.parametrize("claims", [{}, {"scp": "read", "idtyp": "app"}, {"scp": "read", "sub": None}])
def test_entra_id_is_not_asked_for_a_token_without_a_user(claims: dict[str, Any]) -> None:
    """OBOM-02: an application's own token is refused before anything is sent; other issuers judge that themselves."""
    with pytest.raises(ExchangeRefused, match=f': "{NO_USER}"$') as refused:
        check_subject(token(**claims), "entra", None, 0)
    assert refused.value.error == "invalid_grant"
    check_subject(token(**claims), "rfc8693", None, 0)
    check_subject(token(scp="read"), "entra", None, 0)


# What comes back.


def test_a_good_answer_is_a_token() -> None:
    """CLI-03, XCHG-04: token, type and end; a scope that is not named was granted whole."""
    granted = read_answer(200, GOOD, FOR_THE_USER, NOW)
    assert (granted.raw_token, granted.expires_at, granted.lacks) == ("next.access.token", NOW + 3600, ())
    assert "next" not in repr(granted)
    assert read_answer(200, {**GOOD, "token_type": "bEARER"}, FOR_THE_USER, NOW) == granted


def test_less_than_was_asked_for_is_seen() -> None:
    """CLI-03: what a narrower grant lacks is told, in the order asked."""
    answer = {**GOOD, "scope": "read:calendar other"}
    assert read_answer(200, answer, FOR_ITSELF, NOW).lacks == ("read:contacts",)
    without_scopes = client_credentials_form(Target(audience="organize"))
    assert read_answer(200, answer, without_scopes, NOW).lacks == ()


NO_TOKENS = {
    "no token": {"access_token": None},
    "an empty token": {"access_token": ""},
    "a token of numbers": {"access_token": 7},
    "a token with a line break": {"access_token": "a\r\nX-Injected: b"},
    "a token with a space": {"access_token": "a b"},
    "a token beyond ASCII": {"access_token": "ä"},
    "the subject token": {"access_token": "subject.token"},
    "no type": {"token_type": None},
    "another type": {"token_type": "mac"},
    "no access token at all": {"token_type": "N_A"},
    "a type that is no text": {"token_type": ["Bearer"]},
    "a kind that is not said": {"issued_token_type": None},
    "a refresh token": {"issued_token_type": "urn:ietf:params:oauth:token-type:refresh_token"},
    "a kind that is no text": {"issued_token_type": []},
    "a negative lifetime": {"expires_in": -1},
    "no lifetime": {"expires_in": 0},
    "a lifetime that is true": {"expires_in": True},
    "a lifetime that is null": {"expires_in": None},
    "a lifetime in words": {"expires_in": "an hour"},
    "an eternal lifetime": {"expires_in": 1e308},
    "a lifetime of thirty years": {"expires_in": 1e9},
    "a lifetime of ten digits in text": {"expires_in": "0000003600"},
    "an infinite lifetime": {"expires_in": float("inf")},
    "no number": {"expires_in": float("nan")},
}


@pytest.mark.parametrize("changes", NO_TOKENS.values(), ids=NO_TOKENS)
def test_what_is_no_bearer_token_is_not_used(changes: dict[str, Any]) -> None:
    """CLI-03, CLI-04, XCHG-04, XCHG-05: neither another type, nor an eternal one, nor the subject token itself."""
    with pytest.raises(ExchangeRefused) as refused:
        read_answer(200, {**GOOD, **changes}, FOR_THE_USER, NOW)
    assert refused.value.error == "invalid_answer"
    assert "subject.token" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "description"),
    [
        ({"access_token": ""}, "the answer holds no access_token"),
        (
            {"access_token": "subject.token"},
            "the subject token came back, and it is meant for this API alone",
        ),
        ({"token_type": "N_A"}, "token_type is 'N_A', not Bearer"),
        ({"issued_token_type": "urn:x"}, "issued_token_type is 'urn:x'"),
        ({"expires_in": 0}, "expires_in is 0"),
    ],
)
def test_says_what_is_wrong_with_an_answer(changes: dict[str, Any], description: str) -> None:
    """The operator learns from it what to ask of the authorization server's."""
    with pytest.raises(ExchangeRefused) as refused:
        read_answer(200, {**GOOD, **changes}, FOR_THE_USER, NOW)
    assert refused.value.description == description


@pytest.mark.parametrize("missing", ["access_token", "token_type", "issued_token_type"])
def test_an_answer_without_what_it_must_hold_is_not_used(missing: str) -> None:
    """CLI-03, XCHG-04: each of the three is required; only an exchange says what kind of token was issued."""
    answer = {name: value for name, value in GOOD.items() if name != missing}
    with pytest.raises(ExchangeRefused) as refused:
        read_answer(200, answer, FOR_THE_USER, NOW)
    assert refused.value.error == "invalid_answer"
    if missing == "issued_token_type":
        assert read_answer(200, answer, FOR_ITSELF, NOW).raw_token == "next.access.token"
        entra = exchange_form("subject.token", TARGET, "entra")
        assert read_answer(200, answer, entra, NOW).raw_token == "next.access.token"


@pytest.mark.parametrize(
    ("expires_in", "seconds"),
    [(..., DEFAULT_EXPIRES_IN), ("3600", 3600), (0.5, 0.5), (1e9 - 1, 1e9 - 1), ("999999999", 999_999_999)],
)
def test_a_lifetime_that_is_absent_or_in_text_is_finite(expires_in: object, seconds: float) -> None:
    """CLI-04: absent is our default, digits in quotes are tolerated."""
    answer = {name: value for name, value in {**GOOD, "expires_in": expires_in}.items() if value is not ...}
    assert read_answer(200, answer, FOR_ITSELF, NOW).expires_at == NOW + seconds


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, "invalid_request"),
        (400, "invalid_grant"),
        (400, "invalid_scope"),
        (400, "invalid_target"),
        (400, "consent_required"),
        (401, "invalid_client"),
        (403, "access_denied"),
    ],
)
def test_a_refusal_is_told_in_the_server_s_own_words(status: int, error: str) -> None:
    """CLI-05, XCHG-06, OBOA-02: the error and its description as they came, escaped where they are printed."""
    with pytest.raises(ExchangeRefused) as refused:
        read_answer(status, {"error": error, "error_description": "No.\nReally."}, FOR_THE_USER, NOW)
    assert (refused.value.error, refused.value.description, refused.value.claims) == (error, "No.\nReally.", None)
    assert str(refused.value) == f"'{error}': 'No.\\nReally.'"


def test_a_claims_challenge_is_passed_on() -> None:
    """OBOM-03: what the client must log in again with."""
    claims = json.dumps({"access_token": {"acrs": {"essential": True, "value": "c1"}}})
    with pytest.raises(ExchangeRefused) as refused:
        read_answer(400, {"error": "interaction_required", "claims": claims}, FOR_THE_USER, NOW)
    assert (refused.value.error, refused.value.claims) == ("interaction_required", claims)


@pytest.mark.parametrize("answer", [{}, {"error": 7, "error_description": [], "claims": {}}])
def test_a_refusal_without_words_is_told_by_its_status(answer: dict[str, Any]) -> None:
    """CLI-05: whatever is not text is left out."""
    with pytest.raises(ExchangeRefused) as refused:
        read_answer(418, answer, FOR_THE_USER, NOW)
    assert (refused.value.error, refused.value.description, refused.value.claims) == ("http_418", "", None)


@pytest.mark.parametrize("status", [200, 302, 400, 404])
@pytest.mark.parametrize("document", [None, [], "no", 7])
def test_an_answer_that_is_no_object_decides_nothing(status: int, document: object) -> None:
    """CLI-05: a page of a proxy is an outage, not a refusal."""
    with pytest.raises(TemporarilyUnavailable, match=f"answered {status} without a JSON object") as refused:
        read_answer(status, document, FOR_THE_USER, NOW)
    assert refused.value.reason is Reason.TOKEN_UNAVAILABLE


# Whatever the input.

MEMBERS = {
    "access_token": st.sampled_from(["next.access.token", "subject.token", "a\r\nX: y"]) | JSON_VALUES,
    "token_type": st.sampled_from(["Bearer", "bearer", "DPoP"]) | JSON_VALUES,
    "issued_token_type": st.just(ACCESS_TOKEN_TYPE) | JSON_VALUES,
    "expires_in": st.integers(-1, 10**10) | st.integers().map(str) | JSON_VALUES,
    **dict.fromkeys(["scope", "error", "error_description", "claims"], JSON_VALUES),
}


@given(st.sampled_from([200, 200, 400, 401]), st.fixed_dictionaries({}, optional=MEMBERS) | JSON_VALUES)
@settings(max_examples=200, deadline=None)
def test_any_answer_is_a_bearer_token_or_a_refusal(status: int, document: Any) -> None:
    """CLI-03, CLI-04, XCHG-05: a granted token can stand in a header, ends some day, and is not the one sent."""
    if isinstance(document, dict):
        document = {**(GOOD if status == 200 else {}), **document}
    for form in (FOR_ITSELF, FOR_THE_USER):
        try:
            granted = read_answer(status, document, form, NOW)
        except (ExchangeRefused, TemporarilyUnavailable) as refused:
            assert str(refused).isascii()  # noqa: PT017
            continue
        assert status == 200
        assert granted.raw_token == document["access_token"]
        assert re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", granted.raw_token)
        assert NOW < granted.expires_at < NOW + 1e9
        assert set(granted.lacks) <= set(TARGET.scopes)
        assert form is FOR_ITSELF or granted.raw_token != "subject.token"


@given(st.text(min_size=1), st.text(min_size=1))
@settings(max_examples=100, deadline=None)
def test_any_id_and_secret_arrive_as_they_were(client_id: str, secret: str) -> None:
    """CLI-02: whatever characters they are made of."""
    _, headers = Client(client_id=client_id, secret=secret).authenticate(ISSUER, NOW)
    sent = base64.b64decode(headers["Authorization"].removeprefix("Basic ")).decode("ascii").split(":")
    assert list(map(unquote_plus, sent)) == [client_id, secret]
