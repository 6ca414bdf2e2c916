"""What a local issuer mints and publishes, judged by PyJWT."""

import base64
import json
import time
from typing import Any

import jwt
import pytest

from token_guard.testing import LocalIssuer
from token_guard.testing.keys import ALGORITHMS

NOW = 1_800_000_000
PYJWT_ALGORITHMS = ["RS256", "PS384", "ES512", "EdDSA"]


def decoded(issuer: LocalIssuer, token: str) -> Any:
    """The claims, once PyJWT has found the key in the published set and checked signature, issuer, audience, time."""
    key = jwt.PyJWKSet.from_dict(issuer.jwks())[jwt.get_unverified_header(token)["kid"]]
    return jwt.decode(
        token,
        key,
        algorithms=[key.algorithm_name],
        audience="organize",
        issuer=issuer.url,
        options={"require": ["exp"]},
    )


def unverified(token: str) -> tuple[Any, Any]:
    header, payload, _ = token.split(".")
    return json.loads(base64.urlsafe_b64decode(header + "==")), json.loads(base64.urlsafe_b64decode(payload + "=="))


@pytest.fixture
def issuer() -> LocalIssuer:
    return LocalIssuer(clock=lambda: NOW + 0.7)


# Good tokens.


@pytest.mark.parametrize("algorithm", PYJWT_ALGORITHMS)
def test_token_verifies_with_the_published_key(algorithm: str) -> None:
    """A token of the issuer is genuine, current and meant for its audience."""
    issuer = LocalIssuer(algorithm=algorithm)
    assert decoded(issuer, issuer.token("read:contacts read:calendar"))["scope"] == "read:contacts read:calendar"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_mints_under_its_own_name(algorithm: str) -> None:
    """The header names the algorithm that the issuer was made with."""
    issuer = LocalIssuer(algorithm=algorithm)
    assert unverified(issuer.token())[0] == {"alg": algorithm, "typ": "JWT", "kid": issuer.key.kid}


def test_user_token_in_the_dialect_of_the_hosted_service(issuer: LocalIssuer) -> None:
    """AUTH0-02: type JWT, the client in `azp`, no `jti`; whole seconds; a day long (AUTH0-08)."""
    assert unverified(issuer.token()) == (
        {"alg": "RS256", "typ": "JWT", "kid": issuer.key.kid},
        {
            "iss": "https://issuer.example/",
            "sub": "auth0|alice",
            "aud": "organize",
            "iat": NOW,
            "exp": NOW + 86_400,
            "scope": "read:contacts",
            "azp": "organizer-spa",
        },
    )


def test_user_token_in_the_dialect_of_rfc_9068() -> None:
    """RFC 9068, section 2: type at+jwt, `client_id` and a `jti` that never repeats."""
    issuer = LocalIssuer(dialect="rfc9068", clock=lambda: NOW)
    header, claims = unverified(issuer.token())
    assert header["typ"] == "at+jwt"
    assert claims.pop("jti") != unverified(issuer.token())[1]["jti"]
    assert claims == {
        "iss": "https://issuer.example/",
        "sub": "auth0|alice",
        "aud": "organize",
        "iat": NOW,
        "exp": NOW + 86_400,
        "scope": "read:contacts",
        "client_id": "organizer-spa",
    }


def test_client_token_in_the_dialect_of_the_hosted_service(issuer: LocalIssuer) -> None:
    """AUTH0-05: the subject ends in @clients and `gty` says how it was granted; no scope, no claim."""
    claims = unverified(issuer.client_token())[1]
    assert (claims["sub"], claims["azp"], claims["gty"]) == (
        "organizer-machine@clients",
        "organizer-machine",
        "client-credentials",
    )
    assert "scope" not in claims


def test_client_token_in_the_dialect_of_rfc_9068() -> None:
    """RFC 9068, section 2.2: the subject of a client's own token is the client."""
    claims = unverified(LocalIssuer(dialect="rfc9068").client_token("read:reports", client_id="batch"))[1]
    assert (claims["sub"], claims["client_id"], claims["scope"]) == ("batch", "batch", "read:reports")
    assert "gty" not in claims


def test_options_take_the_place_of_the_issuers_own(issuer: LocalIssuer) -> None:
    """Subject, client, issuer, audience and lifetime can be told for one token."""
    claims = unverified(
        issuer.token(
            subject="auth0|bob",
            client_id="organizer-web",
            issuer="https://login.example/",
            audience=["organize", "https://issuer.example/userinfo"],
            lifetime=60,
        )
    )[1]
    assert claims == {
        "iss": "https://login.example/",
        "sub": "auth0|bob",
        "aud": ["organize", "https://issuer.example/userinfo"],
        "iat": NOW,
        "exp": NOW + 60,
        "scope": "read:contacts",
        "azp": "organizer-web",
    }


