"""The token endpoint, on Authlib: which request is granted, which is refused and why.

Knows clients and scopes, not pages and not how a token looks. RFC 6749 4.1, 4.4 and 6, RFC 7636 (S256 alone), RFC 8693
(token exchange), RFC 9700 2.1 (and why the implicit grant has a switch).
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Any, cast

from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749 import (
    AuthorizationCodeGrant,
    BaseGrant,
    ClientCredentialsGrant,
    ImplicitGrant,
    InvalidGrantError,
    InvalidRequestError,
    InvalidScopeError,
    RefreshTokenGrant,
    TokenEndpointMixin,
    UnauthorizedClientError,
)
from authlib.oauth2.rfc7636 import CodeChallenge

from sample_apis.authorization_server.catalogue import OPENID_SCOPES, TOKEN_EXCHANGE, Client
from sample_apis.authorization_server.oauth_request import Request
from sample_apis.authorization_server.server import (
    EVERY_CLIENT,
    IMPLICIT,
    SECRETS,
    Server,
    address_to_answer,
    refused,
)
from sample_apis.authorization_server.store import Authorization, Issued
from sample_apis.authorization_server.tokens import Claims

ACCESS_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"
JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"
CODE_LIFETIME = 60  # seconds
LONGEST_CHAIN = 3  # actors that may stand behind one another in a token

Answer = tuple[int, Any, Any]


class _Grant(BaseGrant):
    TOKEN_ENDPOINT_AUTH_METHODS: Collection[str] = EVERY_CLIENT
    server: Server
    request: Request

    def parameter(self, name: str) -> str | None:
        """Return a parameter of the request."""
        return self.request.form.get(name)

    def authenticated_client(self) -> Client:
        """Return the client, if it is the one that it says it is and may use this grant."""
        client = self.authenticate_token_endpoint_client()
        if not client.check_grant_type(self.GRANT_TYPE or ""):
            raise UnauthorizedClientError("The client may not use this grant.")
        self.request.client = client
        return cast(Client, client)

    def answered(self, answer: Claims) -> Answer:
        return 200, answer, self.TOKEN_RESPONSE_HEADER


class CodeGrant(_Grant, AuthorizationCodeGrant):
    """The authorization code, with PKCE. A code is good once, for a minute, for the client that asked for it."""

    validate_authorization_redirect_uri = staticmethod(address_to_answer)

    def parameters_for(self, authorization: Authorization) -> Claims:
        """Return what the client is sent: a code, which remembers the address, the challenge and the nonce."""
        remembered = {name: self.parameter(name) for name in ("redirect_uri", "code_challenge", "nonce")}
        return {"code": self.server.store.issue("code", authorization, CODE_LIFETIME, remembered)}

    def query_authorization_code(self, code: str, client: Client) -> Issued | None:  # type: ignore[override]
        return self.server.store.spend(code, "code", client.client_id, self.request.issuer)

    def create_token_response(self) -> Answer:
        assert self.request.authorization_code is not None  # noqa: S101 - validate_token_request has set it
        code: Issued = self.request.authorization_code
        lasting = "offline_access" in code.authorization.scope.split()
        return self.answered(
            self.server.tokens.answer(code.authorization, nonce=code.members["nonce"], refreshable=lasting)
        )


class S256Alone(CodeChallenge):
    """PKCE for every client, public or not, and never `plain` (RFC 9700 2.1.1)."""

    def validate_code_challenge(self, grant: CodeGrant, redirect_uri: str) -> None:
        if not grant.parameter("code_challenge") or grant.parameter("code_challenge_method") != "S256":
            raise InvalidRequestError("PKCE is required: send code_challenge with code_challenge_method=S256.")
        super().validate_code_challenge(grant, redirect_uri)

    def get_authorization_code_challenge(self, authorization_code: Issued) -> str:
        challenge: str = authorization_code.members["code_challenge"]
        return challenge

    def get_authorization_code_challenge_method(self, authorization_code: Issued) -> str:
        return "S256"


class ImplicitTokenGrant(_Grant, ImplicitGrant):
    """`id_token token`: both in the fragment, as old samples want it and today's advice forbids (RFC 9700 2.1.2)."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("none",)
    RESPONSE_TYPES = (IMPLICIT,)
    validate_authorization_redirect_uri = staticmethod(address_to_answer)

    def validate_authorization_request(self) -> str:
        redirect_uri: str = super().validate_authorization_request()  # type: ignore[no-untyped-call]
        if self.parameter("nonce") is None:  # OpenID Connect Core 3.2.2.1
            raise InvalidRequestError("The parameter nonce is missing.", redirect_uri=redirect_uri)
        return redirect_uri

    def parameters_for(self, authorization: Authorization) -> Claims:
        """Return what the client is sent. The ID token comes without the scope `openid`, too: it was asked for."""
        answer = self.server.tokens.access_token(authorization)
        id_token = self.server.tokens.id_token(authorization, answer["access_token"], self.parameter("nonce"))
        return answer | {"id_token": id_token}


