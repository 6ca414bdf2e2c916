"""One JWK: which are public signature keys that we can use, what each of them fits, and thumbprints."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from token_guard import InvalidToken, Reason, ResourceServer
from token_guard.algorithms import ALGORITHMS
from token_guard.jwk import OddKeyError, VerificationKey, thumbprint
from token_guard.testing import LocalIssuer, SigningKey, keys
from token_guard.testing.keys import base64url

ASYMMETRIC = [name for name in keys.ALGORITHMS if name != "HS256"]
RSA = SigningKey.generate("RS256", kid="r1").public_jwk()
EC = SigningKey.generate("ES256", kid="e1").public_jwk()
AKP = {"kty": "AKP", "alg": "ML-DSA-65", "pub": base64url(bytes(1952))}
OKP = SigningKey.generate("Ed25519", kid="o1").public_jwk()


def number(value: int) -> str:
    """Base64urlUInt (RFC 7518 2)."""
    return base64url(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def without(jwk: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in jwk.items() if name not in names}


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
def test_reads_the_key_of_every_algorithm(algorithm: str) -> None:
    """JWK-07: the key that cryptography gets is the one that was published, and it fits its own algorithm."""
    key = SigningKey.generate(algorithm)
    read = VerificationKey(key.public_jwk())
    assert read.public_key == key.private.public_key()
    assert (read.kid, read.alg) == (key.kid, algorithm)
    assert [name for name, row in ALGORITHMS.items() if read.fits(row)] == [algorithm]


FITS = {
    "RSA": {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"},
    "P-256": {"ES256"},
    "P-384": {"ES384"},
    "P-521": {"ES512"},
    "Ed25519": {"Ed25519", "EdDSA"},
    "Ed448": {"Ed448", "EdDSA"},
}


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "ES384", "ES512", "Ed25519", "Ed448"])
def test_a_key_without_alg_fits_every_algorithm_of_its_type_and_curve(algorithm: str) -> None:
    """JWK-07, ALG-02: RSA for RS and PS, each curve for its own algorithm, never `oct` and never another curve."""
    jwk = without(SigningKey.generate(algorithm).public_jwk(), "alg")
    key = VerificationKey(jwk)
    assert {name for name, row in ALGORITHMS.items() if key.fits(row)} == FITS[jwk.get("crv", "RSA")]


@pytest.mark.parametrize("alg", ["PS256", "RSA-OAEP", "HS256", "none", "rs256", "RS256 ", ""])
def test_a_key_with_another_alg_does_not_fit(alg: str) -> None:
    """JWK-06: the key's own `alg` is compared exactly."""
    assert not VerificationKey(RSA | {"alg": alg}).fits(ALGORITHMS["RS256"])


@pytest.mark.parametrize(
    "jwk",
    [
        RSA | {"issuer": "x", "foo": 1, "x5c": ["not a certificate"], "x5t": 1, "ext": True},
        without(RSA, "kid", "use", "alg"),
        RSA | {"key_ops": ["verify"]},
        RSA | {"key_ops": ["sign", "verify"]},
        without(RSA, "use") | {"key_ops": ["verify", "encrypt"]},
        RSA | {"kid": ""},
        RSA | {"e": "Aw"},
        RSA | {"n": number(1 << 16_383 | 1)},
    ],
)
def test_accepts_what_does_not_matter(jwk: dict[str, Any]) -> None:
    """JWK-03: unknown members have no meaning; `use`, `key_ops`, `alg` and `kid` may be absent."""
    assert VerificationKey(jwk).public_key is not None


