"""Scopes: what a name may hold, what the token's claims grant, and what configuration adds. RFC 6749 3.3."""

import re
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from token_guard import (
    AccessToken,
    ConfigurationError,
    InsufficientScope,
    InvalidToken,
    Reason,
    ResourceServer,
    Scope,
    ScopeSet,
)
from token_guard.scopes import check_scope_name, close_implications, compile_scope_pattern
from token_guard.testing import LocalIssuer

ISSUER = LocalIssuer(algorithm="ES256")


def validated(claims: dict[str, Any], **options: Any) -> AccessToken:
    """The access token of claims, after the whole road."""
    organizer = ResourceServer(issuer=ISSUER.url, audience="organize", jwks=ISSUER.jwks(), **options)
    return organizer.validate(ISSUER.token("", claims=claims))


# One scope.


@pytest.mark.parametrize(
    ("text", "action", "resource"),
    [
        ("read:contacts", "read", "contacts"),
        ("Read:Contacts", "Read", "Contacts"),
        ("create:calendar-events", "create", "calendar-events"),
        ("read", None, None),
        ("contacts.read", None, None),
        ("read:", None, None),
        (":contacts", None, None),
        ("read:contacts:all", None, None),
        ("read/write:contacts", None, None),
        ("read:contacts\n", "read", "contacts\n"),
        ("", None, None),
    ],
)
def test_scope_reads_as_action_and_resource(text: str, action: str | None, resource: str | None) -> None:
    """A scope that does not fit the pattern is still a scope; its action and resource are None."""
    scope = Scope(text)
    assert (scope, scope.action, scope.resource) == (text, action, resource)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("{resource}.{action}", "contacts.read"),
        ("https://api.example/{resource}.{action}", "https://api.example/contacts.read"),
        ("api://{resource}/{action}", "api://contacts/read"),
        ("({action})[{resource}]", "(read)[contacts]"),
        ("{action}^{resource}", "read^contacts"),
        ("{action}-{resource}", "read-contacts"),
        ("{action}::{resource}", "read::contacts"),
        ("x{{action}|{resource}}", "x{read|contacts}"),
    ],
)
def test_pattern_tells_another_spelling(pattern: str, text: str) -> None:
    """Punctuation in a pattern stands for itself; what is spelled otherwise does not fit."""
    assert (Scope(text, pattern=pattern).action, Scope(text, pattern=pattern).resource) == ("read", "contacts")
    assert Scope("read:contacts", pattern=pattern).action is None
    assert Scope(text + "/", pattern=pattern).action is None


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "read",
        "{action}",
        "{resource}",
        "{action}{resource}",
        "{action}:{action}",
        "{action}:{resource}:{action}",
        None,
        7,
        [],
        {},
    ],
)
def test_refuses_a_pattern_without_both_fields(pattern: Any) -> None:
    """Each field stands once, with a separator between them; anything else is told at start-up."""
    with pytest.raises(ConfigurationError, match="scope_pattern"):
        validated({}, scope_pattern=pattern)


@pytest.mark.parametrize("name", ["a b", 'a"b', "a\\b", "é", "", " ", "a\n", "a\x7f", "a\0", None, 7, b"a", ["a"]])
def test_refuses_a_name_that_cannot_be_a_scope(name: object) -> None:
    """SCOPE-03: `%x21 / %x23-5B / %x5D-7E` only, and at least one of them."""
    with pytest.raises(ConfigurationError) as refused:
        check_scope_name(name)
    assert str(refused.value) == (
        f"{name!r} is not a scope: give one name per string, without spaces, quotes, backslashes or non-ASCII"
        " characters (RFC 6749 3.3)"
    )


@pytest.mark.parametrize("name", ["read:contacts", "!", "#[]~", "https://api.example/contacts.read", "a,b", "a=b;c"])
def test_accepts_every_other_name(name: str) -> None:
    """SCOPE-03: a scope is opaque text."""
    assert check_scope_name(name) == name


# A set of scopes.


