"""The server as one WSGI application: every endpoint, and the headers that browsers need.

    GET, POST /authorize            login, consent and the answer to the app
    POST /oauth/token               codes, refresh tokens, client credentials, token exchange
    POST /oauth/revoke, /oauth/introspect
    GET  /userinfo, /api/v2/users/{subject}
    GET  /v2/logout
    GET  /.well-known/openid-configuration, /.well-known/oauth-authorization-server, /.well-known/jwks.json

RFC 8414 and OpenID Connect Discovery (metadata), OpenID Connect Core 5.3 (/userinfo), RFC 6750 3 (its refusals).
"""

import time
from collections.abc import Callable, Collection
from http import HTTPStatus
from pathlib import Path
from typing import cast

from authlib.oauth2 import OAuth2Error
from flask import Flask, Response, abort, g, jsonify, request
from werkzeug.exceptions import HTTPException

from sample_apis.authorization_server.authorize import RESPONSE_MODES, authorize_pages, page, running_server
from sample_apis.authorization_server.catalogue import OPENID_SCOPES, TOKEN_EXCHANGE, Catalogue
from sample_apis.authorization_server.grants import register_grants
from sample_apis.authorization_server.keys import KeyRing
from sample_apis.authorization_server.server import EVERY_CLIENT, IMPLICIT, SECRETS, Server
from sample_apis.authorization_server.store import Issued, Store
from sample_apis.authorization_server.token_status import Introspection, Revocation
from sample_apis.authorization_server.tokens import ID_TOKEN_ALGORITHM, Tokens

JWKS_MAX_AGE = 15  # seconds, as at the hosted service

# What the apps call from a browser. The SPA library sends the headers Auth0-Client and, if told to, DPoP.
CORS_PATHS = ("/oauth/", "/userinfo", "/api/v2/", "/.well-known/")
CORS_HEADERS = "Auth0-Client, Authorization, Content-Type, DPoP"
CORS_EXPOSED = "DPoP-Nonce, WWW-Authenticate"

NOTHING = "'none'"  # in a content security policy


def create_app(
    database: Path,
    catalogue: Catalogue,
    *,
    domains: Collection[str],
    implicit: bool = False,
    clock: Callable[[], float] = time.time,
) -> Flask:
    """Return the server, with its state in the file `database`.

    `domains` are the addresses that it is asked at, `http://localhost:9400/` first: each one is an issuer. With
    `implicit` the response type `id_token token` is answered, which is against today's advice (RFC 9700 2.1.2). `clock`
    returns seconds as `time.time` does.

    Raises:
        sqlite3.Error: the file cannot be opened or written.
    """
    store, keys = Store(database, clock), KeyRing(database)
    store.add_users(user.username for user in catalogue.users)
    for algorithm in {ID_TOKEN_ALGORITHM, *(api.algorithm for api in catalogue.apis)}:
        keys.signing_key(algorithm)  # so that it is published before anything is signed with it
    app = Flask(__name__, static_folder=None, template_folder="pages")
    app.extensions["authorization_server"] = server = Server(Tokens(catalogue, store, keys), implicit=implicit)
    register_grants(server)
    for endpoint in (Revocation, Introspection):
        server.register_endpoint(endpoint)
    app.register_blueprint(authorize_pages)
    app.register_error_handler(OAuth2Error, answer_oauth_error)
    app.register_error_handler(HTTPException, answer_http_exception)

    @app.before_request
    def refuse_other_names() -> None:
        # A name of somebody else that leads here (DNS rebinding) must not become an issuer.
        if request.host_url not in domains:
            abort(HTTPStatus.MISDIRECTED_REQUEST, f"Ask at {' or '.join(domains)}.")

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers.setdefault("Cache-Control", "no-store")
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "same-origin"  # not no-referrer: the forms need their Origin
        response.headers["Content-Security-Policy"] = content_security_policy()
        if request.path.startswith(CORS_PATHS):
            add_cors_headers(response, catalogue.origins)
        return response

    add_endpoints(app)
    return app


def add_endpoints(app: Flask) -> None:
    """Add every endpoint that is not for the eyes of a person."""
    for path in ("/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"):
        app.add_url_rule(path, "metadata", metadata)
    app.add_url_rule("/.well-known/jwks.json", view_func=jwks)
    app.add_url_rule("/oauth/token", view_func=token, methods=["POST"])
    app.add_url_rule("/oauth/revoke", "revocation", token_status, methods=["POST"])
    app.add_url_rule("/oauth/introspect", "introspection", token_status, methods=["POST"])
    app.add_url_rule("/userinfo", view_func=userinfo, methods=["GET", "POST"])
    app.add_url_rule("/api/v2/users/<subject>", view_func=read_user)
    app.add_url_rule("/", view_func=welcome)


