"""AccessToken: what a handler reads, and what it cannot change. RFC 7519 4, RFC 9068 2.2, RFC 8693 4.1."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import JSON_VALUES
from token_guard import AccessToken, ConfigurationError, InsufficientScope, InvalidToken, Reason, ResourceServer
from token_guard.request import RequestCell, current_cell
from token_guard.testing import LocalIssuer
from token_guard.testing.keys import base64url

NOW = 1_700_000_000
ISSUER = LocalIssuer(algorithm="ES256", clock=lambda: NOW)
ORGANIZER = ResourceServer(issuer=ISSUER.url, audience="organize", jwks=ISSUER.jwks(), clock=lambda: NOW)


def validated(**claims: Any) -> AccessToken:
    return ORGANIZER.validate(ISSUER.token(claims=claims))


def refusal(**claims: Any) -> Reason:
    with pytest.raises(InvalidToken) as refused:
        validated(**claims)
    return refused.value.reason


def test_a_user_s_token_reads_as_it_was_issued() -> None:
    """Every property names a claim, and times are in seconds."""
    token = validated(permissions=["contacts.read"], roles=["editor"], org_id="org_1")
    assert (token.subject, token.issuer, token.audience) == ("auth0|alice", ISSUER.url, ("organize",))
    assert (token.client_id, token.organization) == ("organizer-spa", "org_1")
    assert (token.issued_at, token.expires_at) == (NOW, NOW + ISSUER.lifetime)
    assert (list(token.scopes), token.permissions, token.roles) == (["read:contacts"], ("contacts.read",), ("editor",))
    assert (token.actor, token.is_client) == (None, False)


def test_a_token_with_the_least_claims_reads_as_empty() -> None:
    """What a token does not say is None or empty, never an exception."""
    token = validated(sub=None, azp=None, scope=None, iat=None)
    assert (token.subject, token.client_id, token.issued_at, token.organization, token.actor) == (None,) * 5
    assert (list(token.scopes), token.permissions, token.roles) == ([], (), ())
    assert token.is_client


def test_audience_and_times_are_kept_as_they_are() -> None:
    """All audiences, this API's among them; fractions of a second stay."""
    token = validated(aud=["urn:other", "organize"], exp=NOW + 0.5, iat=NOW - 0.5)
    assert token.audience == ("urn:other", "organize")
    assert (token.expires_at, token.issued_at) == (NOW + 0.5, NOW - 0.5)


@pytest.mark.parametrize(
    ("claims", "client_id"),
    [
        ({"client_id": "a", "azp": "b", "cid": "c", "appid": "d"}, "a"),
        ({"azp": "b", "cid": "c", "appid": "d"}, "b"),
        ({"azp": None, "cid": "c", "appid": "d"}, "c"),
        ({"azp": None, "appid": "d"}, "d"),
    ],
)
def test_client_has_the_name_that_the_issuer_uses(claims: dict[str, Any], client_id: str) -> None:
    """`client_id` (RFC 9068 2.2) first, then what hosted services call it."""
    assert validated(**claims).client_id == client_id


@pytest.mark.parametrize(
    ("claims", "is_client"),
    [
        ({}, False),
        ({"sub": "organizer-spa"}, True),
        ({"sub": "organizer-spa "}, False),
        ({"sub": "batch@clients"}, True),
        ({"sub": "batch@clients.example"}, False),
        ({"gty": "client-credentials"}, True),
        ({"gty": "password"}, False),
        ({"gty": ["client-credentials"]}, False),
        ({"idtyp": "app"}, True),
        ({"idtyp": "user"}, False),
        ({"sub": None}, True),
    ],
)
def test_tells_a_client_s_own_token(claims: dict[str, Any], is_client: bool) -> None:
    """RFC 9068 5: a client that acts for itself, in every dialect that says so."""
    assert validated(**claims).is_client is is_client


