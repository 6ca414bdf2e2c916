"""Token exchange and client credentials: build the request, judge the answer. Pure.

RFC 6749 2.3.1, 4.4 and 5; RFC 7523 2.2 (`private_key_jwt`); RFC 8693 2; the on-behalf-of flow of Entra ID, which uses
the JWT bearer grant. Sends nothing, and knows nothing about caches or frameworks.
"""

import re
import secrets
from base64 import b64encode
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote_plus, urlsplit

from .access_token import AccessToken
from .errors import ConfigurationError, ExchangeRefused, Reason, TemporarilyUnavailable, shown
from .issuer import string_set
from .scopes import check_scope_name

ACCESS_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
CLIENT_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

ASSERTION_LIFETIME = 60  # seconds; RFC 7523 3 asks for short
DEFAULT_EXPIRES_IN = 300.0  # seconds, where an answer says nothing (RFC 6749 5.1 leaves it open)

Authentication = Literal["basic", "post", "private_key_jwt"]
Flow = Literal["rfc8693", "entra"]

Form = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Client:
    """This API as a client of its authorization server.

    Raises:
        ConfigurationError: no authentication, or two; a key that does not fit its algorithm.
    """

    client_id: str
    secret: str | None = field(default=None, repr=False)
    private_key: str | bytes | None = field(default=None, repr=False)
    algorithm: str = "RS256"
    key_id: str | None = None
    authentication: Authentication | None = None

    def __post_init__(self) -> None:
        if not self.client_id:
            raise ConfigurationError("client_id must not be empty")
        if bool(self.secret) == bool(self.private_key):
            raise ConfigurationError(f"client {self.client_id!r} needs either a client_secret or a private_key")
        allowed = ("basic", "post") if self.secret else ("private_key_jwt",)
        chosen = self.authentication or allowed[0]
        if chosen not in allowed:
            raise ConfigurationError(f"client_authentication must be one of {', '.join(allowed)}, not {chosen!r}")
        object.__setattr__(self, "authentication", chosen)
        if self.private_key:
            self._check_key()

    def authenticate(self, issuer: str, now: float) -> tuple[Form, dict[str, str]]:
        """Return the form fields and the headers that authenticate this client. One method, never two."""
        if self.authentication == "basic":
            # RFC 6749 2.3.1: id and secret are form-encoded before they are joined.
            pair = f"{quote_plus(self.client_id)}:{quote_plus(self.secret or '')}"
            return (), {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}
        client_id = ("client_id", self.client_id)
        if self.authentication == "post":
            return (client_id, ("client_secret", self.secret or "")), {}
        assertion = ("client_assertion", self._assertion(issuer, now))
        return (client_id, ("client_assertion_type", CLIENT_ASSERTION_TYPE), assertion), {}

    def _check_key(self) -> None:
        if self.algorithm.startswith("HS") or self.algorithm == "none":
            raise ConfigurationError("private_key_jwt needs an asymmetric algorithm, such as RS256 or ES256")
        try:
            self._assertion("", 0)
        except Exception as error:  # noqa: BLE001  # what it raises depends on the kind of key
            raise ConfigurationError(
                f"private_key cannot sign with {self.algorithm} ({type(error).__name__}): give a private key in PEM"
                " form, and the algorithm that it is for"
            ) from None

    def _assertion(self, issuer: str, now: float) -> str:
        import jwt

        header = {"typ": "client-authentication+jwt"} | ({"kid": self.key_id} if self.key_id else {})
        claims = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": issuer,  # the issuer and nothing else: an endpoint's address could be another server's
            "iat": int(now),
            "exp": int(now) + ASSERTION_LIFETIME,
            "jti": secrets.token_urlsafe(16),
        }
        return jwt.encode(claims, self.private_key or "", algorithm=self.algorithm, headers=header)


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a token is asked for: the API, and the least scopes. One text may stand for a collection of one.

    Raises:
        ConfigurationError: no target at all, or one that is malformed.
    """

    audience: str | None = None
    resource: str | Collection[str] = ()
    scopes: str | Collection[str] = ()

    def __post_init__(self) -> None:
        if not self.audience and not self.resource and not self.scopes:
            raise ConfigurationError("say for which API the token is: audience=, resource= or scopes=")
        for name, check in (("resource", _check_resource), ("scopes", check_scope_name)):
            values = getattr(self, name)
            members = string_set(name, values) if values else ()
            object.__setattr__(self, name, tuple(check(member) for member in members))

    def fields(self) -> Form:
        """Return the form fields. Several resources are repeated fields (RFC 8707 2)."""
        audience = [("audience", self.audience)] if self.audience else []
        scope = [("scope", " ".join(self.scopes))] if self.scopes else []
        return (*audience, *(("resource", resource) for resource in self.resource), *scope)


def _check_resource(resource: str) -> str:
    try:
        parts = urlsplit(resource)
    except ValueError:
        parts = urlsplit("")
    if not parts.scheme or "#" in resource:  # RFC 8707 2
        raise ConfigurationError(f"resource {resource!r} must be an absolute URI without a fragment")
    return resource


def client_credentials_form(wanted: Target) -> Form:
    """Return the request for a token of the client's own (RFC 6749 4.4.2)."""
    return (("grant_type", "client_credentials"), *wanted.fields())


