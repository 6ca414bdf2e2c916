"""What is minted on an authorization: access tokens in the hosted service's dialects, ID tokens, refresh tokens.

Knows what a token says, not how it was asked for. RFC 9068 2 and RFC 7519 4 (access tokens), RFC 8693 4.1 (`act`),
OpenID Connect Core 2 and 3.1.3.6 (ID tokens).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple
from uuid import uuid4

from authlib.oidc.core.util import create_half_hash
from joserfc import jwt

from sample_apis.authorization_server.catalogue import OPENID_SCOPES, Api, Catalogue, User
from sample_apis.authorization_server.keys import KeyRing
from sample_apis.authorization_server.store import Authorization, Store

ID_TOKEN_ALGORITHM = "RS256"  # the SPA library takes no other
ID_TOKEN_LIFETIME = 36_000  # seconds
REFRESH_TOKEN_LIFETIME = 30 * 86_400  # seconds, from the last use

Claims = dict[str, Any]


class Dialect(NamedTuple):
    typ: str
    client: Callable[[str], Claims]  # how a token names the client that it was issued to
    itself: Claims  # how it says that the client acts for itself


PLAIN = Dialect("JWT", lambda client_id: {"azp": client_id}, {"gty": "client-credentials"})
RFC9068 = Dialect("at+jwt", lambda client_id: {"client_id": client_id, "jti": uuid4().hex}, {})
DIALECTS: Mapping[str, Dialect | None] = {"plain": PLAIN, "rfc9068": RFC9068, "opaque": None}


class Tokens:
    """Mints what the server issues, and keeps a record of it in the store."""

    def __init__(self, catalogue: Catalogue, store: Store, keys: KeyRing) -> None:
        self.catalogue = catalogue
        self.store = store
        self.keys = keys

    def granted(self, requested: str, api: Api, user: User) -> str:
        """Return the part of a scope that a user can be granted at an API, in the order asked for.

        Scopes of other APIs arrive here, too, when an app asks for a second audience, and are left out.
        """
        permissions = user.permissions.get(api.identifier, frozenset())
        known = {scope for scope in api.scopes if not api.role_based or scope in permissions} | set(OPENID_SCOPES)
        return " ".join(dict.fromkeys(scope for scope in requested.split() if scope in known))

    def unconsented(self, scopes: Iterable[str], api: Api, user: User, client_id: str) -> set[tuple[str, str]]:
        """Return the audience and scope of everything that the user has yet to allow the client.

        The scopes of OpenID Connect belong to no audience: they are asked for once, whatever the API.
        """
        if not api.asks_consent:
            return set()
        asked = {(api.identifier if one in api.scopes else "", one) for one in scopes}
        return asked - self.store.consents(user.username, client_id)

    def answer(self, authorization: Authorization, *, nonce: str | None = None, refreshable: bool) -> Claims:
        """Return the answer to a user's code or refresh token (RFC 6749 5.1, OpenID Connect Core 3.1.3.3)."""
        answer = self.access_token(authorization)
        if "openid" in authorization.scope.split():
            answer["id_token"] = self.id_token(authorization, answer["access_token"], nonce)
        if refreshable:
            answer["refresh_token"] = self.store.issue("refresh", authorization, REFRESH_TOKEN_LIFETIME, {})
        return answer

    def access_token(
        self, authorization: Authorization, *, actor: Claims | None = None, not_after: int | None = None
    ) -> Claims:
        """Mint an access token: the members of an answer that belong to it. `not_after` bounds its end, in seconds."""
        api = self.catalogue.api(authorization.audience, authorization.issuer)
        assert api is not None  # noqa: S101 - every grant has looked it up
        now = self.store.now
        lifetime = api.lifetime if not_after is None else min(api.lifetime, not_after - now)
        claims = self._claims(authorization, api) | {"iat": now, "exp": now + lifetime}
        if actor is not None:
            claims["act"] = actor
        dialect = DIALECTS[api.dialect]
        text = None
        if dialect is not None:
            client_itself = {} if authorization.username else dialect.itself
            claims |= dialect.client(authorization.client_id) | client_itself
            text = self._sign(claims, api.algorithm, dialect.typ)
        text = self.store.issue("access", authorization, lifetime, claims, text)
        answer = {"access_token": text, "token_type": "Bearer", "expires_in": lifetime}
        return answer | ({"scope": authorization.scope} if authorization.scope else {})

    def id_token(self, authorization: Authorization, access_token: str, nonce: str | None) -> str:
        """Mint the ID token that goes with an access token."""
        user = self.catalogue.user(authorization.username)
        assert user is not None  # noqa: S101 - only users have ID tokens
        now = self.store.now
        half_hash = create_half_hash(access_token, ID_TOKEN_ALGORITHM)
        claims: Claims = user.claims(authorization.scope) | {
            "iss": authorization.issuer,
            "aud": authorization.client_id,
            "iat": now,
            "exp": now + ID_TOKEN_LIFETIME,
            "auth_time": authorization.auth_time,
            "at_hash": half_hash.decode() if half_hash else None,
        }
        organization = self.catalogue.organization(authorization.organization or "")
        if organization is not None:
            claims |= {"org_id": organization.id, "org_name": organization.name}
        if nonce is not None:
            claims["nonce"] = nonce
        return self._sign(claims, ID_TOKEN_ALGORITHM, "JWT")

    def _claims(self, authorization: Authorization, api: Api) -> Claims:
        claims: Claims = {"iss": authorization.issuer, "sub": authorization.subject, "aud": api.identifier}
        if "openid" in authorization.scope.split() and api.algorithm == "RS256" and api.dialect != "opaque":
            # /userinfo can verify what everybody can verify. A secret shared with one API would be of no use to it.
            claims["aud"] = [api.identifier, f"{authorization.issuer}userinfo"]
        if authorization.scope:
            claims["scope"] = authorization.scope
        if api.role_based:
            user = self.catalogue.user(authorization.username)
            permissions = user.permissions.get(api.identifier, ()) if user else authorization.scope.split()
            claims["permissions"] = sorted(permissions)
        if authorization.organization:
            claims["org_id"] = authorization.organization
        return claims

    def _sign(self, claims: Claims, algorithm: str, typ: str) -> str:
        key = self.keys.signing_key(algorithm)
        header = {"alg": algorithm, "typ": typ} | ({"kid": key.kid} if key.kid else {})
        return jwt.encode(header, claims, key, algorithms=[algorithm])
