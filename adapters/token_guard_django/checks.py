"""System checks: what is wrong with the settings, told by `manage.py check` before the first request.

Knows nothing about requests or tokens.
"""

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004
from django.utils.module_loading import import_string

from token_guard import ConfigurationError

from .guard import guard
from .middleware import TokenGuardMiddleware

_CACHE = "django.middleware.cache.FetchFromCacheMiddleware"


@register(Tags.security)
def check_middleware(**_: object) -> list[CheckMessage]:
    """Check that TokenGuardMiddleware is there, and that nothing acts on a view or answers a request before it."""
    before: list[str] = []
    for path in settings.MIDDLEWARE:
        try:
            middleware = import_string(path)
        except ImportError as error:
            hint = 'It is spelled "token_guard_django.TokenGuardMiddleware".' if "token_guard" in path else None
            return [Error(f"MIDDLEWARE: {path!r} cannot be imported: {error}", hint=hint, id="token_guard.E003")]
        if isinstance(middleware, type) and issubclass(middleware, TokenGuardMiddleware):
            return [_acts_first(earlier) for earlier in before]
        if path == _CACHE or hasattr(middleware, "process_view"):
            before.append(path)
    return [
        Error(
            "TokenGuardMiddleware is not in MIDDLEWARE: views are open, and those with requires_scope fail.",
            hint='Put "token_guard_django.TokenGuardMiddleware" first. Where REST framework and its'
            " AccessTokenAuthentication alone guard the API, silence this check.",
            id="token_guard.E001",
        )
    ]


@register(Tags.security)
def check_settings(**_: object) -> list[CheckMessage]:
    """Check that a guard can be made of the setting TOKEN_GUARD."""
    try:
        guard()
    except ConfigurationError as error:
        hint = (
            'Set TOKEN_GUARD = {"ISSUER": "https://...", "AUDIENCE": "..."}, or {"RESOURCE_SERVER": "..."} with the'
            " dotted path of a ResourceServer."
        )
        return [Error(str(error), hint=hint, id="token_guard.E002")]
    return []


def _acts_first(path: str) -> CheckMessage:
    return Warning(
        f"{path} comes before TokenGuardMiddleware, and acts before the access token is checked.",
        hint="Move TokenGuardMiddleware up. What only adds headers to answers may stay before it.",
        id="token_guard.W001",
    )
