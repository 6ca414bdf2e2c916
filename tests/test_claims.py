"""The claim rules: each refuses what it must, with its own reason, and nothing else. The signature is not looked at."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import JSON_VALUES
from token_guard.access_token import AccessToken
from token_guard.claims import MAX_ACTORS, ClaimPolicy, certainly_right, check_claims
from token_guard.errors import InvalidToken, Reason
from token_guard.jws import Header, UnverifiedToken

NOW = 1_700_000_000
AUDIENCE = "https://api.example.com/v1"
POLICY = ClaimPolicy(
    issuer="https://as.example.com",
    audiences=frozenset({AUDIENCE}),
    profile="generic",
    leeway=0,
    scope_claims=("scope", "scp"),
)
LENIENT = replace(POLICY, leeway=30)
STRICT = replace(POLICY, profile="rfc9068")
CLAIMS: dict[str, Any] = {
    "iss": POLICY.issuer,
    "aud": AUDIENCE,
    "sub": "alice",
    "client_id": "spa",
    "jti": "1",
    "iat": NOW,
    "exp": NOW + 300,
    "scope": "read:contacts",
}
SEND = "the client must send its access token"
SET_THE_CLOCK = "set the clock of this machine, or the issuer's; leeway is for a few seconds"
SET_AUDIENCE = (
    "set audience to the name under which the issuer knows this API, or let the client ask for a token for it"
)
NEITHER_TEXT_NOR_ABSENT: list[object] = [5, 1.5, True, None, [], ["a"], {}]


def check(
    claims: Mapping[str, Any],
    policy: ClaimPolicy = POLICY,
    *,
    typ: str | None = None,
    without: str = "",
    now: float = NOW,
) -> AccessToken:
    """Judge the good claims with these changes; the token that they make, once no rule refuses it."""
    changed = {name: value for name, value in {**CLAIMS, **claims}.items() if name != without}
    check_claims(UnverifiedToken(Header("RS256", "r1", typ), changed, b"", b"", b""), policy, now)
    return AccessToken(changed, policy)


def reason(claims: Mapping[str, Any], policy: ClaimPolicy = POLICY, **options: Any) -> Reason:
    """The reason for which the good claims with these changes are refused."""
    with pytest.raises(InvalidToken) as refused:
        check(claims, policy, **options)
    return refused.value.reason


@pytest.mark.parametrize(
    ("claims", "policy", "detail"),
    [
        ({"exp": "soon"}, POLICY, "the claim 'exp' has the wrong type"),
        ({"aud": []}, POLICY, "the claim 'aud' has the wrong type"),
        (
            {"exp": NOW},
            POLICY,
            (
                f"exp is {NOW}, 0 s before this machine's time, {NOW}"
                "; where tokens just issued are refused, set the clock of this machine"
            ),
        ),
        ({"nbf": NOW + 1}, POLICY, f"nbf is {NOW + 1}, 1 s after this machine's time, {NOW}; {SET_THE_CLOCK}"),
        ({"iat": NOW + 1}, POLICY, f"iat is {NOW + 1}, 1 s after this machine's time, {NOW}; {SET_THE_CLOCK}"),
        (
            {"iat": NOW - 8},
            replace(POLICY, max_token_age=7),
            (
                f"iat is {NOW - 8}, 8 s before this machine's time, {NOW}"
                "; the setting max_token_age says how old a token may be"
            ),
        ),
        (
            {},
            STRICT,
            "the header's typ is not at+jwt, which profile='rfc9068' demands: leave the profile out, if it is JWT",
        ),
        ({"at_hash": "x"}, POLICY, f"this is not an access token: it has at_hash, as ID tokens do; {SEND}"),
        ({"c_hash": "x"}, POLICY, f"this is not an access token: it has c_hash, as ID tokens do; {SEND}"),
        ({"events": {}}, POLICY, f"this is not an access token: it has events, as logout tokens do; {SEND}"),
        ({"typ": "ID"}, POLICY, f"this is not an access token: its typ claim names another kind of token; {SEND}"),
        ({"token_use": "id"}, POLICY, f"this is not an access token: its token_use is not access; {SEND}"),
        ({"cnf": {"jkt": "x"}}, POLICY, "the token has cnf, and no binding method is supported"),
        ({"aud": "b"}, POLICY, f"the token is for 'b', accepted are '{AUDIENCE}'; {SET_AUDIENCE}"),
        (
            {"aud": ["b"]},
            replace(POLICY, audiences=frozenset({"d", "c"})),
            f"the token is for ['b'], accepted are 'c', 'd'; {SET_AUDIENCE}",
        ),
        (
            {"aud": "b"},
            replace(POLICY, audiences=frozenset()),
            f"the token is for 'b', accepted are none; {SET_AUDIENCE}",
        ),
        (
            {"token_use": "access"},
            replace(POLICY, client_ids=frozenset({"web"})),
            "client_id is 'spa', which is not among the issuer's client_ids: add it, if it is yours",
        ),
        (
            {"org_id": "b"},
            replace(POLICY, organizations=frozenset({"a"})),
            (
                "org_id is 'b', which the issuer's organizations do not list: add it, or let the client log in to one"
                " that they do"
            ),
        ),
        (
            {"tid": "b"},
            replace(POLICY, tenants=frozenset({"a"})),
            f"the tenant (tid) is 'b', of the issuer '{POLICY.issuer}'",
        ),
        (
            {},
            replace(POLICY, tenants=frozenset({"a"})),
            "the token names no tenant (claim tid), which tokens of this issuer must",
        ),
        (
            {"tid": ["a"]},
            replace(POLICY, tenants=frozenset({"a"})),
            f"the tenant (tid) is ['a'], of the issuer '{POLICY.issuer}'",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_log_says_what_was_found_and_what_is_needed(claims: dict[str, Any], policy: ClaimPolicy, detail: str) -> None:
    """The client is told little; the operator sees from one line which setting or which claim is wrong."""
    with pytest.raises(InvalidToken) as refused:
        check(claims, policy)
    assert refused.value.detail == detail


@pytest.mark.parametrize(
    ("name", "policy", "fix"),
    [
        ("exp", POLICY, "no token without it is accepted"),
        ("jti", STRICT, "profile='rfc9068' demands it"),
        ("iat", replace(POLICY, max_token_age=9), "max_token_age needs it"),
    ],
)
def test_log_names_the_claim_that_is_missing(name: str, policy: ClaimPolicy, fix: str) -> None:
    """JWT-03: and what demands it."""
    with pytest.raises(InvalidToken) as refused:
        check({}, policy, without=name)
    assert refused.value.detail == f"the token has no {name}; {fix}"


def test_log_says_that_an_id_token_has_a_nonce_and_no_scope() -> None:
    """What tells the ID tokens of issuers that put no hash into them."""
    with pytest.raises(InvalidToken) as refused:
        check({"nonce": "x"}, without="scope")
    assert refused.value.detail == f"this is not an access token: it has nonce and no scope; {SEND}"


# Times.


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("value", [str(NOW), True, False, None, [1], {}, math.inf, math.nan, 10**400], ids=repr)
def test_refuses_a_time_that_is_no_finite_number(name: str, value: object) -> None:
    """JWT-01: times are JSON numbers; a text, a boolean, null, an array or an infinite number is refused."""
    assert reason({name: value}) is Reason.CLAIM_MALFORMED


@pytest.mark.parametrize(
    ("claims", "refused"),
    [
        ({"exp": NOW + 300}, Reason.EXPIRED),
        ({"exp": NOW - 300}, Reason.EXPIRED),
        ({"exp": 10**300, "nbf": 0, "iat": 0}, Reason.EXPIRED),
    ],
)
def test_a_clock_that_tells_no_time_accepts_nothing(claims: dict[str, Any], refused: Reason) -> None:
    """JWT-02: nothing is later than NaN, and nothing earlier."""
    assert reason(claims, now=math.nan) is refused


@pytest.mark.parametrize(
    ("policy", "claims", "span"),
    [
        (POLICY, {"exp": 500, "nbf": 20, "iat": 10}, (21, 499)),
        (LENIENT, {"exp": 500, "nbf": 10, "iat": 20}, (-9, 529)),
        (replace(LENIENT, max_token_age=100), {"exp": 500, "iat": 20}, (-9, 149)),
        (replace(LENIENT, max_token_age=1000), {"exp": 500, "iat": 20}, (-9, 529)),
    ],
)
def test_times_are_certainly_right_a_second_within_their_bounds(
    policy: ClaimPolicy, claims: dict[str, Any], span: tuple[float, float]
) -> None:
    """JWT-04, JWT-05: so that rounding cannot matter, and hits between them need no look at the claims."""
    assert certainly_right(claims, policy) == span


def test_keeps_a_bounded_number_of_grants() -> None:
    """Whoever asks for other scopes each time does not fill the memory."""
    policy = replace(POLICY)
    for number in range(300):
        assert list(check({"scope": str(number)}, policy).scopes) == [str(number)]
    assert policy._scope_set.cache_info().currsize == 256  # type: ignore[attr-defined]


def test_scopes_are_spelled_as_the_policy_says() -> None:
    """By its pattern, which tells the action from the resource."""
    scopes = check({"scope": "contacts.read"}, replace(POLICY, scope_pattern="{resource}.{action}")).scopes
    assert scopes.actions("contacts") == {"read"}


def test_accepts_fractions_of_seconds() -> None:
    """JWT-01: a time may be an integer or a fraction."""
    token = check({"exp": NOW + 300.5, "nbf": NOW - 0.5, "iat": NOW - 0.25})
    assert (token.expires_at, token.issued_at) == (NOW + 300.5, NOW - 0.25)


@pytest.mark.parametrize(
    ("policy", "claims", "refused"),
    [
        (POLICY, {"exp": NOW + 1}, None),
        (POLICY, {"exp": NOW}, Reason.EXPIRED),
        (POLICY, {"exp": 0}, Reason.EXPIRED),
        (POLICY, {"exp": -(10**300)}, Reason.EXPIRED),
        (LENIENT, {"exp": NOW - 29}, None),
        (LENIENT, {"exp": NOW - 30}, Reason.EXPIRED),
        (POLICY, {"nbf": NOW}, None),
        (POLICY, {"nbf": NOW + 1}, Reason.NOT_YET_VALID),
        (LENIENT, {"nbf": NOW + 30}, None),
        (LENIENT, {"nbf": NOW + 31}, Reason.NOT_YET_VALID),
        (POLICY, {"iat": NOW}, None),
        (POLICY, {"iat": NOW + 3600}, Reason.ISSUED_IN_FUTURE),
        (LENIENT, {"iat": NOW + 30}, None),
        (LENIENT, {"iat": NOW + 31}, Reason.ISSUED_IN_FUTURE),
        (replace(POLICY, max_token_age=600), {"iat": NOW - 600}, None),
        (replace(POLICY, max_token_age=600), {"iat": NOW - 601}, Reason.TOO_OLD),
        (replace(LENIENT, max_token_age=600), {"iat": NOW - 630}, None),
        (replace(LENIENT, max_token_age=600), {"iat": NOW - 631}, Reason.TOO_OLD),
    ],
)
def test_judges_times_to_the_second(policy: ClaimPolicy, claims: dict[str, Any], refused: Reason | None) -> None:
    """JWT-02, JWT-04, JWT-05: `exp` is exclusive, `nbf` and `iat` are inclusive; leeway widens each by itself alone."""
    if refused:
        assert reason(claims, policy) is refused
    else:
        check(claims, policy)


@pytest.mark.parametrize(
    ("name", "policy"), [("exp", POLICY), ("aud", POLICY), ("iat", replace(POLICY, max_token_age=9))]
)
def test_refuses_a_token_without_a_claim_that_a_rule_needs(name: str, policy: ClaimPolicy) -> None:
    """JWT-03, JWT-10, JWT-05: `exp` and `aud` are required, `iat` where the age of a token is limited."""
    assert reason({}, policy, without=name) is Reason.CLAIM_MISSING


@pytest.mark.parametrize("name", ["nbf", "iat", "sub", "jti", "client_id", "scope"])
def test_accepts_a_token_without_an_optional_claim(name: str) -> None:
    """JWT-05: outside the strict profile `iat` and the others may be absent."""
    assert name not in check({}, without=name).claims


# Audience.


@pytest.mark.parametrize("audience", [AUDIENCE, ["x", AUDIENCE], [AUDIENCE], [AUDIENCE, AUDIENCE]])
def test_accepts_an_audience_that_is_ours(audience: object) -> None:
    """JWT-08: `aud` is one string or an array of strings, of which one is ours."""
    assert AUDIENCE in check({"aud": audience}).audience


@pytest.mark.parametrize("audience", [[], "", None, 7, [7], [AUDIENCE, 7], [[AUDIENCE]], {}, {AUDIENCE: 1}, True])
def test_refuses_a_malformed_audience(audience: object) -> None:
    """JWT-09: what is neither a string nor an array of strings is not searched for ours."""
    assert reason({"aud": audience}) is Reason.CLAIM_MALFORMED


@pytest.mark.parametrize(
    "audience",
    [
        "https://other",
        ["https://other", ""],
        f"{AUDIENCE}.evil",
        AUDIENCE[:-1],
        f"{AUDIENCE}/",
        AUDIENCE.upper(),
        "*",
        f"x {AUDIENCE}",
        f" {AUDIENCE}",
        f"{AUDIENCE}\x00",
        "https://northwind.auth0.com/userinfo",
    ],
)
def test_refuses_another_audience(audience: object) -> None:
    """JWT-10, JWT-11, AUTH0-03: audiences are compared whole: no prefix, substring, wildcard or case folding."""
    assert reason({"aud": audience}) is Reason.WRONG_AUDIENCE


def test_accepts_any_of_several_configured_audiences() -> None:
    """JWT-08: one of ours is enough; a URN and a plain word are as good audiences as an address."""
    policy = replace(POLICY, audiences=frozenset({"organize", "urn:old"}))
    assert check({"aud": "urn:old"}, policy).audience == ("urn:old",)
    assert reason({"aud": "organiz"}, policy) is Reason.WRONG_AUDIENCE


# Types of the other claims.


@pytest.mark.parametrize("name", ["sub", "jti", "client_id", "azp", "cid", "appid", "org_id"])
@pytest.mark.parametrize("value", NEITHER_TEXT_NOR_ABSENT, ids=repr)
def test_refuses_a_name_that_is_not_text(name: str, value: object) -> None:
    """JWT-13: who a token speaks for and who asked for it are strings, where they are present."""
    assert reason({name: value}) is Reason.CLAIM_MALFORMED


@pytest.mark.parametrize("value", ["read:contacts", 7, None, {}, ["read", 7], [["read"]]], ids=repr)
def test_refuses_permissions_that_are_no_array_of_strings(value: object) -> None:
    """AUTH0-06: `permissions` is an array of strings."""
    assert reason({"permissions": value}) is Reason.CLAIM_MALFORMED


@pytest.mark.parametrize("value", [7, {}, None, ["read"], True], ids=repr)
def test_refuses_a_scope_that_is_no_string(value: object) -> None:
    """SCOPE-05: a `scope` of another type is not guessed at."""
    assert reason({"scope": value}) is Reason.CLAIM_MALFORMED


def test_reads_scopes_of_every_configured_claim() -> None:
    """SCOPE-01: the scopes are the union of the claims, `scp` as an array or a string; only a space separates."""
    assert set(check({"scp": ["read:calendar"]}).scopes) == {"read:contacts", "read:calendar"}
    assert set(check({"scp": "a  b a", "scope": "c\td"}).scopes) == {"a", "b", "c\td"}
    assert set(check({"roles": ["admin"]}, replace(POLICY, scope_claims=("roles",))).scopes) == {"admin"}
    assert reason({"roles": 7}, replace(POLICY, scope_claims=("roles",))) is Reason.CLAIM_MALFORMED


def test_keeps_unknown_claims_as_they_are() -> None:
    """JWT-14, AUTH0-09: unknown claims are preserved, under their literal names."""
    namespaced = {"https://x.y/roles": [{"a": 1}], "a.b": None}
    assert namespaced.items() <= check(namespaced).claims.items()


def test_reads_no_claim_under_another_spelling() -> None:
    """JWT-14: names are case-sensitive: `EXP` does not count as `exp`."""
    assert reason({"EXP": NOW + 300}, without="exp") is Reason.CLAIM_MISSING


# Actors.


def nested(depth: int) -> dict[str, Any]:
    actor: dict[str, Any] = {"sub": "service"}
    for _ in range(depth - 1):
        actor = {"sub": "service", "act": actor}
    return actor


@pytest.mark.parametrize("name", ["act", "may_act"])
@pytest.mark.parametrize(
    "value",
    ["service", None, [], {"sub": 7}, {"iss": 7}, {"client_id": 7}, {"act": None}, nested(MAX_ACTORS + 1)],
    ids=repr,
)
def test_refuses_an_actor_that_is_no_object(name: str, value: object) -> None:
    """An actor is an object with a name, and the actors before it are as well, up to a bound."""
    assert reason({name: value}) is Reason.CLAIM_MALFORMED


def test_accepts_actors_up_to_the_bound() -> None:
    """The actors before the last one are history and readable."""
    actor = check({"act": nested(MAX_ACTORS)}).actor
    assert actor is not None
    assert actor.actor is not None
    assert actor.subject == "service"


# Other kinds of token.


@pytest.mark.parametrize(
    "claims",
    [
        {"at_hash": "x"},
        {"at_hash": None},
        {"c_hash": "x"},
        {"typ": "ID"},
        {"typ": "Refresh"},
        {"typ": "Offline"},
        {"typ": "Logout"},
        {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}},
        {"token_use": "id"},
        {"token_use": None},
        {"token_use": ["access"]},
    ],
    ids=repr,
)
def test_refuses_another_kind_of_token(claims: dict[str, Any]) -> None:
    """BCP-04: an ID or refresh token is no access token, whatever else it says; typ `at+jwt` would say otherwise."""
    assert reason(claims) is Reason.WRONG_TYPE
    assert reason(claims, typ="jwt") is Reason.WRONG_TYPE
    check(claims, typ="at+jwt")


def test_refuses_a_nonce_without_scopes() -> None:
    """AUTH0-04: an ID token often has a `nonce`; so do the access tokens of some issuers, next to their scopes."""
    assert reason({"nonce": "n"}, without="scope") is Reason.WRONG_TYPE
    check({"nonce": "n"})
    check({"nonce": "n", "scp": ["read"]}, without="scope")


@pytest.mark.parametrize(
    "claims",
    [{"typ": "Bearer"}, {"token_use": "access"}, {"typ": 7}, {"typ": ["ID"]}, {"events": ["moved"]}, {"events": "all"}],
    ids=repr,
)
def test_accepts_kinds_that_hosted_services_write_into_access_tokens(claims: dict[str, Any]) -> None:
    """The claims `typ`, `token_use` and `events` refuse only what names another kind of token."""
    check(claims)


@pytest.mark.parametrize("confirmation", [{"jkt": "x"}, {}, None, "x"], ids=repr)
@pytest.mark.parametrize("typ", [None, "jwt", "at+jwt"])
def test_refuses_a_sender_constrained_token(confirmation: object, typ: str | None) -> None:
    """A token with `cnf`, whatever its value, must not pass as a bearer token."""
    assert reason({"cnf": confirmation}, typ=typ) is Reason.SENDER_CONSTRAINED


# The strict profile.


@pytest.mark.parametrize("name", ["exp", "aud", "sub", "client_id", "iat", "jti"])
def test_strict_profile_demands_every_claim(name: str) -> None:
    """AT-03: RFC 9068 requires these claims of every access token."""
    assert reason({}, STRICT, without=name, typ="at+jwt") is Reason.CLAIM_MISSING


@pytest.mark.parametrize("typ", [None, "jwt"])
def test_strict_profile_demands_its_type(typ: str | None) -> None:
    """AT-01: under RFC 9068 only `at+jwt` is an access token."""
    assert reason({}, STRICT, typ=typ) is Reason.WRONG_TYPE
    check({}, STRICT, typ="at+jwt")


@pytest.mark.parametrize("claims", [{"auth_time": "x"}, {"acr": 7}, {"amr": {}}], ids=repr)
def test_odd_authentication_claims_crash_nothing(claims: dict[str, Any]) -> None:
    """AT-07: claims about the authentication are handed on as they are, under their literal names."""
    assert claims.items() <= check(claims).claims.items()


# Organizations.


@pytest.mark.parametrize(("organization", "refused"), [("org_1", None), ("org_2", "wrong"), ("ORG_1", "wrong")])
def test_accepts_only_organizations_that_are_ours(organization: str, refused: str | None) -> None:
    """AUTH0-07: `org_id` must be one of those that the setting names, to the letter."""
    policy = replace(POLICY, organizations=frozenset({"org_1"}))
    claims = {"org_id": organization}
    if refused:
        assert reason(claims, policy) is Reason.WRONG_ORGANIZATION
    else:
        assert check(claims, policy).organization == "org_1"


def test_refuses_a_token_of_no_organization_where_one_is_demanded() -> None:
    """AUTH0-07: a missing `org_id` is not one of ours; without the setting it does not matter."""
    assert reason({}, replace(POLICY, organizations=frozenset({"org_1"}))) is Reason.WRONG_ORGANIZATION
    assert check({}).organization is None


# Tenants and clients.

TENANT = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
OF_TENANTS = replace(POLICY, issuer="https://as.example.com/{tenantid}/", tenants=frozenset({TENANT, "b"}))


@pytest.mark.parametrize(
    ("tenants", "issuer", "tenant", "is_ours"),
    [
        (frozenset({TENANT}), OF_TENANTS.issuer, TENANT, True),
        (frozenset({TENANT, "b"}), OF_TENANTS.issuer, "b", False),
        (frozenset({"b"}), OF_TENANTS.issuer, TENANT, False),
        ("any", OF_TENANTS.issuer, TENANT, True),
        ("any", OF_TENANTS.issuer, "b", False),
        ("any", OF_TENANTS.issuer, "an", False),
        (frozenset({TENANT}), f"https://as.example.com/{TENANT}/", TENANT, True),
        (frozenset({TENANT}), f"https://as.example.com/{TENANT}/", "b", False),
        ("any", OF_TENANTS.issuer, None, False),
        (frozenset({TENANT}), OF_TENANTS.issuer, None, False),
        (frozenset({TENANT}), OF_TENANTS.issuer, 7, False),
        (frozenset({TENANT}), OF_TENANTS.issuer, [TENANT], False),
    ],
    ids=lambda value: str(sorted(value)) if isinstance(value, frozenset) else str(value),
)
def test_tenant_is_one_of_ours_and_that_of_the_issuer(tenants: Any, issuer: str, tenant: object, is_ours: bool) -> None:
    """ENTRA-02: `tid` is listed, where any list is, and fills the template to the issuer of the token."""
    policy, claims = replace(POLICY, issuer=issuer, tenants=tenants), {"iss": f"https://as.example.com/{TENANT}/"}
    if is_ours:
        assert check({**claims, "tid": tenant}, policy).claims["tid"] == TENANT
    else:
        assert reason({**claims, "tid": tenant}, policy) is Reason.WRONG_ISSUER


def test_tenant_is_not_asked_for_where_none_is_configured() -> None:
    """A `tid` of any form is an unknown claim elsewhere."""
    check({"tid": 7})


@pytest.mark.parametrize(
    ("claims", "without", "refused"),
    [
        ({"token_use": "access"}, "aud", None),
        ({"token_use": "access"}, "", None),
        ({}, "aud", Reason.CLAIM_MISSING),
        ({"token_use": "access"}, "exp", Reason.CLAIM_MISSING),
        ({"token_use": "id"}, "aud", Reason.WRONG_TYPE),
        ({"token_use": "access", "client_id": "web"}, "aud", Reason.WRONG_AUDIENCE),
        ({"token_use": "access", "client_id": "web"}, "", Reason.WRONG_AUDIENCE),
        ({"token_use": "access", "azp": "spa", "aud": AUDIENCE}, "client_id", Reason.WRONG_AUDIENCE),
        ({"token_use": "access", "aud": "other"}, "", Reason.WRONG_AUDIENCE),
        ({"token_use": "access", "aud": []}, "", Reason.CLAIM_MALFORMED),
    ],
)
def test_client_takes_the_place_of_an_audience(claims: dict[str, Any], without: str, refused: Reason | None) -> None:
    """COG-01, COG-02: the client is one of ours, always; the audience too, where there is one."""
    policy = replace(POLICY, client_ids=frozenset({"spa"}))
    if refused:
        assert reason(claims, policy, without=without) is refused
    else:
        assert check(claims, policy, without=without).client_id == "spa"


def test_age_is_limited_without_an_audience_as_well() -> None:
    """JWT-05: `iat` is required where the age of a token is limited."""
    policy = replace(POLICY, client_ids=frozenset({"spa"}), max_token_age=600)
    assert reason({"token_use": "access"}, policy, without="iat") is Reason.CLAIM_MISSING


# What a handler reads.


@pytest.mark.parametrize(
    ("claims", "without", "client_id"),
    [
        ({}, "", "spa"),
        ({"azp": "web"}, "client_id", "web"),
        ({"azp": "web"}, "", "spa"),
        ({"cid": "okta"}, "client_id", "okta"),
        ({"appid": "entra"}, "client_id", "entra"),
        ({}, "client_id", None),
    ],
)
def test_reads_the_client_from_the_claim_of_each_dialect(
    claims: dict[str, Any], without: str, client_id: str | None
) -> None:
    """AUTH0-02: the client is in `client_id`, or where the issuer's dialect writes it."""
    assert check(claims, without=without).client_id == client_id


