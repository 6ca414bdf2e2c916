"""Settings by name, as the environment and the frameworks' own configurations give them.

Knows the names and how their text is read; what a value means is judged by whom it is given to.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any

from .challenge import ChallengePolicy
from .errors import ConfigurationError

SETTINGS_PREFIX = "TOKEN_GUARD_"

_REQUIRED = ("ISSUER", "AUDIENCE")
_QUOTES = ("'", '"')

_LARGEST = sys.float_info.max  # a whole number beyond it is no float, and infinity is none that we count with


def read_settings(values: Mapping[str, object], where: str, *, also: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the keyword arguments of ResourceServer for settings named `ISSUER`, `AUDIENCE` and so on.

    A text may hold several words separated by spaces where a collection is meant. `where` is the prefix that error
    messages put before a setting's name, and `also` are settings that are read elsewhere.

    Raises:
        ConfigurationError: a setting is missing, unknown or malformed.
    """
    unknown = min(values.keys() - _SETTINGS.keys(), default=None)
    if unknown is not None:
        from difflib import get_close_matches

        known = (*_SETTINGS, *also)
        spelled = str(unknown).upper().removeprefix(SETTINGS_PREFIX)
        meant = "".join(f"; did you mean {where}{name}?" for name in get_close_matches(spelled, known, 1))
        in_code = "" if meant else "; all else is said in code, to ResourceServer(...)"
        raise ConfigurationError(f"{where}{unknown} is not a setting; known are {', '.join(known)}{meant}{in_code}")
    for name, value in values.items():
        if isinstance(value, str) and not value.strip():
            fix = "is required and empty" if name in _REQUIRED else "is set but empty: unset it, or give it a value"
            raise ConfigurationError(f"{where}{name} {fix}")
    for name in _REQUIRED:
        if not values.get(name):
            raise ConfigurationError(f"{where}{name} is required and not set")
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, str) and value.strip()[:1] in _QUOTES:
            raise ConfigurationError(f"{where}{name} begins with a quote, {value!r}: write it without")
        keyword, read = _SETTINGS[name]
        try:
            arguments[keyword] = read(value)
        except (ValueError, OverflowError):
            raise ConfigurationError(f"{where}{name} must be a number of seconds, not {value!r}") from None
    return arguments


def _words(value: object) -> object:
    return value.split() if isinstance(value, str) else value


def _one_or_words(value: object) -> object:
    words = _words(value)
    return words[0] if isinstance(words, list) and len(words) == 1 else words


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError
    return float(value)


_SETTINGS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "ISSUER": ("issuer", _one_or_words),
    "AUDIENCE": ("audience", _words),
    "JWKS_URI": ("jwks_uri", lambda value: value),
    "ALGORITHMS": ("algorithms", _words),
    "PROFILE": ("profile", lambda value: value),
    "LEEWAY": ("leeway", _number),
    "SCOPE_CLAIMS": ("scope_claims", _words),
    "REALM": ("challenge", lambda value: ChallengePolicy(realm=value)),
}


def whole_number(name: str, value: object) -> int:
    """Return a number that counts something. Raises ConfigurationError where it is none."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigurationError(f"{name} must be a whole number, at least 0, not {value!r}")
    return value


def seconds(name: str, value: object, *, at_most: float = _LARGEST) -> float:
    """Return a number of seconds. Raises ConfigurationError where it is none, negative or too large."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= at_most:
        limit = f" and at most {at_most:.0f}" if at_most < _LARGEST else ""
        raise ConfigurationError(f"{name} must be a number of seconds, at least 0{limit}, not {value!r}")
    return float(value)


def check_kinds(kinds: Mapping[str, tuple[Callable[[Any], bool], str]], options: Mapping[str, object]) -> None:
    """Raise ConfigurationError for an option that is not of its kind: what tells it, and how it is called."""
    for name, value in options.items():
        is_right, kind = kinds[name]
        if not is_right(value):
            raise ConfigurationError(f"{name} must be {kind}, not {value!r}")