ODD: dict[str, list[object]] = {
    "not an object": [None, 1, "RSA", [], [RSA], b"{}"],
    "kty": [{}, without(RSA, "kty"), *(RSA | {"kty": kty} for kty in ("XYZ", "rsa", "", None, ["RSA"], "oct", "EC"))],
    "kid of another type": [RSA | {"kid": kid} for kid in (1, None, ["r1"])],
    "alg of another type": [RSA | {"alg": alg} for alg in (None, 1, ["RS256"])],
    "use": [RSA | {"use": use} for use in ("enc", "SIG", "sig ", "", None, 1, ["sig"])],
    "key_ops": [
        RSA | {"key_ops": operations} for operations in (["encrypt"], ["Verify"], "verify", {"verify": 1}, None)
    ],
    "key_ops, empty": [RSA | {"key_ops": []}],
    "use and key_ops": [RSA | {"key_ops": ["verify", other]} for other in ("encrypt", "deriveKey", ["x"], None)],
    "private": [RSA | {name: "AAAA"} for name in ("d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv")],
    "private, null": [EC | {"d": None}, OKP | {"d": ""}],
    "symmetric": [{"kty": "oct", "k": base64url(b"k" * 32)}, {"kty": "oct"}],
    "RSA members": [without(RSA, "n"), without(RSA, "e"), RSA | {"n": 1}, RSA | {"n": None}, RSA | {"e": 65537}],
    "RSA base64url": [RSA | {"n": n} for n in ("", RSA["n"] + "=", RSA["n"] + "\n", "é" * 342, "\udcff" * 342)],
    "RSA modulus": [RSA | {"n": number(n)} for n in (1 << 1023 | 1, (1 << 2047) - 1, 1 << 16_384 | 1)],
    "RSA exponent": [RSA | {"e": e} for e in ("", "AA", "AQ", "Ag", number(65536), "AQAC!")],
    "EC members": [without(EC, "x"), without(EC, "y"), without(EC, "crv"), EC | {"crv": 256}, EC | {"x": None}],
    "EC curve": [EC | {"crv": curve} for curve in ("P-384", "P-521", "secp256k1", "p-256", "", "Ed25519", ["P-256"])],
    "EC length": [EC | {name: base64url(b"\1" * size)} for name in "xy" for size in (0, 1, 31, 33)],
    "OKP members": [without(OKP, "x"), without(OKP, "crv"), OKP | {"crv": None}, OKP | {"crv": ["Ed25519"]}],
    "OKP curve": [OKP | {"crv": curve} for curve in ("X25519", "Ed448", "ed25519", "P-256", "")],
    "OKP X448": [OKP | {"crv": "X448", "x": base64url(b"\1" * 56)}],
    "OKP length": [OKP | {"x": base64url(b"\2" * size)} for size in (0, 31, 33, 57)],
    "AKP members": [AKP | {"priv": "AAAA"}, without(AKP, "alg"), without(AKP, "pub")],
    "AKP alg": [AKP | {"alg": alg} for alg in ("ML-DSA-44", "ML-DSA-87", "RS256", "ml-dsa-65", None)],
    "AKP length": [AKP | {"pub": base64url(bytes(size))} for size in (0, 1951, 1953)],
}


@pytest.mark.parametrize(
    "jwk", [pytest.param(jwk, id=f"{why} {number}") for why, jwks in ODD.items() for number, jwk in enumerate(jwks)]
)
def test_finds_a_key_odd(jwk: object) -> None:
    """JWK-02, JWK-04, JWK-05, JWK-15, JWA-01, JWA-04, ALG-04 to ALG-07: odd keys are told apart and never used."""
    with pytest.raises(OddKeyError) as odd:
        VerificationKey(jwk)
    assert len(str(odd.value)) < 100
    assert not any(secret in str(odd.value) for secret in ("AAAA", RSA["n"][:8], EC["x"][:8]))


@pytest.mark.parametrize(
    ("jwk", "problem"),
    [
        (None, "it is not a JSON object with unique member names"),
        (RSA | {"d": "AAAA"}, "it holds private or symmetric key material"),
        (RSA | {"use": "enc"}, "its use is not sig"),
        (RSA | {"key_ops": ["sign"]}, "its key_ops do not hold verify"),
        (RSA | {"key_ops": ["verify", "encrypt"]}, "its use and its key_ops contradict each other"),
        (RSA | {"kid": 1}, "its kid is not a string"),
        (RSA | {"kty": "rsa"}, "its kty is not RSA, EC, OKP or AKP"),
        (without(RSA, "n"), "its n is missing"),
        (RSA | {"n": "="}, "its n is not base64url"),
        (RSA | {"n": number(1 << 1023 | 1)}, "its modulus has 1024 bits; 2048 to 16384 are accepted"),
        (RSA | {"e": "AQ"}, "its exponent is not an odd number of at least 3"),
        (RSA | {"e": number(2**64 + 1)}, "its exponent has 65 bits; at most 64 are accepted"),
        (RSA | {"e": RSA["n"]}, "its exponent has 2048 bits; at most 64 are accepted"),
        (EC | {"x": "AAAA"}, "its crv is unknown or its coordinates do not have the curve's full length"),
        (OKP | {"x": "AAAA"}, "its crv is not Ed25519 or Ed448, or x does not have the curve's length"),
        (OKP | {"x": base64url(bytes(32))}, "its point has a small order: anybody can sign for it"),
        (AKP | {"pub": "AAAA"}, "its alg is not an ML-DSA algorithm, or pub does not have its length"),
    ],
)
def test_says_what_is_odd(jwk: object, problem: str) -> None:
    """JWK-15: the log tells the operator which key is skipped and why."""
    with pytest.raises(OddKeyError) as odd:
        VerificationKey(jwk)
    assert str(odd.value) == problem