@pytest.mark.parametrize(
    ("claims", "without", "is_client"),
    [
        ({}, "", False),
        ({"sub": "spa"}, "", True),
        ({"sub": "spa@clients"}, "", True),
        ({"gty": "client-credentials"}, "", True),
        ({"idtyp": "app"}, "", True),
        ({}, "sub", True),
        ({"gty": "password"}, "", False),
        ({"oid": "alice"}, "", True),
        ({"oid": "alice", "scp": "read"}, "", False),
        ({"oid": "bob"}, "", False),
        ({"preferred_username": "service-account-spa"}, "", True),
        ({"preferred_username": "service-account-spa", "client_id": "SPA"}, "", True),
        ({"preferred_username": "service-account-web"}, "", False),
        ({"preferred_username": "service-account-none"}, "client_id", False),
        ({"preferred_username": ["service-account-spa"]}, "", False),
    ],
)
def test_tells_a_client_of_its_own_from_a_user(claims: dict[str, Any], without: str, is_client: bool) -> None:
    """AT-08, AUTH0-05: a client's own token is recognised by its subject or its grant; `sub` alone is no user."""
    assert check(claims, without=without).is_client is is_client


def test_offers_roles_as_strings_and_as_objects() -> None:
    """AT-06: roles are read from arrays of strings and of objects with `value`; anything else is left out."""
    assert check({"roles": ["admin", {"value": "editor"}, 7, {}, None]}).roles == ("admin", "editor")
    assert check({"roles": "admin"}).roles == ()