class RefreshGrant(_Grant, RefreshTokenGrant):
    """Refresh tokens, each good once, and good for every API that the user has allowed the client."""

    def validate_token_request(self) -> None:
        client = self.authenticated_client()
        sent = self.parameter("refresh_token")
        if sent is None:
            raise InvalidRequestError("The parameter refresh_token is missing.")
        if self.parameter("audience"):
            self.server.api(self.parameter("audience"), self.request.issuer)
        found = self.server.store.spend(sent, "refresh", client.client_id, self.request.issuer)
        if found is None:
            raise InvalidGrantError("Unknown or invalid refresh token.")  # the SPA library looks for these words
        self.request.refresh_token = found

    def create_token_response(self) -> Answer:
        assert self.request.refresh_token is not None  # noqa: S101 - validate_token_request has set it
        authorization: Authorization = self.request.refresh_token.authorization
        audience = self.parameter("audience") or authorization.audience
        scope = self._scope(authorization, audience)
        narrowed = replace(authorization, audience=audience, scope=scope)
        return self.answered(self.server.tokens.answer(narrowed, refreshable=True))

    def _scope(self, authorization: Authorization, audience: str) -> str:
        """Return the part of the scope asked for that was granted: with the login, or by consent for another API."""
        original = authorization.scope.split()
        requested = self.parameter("scope") or authorization.scope
        if audience == authorization.audience:
            return " ".join(scope for scope in requested.split() if scope in original)
        api, user = self.server.api(audience, authorization.issuer), self.server.catalogue.user(authorization.username)
        assert user is not None  # noqa: S101 - only users have refresh tokens
        known = self.server.tokens.granted(requested, api, user).split()
        unconsented = self.server.tokens.unconsented(known, api, user, authorization.client_id)
        return " ".join(
            scope
            for scope in known
            if (scope in original if scope in OPENID_SCOPES else (api.identifier, scope) not in unconsented)
        )


class MachineGrant(_Grant, ClientCredentialsGrant):
    """A client in its own name, at the APIs that it has a grant for."""

    TOKEN_ENDPOINT_AUTH_METHODS = SECRETS

    def create_token_response(self) -> Answer:
        client: Client = self.client
        api = self.server.api(self.parameter("audience"), self.request.issuer)
        grant = next((one for one in client.grants if one.audience == api.identifier), None)
        if grant is None:
            raise refused("The client has no grant for this API.")
        authorization = self.server.store.begin(
            issuer=self.request.issuer,
            client_id=client.client_id,
            subject=f"{client.client_id}@clients",
            audience=api.identifier,
            scope=_within(self.parameter("scope"), grant.scopes),
            organization=self._organization(grant.organizations),
        )
        return self.answered(self.server.tokens.access_token(authorization))

    def _organization(self, granted: frozenset[str]) -> str | None:
        asked = self.parameter("organization")
        organization = self.server.catalogue.organization(asked) if asked else None
        if asked and (organization is None or organization.id not in granted):
            raise refused("The client has no grant for this organization.")
        return organization.id if organization else None


