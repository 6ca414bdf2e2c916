"""Authlib's authorization server, with what all grants share: what is registered, what is issued, how one refuses."""

import flask
from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.integrations.flask_oauth2.requests import FlaskOAuth2Request
from authlib.oauth2 import OAuth2Error, OAuth2Request
from authlib.oauth2.rfc6749 import BaseGrant, ClientMixin, InvalidClientError, InvalidRequestError

from sample_apis.authorization_server.catalogue import Api
from sample_apis.authorization_server.oauth_request import Request, client_secret_basic
from sample_apis.authorization_server.tokens import Tokens

IMPLICIT = "id_token token"
SECRETS = ("client_secret_basic", "client_secret_post")
EVERY_CLIENT = ("none", *SECRETS)


class Server(AuthorizationServer):
    """Authlib's server with everything that it needs to know."""

    def __init__(self, tokens: Tokens, *, implicit: bool) -> None:
        super().__init__(query_client=tokens.catalogue.client)
        self.response_types = ("code", IMPLICIT) if implicit else ("code",)
        self.tokens = tokens
        self.catalogue = tokens.catalogue
        self.store = tokens.store
        self.register_client_auth_method("client_secret_basic", client_secret_basic)

    def create_oauth2_request(self, request: object) -> FlaskOAuth2Request:
        return Request(flask.request)

    def get_authorization_grant(self, request: OAuth2Request) -> BaseGrant:
        """Return the grant for a response type. Authlib's error for an unknown one repeats it, and fails at quotes."""
        assert request.payload is not None  # noqa: S101 - Request always sets it
        if request.payload.response_type in self.response_types:
            return super().get_authorization_grant(request)
        client = self.catalogue.client(request.payload.client_id)
        if client is None:
            raise InvalidClientError("There is no client with this client_id.")
        raise OAuth2Error(
            error="unsupported_response_type",
            description="This response_type is not supported.",
            redirect_uri=address_to_answer(request, client),
        )

    def send_signal(self, name: str, *args: object, **kwargs: object) -> None:
        """Send nothing: nobody listens."""

    def handle_error_response(self, request: OAuth2Request | None, error: OAuth2Error) -> flask.Response:
        """Answer with an error and, whatever Authlib says, with words for it: the apps expect both."""
        error.description = error.description or f"The request was refused: {error.error}."
        return self.handle_response(*error())

    def api(self, audience: str | None, issuer: str) -> Api:
        """Return the API that a request means.

        Raises:
            OAuth2Error: there is none.
        """
        api = self.catalogue.api(audience, issuer)
        if api is None:
            raise refused("There is no API with this audience.")
        return api


def refused(description: str) -> OAuth2Error:
    """Return the error of the hosted service for whom and what it does not know."""
    return OAuth2Error(error="access_denied", description=description, status_code=403)


def address_to_answer(request: OAuth2Request, client: ClientMixin) -> str:
    """Return where the app is answered. Authlib's own would repeat an unknown address, and fail at quotes.

    Raises:
        InvalidRequestError: the address is not registered.
    """
    assert request.payload is not None  # noqa: S101 - Request always sets it
    address = request.payload.redirect_uri or client.get_default_redirect_uri()
    if not client.check_redirect_uri(address):
        raise InvalidRequestError("The redirect_uri is not registered for this client.")
    return address