def test_headers_and_claims_are_merged_and_none_removes(issuer: LocalIssuer) -> None:
    """Anything can be added, replaced or left out; falsy values stay."""
    header, claims = unverified(
        issuer.token(
            headers={"typ": None, "kid": "other", "crit": ["b64"]},
            claims={"azp": None, "scope": ["read:contacts"], "permissions": [], "exp": 0, "email_verified": False},
        )
    )
    assert header == {"alg": "RS256", "kid": "other", "crit": ["b64"]}
    assert claims == {
        "iss": "https://issuer.example/",
        "sub": "auth0|alice",
        "aud": "organize",
        "iat": NOW,
        "exp": 0,
        "scope": ["read:contacts"],
        "permissions": [],
        "email_verified": False,
    }


def test_client_token_takes_the_options_of_token(issuer: LocalIssuer) -> None:
    """Claims are merged over those that make it a client's token."""
    claims = unverified(issuer.client_token("read:contacts", lifetime=5, claims={"gty": None, "org_id": "org_1"}))[1]
    assert (claims["exp"], claims["org_id"], claims["sub"]) == (NOW + 5, "org_1", "organizer-machine@clients")
    assert "gty" not in claims


def test_lifetime_can_be_changed_while_it_runs(issuer: LocalIssuer) -> None:
    """The issuer's lifetime is that of the next token."""
    issuer.lifetime = 600
    assert unverified(issuer.token())[1]["exp"] == NOW + 600


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"algorithm": "RS265"}, r"RS265.*RS256"), ({"dialect": "okta"}, r"okta.*auth0, rfc9068")],
)
def test_refuses_what_does_not_exist(setting: dict[str, Any], message: str) -> None:
    """A wrong algorithm or dialect is told at once, with those that exist."""
    with pytest.raises(ValueError, match=message):
        LocalIssuer(**setting)


# Keys.


def test_two_issuers_have_different_keys() -> None:
    """An issuer's token means nothing to another issuer of the same name."""
    one, other = LocalIssuer(), LocalIssuer()
    assert one.jwks()["keys"][0]["n"] != other.jwks()["keys"][0]["n"]
    with pytest.raises(KeyError):
        decoded(other, one.token())


def test_rotation_keeps_the_previous_key_published_until_it_is_withdrawn() -> None:
    """Tokens of both keys verify after a rotation, and only the new key's after the withdrawal."""
    issuer = LocalIssuer()
    previous, old_token = issuer.key, issuer.token()
    current = issuer.rotate()
    assert issuer.key is current
    assert issuer.keys == (previous, current)
    assert unverified(issuer.token())[0]["kid"] == current.kid != previous.kid
    decoded(issuer, old_token)
    decoded(issuer, issuer.token())

    issuer.withdraw(previous.kid)
    assert [jwk["kid"] for jwk in issuer.jwks()["keys"]] == [current.kid]
    decoded(issuer, issuer.token())
    with pytest.raises(KeyError):
        decoded(issuer, old_token)


def test_withdraw_refuses_a_key_that_is_not_published(issuer: LocalIssuer) -> None:
    """A mistyped key ID does not pass for a withdrawal."""
    with pytest.raises(KeyError, match="other"):
        issuer.withdraw("other")


def test_key_can_be_published_ahead_of_its_use() -> None:
    """An added key signs only when it is passed or made the current one."""
    issuer = LocalIssuer()
    ahead = issuer.add_key("ES256")
    assert unverified(issuer.token())[0]["alg"] == "RS256"
    decoded(issuer, issuer.token(key=ahead))
    issuer.key = ahead
    assert unverified(issuer.token())[0] == {"alg": "ES256", "typ": "JWT", "kid": ahead.kid}
    assert issuer.rotate().algorithm == "ES256"


def test_key_can_stay_unpublished(issuer: LocalIssuer) -> None:
    """A key that is not published signs, but is in no key set."""
    hidden = issuer.add_key("ES256", publish=False)
    assert hidden.kid not in {jwk["kid"] for jwk in issuer.jwks()["keys"]}
    assert unverified(issuer.token(key=hidden))[0]["kid"] == hidden.kid


