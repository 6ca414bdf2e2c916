"""Issuer: whom we trust and how its tokens look. Knows nothing about fetching keys or judging tokens.

RFC 8414 2 for the form of an issuer; RFC 8725 3.1 and 3.8 for algorithms and keys that belong to one issuer.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from .addresses import check_https
from .algorithms import ALGORITHMS, DEFAULT_SECRET_ALGORITHMS, check_algorithms
from .errors import ConfigurationError

Profile = Literal["generic", "rfc9068"]
PROFILES: tuple[Profile, ...] = ("generic", "rfc9068")


@dataclass(frozen=True)
class Issuer:
    """An authorization server whose tokens are accepted. What is None is taken from the ResourceServer.

    `url` is compared exactly with `iss`, trailing slash included. Keys come from `jwks` (given), `jwks_uri`,
    `metadata_url`, or discovery; or from `secret`, the only way to HS256. `organizations` are the accepted `org_id`s.

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

    def __post_init__(self) -> None:
        check_https("issuer", self.url)
        if "?" in self.url or "#" in self.url:
            raise ConfigurationError(f"issuer {self.url!r} must have no query and no fragment (RFC 8414 2)")
        if "/.well-known/" in self.url:
            raise ConfigurationError(
                f"issuer {self.url!r} is the address of a document: give the part before /.well-known/"
            )
        sources = [name for name in ("jwks", "jwks_uri", "metadata_url", "secret") if getattr(self, name) is not None]
        if len(sources) > 1:
            raise ConfigurationError(f"issuer {self.url!r}: {' and '.join(sources)} contradict each other; keep one")
        for name in ("jwks_uri", "metadata_url"):
            if getattr(self, name) is not None:
                check_https(name, getattr(self, name))
        self._set("profile", check_profile(self.profile) if self.profile is not None else None)
        if self.scope_claims is not None:
            self._set("scope_claims", tuple(string_set("scope_claims", self.scope_claims)))
        for name in ("audience", "organizations"):
            if getattr(self, name) is not None:
                self._set(name, frozenset(string_set(name, getattr(self, name))))
        if self.secret is not None:
            self._check_secret(self.secret.encode() if isinstance(self.secret, str) else self.secret)
        elif self.algorithms is not None:
            self._set("algorithms", check_algorithms(self.algorithms, secret=False))

    @property
    def has_given_keys(self) -> bool:
        """Whether the keys came with the configuration, so that nothing is ever fetched."""
        return self.jwks is not None or self.secret is not None

    def _check_secret(self, secret: bytes) -> None:
        if not isinstance(secret, bytes) or b"-----BEGIN" in secret:  # RFC 8725 2.1: a public key is no secret
            raise ConfigurationError(f"issuer {self.url!r}: secret must be random text or bytes, not a key file")
        names = check_algorithms(DEFAULT_SECRET_ALGORITHMS if self.algorithms is None else self.algorithms, secret=True)
        for name in names:
            needed = ALGORITHMS[name].secret_bytes or 0
            if len(secret) < needed:  # RFC 7518 3.2
                raise ConfigurationError(f"issuer {self.url!r}: {name} needs a secret of at least {needed} bytes")
        self._set("secret", secret)
        self._set("algorithms", names)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


def filled_issuers(issuer: object, **options: Any) -> list[Issuer]:
    """Return one or several issuers, each with the options of the resource server that it leaves open.

    Raises:
        ConfigurationError: no issuer, one that is configured twice, or options that belong to one of several.
    """
    options = {name: value for name, value in options.items() if value is not None}
    members = [issuer] if isinstance(issuer, (str, Issuer)) else issuer
    if not isinstance(members, Collection) or isinstance(members, (bytes, Mapping)) or not members:
        raise ConfigurationError(f"issuer must be a URL, an Issuer, or a non-empty collection of them, not {issuer!r}")
    filled: dict[str, Issuer] = {}
    for member in members:
        if not isinstance(member, (str, Issuer)):
            raise ConfigurationError(f"issuer must hold URLs and Issuers, not {member!r}")
        one = Issuer(member) if isinstance(member, str) else member
        for name in ("jwks", "jwks_uri"):
            if name in options and (len(members) > 1 or getattr(one, name) is not None):
                raise ConfigurationError(f"{name} belongs to one issuer: give it to Issuer({one.url!r}, ...) alone")
        one = replace(one, **{name: value for name, value in options.items() if getattr(one, name) is None})
        if filled.setdefault(one.url, one) is not one:
            raise ConfigurationError(f"issuer {one.url!r} is configured twice; keep one")
    return list(filled.values())


def check_profile(profile: object) -> Profile:
    """Return `profile` if it is one. Raises ConfigurationError otherwise."""
    for known in PROFILES:
        if profile == known:
            return known
    raise ConfigurationError(f"profile must be one of {', '.join(PROFILES)}, not {profile!r}")


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
