"""From a refusal to an HTTP answer, which a parser of our own reads again. RFC 6750 3, RFC 9110 11.6.1 and 5.6.4."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import JSON_VALUES
from token_guard import (
    ChallengePolicy,
    ConfigurationError,
    InsufficientScope,
    InvalidRequest,
    InvalidToken,
    MissingToken,
    Reason,
    RequestRejected,
    TemporarilyUnavailable,
)
from token_guard.challenge import Answer, challenge

REFUSALS = [
    InvalidRequest(detail="two credentials"),
    MissingToken(),
    InvalidToken(Reason.EXPIRED, detail="exp is 1"),
    InvalidToken(Reason.BAD_SIGNATURE, detail='kid "r1"'),
    InsufficientScope(Reason.INSUFFICIENT_SCOPE, scope="a b"),
    InsufficientScope(Reason.INSUFFICIENT_PERMISSION, detail="the operation needs role editor"),
]


def header(answer: Answer, name: str) -> str:
    """The value of a field that occurs exactly once."""
    (value,) = [value for field, value in answer.headers if field.lower() == name.lower()]
    return value


def parsed(answer: Answer) -> dict[str, str]:
    """The parameters of the one Bearer challenge, read by the grammar of RFC 9110 11.6.1 and 5.6.4."""
    value = header(answer, "WWW-Authenticate")
    scheme, _, rest = value.partition(" ")
    assert scheme == "Bearer"
    parameters: dict[str, str] = {}
    while rest:
        parameter = re.match(
            r'([!#$%&\'*+.^_`|~0-9A-Za-z-]+)="((?:[\t\x20\x21\x23-\x5B\x5D-\x7E]|\\[\t\x20-\x7E])*)"(?:, |$)', rest
        )
        assert parameter, rest
        name, text = parameter[1], parameter[2]
        assert name not in parameters
        parameters[name] = re.sub(r"\\(.)", r"\1", text)
        rest = rest[parameter.end() :]
    return parameters


def answered(error: RequestRejected | TemporarilyUnavailable, **policy: Any) -> Answer:
    return challenge(error, ChallengePolicy(**policy))


@pytest.mark.parametrize("error", REFUSALS, ids=str)
def test_every_refusal_carries_one_challenge(error: RequestRejected) -> None:
    """CHAL-01, CHAL-02, CHAL-03, CHAL-04, CHAL-07, CHAL-09: 400, 401 and 403 alike, with at least the realm."""
    answer = answered(error, realm="organizer")
    expected = {"realm": "organizer"}
    if error.error:
        expected |= {"error": error.error, "error_description": error.description}
    if error.scope:
        expected |= {"scope": error.scope}
    assert answer.status == error.status
    assert parsed(answer) == expected
    assert list(parsed(answer)) == list(expected)


def test_request_without_credentials_is_told_no_error() -> None:
    """BEARER-06, CHAL-03: the realm alone, and an empty object for a body."""
    answer = answered(MissingToken(detail="no Authorization header"))
    assert (answer.status, answer.body) == (401, b"{}")
    assert answer.headers == (
        ("Content-Type", "application/json"),
        ("Cache-Control", "no-store"),
        ("WWW-Authenticate", 'Bearer realm="api"'),
        ("Access-Control-Expose-Headers", "WWW-Authenticate"),
    )


def test_insufficient_scope_names_the_scopes_once() -> None:
    """SCOPE-06: one `scope` parameter that holds them all."""
    answer = answered(InsufficientScope(Reason.INSUFFICIENT_SCOPE, scope="read:contacts read:calendar"))
    assert header(answer, "WWW-Authenticate") == (
        'Bearer realm="api", error="insufficient_scope",'
        ' error_description="The access token lacks a scope that this operation needs",'
        ' scope="read:contacts read:calendar"'
    )


@pytest.mark.parametrize("error", REFUSALS[:4], ids=str)
def test_only_a_403_names_scopes(error: RequestRejected) -> None:
    """SCOPE-07: a client that is not known is not told what an operation needs."""
    assert "scope" not in parsed(answered(error))


@pytest.mark.parametrize("error", [*REFUSALS, TemporarilyUnavailable()], ids=str)
def test_every_refusal_is_json_that_nobody_stores(error: RequestRejected | TemporarilyUnavailable) -> None:
    """A cache must not answer the next client with this one's refusal."""
    answer = answered(error)
    assert header(answer, "Cache-Control") == "no-store"
    assert header(answer, "Content-Type") == "application/json"
    assert isinstance(json.loads(answer.body), dict)


@pytest.mark.parametrize("error", REFUSALS, ids=str)
def test_browsers_may_read_the_challenge(error: RequestRejected) -> None:
    """CHAL-10: the field is named for cross-origin clients."""
    assert header(answered(error), "Access-Control-Expose-Headers") == "WWW-Authenticate"


@pytest.mark.parametrize("error", REFUSALS, ids=str)
def test_client_is_told_nothing_but_fixed_text(error: RequestRejected) -> None:
    """CHAL-08: neither detail nor reason is in the answer; the body says what the challenge says."""
    answer = answered(error)
    body = json.loads(answer.body)
    assert body == ({"error": error.error, "error_description": error.description} if error.error else {})
    assert error.detail not in f"{answer.headers}{answer.body!r}" or not error.detail
    assert "reason" not in body


