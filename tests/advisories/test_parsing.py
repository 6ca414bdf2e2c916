"""Advisories about reading: the form of a token, its header, its JSON, and the request that carries it."""

import base64
import json
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.advisories.conftest import NOW, claims, encoded, refused, signed
from token_guard import (
    InvalidRequest,
    InvalidToken,
    MissingToken,
    Reason,
    RequestRejected,
    RequestView,
    ResourceServer,
)
from token_guard.testing import LocalIssuer
from token_guard.testing.keys import base64url

# Headers that must be understood.


@pytest.mark.parametrize(
    "header",
    [
        pytest.param({"crit": ["bork"], "bork": True}, id="CVE-2025-59420 (Authlib)"),
        pytest.param({"crit": ["x-policy"], "x-policy": "require-mfa"}, id="CVE-2026-32597 (PyJWT)"),
        pytest.param({"crit": ["cnf"], "cnf": {"jkt": "x"}}, id="CVE-2026-35042 (fast-jwt)"),
        pytest.param({"crit": ["absent"]}, id="python-jose #413: names what is not there"),
        pytest.param({"crit": ["exp"], "exp": NOW}, id="names a claim"),
        pytest.param({"crit": ["alg"]}, id="names a registered member"),
        pytest.param({"crit": []}, id="empty"),
        pytest.param({"crit": None}, id="null"),
        pytest.param({"crit": "bork", "bork": 1}, id="text"),
        pytest.param({"crit": {"bork": 1}}, id="object"),
    ],
)
def test_refuses_what_must_be_understood(
    organizer: ResourceServer, issuer: LocalIssuer, header: Mapping[str, Any]
) -> None:
    """CVE-2025-59420 (Authlib), CVE-2026-32597 (PyJWT), CVE-2026-35042 (fast-jwt): nobody read `crit`."""
    assert refused(organizer, signed(issuer, claims(issuer), **header)).reason is Reason.UNSUPPORTED_CRITICAL


@pytest.mark.parametrize("header", [{"b64": False, "crit": ["b64"]}, {"b64": False}, {"b64": 0}, {"b64": "false"}])
def test_refuses_a_payload_that_is_not_encoded(
    organizer: ResourceServer, issuer: LocalIssuer, header: Mapping[str, Any]
) -> None:
    """CVE-2026-48525 (PyJWT): with `b64: false` a payload of any size was decoded, and then not used."""
    assert refused(organizer, signed(issuer, claims(issuer), **header)).reason is Reason.UNSUPPORTED_CRITICAL
    assert refused(organizer, encoded({"alg": "RS256", **header}, b" " * 100_000, b"")).reason is Reason.TOO_LARGE


# Form and size.


@pytest.mark.parametrize("grown", ["header", "payload", "signature", "kid"])
def test_a_token_has_a_greatest_size(organizer: ResourceServer, issuer: LocalIssuer, grown: str) -> None:
    """CVE-2025-61920 (Authlib): segments of hundreds of megabytes were decoded before anybody asked for their size."""
    big = "x" * 1_000_000
    parts: dict[str, bytes | Mapping[str, Any]] = {
        "header": {"alg": "RS256", "typ": "JWT", "kid": issuer.key.kid},
        "payload": claims(issuer),
        "signature": bytes(256),
    }
    if grown == "kid":
        parts["header"] = {"alg": "RS256", "kid": big}
    else:
        parts[grown] = big.encode()
    assert refused(organizer, encoded(*parts.values())).reason is Reason.TOO_LARGE


def test_a_header_has_a_greatest_size(organizer: ResourceServer, issuer: LocalIssuer) -> None:
    """CVE-2025-61920 (Authlib): a header is small, also in a token that is not too large as a whole."""
    assert refused(organizer, signed(issuer, claims(issuer), pad="x" * 5000)).reason is Reason.TOO_LARGE


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("." * 16_000, Reason.MALFORMED),
        ("a." * 8_000, Reason.MALFORMED),
        ("." * 1_000_000, Reason.TOO_LARGE),
        ("Bearer " + "." * 8_000, Reason.MALFORMED),
    ],
    ids=["dots", "parts", "a million dots", "dots after a scheme"],
)
def test_dots_are_counted_not_collected(organizer: ResourceServer, token: str, reason: Reason) -> None:
    """CVE-2025-30204 (golang-jwt), CVE-2025-27144 (go-jose), CVE-2025-22868 (Go's jws): every dot allocated."""
    assert refused(organizer, token).reason is reason


