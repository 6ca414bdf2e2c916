"""Scopes: opaque, case-sensitive strings (RFC 6749 3.3) that may be namespaced as an action on a resource.

Knows nothing about tokens or requirements.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from functools import lru_cache

from .errors import ConfigurationError

DEFAULT_SCOPE_PATTERN = "{action}:{resource}"

_SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")  # RFC 6749 3.3
_FIELD = re.compile(r"\{(action|resource)\}")


class Scope(str):
    """One scope. `Scope("read:contacts").action == "read"` and `.resource == "contacts"`.

    Another spelling is told by `pattern`, such as `{resource}.{action}` or `https://api.example/{resource}.{action}`.
    A scope that does not fit the pattern is still a scope; its action and resource are None. Does NOT check that the
    text is a valid scope: tokens may hold anything.
    """

    __slots__ = ("action", "resource")
    action: str | None
    resource: str | None

    def __new__(cls, value: str, *, pattern: str = DEFAULT_SCOPE_PATTERN) -> "Scope":
        self = super().__new__(cls, value)
        fields = compile_scope_pattern(pattern).fullmatch(value)
        self.action, self.resource = (fields["action"], fields["resource"]) if fields else (None, None)
        return self


class ScopeSet(Set[str]):
    """The scopes of a token, those implied by configuration included. Immutable, in the order granted.

    Comparison is exact and case-sensitive: no prefixes, no wildcards.
    """

    __slots__ = ("_pattern", "_scopes")

    def __init__(self, scopes: Iterable[str] = (), *, pattern: str = DEFAULT_SCOPE_PATTERN) -> None:
        self._scopes = dict.fromkeys(scopes)
        self._pattern = pattern

    def __contains__(self, scope: object) -> bool:
        return scope in self._scopes

    def __iter__(self) -> Iterator[str]:
        return iter(self._scopes)

    def __len__(self) -> int:
        return len(self._scopes)

    def __hash__(self) -> int:
        return self._hash()

    def __repr__(self) -> str:
        return f"ScopeSet({list(self._scopes)!r})"

    def actions(self, resource: str) -> frozenset[str]:
        """Return the actions granted on `resource`: `{"read", "create"}` for `contacts`."""
        return frozenset(s.action for s in self._namespaced() if s.resource == resource and s.action is not None)

    def resources(self, action: str) -> frozenset[str]:
        """Return the resources on which `action` is granted: `{"contacts", "calendar"}` for `read`."""
        return frozenset(s.resource for s in self._namespaced() if s.action == action and s.resource is not None)

    def _namespaced(self) -> Iterator[Scope]:
        return (Scope(scope, pattern=self._pattern) for scope in self._scopes)


def check_scope_name(scope: object) -> str:
    """Return `scope` if it may be a scope's name.

    Raises:
        ConfigurationError: not a string, empty, or with a character that RFC 6749 3.3 does not allow.
    """
    if not isinstance(scope, str) or _SCOPE_TOKEN.fullmatch(scope) is None:
        raise ConfigurationError(
            f"{scope!r} is not a scope: give one name per string, without spaces, quotes, backslashes or non-ASCII"
            " characters (RFC 6749 3.3)"
        )
    return scope


def compile_scope_pattern(pattern: str) -> re.Pattern[str]:
    """Return the expression for a pattern that holds `{action}` and `{resource}` once each.

    A field matches one or more characters other than `/` and those that separate the two fields.

    Raises:
        ConfigurationError: the pattern does not hold both fields, separated by some text.
    """
    compiled = _compile(pattern) if isinstance(pattern, str) else None  # what is no text may not even have a hash
    if compiled is None:
        raise ConfigurationError(
            f"scope_pattern {pattern!r} must hold {{action}} and {{resource}} once each, with a separator between"
            f" them; the default is {DEFAULT_SCOPE_PATTERN!r}"
        )
    return compiled


@lru_cache(maxsize=64)
def _compile(pattern: str) -> re.Pattern[str] | None:
    parts = _FIELD.split(pattern)
    if sorted(parts[1::2]) != ["action", "resource"] or not parts[2]:
        return None
    field = f"[^/{re.escape(parts[2])}]+"
    before, first, between, second, after = parts
    return re.compile(
        f"{re.escape(before)}(?P<{first}>{field}){re.escape(between)}(?P<{second}>{field}){re.escape(after)}"
    )


def close_implications(implications: Mapping[str, Collection[str]]) -> dict[str, tuple[str, ...]]:
    """Return for each scope all that it implies, transitively: `admin` -> (`write`, `read`).

    Raises:
        ConfigurationError: no mapping to collections of scopes, a name that is no scope, or a cycle.
    """
    if not isinstance(implications, Mapping):
        raise ConfigurationError(
            f"scope_implications must map scopes to collections of scopes, not be {implications!r}"
        )
    for scope, implied in implications.items():
        if isinstance(implied, str) or not isinstance(implied, Collection):
            raise ConfigurationError(f"scope_implications[{scope!r}] must be a collection of scopes, not {implied!r}")
        for name in (scope, *implied):
            check_scope_name(name)
    return {scope: tuple(_reach(scope, implications)) for scope in implications}


def _reach(start: str, implications: Mapping[str, Collection[str]]) -> dict[str, None]:
    reached: dict[str, None] = {}
    waiting = list(implications[start])
    while waiting:
        scope = waiting.pop(0)
        if scope == start:
            raise ConfigurationError(f"scope_implications has a cycle: {start!r} implies itself; remove one step")
        if scope not in reached:
            reached[scope] = None
            waiting.extend(implications.get(scope, ()))
    return reached
