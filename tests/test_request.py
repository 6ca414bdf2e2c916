"""The request as the core sees it, the cell that carries the guard's decision, and what its log shows."""

import io
import logging
import traceback
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from token_guard import (
    InvalidToken,
    MissingToken,
    Reason,
    RequestRejected,
    RequestView,
    ResourceServer,
    TemporarilyUnavailable,
)
from token_guard.request import Access, Refusal, RequestCell, current_cell, wsgi_headers
from token_guard.testing import LocalIssuer

ISSUER = LocalIssuer(algorithm="ES256")
ORGANIZER = ResourceServer(issuer=ISSUER.url, audience="organize", jwks=ISSUER.jwks())


def rendered(refusal: Refusal) -> str:
    return f"rendered {refusal.reason}"


def request_with(*authorization: str) -> RequestView:
    headers = [("Host", "api.example"), *(("Authorization", value) for value in authorization)]
    return RequestView(method="GET", url=lambda: pytest.fail("nobody asked for the URL"), headers=headers)


def test_authenticates_a_whole_request() -> None:
    """BEARER-01: the token of the Authorization field, validated; the URL is not even looked at."""
    assert ORGANIZER.authenticate(request_with(f"Bearer {ISSUER.token()}")).subject == "auth0|alice"


def test_query_and_cookies_are_no_token_sources() -> None:
    """BEARER-09, BEARER-13: a token there is ignored, beside a good one and alone."""
    token = ISSUER.token()
    elsewhere = [("Cookie", f"access_token={token}"), ("Proxy-Authorization", f"Bearer {token}")]
    request = RequestView("GET", lambda: f"https://api.example/?access_token={token}", elsewhere)
    with pytest.raises(RequestRejected) as refused:
        ORGANIZER.authenticate(request)
    assert refused.value.reason is Reason.MISSING_TOKEN
    headers = [*elsewhere, ("Authorization", f"Bearer {token}")]
    request = RequestView("GET", lambda: "https://api.example/?access_token=junk", headers)
    assert ORGANIZER.authenticate(request).subject == "auth0|alice"


