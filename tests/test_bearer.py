"""Extract: what counts as a Bearer token in the fields of a request. RFC 6750 2.1 and 3.1."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from token_guard.bearer import MAX_TOKEN_BYTES, bearer_token
from token_guard.errors import InvalidRequest, InvalidToken, MissingToken, Reason, RequestRejected

TOKEN = "eyJh.e30.c2ln"


def fields(*values: str) -> list[tuple[str, str]]:
    return [("Authorization", value) for value in values]


@pytest.mark.parametrize(
    "value",
    [
        f"Bearer {TOKEN}",
        f"bearer {TOKEN}",
        f"BEARER {TOKEN}",
        f"bEaReR {TOKEN}",
        f"Bearer   {TOKEN}",
        f" \tBearer {TOKEN} \t",
    ],
)
def test_reads_the_token_of_the_bearer_scheme(value: str) -> None:
    """BEARER-01, BEARER-02, BEARER-03: the scheme in any case, then one or more spaces, then the token."""
    assert bearer_token(fields(value)) == TOKEN


@pytest.mark.parametrize("name", ["Authorization", "authorization", "AUTHORIZATION"])
def test_field_name_is_read_in_any_case(name: str) -> None:
    """BEARER-01: field names are case-insensitive (RFC 9110 5.1)."""
    assert bearer_token([("Accept", "*/*"), (name, f"Bearer {TOKEN}")]) == TOKEN


@pytest.mark.parametrize("credential", ["a", "X", "-._~+/", "abc=", "abc======", "Bearer", "a" * MAX_TOKEN_BYTES])
def test_returns_every_token68_unchanged(credential: str) -> None:
    """BEARER-04: what a token is made of is not the extractor's business."""
    assert bearer_token(fields(f"Bearer {credential}")) == credential


def detail_of_missing_token(headers: list[tuple[str, str]]) -> str:
    with pytest.raises(MissingToken) as refused:
        bearer_token(headers)
    assert refused.value.reason is Reason.MISSING_TOKEN
    return refused.value.detail


NOT_SENT = "no Authorization header with the Bearer scheme"
NOT_BEARER = 'an Authorization header was sent, but it is not "Bearer <token>"'


@pytest.mark.parametrize(
    "headers",
    [
        [],
        fields(""),
        fields("   "),
        [("Proxy-Authorization", f"Bearer {TOKEN}")],
        [("Cookie", f"access_token={TOKEN}; Authorization=Bearer {TOKEN}")],
        [("X-Access-Token", TOKEN), ("X-Authorization", f"Bearer {TOKEN}")],
        [("Authorization ", f"Bearer {TOKEN}"), ("Authorızation", f"Bearer {TOKEN}")],
    ],
)
def test_no_authorization_header_is_a_missing_token(headers: list[tuple[str, str]]) -> None:
    """BEARER-06, BEARER-13: no field, or another field: no error to tell."""
    assert detail_of_missing_token(headers) == NOT_SENT


@pytest.mark.parametrize(
    "headers",
    [
        fields("Basic dTpw"),
        fields("Digest x"),
        fields("Negotiate y"),
        fields("DPoP x"),
        fields(TOKEN),
        fields(f"Token {TOKEN}"),
        fields(f"Bearer{TOKEN}"),
        fields(f"Bearer:{TOKEN}"),
        fields(f"Bearer: {TOKEN}"),
        fields(f"Bearer\t{TOKEN}"),
        fields(f'"Bearer" {TOKEN}'),
        fields(f"Bearér {TOKEN}"),
        fields(f"Basic dTpw, Bearer {TOKEN}"),
        fields("Basic dTpw", f"Bearer {TOKEN}"),
    ],
)
def test_another_scheme_is_a_missing_token(headers: list[tuple[str, str]]) -> None:
    """BEARER-03, BEARER-07: no error to tell the client; the log says what was wrong, and never what was sent."""
    assert detail_of_missing_token(headers) == NOT_BEARER


@pytest.mark.parametrize(
    "headers",
    [
        fields("Bearer"),
        fields("bearer "),
        fields("Bearer    "),
        fields("Bearer\n"),
        fields("Bearer a b"),
        fields('Bearer "a"'),
        fields("Bearer a,b"),
        fields("Bearer ="),
        fields("Bearer a=b"),
        fields("Bearer tök"),
        fields("Bearer a\x80"),
        fields("Bearer a\udcff"),
        fields("Bearer a\x00"),
        fields("Bearer a\r\nX: y"),
        fields("Bearer a\n"),
        fields("Bearer \ta"),
        fields("Bearer a%20b"),
        fields('Bearer {"payload":"e30","signatures":[]}'),
        fields(f"Bearer {TOKEN}, Bearer {TOKEN}"),
        fields(f"Bearer {TOKEN}", f"Bearer {TOKEN}"),
        fields(f"Bearer {TOKEN}", "Basic dTpw"),
        fields(f"Bearer {TOKEN}", ""),
        fields("Bearer", f"Bearer {TOKEN}"),
        fields("Bearer ", f"Bearer {TOKEN}"),
    ],
)
def test_refuses_the_bearer_scheme_without_exactly_one_token(headers: list[tuple[str, str]]) -> None:
    """BEARER-04, BEARER-05, BEARER-08, JWS-19: none, two (even equal), or something that is no token68: 400."""
    with pytest.raises(InvalidRequest) as refused:
        bearer_token(headers)
    assert refused.value.reason is Reason.MALFORMED_REQUEST
    assert refused.value.detail == (
        "the Bearer scheme needs exactly one token68 credential (RFC 6750 2.1): the token alone, without quotes and"
        " without a second word"
    )


@pytest.mark.parametrize("credential", ["a" * (MAX_TOKEN_BYTES + 1), "a" * 2**20, "é" * 2**20, ", " * 2**19])
def test_refuses_an_overlong_credential_before_reading_it(credential: str) -> None:
    """BEARER-14: the length is judged first, whatever the credential is made of."""
    with pytest.raises(InvalidToken) as refused:
        bearer_token(fields(f"Bearer {credential}"))
    assert refused.value.reason is Reason.TOO_LARGE
    assert refused.value.detail == "the credential is longer than 16384 bytes"


CREDENTIALS = st.text(st.sampled_from('aZ0-._~+/= ,\t\n"é\udcff'), max_size=20) | st.just(TOKEN)
SCHEMES = st.sampled_from(["Bearer", "Bearer ", "bearer  ", "Basic ", ""])
VALUES = st.text(max_size=40) | st.builds("{}{}{}".format, SCHEMES, CREDENTIALS, CREDENTIALS)


@given(st.lists(st.tuples(st.sampled_from(["Authorization", "authorization", "Cookie"]), VALUES), max_size=3))
@settings(max_examples=200, deadline=None)
def test_any_field_is_a_token_or_a_refusal(headers: list[tuple[str, str]]) -> None:
    """CHAL-12: whatever a client sends, it gets a token68 or a refusal, and a refusal never repeats what was sent."""
    try:
        token = bearer_token(headers)
    except RequestRejected as refused:
        assert TOKEN not in str(refused)  # noqa: PT017
    else:
        assert re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", token)
        assert any(token in value for name, value in headers if name.lower() == "authorization")
