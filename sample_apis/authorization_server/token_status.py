"""What becomes of a token after it was issued: revocation (RFC 7009) and introspection (RFC 7662), on Authlib."""

from authlib.oauth2.rfc6749 import InvalidRequestError
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7662 import IntrospectionEndpoint

from sample_apis.authorization_server.catalogue import Client
from sample_apis.authorization_server.oauth_request import Request
from sample_apis.authorization_server.server import EVERY_CLIENT, SECRETS, Server
from sample_apis.authorization_server.store import Issued
from sample_apis.authorization_server.tokens import Claims


class Revocation(RevocationEndpoint):
    """RFC 7009. A refresh token takes everything with it that was issued on the same authorization."""

    CLIENT_AUTH_METHODS = EVERY_CLIENT
    server: Server

    def check_params(self, request: Request, client: Client) -> None:
        _require_token(request)

    def query_token(self, token_string: str, token_type_hint: str | None) -> Issued | None:
        return self.server.store.find(token_string)

    def revoke_token(self, token: Issued, request: Request) -> None:
        if token.kind == "refresh":
            self.server.store.end(token.authorization)
        else:
            self.server.store.drop(request.form["token"])


class Introspection(IntrospectionEndpoint):
    """RFC 7662, for clients with a secret. A refresh token is shown to its own client alone."""

    CLIENT_AUTH_METHODS = SECRETS
    server: Server

    def check_params(self, request: Request, client: Client) -> None:
        _require_token(request)

    def query_token(self, token_string: str, token_type_hint: str | None) -> Issued | None:
        return self.server.store.find(token_string)

    def check_permission(self, token: Issued, client: Client, request: Request) -> bool:
        return token.kind == "access" or token.check_client(client)

    def create_introspection_payload(self, token: Issued | None) -> Claims:
        if token is None:
            return {"active": False}
        authorization = token.authorization
        described: Claims = {
            "active": True,
            "client_id": token.client_id,
            "iss": authorization.issuer,
            "sub": authorization.subject,
            "exp": token.expires_at,
        }
        if authorization.username:
            described["username"] = authorization.username
        if token.kind == "access":
            described["token_type"] = "Bearer"
        return described | dict(token.members)


def _require_token(request: Request) -> None:
    # The hint may be wrong without harm (RFC 7009 2.1): everything is looked for in one place.
    if "token" not in request.form:
        raise InvalidRequestError("The parameter token is missing.")
