"""Reading a compact JWS: form, base64url, JSON and header rules, before any key is asked for. RFC 7515, RFC 8725 3."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import JSON_VALUES
from token_guard import InvalidToken, Reason, ResourceServer
from token_guard.bearer import MAX_TOKEN_BYTES
from token_guard.jws import (
    MAX_HEADER_BYTES,
    MAX_JSON_DEPTH,
    decode_base64url,
    read_document,
    read_json,
    read_unverified,
)
from token_guard.testing import InMemoryTransport, LocalIssuer, SigningKey, sign_compact
from token_guard.testing.keys import base64url

NOW = 1_700_000_000
HEADER = {"alg": "RS256", "kid": "r1"}


def compact(header: bytes | Mapping[str, Any] = HEADER, payload: bytes = b"{}", signature: bytes = b"signature") -> str:
    """A token that nobody signed: reading does not look at the signature."""
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return ".".join(map(base64url, (content, payload, signature)))


def refusal(raw: object) -> Reason:
    with pytest.raises(InvalidToken) as refused:
        read_unverified(raw)
    return refused.value.reason


@pytest.fixture(scope="module")
def issuer() -> LocalIssuer:
    return LocalIssuer(algorithm="ES256", clock=lambda: NOW)


@pytest.fixture
def transport(issuer: LocalIssuer) -> InMemoryTransport:
    return issuer.transport()


@pytest.fixture
def organizer(issuer: LocalIssuer) -> ResourceServer:
    """The whole road with given keys."""
    return ResourceServer(issuer=issuer.url, audience="organize", jwks=issuer.jwks(), clock=lambda: NOW)


@pytest.fixture
def fetching(issuer: LocalIssuer, transport: InMemoryTransport) -> ResourceServer:
    """The whole road with keys that would have to be fetched."""
    return ResourceServer(issuer=issuer.url, audience="organize", clock=lambda: NOW, transport=transport)


def validation(organizer: ResourceServer, token: str) -> Reason:
    with pytest.raises(InvalidToken) as refused:
        organizer.validate(token)
    return refused.value.reason


# The form of a token.


def test_reads_the_three_parts() -> None:
    """JWS-01: header, claims, the signed text as it was received, and the signature."""
    raw = compact({"alg": "RS256", "kid": "r1", "typ": "JWT"}, b'{"iss":"a"}', b"\x00\xff")
    token = read_unverified(raw)
    assert (token.header.alg, token.header.kid, token.header.typ) == ("RS256", "r1", "jwt")
    assert token.claims == {"iss": "a"}
    assert token.signing_input.decode() == raw.rpartition(".")[0]
    assert token.signature == b"\x00\xff"


@pytest.mark.parametrize("raw", [None, 7, b"a.b.c", compact().encode(), ["a", "b", "c"], {}, object()])
def test_refuses_what_is_not_text(raw: object) -> None:
    """CHAL-12: any object at all is a refusal, never an exception of another kind."""
    assert refusal(raw) is Reason.MALFORMED


@pytest.mark.parametrize("raw", ["", ".", "a", "a.b", "..", "a.b.c.d", "a.b.c.d.e.f", compact() + ".", "." + compact()])
def test_refuses_another_number_of_segments(raw: str) -> None:
    """JWS-01: a signed token has exactly three segments."""
    assert refusal(raw) is Reason.MALFORMED


def test_refuses_an_encrypted_token_by_name() -> None:
    """JWS-17: five segments are a JWE, which is refused; the log says why."""
    with pytest.raises(InvalidToken, match="JWE") as refused:
        read_unverified(base64url(b'{"alg":"dir","enc":"A128GCM"}') + "..aXY.Y2lwaGVy.dGFn")
    assert refused.value.reason is Reason.MALFORMED


@pytest.mark.parametrize(
    "raw",
    [
        json.dumps({"payload": "e30", "protected": base64url(b'{"alg":"RS256"}'), "signature": "c2ln"}),
        json.dumps({"payload": "e30", "signatures": [{"protected": "e30", "signature": "c2ln"}]}),
    ],
)
def test_refuses_json_serialisations(raw: str) -> None:
    """JWS-19: the flattened and the general serialisation are no access tokens."""
    assert refusal(raw) is Reason.MALFORMED


@pytest.mark.parametrize("odd", "+/=:,~ \n\r\t%{}\"'\\\x00\x7f\x80éＡ٣\udcff\u200b\ufeff")
@pytest.mark.parametrize("segment", [0, 1, 2])
@pytest.mark.parametrize("place", ["before", "within", "after"])
def test_refuses_every_other_character(odd: str, segment: int, place: str) -> None:
    """JWS-02: only `A-Z a-z 0-9 - _ .` may occur, wherever it is."""
    parts = compact().split(".")
    text = parts[segment]
    parts[segment] = {"before": odd + text, "within": text[:4] + odd + text[4:], "after": text + odd}[place]
    assert refusal(".".join(parts)) is Reason.MALFORMED


@pytest.mark.parametrize(
    "segment", [b"A", b"AAAAA", b"AA==", b"AAA=", b"AA=", b"AAAA====", b"=", b"A===", b"AA\n", b"AA.A"]
)
def test_refuses_padding_and_impossible_lengths(segment: bytes) -> None:
    """JWS-03: base64url is unpadded, and no text is one character longer than whole groups."""
    with pytest.raises(ValueError):  # noqa: PT011  # its words are binascii's
        decode_base64url(segment)


@pytest.mark.parametrize(
    ("segment", "content"), [(b"", b""), (b"-_-_", b"\xfb\xff\xbf"), (b"AA", b"\0"), (b"AAA", b"\0\0")]
)
def test_decodes_base64url(segment: bytes, content: bytes) -> None:
    """JWS-03: the alphabet of RFC 4648 5."""
    assert decode_base64url(segment) == content


@pytest.mark.parametrize("segment", [0, 1, 2])
@pytest.mark.parametrize("padding", [b"", b" ", b"  "])
def test_a_segment_has_one_spelling(segment: int, padding: bytes) -> None:
    """JWS-04: of the last characters that decode to the same bytes, only the one with zero bits is accepted."""
    parts = compact(b'{"alg":"RS256"}' + padding, b'{"a":1}' + padding, b"sign" + padding).split(".")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    unused = {0: 0, 2: 4, 3: 2}[len(parts[segment]) % 4]
    value = alphabet.index(parts[segment][-1])
    for bits in range(1, 2**unused):
        other = [*parts]
        other[segment] = parts[segment][:-1] + alphabet[value | bits]
        assert refusal(".".join(other)) is Reason.MALFORMED
    read_unverified(".".join(parts))


def test_a_good_token_has_one_spelling(organizer: ResourceServer, issuer: LocalIssuer) -> None:
    """JWS-04: on the whole road, too, every change of the last signature character is refused."""
    token = issuer.token()
    organizer.validate(token)
    others = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") - {token[-1]}
    assert {validation(organizer, token[:-1] + other) for other in others} == {Reason.MALFORMED, Reason.BAD_SIGNATURE}


# The size of a token.


def test_size_limits_are_exact() -> None:
    """BEARER-14: 16 KiB of token and 4 KiB of decoded header are read, one more is not."""
    rest = compact(b'{"alg":"RS256"}', b"{}", b"")
    longest = rest + "A" * (MAX_TOKEN_BYTES - len(rest))
    read_unverified(longest)
    assert refusal(longest + "A") is Reason.TOO_LARGE

    header = b'{"alg":"RS256"}'
    read_unverified(compact(header + b" " * (MAX_HEADER_BYTES - len(header))))
    assert refusal(compact(header + b" " * (MAX_HEADER_BYTES - len(header) + 1))) is Reason.TOO_LARGE


@pytest.mark.parametrize("raw", ["a" * 2**20, "é" * 2**20, "." * 2**20, compact(payload=b" " * 2**20)])
def test_refuses_an_overlong_token_before_reading_it(raw: str) -> None:
    """BEARER-14, JWS-10: the length is judged first."""
    assert refusal(raw) is Reason.TOO_LARGE


# JSON.

NOT_OUR_JSON = {
    "array": b"[]",
    "string": b'"a"',
    "null": b"null",
    "number": b"1",
    "empty": b"",
    "only space": b"  ",
    "invalid UTF-8": b'{"a":"\xff"}',
    "overlong UTF-8": b'{"a":"\xc0\xaf"}',
    "surrogate in UTF-8": b'{"a":"\xed\xa0\x80"}',
    "Latin-1": '{"a":"é"}'.encode("latin-1"),
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "UTF-16 without BOM": '{"a":1}'.encode("utf-16-le"),
    "UTF-32": '{"a":1}'.encode("utf-32"),
    "BOM": '{"a":1}'.encode("utf-8-sig"),
    "repeated member": b'{"a":1,"a":1}',
    "repeated member, escaped": b'{"a":1,"\\u0061":1}',
    "repeated member within": b'{"cnf":{"jkt":"a","jkt":"b"}}',
    "repeated member in an array": b'{"a":[{"b":1,"b":1}]}',
    "something after": b'{"a":1}x',
    "two objects": b"{}{}",
    "NUL after": b"{}\0",
    "NUL before": b"\0{}",
    "form feed": b"\x0c{}",
    "no-break space": "\u00a0{}".encode(),
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":Infinity}',
    "-Infinity": b'{"a":-Infinity}',
    "single quotes": b"{'a':1}",
    "comment": b'{"a":1}//',
    "comment within": b'{"a":/**/1}',
    "newline in a string": b'{"a":"\n"}',
    "NUL in a string": b'{"a":"\0"}',
    "NUL in a name": b'{"a\0":1}',
    "trailing comma": b'{"a":1,}',
    "trailing comma in an array": b'{"a":[1,]}',
    "True": b'{"a":True}',
    "plus": b'{"a":+1}',
    "leading zero": b'{"a":01}',
    "hexadecimal": b'{"a":0x1}',
    "leading point": b'{"a":.5}',
    "trailing point": b'{"a":5.}',
    "underscore": b'{"a":1_0}',
    "other digits": '{"a":１}'.encode(),
    "too large a number": b'{"a":1e999}',
    "too large a negative number": b'{"a":-1e999}',
    "integer of 10,000 digits": b'{"a":' + b"9" * 10_000 + b"}",
    "lone surrogate": b'{"a":"\\ud800"}',
    "lone low surrogate": b'{"a":["\\udc00"]}',
    "surrogates in the wrong order": b'{"a":"\\udc00\\ud800"}',
    "lone surrogate in a name": b'{"\\ud800":1}',
    "bad escape": b'{"a":"\\x41"}',
    "short escape": b'{"a":"\\u00"}',
    "unterminated string": b'{"a":"',
    "nested arrays": b'{"a":' + b"[" * 12_000,
    "nested arrays, closed": b'{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    "nested objects": b'{"a":' * 2_000 + b"1" + b"}" * 2_000,
}


@pytest.mark.parametrize("content", NOT_OUR_JSON.values(), ids=NOT_OUR_JSON)
def test_refuses_claims_that_are_not_one_strict_json_object(content: bytes) -> None:
    """JWS-05 to JWS-08, JWS-10: not an object, not UTF-8, not unique, not JSON, or hostile to the parser."""
    assert refusal(compact(payload=content)) is Reason.MALFORMED


@pytest.mark.parametrize("content", NOT_OUR_JSON.values(), ids=NOT_OUR_JSON)
def test_refuses_a_header_that_is_not_one_strict_json_object(content: bytes) -> None:
    """JWS-05 to JWS-08, JWS-10: the same rules; what is hostile by its size is refused for its size."""
    expected = Reason.MALFORMED if len(content) <= MAX_HEADER_BYTES else Reason.TOO_LARGE
    assert refusal(compact(content)) is expected


def test_refuses_a_second_alg() -> None:
    """JWS-06: neither the first nor the last of two `alg` wins."""
    assert refusal(compact(b'{"alg":"RS256","alg":"none"}')) is Reason.MALFORMED
    assert refusal(compact(b'{"alg":"none","alg":"RS256"}')) is Reason.MALFORMED


@pytest.mark.parametrize(
    ("content", "claims"),
    [
        (b' {"a":1} \r\n\t', {"a": 1}),
        (b'{"":0}', {"": 0}),
        (b'{"a":-0,"b":1E-400,"c":1.5e3}', {"a": 0, "b": 0.0, "c": 1500.0}),
        (b'{"a":123456789012345678901234567890}', {"a": 123456789012345678901234567890}),
        (b'{"a":"\\ud83d\\ude00\\u0000"}', {"a": "😀\0"}),
        ('{"é":"\uffff"}'.encode(), {"é": "\uffff"}),
        (b'{"a":"\\\\ud800"}', {"a": "\\ud800"}),
        (b'{"__proto__":{},"constructor":null}', {"__proto__": {}, "constructor": None}),
    ],
)
def test_keeps_odd_but_valid_json_exactly(content: bytes, claims: dict[str, Any]) -> None:
    """JWS-07, JWS-09: white space around and within, and every value that JSON can spell."""
    assert read_unverified(compact(payload=content)).claims == claims


@pytest.mark.parametrize("nested", [b"[" * 12_000, b'{"a":' * 2_000 + b"1" + b"}" * 2_000])
@pytest.mark.parametrize("depth", [0, 500, 900])
def test_hostile_nesting_is_a_refusal_at_every_stack_depth(nested: bytes, depth: int) -> None:
    """JWS-10: no RecursionError leaves, however deep the caller's own stack is."""

    def at(depth: int) -> Reason:
        return refusal(compact(payload=nested)) if depth == 0 else at(depth - 1)

    assert at(depth) is Reason.MALFORMED


