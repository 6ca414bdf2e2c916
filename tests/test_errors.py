"""The error tree: which status and code each refusal has, and what its three texts may hold."""

import copy
import pickle
import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from token_guard import ResourceServer
from token_guard.errors import (
    ConfigurationError,
    ExchangeRefused,
    InsufficientScope,
    InvalidRequest,
    InvalidToken,
    MissingToken,
    Reason,
    RequestRejected,
    TemporarilyUnavailable,
    TokenGuardError,
    shown,
)
from token_guard.testing import LocalIssuer

REFUSALS = {
    InvalidRequest(): (400, "invalid_request", Reason.MALFORMED_REQUEST),
    MissingToken(): (401, None, Reason.MISSING_TOKEN),
    InvalidToken(Reason.EXPIRED): (401, "invalid_token", Reason.EXPIRED),
    InsufficientScope(Reason.INSUFFICIENT_SCOPE): (403, "insufficient_scope", Reason.INSUFFICIENT_SCOPE),
}
SPEAKING = {
    Reason.MALFORMED_REQUEST,
    Reason.MALFORMED,
    Reason.TOO_LARGE,
    Reason.EXPIRED,
    Reason.INSUFFICIENT_SCOPE,
    Reason.INSUFFICIENT_PERMISSION,
    Reason.TOKEN_UNAVAILABLE,
}


@pytest.mark.parametrize(("error", "expected"), REFUSALS.items(), ids=lambda value: type(value).__name__)
def test_status_and_code_pair_up(error: RequestRejected, expected: tuple[int, str | None, Reason]) -> None:
    """CHAL-07: each class of refusal has one status and one error code."""
    assert (error.status, error.error, error.reason) == expected


def test_an_outage_is_no_judgement_on_the_request() -> None:
    """JWK-18: `except RequestRejected` never catches that a token could not be checked."""
    error = TemporarilyUnavailable()
    assert not isinstance(error, RequestRejected)
    assert (error.status, error.reason, error.retry_after) == (503, Reason.KEYS_UNAVAILABLE, 1)


@pytest.mark.parametrize("error", [*REFUSALS, TemporarilyUnavailable(), ConfigurationError("a setting")])
def test_one_root_catches_everything(error: Exception) -> None:
    """Whatever is raised on purpose is a TokenGuardError."""
    assert isinstance(error, TokenGuardError)


@pytest.mark.parametrize("reason", Reason)
def test_description_is_plain_text_for_the_client(reason: Reason) -> None:
    """CHAL-06, CHAL-08: the text for the client holds the characters that RFC 6750 3 allows, and never the detail."""
    description = InvalidToken(reason, detail='kid "r1" \r\n is unknown').description
    assert re.fullmatch(r"[\x20\x21\x23-\x5B\x5D-\x7E]+", description)
    assert "r1" not in description


def test_description_tells_apart_only_what_a_client_can_act_on() -> None:
    """CHAL-08: every reason that would answer questions about keys, audiences or issuers reads the same."""
    silent = {InvalidToken(reason).description for reason in set(Reason) - SPEAKING}
    assert len(silent) == 1
    assert silent.isdisjoint(InvalidToken(reason).description for reason in SPEAKING)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: InvalidToken(Reason.EXPIRED), "expired"),
        (lambda: InvalidToken(Reason.EXPIRED, detail="exp is 1"), "expired: exp is 1"),
        (lambda: InvalidRequest(), "malformed_request"),
        (lambda: InvalidRequest(detail="two tokens"), "malformed_request: two tokens"),
        (lambda: MissingToken(), "missing_token"),
        (lambda: MissingToken(detail="no field"), "missing_token: no field"),
        (lambda: TemporarilyUnavailable(), "keys_unavailable"),
        (lambda: TemporarilyUnavailable(detail="the issuer is down"), "keys_unavailable: the issuer is down"),
        (lambda: ExchangeRefused("invalid_grant"), "'invalid_grant'"),
        (lambda: ExchangeRefused("invalid_grant", "expired\n"), r"'invalid_grant': 'expired\n'"),
    ],
)
def test_message_is_reason_and_detail(make: Callable[[], TokenGuardError], text: str) -> None:
    """A log line that prints the error names the reason first."""
    assert str(make()) == text


@given(st.text() | st.binary() | st.recursive(st.none() | st.text(), st.lists))
@settings(max_examples=100, deadline=None)
def test_text_from_a_stranger_is_shown_short_and_escaped(value: object) -> None:
    """JWK-13: nothing that a token holds can start a new log line or fill the log."""
    text = shown(value)
    assert text.isascii()
    assert text.isprintable()
    assert len(text) <= 103


@pytest.mark.parametrize(("length", "text"), [(98, f"'{'a' * 98}'"), (99, f"'{'a' * 99}...")])
def test_text_is_shown_whole_up_to_a_hundred_characters(length: int, text: str) -> None:
    """Three dots say that there is more."""
    assert shown("a" * length) == text


@pytest.mark.parametrize("error", [InvalidToken(Reason.EXPIRED, detail="an hour ago"), TemporarilyUnavailable()])
def test_what_is_shown_of_an_error_is_its_text(error: InvalidToken | TemporarilyUnavailable) -> None:
    """Also where only its repr is printed, as asyncio does of a task that nobody awaits."""
    assert repr(error) == f"{type(error).__name__}({str(error)!r})"
    assert str(error).startswith(error.reason)


def test_a_detail_is_worded_when_it_is_read() -> None:
    """Most refusals are counted and never printed. One that is printed twice is worded once."""
    wordings: list[str] = []

    def wording() -> str:
        wordings.append("an hour ago")
        return wordings[-1]

    error = InvalidToken(Reason.EXPIRED, detail=wording)
    assert wordings == []
    assert (error.detail, str(error)) == ("an hour ago", "expired: an hour ago")
    assert wordings == ["an hour ago"]


def test_a_refusal_goes_to_another_process_whole() -> None:
    """By pickle, as a pool of processes does: with a detail that nobody has read yet, too."""
    issuer = LocalIssuer(algorithm="ES256")
    server = ResourceServer(issuer=issuer.url, audience="organize", jwks=issuer.jwks())
    for changed in ({"aud": "else"}, {"iss": "https://else.example/"}, {"exp": 1}, {"nbf": 1e10}, {"iat": 1e10}):
        with pytest.raises(InvalidToken) as refused:
            server.validate(issuer.token(claims=changed))
        copied = pickle.loads(pickle.dumps(refused.value))
        assert (copied.reason, str(copied)) == (refused.value.reason, str(refused.value))
    other = ResourceServer(issuer=issuer.url, audience="other", jwks=issuer.jwks())
    with pytest.raises(InvalidToken, match="wrong_audience: the token is for 'organize'") as refused:
        other.check_own(server.validate(issuer.token()))
    assert str(copy.deepcopy(refused.value)) == str(refused.value)


def test_an_exchange_s_refusal_goes_to_another_process_whole() -> None:
    """With the claims challenge that the client needs."""
    error = ExchangeRefused("invalid_grant", "it's over", claims='{"access_token":{}}')
    copied = pickle.loads(pickle.dumps(error))
    assert str(copied) == str(error) == """'invalid_grant': "it's over\""""
    assert (copied.error, copied.description, copied.claims) == (error.error, error.description, error.claims)
    assert str(ExchangeRefused("invalid_grant")) == "'invalid_grant'"
    long = ExchangeRefused("invalid_grant", "x" * 1_000_000)
    assert len(repr(long)) < 200
    assert repr(long).startswith("ExchangeRefused(")
