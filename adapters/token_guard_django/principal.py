"""TokenPrincipal: whom an access token speaks for, where Django looks for its user.

Knows nothing about users in a database, sessions or requests.
"""

from collections.abc import Iterable

from token_guard import AccessToken


class TokenPrincipal:
    """The subject of an access token as `request.user`: authenticated, in no table, and without Django permissions.

    What it may do is in the token's scopes, which `requires_scope` checks.
    """

    is_active: bool = True
    is_authenticated: bool = True
    is_anonymous: bool = False
    is_staff: bool = False
    is_superuser: bool = False

    def __init__(self, access_token: AccessToken) -> None:
        self.access_token = access_token

    @property
    def pk(self) -> str | None:
        """The token's subject; unique for its issuer alone."""
        return self.access_token.subject

    @property
    def id(self) -> str | None:
        """The same as `pk`."""
        return self.pk

    @property
    def username(self) -> str | None:
        """The same as `pk`."""
        return self.pk

    def get_username(self) -> str:
        """Return the token's subject, or an empty string where it names nobody."""
        return self.pk or ""

    def has_perm(self, perm: str, obj: object = None) -> bool:
        """Return False."""
        return False

    def has_perms(self, perm_list: Iterable[str], obj: object = None) -> bool:
        """Return False, unless nothing is asked for."""
        return not any(perm_list)

    def has_module_perms(self, app_label: str) -> bool:
        """Return False."""
        return False

    async def ahas_perm(self, perm: str, obj: object = None) -> bool:
        """Return False."""
        return False

    async def ahas_perms(self, perm_list: Iterable[str], obj: object = None) -> bool:
        """Return False, unless nothing is asked for."""
        return not any(perm_list)

    def __str__(self) -> str:
        return self.get_username()