def metadata() -> dict[str, object]:
    issuer, server = request.host_url, running_server()
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}authorize",
        "token_endpoint": f"{issuer}oauth/token",
        "revocation_endpoint": f"{issuer}oauth/revoke",
        "introspection_endpoint": f"{issuer}oauth/introspect",
        "userinfo_endpoint": f"{issuer}userinfo",
        "jwks_uri": f"{issuer}.well-known/jwks.json",
        "response_types_supported": server.response_types,
        "response_modes_supported": list(RESPONSE_MODES["code"]),
        "grant_types_supported": [
            "authorization_code",
            "refresh_token",
            "client_credentials",
            TOKEN_EXCHANGE,
            *(["implicit"] if IMPLICIT in server.response_types else []),
        ],
        "code_challenge_methods_supported": ["S256"],
        "scopes_supported": list(OPENID_SCOPES),
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [ID_TOKEN_ALGORITHM],
        "token_endpoint_auth_methods_supported": EVERY_CLIENT,
        "revocation_endpoint_auth_methods_supported": EVERY_CLIENT,
        "introspection_endpoint_auth_methods_supported": SECRETS,
        "claims_supported": ["sub", "name", "nickname", "email", "email_verified", "auth_time", "org_id", "org_name"],
    }


def jwks() -> Response:
    response = jsonify(running_server().tokens.keys.jwks())
    response.headers["Cache-Control"] = f"public, max-age={JWKS_MAX_AGE}"
    return response


def token() -> Response:
    return cast(Response, running_server().create_token_response())


def token_status() -> Response:
    """Answer the endpoint that the route is named after."""
    return cast(Response, running_server().create_endpoint_response(request.endpoint))  # type: ignore[no-untyped-call]


def userinfo() -> dict[str, object]:
    token = presented_token(f"{request.host_url}userinfo")
    user = running_server().catalogue.user(token.authorization.username)
    # The token's own scope: a refresh may have asked for less than the login was granted.
    return user.claims(token.members.get("scope", "")) if user else abort(HTTPStatus.NOT_FOUND)


def read_user(subject: str) -> dict[str, object]:
    """The management API: here it has one operation, a user's own entry."""
    token = presented_token(f"{request.host_url}api/v2/")
    if "read:current_user" not in token.members.get("scope", "").split() or token.members["sub"] != subject:
        refusal = {"error": "insufficient_scope", "error_description": "It takes read:current_user and the user's own."}
        abort(jsonify_refusal(refusal, HTTPStatus.FORBIDDEN))
    user = running_server().catalogue.user(token.authorization.username)
    return user.claims("profile email") | {"user_id": subject} if user else abort(HTTPStatus.NOT_FOUND)


def welcome() -> Response:
    return page("welcome.html", catalogue=running_server().catalogue)


def presented_token(audience: str) -> Issued:
    """Return the access token of the request, which must be for this audience. A JWT is looked up like any other."""
    field = request.authorization
    bearer = field.token if field and field.type == "bearer" else None
    token = running_server().store.find(bearer, ("access",)) if bearer else None
    if token is None or audience not in token.audiences:
        refusal = {"error": "invalid_token", "error_description": f"It takes a token for {audience}."}
        abort(jsonify_refusal(refusal if bearer else {}, HTTPStatus.UNAUTHORIZED))
    return token


def jsonify_refusal(members: dict[str, str], status: HTTPStatus) -> Response:
    response = jsonify(members)
    response.status_code = status
    response.headers["WWW-Authenticate"] = "Bearer " + ", ".join(f'{name}="{value}"' for name, value in members.items())
    return response


def content_security_policy() -> str:
    """Allow nothing but what the page brings along, and frames to nobody but the app that is answered."""
    own = f"'nonce-{g.nonce}'" if "nonce" in g else NOTHING
    policy = {
        "default-src": NOTHING,
        "base-uri": NOTHING,
        "style-src": own,
        "script-src": own,
        "form-action": g.get("form_action", NOTHING),
        "frame-ancestors": g.get("frame_ancestors", NOTHING),
    }
    return "; ".join(f"{name} {value}" for name, value in policy.items())


def add_cors_headers(response: Response, origins: Collection[str]) -> None:
    response.vary.add("Origin")
    origin = request.headers.get("Origin", "")
    if origin in origins:
        response.access_control_allow_origin = origin
        response.headers["Access-Control-Allow-Methods"] = "GET, POST"
        response.headers["Access-Control-Allow-Headers"] = CORS_HEADERS
        response.headers["Access-Control-Expose-Headers"] = CORS_EXPOSED


def answer_oauth_error(error: OAuth2Error) -> Response:
    return running_server().handle_error_response(None, error)


def answer_http_exception(error: HTTPException) -> Response:
    """Answer in words: as a page to people, as JSON to the apps, which read nothing else."""
    status, words = error.code or 500, error.description or ""
    if request.path.startswith(CORS_PATHS):
        kind = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request"
        response = jsonify({"error": kind, "error_description": words})
    else:
        response = page("error.html", words=words)
    response.status_code = status
    response.headers.extend((name, value) for name, value in error.get_headers() if name == "Allow")
    return response