@pytest.mark.parametrize("error", [*REFUSALS, TemporarilyUnavailable()], ids=str)
def test_reason_is_added_to_the_body_where_asked_for(error: RequestRejected | TemporarilyUnavailable) -> None:
    """The samples switch it on; headers and status stay as they are."""
    plain, exposed = answered(error), answered(error, expose_reasons=True)
    assert json.loads(exposed.body) == json.loads(plain.body) | {"reason": error.reason.value}
    assert (exposed.status, exposed.headers) == (plain.status, plain.headers)


@pytest.mark.parametrize("error", [*REFUSALS, TemporarilyUnavailable()], ids=str)
def test_house_envelope_replaces_the_body_alone(error: RequestRejected | TemporarilyUnavailable) -> None:
    """`error_body` is given the refusal and decides the JSON, never status or headers."""
    plain = answered(error)
    enveloped = answered(error, error_body=lambda refusal: {"problem": str(refusal.reason), "ü": [None]})
    assert json.loads(enveloped.body) == {"problem": error.reason.value, "ü": [None]}
    assert (enveloped.status, enveloped.headers) == (plain.status, plain.headers)


LOOP: list[object] = []
LOOP.append(LOOP)


@pytest.mark.parametrize("body", [b"{}", {1, 2}, {("a",): 1}, float("nan"), [str], LOOP], ids=repr)
def test_an_error_body_that_is_not_json_is_a_configuration_error(body: object) -> None:
    """The function is the application's own, so the message says which setting it is."""
    with pytest.raises(ConfigurationError, match="error_body returned"):
        answered(MissingToken(), error_body=lambda _: body)


@pytest.mark.parametrize("error_body", [{"error": "x"}, "house.envelope", 7])
def test_refuses_an_error_body_that_is_no_function(error_body: Any) -> None:
    """Told at start-up, not with the first refusal."""
    with pytest.raises(ConfigurationError, match="error_body must be a function"):
        ChallengePolicy(error_body=error_body)


@pytest.mark.parametrize(
    ("seconds", "sent"), [(0, "1"), (0.2, "1"), (1, "1"), (1.01, "2"), (29.5, "30"), (30, "30"), (-5, "1")]
)
def test_unavailable_is_503_with_whole_seconds_and_no_challenge(seconds: float, sent: str) -> None:
    """JWK-18: Retry-After is rounded up, and never tells a client to come back at once."""
    answer = answered(TemporarilyUnavailable(detail="the issuer is down", retry_after=seconds))
    assert answer.status == 503
    assert answer.headers == (
        ("Content-Type", "application/json"),
        ("Cache-Control", "no-store"),
        ("Retry-After", sent),
    )
    assert json.loads(answer.body) == {
        "error": "temporarily_unavailable",
        "error_description": "The access token cannot be checked at the moment",
    }


@pytest.mark.parametrize("realm", ["", None, 7, b"api", "é", "a\r\nX: y", "a\n", "a\0", "a\tb", "\x7f", "\udcff"])
def test_refuses_a_realm_that_no_header_can_hold(realm: Any) -> None:
    """CHAL-05, CHAL-06: printable ASCII; anything else is told at start-up."""
    with pytest.raises(ConfigurationError, match="realm"):
        ChallengePolicy(realm=realm)


def test_quotes_and_backslashes_are_escaped() -> None:
    """CHAL-05: a quoted-string, from which a parser gets the original back."""
    answer = answered(MissingToken(), realm='a"b\\c')
    assert header(answer, "WWW-Authenticate") == r'Bearer realm="a\"b\\c"'
    assert parsed(answer) == {"realm": 'a"b\\c'}


def test_text_of_the_user_s_own_cannot_inject_a_header() -> None:
    """CHAL-06: a refusal that an application made of a stranger's text stays one header line."""
    answer = answered(InsufficientScope(Reason.INSUFFICIENT_SCOPE, scope='é"\\\r\nX: y'))
    assert parsed(answer)["scope"] == '?"\\??X: y'
    assert all(value.isascii() and value.isprintable() for _, value in answer.headers)


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1), st.text())
@settings(max_examples=200, deadline=None)
def test_any_text_survives_the_round_trip(realm: str, scope: str) -> None:
    """CHAL-05, CHAL-06: printable ASCII comes back as it was; every other character is a question mark."""
    error = InsufficientScope(Reason.INSUFFICIENT_SCOPE, scope=scope)
    parameters = parsed(answered(error, realm=realm))
    assert parameters["realm"] == realm
    assert parameters.get("scope", "") == "".join(character if " " <= character <= "~" else "?" for character in scope)


@given(JSON_VALUES)
@settings(max_examples=100, deadline=None)
def test_any_json_of_a_house_is_sent_as_it_is(body: Any) -> None:
    """The envelope arrives as the application made it."""
    assert json.loads(answered(MissingToken(), error_body=lambda _: body).body) == body
