"""How a request is read: parameters from where they belong, and the client's name and secret. Knows no grant.

RFC 6749 2.3 (client authentication), 3.1 and 3.2 (parameters).
"""

import json
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote_plus

import flask
from authlib.integrations.flask_oauth2.requests import FlaskOAuth2Request
from authlib.oauth2.rfc6749 import InvalidRequestError
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from werkzeug.datastructures import Authorization as AuthorizationField

from sample_apis.authorization_server.catalogue import Client


class Request(FlaskOAuth2Request):
    """A request as Authlib reads it: parameters from the query at /authorize, from the body (form or JSON) elsewhere.

    Parameters without a value count as omitted, and none may be repeated (RFC 6749 3.1 and 3.2).
    """

    def __init__(self, request: flask.Request) -> None:
        super().__init__(request)
        self.issuer = request.host_url
        self._parameters = _single(request.args.items(multi=True) if request.path == "/authorize" else _body(request))
        self.payload = BasicOAuth2Payload(self._parameters)  # type: ignore[assignment]  # a sibling type, read alike

    @property
    def form(self) -> dict[str, str]:  # type: ignore[override]  # Authlib asks it for single values alone
        return self._parameters


def client_secret_basic(query_client: Callable[[str], Client | None], request: Request) -> Client | None:
    """Authenticate by HTTP Basic, with both parts form-encoded as RFC 6749 2.3.1 wants them."""
    field = AuthorizationField.from_header((request.headers or {}).get("Authorization"))
    if field is None or field.type != "basic":
        return None
    if "client_secret" in request.form:
        raise InvalidRequestError("Authenticate in one way, not in two.")
    client = query_client(unquote_plus(field.username or ""))
    return client if client and client.check_client_secret(unquote_plus(field.password or "")) else None


def _body(request: flask.Request) -> Iterable[tuple[str, Any]]:
    if request.mimetype != "application/json":
        return request.form.items(multi=True)
    try:
        pairs = json.loads(request.get_data(), object_pairs_hook=tuple)  # so that a repeated member is seen
    except (ValueError, RecursionError):
        pairs = None
    if not isinstance(pairs, tuple):
        raise InvalidRequestError("The body is not a JSON object.")
    return pairs


def _single(pairs: Iterable[tuple[str, Any]]) -> dict[str, str]:
    sent = [(name, value) for name, value in pairs if value != ""]
    if len(dict(sent)) != len(sent):
        raise InvalidRequestError("A parameter is repeated.")
    if not all(isinstance(value, str) and value.isprintable() for _, value in sent):
        raise InvalidRequestError("A parameter is not a line of text.")
    return dict(sent)
