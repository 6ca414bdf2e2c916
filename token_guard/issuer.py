"""Issuer: whom we trust and how its tokens look, with presets for hosted services.

Knows nothing about fetching keys or judging tokens. RFC 8414 2 for the form of an issuer; RFC 8725 3.1 and 3.8 for
algorithms and keys that belong to one issuer.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypedDict, TypeGuard, Unpack

from .addresses import check_https
from .algorithms import ALGORITHMS, DEFAULT_SECRET_ALGORITHMS, check_algorithms
from .errors import ConfigurationError

Profile = Literal["generic", "rfc9068"]
PROFILES: tuple[Profile, ...] = ("generic", "rfc9068")

ClaimPath = tuple[str, ...]  # the names of the objects on the way to a claim, and its own
DEFAULT_ROLE_CLAIMS: tuple[ClaimPath, ...] = (("roles",),)

ENTRA_HOST = "login.microsoftonline.com"
TENANT = "{tenantid}"  # the placeholder, as Entra ID writes it into its own metadata and keys
ANY_TENANT: Literal["any"] = "any"
Tenants = frozenset[str] | Literal["any"]

KEY_SOURCES = ("jwks", "jwks_uri", "metadata_url", "secret")
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")  # as issuers write it
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._~-]*")  # RFC 3986 2.3: what a URL holds as it is
_HOST = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+(:[0-9]+)?")
# Where version 1 tokens of a national cloud come from, by where its users log in; elsewhere it is sts.windows.net.
_VERSION_1_HOSTS = {
    "login.partner.microsoftonline.cn": "sts.chinacloudapi.cn",
    "login.chinacloudapi.cn": "sts.chinacloudapi.cn",
}


class IssuerOptions(TypedDict, total=False):
    """What a preset takes besides its own arguments: the same as in `Issuer`."""

    jwks: Mapping[str, Any]
    jwks_uri: str
    metadata_url: str
    algorithms: Collection[str]
    profile: Profile
    secret: str | bytes
    scope_claims: Collection[str]
    role_claims: Collection[str | ClaimPath]
    audience: str | Collection[str]
    organizations: Collection[str]


# What stands in the files of keys: PEM, a JWK, OpenSSH.
_MARKS_OF_KEY_FILES = (b"-----BEGIN", b'"kty"', b"ssh-rsa ", b"ssh-ed25519 ", b"ecdsa-sha2-")


@dataclass(frozen=True)
class Issuer:
    """An authorization server whose tokens are accepted. What is None is taken from the ResourceServer.

    `url` is compared exactly with `iss`, trailing slash included. Keys come from `jwks` (given), `jwks_uri`,
    `metadata_url`, or discovery; or from `secret`, the only way to HS256. `organizations` are the accepted `org_id`s.

    `tenants` are the accepted `tid`s; "any" is every GUID. A `url` that holds `{tenantid}` stands for one issuer a
    tenant. With `jwks_uri` or `metadata_url`, a document that names the template, one key set serves all of them, and a
    key that names an `issuer` of its own signs for that one alone.

    `client_ids` is for tokens without `aud`: `client_id` must be one of them, and `token_use` must be there; an `aud`
    is judged where there is one. `role_claims` says where roles are: a name is taken literally, a tuple is a path.

    Raises:
        ConfigurationError: a setting is malformed or contradicts another.
    """

    url: str
    jwks: Mapping[str, Any] | None = field(default=None, kw_only=True, repr=False)
    jwks_uri: str | None = field(default=None, kw_only=True)
    metadata_url: str | None = field(default=None, kw_only=True)
    algorithms: Collection[str] | None = field(default=None, kw_only=True)
    profile: Profile | None = field(default=None, kw_only=True)
    secret: str | bytes | None = field(default=None, kw_only=True, repr=False)
    scope_claims: Collection[str] | None = field(default=None, kw_only=True)
    audience: str | Collection[str] | None = field(default=None, kw_only=True)
    organizations: Collection[str] | None = field(default=None, kw_only=True)
    tenants: Collection[str] | Literal["any"] | None = field(default=None, kw_only=True)
    client_ids: Collection[str] | None = field(default=None, kw_only=True)
    role_claims: Collection[str | ClaimPath] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_https("issuer", self.url)
        if "?" in self.url or "#" in self.url:
            raise ConfigurationError(f"issuer {self.url!r} must have no query and no fragment (RFC 8414 2)")
        if "/.well-known/" in self.url:
            raise ConfigurationError(
                f"issuer {self.url!r} is the address of a document: give the part before /.well-known/"
            )
        sources = [name for name in KEY_SOURCES if getattr(self, name) is not None]
        if len(sources) > 1:
            raise ConfigurationError(f"issuer {self.url!r}: {' and '.join(sources)} contradict each other; keep one")
        if isinstance(self.jwks, Mapping):
            self._set("jwks", _copied(self.jwks))  # what is changed afterwards is not what was configured
        self._check_tenants(has_key_source=bool(sources))
        for name in ("jwks_uri", "metadata_url"):
            if getattr(self, name) is not None:
                check_https(name, getattr(self, name))
        if self.profile not in (None, *PROFILES):
            raise ConfigurationError(f"profile must be one of {', '.join(PROFILES)}, not {self.profile!r}")
        if self.scope_claims is not None:
            self._set("scope_claims", _claim_names("scope_claims", self.scope_claims))
        if self.role_claims is not None:
            self._set("role_claims", claim_paths("role_claims", self.role_claims))
        for name in ("audience", "organizations", "client_ids"):
            if getattr(self, name) is not None:
                self._set(name, frozenset(string_set(name, getattr(self, name))))
        if self.client_ids is not None and self.profile == "rfc9068":
            raise ConfigurationError(
                f"issuer {self.url!r}: client_ids is for tokens without aud, which profile='rfc9068' demands; keep one"
            )
        if self.secret is not None:
            self._check_secret(self.secret.encode() if isinstance(self.secret, str) else self.secret)
        elif self.algorithms is not None:
            self._set("algorithms", check_algorithms(self.algorithms, secret=False))

    @classmethod
    def auth0(cls, domain: str, **options: Unpack[IssuerOptions]) -> Self:
        """Return an Auth0 tenant by its domain, or by a custom one: `northwind.eu.auth0.com`.

        Tokens name the domain at which they were asked for: trust each by an issuer of its own.

        Raises:
            ConfigurationError: as `Issuer`.
        """
        return cls(f"https://{_host('domain', domain, 'northwind.eu.auth0.com')}/", **options)

    @classmethod
    def okta(cls, domain: str, authorization_server: str = "default", **options: Unpack[IssuerOptions]) -> Self:
        """Return a custom authorization server of an Okta organization: `northwind.okta.com`.

        The tokens of the organization's own server are for Okta itself and not for an API.

        Raises:
            ConfigurationError: as `Issuer`.
        """
        host = _host("domain", domain, "northwind.okta.com")
        return cls(f"https://{host}/oauth2/{_name('authorization_server', authorization_server)}", **options)

    @classmethod
    def keycloak(
        cls, base_url: str, realm: str, client_id: str | None = None, **options: Unpack[IssuerOptions]
    ) -> Self:
        """Return a realm of the Keycloak at `base_url`: `https://login.northwind.example`.

        Roles are those of the realm, or of the client `client_id` where it is given; never both. Keycloak writes an API
        into `aud` only where an audience mapper says so.

        Raises:
            ConfigurationError: as `Issuer`.
        """
        check_https("base_url", base_url)
        if "/realms/" in base_url:
            raise ConfigurationError(f"base_url {base_url!r} holds a realm: give the part before /realms/")
        if client_id is not None and (not isinstance(client_id, str) or not client_id):
            raise ConfigurationError(f"client_id must be the id of one client, not {client_id!r}")
        path = ("realm_access", "roles") if client_id is None else ("resource_access", client_id, "roles")
        options.setdefault("role_claims", (path,))
        return cls(f"{base_url.removesuffix('/')}/realms/{_name('realm', realm)}", **options)

    @classmethod
    def cognito(
        cls, region: str, user_pool_id: str, *, client_ids: Collection[str], **options: Unpack[IssuerOptions]
    ) -> Self:
        """Return an Amazon Cognito user pool, whose access tokens name their client and no audience.

        A token of every client in `client_ids` is accepted, whatever API it was asked for; scopes tell APIs apart.
        Roles are the user's groups.

        Raises:
            ConfigurationError: as `Issuer`.
        """
        if not _name("user_pool_id", user_pool_id).startswith(f"{_name('region', region)}_"):
            raise ConfigurationError(f"user_pool_id {user_pool_id!r} is not of region {region!r}")
        options.setdefault("role_claims", ("cognito:groups",))
        url = f"https://cognito-idp.{region}.amazonaws.com/{user_pool_id}"
        return cls(url, client_ids=client_ids, **options)

    @classmethod
    def entra(
        cls,
        tenant_id: str | None = None,
        *,
        tenants: Collection[str] | Literal["any"] | None = None,
        version: Literal[1, 2] = 2,
        domain: str = ENTRA_HOST,
        policy: str | None = None,
        **options: Unpack[IssuerOptions],
    ) -> Self:
        """Return Microsoft Entra ID for one tenant, for several (`tenants`) or for "any".

        `version` is that of the tokens, which the API's own registration decides (`requestedAccessTokenVersion`; 1
        where it is null), not the address at which they are asked for. `domain` is where users log in: that of a
        national cloud, or with `policy`, a user flow, that of an Azure AD B2C tenant: `northwind.b2clogin.com`.

        Raises:
            ConfigurationError: as `Issuer`.
        """
        host = _host("domain", domain, ENTRA_HOST)
        if (tenant_id is None) == (tenants is None):
            raise ConfigurationError("entra() needs tenant_id, or tenants: a collection of ids or 'any'; not both")
        if version not in (1, 2):
            raise ConfigurationError(f"version must be 1 or 2, that of the access tokens, not {version!r}")
        tenant, place = TENANT, "common"
        if tenant_id is not None:
            tenant = place = _guid("tenant_id", tenant_id)
            tenants = (tenant,)
        elif tenants != ANY_TENANT:
            tenants = tuple(_guid("tenants", one) for one in string_set("tenants", tenants))
        if policy is not None:
            if tenant_id is None or version != 2 or host == ENTRA_HOST:
                raise ConfigurationError(
                    "policy is for Azure AD B2C: it goes with tenant_id and domain='northwind.b2clogin.com', and not"
                    " with version=1"
                )
            issuer, place = f"https://{host}/{tenant}/v2.0/", f"{place}/{_name('policy', policy)}/v2.0"
            tenants = None  # the tokens of B2C have no tid
        elif version == 1:
            issuer = f"https://{_VERSION_1_HOSTS.get(host, 'sts.windows.net')}/{tenant}/"
        else:
            issuer, place = f"https://{host}/{tenant}/v2.0", f"{place}/v2.0"
        if options.keys().isdisjoint(KEY_SOURCES):
            options["metadata_url"] = f"https://{host}/{place}/.well-known/openid-configuration"
        return cls(issuer, tenants=tenants, **options)

    @property
    def has_given_keys(self) -> bool:
        """Whether the keys came with the configuration, so that nothing is ever fetched."""
        return self.jwks is not None or self.secret is not None

    def _check_tenants(self, *, has_key_source: bool) -> None:
        is_template = TENANT in self.url
        if "{" in self.url.replace(TENANT, ""):
            raise ConfigurationError(f"issuer {self.url!r}: the one placeholder that it may hold is {TENANT}")
        if is_template and self.tenants is None:
            raise ConfigurationError(f"issuer {self.url!r} needs tenants: the ids of those that are accepted, or 'any'")
        if self.tenants == ANY_TENANT and not (is_template and has_key_source):
            raise ConfigurationError(
                f"issuer {self.url!r}: tenants='any' needs {TENANT} in the URL, and jwks_uri or metadata_url: where the"
                " keys are that serve all tenants"
            )
        if self.tenants is not None and self.tenants != ANY_TENANT:
            tenants = tuple(string_set("tenants", self.tenants))
            self._set("tenants", tuple(_name("tenants", tenant) for tenant in tenants))

    def _check_secret(self, secret: bytes) -> None:
        # RFC 8725 2.1: a public key is no secret
        if not isinstance(secret, bytes) or any(mark in secret for mark in _MARKS_OF_KEY_FILES):
            raise ConfigurationError(
                f"issuer {self.url!r}: secret must be random text or bytes, not a key file; public keys are given as"
                " jwks=, or fetched"
            )
        names = check_algorithms(DEFAULT_SECRET_ALGORITHMS if self.algorithms is None else self.algorithms, secret=True)
        for name in names:
            needed = ALGORITHMS[name].secret_bytes or 0
            if len(secret) < needed:  # RFC 7518 3.2
                raise ConfigurationError(f"issuer {self.url!r}: {name} needs a secret of at least {needed} bytes")
        self._set("secret", secret)
        self._set("algorithms", names)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


def accepted_urls(issuer: Issuer) -> tuple[str, ...]:
    """Return each `iss` that is accepted; the template itself where any tenant is."""
    if issuer.tenants is None or issuer.tenants == ANY_TENANT:
        return (issuer.url,)
    return tuple(dict.fromkeys(fill_template(issuer.url, tenant) for tenant in issuer.tenants))


def fill_template(template: str, tenant: str) -> str:
    """Return the issuer of one tenant. What is no template is returned as it is."""
    return template.replace(TENANT, tenant)


def is_guid(value: object) -> TypeGuard[str]:
    """Tell whether a value is a GUID in the form that issuers write."""
    return isinstance(value, str) and _GUID.fullmatch(value) is not None


def string_set(name: str, values: object) -> dict[str, None]:
    """Return one string or a collection of strings as an ordered set.

    Raises:
        ConfigurationError: empty, or with a member that is not a non-empty string.
    """
    members = (values,) if isinstance(values, str) else values
    if not isinstance(members, Collection) or isinstance(members, (bytes, Mapping)) or not members:
        raise ConfigurationError(f"{name} must be a string or a non-empty collection of strings, not {values!r}")
    if not all(isinstance(member, str) and member for member in members):
        raise ConfigurationError(f"{name} must hold non-empty strings alone, not {values!r}")
    return dict.fromkeys(members)


def claim_paths(name: str, values: object) -> tuple[ClaimPath, ...]:
    """Return one claim's name, or a collection of names and of paths, as paths.

    Raises:
        ConfigurationError: empty, or with a member that is neither.
    """
    members = (values,) if isinstance(values, str) else values
    if not isinstance(members, Collection) or isinstance(members, (bytes, Mapping)) or not members:
        raise ConfigurationError(f"{name} must be a claim or a non-empty collection of claims, not {values!r}")
    paths = tuple(member if isinstance(member, tuple) else (member,) for member in members)
    for path in paths:
        if not path or not all(isinstance(part, str) and part for part in path):
            raise ConfigurationError(f"{name} must hold names, and tuples of names for paths, not {path!r}")
    return paths


def _claim_names(name: str, values: object) -> tuple[str, ...]:
    names = tuple(string_set(name, values))
    for claim in names:
        if "," in claim:
            raise ConfigurationError(f"{name}: {claim!r} is not one claim; separate them by spaces, or give a list")
    return names


def _copied(value: Any) -> Any:
    """Return JSON with objects and arrays of its own. `deepcopy` takes 470 us for a set of 100 keys, this 100."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return {name: _copied(member) for name, member in value.items()}
    return [_copied(member) for member in value] if isinstance(value, (list, tuple)) else value


def _host(name: str, value: object, example: str) -> str:
    if not isinstance(value, str) or _HOST.fullmatch(value) is None:
        raise ConfigurationError(
            f"{name} must be a host alone, in lower case, without https:// and slashes: {example!r}, not {value!r}"
        )
    return value


def _name(name: str, value: object) -> str:
    if not isinstance(value, str) or _NAME.fullmatch(value) is None:
        raise ConfigurationError(
            f"{name} must be a name of letters, digits and ._~- that stands in the issuer's URL, not {value!r}"
        )
    return value


def _guid(name: str, value: object) -> str:
    if not is_guid(value):
        raise ConfigurationError(
            f"{name} must be the id of a tenant, a GUID in lower case, not {value!r}: a domain is no id, and common,"
            " organizations and consumers are no tenants (tenants='any' accepts all)"
        )
    return value