JWE_HEADERS: dict[str, Mapping[str, Any]] = {
    "CVE-2024-33664 (python-jose), CVE-2024-28102 and CVE-2026-39373 (jwcrypto), CVE-2024-28176 (jose)": {
        "alg": "dir",
        "enc": "A128GCM",
        "zip": "DEF",
    },
    "CVE-2026-27932 (joserfc), CVE-2023-6681 (jwcrypto), CVE-2023-52428 (Nimbus), CVE-2022-36083 (jose)": {
        "alg": "PBES2-HS256+A128KW",
        "enc": "A128GCM",
        "p2c": 2**31 - 1,
        "p2s": "c2FsdA",
    },
    "CVE-2026-28490 (Authlib): a padding oracle": {"alg": "RSA1_5", "enc": "A128CBC-HS256"},
    "CVE-2026-29000 (pac4j): an unsigned token inside": {"alg": "RSA-OAEP-256", "enc": "A256GCM", "cty": "JWT"},
    "CVE-2022-3102 (jwcrypto), CVE-2023-51774 (json-jwt): encrypted where signed was wanted": {
        "alg": "RSA-OAEP",
        "enc": "A128GCM",
    },
    "CVE-2016-9121 (go-jose): an invalid curve": {
        "alg": "ECDH-ES",
        "enc": "A128GCM",
        "epk": {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
    },
}


@pytest.mark.parametrize("header", JWE_HEADERS.values(), ids=JWE_HEADERS)
def test_decrypts_nothing(organizer: ResourceServer, issuer: LocalIssuer, header: Mapping[str, Any]) -> None:
    """CVE-2024-33664 (python-jose) and its heirs: JWE made a small token into gigabytes, hours, or an access token."""
    bomb = zlib.compress(b" " * 4_000_000)
    inner = issuer.unsigned().encode()
    for text in (bomb, inner):
        assert refused(organizer, encoded(header, b"k" * 256, b"i" * 12, text, b"t" * 16)).reason is Reason.MALFORMED
    # The same header with the signature's three parts.
    assert refused(organizer, signed(issuer, claims(issuer), **header)).reason is Reason.ALGORITHM_NOT_ALLOWED


def test_inflates_nothing(organizer: ResourceServer, issuer: LocalIssuer) -> None:
    """CVE-2024-28102 (jwcrypto), with a signature: what is compressed is not JSON, whatever `zip` says."""
    payload = zlib.compress(json.dumps(claims(issuer)).encode())
    assert refused(organizer, signed(issuer, payload, zip="DEF")).reason is Reason.MALFORMED


def test_refuses_a_token_of_two_forms(organizer: ResourceServer, issuer: LocalIssuer) -> None:
    """CVE-2022-39227 (python-jwt): one text was a signed JSON serialisation to the one parser, and forged to the other.

    CVE-2016-9122 (go-jose): of several signatures one was verified, and another one's header believed.
    """
    header, payload, signature = issuer.token().split(".")
    forged = encoded(claims(issuer, sub="admin"))
    polyglot = f'{{"  {header}.{forged}.":"","protected":"{header}","payload":"{payload}","signature":"{signature}"}}'
    signatures = [{"protected": header, "signature": signature}, {"protected": header, "signature": ""}]
    several = json.dumps({"payload": payload, "signatures": signatures})
    for text in (polyglot, several, base64url(polyglot.encode()), f"{header}.{forged}.{payload}.{signature}"):
        assert refused(organizer, text).reason is Reason.MALFORMED


@pytest.mark.parametrize(
    "spell",
    [
        pytest.param(lambda text: text + "==", id="padding"),
        pytest.param(lambda text: text + "\n", id="line feed"),
        pytest.param(lambda text: text[:10] + "\r\n" + text[10:], id="folded"),
        pytest.param(lambda text: text[:10] + " " + text[10:], id="space"),
        pytest.param(lambda text: text + "\0", id="NUL"),
        pytest.param(lambda text: text[:10] + "\\" + text[10:], id="backslash"),
        pytest.param(lambda text: text[:10] + "!" + text[10:], id="a character outside the alphabet"),
        pytest.param(lambda text: f"\\{ord(text[0]):o}" + text[1:], id="octal escape"),
        pytest.param(lambda text: f"%{ord(text[0]):x}" + text[1:], id="percent escape"),
        pytest.param(lambda text: text[:-1] + chr(ord(text[-1]) + 1), id="unused bits"),
        pytest.param(lambda text: chr(ord(text[0]) + 0xFEE0) + text[1:], id="full width"),
    ],
)
@pytest.mark.parametrize("part", [0, 2], ids=["header", "signature"])
def test_base64url_has_one_spelling(
    organizer: ResourceServer, issuer: LocalIssuer, spell: Callable[[str], str], part: int
) -> None:
    """CVE-2022-25898 (jsrsasign): signatures with characters outside the alphabet, or escaped ones, were verified."""
    # Both the header and the signature of 256 bytes end in a character with unused bits.
    token = signed(issuer, claims(issuer), pad="x" * ((1 - len(issuer.key.kid)) % 3))
    parts = token.split(".")
    assert len(parts[part]) % 4
    parts[part] = spell(parts[part])
    assert refused(organizer, ".".join(parts)).reason is Reason.MALFORMED


def test_base64url_is_another_alphabet(organizer: ResourceServer, issuer: LocalIssuer) -> None:
    """CVE-2022-25898 (jsrsasign): base64 is not base64url, whose `-` and `_` it spells otherwise."""
    header, _, signature = issuer.token().split(".")
    payload = json.dumps(claims(issuer, note="\u00ff\u00fe>>>???"), ensure_ascii=False).encode()
    for number in range(3):  # with every offset to a group of three bytes
        text = base64.b64encode(payload + b" " * number).decode().rstrip("=")
        assert set(text) & set("+/")
        assert refused(organizer, f"{header}.{text}.{signature}").reason is Reason.MALFORMED


# JSON.


@pytest.mark.parametrize("opening", ["[", '{"a":'], ids=["arrays", "objects"])
@pytest.mark.parametrize("depth", [1_000, 1_900])
def test_deep_nesting_is_refused(organizer: ResourceServer, issuer: LocalIssuer, opening: str, depth: int) -> None:
    """CVE-2025-53864 (Nimbus): claims nested deeply enough overflowed the stack."""
    closing = "]" if opening == "[" else "}"
    deep = opening * depth + "0" + closing * depth
    token = signed(issuer, f'{{"iss": {deep}}}'.encode())
    # How deep is too deep is the interpreter's to say; an issuer it is in no case.
    assert refused(organizer, token).reason in (Reason.MALFORMED, Reason.CLAIM_MALFORMED)


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[]", b'""', b"7", b"true", b"{", b'{"alg"}', b"\xff", b'{"alg":"RS256",}', b"{}{}", b"'a'"],
    ids=repr,
)
@pytest.mark.parametrize("part", ["header", "payload"])
def test_whatever_is_no_object_is_malformed(
    organizer: ResourceServer, issuer: LocalIssuer, content: bytes, part: str
) -> None:
    """CVE-2019-17195 (Nimbus): parsing raised what nobody caught, and the service fell or let the request pass."""
    good = {"alg": "RS256", "typ": "JWT", "kid": issuer.key.kid}
    token = encoded(content, claims(issuer), bytes(256)) if part == "header" else encoded(good, content, bytes(256))
    assert refused(organizer, token).reason is Reason.MALFORMED


DUPLICATES = {
    "subject": '"sub": "auth0|alice", "sub": "admin"',
    "the same twice": '"sub": "admin", "sub": "admin"',
    "issuer": '"iss": "https://evil.example/", "iss": "https://issuer.example/"',
    "audience": '"aud": "reports", "aud": "organize"',
    "expiry": '"exp": 1, "exp": 4102444800',
    "escaped": '"sub": "auth0|alice", "\\u0073ub": "admin"',
    "nested": '"act": {"sub": "a", "sub": "b"}',
}


@pytest.mark.parametrize("members", DUPLICATES.values(), ids=DUPLICATES)
def test_a_member_has_one_value(organizer: ResourceServer, issuer: LocalIssuer, members: str) -> None:
    """CVE-2017-12635 (CouchDB): of a repeated member one parser took the first and the other one the last."""
    good = json.dumps(claims(issuer)).removesuffix("}")
    assert refused(organizer, signed(issuer, f"{good}, {members}}}".encode())).reason is Reason.MALFORMED


@pytest.mark.parametrize("members", ['"alg": "none", "alg": "RS256"', '"kid": "a", "kid": "b"', '"\\u0061lg": "none"'])
def test_a_header_member_has_one_value(organizer: ResourceServer, issuer: LocalIssuer, members: str) -> None:
    """CVE-2017-12635 (CouchDB), for a header: what one reader checks must be what the next one uses."""
    header = f'{{"alg": "RS256", "typ": "JWT", {members}}}'.encode()
    assert refused(organizer, encoded(header, claims(issuer), bytes(256))).reason is Reason.MALFORMED


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "latin-1", "cp037"])
def test_json_is_utf_8(organizer: ResourceServer, issuer: LocalIssuer, encoding: str) -> None:
    """RFC 8725 2.6, multiplicity of JSON encodings: two readers that guess the encoding can read two sets of claims."""
    text = json.dumps(claims(issuer, sub="\u00e4dmin"), ensure_ascii=False)
    assert organizer.validate(signed(issuer, text.encode())).subject == "\u00e4dmin"
    assert refused(organizer, signed(issuer, text.encode(encoding))).reason is Reason.MALFORMED


