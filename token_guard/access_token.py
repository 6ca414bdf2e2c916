"""AccessToken: what a handler gets once a token is genuine, current and meant for this API.

Never holds the raw token, so that nothing built on it can leak one. Knows nothing about keys or how claims are judged.
Claims: RFC 7519 4, RFC 9068 2.2, RFC 8693 4.1 (`act`), and the names that hosted services use.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

from .jws import read_json
from .request import current_cell
from .requirements import Requirement, all_of
from .scopes import ScopeSet


class Actor:
    """The party that acts for the token's subject (RFC 8693 4.1). Its own `actor` is history and grants nothing."""

    __slots__ = ("claims",)

    def __init__(self, claims: Mapping[str, Any]) -> None:
        self.claims: Mapping[str, Any] = MappingProxyType(dict(claims))

    @property
    def subject(self) -> str | None:
        """Who acts: the `sub` of the `act` claim."""
        return self.claims.get("sub")

    @property
    def issuer(self) -> str | None:
        """Who issued that subject, where the claim says so."""
        return self.claims.get("iss")

    @property
    def actor(self) -> "Actor | None":
        """The actor before this one, for the record."""
        return Actor(self.claims["act"]) if "act" in self.claims else None

    def __repr__(self) -> str:
        return f"Actor(subject={self.subject!r})"


class ClaimReader(Protocol):
    """Knows in which claims an issuer writes what, and what they grant."""

    def scopes(self, claims: Mapping[str, Any]) -> ScopeSet:
        """Return the scopes that checked claims grant."""

    def roles(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the roles that they name."""

    def roles_omitted(self, claims: Mapping[str, Any]) -> bool:
        """Tell whether the issuer left roles out of them."""


class AccessToken:
    """A validated access token. Made by ResourceServer alone; read-only.

    `content`: the claims, or their JSON, that `reader` knows its way in. `scopes` are those that it finds there, where
    they are known.
    """

    __slots__ = ("_content", "_reader", "_scopes")

    def __init__(self, content: dict[str, Any] | bytes, reader: ClaimReader, scopes: ScopeSet | None = None) -> None:
        self._content = content
        self._reader = reader
        self._scopes = scopes

    @property
    def _claims(self) -> dict[str, Any]:
        # A token from the cache brings the JSON of its claims. It is read when it is first asked for, and for each
        # request anew, so that no handler can change what the next one sees.
        content = self._content
        if isinstance(content, bytes):  # a payload that was accepted is an object
            content = self._content = read_json(content)
        return content

    @property
    def subject(self) -> str | None:
        """Whom the token speaks for: a user, or a client itself (see `is_client`). None where it names nobody."""
        return self._claims.get("sub")

    @property
    def issuer(self) -> str:
        """The issuer, spelled exactly as configured."""
        issuer: str = self._claims["iss"]
        return issuer

    @property
    def audience(self) -> tuple[str, ...]:
        """All audiences that the token names, this API's among them; empty where the issuer writes none."""
        audience = self._claims.get("aud", ())
        return (audience,) if isinstance(audience, str) else tuple(audience)

    @property
    def client_id(self) -> str | None:
        """The client that the token was issued to: `client_id`, or the name that the issuer uses for it."""
        for name in ("client_id", "azp", "cid", "appid"):
            if name in self._claims:
                client_id: str = self._claims[name]
                return client_id
        return None

    @property
    def scopes(self) -> ScopeSet:
        """The scopes granted, and those implied by configuration."""
        if self._scopes is None:
            self._scopes = self._reader.scopes(self._claims)
        return self._scopes

    @property
    def expires_at(self) -> int | float:
        """When the token expires, in seconds since the epoch."""
        expires_at: int | float = self._claims["exp"]
        return expires_at

    @property
    def issued_at(self) -> int | float | None:
        """When the token was issued, in seconds since the epoch, where it says so."""
        return self._claims.get("iat")

    @property
    def claims(self) -> Mapping[str, Any]:
        """All claims, as a read-only mapping. Names are literal: `claims["https://northwind.example/roles"]`."""
        return MappingProxyType(self._claims)

    @property
    def actor(self) -> Actor | None:
        """Who acts for the subject, where the token was issued by a token exchange."""
        return Actor(self._claims["act"]) if "act" in self._claims else None

    @property
    def permissions(self) -> tuple[str, ...]:
        """The `permissions` claim of issuers with role-based access; separate from the scopes."""
        return tuple(self._claims.get("permissions", ()))

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles, of the claims that the issuer's `role_claims` names: by default of `roles`.

        Strings, or objects with a `value` (RFC 9068 2.2.3.1). What is neither is left out.
        """
        return self._reader.roles(self._claims)

    @property
    def roles_omitted(self) -> bool:
        """Whether there may be more `roles`: the issuer left a claim of them out, as Entra ID does with many groups."""
        return self._reader.roles_omitted(self._claims)

    @property
    def organization(self) -> str | None:
        """The organization (`org_id`) that the user logged in to, where the token says so."""
        return self._claims.get("org_id")

    @property
    def is_client(self) -> bool:
        """Whether the token is a client's own, not a user's (RFC 9068 5).

        Some issuers tell it by a user's name alone: refuse by it, and do not grant by it.
        """
        claims, subject, client_id = self._claims, self.subject, self.client_id
        return (
            subject is None
            or subject == client_id
            or subject.endswith("@clients")
            or claims.get("gty") == "client-credentials"
            or claims.get("idtyp") == "app"
            or (subject == claims.get("oid") and "scp" not in claims)  # Entra ID, without the optional idtyp
            or (client_id is not None and claims.get("preferred_username") == f"service-account-{client_id.lower()}")
        )

    def require(self, *requirements: Requirement | str) -> None:
        """Demand more of this token; a plain string is a scope.

        Inside a guarded request the demand is final: when it is not met, the client gets the 403, even if something
        catches the exception. To ask without demanding, use `"read:contacts" in token.scopes`.

        Raises:
            InsufficientScope: a requirement is not met.
            ConfigurationError: a requirement cannot be understood.
        """
        refusal = all_of(*requirements).refusal(self)
        if refusal is not None:
            cell = current_cell.get()
            if cell is not None and cell.token is self:
                cell.refuse(refusal)
            raise refusal

    def __repr__(self) -> str:
        return f"AccessToken(subject={self.subject!r}, client_id={self.client_id!r}, scopes={list(self.scopes)!r})"
