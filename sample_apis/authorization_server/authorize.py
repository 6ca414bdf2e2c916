"""/authorize and /v2/logout: the only endpoints that a person sees. Login, consent, and the answer to the app.

Which request may be granted at all is for `grants.py` to say. RFC 6749 4.1.1 and 4.1.2, OpenID Connect Core 3.1.2
(prompt, max_age), RFC 6819 4.4.1.9 and 5.1.4.1 (framing, forged forms).
"""

from collections.abc import Mapping
from secrets import token_urlsafe
from urllib.parse import urlencode

from authlib.common.urls import add_params_to_uri
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749 import AccessDeniedError, InvalidRequestError
from authlib.oidc.core.errors import ConsentRequiredError, LoginRequiredError
from flask import Blueprint, Response, current_app, g, make_response, redirect, render_template, request
from werkzeug.exceptions import BadRequest

from sample_apis.authorization_server.catalogue import OPENID_SCOPES, Api, Client, Organization, User, origin_of
from sample_apis.authorization_server.grants import CodeGrant, ImplicitTokenGrant
from sample_apis.authorization_server.server import IMPLICIT, Server, refused
from sample_apis.authorization_server.store import SESSION_LIFETIME, Session

# How the answer reaches the app, by response type; the first one is the default.
RESPONSE_MODES: Mapping[str, tuple[str, ...]] = {
    "code": ("query", "fragment", "web_message"),
    IMPLICIT: ("fragment", "web_message"),
}
LOGIN_AGAIN = frozenset({"login", "select_account"})

authorize_pages = Blueprint("authorize", __name__)


def running_server() -> Server:
    server: Server = current_app.extensions["authorization_server"]
    return server


@authorize_pages.route("/authorize", methods=["GET", "POST"])
def authorize() -> Response:
    """Answer the app, or show the page that has to come first. Its form is posted here, with the same query."""
    try:
        grant = running_server().get_consent_grant()  # type: ignore[no-untyped-call]
    except OAuth2Error as error:
        return _refuse(error, error.redirect_uri)
    try:
        if _response_mode() not in RESPONSE_MODES[grant.request.payload.response_type]:
            raise InvalidRequestError("This response_mode is not supported.")
        return _decide(grant, running_server())
    except OAuth2Error as error:
        return _refuse(error, grant.redirect_uri)


@authorize_pages.get("/v2/logout")
def logout() -> Response:
    """End the session, and go back to the app where that is allowed."""
    server = running_server()
    client_id, address = request.args.get("client_id"), request.args.get("returnTo")
    client = server.catalogue.client(client_id) if client_id else None
    allowed = client.addresses if client else () if client_id else server.catalogue.addresses
    if address and address not in allowed:
        return page("error.html", 400, words="The address to return to is not registered, so you are still logged in.")
    server.store.end_session(request.cookies.get(_cookie("session"), ""))
    response = redirect(address) if address else page("logout.html")
    response.delete_cookie(_cookie("session"))
    return response  # type: ignore[return-value]  # werkzeug's redirect makes one of Flask's


def _decide(grant: CodeGrant | ImplicitTokenGrant, server: Server) -> Response:
    client: Client = grant.client
    asked, store = request.args, server.store
    api = server.api(asked.get("audience"), request.host_url)
    organization = _organization(server)
    prompts = frozenset((asked.get("prompt") or "").split())
    silent = "none" in prompts
    if silent and len(prompts) > 1:
        raise InvalidRequestError("prompt=none stands alone.")
    session = store.session(request.cookies.get(_cookie("session"), ""))
    user = server.catalogue.user(session.username) if session else None
    if session is None or user is None or prompts & LOGIN_AGAIN or _is_too_old(session):
        if silent:
            raise LoginRequiredError
        return _log_in(server, grant)
    if organization and user.username not in organization.members:
        raise refused("The user does not belong to this organization.")
    scope = server.tokens.granted(asked.get("scope", ""), api, user)
    unconsented = server.tokens.unconsented(scope.split(), api, user, client.client_id)
    action = _submitted_action()
    if action == "decline":
        raise AccessDeniedError(f"The user did not allow {client.name} to have this access.")
    if action == "accept":
        store.add_consents(user.username, client.client_id, unconsented)
    elif unconsented or "consent" in prompts:
        if silent:
            raise ConsentRequiredError
        return _ask_consent(grant, api, user, scope)
    authorization = store.begin(
        issuer=request.host_url,
        client_id=client.client_id,
        subject=user.subject,
        audience=api.identifier,
        scope=scope,
        username=user.username,
        organization=organization.id if organization else None,
        auth_time=session.auth_time,
    )
    return _respond(grant.redirect_uri, grant.parameters_for(authorization))


def _organization(server: Server) -> Organization | None:
    asked = request.args.get("organization")
    organization = server.catalogue.organization(asked) if asked else None
    if asked and organization is None:
        raise InvalidRequestError("There is no such organization.")
    return organization


