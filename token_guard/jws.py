"""Read a compact JWS: size limits, strict base64url, strict JSON, header rules.

Verifies nothing and knows no issuer: what it returns may be used to refuse a token, never to accept one. RFC 7515,
RFC 7797 7, RFC 8725 3. A token's JSON is RFC 8259 with unique member names, finite numbers and well-formed Unicode.
"""

import binascii
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate
from typing import Any, NoReturn

from .algorithms import ALGORITHMS
from .bearer import MAX_TOKEN_BYTES
from .errors import InvalidToken, Reason, shown
from .hints import scheme_hint

MAX_HEADER_BYTES = 4 * 1024  # our own bound on the decoded header
MAX_JSON_DEPTH = 100  # our own bound: the parser would go on to the end of the caller's stack, and may crash there
_HEADERS_REMEMBERED = 256  # an issuer uses a handful; to read one again takes half as long as all the rest of a token

ACCEPTED_TYPES = frozenset({"jwt", "at+jwt"})
ACCESS_TOKEN_TYPE = "at+jwt"  # RFC 9068 2.1

_OTHER_FORMS = {
    1: ": where it is an opaque token, the client must ask the issuer for one for this API's audience",
    5: ": it is encrypted (JWE), and the issuer must be set to sign alone",
}

_DOT, _PLUS, _SLASH, _EQUALS = b".+/="
# By length modulo 4: the last characters that leave the unused bits zero (RFC 4648 3.5), and the padding needed.
_ENDINGS = ((b"", b""), (b"", b""), (b"AQgw", b"=="), (b"AEIMQUYcgkosw048", b"="))
_UNUSED_BITS = "base64url with unused bits that are not zero, as where a text was cut off when it was copied"
_WHITE_SPACE = " \t\n\r"  # RFC 8259 2
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)  # possessive: whatever follows, read once
_SURROGATE = re.compile("[\ud800-\udfff]")
_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))


@dataclass(frozen=True, slots=True)
class Header:
    """The members of a JOSE header that Token Guard reads. Key sources such as `jku` and `jwk` are not among them."""

    alg: str
    kid: str | None
    typ: str | None


@dataclass(slots=True, repr=False)  # three quarters of a NamedTuple's price to make, half to read from
class UnverifiedToken:
    """A token that was read and not verified. Another type than AccessToken, so that the two are never confused.

    Its fields come from whoever sent it. Never log `signing_input` or `signature`: together they are the token.
    """

    header: Header
    claims: dict[str, Any]
    payload: bytes
    signing_input: bytes
    signature: bytes

    def __repr__(self) -> str:
        return f"UnverifiedToken(header={self.header!r})"


def read_unverified(raw: object) -> UnverifiedToken:
    """Return the parts of a compact JWS after every rule about its form and header.

    Does NOT verify the signature, nor check any claim.

    Raises:
        InvalidToken: `malformed`, `too_large`, `algorithm_not_allowed`, `unsupported_critical` or `wrong_type`.
    """
    if not isinstance(raw, str):
        raise malformed(f"the token is not text but {type(raw).__name__}")
    if len(raw) > MAX_TOKEN_BYTES:
        raise InvalidToken(Reason.TOO_LARGE, detail=f"the token is longer than {MAX_TOKEN_BYTES} bytes")
    try:
        encoded = raw.encode("ascii")
    except UnicodeEncodeError:
        raise malformed("the token holds characters outside ASCII") from None
    # Cut at the two dots: 2,000 instructions. A split, and the signed part cut out again, takes 7,500.
    signing_input, _, last = encoded.rpartition(b".")
    first, dot, second = signing_input.partition(b".")
    if not dot or _DOT in second:
        raise malformed(scheme_hint(encoded) or partial(_not_three, encoded.count(b".") + 1))
    header = _remembered_header(first)
    try:
        payload = decode_base64url(second)
        claims = read_json(payload)
        signature = decode_base64url(last)
    except ValueError as error:
        raise malformed(f"the payload or the signature cannot be read: {error}") from None
    if type(claims) is not dict:
        raise malformed("the payload is not a JSON object")
    return UnverifiedToken(header, claims, payload, signing_input, signature)


def read_json(content: bytes) -> Any:
    """Return strict JSON: UTF-8 without BOM, unique member names, finite numbers, no lone surrogates.

    Raises:
        ValueError: the bytes are not such JSON, or nested deeper than `MAX_JSON_DEPTH`.
    """
    return _read(content, _strict, _well_formed)


def read_document(content: bytes) -> Any:
    """Return JSON as strict as `read_json`, but where one value is odd, it alone is read as None.

    Odd are an object with a repeated member name, a number that is too large and a text with a lone surrogate; a member
    with such a name is left out. So one odd key of a key set is skipped alone.

    Raises:
        ValueError: as `read_json`.
    """
    return _read(content, _forgiving, _without_odd_texts)