@pytest.mark.parametrize(
    ("paths", "claims", "roles"),
    [
        ((("a", "b", "roles"),), {"a": {"b": {"roles": ["x"]}}}, ("x",)),
        ((("a.b.roles",),), {"a.b.roles": ["x"], "a": {"b": {"roles": ["y"]}}}, ("x",)),
        ((("a", "b", "roles"),), {"a": {"b.roles": ["x"]}}, ()),
        ((("a", "b"),), {"a": [{"b": ["x"]}]}, ()),
        ((("a", "b"),), {"a": {"b": {"x": ["x"]}}}, ()),
        ((("a",),), {"a": {"x": 1}}, ()),
        ((("a",), ("b", "c")), {"b": {"c": ["y", {"value": "z"}]}, "a": ["x", 7]}, ("x", "y", "z")),
    ],
    ids=str,
)
def test_reads_roles_of_every_configured_claim(
    paths: tuple[tuple[str, ...], ...], claims: dict[str, Any], roles: tuple[str, ...]
) -> None:
    """KC-03, COG-03: a path leads through objects to an array; what is of another form holds no roles."""
    assert check(claims, replace(POLICY, role_claims=paths)).roles == roles


def test_implied_scopes_count() -> None:
    """SCOPE-09: a scope grants what the configuration says that it implies."""
    policy = replace(POLICY, scope_implications={"write:contacts": ("read:contacts",)})
    assert "read:contacts" in check({"scope": "write:contacts"}, policy).scopes


