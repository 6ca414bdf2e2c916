"""The claim rules, one small function each, in the order in which they refuse.

All are asked before the signature is checked, so they may refuse and never grant. They are told the time and fetch
nothing. RFC 7519 4.1, RFC 9068 2.2 and 4, RFC 8693 4.1, RFC 8725 3.
"""

import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from .access_token import AccessToken
from .errors import InvalidToken, Reason, shown
from .issuer import Profile
from .jws import ACCESS_TOKEN_TYPE, UnverifiedToken
from .scopes import DEFAULT_SCOPE_PATTERN, ScopeSet

_LARGEST = int(sys.float_info.max)  # an integer beyond it is no time
_SMALLEST = -_LARGEST

MAX_ACTORS = 10  # our own bound on nested `act` claims


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimPolicy:
    """What the tokens of one issuer must hold. Times are in seconds.

    `required_claims`: the claims without which a token is refused, besides `iss`. `types`: what the value of each claim
    must be. `rules`: those that apply, in order.
    """

    issuer: str
    audiences: frozenset[str]
    profile: Profile
    leeway: float
    max_token_age: float | None
    scope_claims: tuple[str, ...]
    organizations: frozenset[str] | None
    scope_pattern: str = DEFAULT_SCOPE_PATTERN
    scope_implications: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    required_claims: tuple[str, ...] = field(init=False)
    types: Mapping[str, Callable[[Any], object]] = field(init=False)
    rules: "tuple[Rule, ...]" = field(init=False)

    def __post_init__(self) -> None:
        # Prepared once, into slots: a cached_property makes every attribute of its object 8 times as dear to read.
        required = _REQUIRED[self.profile] if self.max_token_age is None else (*_REQUIRED[self.profile], "iat")
        scope_types = {name: str if name == "scope" else _is_text_or_list for name in self.scope_claims}
        rules = tuple(rule for rule in RULES if rule not in _ASKED_BY or getattr(self, _ASKED_BY[rule]) is not None)
        for name, value in (("required_claims", required), ("types", scope_types | _TYPES), ("rules", rules)):
            object.__setattr__(self, name, value)

    def scopes(self, claims: Mapping[str, Any]) -> ScopeSet:
        """Return the scopes that checked claims grant, the implied ones included."""
        scopes = [scope for name in self.scope_claims if name in claims for scope in _scope_values(claims[name])]
        implied = [other for scope in scopes for other in self.scope_implications.get(scope, ())]
        return ScopeSet(scopes + implied, pattern=self.scope_pattern)


Rule = Callable[[UnverifiedToken, ClaimPolicy, float], None]


def check_claims(token: UnverifiedToken, policy: ClaimPolicy, now: float) -> None:
    """Apply every claim rule. `now` is in seconds since the epoch.

    Does NOT check `iss`, which chose the policy, nor the signature.

    Raises:
        InvalidToken: the first rule that is broken, by its reason.
    """
    for rule in policy.rules:
        rule(token, policy, now)


def access_token(claims: dict[str, Any], policy: ClaimPolicy) -> AccessToken:
    """Return the access token of claims that were checked and whose signature was verified."""
    return AccessToken(claims, policy.scopes)


def claims_have_their_types(token: UnverifiedToken, policy: ClaimPolicy, now: float) -> None:
    """Every claim that we read has its type, and `exp` and `aud` are there (RFC 7519 4.1)."""
    claims = token.claims
    for name in policy.required_claims:
        if name not in claims:
            raise InvalidToken(Reason.CLAIM_MISSING, detail=f"the token has no {name}")
    types = policy.types
    for name, value in claims.items():
        if name in types:
            expected = types[name]
            if type(value) is not str if expected is str else not expected(value):
                raise InvalidToken(Reason.CLAIM_MALFORMED, detail=f"the claim {shown(name)} has the wrong type")


def type_is_access_token(token: UnverifiedToken, policy: ClaimPolicy, now: float) -> None:
    """No other kind of JWT passes as an access token (RFC 8725 3.11 and 3.12, RFC 9068 4)."""
    if token.header.typ == ACCESS_TOKEN_TYPE:
        return
    claims = token.claims
    found = (
        ("header typ is not at+jwt" if policy.profile == "rfc9068" else "")
        or ("at_hash" in claims and "it has at_hash, as ID tokens do")
        or ("c_hash" in claims and "it has c_hash, as ID tokens do")
        or ("nonce" in claims and "scope" not in claims and "scp" not in claims and "it has nonce and no scope")
        or ("typ" in claims and claims["typ"] in ("ID", "Refresh") and "its typ claim names another kind of token")
        or ("token_use" in claims and claims["token_use"] != "access" and "its token_use is not access")
    )
    if found:
        raise InvalidToken(Reason.WRONG_TYPE, detail=f"this is not an access token: {found}")


def not_sender_constrained(token: UnverifiedToken, policy: ClaimPolicy, now: float) -> None:
    """A token bound to a key or a certificate must not pass as a bearer token (RFC 9449 7.2, RFC 8705 3)."""
    if "cnf" in token.claims:
        raise InvalidToken(Reason.SENDER_CONSTRAINED, detail="the token has cnf, and no binding method is supported")


