"""Trust: the issuers whose tokens are accepted, with their settings filled in, and which of them a token names.

What a token says is not yet verified here: it chooses among those configured, and nothing more. RFC 8725 3.8.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .algorithms import DEFAULT_ALGORITHMS
from .claims import ClaimPolicy
from .errors import InvalidToken, Reason, shown
from .issuer import ANY_TENANT, DEFAULT_ROLE_CLAIMS, Issuer, claim_paths, fill_template, is_guid

if TYPE_CHECKING:
    from .key_source import Keys

_ENTRA_VERSIONS = ("1.0", "2.0")


@dataclass(frozen=True, slots=True)
class Trusted:
    """One issuer, or one for several tenants, with all its settings filled in."""

    policy: ClaimPolicy
    algorithms: frozenset[str]
    keys: "Keys"


class Trust:
    """The issuers of one resource server. `issuers` has each once, in the order configured."""

    def __init__(self, issuers: list[Issuer], policy: ClaimPolicy, keys_of: "Callable[[Issuer], Keys]") -> None:
        self.issuers = [
            Trusted(_fill(policy, one), frozenset(one.algorithms or DEFAULT_ALGORITHMS), keys_of(one))
            for one in issuers
        ]
        self._any_tenant = [trusted for trusted in self.issuers if trusted.policy.tenants == ANY_TENANT]
        self._by_url = {
            url: trusted
            for one, trusted in zip(issuers, self.issuers, strict=True)
            for url in one.urls
            if one.tenants != ANY_TENANT  # a template is no issuer that a token may name
        }

    def find(self, claims: Mapping[str, Any]) -> Trusted | None:
        """Return the issuer that unverified claims name, where it is one of ours."""
        issuer = claims.get("iss")
        trusted = self._by_url.get(issuer) if isinstance(issuer, str) else None
        return trusted or (self._of_any_tenant(claims) if self._any_tenant else None)

    def refusal(self, claims: Mapping[str, Any]) -> InvalidToken:
        """Return the refusal of a token whose issuer is none of ours."""
        issuer = claims.get("iss")
        if "iss" not in claims:
            return InvalidToken(Reason.CLAIM_MISSING, detail="the token has no iss")
        if not isinstance(issuer, str):
            return InvalidToken(Reason.CLAIM_MALFORMED, detail="the claim iss has the wrong type")
        trusted = [one.policy.issuer for one in self.issuers]
        detail = f"iss is {shown(issuer)}, trusted are {', '.join(map(shown, trusted))}"
        if issuer.rstrip("/") in {url.rstrip("/") for url in trusted}:
            detail += "; only the slash at the end differs: spell the setting issuer as the token does"
        if claims.get("ver") in _ENTRA_VERSIONS and any(one.policy.tenants is not None for one in self.issuers):
            detail += (
                f"; ver is {claims['ver']}: where it is the version that differs, give Issuer.entra() that version"
            )
        return InvalidToken(Reason.WRONG_ISSUER, detail=detail)

    def _of_any_tenant(self, claims: Mapping[str, Any]) -> Trusted | None:
        """Return the issuer whose template, filled with the tenant in the claims, is the issuer in the claims.

        A tenant is a GUID here, so that none can change what an address means.
        """
        tenant, issuer = claims.get("tid"), claims.get("iss")
        if not is_guid(tenant):
            return None
        return next((one for one in self._any_tenant if fill_template(one.policy.issuer, tenant) == issuer), None)


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
