"""What the app with a backend believes. An honest server cannot lie, so here one is made that does.

The app's talk with the real authorization server is tested in `end_to_end/test_web_backend.py`.
"""

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, OctKey, RSAKey

from sample_apis.web_backend.login import Api, Grant, Login, LoginRefused, PendingRequest, Registration, User

REGISTRATION = Registration(
    domain="http://localhost:9400",
    client_id="organizer-web",
    client_secret="organizer-web-secret",
    redirect_uri="http://localhost:8090/callback",
)
ISSUER = REGISTRATION.issuer
KEY = RSAKey.generate_key(2048, {"kid": "of the server"})
STRANGER = RSAKey.generate_key(2048, {"kid": "of the server"})
PENDING = PendingRequest(api="organize")

CLAIMS: Mapping[str, Any] = {
    "iss": ISSUER,
    "aud": REGISTRATION.client_id,
    "sub": "auth0|alice",
    "name": "Alice",
    "iat": time.time(),
    "exp": time.time() + 3600,
    "nonce": PENDING.nonce,
}


class LyingServer:
    """An authorization server that answers whatever it is told to, and remembers what it was asked for a token with."""

    def __init__(self, id_token: str = "", **answers: httpx.Response) -> None:
        self.form: Mapping[str, list[str]] = {}
        endpoints = {
            "authorization_endpoint": f"{ISSUER}authorize",
            "token_endpoint": f"{ISSUER}oauth/token",
            "jwks_uri": f"{ISSUER}jwks",
        }
        token = {"access_token": "opaque", "scope": "read:contacts", "expires_in": 60, "id_token": id_token}
        self._answers = {
            "openid-configuration": httpx.Response(200, json={"issuer": ISSUER, **endpoints}),
            "token": httpx.Response(200, json=token),
            "jwks": httpx.Response(200, json=KeySet([KEY]).as_dict()),
            **{name.replace("_", "-"): answer for name, answer in answers.items()},
        }

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            self.form = parse_qs(request.content.decode())
        return self._answers[request.url.path.rpartition("/")[2]]

    def login(self) -> Login:
        return Login(REGISTRATION, httpx.MockTransport(self))

    def redeem(self) -> tuple[User, Grant]:
        return anyio.run(self.login().redeem, "a code", PENDING)


def signed(key: RSAKey | OctKey = KEY, alg: str = "RS256", **changes: object) -> str:
    """Return an ID token with these claims changed, or left out where they are None."""
    claims = {name: value for name, value in {**CLAIMS, **changes}.items() if value is not None}
    return jwt.encode({"alg": alg, "kid": "of the server"}, claims, key, algorithms=[alg])


def test_accepts_an_id_token_for_this_request() -> None:
    """The user is who it says, the access token is taken as it is, and the code was sent with the PKCE verifier."""
    server = LyingServer(signed())
    user, grant = server.redeem()
    assert user == User(subject="auth0|alice", name="Alice")
    assert (grant.access_token, grant.scope) == ("opaque", "read:contacts")
    assert 0 < grant.seconds_left <= 60
    assert server.form["code_verifier"] == [PENDING.verifier]


@pytest.mark.parametrize(
    "id_token",
    [
        pytest.param(signed(iss="http://localhost:9400"), id="issuer without its slash"),
        pytest.param(signed(iss=None), id="no issuer"),
        pytest.param(signed(aud="organizer-spa"), id="for another client"),
        pytest.param(signed(aud=None), id="for nobody"),
        pytest.param(signed(aud=["organizer-web", "organizer-spa"]), id="for several, without azp"),
        pytest.param(signed(azp="organizer-spa"), id="azp of another client"),
        pytest.param(signed(exp=time.time() - 60), id="expired"),
        pytest.param(signed(exp=None), id="never expires"),
        pytest.param(signed(iat=None), id="no iat"),
        pytest.param(signed(nonce="of another request"), id="nonce of another request"),
        pytest.param(signed(nonce=None), id="no nonce"),
        pytest.param(signed(sub=None), id="no subject"),
        pytest.param(signed(at_hash="of another token"), id="with another access token"),
        pytest.param(signed(STRANGER), id="signed by a stranger"),
        pytest.param(signed(alg="PS256"), id="algorithm not agreed on"),
        pytest.param(
            signed(OctKey.import_key(REGISTRATION.client_secret + 32 * "x"), alg="HS256"), id="signed with a secret"
        ),
        pytest.param("e30.e30.", id="not signed"),
        pytest.param("no token", id="no JWT"),
    ],
)
def test_refuses_an_id_token_for_anything_else(id_token: str) -> None:
    """OpenID Connect Core 3.1.3.7: whatever differs, nobody is logged in and no access token is returned."""
    with pytest.raises(LoginRefused, match="cannot be believed"):
        LyingServer(id_token).redeem()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx.Response(200, json={"access_token": "opaque", "expires_in": 60}), "cannot be believed"),
        (httpx.Response(200, json={"id_token": signed(), "expires_in": 60}), "cannot be believed"),
        (httpx.Response(200, json={"id_token": signed(), "access_token": "opaque"}), "cannot be believed"),
        (httpx.Response(200, text="<html>"), "does not answer as it should"),
        (httpx.Response(200, json=["a list"]), "refused: 200"),
        (httpx.Response(400, json={"error_description": "Invalid code."}), "refused: Invalid code."),
        (httpx.Response(500, json={}), "refused: 500"),
    ],
)
def test_refuses_an_answer_that_is_none(answer: httpx.Response, words: str) -> None:
    """A token endpoint that answers something else is told in words, not as a failure of ours."""
    with pytest.raises(LoginRefused, match=words):
        LyingServer(token=answer).redeem()


def test_refuses_metadata_of_another_issuer() -> None:
    """OpenID Connect Discovery 4.3: an answer under another name is not believed, wherever it came from."""
    server = LyingServer(signed(), openid_configuration=httpx.Response(200, json={"issuer": "http://elsewhere/"}))
    with pytest.raises(LoginRefused, match="another name"):
        server.redeem()


def test_every_request_is_its_own() -> None:
    """State, nonce and verifier are new each time; the challenge is of the verifier, which stays here."""
    addresses = [anyio.run(request_address, PendingRequest(api="organize"), silent) for silent in (False, True)]
    first, second = (parse_qs(urlsplit(address).query) for address in addresses)
    for name in ("state", "nonce", "code_challenge"):
        assert first[name] != second[name]
    assert "prompt" not in first
    assert second["prompt"] == ["none"]
    assert first["code_challenge_method"] == ["S256"]
    assert first["audience"] == ["organize"]


async def request_address(request: PendingRequest, silent: bool) -> str:
    address = await LyingServer().login().address_for(request, Api("organize", "read:contacts"), silent=silent)
    assert request.verifier not in address
    return address


def test_nothing_that_is_kept_shows_its_secrets() -> None:
    """A log or a traceback that prints one of these gives nothing away."""
    grant = Grant(access_token="opaque", scope="", expires_at=0)
    for kept in (PENDING, REGISTRATION, grant):
        for secret in (PENDING.verifier, PENDING.nonce, REGISTRATION.client_secret, "opaque"):
            assert secret not in repr(kept)
