"""What an operator may have meant: the setting, and the fix, that the log names beside what a refused token holds.

Asked when a token is refused, and never on the road of a good one. What a token says is not yet verified here: it
changes the words of a log line and nothing more. Pure.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from .errors import shown

NO_TENANT = "the token names no tenant (claim tid), which tokens of this issuer must"

_ENTRA_VERSIONS = ("1.0", "2.0")
_CLIENT_NAMES = ("client_id", "azp", "cid", "appid")


def scheme_hint(token: bytes) -> str:
    """Return what to pass instead of a whole Authorization header; nothing where it is none."""
    return 'the text begins with "Bearer ": pass only what follows it' if token[:7].lower() == b"bearer " else ""


def issuer_hint(claims: Mapping[str, Any], trusted: Collection[str]) -> str:
    """Return how the issuers that are configured may come to be spelled otherwise than `iss`, which is a text."""
    issuer: str = claims["iss"]
    if issuer.rstrip("/") in {url.rstrip("/") for url in trusted}:
        return "only the slash at the end differs: spell the setting issuer as the token does"
    if issuer.partition("://")[2] in {url.partition("://")[2] for url in trusted}:
        return "only http and https differ: tell the issuer the public address that it is behind"
    if any(issuer in _at_commas(url) for url in trusted):
        return "the setting issuer is one text with commas: give a list, or separate by spaces"
    if "tid" not in claims and any(_is_of_template(issuer, url) for url in trusted):
        return NO_TENANT
    tenant = claims.get("tid")
    if isinstance(tenant, str) and issuer in {url.replace("{tenantid}", tenant) for url in trusted}:
        return f"the tenant {shown(tenant)} is not among the issuer's tenants: add it there, if it is yours"
    version = claims.get("ver") or ("1.0" if issuer.startswith("https://sts.windows.net/") else None)
    if version in _ENTRA_VERSIONS:
        return f"it is a version {version} token of Entra ID: say Issuer.entra(version={version[0]}), if that differs"
    return "where it is another domain or realm of yours, list it in the setting issuer"


def key_set_hint(given: object) -> str:
    """Return how to give a key set instead of what was given as `jwks`, which may hold secrets."""
    if isinstance(given, str):
        return "; a text was given: an address is given as jwks_uri=, and JSON is read first, by json.loads"
    if callable(given):
        return "; a function was given: call it, jwks=issuer.jwks()"
    if isinstance(given, (list, tuple)):
        return '; a list was given: wrap it, jwks={"keys": [...]}'
    is_key = isinstance(given, Mapping) and "kty" in given  # RFC 7517 4.1
    return '; one key was given: wrap it, jwks={"keys": [...]}' if is_key else ""


def audience_hint(claims: Mapping[str, Any], audience: Iterable[str], accepted: Collection[str]) -> str:
    """Return how the audiences that are configured may come to be others than the token's."""
    audience = set(audience)
    clients = {claims[name] for name in _CLIENT_NAMES if name in claims}
    if "account" in audience:
        return "Keycloak writes account where it knows no API: add an audience mapper to the client or its scope there"
    if not clients.isdisjoint(accepted):
        return "the setting audience names the client, not the API: set it to what the token is for, if that is you"
    if not clients.isdisjoint(audience):
        return "it is for the client itself, as ID tokens are: the client must ask for, and send, an access token"
    for one in accepted:
        if not audience.isdisjoint(_at_commas(one)):
            return "the setting audience is one text with commas: give a list, or separate by spaces"
        if not audience.isdisjoint((f"{one}/", one.removesuffix("/"), f"api://{one}", one.removeprefix("api://"))):
            return "only a slash at the end or api:// differs: spell the setting audience as the token does"
    return "set audience to the name under which the issuer knows this API, or let the client ask for a token for it"


def algorithm_hint(name: str, accepted: Collection[str]) -> str:
    """Return how the algorithms that are configured may come to be others than the token's."""
    if name.startswith("HS") and not _are_of_secret(accepted):
        return "it needs a shared secret: let the issuer sign with RS256 instead, or give Issuer(secret=...)"
    if _are_of_secret(accepted) and not name.startswith("HS"):
        return "the setting secret accepts HMAC alone: leave it out, to use the keys that the issuer publishes"
    return f"add {name} to the setting algorithms, if that is how the issuer signs"


def scope_hint(claims: Mapping[str, Any], granted: Collection[str], lacking: Collection[str]) -> str:
    """Return where else a genuine token may hold the scopes that it lacks; nothing where it simply has others."""
    for name, value in claims.items():
        words = value.split(" ") if isinstance(value, str) else value if isinstance(value, list) else ()
        if any(scope in words for scope in lacking):
            return f"; its claim {shown(name)} holds such: name it in the setting scope_claims, if they are to count"
    if granted:
        return ""
    return f"; the token has no scopes at all, and the setting scope_claims names none of {shown(list(claims))}"


def _is_of_template(issuer: str, url: str) -> bool:
    before, tenant, after = url.partition("{tenantid}")
    return bool(tenant) and issuer.startswith(before) and issuer.endswith(after)


def _are_of_secret(algorithms: Collection[str]) -> bool:
    return any(name.startswith("HS") for name in algorithms)  # RFC 7518 3.2; never both kinds for one issuer


def _at_commas(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")] if "," in text else []
