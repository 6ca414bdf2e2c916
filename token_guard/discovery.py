"""Discovery: where an issuer's metadata may be, and what a metadata document says. Pure.

OpenID Connect Discovery 1.0 section 4; RFC 8414 3. Fetches nothing.
"""

from collections.abc import Mapping
from urllib.parse import urlsplit

from .addresses import is_safe_address
from .errors import shown


class MisconfiguredError(Exception):
    """What the issuer publishes contradicts what is configured. The message names both, and the fix."""


def metadata_urls(issuer: str) -> tuple[str, ...]:
    """Return the addresses where the metadata of `issuer` may be, in the order in which they are tried.

    First the OpenID form appended to the issuer, since that is what most issuers serve, then the forms that insert the
    well-known part before the path. A final slash is dropped from the address alone, never from the issuer.
    """
    parts = urlsplit(issuer)
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.removesuffix("/")
    return tuple(
        dict.fromkeys(
            (
                f"{origin}{path}/.well-known/openid-configuration",
                f"{origin}/.well-known/oauth-authorization-server{path}",
                f"{origin}/.well-known/openid-configuration{path}",
            )
        )
    )


def read_metadata(document: object, *, issuer: str, url: str, member: str = "jwks_uri") -> str:
    """Return the `jwks_uri`, or another endpoint, of a metadata document.

    Nothing else in it is used: its algorithm lists never widen the configured ones.

    Raises:
        MisconfiguredError: no object, another issuer (RFC 8414 3.3), or no endpoint that may be asked.
    """
    if not isinstance(document, Mapping):
        raise MisconfiguredError(f"{url} is not a JSON object with unique member names; check issuer {issuer!r}")
    named = document.get("issuer")
    if named != issuer:
        raise MisconfiguredError(
            f"{url} names the issuer {shown(named)}, but the setting issuer is {issuer!r}; they must be equal to the"
            " letter, trailing slash included: set issuer to what the document says, if that is whom you trust"
        )
    endpoint = document.get(member)
    if not isinstance(endpoint, str) or not is_safe_address(endpoint):
        raise MisconfiguredError(f"{url} has no https {member}; give issuer {issuer!r} {_GIVEN[member]}")
    return endpoint


_GIVEN = {"jwks_uri": "its jwks_uri= or jwks=", "token_endpoint": "a token_endpoint="}
