"""The work that an input causes is bounded by its size: counted in lines and calls, never timed.

A line of Python that runs counts one, and so does a call of something written in C, by whatever library. What C does
within a call is not counted. JWS-10, JWK-17.
"""

import gc
import json
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature

from token_guard import InvalidToken, RequestRejected, RequestView, ResourceServer
from token_guard.algorithms import ALGORITHMS
from token_guard.bearer import MAX_TOKEN_BYTES
from token_guard.claims import MAX_ACTORS, check_claims
from token_guard.discovery import MisconfiguredError, metadata_urls, read_metadata
from token_guard.errors import shown
from token_guard.jws import MAX_HEADER_BYTES, read_document, read_unverified
from token_guard.key_set import MAX_CANDIDATES, MAX_KEYS, read_key_set, verify_signature
from token_guard.testing import LocalIssuer, SigningKey, sign_compact

NOW = 1_700_000_000
SLACK = 100  # events: what a larger input takes once, and not for each of its parts

issuer = LocalIssuer(algorithm="Ed25519", clock=lambda: NOW)
organizer = ResourceServer(issuer=issuer.url, audience="organize", jwks=issuer.jwks(), clock=lambda: NOW)
POLICY = organizer._trust.issuers[0].policy
CLAIMS = {"iss": issuer.url, "aud": "organize", "exp": NOW + 60}
HEADER = {"alg": "Ed25519", "kid": issuer.key.kid}

Question = Callable[[], object]
Sized = Callable[[int], Question]


