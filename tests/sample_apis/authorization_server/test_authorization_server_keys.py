"""Signing keys, algorithms and dialects: every access token is validated by Token Guard, as a resource server would."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest

from sample_apis.authorization_server.catalogue import HS256_SECRET, Catalogue, sample_catalogue
from sample_apis.authorization_server.keys import KeyRing, UnknownKey
from tests.sample_apis.authorization_server.conftest import MAIN, READING, Browser, Serve, claims_of
from token_guard import AccessToken, InvalidToken, Issuer, Reason, ResourceServer


def with_organize(**changes: Any) -> Catalogue:
    """The samples' catalogue with other settings of the API `organize`."""
    catalogue = sample_catalogue()
    return replace(catalogue, apis=(replace(catalogue.apis[0], **changes), *catalogue.apis[1:]))


def validated(browser: Browser, token: str, **options: Any) -> AccessToken:
    """Validate a token with the keys that are published now."""
    jwks = browser.client.get("/.well-known/jwks.json").json()
    organizer = ResourceServer(
        issuer=MAIN, audience="organize", jwks=jwks, clock=lambda: claims_of(token)["iat"], **options
    )
    return organizer.validate(token)


@pytest.fixture
def key_ring(tmp_path: Path) -> KeyRing:
    """The keys of the server, as another process opens them."""
    return KeyRing(tmp_path / "authorization_server.sqlite3")


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "Ed25519"])
def test_each_api_signs_with_its_own_algorithm(serve: Serve, algorithm: str) -> None:
    """The ID token stays RS256, which is all that the SPA library takes; only RS256 tokens are for /userinfo, too."""
    browser = serve(with_organize(algorithm=algorithm))
    answer = browser.tokens()
    token = validated(browser, answer["access_token"], algorithms=[algorithm])
    assert token.audience == (("organize", f"{MAIN}userinfo") if algorithm == "RS256" else ("organize",))
    assert set(READING.split()) <= {str(scope) for scope in token.scopes}
    assert token.permissions
    assert jwt.get_unverified_header(answer["id_token"])["alg"] == "RS256"


def test_an_hs256_api_shares_a_secret_and_keeps_a_string(serve: Serve) -> None:
    """Its audience is never an array, since /userinfo has no business with its secret."""
    browser = serve(with_organize(algorithm="HS256"))
    token = browser.tokens()["access_token"]
    assert claims_of(token)["aud"] == "organize"
    issuer = Issuer(MAIN, secret=HS256_SECRET)
    organizer = ResourceServer(issuer=issuer, audience="organize", clock=lambda: claims_of(token)["iat"])
    assert organizer.validate(token).subject == "auth0|alice"


def test_the_dialect_of_rfc_9068(serve: Serve) -> None:
    """at+jwt, client_id and jti, and good under the strict profile; the plain one is not."""
    browser = serve(with_organize(dialect="rfc9068"))
    answer = browser.tokens()
    assert jwt.get_unverified_header(answer["access_token"])["typ"] == "at+jwt"
    assert validated(browser, answer["access_token"], profile="rfc9068").client_id == "organizer-spa"
    assert "azp" not in claims_of(answer["access_token"])
    plain = serve().tokens()["access_token"]
    with pytest.raises(InvalidToken) as refusal:
        validated(browser, plain, profile="rfc9068")
    assert refusal.value.reason == Reason.CLAIM_MISSING


def test_the_lifetime_is_each_apis_own(serve: Serve) -> None:
    """expires_in and exp move together."""
    answer = serve(with_organize(lifetime=60)).tokens()
    claims = claims_of(answer["access_token"])
    assert (answer["expires_in"], claims["exp"] - claims["iat"]) == (60, 60)


def kids(browser: Browser) -> Sequence[str]:
    return [key["kid"] for key in browser.client.get("/.well-known/jwks.json").json()["keys"]]


def test_rotation_overlaps(browser: Browser, key_ring: KeyRing) -> None:
    """The next key is published before it signs; the previous one stays until the rotation after."""
    old = browser.tokens()["access_token"]
    before = kids(browser)
    key_ring.rotate()
    new = browser.tokens()["access_token"]
    assert jwt.get_unverified_header(new)["kid"] in before
    assert jwt.get_unverified_header(new)["kid"] != jwt.get_unverified_header(old)["kid"]
    assert set(before) < set(kids(browser))
    assert validated(browser, old).subject == validated(browser, new).subject
    key_ring.rotate()
    assert validated(browser, new).subject == "auth0|alice"
    with pytest.raises(InvalidToken) as refusal:
        validated(browser, old)
    assert refusal.value.reason == Reason.UNKNOWN_KEY


@pytest.mark.parametrize("state", ["current", "previous", "next"])
def test_a_revoked_key_is_withdrawn_at_once(browser: Browser, key_ring: KeyRing, state: str) -> None:
    """Whichever it was, the server goes on signing with a published key, and another one waits."""
    key_ring.rotate()
    kid = next(kid for _, known, kid in key_ring.states() if known == state)
    key_ring.revoke(kid)
    assert kid not in kids(browser)
    assert {known for _, known, _ in key_ring.states()} >= {"current", "next"}
    assert validated(browser, browser.tokens()["access_token"]).subject == "auth0|alice"
    with pytest.raises(UnknownKey):
        key_ring.revoke(kid)


def test_the_key_set_holds_public_halves_alone(browser: Browser) -> None:
    """RFC 7517 5, with use and alg."""
    for key in browser.client.get("/.well-known/jwks.json").json()["keys"]:
        assert set(key) == {"kty", "use", "alg", "kid", "n", "e"}