@pytest.mark.parametrize("content", [b'"\xed\xa0\x80"', b'"\\ud800"', b'"\xc0\xaf"', b'"\xff"', b'"a\0"', b'"a\nb"'])
def test_text_is_well_formed(organizer: ResourceServer, issuer: LocalIssuer, content: bytes) -> None:
    """RFC 8725 2.6, multiplicity of JSON encodings: text that is no text is mended by each reader in another way."""
    payload = json.dumps(claims(issuer)).encode().replace(b'"auth0|alice"', content)
    assert refused(organizer, signed(issuer, payload)).reason is Reason.MALFORMED


# The request and the answer.


def request(*headers: tuple[str, str], url: str = "https://api.example/contacts") -> RequestView:
    return RequestView("GET", lambda: url, headers)


def rejected(server: ResourceServer, view: RequestView) -> RequestRejected:
    with pytest.raises(RequestRejected) as refusal:
        server.authenticate(view)
    return refusal.value


def test_a_token_in_the_url_is_not_looked_at(organizer: ResourceServer, issuer: LocalIssuer) -> None:
    """CVE-2024-28238 (Directus): tokens in addresses ended up in logs, histories and referrers."""
    token = issuer.token()
    for url in (f"https://api.example/?access_token={token}", f"https://api.example/#access_token={token}"):
        assert isinstance(rejected(organizer, request(url=url)), MissingToken)
    for name in ("Cookie", "X-Access-Token", "Proxy-Authorization", "X-Forwarded-Authorization"):
        assert isinstance(rejected(organizer, request((name, f"Bearer {token}"))), MissingToken)
    organizer.authenticate(request(("Authorization", f"Bearer {token}")))


