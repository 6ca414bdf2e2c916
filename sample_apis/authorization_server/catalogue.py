"""Who is registered: APIs, clients, users and organizations. Plainly fake, and the same for everybody.

Knows no HTTP and keeps no state. RFC 6749 2 (clients), 3.1.2 (redirect addresses), RFC 8693 (who may exchange).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hmac import compare_digest
from urllib.parse import urlsplit

from authlib.oauth2.rfc6749 import ClientMixin

from sample_apis.organizer import AUDIENCE, SCOPES

REPORTS_AUDIENCE = "https://reports.example/"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
DEFAULT_LIFETIME = 86_400  # seconds: what the hosted service gives to an access token

# The secret that an API which signs with HS256 shares with this server.
HS256_SECRET = "plainly fake, for development only, no secret at all"

# The scopes of OpenID Connect, which belong to no API, in words.
OPENID_SCOPES: Mapping[str, str] = {
    "openid": "Know that it is you",
    "profile": "See your name",
    "email": "See your e-mail address",
    "offline_access": "Stay allowed while you are away",
}

# Where the sample apps are (web, web_backend), and the app of the hosted service's documentation.
SAMPLE_ADDRESSES = ("http://localhost:8080", "http://localhost:8090", "http://localhost:3000")


@dataclass(frozen=True, kw_only=True)
class Api:
    """A resource server and how its access tokens look. `scopes` are told in words; `lifetime` is in seconds.

    With `role_based` a user is granted no more than their permissions, and the token lists those. Without
    `asks_consent` every client here counts as the owner's own, so that a second audience needs no click.
    """

    identifier: str
    name: str
    scopes: Mapping[str, str]
    algorithm: str = "RS256"
    dialect: str = "plain"
    lifetime: int = DEFAULT_LIFETIME
    role_based: bool = True
    asks_consent: bool = True


@dataclass(frozen=True, kw_only=True)
class ClientGrant:
    """What a client may ask for in its own name, and for which organizations."""

    audience: str
    scopes: frozenset[str]
    organizations: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class ExchangePairing:
    """A client may exchange tokens for the API `source` for tokens for `audience` with at most these scopes."""

    source: str
    audience: str
    scopes: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Client(ClientMixin):
    """A client. One without a secret is public (RFC 6749 2.1). Addresses are compared as they are, never by prefix."""

    client_id: str
    name: str
    grant_types: frozenset[str]
    secret: str | None = field(default=None, repr=False)
    addresses: tuple[str, ...] = ()  # where it may be redirected to, after a login and after a logout
    grants: tuple[ClientGrant, ...] = ()
    pairings: tuple[ExchangePairing, ...] = ()

    def get_default_redirect_uri(self) -> str:
        return self.addresses[0] if self.addresses else ""

    def get_allowed_scope(self, scope: object) -> str:
        return str(scope or "")  # what the user and the API allow is decided where both are known

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri in self.addresses

    def check_client_secret(self, client_secret: str) -> bool:
        return self.secret is not None and compare_digest(self.secret.encode(), client_secret.encode())

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return (method == "none") == (self.secret is None)

    def check_response_type(self, response_type: str) -> bool:
        return bool(self.addresses)

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in self.grant_types


@dataclass(frozen=True, kw_only=True)
class User:
    """A user, whose password is the username. `permissions` are theirs at each API, by its identifier."""

    username: str
    name: str
    permissions: Mapping[str, frozenset[str]]

    @property
    def subject(self) -> str:
        return f"auth0|{self.username}"

    def claims(self, scope: str) -> dict[str, object]:
        """Return what the scope lets a client know about the user (OpenID Connect Core 5.4)."""
        claims: dict[str, object] = {"sub": self.subject}
        if "profile" in scope.split():
            claims |= {"name": self.name, "nickname": self.username}
        if "email" in scope.split():
            claims |= {"email": f"{self.username}@example.com", "email_verified": True}
        return claims


@dataclass(frozen=True, kw_only=True)
class Organization:
    """A customer. `members` are usernames."""

    id: str
    name: str
    members: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """Everything that is registered. `default_audience` is the tenant's: the API of requests that name none."""

    apis: tuple[Api, ...]
    clients: tuple[Client, ...]
    users: tuple[User, ...]
    organizations: tuple[Organization, ...]
    default_audience: str | None = AUDIENCE

    def api(self, audience: str | None, issuer: str) -> Api | None:
        """Return the API that a request at this issuer means, or None. Without any audience it is /userinfo alone."""
        audience = audience or self.default_audience or f"{issuer}userinfo"
        return next((api for api in (*self.apis, *_apis_of_the_issuer(issuer)) if api.identifier == audience), None)

    def client(self, client_id: str) -> Client | None:
        return next((client for client in self.clients if client.client_id == client_id), None)

    def user(self, username: str | None) -> User | None:
        return next((user for user in self.users if user.username == username), None)

    def organization(self, id_or_name: str) -> Organization | None:
        """Return the organization with this ID, or with this name in any case."""
        wanted = (id_or_name, id_or_name.lower())
        return next((one for one in self.organizations if one.id == wanted[0] or one.name == wanted[1]), None)

    @property
    def addresses(self) -> frozenset[str]:
        """Every address that some client may be redirected to."""
        return frozenset(address for client in self.clients for address in client.addresses)

    @property
    def origins(self) -> frozenset[str]:
        """The origins of the apps, which may call this server from a browser."""
        return frozenset(origin_of(address) for address in self.addresses)