def exchange_form(raw_token: str, wanted: Target, flow: Flow) -> Form:
    """Return the request that exchanges a subject token (RFC 8693 2.1), or Entra ID's form of it."""
    if flow == "entra":
        return (
            ("grant_type", JWT_BEARER),
            ("assertion", raw_token),
            ("requested_token_use", "on_behalf_of"),
            *wanted.fields(),
        )
    return (
        ("grant_type", TOKEN_EXCHANGE),
        ("subject_token", raw_token),
        ("subject_token_type", ACCESS_TOKEN_TYPE),
        ("requested_token_type", ACCESS_TOKEN_TYPE),
        *wanted.fields(),
    )


@dataclass(frozen=True)
class GrantedToken:
    """A token for another API. `expires_at` is in seconds since the epoch; `lacks` are scopes asked for in vain."""

    raw_token: str = field(repr=False)
    expires_at: float
    lacks: tuple[str, ...] = ()


def read_answer(status: int, document: object, asked: Form, now: float) -> GrantedToken:
    """Return the token of a token endpoint's answer to the form `asked`, after every check of its form.

    Does NOT look into the token: it is meant for another API.

    Raises:
        ExchangeRefused: the authorization server said no, or answered with something that is no bearer token.
        TemporarilyUnavailable: the answer is no JSON object.
    """
    if not isinstance(document, Mapping):
        raise unavailable(f"the token endpoint answered {status} without a JSON object")
    if status != 200:
        raise _refused(status, document)
    raw_token, token_type = document.get("access_token"), document.get("token_type")
    if not isinstance(raw_token, str) or not _BEARER_TOKEN.fullmatch(raw_token):
        raise ExchangeRefused("invalid_answer", "the answer holds no access_token")
    if raw_token in dict(asked).values():
        raise ExchangeRefused("invalid_answer", "the subject token came back, and it is meant for this API alone")
    if not isinstance(token_type, str) or token_type.lower() != "bearer":  # RFC 6749 7.1; N_A is none, either
        raise ExchangeRefused("invalid_answer", f"token_type is {shown(token_type)}, not Bearer")
    issued = document.get("issued_token_type")
    if ("grant_type", TOKEN_EXCHANGE) in asked and issued not in _USABLE_TYPES:  # RFC 8693 2.2.1
        raise ExchangeRefused("invalid_answer", f"issued_token_type is {shown(issued)}")
    return GrantedToken(raw_token, now + _lifetime(document), _lacks(document, asked))


_BEARER_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750 2.1
_USABLE_TYPES = (ACCESS_TOKEN_TYPE, "urn:ietf:params:oauth:token-type:jwt")


def _lifetime(document: Mapping[str, Any]) -> float:
    """Return the seconds that the token may be kept. What cannot be read makes no eternal token."""
    seconds = document.get("expires_in", DEFAULT_EXPIRES_IN)
    if isinstance(seconds, str) and seconds.isascii() and seconds.isdigit() and len(seconds) < 10:
        seconds = int(seconds)  # seen in the field, against RFC 6749 5.1
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < 1e9:
        raise ExchangeRefused("invalid_answer", f"expires_in is {shown(seconds)}")
    return float(seconds)


def _lacks(document: Mapping[str, Any], asked: Form) -> tuple[str, ...]:
    """Return the scopes that were asked for and not granted; an answer that names none granted all (RFC 6749 5.1)."""
    wanted = dict(asked).get("scope", "").split()
    granted = document.get("scope")
    return tuple(scope for scope in wanted if scope not in granted.split()) if isinstance(granted, str) else ()


def _refused(status: int, document: Mapping[str, Any]) -> ExchangeRefused:
    error, description, claims = (document.get(name) for name in ("error", "error_description", "claims"))
    return ExchangeRefused(
        error if isinstance(error, str) else f"http_{status}",
        description if isinstance(description, str) else "",
        claims=claims if isinstance(claims, str) else None,
    )


def unavailable(detail: str, retry_after: float = 1) -> TemporarilyUnavailable:
    """Return the outcome of a request for a token that nobody could decide about."""
    return TemporarilyUnavailable(Reason.TOKEN_UNAVAILABLE, detail=detail, retry_after=retry_after)


def check_subject(token: AccessToken, flow: Flow, allowed_actors: Collection[str] | None, max_actors: int) -> None:
    """Refuse to act for a token that is not fit for it. Does NOT check whom it was issued for.

    `allowed_actors` may be acting for the user now (RFC 8693 4.1: the outermost alone counts), and at most `max_actors`
    stand one behind another.

    Raises:
        ExchangeRefused: `invalid_grant`.
    """
    if flow == "entra" and (token.is_client or "scp" not in token.claims):
        raise ExchangeRefused("invalid_grant", "an application's own token cannot be used on behalf of a user")
    actors, actor = 0, token.actor
    is_known = actor is None or (actor.subject in (allowed_actors or ()) and actor.issuer in (None, token.issuer))
    if allowed_actors is not None and not is_known:
        raise ExchangeRefused("invalid_grant", "who acts for the user now may not cause another exchange")
    while actor is not None:
        actors, actor = actors + 1, actor.actor
    if actors > max_actors:
        raise ExchangeRefused("invalid_grant", f"{actors} parties act for the user already")