HEADERS = [
    "Bearer " + "a," * 30_000,
    "Bearer" + " " * 60_000,
    "," * 60_000,
    "Bearer " + "=" * 15_000,
    "Bearer a " * 9_000,
]


@pytest.mark.parametrize("value", HEADERS, ids=lambda value: value[:9])
def test_a_header_is_read_in_one_go(organizer: ResourceServer, value: str) -> None:
    """CVE-2020-8492 (CPython): the expression that read an authentication header could run for hours on commas."""
    refusal = rejected(organizer, request(("Authorization", value)))
    assert isinstance(refusal, (InvalidRequest, MissingToken, InvalidToken))


INJECTIONS = ['\r\nSet-Cookie: a="b"', '", error="none', "\n\nHTTP/1.1 200 OK", "\u2028\u0085", "\x1b[2J", "%0d%0aX: y"]


@pytest.mark.parametrize("text", INJECTIONS, ids=ascii)
@pytest.mark.parametrize("place", ["kid", "alg", "typ", "aud", "iss", "scheme"])
def test_nothing_of_a_token_gets_into_a_header(
    organizer: ResourceServer, issuer: LocalIssuer, text: str, place: str
) -> None:
    """CVE-2025-67724 (Tornado): a reason that held a stranger's text ended the header line that told it."""

    def refusal(text: str) -> RequestRejected:
        changes: dict[str, Any] = {"claims" if place in ("aud", "iss") else "headers": {place: text}}
        token = issuer.token(**changes)
        scheme = f"Bearer{text}" if place == "scheme" else "Bearer"
        return rejected(organizer, request(("Authorization", f"{scheme} {token}")))

    error = refusal(text)
    # The answer is the same, to the letter, as for a harmless text in the same place.
    assert organizer.challenge(error) == organizer.challenge(refusal("other"))
    # What the log is told is one line of printable ASCII.
    assert error.detail.isascii()
    assert error.detail.isprintable()