def test_claims_have_literal_names_and_cannot_be_changed() -> None:
    """A handler, or what it calls, cannot grant itself anything."""
    token = validated(**{"https://northwind.example/roles": ["editor"]})
    assert token.claims["https://northwind.example/roles"] == ["editor"]
    with pytest.raises(TypeError):
        token.claims["sub"] = "auth0|bob"  # type: ignore[index]
    for name in ("subject", "scopes", "claims", "raw", "anything"):
        with pytest.raises(AttributeError):
            setattr(token, name, "auth0|bob")


def test_token_holds_nothing_of_the_raw_token() -> None:
    """BEARER-15: nothing built on an access token can leak one."""
    raw = ISSUER.token()
    token = ORGANIZER.validate(raw)
    held = [getattr(token, name) for name in dir(token) if not name.startswith("__") and name != "require"]
    assert not any(part in f"{held!r}{token!r}{token}" for part in raw.split("."))


def test_repr_names_subject_client_and_scopes() -> None:
    """Enough for a log line, and no other claim."""
    assert repr(validated(email="alice@northwind.example")) == (
        "AccessToken(subject='auth0|alice', client_id='organizer-spa', scopes=['read:contacts'])"
    )


# Actors (RFC 8693).


def test_actor_is_the_outermost_and_those_before_it_are_history() -> None:
    """ACT-01: decisions use the outermost `act`; nested ones can only be read one by one."""
    token = validated(act={"sub": "svc1", "iss": ISSUER.url, "client_id": "c", "act": {"sub": "svc2"}})
    assert token.actor is not None
    assert (token.actor.subject, token.actor.issuer) == ("svc1", ISSUER.url)
    assert token.actor.actor is not None
    assert (token.actor.actor.subject, token.actor.actor.issuer, token.actor.actor.actor) == ("svc2", None, None)
    assert (token.subject, token.client_id) == ("auth0|alice", "organizer-spa")
    assert repr(token.actor) == "Actor(subject='svc1')"


def test_actor_s_claims_cannot_be_changed() -> None:
    """ACT-01: what a handler reads of an actor is read-only, too."""
    token = validated(act={"sub": "svc1"})
    assert token.actor is not None
    with pytest.raises(TypeError):
        token.actor.claims["sub"] = "svc2"  # type: ignore[index]


@pytest.mark.parametrize("name", ["act", "may_act"])
def test_claims_within_an_actor_have_no_effect(name: str) -> None:
    """ACT-02: `exp`, `nbf`, `aud`, `scope` and `cnf` of an actor neither refuse nor grant."""
    inner = {"sub": "svc1", "exp": 1, "nbf": NOW * 2, "aud": "other", "scope": "admin", "permissions": ["x"]}
    token = validated(**{name: inner})
    assert (token.subject, list(token.scopes), token.permissions) == ("auth0|alice", ["read:contacts"], ())


def test_permission_to_act_is_no_actor() -> None:
    """ACT-02: `may_act` does not make its party the actor."""
    assert validated(may_act={"sub": "svc1"}).actor is None


def chain(length: int) -> dict[str, Any]:
    actor: dict[str, Any] = {"sub": "svc"}
    for _ in range(length - 1):
        actor = {"sub": "svc", "act": actor}
    return actor


@pytest.mark.parametrize("name", ["act", "may_act"])
@pytest.mark.parametrize(
    "actor",
    [
        *("x", "", 7, True, [], [{"sub": "svc1"}], {"sub": 7}, {"sub": ["a"]}, {"iss": {}}, {"client_id": 1}),
        *({"sub": "a", "act": "b"}, {"sub": "a", "act": {"sub": 7}}, {"act": []}, chain(11), chain(90)),
    ],
    ids=str,
)
def test_refuses_an_actor_of_another_form(name: str, actor: object) -> None:
    """ACT-03: an object with members of text, and no more than ten one in another."""
    assert refusal(**{name: actor}) is Reason.CLAIM_MALFORMED