def nested_arrays(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def nested_objects(depth: int) -> bytes:
    return b'{"[{":' * (depth - 1) + b"{}" + b"}" * (depth - 1)


def nested_after_others(depth: int) -> bytes:
    return b"[" + b"[]," * MAX_JSON_DEPTH + nested_arrays(depth - 1) + b"]"


@pytest.mark.parametrize("nested", [nested_arrays, nested_objects, nested_after_others])
@pytest.mark.parametrize("read", [read_json, read_document])
def test_json_may_be_nested_so_deep_and_no_deeper(
    read: Callable[[bytes], object], nested: Callable[[int], bytes]
) -> None:
    """JWS-10: the bound is a number of ours, the same for every caller and every size."""
    assert json.dumps(read(nested(MAX_JSON_DEPTH)), separators=(",", ":")).encode() == nested(MAX_JSON_DEPTH)
    for depth in (MAX_JSON_DEPTH + 1, 5_000, 500_000):
        with pytest.raises(ValueError, match="nested"):
            read(nested(depth))
        with pytest.raises(ValueError, match="nested"):
            read(nested(depth).rstrip(b"]}"))


@pytest.mark.parametrize(
    "content",
    [
        b'{"a":"' + b"[{" * 500 + b'"}',
        b'{"a":"' + b'\\"[{' * 500 + b'"}',
        b'{"a":"\\\\","b":"[' + b"[" * 500 + b'"}',
        b'{"' + b"[" * 500 + b'":[]}',
        b"[" + b",".join([b"[{}]"] * 500) + b"]",
    ],
    ids=["in text", "behind quotes", "behind a backslash", "in a name", "side by side"],
)
def test_many_brackets_are_not_deep(content: bytes) -> None:
    """JWS-09: what stands in texts, or side by side, is no nesting."""
    assert read_json(content) == json.loads(content)


# The parser takes its own frames from the stack of whoever calls: both of these crashed the interpreter.
ON_A_SMALL_STACK = """
import sys, threading
from token_guard.jws import MAX_JSON_DEPTH, read_json

def read():
    read_json(b"[" * MAX_JSON_DEPTH + b"]" * MAX_JSON_DEPTH)
    for content in (b"[" * 12_000, b'{"a":' * 2_000 + b"1" + b"}" * 2_000):
        try:
            read_json(content)
        except ValueError as error:
            print(error)

sys.setrecursionlimit(1_000_000)
threading.stack_size(64 * 1024)
thread = threading.Thread(target=read)
thread.start()
thread.join()
"""


def test_hostile_nesting_does_not_crash_a_thread_with_a_small_stack() -> None:
    """JWS-10: where the recursion limit was raised, what ends a recursion is not an exception but the process."""
    done = subprocess.run([sys.executable, "-c", ON_A_SMALL_STACK], capture_output=True, text=True, check=True)
    assert (done.stdout.count("nested more than"), done.stderr) == (2, "")


@pytest.mark.parametrize(
    ("odd", "read"),
    [
        (b'{"kty":"RSA","n":"a","n":"b"}', None),
        (b'{"kty":"RSA","kid":"\\ud800"}', {"kty": "RSA", "kid": None}),
        (b'{"kty":"RSA","\\udc00":"a"}', {"kty": "RSA"}),
        (b'{"kty":"RSA","a":"\\ud83d\\ude00"}', {"kty": "RSA", "a": "😀"}),
        (b'{"kty":"RSA","a":"\\ud83d","b":"\\ude00"}', {"kty": "RSA", "a": None, "b": None}),
        (b'{"kty":"RSA","a":[["\\ud800",1,true,null],"b"]}', {"kty": "RSA", "a": [[None, 1, True, None], "b"]}),
        (b'"\\udfff"', None),
        (b'{"kty":"RSA","a":1e999}', {"kty": "RSA", "a": None}),
        (b'{"kty":"RSA","a":[-1e999,1.5]}', {"kty": "RSA", "a": [None, 1.5]}),
        (b'{"kty":"RSA","a":' + b"9" * 5_000 + b"}", {"kty": "RSA", "a": None}),
        (b'{"kty":"RSA","a":-12}', {"kty": "RSA", "a": -12}),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_document_reads_all_but_what_is_odd(odd: bytes, read: object) -> None:
    """JWK-02, JWK-14: one odd key of a key set is skipped alone."""
    assert read_document(b'{"keys":[%b,{"kty":"EC"}]}' % odd) == {"keys": [read, {"kty": "EC"}]}
    assert read_document(odd) == read


@pytest.mark.parametrize("content", [b"[NaN]", b'{"a":Infinity}', b'{"a":"\\ud800",}', b'{"a":01}'])
def test_document_refuses_what_is_not_json(content: bytes) -> None:
    """JWS-07: oddness is forgiven, another syntax is not."""
    with pytest.raises(ValueError, match=r"JSON|double quotes|delimiter"):
        read_document(content)


# Header rules.


@pytest.mark.parametrize("alg", [None, 1, True, ["RS256"], {}, {"RS256": 1}])
def test_refuses_a_header_without_alg(alg: object) -> None:
    """JWS-11: `alg` is a string."""
    assert refusal(compact({"alg": alg})) is Reason.MALFORMED
    assert refusal(compact({"kid": "r1"})) is Reason.MALFORMED


@pytest.mark.parametrize(
    "alg",
    [
        *("rs256", "Rs256", "RS256 ", " RS256", "RS256\0", "RＳ256", "EdDsa", "ED25519", "ML-DSA", "RS1", "ES256K"),
        *("", "none", "None", "nOnE", "NONE", "RSA1_5", "RSA-OAEP", "dir", "A128KW", "SHA256withRSA"),
    ],
)
def test_refuses_an_unknown_algorithm(alg: str) -> None:
    """JWS-12, JWS-13, ALG-01: compared exactly with the table, in which `none` has no row."""
    assert refusal(compact({"alg": alg})) is Reason.ALGORITHM_NOT_ALLOWED
    assert refusal(compact({"alg": alg}, signature=b"")) is Reason.ALGORITHM_NOT_ALLOWED


@pytest.mark.parametrize(
    "members",
    [
        {"crit": ["exp2"], "exp2": 1},
        {"crit": []},
        {"crit": None},
        {"crit": "exp2", "exp2": 1},
        {"crit": {"exp2": 1}, "exp2": 1},
        {"crit": [1]},
        {"crit": ["exp2", "exp2"], "exp2": 1},
        {"crit": ["absent"]},
        {"crit": ["alg"]},
        {"crit": ["b64"], "b64": True},
        {"crit": ["b64"], "b64": False},
        {"b64": False},
        {"b64": None},
        {"b64": 0},
        {"b64": "true"},
    ],
)
def test_refuses_critical_extensions_and_unencoded_payloads(members: dict[str, Any]) -> None:
    """JWS-15, JWS-16: no extension is understood, so every `crit` refuses; `b64` may only be true."""
    assert refusal(compact(HEADER | members)) is Reason.UNSUPPORTED_CRITICAL


@pytest.mark.parametrize("kid", [None, 1, 1.0, True, ["r1"], {"r1": 1}])
def test_refuses_a_key_id_that_is_no_string(kid: object) -> None:
    """JWK-08: `kid` may be absent, but not of another type."""
    assert refusal(compact({"alg": "RS256", "kid": kid})) is Reason.MALFORMED


@pytest.mark.parametrize(
    ("typ", "read"),
    [
        ("JWT", "jwt"),
        ("jwt", "jwt"),
        ("application/jwt", "jwt"),
        ("at+jwt", "at+jwt"),
        ("AT+JWT", "at+jwt"),
        ("application/at+jwt", "at+jwt"),
        ("Application/At+Jwt", "at+jwt"),
    ],
)
def test_type_is_a_media_type_in_any_case(typ: str, read: str) -> None:
    """BCP-05: without a slash it is read as if `application/` stood before it."""
    assert read_unverified(compact(HEADER | {"typ": typ})).header.typ == read
    assert read_unverified(compact(HEADER)).header.typ is None


@pytest.mark.parametrize(
    "typ",
    [
        *("", "JOSE", "JWE", "dpop+jwt", "logout+jwt", "secevent+jwt", "oauth-authz-req+jwt", "introspection+jwt"),
        *(
            "at+jwt ",
            " JWT",
            "at-jwt",
            "/jwt",
            "text/jwt",
            "application/application/jwt",
            "jwt;v=1",
            "JWT\0",
            "at+jwt\n",
        ),
        *(None, 1, True, ["JWT"], {"JWT": 1}, [[[[[]]]]]),
    ],
)
def test_refuses_every_other_type(typ: object) -> None:
    """BCP-04, BCP-05: a token that says it is something else is no access token."""
    assert refusal(compact(HEADER | {"typ": typ})) is Reason.WRONG_TYPE


GOOD_HEADER = b'{"alg":"RS256"}'


@pytest.mark.parametrize(
    ("raw", "detail"),
    [
        (b"", "the token is not text but bytes"),
        ("a" * 20_000, "the token is longer than 16384 bytes"),
        ("é..", "the token holds characters outside ASCII"),
        ("a.b", "the token has 2 segments, not three"),
        (
            "....",
            "the token has 5 segments, not three: it is encrypted (JWE), and the issuer must be set to sign alone",
        ),
        (compact(b"{}" + b" " * 5_000), "the header is longer than 4096 bytes"),
        (compact(b"[]"), "the header is not a JSON object"),
        (compact(b"{} {}"), "the header cannot be read: something follows the JSON value"),
        (compact(b""), "the header cannot be read: no JSON value"),
        (compact(b"[" * 2_000), "the header cannot be read: JSON is nested more than 100 levels deep"),
        (compact(b'{"a":1,"a":1}'), "the header cannot be read: a member name is repeated"),
        (compact(b'{"a":NaN}'), "the header cannot be read: NaN is not JSON"),
        (compact(b'{"a":1e999}'), "the header cannot be read: a number is too large"),
        ("+..", "the header cannot be read: a character outside the alphabet of base64url"),
        (
            "AB..",
            (
                "the header cannot be read: base64url with unused bits that are not zero, as where a text was cut off"
                " when it was copied"
            ),
        ),
        ("Bearer e30.e30.", 'the text begins with "Bearer ": pass only what follows it'),
        ("bearer e30", 'the text begins with "Bearer ": pass only what follows it'),
        ("Bearer e30.e30.e30.e30.e30", 'the text begins with "Bearer ": pass only what follows it'),
        (
            compact(GOOD_HEADER, b"{} {}"),
            "the payload or the signature cannot be read: something follows the JSON value",
        ),
        (compact(GOOD_HEADER, b"[]"), "the payload is not a JSON object"),
        (compact(b"{}"), "the header has no alg"),
        (compact(b'{"alg":"none"}'), "alg 'none' is not an algorithm that we verify"),
        (compact(b'{"alg":"RS256","crit":["exp"]}'), "the header has crit, and no extension is supported"),
        (compact(b'{"alg":"RS256","b64":false}'), "an unencoded payload (b64) is not allowed in a JWT"),
        (compact(b'{"alg":"RS256","kid":1}'), "the header's kid is not a string"),
        (compact(b'{"alg":"RS256","typ":"JWE"}'), "typ 'JWE' is not an access token's"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_log_says_what_cannot_be_read(raw: object, detail: str) -> None:
    """Whoever looks for the fault is told where in the token it is, and never shown the token."""
    with pytest.raises(InvalidToken) as refused:
        read_unverified(raw)
    assert refused.value.detail == detail


def test_ignores_unknown_header_parameters(organizer: ResourceServer, issuer: LocalIssuer) -> None:
    """JWS-14: what is not understood and not critical has no meaning."""
    assert organizer.validate(
        issuer.token(headers={"foo": {"x": [1]}, "cty": "JWT", "b64": True, "zip": "DEF"})
    ).subject


def test_signature_covers_the_text_as_received(organizer: ResourceServer, issuer: LocalIssuer) -> None:
    """JWS-09: white space and member order are free, because nothing is serialised again."""
    header = f'\n{{ "x" : 1e0,\t"kid": "{issuer.key.kid}",\r\n  "alg" : "\\u0045S256" }} '
    escaped = issuer.url.replace("/", "\\/")
    claims = f'{{"exp":{NOW + 9}.50e0 , "aud" : [ "organize" ],"iss":"{escaped}", "sub":"a"}}\n'
    assert organizer.validate(sign_compact(header.encode(), claims.encode(), issuer.key)).subject == "a"


def test_refusals_of_a_header_are_not_forgotten() -> None:
    """A header that was refused once is refused again: only good headers are remembered."""
    assert [refusal(compact({"alg": "none"})) for _ in range(3)] == [Reason.ALGORITHM_NOT_ALLOWED] * 3


# Signatures that are none, and keys that the token brings along.


def test_refuses_unsigned_tokens(organizer: ResourceServer, issuer: LocalIssuer) -> None:
    """JWS-13: `none` with an empty or a random signature, and an empty signature under a real algorithm."""
    unsigned = issuer.unsigned()
    assert validation(organizer, unsigned) is Reason.ALGORITHM_NOT_ALLOWED
    assert validation(organizer, unsigned + "c2lnbmF0dXJl") is Reason.ALGORITHM_NOT_ALLOWED
    token = issuer.token()
    assert validation(organizer, token[: token.rindex(".") + 1]) is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("alg", ["nOnE", "rs256", "RSA1_5", "HS256"])
def test_refuses_an_algorithm_before_any_fetch(
    fetching: ResourceServer, issuer: LocalIssuer, transport: InMemoryTransport, alg: str
) -> None:
    """JWS-12, BCP-01: a token whose algorithm is not allowed causes no traffic."""
    assert validation(fetching, issuer.token(headers={"alg": alg})) is Reason.ALGORITHM_NOT_ALLOWED
    assert transport.requests == []


@pytest.mark.parametrize("with_kid", [True, False])
def test_keys_in_the_header_are_never_used(
    fetching: ResourceServer, issuer: LocalIssuer, transport: InMemoryTransport, with_kid: bool
) -> None:
    """JWS-20: `jwk`, `jku`, `x5u`, `x5c` and `x5t` neither supply a key nor cause a fetch from where they point."""
    stranger = SigningKey.generate("ES256", kid=issuer.key.kid)
    embedded = {
        "jwk": stranger.public_jwk(),
        "jku": "https://attacker.example/jwks.json",
        "x5u": "https://attacker.example/chain.pem",
        "x5c": ["MIIB"],
        "x5t": "AAAA",
        "x5t#S256": "AAAA",
        **({} if with_kid else {"kid": None}),
    }
    assert validation(fetching, issuer.token(key=stranger, headers=embedded)) is Reason.BAD_SIGNATURE
    assert {url for _, url in transport.requests} == {
        f"{issuer.url}.well-known/openid-configuration",
        f"{issuer.url}.well-known/jwks.json",
    }
    fetching.close()


# What is unverified says so, and nothing shows a token.


def test_unverified_token_hides_what_makes_it_a_token() -> None:
    """BEARER-15, BCP-06: its representation holds neither claims nor signature."""
    raw = compact({"alg": "RS256"}, b'{"sub":"auth0|alice"}')
    token = read_unverified(raw)
    _, payload, signature = raw.split(".")
    for text in (repr(token), str(token), f"{token}"):
        assert not any(part in text for part in (payload, signature, "alice", "signature"))


def test_unverified_token_has_nothing_that_an_access_token_has() -> None:
    """BCP-06: another type, which cannot be mistaken for verified claims."""
    token = read_unverified(compact())
    assert not any(hasattr(token, name) for name in ("subject", "scopes", "permissions", "require", "is_client"))


# Whatever the input.

HEADERS = st.fixed_dictionaries(
    {"alg": st.sampled_from(["RS256", "ES256", "EdDSA"]) | JSON_VALUES},
    optional={
        "kid": st.text() | JSON_VALUES,
        "typ": st.sampled_from(["JWT", "at+jwt"]) | JSON_VALUES,
        "crit": JSON_VALUES,
        "b64": st.booleans() | JSON_VALUES,
    },
)
SEGMENTS = (
    st.binary(max_size=40).map(base64url)
    | st.text("AQgw-_.=+/é", max_size=6)
    | HEADERS.map(json.dumps).map(lambda text: base64url(text.encode()))
)


@given(st.lists(SEGMENTS, min_size=2, max_size=4).map(".".join) | st.text() | st.binary() | st.none() | st.integers())
@settings(max_examples=200, deadline=None)
def test_any_input_is_a_token_or_a_refusal(raw: object) -> None:
    """CHAL-12, JWS-04: nothing but InvalidToken leaves, and what is read has exactly this spelling."""
    try:
        token = read_unverified(raw)
    except InvalidToken:
        return
    assert f"{token.signing_input.decode()}.{base64url(token.signature)}" == raw


@given(HEADERS, st.dictionaries(st.text(), JSON_VALUES, max_size=3))
@settings(max_examples=100, deadline=None)
def test_any_header_is_read_or_refused(header: dict[str, Any], claims: dict[str, Any]) -> None:
    """CHAL-12: header members of any type are accepted in their own type only."""
    try:
        token = read_unverified(compact(header, json.dumps(claims).encode()))
    except InvalidToken as refused:
        assert refused.reason in {  # noqa: PT017
            Reason.MALFORMED,
            Reason.ALGORITHM_NOT_ALLOWED,
            Reason.UNSUPPORTED_CRITICAL,
            Reason.WRONG_TYPE,
        }
    else:
        assert (token.header.alg, token.header.kid) == (header["alg"], header.get("kid"))
        assert "crit" not in header
        assert token.claims == claims


@given(st.binary(max_size=60) | st.text("AQgwZ-_+/=.\n\0", max_size=8).map(str.encode))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_base64url_in_one_spelling_or_a_value_error(segment: bytes) -> None:
    """JWS-03, JWS-04: what decodes is what its bytes encode to."""
    try:
        content = decode_base64url(segment)
    except ValueError:
        return
    assert base64url(content).encode() == segment


@given(st.binary(max_size=60) | st.text('{}[]":,\\ud8a0e-+.1NaN \n\0é', max_size=12).map(str.encode))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_strict_json_or_a_value_error(content: bytes) -> None:
    """JWS-05 to JWS-08: what is read is JSON that can be written again as UTF-8 without NaN."""
    for read in (read_json, read_document):
        try:
            value = read(content)
        except ValueError:
            continue
        assert json.loads(json.dumps(value, allow_nan=False, ensure_ascii=False).encode()) == value


TEXTS_WITH_BRACKETS = st.text('[]{}"\\,:a', max_size=5)
WRAPPERS = st.lists(st.none() | TEXTS_WITH_BRACKETS, min_size=MAX_JSON_DEPTH - 3, max_size=MAX_JSON_DEPTH + 3)


@given(WRAPPERS, TEXTS_WITH_BRACKETS, st.booleans())
@settings(max_examples=50, deadline=None)
def test_any_json_is_refused_exactly_beyond_the_greatest_depth(names: list[str | None], text: str, wide: bool) -> None:
    """JWS-10: only what nests counts, whatever the texts and the members beside it hold."""
    value: Any = [text]
    for name in names:
        value = [value, *([[], text] * wide)] if name is None else {name: value}
    content = json.dumps(value).encode()
    if len(names) < MAX_JSON_DEPTH:
        assert read_json(content) == value
    else:
        with pytest.raises(ValueError, match="nested"):
            read_json(content)


@given(JSON_VALUES)
@settings(max_examples=200, deadline=None)
def test_any_json_value_is_read_exactly(value: Any) -> None:
    """JWS-09: strictness never changes a value."""
    for ensure_ascii in (True, False):
        assert read_json(json.dumps(value, ensure_ascii=ensure_ascii).encode()) == value