def audience_is_ours(token: UnverifiedToken, policy: ClaimPolicy, now: float) -> None:
    """One audience is ours, compared whole and exactly (RFC 7519 4.1.3, RFC 8725 3.9)."""
    audience = token.claims["aud"]
    check_audience((audience,) if isinstance(audience, str) else audience, policy)


def check_audience(named: Collection[str], policy: ClaimPolicy) -> None:
    """Refuse a token that names none of our audiences. Raises InvalidToken: `wrong_audience`."""
    if policy.audiences.isdisjoint(named):
        raise InvalidToken(
            Reason.WRONG_AUDIENCE,
            detail=f"the token is for {shown(list(named))}, this API accepts {', '.join(sorted(policy.audiences))}",
        )


def organization_is_ours(token: UnverifiedToken, policy: ClaimPolicy, now: float) -> None:
    """The organization is one of those that the issuer's setting names."""
    organization = token.claims.get("org_id")
    if organization not in (policy.organizations or ()):
        raise InvalidToken(Reason.WRONG_ORGANIZATION, detail=f"org_id is {shown(organization)}")


def not_expired(token: UnverifiedToken, policy: ClaimPolicy, now: float) -> None:
    """Accepted only before `exp` (RFC 7519 4.1.4)."""
    if now - policy.leeway >= token.claims["exp"]:
        raise _untimely(Reason.EXPIRED, token, "exp", now)


def already_valid(token: UnverifiedToken, policy: ClaimPolicy, now: float) -> None:
    """Accepted from `nbf` on (RFC 7519 4.1.5)."""
    claims = token.claims
    if "nbf" in claims and claims["nbf"] > now + policy.leeway:
        raise _untimely(Reason.NOT_YET_VALID, token, "nbf", now)


def issued_in_the_past(token: UnverifiedToken, policy: ClaimPolicy, now: float) -> None:
    """`iat` is not in the future: one of the two clocks is wrong."""
    claims = token.claims
    if "iat" in claims and claims["iat"] > now + policy.leeway:
        raise _untimely(Reason.ISSUED_IN_FUTURE, token, "iat", now)


def not_too_old(token: UnverifiedToken, policy: ClaimPolicy, now: float) -> None:
    """The token is no older than `max_token_age`, counted from `iat`."""
    if now - policy.leeway - (policy.max_token_age or 0) > token.claims["iat"]:
        raise _untimely(Reason.TOO_OLD, token, "iat", now)


RULES: tuple[Rule, ...] = (
    claims_have_their_types,
    type_is_access_token,
    not_sender_constrained,
    audience_is_ours,
    organization_is_ours,
    not_expired,
    already_valid,
    issued_in_the_past,
    not_too_old,
)


def _is_number(value: object) -> bool:
    """A finite JSON number (RFC 7519 2). True and false are numbers to Python alone."""
    return (type(value) is int or type(value) is float) and _SMALLEST <= value <= _LARGEST


def _is_audience(value: object) -> bool:
    return (type(value) is str or _is_text_list(value)) and bool(value)


def _is_text_or_list(value: object) -> bool:
    return type(value) is str or _is_text_list(value)


def _is_text_list(value: object) -> bool:
    if type(value) is not list:
        return False
    for member in value:  # noqa: SIM110  # a generator costs more than the few members
        if type(member) is not str:
            return False
    return True


def _is_actor(value: object) -> bool:
    """An `act` or `may_act` object (RFC 8693 4.1 and 4.4), its actors before it included."""
    for _ in range(MAX_ACTORS):
        if not isinstance(value, dict):
            return False
        if not all(isinstance(value.get(name, ""), str) for name in ("sub", "iss", "client_id")):
            return False
        if "act" not in value:
            return True
        value = value["act"]
    return False


def _scope_values(value: str | list[str]) -> list[str]:
    # RFC 6749 3.3: separated by spaces, and by nothing else that str.split() would take for white space
    return [scope for scope in value.split(" ") if scope] if isinstance(value, str) else value


def _untimely(reason: Reason, token: UnverifiedToken, name: str, now: float) -> InvalidToken:
    return InvalidToken(reason, detail=f"{name} is {shown(token.claims[name])}, the time is {now:.0f}")


_REQUIRED: dict[Profile, tuple[str, ...]] = {
    "generic": ("exp", "aud"),
    "rfc9068": ("exp", "aud", "sub", "client_id", "iat", "jti"),  # RFC 9068 2.2
}

# What the value of a claim must be: exactly a `str`, or what the predicate accepts.
_TYPES: dict[str, Callable[[Any], object]] = {
    "exp": _is_number,
    "nbf": _is_number,
    "iat": _is_number,
    "aud": _is_audience,
    "sub": str,
    "jti": str,
    "client_id": str,
    "azp": str,
    "cid": str,
    "appid": str,
    "org_id": str,
    "permissions": _is_text_list,
    "act": _is_actor,
    "may_act": _is_actor,
}

# Rules that only some policies ask, and the setting that asks them.
_ASKED_BY: dict[Rule, str] = {organization_is_ours: "organizations", not_too_old: "max_token_age"}
