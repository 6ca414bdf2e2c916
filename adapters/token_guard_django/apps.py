"""The application that INSTALLED_APPS names: system checks, and the OpenAPI documents of drf-spectacular."""

from django.apps import AppConfig, apps


class TokenGuardConfig(AppConfig):
    """Registers what other applications look for."""

    name: str = "token_guard_django"
    verbose_name: str = "Token Guard"

    def ready(self) -> None:
        from . import checks  # noqa: F401

        if apps.is_installed("drf_spectacular"):
            from . import openapi  # noqa: F401
