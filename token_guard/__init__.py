"""Token Guard protects Python APIs with OAuth 2.0 access tokens."""

from typing import TYPE_CHECKING, Any

from .access_token import AccessToken
from .authorization import current_access_token, public, requires, requires_scope
from .challenge import ChallengePolicy
from .errors import (
    ConfigurationError,
    ExchangeRefused,
    InsufficientScope,
    InvalidRequest,
    InvalidToken,
    MissingToken,
    Reason,
    RequestRejected,
    TemporarilyUnavailable,
    TokenGuardError,
)
from .issuer import Issuer
from .issuer_resolver import IssuerResolver
from .key_cache import KeyPolicy
from .key_store import FileKeyStore, KeyStore
from .request import RequestView
from .requirements import all_of, any_of, client, permission, role, scope, user_only
from .resource_server import ResourceServer
from .scopes import Scope, ScopeSet

if TYPE_CHECKING:
    from .on_behalf_of import ClientCredentials, OnBehalfOf

__all__ = [
    "AccessToken",
    "ChallengePolicy",
    "ClientCredentials",
    "ConfigurationError",
    "ExchangeRefused",
    "FileKeyStore",
    "InsufficientScope",
    "InvalidRequest",
    "InvalidToken",
    "Issuer",
    "IssuerResolver",
    "KeyPolicy",
    "KeyStore",
    "MissingToken",
    "OnBehalfOf",
    "Reason",
    "RequestRejected",
    "RequestView",
    "ResourceServer",
    "Scope",
    "ScopeSet",
    "TemporarilyUnavailable",
    "TokenGuardError",
    "all_of",
    "any_of",
    "client",
    "current_access_token",
    "permission",
    "public",
    "requires",
    "requires_scope",
    "role",
    "scope",
    "user_only",
]


def __getattr__(name: str) -> Any:
    if name in ("ClientCredentials", "OnBehalfOf"):  # they bring httpx, which costs more than all the rest
        from . import on_behalf_of

        return getattr(on_behalf_of, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