def test_refuses_a_bottomless_chain_of_actors() -> None:
    """ACT-03: a thousand levels do not even get through the JSON reader, and raise nothing else."""
    header, _, signature = ISSUER.token().split(".")
    claims = b'{"act":' * 1_000 + b"{}" + b"}" * 1_000
    with pytest.raises(InvalidToken) as refused:
        ORGANIZER.validate(f"{header}.{base64url(claims)}.{signature}")
    assert refused.value.reason is Reason.MALFORMED


def test_accepts_a_chain_of_ten_actors() -> None:
    """ACT-03: the bound is exact."""
    actor, count = validated(act=chain(10)).actor, 0
    while actor is not None:
        actor, count = actor.actor, count + 1
    assert count == 10


# Demands made by hand.


def test_require_outside_a_request_only_raises() -> None:
    """A script or a test can ask for more without any guard."""
    token = validated()
    token.require("read:contacts")
    with pytest.raises(InsufficientScope) as refused:
        token.require("create:contacts")
    assert (refused.value.reason, refused.value.scope) == (Reason.INSUFFICIENT_SCOPE, "create:contacts")


def test_require_inside_its_request_is_final() -> None:
    """Even if something catches the exception, the client gets the 403."""
    raw = ISSUER.token()
    token, cell = ORGANIZER.validate(raw), RequestCell(lambda refusal: refusal)
    cell.admit(token, raw)
    reset = current_cell.set(cell)
    try:
        token.require("read:contacts")
        assert cell.refusal is None
        with pytest.raises(InsufficientScope) as refused:
            token.require("create:contacts")
        assert cell.refusal is refused.value
    finally:
        current_cell.reset(reset)


def test_require_of_another_token_does_not_answer_the_request() -> None:
    """A handler may judge a second token, say a queued job's, without ending its own request."""
    raw = ISSUER.token()
    cell = RequestCell(lambda refusal: refusal)
    cell.admit(ORGANIZER.validate(raw), raw)
    reset = current_cell.set(cell)
    try:
        with pytest.raises(InsufficientScope):
            validated().require("create:contacts")
        assert cell.refusal is None
    finally:
        current_cell.reset(reset)


def test_require_cannot_be_misunderstood() -> None:
    """A mistake in the code is told as one, and never as a refusal of the client."""
    with pytest.raises(ConfigurationError):
        validated().require("read:contacts create:contacts")
    with pytest.raises(ConfigurationError):
        validated().require(["read:contacts"])  # type: ignore[arg-type]


def test_token_can_be_copied() -> None:
    """A copy, for a background task, says the same."""
    token = validated()
    assert repr(copy.copy(token)) == repr(token)


TEXT_OR_NONE = (str, type(None))
READ = st.sampled_from(
    ["sub", "azp", "client_id", "scope", "scp", "roles", "roles", "permissions", "act", "org_id", "gty", "iat"]
)
MEMBERS = st.text() | JSON_VALUES | st.fixed_dictionaries({"value": JSON_VALUES})
VALUES = st.lists(MEMBERS, max_size=2) | st.fixed_dictionaries({"sub": st.text()}) | JSON_VALUES


@given(VALUES, VALUES, st.dictionaries(READ, VALUES, max_size=1))
@settings(max_examples=150, deadline=None)
def test_any_accepted_claims_are_read_as_their_types_say(roles: Any, gty: Any, claims: dict[str, Any]) -> None:
    """No claim that a handler reads has a surprise in it, and a remembered token reads like the first."""
    raw = ISSUER.token(claims={"roles": roles, "gty": gty, **claims})
    try:
        tokens = [ORGANIZER.validate(raw) for _ in range(2)]
    except InvalidToken:
        return
    for token in tokens:
        assert all(isinstance(text, TEXT_OR_NONE) for text in (token.subject, token.client_id, token.organization))
        assert all(isinstance(text, str) for text in (*token.scopes, *token.permissions, *token.roles, *token.audience))
        assert token.actor is None or isinstance(token.actor.subject, TEXT_OR_NONE)
        assert isinstance(token.is_client, bool)
        assert raw not in repr(token)
    assert tokens[0].claims == tokens[1].claims
    assert list(tokens[0].scopes) == list(tokens[1].scopes)