@pytest.mark.parametrize(
    "changes",
    [
        {"x": EC["y"], "y": EC["x"]},
        {"x": base64url(bytes(32)), "y": base64url(bytes(32))},
        {"x": base64url(b"\xff" * 32)},
    ],
)
def test_a_point_off_its_curve_is_no_key(changes: dict[str, str]) -> None:
    """JWA-04: cryptography is asked; what it cannot build is of no use and raises nothing."""
    assert VerificationKey(EC | changes).public_key is None


@pytest.mark.parametrize("exponent", [3, 2**64 - 1])
def test_every_exponent_of_reasonable_length_is_accepted(exponent: int) -> None:
    """JWK-02: 65537 is the usual one, and not the only one."""
    built = VerificationKey(RSA | {"e": number(exponent)}).public_key
    assert built is not None
    assert built.public_numbers().e == exponent


def test_no_key_waits_until_another_is_built() -> None:
    """A lock for all keys together might be held by another thread when a process forks, and for ever in the child."""
    slow, quick = VerificationKey(OKP), VerificationKey(OKP)
    begun, may_go_on = threading.Event(), threading.Event()

    def build(*_: object) -> None:
        begun.set()
        may_go_on.wait(20)

    slow._builder = build
    with ThreadPoolExecutor(2) as threads:
        threads.submit(lambda: slow.public_key)
        begun.wait(20)
        assert threads.submit(lambda: quick.public_key).result(10) is not None
        may_go_on.set()


P25519, P448 = 2**255 - 19, 2**448 - 2**224 - 1
ORDER_8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022  # y of four points of Ed25519
SMALL_ORDER = {
    "Ed25519": (0, 1, P25519 - 1, ORDER_8, P25519 - ORDER_8, P25519, P25519 + 1),
    "Ed448": (0, 1, P448 - 1, P448, P448 + 1),
}
SIZES = {"Ed25519": 32, "Ed448": 57}


def point(curve: str, y: int, sign: int = 0) -> bytes:
    """A point in the encoding of RFC 8032 5.1.2 and 5.2.2."""
    return (y | sign << (8 * SIZES[curve] - 1)).to_bytes(SIZES[curve], "little")


@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize(
    ("curve", "y"),
    [
        pytest.param(curve, y, id=f"{curve} {number}")
        for curve, ys in SMALL_ORDER.items()
        for number, y in enumerate(ys)
    ],
)
def test_a_point_of_small_order_is_odd(curve: str, y: int, sign: int) -> None:
    """JWK-02: under such a key, a placeholder of zeros for example, signatures need no private key."""
    with pytest.raises(OddKeyError, match="anybody"):
        VerificationKey({"kty": "OKP", "crv": curve, "x": base64url(point(curve, y, sign))})


@pytest.mark.parametrize(
    ("key", "curve", "y"),
    [
        pytest.param(ed25519.Ed25519PublicKey, "Ed25519", 0, id="Ed25519, zeros"),
        pytest.param(ed25519.Ed25519PublicKey, "Ed25519", ORDER_8, id="Ed25519, order 8"),
        pytest.param(ed448.Ed448PublicKey, "Ed448", 0, id="Ed448, zeros"),
    ],
)
def test_cryptography_takes_points_of_small_order(key: Any, curve: str, y: int) -> None:
    """The reason for our own rule: under such a key, made-up signatures verify for one in a few messages."""
    public = key.from_public_bytes(point(curve, y))
    forged = set()
    for message in map(str.encode, map(str, range(64))):
        for r in (0, 1):
            with suppress(InvalidSignature):
                public.verify(point(curve, r) + bytes(SIZES[curve]), message)
                forged.add(message)
    assert forged