# The order of the rules.

FAULTS: list[tuple[Reason, dict[str, Any]]] = [
    (Reason.CLAIM_MALFORMED, {"sub": 7}),
    (Reason.WRONG_ISSUER, {"tid": "b"}),
    (Reason.WRONG_TYPE, {"token_use": "id"}),
    (Reason.SENDER_CONSTRAINED, {"cnf": {}}),
    (Reason.WRONG_AUDIENCE, {"aud": "other"}),
    (Reason.WRONG_ORGANIZATION, {"org_id": "org_2"}),
    (Reason.EXPIRED, {"exp": NOW}),
    (Reason.NOT_YET_VALID, {"nbf": NOW + 60}),
    (Reason.ISSUED_IN_FUTURE, {"iat": NOW + 60}),
]


@pytest.mark.parametrize("first", range(len(FAULTS)), ids=[fault[0] for fault in FAULTS])
def test_refuses_for_the_first_of_several_faults(first: int) -> None:
    """The order of the rules is fixed: what is wrong with a token has one answer."""
    policy = replace(OF_TENANTS, organizations=frozenset({"org_1"}), max_token_age=600)
    claims: dict[str, Any] = {"org_id": "org_1", "iss": f"https://as.example.com/{TENANT}/", "tid": TENANT}
    for _, fault in FAULTS[first:]:
        claims |= fault
    assert reason(claims, policy) is FAULTS[first][0]