def work(question: Question) -> int:
    """Count what is done to answer a question: lines of Python, and calls of C."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event == "c_call"

    tracing, profiling = sys.gettrace(), sys.getprofile()
    gc.disable()  # a collection calls what libraries gave it, and comes sooner where other tests have left much
    sys.settrace(trace)
    sys.setprofile(profile)
    try:
        question()
    except (RequestRejected, MisconfiguredError, ValueError):
        pass
    finally:
        sys.setprofile(profiling)
        sys.settrace(tracing)
        gc.enable()
    return count


def validated(raw: str) -> Question:
    """Validate a token, and ask for everything that it says."""

    def question() -> None:
        token = organizer.validate(raw)
        repr(token)
        _ = token.audience, token.permissions, token.roles, token.actor, token.scopes.actions("a")

    return question


def claims(**claims: Any) -> Question:
    return validated(sign_compact(HEADER, CLAIMS | claims, issuer.key))


def payload(content: bytes) -> Question:
    return validated(sign_compact(HEADER, content, issuer.key))


def judged(**claims: Any) -> Question:
    """Judge claims that were read already."""
    token = read_unverified(issuer.token())
    token.claims |= claims
    return lambda: check_claims(token, POLICY, NOW)


def header(**members: Any) -> Question:
    return validated(sign_compact(HEADER | members, CLAIMS, issuer.key))


def authorized(*values: str) -> Question:
    request = RequestView("GET", lambda: "https://api.example/", [("Authorization", value) for value in values])
    return lambda: organizer.authenticate(request)


def names(count: int) -> list[str]:
    return [f"a:{number}" for number in range(count)]


def actors(depth: int) -> dict[str, Any]:
    return {"sub": "a", "act": actors(depth - 1)} if depth else {"sub": "a"}


def keys(count: int) -> list[dict[str, Any]]:
    """So many keys under one key ID, all of them good."""
    jwk = SigningKey.generate("Ed25519", issuer.key.kid).public_jwk()
    return [jwk | {"note": number} for number in range(count)]


def fetched(document: object) -> Question:
    """Read a key set as after a fetch, and ask for a key."""
    content = json.dumps(document).encode()

    def question() -> None:
        key_set, _ = read_key_set(read_document(content))
        for kid in (issuer.key.kid, "unknown", None):
            key_set.candidates(ALGORITHMS["Ed25519"], kid)

    return question


# An input for each size, up to the limits: twice the size is at most twice the work.
WITHIN_LIMITS: dict[str, Sized] = {
    "dots": lambda size: validated("." * size),
    "letters": lambda size: validated("a" * size),
    "letters in three parts": lambda size: validated(".".join(["a" * (size // 4)] * 3)),
    "not text in the payload": lambda size: payload(b"\xff" * (size // 2)),
    "a long kid": lambda size: header(kid="k" * (size // 4)),
    "a long alg": lambda size: header(alg="k" * (size // 4)),
    "a long typ": lambda size: header(typ="k" * (size // 4)),
    "members in the header": lambda size: header(**dict.fromkeys(names(size // 50), 1)),
    "members in the claims": lambda size: claims(**dict.fromkeys(names(size // 20), 1)),
    "objects in the claims": lambda size: claims(a=[{}] * (size // 8)),
    "equal members": lambda size: payload(b"{" + b",".join([b'"a":1'] * (size // 10)) + b"}"),
    "open arrays": lambda size: payload(b"[" * (size // 2)),
    "nested arrays": lambda size: payload(b"[" * (size // 4) + b"]" * (size // 4)),
    "nested objects": lambda size: payload(b'{"a":' * (size // 10) + b"1" + b"}" * (size // 10)),
    "arrays side by side": lambda size: payload(b"[" + b"[]," * (size // 6) + b"[]]"),
    "quotes": lambda size: payload(b'"[' * (size // 4)),
    "escaped quotes": lambda size: payload(b"[" * 101 + b'"' + b'\\"' * (size // 4)),
    "escapes": lambda size: payload(b'{"a":"' + b"\\u0041" * (size // 10) + b'"}'),
    "digits": lambda size: payload(b'{"exp":' + b"9" * (size // 2) + b"}"),
    "digits behind a point": lambda size: payload(b'{"exp":1.' + b"9" * (size // 2) + b"}"),
    "exponents": lambda size: payload(b"[" + b"1e9," * (size // 8) + b"1]"),
    "another issuer": lambda size: claims(iss="a" * (size // 2)),
    "slashes behind the issuer": lambda size: claims(iss=issuer.url + "/" * (size // 2)),
    "audiences": lambda size: claims(aud=[*names(size // 16), "organize"]),
    "other audiences": lambda size: claims(aud=names(size // 16)),
    "scopes": lambda size: claims(scope=" ".join(names(size // 16))),
    "spaces between scopes": lambda size: claims(scope=" " * (size // 2)),
    "scopes in an array": lambda size: claims(scp=names(size // 16)),
    "colons in a scope": lambda size: claims(scope=":" * (size // 2)),
    "permissions": lambda size: claims(permissions=names(size // 16)),
    "roles": lambda size: claims(roles=[{"value": name} for name in names(size // 40)]),
    "commas in the field": lambda size: authorized("Bearer" + "," * size),
    "spaces in the field": lambda size: authorized("Bearer" + " " * size),
    "equals signs in the field": lambda size: authorized("Bearer a" + "=" * size + "a"),
    "letters of a scheme": lambda size: authorized("a" * size + ","),
    "fields": lambda size: authorized(*["Bearer a"] * (size // 10)),
    "shown text": lambda size: lambda: shown("\n" * size),
    "keys": lambda size: fetched({"keys": keys(size * MAX_KEYS // MAX_TOKEN_BYTES)}),
    "odd keys": lambda size: fetched({"keys": [{"kty": "RSA", "n": "a"}] * (size * MAX_KEYS // MAX_TOKEN_BYTES)}),
    "operations of a key": lambda size: fetched(
        {"keys": [keys(1)[0] | {"key_ops": ["sign", "verify"] * (size // 16)}]}
    ),
    "members beside the keys": lambda size: fetched({name: {} for name in names(size // 10)} | {"keys": []}),
    "digits of a modulus": lambda size: fetched({"keys": [{"kty": "RSA", "e": "AQAB", "n": "A" * size}]}),
    "digits of an exponent": lambda size: fetched({"keys": [{"kty": "RSA", "n": "_" * 342 + "8", "e": "_" * size}]}),
    "metadata": lambda size: (
        lambda: read_metadata(
            {"issuer": "a" * size, **dict.fromkeys(names(size // 10))}, issuer=issuer.url, url=issuer.url
        )
    ),
    "path of an issuer": lambda size: lambda: metadata_urls("https://issuer.example" + "/" * size),
}
SIZES = [MAX_TOKEN_BYTES // 8, MAX_TOKEN_BYTES // 4, MAX_TOKEN_BYTES // 2]


@pytest.mark.parametrize("sized", WITHIN_LIMITS.values(), ids=WITHIN_LIMITS)
def test_work_grows_with_the_size_and_no_faster(sized: Sized) -> None:
    """A hostile input costs no more than its length does, whatever it is made of."""
    questions = [sized(size) for size in SIZES]
    work(sized(1))  # what is imported and compiled on first use is no work of the input
    small, middle, large = map(work, questions)
    assert large - middle <= 2 * max(middle - small, 0) + SLACK
    assert large <= 2 * SIZES[-1]


# The same beyond a limit: ten times the size is no more work at all.
BEYOND_LIMITS: dict[str, tuple[Sized, int]] = {
    "letters": (lambda size: validated("a" * size), MAX_TOKEN_BYTES),
    "dots": (lambda size: validated("." * size), MAX_TOKEN_BYTES),
    "scopes": (lambda size: claims(scope=" ".join(names(size))), MAX_TOKEN_BYTES),
    "credentials": (lambda size: authorized("Bearer " + "a" * size), MAX_TOKEN_BYTES),
    "commas": (lambda size: authorized("Bearer " + "," * size), MAX_TOKEN_BYTES),
    "a header": (lambda size: validated(sign_compact({"a": "a" * size}, {}, issuer.key)), MAX_HEADER_BYTES),
    "depth of JSON": (lambda size: lambda: read_document(b"[" * size), 1_000),
    "actors": (lambda size: judged(act=actors(size)), MAX_ACTORS),
    "keys": (lambda size: lambda: read_key_set({"keys": [{"kty": "RSA"}] * size}), MAX_KEYS),
    "text that is shown": (lambda size: lambda: shown("a" * size), 100),
}


@pytest.mark.parametrize(("sized", "limit"), BEYOND_LIMITS.values(), ids=BEYOND_LIMITS)
def test_work_ends_at_the_limit(sized: Sized, limit: int) -> None:
    """What is too large is refused, or left out, without being looked at."""
    little, much = sized(limit + 1), sized(9 * limit)
    work(sized(limit + 1))
    assert abs(work(much) - work(little)) <= SLACK


@pytest.mark.parametrize("count", [MAX_CANDIDATES, MAX_KEYS, 100 * MAX_KEYS])
def test_few_keys_of_one_key_id_are_tried(count: int) -> None:
    """JWK-12: a signature check is the dearest step; how many there are is not for the key set to say."""
    tried = 0

    class Tried:
        """A key that counts how often it is asked."""

        def verify(self, *_: object) -> None:
            nonlocal tried
            tried += 1
            raise InvalidSignature

    key_set, _ = read_key_set({"keys": keys(count)})
    for key in key_set._keys:
        key.public_key = Tried()
    token = read_unverified(issuer.token())
    with pytest.raises(InvalidToken):
        verify_signature(token, ALGORITHMS["Ed25519"], key_set.candidates(ALGORITHMS["Ed25519"], issuer.key.kid))
    assert tried == MAX_CANDIDATES
