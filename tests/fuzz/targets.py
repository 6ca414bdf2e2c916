"""What is fuzzed: a target turns bytes into hostile input, and fails where something undocumented comes of it.

Each target holds what is accepted against a judgement of its own, as simple as it can be. It knows nothing of who makes
the bytes: the fuzzer (`scripts/fuzz`), or the files of the corpus (`test_corpus.py`). The keys are known to everybody.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from token_guard import (
    AccessToken,
    ConfigurationError,
    ExchangeRefused,
    InvalidToken,
    Issuer,
    RequestRejected,
    RequestView,
    ResourceServer,
    TemporarilyUnavailable,
)
from token_guard.algorithms import ALGORITHMS
from token_guard.discovery import MisconfiguredError, metadata_urls, read_metadata
from token_guard.exchange import Target as Wanted
from token_guard.exchange import client_credentials_form, exchange_form, read_answer
from token_guard.jws import read_document, read_unverified
from token_guard.key_set import read_key_set, verify_signature
from token_guard.testing import LocalIssuer, SigningKey, sign_compact
from token_guard.testing.keys import base64url

NOW = 1_700_000_000
LEEWAY = 30
AUDIENCE = "organize"
ISSUER = "https://issuer.example/"
SECRET_ISSUER = "https://secret.example/"
STRICT_ISSUER = "https://strict.example/"


def _ed25519(number: int, kid: str) -> SigningKey:
    return SigningKey("Ed25519", Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32), kid)


KEYS = {
    ISSUER: _ed25519(1, "k1"),
    SECRET_ISSUER: SigningKey("HS256", b"known to everybody, and so no secret", "k1"),
    STRICT_ISSUER: _ed25519(2, "k1"),
}
_PUBLIC = KEYS[ISSUER].private.public_key().public_bytes_raw()
# The last two belong to nobody: a stranger's key, and a public key that is used as a secret.
SIGNERS = (*KEYS.values(), _ed25519(3, "k1"), SigningKey("HS256", _PUBLIC, "k1"))

organizer = ResourceServer(
    issuer=[
        Issuer(ISSUER, jwks={"keys": [KEYS[ISSUER].public_jwk()]}),
        Issuer(SECRET_ISSUER, secret=KEYS[SECRET_ISSUER].private),
        Issuer(STRICT_ISSUER, jwks={"keys": [KEYS[STRICT_ISSUER].public_jwk()]}, profile="rfc9068"),
    ],
    audience=AUDIENCE,
    leeway=LEEWAY,
    clock=lambda: NOW,
)

_local = LocalIssuer(ISSUER, audience=AUDIENCE, algorithm="Ed25519", clock=lambda: NOW)
_local.keys, _local.key = (KEYS[ISSUER],), KEYS[ISSUER]
GOOD = (_local.token("read:contacts"), _local.token(claims={"act": {"sub": "reports"}, "permissions": ["p"]}))
_PROPERTIES = [name for name, member in vars(AccessToken).items() if isinstance(member, property)]


def token(content: bytes) -> None:
    """Any text at all: what is accepted was minted here, letter for letter."""
    raw = content.decode("utf-8", "surrogateescape")
    if _judged(lambda: organizer.validate(raw), raw) is not None:
        assert raw in GOOD


def validate(content: bytes) -> None:
    """A digit chooses the key; it signs the next line as the header, and the rest as the claims."""
    signer, header, payload = parts(content)
    raw = sign_compact(header, payload, signer)
    accepted = _judged(lambda: organizer.validate(raw), raw)
    if accepted is None:
        return
    claims = json.loads(payload, object_pairs_hook=_unique)
    assert signer is KEYS[claims["iss"]]
    assert json.loads(header, object_pairs_hook=_unique)["alg"] == signer.algorithm
    assert claims["aud"] == AUDIENCE or AUDIENCE in list(claims["aud"])
    assert claims["exp"] > NOW - LEEWAY
    assert claims.get("nbf", NOW) <= NOW + LEEWAY
    assert claims.get("iat", NOW) <= NOW + LEEWAY
    assert "cnf" not in claims
    assert claims == accepted.claims == organizer.validate(raw).claims  # the second time from the cache


def parts(content: bytes) -> tuple[SigningKey, bytes, bytes]:
    """Return what `validate` signs: with which key, the header and the claims."""
    header, _, payload = content[1:].partition(b"\n")
    digit = content[0] - ord("0") if content else 0
    return SIGNERS[digit % len(SIGNERS)], header, payload


def extract(content: bytes) -> None:
    """Each line is the value of an Authorization field: what is accepted is one Bearer token, minted here."""
    values = content.decode("latin-1").split("\n")
    request = RequestView("GET", lambda: "https://api.example/", [("Authorization", value) for value in values])
    if _judged(lambda: organizer.authenticate(request), values[0]) is not None:
        scheme, *_, raw = ",".join(values).strip(" \t").split(" ")
        assert scheme.lower() == "bearer"
        assert raw in GOOD


def key_set(content: bytes) -> None:
    """A key set: odd keys are skipped, and no key verifies our signature but our own."""
    try:
        keys, odd = read_key_set(read_document(content))
    except ValueError:
        return
    assert all(sentence.isascii() and sentence.isprintable() for sentence in odd)
    assert keys.is_usable in (True, False)
    for algorithm in ALGORITHMS.values():
        for kid in (None, "k1", *keys.key_ids):
            candidates = keys.candidates(algorithm, kid)
            try:
                verify_signature(_SIGNED, algorithm, candidates)
            except InvalidToken:
                continue
            found = [candidate.public_key for candidate in candidates if candidate.public_key is not None]
            assert _PUBLIC in [key.public_bytes_raw() for key in found]


def metadata(content: bytes) -> None:
    """The first line is an issuer, the rest its metadata: what is fetched next is https, and the issuer is the same."""
    issuer, _, document = content.partition(b"\n")
    url = issuer.decode("utf-8", "replace")
    try:
        Issuer(url)
        members = read_document(document)
    except (ConfigurationError, ValueError):
        return
    for address in metadata_urls(url):
        assert urlsplit(address)[:2] == urlsplit(url)[:2]
    for member in ("jwks_uri", "token_endpoint"):
        try:
            endpoint = read_metadata(members, issuer=url, url=f"{url}.well-known", member=member)
        except MisconfiguredError:
            continue
        assert json.loads(document)["issuer"] == url
        assert re.match(r"https://[^/@?#]|http://(localhost|127\.|\[[0:]+1\])", endpoint, re.IGNORECASE)


def answer(content: bytes) -> None:
    """What a token endpoint answers: a token that may be sent, for a finite time, and never the one that was sent."""
    try:
        document = read_document(content)
    except ValueError:
        document = None
    wanted = Wanted(audience="urn:next", scopes=("a", "b"))
    for form in (client_credentials_form(wanted), exchange_form("subject", wanted, "rfc8693")):
        for status in (200, 400):
            try:
                granted = read_answer(status, document, form, NOW)
            except (ExchangeRefused, TemporarilyUnavailable) as refused:
                assert str(refused).isascii()  # noqa: PT017
                continue
            assert status == 200
            assert re.fullmatch(r"[\w.~+/-]+=*", granted.raw_token, re.ASCII)
            assert ("subject_token", granted.raw_token) not in form
            assert NOW < granted.expires_at < 2 * NOW
            assert set(granted.lacks) <= {"a", "b"}


@dataclass(frozen=True)
class Target:
    """A function of bytes that raises where it finds something, and inputs to start from."""

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


def _judged(question: Callable[[], AccessToken], sent: str) -> AccessToken | None:
    """Return the token, or None where it is refused: as documented, and with an answer that never repeats it."""
    try:
        accepted = question()
    except (RequestRejected, TemporarilyUnavailable) as refused:
        told = organizer.challenge(refused)
        assert all(value.isascii() and value.isprintable() for _, value in told.headers)
        assert json.loads(told.body).keys() <= {"error", "error_description"}
        assert str(refused).isascii()  # noqa: PT017
        assert len(sent) < 100 or sent not in str(refused)  # noqa: PT017
        return None
    for name in _PROPERTIES:
        getattr(accepted, name)
    assert sent not in repr(accepted)
    return accepted


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def _json(document: object) -> bytes:
    return json.dumps(document).encode()


def _signed(number: int, header: dict[str, Any], claims: dict[str, Any]) -> bytes:
    times = {"iat": NOW, "nbf": NOW, "exp": NOW + 60}
    return b"%d%s\n%s" % (number, _json(header), _json({"aud": AUDIENCE, **times, **claims}))


_SIGNED = read_unverified(GOOD[0])
_GRANTED = {"access_token": "abc", "token_type": "Bearer", "expires_in": 60, "scope": "a"}

TARGETS = {
    "token": Target(token, (*(raw.encode() for raw in GOOD),)),
    "validate": Target(
        validate,
        (
            _signed(0, {"alg": "Ed25519", "kid": "k1", "typ": "JWT"}, {"iss": ISSUER, "scope": "read:contacts"}),
            _signed(1, {"alg": "HS256"}, {"iss": SECRET_ISSUER, "aud": [AUDIENCE, "b"], "scp": ["a"], "roles": ["r"]}),
            _signed(
                2,
                {"alg": "Ed25519", "kid": "k1", "typ": "at+jwt"},
                {"iss": STRICT_ISSUER, "sub": "a", "client_id": "c", "jti": "1", "act": {"sub": "b", "act": {}}},
            ),
            _signed(3, {"alg": "Ed25519", "kid": "k1"}, {"iss": ISSUER}),
            _signed(4, {"alg": "HS256", "kid": "k1"}, {"iss": ISSUER}),
        ),
    ),
    "extract": Target(
        extract, (b"Bearer " + GOOD[0].encode(), b"bearer  " + GOOD[1].encode(), b"Basic YTpi\nBearer a")
    ),
    "key_set": Target(
        key_set,
        (
            _json({"keys": [KEYS[ISSUER].public_jwk()]}),
            _json(
                {
                    "keys": [
                        {"kty": "RSA", "kid": "k1", "n": base64url(b"\xc1" * 256), "e": "AQAB", "key_ops": ["verify"]},
                        {"kty": "EC", "crv": "P-256", "x": base64url(b"\1" * 32), "y": base64url(b"\2" * 32)},
                    ]
                }
            ),
        ),
    ),
    "metadata": Target(
        metadata,
        tuple(f"{issuer}\n{json.dumps(_local.metadata(issuer))}".encode() for issuer in (ISSUER, "http://[::1]:1/a")),
    ),
    "answer": Target(
        answer,
        (
            _json(_GRANTED),
            _json(_GRANTED | {"issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}),
            _json({"error": "invalid_grant", "error_description": "no", "claims": "{}"}),
        ),
    ),
}