class ExchangeGrant(_Grant, TokenEndpointMixin):
    """RFC 8693: an API gets a token for the next API, on behalf of the user of the token that it received."""

    GRANT_TYPE = TOKEN_EXCHANGE
    TOKEN_ENDPOINT_AUTH_METHODS = EVERY_CLIENT

    def validate_token_request(self) -> None:
        self.authenticated_client()
        if not self.parameter("subject_token"):
            raise InvalidRequestError("The parameter subject_token is missing.")
        if self.parameter("subject_token_type") not in (ACCESS_TOKEN_TYPE, JWT_TYPE):
            raise InvalidRequestError("Only access tokens can be exchanged: see subject_token_type.")
        if self.parameter("requested_token_type") not in (None, ACCESS_TOKEN_TYPE, JWT_TYPE):
            raise InvalidRequestError("Only access tokens are issued: see requested_token_type.")
        if self.parameter("actor_token") or self.parameter("actor_token_type"):
            raise InvalidRequestError("The actor is the client. Send no actor_token.")

    def create_token_response(self) -> Answer:
        client: Client = self.client
        subject = self.server.store.find(self.parameter("subject_token") or "", ("access",))
        if subject is None:
            raise InvalidRequestError("The subject token is not good: it ended, was revoked or is not ours.")
        audience = self.parameter("audience")
        pairing = next(
            (one for one in client.pairings if one.source in subject.audiences and one.audience == audience), None
        )
        if pairing is None:
            raise OAuth2Error(
                error="invalid_target", description="The client may not exchange this token for this API."
            )
        actor: Claims = {"sub": client.client_id}
        if "act" in subject.members:
            actor["act"] = subject.members["act"]
        if _depth(actor) > LONGEST_CHAIN:
            raise InvalidRequestError("The chain of actors is too long.")
        # The SPA library and others send the scopes of OpenID Connect along; they widen nothing.
        authorization = replace(
            subject.authorization,
            issuer=self.request.issuer,
            client_id=client.client_id,
            audience=pairing.audience,
            scope=self._scope(subject, pairing.audience, pairing.scopes),
        )
        answer = self.server.tokens.access_token(authorization, actor=actor, not_after=subject.expires_at)
        return self.answered(answer | {"issued_token_type": ACCESS_TOKEN_TYPE})

    def _scope(self, subject: Issued, audience: str, paired: frozenset[str]) -> str:
        catalogue, tokens = self.server.catalogue, self.server.tokens
        user = catalogue.user(subject.authorization.username)
        if user is None:
            raise InvalidRequestError("The subject token is not a user's.")
        scope = _within(self.parameter("scope"), paired, ignored=frozenset(OPENID_SCOPES))
        return tokens.granted(scope, self.server.api(audience, self.request.issuer), user)


def register_grants(server: Server) -> None:
    """Register every grant; the implicit one if the server answers its response type."""
    server.register_grant(CodeGrant, [S256Alone()])
    for grant in (RefreshGrant, MachineGrant, ExchangeGrant):
        server.register_grant(grant)
    if IMPLICIT in server.response_types:
        server.register_grant(ImplicitTokenGrant)


def _within(requested: str | None, granted: frozenset[str], ignored: frozenset[str] = frozenset()) -> str:
    """Return the scope asked for without what is ignored, or all that is granted where none was asked for.

    Raises:
        InvalidScopeError: it asks for more.
    """
    scopes = [scope for scope in (requested or "").split() if scope not in ignored]
    if not set(scopes) <= granted:
        raise InvalidScopeError("The client may not have all of this scope.")
    return " ".join(dict.fromkeys(scopes or sorted(granted)))


def _depth(actor: Claims) -> int:
    return 1 + _depth(actor["act"]) if "act" in actor else 1