def test_shared_secret_is_never_published() -> None:
    """JWK-15: an HS256 issuer has an empty key set, after a rotation too."""
    issuer = LocalIssuer(algorithm="HS256")
    issuer.rotate()
    assert issuer.jwks() == {"keys": []}
    jwt.decode(issuer.token(), issuer.key.private, algorithms=["HS256"], audience="organize", issuer=issuer.url)


# Metadata.


@pytest.mark.parametrize(
    "url", ["https://issuer.example/", "https://issuer.example", "https://issuer.example/realms/a"]
)
def test_metadata_keeps_the_spelling_of_the_issuer(url: str) -> None:
    """DISC-05: the final slash is dropped for addresses alone."""
    metadata = LocalIssuer(url).metadata()
    assert metadata["issuer"] == url
    assert metadata["jwks_uri"] == url.rstrip("/") + "/.well-known/jwks.json"
    assert metadata["token_endpoint"] == url.rstrip("/") + "/oauth/token"


# Bad tokens: each is compared with the good token that was minted in the same second.


def test_expired_token_is_only_expired(issuer: LocalIssuer) -> None:
    """It ended an hour ago, after an ordinary life, and its signature is good."""
    (good_header, good), (header, claims) = unverified(issuer.token()), unverified(issuer.expired())
    assert header == good_header
    assert claims == good | {"iat": NOW - 3_600 - 86_400, "exp": NOW - 3_600}
    now_issuer = LocalIssuer()
    with pytest.raises(jwt.ExpiredSignatureError):
        decoded(now_issuer, now_issuer.expired())


def test_negative_lifetime_mints_an_expired_token(issuer: LocalIssuer) -> None:
    """The end can be placed to the second, for tests of the leeway."""
    assert unverified(issuer.token(lifetime=-1))[1]["exp"] == NOW - 1
    assert unverified(issuer.token(lifetime=0))[1]["exp"] == NOW


@pytest.mark.parametrize("algorithm", PYJWT_ALGORITHMS)
def test_strangers_token_differs_in_the_signature_alone(algorithm: str) -> None:
    """Header and claims are those of a good token, the key ID too; the published key does not verify it."""
    now = time.time()
    issuer = LocalIssuer(algorithm=algorithm, clock=lambda: now)
    token = issuer.signed_by_stranger("read:calendar", subject="auth0|bob")
    assert token.rpartition(".")[0] == issuer.token("read:calendar", subject="auth0|bob").rpartition(".")[0]
    with pytest.raises(jwt.InvalidSignatureError):
        decoded(issuer, token)


def test_unknown_key_differs_in_key_and_signature_alone(issuer: LocalIssuer) -> None:
    """The header names a key that is in no key set, and the issuer's key did not sign."""
    (good_header, good), token = unverified(issuer.token()), issuer.unknown_key()
    header, claims = unverified(token)
    assert claims == good
    assert header == good_header | {"kid": header["kid"]}
    assert header["kid"] not in {jwk["kid"] for jwk in issuer.jwks()["keys"]}
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(token, jwt.PyJWK(issuer.jwks()["keys"][0]), options={"verify_aud": False})


def test_unsigned_token_has_an_empty_signature(issuer: LocalIssuer) -> None:
    """RFC 7519, section 6: algorithm `none`, nothing after the second dot; spelled otherwise on request."""
    token = issuer.unsigned()
    assert unverified(token) == ({"alg": "none", "typ": "JWT"}, unverified(issuer.token())[1])
    assert token.split(".")[2] == ""
    assert unverified(issuer.unsigned(headers={"alg": "nOnE"}))[0]["alg"] == "nOnE"
    with pytest.raises(jwt.InvalidAlgorithmError):
        jwt.decode(token, jwt.PyJWK(issuer.jwks()["keys"][0]), algorithms=["RS256"])


@pytest.mark.parametrize("subject", ["auth0|alice", "7", "Zoë", "a\\n"])
def test_tampered_token_differs_in_one_bit(subject: str) -> None:
    """One payload bit is another, it is still JSON, only the subject changed, and the signature is the old one."""
    issuer = LocalIssuer()
    good = issuer.token(subject=subject)
    token = issuer.tampered(good)
    (header, payload, signature), (bad_header, bad_payload, bad_signature) = good.split("."), token.split(".")
    assert (header, signature) == (bad_header, bad_signature)
    bits, bad_bits = (int.from_bytes(base64.urlsafe_b64decode(part + "==")) for part in (payload, bad_payload))
    assert (bits ^ bad_bits).bit_count() == 1
    assert {name for name, value in unverified(token)[1].items() if value != unverified(good)[1][name]} == {"sub"}
    with pytest.raises(jwt.InvalidSignatureError):
        decoded(issuer, token)