def origin_of(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"


def _apis_of_the_issuer(issuer: str) -> tuple[Api, Api]:
    # Both are named by the domain that was asked, so their tokens are good at the domain that issued them alone.
    management = Api(
        identifier=f"{issuer}api/v2/",
        name="Management API",
        scopes={"read:current_user": "See your own entry in the list of users"},
        role_based=False,
    )
    return management, Api(
        identifier=f"{issuer}userinfo", name="User information", scopes={}, dialect="opaque", role_based=False
    )


def _redirect_addresses(addresses: Sequence[str]) -> tuple[str, ...]:
    """Return the forms in which the SPA library and others name the address of an app to return to."""
    bases = [address.rstrip("/") for address in addresses]
    return tuple(dict.fromkeys(base + end for base in bases for end in ("", "/", "/callback", "/callback.html")))


def sample_catalogue(spa_addresses: Sequence[str] = ()) -> Catalogue:
    """Return what is registered for the samples. Further apps at `spa_addresses` may log in, too; the first is the
    one that is redirected to where a request names no address."""
    addresses = _redirect_addresses((*spa_addresses, *SAMPLE_ADDRESSES))
    apis = (
        Api(identifier=AUDIENCE, name="Organizer", scopes=SCOPES),
        Api(
            identifier=REPORTS_AUDIENCE,
            name="Reports",
            scopes={"read:reports": "Read your weekly report"},
            asks_consent=False,
        ),
    )
    reading = frozenset({"read:contacts", "read:calendar"})
    clients = (
        Client(
            client_id="organizer-spa",
            name="Organizer app",
            grant_types=frozenset({"authorization_code", "refresh_token"}),
            addresses=addresses,
        ),
        Client(
            client_id="organizer-web",
            name="Organizer web app",
            grant_types=frozenset({"authorization_code", "refresh_token"}),
            secret="organizer-web-secret",
            addresses=addresses,
        ),
        Client(
            client_id="organizer-machine",
            name="Organizer's nightly job",
            grant_types=frozenset({"client_credentials"}),
            secret="organizer-machine-secret",
            grants=(ClientGrant(audience=AUDIENCE, scopes=reading, organizations=frozenset({"org_northwind"})),),
        ),
        Client(
            client_id="reports-api",
            name="Reports",
            grant_types=frozenset({TOKEN_EXCHANGE}),
            secret="reports-api-secret",
            pairings=(ExchangePairing(source=REPORTS_AUDIENCE, audience=AUDIENCE, scopes=reading),),
        ),
    )
    everything = {api.identifier: frozenset(api.scopes) for api in apis}
    users = tuple(User(username=name, name=name.title(), permissions=everything) for name in ("alice", "bob"))
    organizations = (
        Organization(id="org_northwind", name="northwind", members=frozenset({"alice", "bob"})),
        Organization(id="org_southwind", name="southwind", members=frozenset({"bob"})),
    )
    return Catalogue(apis=apis, clients=clients, users=users, organizations=organizations)