def test_set_is_exact_and_keeps_its_order() -> None:
    """SCOPE-01, SCOPE-02: whole, case-sensitive, each once, in the order granted."""
    scopes = ScopeSet(["write:contacts", "read:contacts", "write:contacts"])
    assert list(scopes) == ["write:contacts", "read:contacts"]
    assert "read:contacts" in scopes
    for near in ("read", "read:contact", "read:contacts:all", "Read:Contacts", "xread:contacts", "*", "", None, 7):
        assert near not in scopes


def test_set_tells_actions_and_resources() -> None:
    """Namespaced scopes answer what may be done with a resource, and on which resources something may be done."""
    scopes = ScopeSet(["read:contacts", "create:contacts", "read:calendar", "openid"])
    assert scopes.actions("contacts") == {"read", "create"}
    assert scopes.resources("read") == {"contacts", "calendar"}
    assert scopes.actions("openid") == scopes.resources("openid") == frozenset()
    assert ScopeSet(["contacts.read"], pattern="{resource}.{action}").actions("contacts") == {"read"}


def test_set_compares_like_any_set() -> None:
    """Equal sets are equal whatever their order, and can be keys."""
    scopes = ScopeSet(["a", "b"])
    assert scopes == ScopeSet(["b", "a"])
    assert len({scopes, ScopeSet(["b", "a"])}) == 1
    assert scopes & {"a"} == ScopeSet(["a"])
    assert scopes >= {"a"}
    assert repr(scopes) == "ScopeSet(['a', 'b'])"


# What the claims of a token grant.


@pytest.mark.parametrize(
    ("claims", "granted"),
    [
        ({"scope": "read:contacts read:calendar"}, ["read:contacts", "read:calendar"]),
        ({"scope": "b a a"}, ["b", "a"]),
        ({"scope": "  a   b "}, ["a", "b"]),
        ({"scope": "a\tb\u00a0c"}, ["a\tb\u00a0c"]),
        ({"scope": ""}, []),
        ({"scope": " "}, []),
        ({}, []),
        ({"scp": "a b"}, ["a", "b"]),
        ({"scp": ["a", "b c"]}, ["a", "b c"]),
        ({"scp": []}, []),
        ({"scope": "a", "scp": ["b", "a"]}, ["a", "b"]),
        ({"permissions": ["a"], "roles": ["b"], "scopes": "c", "Scope": "d"}, []),
    ],
)
def test_scopes_of_a_token(claims: dict[str, Any], granted: list[str]) -> None:
    """SCOPE-01, SCOPE-04: `scope` is split at spaces alone, `scp` may be an array, other claims grant nothing."""
    assert list(validated(claims).scopes) == granted


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *zip(["scope"] * 6, [7, 0.5, True, {}, [], ["read"]], strict=True),
        *zip(["scp"] * 7, [7, False, {}, [1], ["a", None], [["a"]], [{"value": "a"}]], strict=True),
    ],
)
def test_refuses_a_scope_claim_of_another_type(name: str, value: object) -> None:
    """SCOPE-05: what is not text, or for `scp` an array of texts, is not guessed at."""
    with pytest.raises(InvalidToken) as refused:
        validated({name: value})
    assert refused.value.reason is Reason.CLAIM_MALFORMED


def test_other_claims_grant_scopes_where_configured() -> None:
    """SCOPE-05: the configured claims and no others, in the order configured."""
    claims = {"scope": "a", "permissions": ["b"], "https://api.example/scopes": "c d"}
    token = validated(claims, scope_claims=["permissions", "https://api.example/scopes"])
    assert list(token.scopes) == ["b", "c", "d"]


@pytest.mark.parametrize(
    "granted", ["read:all", "readonly", "xread", "Read", "READ", "read:", "read,write", "", "rea", "read\t"]
)
def test_a_scope_is_never_satisfied_by_something_near_it(granted: str) -> None:
    """SCOPE-01, SCOPE-02: no prefix, no part, no other case."""
    with pytest.raises(InsufficientScope) as refused:
        validated({"scope": granted}).require("read")
    assert refused.value.reason is Reason.INSUFFICIENT_SCOPE
    assert refused.value.scope == "read"


