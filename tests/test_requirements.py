"""What an operation demands of an access token, and which 403 tells the client. RFC 6750 3.1."""

from functools import partial
from typing import Any

import pytest

from token_guard import (
    AccessToken,
    ConfigurationError,
    InsufficientScope,
    Issuer,
    Reason,
    ResourceServer,
    all_of,
    any_of,
    client,
    permission,
    role,
    scope,
    user_only,
)
from token_guard.requirements import Requirement
from token_guard.testing import LocalIssuer

ISSUER = LocalIssuer(algorithm="ES256")
ORGANIZER = ResourceServer(issuer=ISSUER.url, audience="organize", jwks=ISSUER.jwks())

USER: dict[str, Any] = {
    "scope": "a b",
    "permissions": ["contacts.read", "c"],
    "roles": ["editor", {"value": "auditor", "display": "Auditor"}, {"display": "nobody"}, 7, None],
    "azp": "organizer-spa",
}
MACHINE = {"sub": "batch@clients", "azp": "batch", "gty": "client-credentials", "scope": "a"}
SCOPE, PERMISSION = Reason.INSUFFICIENT_SCOPE, Reason.INSUFFICIENT_PERMISSION


def token(claims: dict[str, Any]) -> AccessToken:
    return ORGANIZER.validate(ISSUER.token("", claims=claims))


@pytest.mark.parametrize(
    "requirement",
    [
        scope("a"),
        "a",
        all_of(),
        all_of("a", "b"),
        all_of("a", scope("a")),
        any_of("a", "x"),
        any_of("x", "a"),
        any_of(all_of("a", "x"), "b"),
        all_of(any_of("x", "a"), any_of("y", "b")),
        permission("contacts.read"),
        role("editor"),
        role("auditor"),
        client("organizer-spa"),
        user_only,
        any_of(scope("x"), permission("contacts.read"), client("batch")),
    ],
    ids=str,
)
def test_a_demand_is_met(requirement: Requirement | str) -> None:
    """SCOPE-08: all-of, any-of and their nesting; a plain string is a scope; nothing demanded is met by any token."""
    token(USER).require(requirement)


@pytest.mark.parametrize(
    ("requirement", "reason", "named"),
    [
        (scope("x"), SCOPE, "x"),
        ("A", SCOPE, "A"),
        (all_of("x", "a"), SCOPE, "x a"),
        (all_of("a", "x"), SCOPE, "a x"),
        (all_of("a", all_of("x", "a"), "y"), SCOPE, "a x y"),
        (any_of("x", "y"), SCOPE, "x"),
        (any_of(all_of("x", "y"), "z"), SCOPE, "z"),
        (any_of(all_of("x", "y"), all_of("a", "z")), SCOPE, "a z"),
        (any_of(all_of("a", "y"), all_of("b", "z")), SCOPE, "a y"),
        (any_of(permission("x"), "y"), PERMISSION, None),
        (any_of("y", permission("x")), SCOPE, "y"),
        (all_of("a", any_of("x", "y"), "z"), SCOPE, "a x z"),
        (permission("x"), PERMISSION, None),
        (permission("a"), PERMISSION, None),
        (scope("c"), SCOPE, "c"),
        (role("nobody"), PERMISSION, None),
        (role("Editor"), PERMISSION, None),
        (client("batch"), PERMISSION, None),
        (client("organizer"), PERMISSION, None),
        (all_of("a", permission("x")), PERMISSION, "a"),
        (all_of("x", permission("x")), SCOPE, "x"),
        (all_of("a", client("batch")), PERMISSION, "a"),
    ],
    ids=str,
)
def test_a_demand_that_is_not_met_names_what_the_operation_needs(
    requirement: Requirement | str, reason: Reason, named: str | None
) -> None:
    """SCOPE-06: all of all-of, in written order; of any-of the alternative that lacks fewest, first written first."""
    with pytest.raises(InsufficientScope) as refused:
        token(USER).require(requirement)
    assert (refused.value.status, refused.value.reason, refused.value.scope) == (403, reason, named)


def test_user_only_may_be_called() -> None:
    """The parentheses that every other demand has do no harm."""
    assert user_only() is user_only


def test_several_demands_are_all_of_them() -> None:
    """`require` takes what `requires` takes, and means all of it."""
    token(USER).require("a", permission("c"), user_only)
    token(USER).require()
    with pytest.raises(InsufficientScope) as refused:
        token(USER).require("a", "x", permission("c"))
    assert refused.value.scope == "a x"


@pytest.mark.parametrize("claims", [{"scope": None}, {"scope": ""}, {"permissions": ["a"], "roles": ["a"], "azp": "a"}])
def test_no_scope_claim_means_no_scopes(claims: dict[str, Any]) -> None:
    """SCOPE-04: nothing else stands in for a scope; an operation that needs none is allowed."""
    token(claims).require(all_of())
    with pytest.raises(InsufficientScope) as refused:
        token(claims).require("a")
    assert refused.value.reason is SCOPE


@pytest.mark.parametrize(
    "claims",
    [
        MACHINE,
        {"sub": "batch@clients"},
        {"sub": "batch", "azp": "batch"},
        {"sub": "batch", "client_id": "batch", "azp": "other"},
        {"gty": "client-credentials"},
        {"idtyp": "app"},
        {"sub": None},
    ],
)
def test_user_only_refuses_a_client_s_own_token(claims: dict[str, Any]) -> None:
    """A token that no user stands behind is refused, in every dialect that says so."""
    with pytest.raises(InsufficientScope) as refused:
        token(claims).require(user_only)
    assert refused.value.reason is PERMISSION