def test_a_missing_claim_is_told_before_any_other_fault() -> None:
    """What a rule needs is asked for first, and the age of a token last."""
    everything = {name: value for _, fault in FAULTS for name, value in fault.items()}
    assert reason(everything, without="exp") is Reason.CLAIM_MISSING
    policy = replace(POLICY, max_token_age=600)
    assert reason({"nbf": NOW + 1, "iat": NOW - 9999}, policy) is Reason.NOT_YET_VALID


# Whatever the claims.

POLICIES = st.sampled_from(
    [POLICY, LENIENT, STRICT, replace(POLICY, organizations=frozenset({"org_1"})), replace(POLICY, max_token_age=60)]
)
READ = ["exp", "nbf", "iat", "aud", "sub", "jti", "client_id", "azp", "scope", "scp", "permissions", "act", "org_id"]
KINDS = ["typ", "token_use", "nonce", "at_hash", "events", "cnf"]
VALUES = st.sampled_from([AUDIENCE, [AUDIENCE], "org_1", "access", "ID", {"sub": "a"}, NOW, NOW + 1.5]) | JSON_VALUES


@given(st.dictionaries(st.sampled_from(READ + KINDS), VALUES, max_size=3), POLICIES, st.sampled_from([None, "at+jwt"]))
@settings(max_examples=200, deadline=None)
def test_any_claims_are_a_token_or_a_refusal(claims: dict[str, Any], policy: ClaimPolicy, typ: str | None) -> None:
    """CHAL-12: nothing but InvalidToken leaves, and what is accepted keeps the rules that protect most."""
    try:
        token = check(claims, policy, typ=typ)
    except InvalidToken as refused:
        assert str(refused).isascii()  # noqa: PT017
        return
    assert AUDIENCE in token.audience
    assert token.expires_at > NOW - policy.leeway
    assert "cnf" not in token.claims
    assert typ is not None or not ("at_hash" in token.claims or isinstance(token.claims.get("events"), dict))
    assert policy.organizations is None or token.organization in policy.organizations


TIMES = st.integers(NOW - 70, NOW + 70) | st.floats(NOW - 70, NOW + 70)


@given(TIMES, TIMES, TIMES, st.integers(0, 60), st.none() | st.integers(0, 60))
@settings(max_examples=200, deadline=None)
def test_any_times_are_accepted_exactly_while_they_are_right(
    exp: float, nbf: float, iat: float, leeway: float, max_age: float | None
) -> None:
    """JWT-02, JWT-04 to JWT-06: the leeway forgives on both sides, and on no side more."""
    policy = replace(POLICY, leeway=leeway, max_token_age=max_age)
    right = exp > NOW - leeway and nbf <= NOW + leeway and iat <= NOW + leeway
    if right and (max_age is None or iat >= NOW - leeway - max_age):
        assert check({"exp": exp, "nbf": nbf, "iat": iat}, policy).expires_at == exp
    else:
        assert reason({"exp": exp, "nbf": nbf, "iat": iat}, policy) in {
            Reason.EXPIRED,
            Reason.NOT_YET_VALID,
            Reason.ISSUED_IN_FUTURE,
            Reason.TOO_OLD,
        }
