"""Settings by name: how their text is read. What a value means is judged by whom it is given to."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import JSON_VALUES
from token_guard import ConfigurationError, ResourceServer
from token_guard.settings import read_settings, seconds, whole_number

NAMES = ["ISSUER", "AUDIENCE", "JWKS_URI", "ALGORITHMS", "PROFILE", "LEEWAY", "SCOPE_CLAIMS", "REALM"]
GOOD = {"ISSUER": "https://issuer.example/", "AUDIENCE": "organize"}
TOO_LARGE = 10**400  # an integer that no float can hold


@pytest.mark.parametrize("value", [TOO_LARGE, -TOO_LARGE, "soon", [], None, True], ids=lambda value: repr(value)[:9])
def test_refuses_a_leeway_that_is_no_number(value: object) -> None:
    """Told by the setting's name, however large the number is."""
    with pytest.raises(ConfigurationError, match="here: LEEWAY must be a number of seconds"):
        read_settings({**GOOD, "LEEWAY": value}, "here: ")


@pytest.mark.parametrize(
    "value", [TOO_LARGE, math.inf, math.nan, -1, True, "1", None], ids=lambda value: repr(value)[:9]
)
def test_refuses_seconds_that_no_clock_counts(value: object) -> None:
    """A number of seconds is finite and not negative."""
    with pytest.raises(ConfigurationError, match="max_token_age must be a number of seconds, at least 0"):
        seconds("max_token_age", value)


def test_says_within_which_limits_a_number_must_be() -> None:
    """The limits themselves are within the limits."""
    with pytest.raises(ConfigurationError) as refused:
        seconds("leeway", -1)
    assert str(refused.value) == "leeway must be a number of seconds, at least 0, not -1"
    with pytest.raises(ConfigurationError) as refused:
        seconds("leeway", 301, at_most=300)
    assert str(refused.value) == "leeway must be a number of seconds, at least 0 and at most 300, not 301"
    with pytest.raises(ConfigurationError) as refused:
        whole_number("token_cache_size", -1)
    assert str(refused.value) == "token_cache_size must be a whole number, at least 0, not -1"
    assert [seconds("leeway", 0, at_most=300), seconds("leeway", 300, at_most=300)] == [0, 300]
    assert whole_number("token_cache_size", 0) == 0


def test_an_unknown_setting_is_told_all_that_are_known() -> None:
    """A name that was mistyped is found by looking along the line."""
    with pytest.raises(ConfigurationError) as refused:
        read_settings({**GOOD, "AUDIENSE": "organize"}, "TOKEN_GUARD_", also=("AUDIENCES",))
    known = ", ".join([*NAMES, "AUDIENCES"])
    assert str(refused.value) == (
        f"TOKEN_GUARD_AUDIENSE is not a setting; known are {known}; did you mean TOKEN_GUARD_AUDIENCE?"
    )


@pytest.mark.parametrize("text", ["", " \t"])
@pytest.mark.parametrize("name", NAMES)
def test_refuses_a_setting_that_is_set_but_empty(name: str, text: str) -> None:
    """As a compose file sets a variable that it has no value for."""
    with pytest.raises(ConfigurationError) as refused:
        read_settings({**GOOD, name: text}, "TOKEN_GUARD_")
    fix = "is required and empty" if name in GOOD else "is set but empty: unset it, or give it a value"
    assert str(refused.value) == f"TOKEN_GUARD_{name} {fix}"


@pytest.mark.parametrize("name", GOOD)
def test_demands_what_is_required(name: str) -> None:
    """Nobody's tokens are accepted by default."""
    others = {other: text for other, text in GOOD.items() if other != name}
    for values in (others, {**others, name: None}, {**others, name: []}):
        with pytest.raises(ConfigurationError) as refused:
            read_settings(values, "TOKEN_GUARD_")
        assert str(refused.value) == f"TOKEN_GUARD_{name} is required and not set"


@pytest.mark.parametrize(
    ("unknown", "meant"),
    [("audience", "AUDIENCE"), ("TOKEN_GUARD_AUDIENCE", "AUDIENCE"), ("token_guard_jwks_url", "JWKS_URI")],
)
def test_knows_a_setting_by_another_spelling(unknown: str, meant: str) -> None:
    """Lower case, or with the prefix that it has elsewhere."""
    with pytest.raises(ConfigurationError) as refused:
        read_settings({**GOOD, unknown: "organize"}, "TOKEN_GUARD: ")
    assert str(refused.value) == (
        f"TOKEN_GUARD: {unknown} is not a setting; known are {', '.join(NAMES)}; did you mean TOKEN_GUARD: {meant}?"
    )


@pytest.mark.parametrize(
    ("text", "issuer"),
    [("https://a.example/", "https://a.example/"), ("https://a/ https://b/", ["https://a/", "https://b/"])],
)
def test_an_issuer_alone_is_no_list(text: str, issuer: object) -> None:
    """Options that belong to one issuer may stand beside it; beside a list they could not."""
    assert read_settings({**GOOD, "ISSUER": text}, "")["issuer"] == issuer


@given(st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=3), st.text() | JSON_VALUES, max_size=3))
@settings(max_examples=200, deadline=None)
def test_any_settings_make_a_resource_server_or_a_configuration_error(values: dict[str, Any]) -> None:
    """What an operator writes is a working guard or a sentence at start-up, and words are split at spaces alone."""
    try:
        arguments = read_settings({**GOOD, **values}, "TOKEN_GUARD_")
        ResourceServer(**arguments)
    except ConfigurationError:
        return
    assert values.keys() <= set(NAMES)
    audience = values.get("AUDIENCE", GOOD["AUDIENCE"])
    assert arguments["audience"] == (audience.split() if isinstance(audience, str) else audience)