def test_authentication_is_decided_before_scope() -> None:
    """SCOPE-07: an expired token that lacks the scope, too, is expired, and its challenge names no scope."""
    organizer = ResourceServer(issuer=ISSUER.url, audience="organize", jwks=ISSUER.jwks())
    with pytest.raises(InvalidToken) as refused:
        organizer.validate(ISSUER.expired("")).require("read:contacts")
    assert refused.value.reason is Reason.EXPIRED
    assert "scope" not in dict(organizer.challenge(refused.value).headers)["WWW-Authenticate"]


# Implications.


def test_implied_scopes_are_granted_transitively() -> None:
    """SCOPE-09: admin implies write implies read; what was granted comes first; nothing is implied backwards."""
    implications = {"admin": {"write"}, "write": ["read"]}
    assert list(validated({"scope": "x admin"}, scope_implications=implications).scopes) == [
        "x",
        "admin",
        "write",
        "read",
    ]
    assert list(validated({"scope": "read"}, scope_implications=implications).scopes) == ["read"]
    assert list(validated({"scope": "admin:all"}, scope_implications=implications).scopes) == ["admin:all"]


@pytest.mark.parametrize(
    "implications",
    [
        {"a": ["a"]},
        {"a": ["b"], "b": ["a"]},
        {"a": ["b"], "b": ["c"], "c": ["b"]},
        {"a": ["b", "c"], "c": ["d"], "d": ["c"]},
    ],
)
def test_refuses_implications_that_form_a_cycle(implications: dict[str, list[str]]) -> None:
    """SCOPE-09: a cycle is told at start-up, wherever in the map it is."""
    with pytest.raises(ConfigurationError, match="cycle"):
        close_implications(implications)


@pytest.mark.parametrize(
    "implications",
    [
        {"a": "b"},
        {"a": None},
        {"a": 7},
        {"a": ["b c"]},
        {"a b": ["c"]},
        {7: ["a"]},
        {"a": [None]},
        {"a": b"b"},
        ["a"],
        "a",
        7,
    ],
)
def test_refuses_implications_that_are_no_map_of_scopes(implications: Any) -> None:
    """SCOPE-03: each name is a scope, and what it implies a collection of scopes."""
    with pytest.raises(ConfigurationError, match="scope"):
        validated({}, scope_implications=implications)


# Whatever the input.

TEXT = st.text("ab:./{}[]^-\\ \né😀", max_size=12) | st.text()


@given(TEXT, TEXT)
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_scope_under_any_pattern(text: str, pattern: str) -> None:
    """SCOPE-01: tokens may hold anything; what fits the pattern can be put together again."""
    template = f"{{action}}{pattern}:{{resource}}"
    assume(re.search(r"\{(action|resource)\}", pattern) is None)
    scope = Scope(text, pattern=template)
    assert scope == text
    if scope.action is not None:
        assert f"{scope.action}{pattern}:{scope.resource}" == text


@given(TEXT)
@settings(max_examples=100, deadline=None)
def test_any_pattern_compiles_or_is_a_configuration_error(pattern: str) -> None:
    """A pattern is text, never an expression."""
    for candidate in (pattern, f"{pattern}{{action}}{pattern}{{resource}}{pattern}"):
        try:
            fields = compile_scope_pattern(candidate)
        except ConfigurationError:
            continue
        assert set(fields.groupindex) == {"action", "resource"}


@given(st.lists(TEXT), st.text())
@settings(max_examples=100, deadline=None)
def test_any_set_answers_every_question(scopes: list[str], name: str) -> None:
    """SCOPE-02: membership is that of the list it was made from, and namespaces never raise."""
    made = ScopeSet(scopes)
    assert list(made) == list(dict.fromkeys(scopes))
    assert (name in made) == (name in scopes)
    assert all(f"{action}:{name}" in made for action in made.actions(name))
    assert all(f"{name}:{resource}" in made for resource in made.resources(name))