@pytest.mark.parametrize("bits", [1024, 2047])
def test_refuses_a_token_by_a_short_rsa_key(bits: int) -> None:
    """JWA-01: a genuine signature by an RSA key under 2048 bits is worth nothing."""
    issuer = LocalIssuer()
    short = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    issuer.key = SigningKey("RS256", short)
    issuer.keys = (*issuer.keys, issuer.key)
    organizer = ResourceServer(issuer=issuer.url, audience="organize", jwks=issuer.jwks())
    with pytest.raises(InvalidToken) as refused:
        organizer.validate(issuer.token())
    assert refused.value.reason is Reason.UNKNOWN_KEY


# Thumbprints (RFC 7638).

VECTORS = {
    # RFC 7638 3.1
    "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs": {
        "kty": "RSA",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjB"
        "ZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8"
        "KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_"
        "xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        "e": "AQAB",
    },
    # RFC 8037 A.3
    "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k": {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    },
    # RFC 9449 6.1
    "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I": {
        "kty": "EC",
        "crv": "P-256",
        "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
        "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
    },
}


@pytest.mark.parametrize(("expected", "jwk"), VECTORS.items())
def test_thumbprint_is_the_published_one(expected: str, jwk: dict[str, str]) -> None:
    """JWK-20: the published examples, whatever other members the key has and in whatever order."""
    assert thumbprint(jwk) == expected
    assert thumbprint({"use": "sig", "alg": "RS256", "kid": "é", **dict(reversed(jwk.items()))}) == expected


def test_thumbprint_of_an_akp_key_covers_its_algorithm() -> None:
    """ALG-08: `alg` is a required member of an AKP key (RFC 9964)."""
    jwk = {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA"}
    assert thumbprint(jwk | {"kid": "a"}) == thumbprint(jwk)
    assert len({thumbprint(jwk | {"alg": alg}) for alg in ("ML-DSA-44", "ML-DSA-65", "ML-DSA-87")}) == 3


def test_thumbprint_is_made_of_utf_8() -> None:
    """JWK-20: a character outside ASCII counts as its bytes in UTF-8, not as an escape (RFC 7638 3.3)."""
    expected = base64url(hashlib.sha256('{"k":"é","kty":"oct"}'.encode()).digest())
    assert thumbprint({"kty": "oct", "k": "é"}) == expected


# Whatever the input.

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda children: st.lists(children, max_size=2) | st.dictionaries(st.text(max_size=3), children, max_size=2),
    max_leaves=3,
)
LENGTHS = st.sampled_from([0, 1, 31, 32, 48, 57, 66, 256, 257, 1312, 1952])
TEXTS = LENGTHS.flatmap(lambda size: st.binary(min_size=size, max_size=size)).map(base64url) | JSON_VALUES
JWKS = st.fixed_dictionaries(
    {"kty": st.sampled_from(["RSA", "EC", "OKP", "AKP"]) | JSON_VALUES, "e": st.just("AQAB") | TEXTS},
    optional={
        "crv": st.sampled_from(["P-256", "P-384", "P-521", "Ed25519", "Ed448"]) | JSON_VALUES,
        "alg": st.sampled_from(["RS256", "ML-DSA-44", "ML-DSA-65"]) | JSON_VALUES,
        **dict.fromkeys(["n", "x", "y", "pub"], TEXTS),
        **dict.fromkeys(["kid", "use", "key_ops", "d"], JSON_VALUES),
    },
)


@given(JWKS | JSON_VALUES)
@settings(max_examples=200, deadline=None)
def test_any_key_is_read_or_odd(jwk: object) -> None:
    """JWK-02: a key of any form is one key to skip, whatever it holds and whatever cryptography says to it."""
    try:
        key = VerificationKey(jwk)
    except OddKeyError as odd:
        assert str(odd).isascii()  # noqa: PT017
    else:
        assert hash(key.identity) == hash(VerificationKey(jwk).identity)
        assert key.public_key is None or key.alg is not None or any(map(key.fits, ALGORITHMS.values()))
