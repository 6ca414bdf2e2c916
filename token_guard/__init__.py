"""Token Guard protects Python APIs with OAuth 2.0 access tokens."""

from .access_token import AccessToken
from .authorization import current_access_token, public, requires, requires_scope
from .challenge import ChallengePolicy
from .errors import (
    ConfigurationError,
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
from .key_cache import KeyPolicy
from .request import RequestView
from .requirements import all_of, any_of, client, permission, role, scope, user_only
from .resource_server import ResourceServer
from .scopes import Scope, ScopeSet

__all__ = [
    "AccessToken",
    "ChallengePolicy",
    "ConfigurationError",
    "InsufficientScope",
    "InvalidRequest",
    "InvalidToken",
    "Issuer",
    "KeyPolicy",
    "MissingToken",
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
