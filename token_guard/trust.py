"""Trust: the issuers whose tokens are accepted, with their settings filled in, and which of them a token names.

What a token says is not yet verified here: it chooses among those configured, and nothing more. RFC 8725 3.8.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from .algorithms import DEFAULT_ALGORITHMS
from .claims import ClaimPolicy
from .errors import ConfigurationError, InvalidToken, Reason, shown
from .hints import issuer_hint
from .issuer import (
    ANY_TENANT,
    DEFAULT_ROLE_CLAIMS,
    KEY_SOURCES,
    TENANT,
    Issuer,
    accepted_urls,
    claim_paths,
    fill_template,
    is_guid,
    string_set,
)
from .issuer_resolver import IssuerResolver, ResolvedIssuers

if TYPE_CHECKING:
    from .key_source import Keys


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Trusted:
    """One issuer, or one for several tenants, with all its settings filled in. `resolved`: found by a resolver."""

    policy: ClaimPolicy
    algorithms: frozenset[str]
    keys: "Keys"
    resolved: bool


class Trust:
    """The issuers of one resource server: those configured, and those that its resolver finds, if it has one.

    `options` and `policy` fill in what an issuer leaves open; `keys_of` is told whether the issuer is a resolved one.
    """

    def __init__(
        self,
        issuers: list[Issuer],
        resolver: IssuerResolver | None,
        options: Mapping[str, Any],
        policy: ClaimPolicy,
        keys_of: "Callable[[Issuer, bool], Keys]",
    ) -> None:
        def trusted(one: Issuer, resolved: bool) -> Trusted:
            algorithms = frozenset(one.algorithms or DEFAULT_ALGORITHMS)
            return Trusted(_fill(policy, one), algorithms, keys_of(one, resolved), resolved)

        def trusted_anew(one: Issuer) -> Trusted:
            [one] = filled_issuers(one, **options)
            return trusted(one, resolved=True)

        self._configured = [trusted(one, resolved=False) for one in issuers]
        self._resolved = None if resolver is None else ResolvedIssuers(resolver, trusted_anew)
        self._any_tenant = [trusted for trusted in self._configured if trusted.policy.tenants == ANY_TENANT]
        self._by_url = {
            url: trusted
            for one, trusted in zip(issuers, self._configured, strict=True)
            for url in accepted_urls(one)
            if one.tenants != ANY_TENANT  # a template is no issuer that a token may name
        }

    @property
    def resolves(self) -> bool:
        """Whether issuers may be found that are not configured."""
        return self._resolved is not None

    @property
    def issuers(self) -> list[Trusted]:
        """Each issuer once, in the order configured, then those that were resolved and are kept at the moment."""
        return self._configured + (self._resolved.values() if self._resolved is not None else [])

    def find(self, claims: Mapping[str, Any]) -> Trusted | None:
        """Return the issuer that unverified claims name, where it is one of ours.

        Raises:
            TemporarilyUnavailable: the resolver fails.
        """
        issuer = claims.get("iss")
        if not isinstance(issuer, str):
            return None
        trusted = self._by_url.get(issuer) or (self._of_any_tenant(claims) if self._any_tenant else None)
        return self._resolved.get(issuer) if trusted is None and self._resolved is not None else trusted

    def still_holds(self, trusted: Trusted) -> bool:
        """Tell whether a resolved issuer that was found before would be found again, with the same settings.

        Raises:
            TemporarilyUnavailable: the resolver fails.
        """
        return self.find({"iss": trusted.policy.issuer}) is trusted

    def refusal(self, claims: Mapping[str, Any]) -> InvalidToken:
        """Return the refusal of a token whose issuer is none of ours."""
        issuer = claims.get("iss")
        if "iss" not in claims:
            return InvalidToken(Reason.CLAIM_MISSING, detail="the token has no iss")
        if not isinstance(issuer, str):
            return InvalidToken(Reason.CLAIM_MALFORMED, detail="the claim iss has the wrong type")
        trusted = [one.policy.issuer for one in self._configured]
        resolver_hint = None if self._resolved is None else self._resolved.hint(issuer)
        return InvalidToken(Reason.WRONG_ISSUER, detail=partial(_wrong_issuer, claims, trusted, resolver_hint))

    def begin_anew(self) -> None:
        """Begin anew in a forked child."""
        if self._resolved is not None:
            self._resolved.begin_anew()

    def _of_any_tenant(self, claims: Mapping[str, Any]) -> Trusted | None:
        """Return the issuer whose template, filled with the tenant in the claims, is the issuer in the claims.

        A tenant is a GUID here, so that none can change what an address means.
        """
        tenant, issuer = claims.get("tid"), claims.get("iss")
        if not is_guid(tenant):
            return None
        return next((one for one in self._any_tenant if fill_template(one.policy.issuer, tenant) == issuer), None)


def _wrong_issuer(claims: Mapping[str, Any], trusted: list[str], resolver_hint: str | None) -> str:
    detail = f"iss is {shown(claims['iss'])}"
    if trusted:
        detail += f", trusted are {', '.join(map(shown, trusted))}; {issuer_hint(claims, trusted)}"
    return detail if resolver_hint is None else f"{detail}; {resolver_hint}"


def filled_issuers(issuer: object, *, has_resolver: bool = False, **options: Any) -> list[Issuer]:
    """Return one or several issuers, each with the options of the resource server that it leaves open.

    There may be none where there is a resolver.

    Raises:
        ConfigurationError: no issuer, one that is configured twice, or options that belong to one of several.
    """
    options = {name: value for name, value in options.items() if value is not None}
    members = [issuer] if isinstance(issuer, (str, Issuer)) else issuer
    if not isinstance(members, Collection) or isinstance(members, (bytes, Mapping)) or not (members or has_resolver):
        raise ConfigurationError(f"issuer must be a URL, an Issuer, or a non-empty collection of them, not {issuer!r}")
    for name in ("jwks", "jwks_uri"):
        if name in options and has_resolver:
            raise ConfigurationError(f"{name} belongs to one issuer: the IssuerResolver gives each its own")
    filled: list[Issuer] = []
    known: set[str] = set()
    for member in members:
        if not isinstance(member, (str, Issuer)):
            raise ConfigurationError(f"issuer must hold URLs and Issuers, not {member!r}")
        one = Issuer(member) if isinstance(member, str) else member
        for name in ("jwks", "jwks_uri"):
            if name in options and (len(members) > 1 or getattr(one, name) is not None):
                raise ConfigurationError(f"{name} belongs to one issuer: give it to Issuer({one.url!r}, ...) alone")
        one = replace(one, **{name: value for name, value in options.items() if getattr(one, name) is None})
        for url in accepted_urls(one):
            if url in known:
                raise ConfigurationError(f"issuer {url!r} is configured twice; keep one")
            known.add(url)
        filled += _by_keys(one)
    return filled


def _by_keys(issuer: Issuer) -> list[Issuer]:
    """Return an issuer for each key set: a template without one for all tenants is one issuer a tenant."""
    if TENANT not in issuer.url or any(getattr(issuer, name) is not None for name in KEY_SOURCES):
        return [issuer]
    return [
        replace(issuer, url=fill_template(issuer.url, tenant), tenants=(tenant,)) for tenant in issuer.tenants or ()
    ]


def server_audiences(audience: object, issuers: Collection[Issuer]) -> frozenset[str]:
    """Return the audiences of the resource server itself: none where each issuer says by itself who its tokens are for.

    Raises:
        ConfigurationError: `audience` is missing, or no string or collection of strings.
    """
    if audience is None and issuers and all(one.audience is not None or one.client_ids is not None for one in issuers):
        return frozenset()
    if audience is None:
        elsewhere = "; or give every Issuer an audience or client_ids of its own" if issuers else ""
        raise ConfigurationError(f"audience is required: the name under which the issuer knows this API{elsewhere}")
    return frozenset(string_set("audience", audience))


def _fill(policy: ClaimPolicy, issuer: Issuer) -> ClaimPolicy:
    """Return the claim policy of one issuer: its own settings, and for the rest those of the resource server."""
    return replace(
        policy,
        issuer=issuer.url,
        audiences=frozenset(issuer.audience or policy.audiences),
        profile=issuer.profile or policy.profile,
        scope_claims=tuple(issuer.scope_claims or policy.scope_claims),
        organizations=_frozen(issuer.organizations),
        tenants=ANY_TENANT if issuer.tenants == ANY_TENANT else _frozen(issuer.tenants),
        client_ids=_frozen(issuer.client_ids),
        role_claims=DEFAULT_ROLE_CLAIMS
        if issuer.role_claims is None
        else claim_paths("role_claims", issuer.role_claims),
    )


def _frozen(values: Collection[str] | None) -> frozenset[str] | None:
    return None if values is None else frozenset(values)