def _is_too_old(session: Session) -> bool:
    max_age = request.args.get("max_age") or None
    if max_age is None:
        return False
    if not (max_age.isascii() and max_age.isdigit()):
        raise InvalidRequestError("max_age is a whole number of seconds.")
    return running_server().store.now - session.auth_time > int(max_age[:9])


# Pages and what is posted from them.


def _log_in(server: Server, grant: CodeGrant | ImplicitTokenGrant) -> Response:
    username = request.form.get("username") or request.args.get("login_hint", "")
    wrong = False
    if _submitted_action() == "login":
        if server.store.knows_password(username, request.form.get("password", "")):
            return _logged_in(server, username)
        wrong = True
    return _form(grant, "login.html", 400 if wrong else 200, username=username, wrong=wrong)


def _logged_in(server: Server, username: str) -> Response:
    """Begin a new session, and ask again what was asked, without what this login has already answered."""
    server.store.end_session(request.cookies.get(_cookie("session"), ""))
    query = [(name, value) for name, value in request.args.items(multi=True) if name != "max_age"]
    query = [
        (name, " ".join(one for one in value.split() if one not in LOGIN_AGAIN) if name == "prompt" else value)
        for name, value in query
    ]
    response = make_response(redirect(f"{request.path}?{urlencode(query)}", 303))
    secret = server.store.open_session(username)
    response.set_cookie(_cookie("session"), secret, max_age=SESSION_LIFETIME, httponly=True, samesite="Lax")
    response.delete_cookie(_cookie("form"))  # a form of the user before is worth nothing to this one
    return response


def _ask_consent(grant: CodeGrant | ImplicitTokenGrant, api: Api, user: User, scope: str) -> Response:
    words = [(one, api.scopes.get(one) or OPENID_SCOPES[one]) for one in scope.split()]
    return _form(grant, "consent.html", api=api, user=user, words=words, client=grant.client)


def _form(grant: CodeGrant | ImplicitTokenGrant, template: str, status: int = 200, **context: object) -> Response:
    secret = request.cookies.get(_cookie("form")) or token_urlsafe()
    # The app's origin, because browsers apply form-action to the redirect that follows a form, too.
    g.form_action = f"'self' {origin_of(grant.redirect_uri)}"
    response = page(template, status, form_secret=secret, **context)
    response.set_cookie(_cookie("form"), secret, httponly=True, samesite="Lax")
    return response


def _submitted_action() -> str | None:
    """Return which button was pressed, once it is sure that it was on a page of ours.

    Raises:
        BadRequest: the form comes from elsewhere, or is from before the last login.
    """
    if request.method != "POST":
        return None
    secret = request.cookies.get(_cookie("form"))
    # All ports of a host share their cookies, so the secret alone would not keep another local app out.
    ours = request.headers.get("Origin", request.host_url.rstrip("/")) == request.host_url.rstrip("/")
    if not secret or request.form.get("form_secret") != secret or not ours:
        raise BadRequest(
            "This page was open for too long, or was not sent from here. Go back to the app and try again."
        )
    return request.form.get("action")


def _cookie(purpose: str) -> str:
    # Named after the port, because another server on this host would see and overwrite the same cookies.
    return f"authorization_server_{request.host.rpartition(':')[2]}_{purpose}"


# Answers to the app.


def _response_mode() -> str:
    response_type = " ".join(sorted((request.args.get("response_type") or "").split()))
    return request.args.get("response_mode") or RESPONSE_MODES.get(response_type, ("query",))[0]


def _refuse(error: OAuth2Error, redirect_uri: str | None) -> Response:
    """Send an error to the app, or show it where no app can be trusted with it (RFC 6749 4.1.2.1)."""
    if redirect_uri is None:
        return page("error.html", 400, words=error.get_error_description())
    members = {"error": error.error, "error_description": error.get_error_description()}
    return _respond(redirect_uri, {name: value for name, value in members.items() if value})


def _respond(redirect_uri: str, parameters: Mapping[str, object]) -> Response:
    if "state" in request.args:
        parameters = {**parameters, "state": request.args["state"]}
    mode = _response_mode()
    if mode == "web_message":
        origin = origin_of(redirect_uri)
        g.frame_ancestors = origin
        message = {"type": "authorization_response", "response": parameters}
        return page("web_message.html", message=message, origin=origin)
    pairs = [(name, str(value)) for name, value in parameters.items()]
    return make_response(redirect(add_params_to_uri(redirect_uri, pairs, fragment=mode == "fragment")))


def page(template: str, status: int = 200, **context: object) -> Response:
    """Render a page. Its style and script carry a nonce, which `app.py` allows in the policy for the page."""
    g.nonce = token_urlsafe(16)
    return make_response(render_template(template, nonce=g.nonce, **context), status)
