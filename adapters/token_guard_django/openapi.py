"""How drf-spectacular describes AccessTokenAuthentication in an OpenAPI document. Knows nothing about requests."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension


class AccessTokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """The HTTP security scheme `bearer` (RFC 6750 2.1)."""

    target_class: str = "token_guard_django.rest_framework.AccessTokenAuthentication"
    match_subclasses: bool = True
    name: str = "accessToken"

    def get_security_definition(self, auto_schema: object) -> dict[str, Any]:
        """Return the security scheme object."""
        return {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