@pytest.mark.parametrize("name", ["client_id", "azp", "cid", "appid"])
def test_client_is_named_by_the_claim_of_any_issuer(name: str) -> None:
    """The client is found under each name that hosted services use for it."""
    token({"azp": None, name: "batch"}).require(client("batch"))


@pytest.mark.parametrize("roles", ["editor", {"value": "editor"}, None, 7, [["editor"]], [{"value": ["editor"]}]])
def test_roles_of_another_form_are_none(roles: object) -> None:
    """What is neither text nor an object with a `value` (RFC 9068 2.2.3.1) is no role."""
    with pytest.raises(InsufficientScope) as refused:
        token({"roles": roles}).require(role("editor"))
    assert refused.value.reason is PERMISSION


@pytest.mark.parametrize(
    ("claims", "doubt"),
    [
        ({"groups": []}, ""),
        (
            {"hasgroups": True},
            "; the token leaves roles out, as they are too many: whether the user has them is unknown",
        ),
    ],
)
def test_log_says_that_the_token_leaves_roles_out(claims: dict[str, Any], doubt: str) -> None:
    """The user may have the role all the same, which nobody would look for in the token."""
    organizer = ResourceServer(
        issuer=Issuer(ISSUER.url, jwks=ISSUER.jwks(), role_claims=("groups",)), audience="organize"
    )
    with pytest.raises(InsufficientScope) as refused:
        organizer.validate(ISSUER.token("", claims=claims)).require(role("editor"))
    assert refused.value.detail == f"the operation needs role editor{doubt}"


@pytest.mark.parametrize("make", [permission, role, client])
@pytest.mark.parametrize("name", ["", None, 7, ["a"], b"a"])
def test_a_demand_needs_a_name(make: Any, name: object) -> None:
    """SCOPE-03: told when the demand is written, not when the first request comes."""
    with pytest.raises(ConfigurationError) as refused:
        make(name)
    assert str(refused.value) == f"{make.__name__}() needs a non-empty string, not {name!r}"


@pytest.mark.parametrize("name", ["a b", 'a"b', "a\\b", "é", "read:contacts read:calendar"])
def test_a_demanded_scope_is_one_scope(name: str) -> None:
    """SCOPE-03: two scopes in one string are a mistake that would otherwise never be met."""
    for make in (scope, all_of, any_of):
        with pytest.raises(ConfigurationError, match="is not a scope"):
            make(name)


@pytest.mark.parametrize("member", [None, 7, ["a"], ("a", "b"), {"a"}, scope, user_only.__class__])
def test_refuses_what_is_no_requirement(member: Any) -> None:
    """A list in place of scopes, or a function that was not called, is told at once."""
    for make in (all_of, any_of, token(USER).require):
        with pytest.raises(ConfigurationError, match=r"is no requirement|in parentheses|one by one"):
            make(member)


def test_a_function_is_no_requirement() -> None:
    """SCOPE-03: a decorator without parentheses, or a lambda; its name says where to look in a whole module."""
    for view, name in ((token, "token"), (partial(token), repr(partial(token))), (scope, "scope")):
        with pytest.raises(ConfigurationError) as refused:
            all_of(view)  # type: ignore[arg-type]
        assert str(refused.value) == (
            f"{name} is no requirement: give those in parentheses, as in"
            ' @requires_scope("read:contacts") or @requires(role("editor")) above the view'
        )


@pytest.mark.parametrize(
    ("claims", "hint"),
    [
        ({"scope": "b"}, ""),
        (
            {"scope": "b", "granted": ["a"]},
            "; its claim 'granted' holds such: name it in the setting scope_claims, if they are to count",
        ),
    ],
)
def test_log_says_what_the_operation_needs(claims: dict[str, Any], hint: str) -> None:
    """SCOPE-06: and, where the token holds it elsewhere, the setting that would look there."""
    with pytest.raises(InsufficientScope) as refused:
        token(claims).require("a")
    assert refused.value.detail == f"the operation needs scope a{hint}"


def test_any_of_nothing_is_a_mistake() -> None:
    """SCOPE-08: no alternative could ever be met."""
    with pytest.raises(ConfigurationError, match=r"^any_of\(\) needs at least one alternative$"):
        any_of()


@pytest.mark.parametrize(
    ("requirement", "is_unknown"),
    [
        (role("x"), True),
        (all_of(role("x"), "a"), True),
        (all_of(role("x"), "x"), True),
        (any_of(role("x"), permission("p")), True),
        (any_of(permission("p"), role("x")), False),
        (permission("p"), False),
        (all_of(role("editor"), "x"), False),
    ],
    ids=str,
)
def test_a_role_that_the_token_leaves_out_is_unknown(requirement: Requirement, is_unknown: bool) -> None:
    """ENTRA-06: a 403 like any other for the client; the log tells apart what is lacking and what cannot be known."""
    roles = Issuer(ISSUER.url, jwks=ISSUER.jwks(), role_claims=["roles", "groups"])
    server = ResourceServer(issuer=roles, audience="organize")
    refusal = requirement.refusal(server.validate(ISSUER.token("", claims={**USER, "hasgroups": True})))
    assert refusal is not None
    assert ("unknown" in refusal.detail) is is_unknown


def test_a_demand_can_be_read() -> None:
    """The log says what the operation needs."""
    demand = all_of("a", any_of(permission("p"), role("r"), client("c")), user_only)
    assert str(demand) == "all of (scope a, any of (permission p, role r, client c), a user)"
