"""The app's talk with the authorization server: what it is asked, and what of its answers can be believed.

Knows no session and no page. OpenID Connect Core 3.1.2 (the request) and 3.1.3.7 (the ID token), RFC 7636 (PKCE).
"""

import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from secrets import token_urlsafe
from typing import Any
from urllib.parse import urlencode

import httpx
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

ID_TOKEN_ALGORITHMS = ["RS256"]
LEEWAY = 30  # seconds
TIMEOUT = 10.0  # seconds


class LoginRefused(Exception):
    """The authorization server said no, or said something that cannot be believed. The message is for the user."""


@dataclass(frozen=True, kw_only=True)
class Registration:
    """This app, as the authorization server at `domain` knows it."""

    domain: str
    client_id: str
    client_secret: str = field(repr=False)
    redirect_uri: str

    @property
    def issuer(self) -> str:
        return f"{self.domain}/"


@dataclass(frozen=True)
class Api:
    """What is asked for at one API."""

    audience: str
    scope: str


@dataclass(frozen=True, kw_only=True)
class PendingRequest:
    """A request that the browser has been sent away with. Its answer is told by `state`, and believed by the rest."""

    api: str  # the name under which the app knows the API
    call: str | None = None  # what the user had asked for, to be done once there is a token
    state: str = field(default_factory=token_urlsafe)
    nonce: str = field(default_factory=token_urlsafe, repr=False)
    verifier: str = field(default_factory=lambda: token_urlsafe(64), repr=False)


@dataclass(frozen=True, kw_only=True)
class User:
    subject: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Grant:
    """An access token, which the app never reads: what it needs to know came along with it."""

    access_token: str = field(repr=False)
    scope: str
    expires_at: float

    @property
    def seconds_left(self) -> float:
        return self.expires_at - time.time()

    @property
    def time_left(self) -> str:
        """How long the token is still good, in words."""
        hours, minutes = divmod(max(0, round(self.seconds_left / 60)), 60)
        return f"{hours} h {minutes} min" if hours else f"{minutes} min"


class Login:
    """The authorization server as this app sees it.

    It is asked for its metadata and keys at each login: those are rare, and so no key that it has withdrawn is used.
    """

    def __init__(self, registration: Registration, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.registration = registration
        self._transport = transport

    async def address_for(self, request: PendingRequest, api: Api, *, silent: bool) -> str:
        """Return where to send the browser. A silent request is answered without a page, or refused.

        Raises:
            LoginRefused: the authorization server does not answer.
        """
        challenge = urlsafe_b64encode(sha256(request.verifier.encode()).digest()).rstrip(b"=").decode()
        parameters = {
            "response_type": "code",
            "client_id": self.registration.client_id,
            "redirect_uri": self.registration.redirect_uri,
            "audience": api.audience,
            "scope": f"openid profile {api.scope}",
            "state": request.state,
            "nonce": request.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            **({"prompt": "none"} if silent else {}),
        }
        async with self._client() as client:
            metadata = await self._metadata(client)
        return f"{metadata['authorization_endpoint']}?{urlencode(parameters)}"

    async def redeem(self, code: str, request: PendingRequest) -> tuple[User, Grant]:
        """Return who has logged in, and the access token that the code stands for.

        Raises:
            LoginRefused: the code is not taken, or the ID token is not for this app and this request.
        """
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.registration.redirect_uri,
            "code_verifier": request.verifier,
        }
        async with self._client() as client:
            metadata = await self._metadata(client)
            credentials = (self.registration.client_id, self.registration.client_secret)
            answer = await _json(client.post(metadata["token_endpoint"], data=form, auth=credentials))
            keys = await _json(client.get(metadata["jwks_uri"]))
        try:
            claims = self._claims(answer, keys, request.nonce)
            grant = Grant(
                access_token=answer["access_token"],
                scope=answer.get("scope", ""),
                expires_at=time.time() + answer["expires_in"],
            )
        except (JoseError, KeyError, ValueError, TypeError) as error:
            raise LoginRefused("The answer of the authorization server cannot be believed.") from error
        return User(subject=claims["sub"], name=claims.get("name") or claims["sub"]), grant

    def logout_address(self, return_to: str) -> str:
        """Return where to send the browser to end the session at the authorization server, too."""
        parameters = {"client_id": self.registration.client_id, "returnTo": return_to}
        return f"{self.registration.domain}/v2/logout?{urlencode(parameters)}"

    def _claims(self, answer: Mapping[str, Any], keys: Any, nonce: str) -> Mapping[str, Any]:
        token = jwt.decode(answer["id_token"], KeySet.import_key_set(keys), algorithms=ID_TOKEN_ALGORITHMS)
        expected = {"iss": self.registration.issuer, "aud": self.registration.client_id}
        claims = CodeIDToken(
            token.claims,
            token.header,
            {name: {"essential": True, "value": value} for name, value in expected.items()},
            {"nonce": nonce, "client_id": self.registration.client_id, "access_token": answer["access_token"]},
        )
        claims.validate(leeway=LEEWAY)
        return token.claims

    async def _metadata(self, client: httpx.AsyncClient) -> Mapping[str, str]:
        metadata = await _json(client.get(f"{self.registration.issuer}.well-known/openid-configuration"))
        if metadata.get("issuer") != self.registration.issuer:  # OpenID Connect Discovery 4.3
            raise LoginRefused(
                "The authorization server calls itself by another name than the one that it is known by."
            )
        return metadata

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=self._transport, timeout=TIMEOUT)


async def _json(request: Any) -> Mapping[str, Any]:
    try:
        response: httpx.Response = await request
        body = response.json()
    except (httpx.HTTPError, ValueError) as error:
        raise LoginRefused("The authorization server does not answer as it should. Try again in a while.") from error
    if not response.is_success or not isinstance(body, dict):
        words = body.get("error_description") if isinstance(body, dict) else None
        raise LoginRefused(f"The authorization server refused: {words or response.status_code}")
    return body