def _read(content: bytes, decoder: json.JSONDecoder, check_texts: Callable[[Any], Any]) -> Any:
    text = content.decode().strip(_WHITE_SPACE)
    # Few brackets cannot be deep, wherever they stand, which saves nearly every token the exact look. Taken out and not
    # counted: a count looks at every byte in turn, for 5,600 instructions instead of 1,000.
    brackets = len(content) - len(content.replace(b"[", b"").replace(b"{", b""))
    if brackets > MAX_JSON_DEPTH and _is_too_deep(content):
        raise ValueError(f"JSON is nested more than {MAX_JSON_DEPTH} levels deep")
    try:
        value, end = decoder.scan_once(text, 0)  # type: ignore[attr-defined]
        if "\\" in text:  # an escape is the only way to a lone surrogate, which no UTF-8 text can hold
            value = check_texts(value)
    except StopIteration:
        raise ValueError("no JSON value") from None
    if end != len(text):
        raise ValueError("something follows the JSON value")
    return value


def _is_too_deep(content: bytes) -> bool:
    brackets = _STRING.sub(b"", content).translate(None, _NO_BRACKET)
    return any(depth > MAX_JSON_DEPTH for depth in accumulate(1 if bracket in b"[{" else -1 for bracket in brackets))


def decode_base64url(segment: bytes) -> bytes:
    """Return the bytes of unpadded, canonical base64url (RFC 7515 2).

    Raises:
        ValueError: a character outside the alphabet, an impossible length, or unused bits that are not zero.
    """
    if _PLUS in segment or _SLASH in segment or _EQUALS in segment:
        raise ValueError("a character outside the alphabet of base64url")
    endings, padding = _ENDINGS[len(segment) % 4]
    if padding and segment[-1] not in endings:
        raise ValueError(_UNUSED_BITS)
    # Searched and replaced, not translated: that is 1,800 instructions for a payload instead of 4,700.
    return binascii.a2b_base64(segment.replace(b"-", b"+").replace(b"_", b"/") + padding, strict_mode=True)


def malformed(detail: str | Callable[[], str]) -> InvalidToken:
    """Return the refusal of a token that is not a JWS that we can read."""
    return InvalidToken(Reason.MALFORMED, detail=detail)


def _not_three(count: int) -> str:
    return f"the token has {count} segments, not three{_OTHER_FORMS.get(count, '')}"


def _read_header(segment: bytes) -> Header:
    """Return the header of one segment, after the header rules."""
    try:
        content = decode_base64url(segment)
        if len(content) > MAX_HEADER_BYTES:
            raise InvalidToken(Reason.TOO_LARGE, detail=f"the header is longer than {MAX_HEADER_BYTES} bytes")
        members = read_json(content)
    except ValueError as error:
        raise malformed(scheme_hint(segment) or f"the header cannot be read: {error}") from None
    if type(members) is not dict:
        raise malformed("the header is not a JSON object")
    alg, kid, typ = members.get("alg"), members.get("kid"), members.get("typ")
    if not isinstance(alg, str):
        raise malformed("the header has no alg")
    if alg not in ALGORITHMS:  # RFC 8725 3.1; `none` is no algorithm either
        raise InvalidToken(Reason.ALGORITHM_NOT_ALLOWED, detail=f"alg {shown(alg)} is not an algorithm that we verify")
    if "crit" in members:  # RFC 7515 4.1.11: we understand no extension, so any crit refuses
        raise InvalidToken(Reason.UNSUPPORTED_CRITICAL, detail="the header has crit, and no extension is supported")
    if members.get("b64", True) is not True:  # RFC 7797 7
        raise InvalidToken(Reason.UNSUPPORTED_CRITICAL, detail="an unencoded payload (b64) is not allowed in a JWT")
    if "kid" in members and not isinstance(kid, str):
        raise malformed("the header's kid is not a string")
    if "typ" in members:
        typ = typ.lower().removeprefix("application/") if isinstance(typ, str) else None  # RFC 7515 4.1.9
        if typ not in ACCEPTED_TYPES:
            raise InvalidToken(Reason.WRONG_TYPE, detail=f"typ {shown(members['typ'])} is not an access token's")
    return Header(alg, kid, typ)


_remembered_header = lru_cache(maxsize=_HEADERS_REMEMBERED)(_read_header)  # a refusal is not remembered


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):  # RFC 7519 4: names are unique, or the parser refuses
        raise ValueError("a member name is repeated")
    return members


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _or_none(read: Callable[[Any], Any], found: Any) -> Any:
    try:
        return read(found)
    except ValueError:
        return None


def _well_formed(value: Any) -> Any:
    json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _without_odd_texts(value: Any) -> Any:
    if isinstance(value, str):
        return None if _SURROGATE.search(value) else value
    if isinstance(value, list):
        return [_without_odd_texts(member) for member in value]
    if isinstance(value, dict):
        return {name: _without_odd_texts(member) for name, member in value.items() if not _SURROGATE.search(name)}
    return value


_strict = json.JSONDecoder(object_pairs_hook=_unique_members, parse_float=_finite, parse_constant=_no_constant)
_forgiving = json.JSONDecoder(
    object_pairs_hook=partial(_or_none, _unique_members),
    parse_float=partial(_or_none, _finite),
    parse_int=partial(_or_none, int),  # refuses more digits than sys.get_int_max_str_digits()
    parse_constant=_no_constant,
)