def test_reads_of_a_wsgi_environ_what_a_guard_needs() -> None:
    """The token of every request, and of an OPTIONS what makes it a preflight; no other field."""
    names = {"HTTP_ORIGIN": "Origin", "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "Access-Control-Request-Method"}
    environ = {"HTTP_AUTHORIZATION": "Bearer x", "HTTP_HOST": "api.example", "HTTP_ORIGIN": "https://app.example"}
    environ["HTTP_ACCESS_CONTROL_REQUEST_METHOD"] = "PUT"
    assert wsgi_headers(environ, "GET") == [("Authorization", "Bearer x")]
    preflight = [(names[key], environ[key]) for key in names]
    assert wsgi_headers(environ, "OPTIONS") == [("Authorization", "Bearer x"), *preflight]
    assert wsgi_headers({key: environ[key] for key in names}, "OPTIONS") == preflight
    assert wsgi_headers({"HTTP_ORIGIN": "https://app.example"}, "OPTIONS") == preflight[:1]
    assert wsgi_headers({}, "GET") == []


def test_cell_begins_undecided() -> None:
    """A guard that never decided has let nobody in."""
    cell = RequestCell(rendered)
    assert (cell.access, cell.token, cell.raw_token, cell.refusal) == (None, None, None, None)
    assert current_cell.get() is None


def test_cell_admits_a_token() -> None:
    """The access token and, for exchange alone, the raw one."""
    cell, raw = RequestCell(rendered), ISSUER.token()
    token = ORGANIZER.validate(raw)
    cell.admit(token, raw)
    assert (cell.access, cell.token, cell.raw_token, cell.refusal) == (Access.TOKEN, token, raw, None)


def test_first_refusal_stays(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the application does afterwards, the client is told the first reason, and the log has it once."""
    cell = RequestCell(rendered)
    first, second = InvalidToken(Reason.EXPIRED, detail="exp is 1"), InvalidToken(Reason.REVOKED)
    with caplog.at_level(logging.DEBUG):
        assert cell.refuse(first) is first
        assert cell.refuse(second) is first
    assert cell.refusal is first
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("INFO", "request refused: expired: exp is 1")
    assert (record.__dict__["event"], record.__dict__["reason"]) == ("request_refused", "expired")
    assert (record.__dict__["method"], record.__dict__["path"]) == ("", "")


def test_a_line_of_the_log_names_the_place_that_tells(caplog: pytest.LogCaptureFixture) -> None:
    """And not the one function through which all of them do."""
    RequestCell(rendered).refuse(InvalidToken(Reason.WRONG_AUDIENCE))
    assert [record.filename for record in caplog.records] == ["request.py"]


def test_an_error_of_the_application_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """A function of the application's that fails, such as is_revoked, is for its author to mend."""
    outage = TemporarilyUnavailable(Reason.REVOCATION_UNAVAILABLE, detail="is_revoked raised KeyError")
    outage.__cause__ = KeyError("jti")
    RequestCell(rendered).refuse(outage)
    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].exc_info[1] is outage.__cause__


def test_target_of_a_refused_request_is_logged_escaped(caplog: pytest.LogCaptureFixture) -> None:
    """Method and path are a stranger's: fields of one line, short, without control characters."""
    cell = RequestCell(rendered)
    cell.target = "GET", f"/\r\n{'x' * 200}"
    with caplog.at_level(logging.DEBUG):
        cell.refuse(MissingToken())
    (record,) = caplog.records
    assert (record.__dict__["method"], record.__dict__["path"][:6]) == ("GET", "/\\r\\nx")
    assert record.__dict__["path"] in record.getMessage()
    assert len(record.getMessage()) < 200


@pytest.mark.parametrize(
    "error",
    [
        TemporarilyUnavailable(detail="the issuer is down"),
        TemporarilyUnavailable(Reason.TOKEN_UNAVAILABLE),
        InvalidToken(Reason.WRONG_AUDIENCE),
    ],
    ids=str,
)
def test_what_the_operator_must_act_on_is_a_warning(error: Refusal, caplog: pytest.LogCaptureFixture) -> None:
    """JWK-18: an outage, and what no client can learn from its answer, is louder than what a client did wrong."""
    with caplog.at_level(logging.DEBUG):
        RequestCell(rendered).refuse(error)
    assert caplog.records[0].levelname == "WARNING"


def test_what_a_judgement_arose_from_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Its reason says it all; a traceback is for what the operator must mend."""
    error = InvalidToken(Reason.WRONG_AUDIENCE)
    error.__cause__ = KeyError("aud")
    RequestCell(rendered).refuse(error)
    assert caplog.records[0].exc_info is None


def test_log_names_the_request(caplog: pytest.LogCaptureFixture) -> None:
    """Method and path, where the guard knows them, and neither can start a new line."""
    cell = RequestCell(rendered)
    cell.target = ("GET\n", "/contacts\n")
    with caplog.at_level(logging.DEBUG):
        cell.refuse(InvalidToken(Reason.EXPIRED))
    assert caplog.messages == [r"request refused: expired (GET\n /contacts\n)"]


def test_request_view_shows_no_header_by_accident() -> None:
    """BEARER-15: printing the request does not print its credentials."""
    token = ISSUER.token()
    assert token not in repr(request_with(f"Bearer {token}"))


UNREADABLE: dict[str, Callable[[str], tuple[str, ...]]] = {
    "two credentials": lambda token: (f"Bearer {token}", f"Bearer {token}"),
    "two in one field": lambda token: (f"Bearer {token}, Bearer {token}",),
    "another scheme": lambda token: (f"Basic {token}",),
    "no scheme": lambda token: (token,),
    "quoted": lambda token: (f'Bearer "{token}"',),
    "header injection": lambda token: (f"Bearer {token}\r\nX: y",),
    "non-ASCII": lambda token: (f"Bearer {token}é",),
    "padded": lambda token: (f"Bearer {token}=",),
    "four segments": lambda token: (f"Bearer {token}.x",),
    "five segments": lambda token: (f"Bearer {token}.x.y",),
    "two segments": lambda token: (f"Bearer {token.rpartition('.')[0]}",),
    "too large": lambda token: (f"Bearer {token}{'A' * 20_000}",),
    "tampered": lambda token: (f"Bearer {ISSUER.tampered(token)}",),
    "truncated": lambda token: (f"Bearer {token[:-8]}",),
}
REFUSED = {
    "expired": ISSUER.expired(),
    "stranger": ISSUER.signed_by_stranger(),
    "unknown key": ISSUER.unknown_key(),
    "unsigned": ISSUER.unsigned(),
    "wrong audience": ISSUER.token(audience="other"),
    "wrong issuer": ISSUER.token(issuer="https://other.example/"),
    "wrong algorithm": ISSUER.token(headers={"alg": "HS256"}),
    "crit": ISSUER.token(headers={"crit": ["exp"]}),
    "wrong type": ISSUER.token(headers={"typ": "dpop+jwt"}),
    "ID token": ISSUER.token(claims={"at_hash": "x"}),
    "bound": ISSUER.token(claims={"cnf": {"jkt": "x"}}),
    "malformed claim": ISSUER.token(claims={"exp": "soon"}),
    "missing claim": ISSUER.token(claims={"exp": None}),
    "not yet valid": ISSUER.token(claims={"nbf": 1e300}),
    "issued in the future": ISSUER.token(claims={"iat": 1e300}),
}
ATTEMPTS = {
    **{name: make(ISSUER.token()) for name, make in UNREADABLE.items()},
    **{name: (f"Bearer {token}",) for name, token in REFUSED.items()},
}


@pytest.mark.parametrize("authorization", ATTEMPTS.values(), ids=ATTEMPTS)
def test_no_refusal_shows_the_token(authorization: tuple[str, ...], caplog: pytest.LogCaptureFixture) -> None:
    """BEARER-15: neither log, representation, traceback nor answer holds any segment of it, at any log level."""
    segments = {part for value in authorization for part in value.replace('"', "").split(" ")[-1].split(".")}
    with caplog.at_level(logging.DEBUG), pytest.raises(RequestRejected) as refused:
        ORGANIZER.authenticate(request_with(*authorization))
    RequestCell(rendered).refuse(refused.value)
    shown = io.StringIO()
    traceback.print_exception(refused.value, file=shown)
    answer = ORGANIZER.challenge(refused.value)
    text = f"{caplog.text}{refused.value!r}{refused.value}{shown.getvalue()}{answer}"
    assert not [segment for segment in segments if len(segment) > 6 and segment in text]


class Lines(logging.Handler):
    """What would be written to the log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


ANY_TEXT = st.text(st.characters())  # surrogates included: servers decode bytes to them


@given(ANY_TEXT, ANY_TEXT, st.lists(st.tuples(st.sampled_from(["Authorization", "Host"]) | ANY_TEXT, ANY_TEXT)))
@settings(max_examples=100, deadline=None)
def test_any_request_is_refused_in_one_line_of_the_log(method: str, path: str, headers: list[tuple[str, str]]) -> None:
    """BCP-06, CHAL-12: no method, path or header raises anything else, begins a new line, or fills the log."""
    with pytest.raises(RequestRejected) as refused:
        ORGANIZER.authenticate(RequestView(method, lambda: path, headers))
    cell, handler = RequestCell(rendered), Lines()
    cell.target = (method, path)
    logger = logging.getLogger("token_guard")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        cell.refuse(refused.value)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    (line,) = handler.lines
    assert line.isascii()
    assert line.isprintable()
    assert len(line) < 500
