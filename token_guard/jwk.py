"""One JWK becomes a verification key, or is found odd and skipped. RFC 7517 4, RFC 7518 6, RFC 8037 2, RFC 9964.

The form is judged at once; cryptography builds the key when it is first used. Knows nothing about key sets or tokens.
Thumbprints: RFC 7638.
"""

import hashlib
import json
from binascii import b2a_base64
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from .algorithms import Algorithm
from .jws import decode_base64url
from .lazy import lazy

MIN_RSA_BITS = 2048  # RFC 7518 3.3
MAX_RSA_BITS = 16_384  # our own bound: what cryptography verifies in reasonable time
MAX_EXPONENT_BITS = 64  # our own bound: with an exponent as long as its modulus a key takes 60 times as long

_COORDINATE_BYTES = {"P-256": 32, "P-384": 48, "P-521": 66}  # RFC 7518 6.2.1.2
_CURVES = {"P-256": "SECP256R1", "P-384": "SECP384R1", "P-521": "SECP521R1"}
_OKP_BYTES = {"Ed25519": 32, "Ed448": 57}  # RFC 8032; X25519 and X448 never sign (RFC 8037 3)
# For each curve its prime, and a polynomial whose roots are the y of all points of order 8 or less (RFC 8032 5.1, 5.2).
_SMALL_ORDERS: dict[str, tuple[int, Callable[[int], int]]] = {
    "Ed25519": (2**255 - 19, lambda y: y * (y**2 - 1) * (121_666 * (2 * y**2 - 1) - 121_665 * y**4)),
    "Ed448": (2**448 - 2**224 - 1, lambda y: y * (y**2 - 1)),
}
_AKP_BYTES = {"ML-DSA-44": 1312, "ML-DSA-65": 1952, "ML-DSA-87": 2592}  # RFC 9964

_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})
_THUMBPRINT_MEMBERS = {  # in the order of RFC 7638 3.3
    "RSA": ("e", "kty", "n"),
    "EC": ("crv", "kty", "x", "y"),
    "OKP": ("crv", "kty", "x"),
    "AKP": ("alg", "kty", "pub"),
    "oct": ("k", "kty"),
}


# The `crv` or ML-DSA name, what builds the key when it is first used, and what it is built from.
_Material = tuple[str | None, Callable[..., Any], tuple[Any, ...]]


class OddKeyError(Exception):
    """This JWK is not a public signature key that we can use. The message says why and never holds key material."""


class VerificationKey:
    """A public key of an issuer, with what the issuer says about its use.

    Raises:
        OddKeyError: the JWK is of another kind, incomplete, out of range, private, or not meant for signatures.
    """

    def __init__(self, jwk: object) -> None:
        if not isinstance(jwk, (dict, Mapping)):  # a dict is a Mapping, which takes 0.13 of some 4 us to find out
            raise OddKeyError("it is not a JSON object with unique member names")
        if not _PRIVATE_MEMBERS.isdisjoint(jwk):  # RFC 7517 9.2: a published secret is no secret
            raise OddKeyError("it holds private or symmetric key material")
        _check_intended_use(jwk)
        self.key_type: object = jwk.get("kty")
        self.kid: str | None = _text(jwk, "kid")
        # Entra ID's own member, read where tenants are told apart. What is no text is the name of no issuer.
        issuer = jwk.get("issuer")
        self.issuer: str | None = issuer if isinstance(issuer, str) or "issuer" not in jwk else ""
        self.alg: str | None = _text(jwk, "alg")
        reader = _READERS.get(self.key_type) if isinstance(self.key_type, str) else None
        if reader is None:
            raise OddKeyError("its kty is not RSA, EC, OKP or AKP")
        self.curve: str | None
        self.curve, self._builder, self._numbers = reader(jwk)

    @property
    def identity(self) -> tuple[object, ...]:
        """What makes it another key where it changes."""
        return self.kid, self.alg, self.issuer, *self._numbers

    def fits(self, algorithm: Algorithm) -> bool:
        """Tell whether this key may verify `algorithm`: type and curve agree, and so does the key's own `alg`."""
        return (
            self.key_type == algorithm.key_type
            and (not algorithm.curves or self.curve in algorithm.curves)
            and self.alg in (None, algorithm.name)
        )

    @lazy
    def public_key(self) -> Any | None:
        """The key of the cryptography package, or None where it turns out to be impossible, such as off its curve."""
        try:
            return self._builder(*self._numbers)
        except Exception:  # noqa: BLE001  # whatever a key makes cryptography raise, the key is of no use
            return None


def thumbprint(members: Mapping[str, Any]) -> str:
    """Return the SHA-256 thumbprint of a JWK (RFC 7638 3), computed over its required members alone.

    Raises:
        KeyError: a required member is missing, or the kty is unknown.
    """
    required = {name: members[name] for name in _THUMBPRINT_MEMBERS[members["kty"]]}
    canonical = json.dumps(required, separators=(",", ":"), ensure_ascii=False)
    digest = hashlib.sha256(canonical.encode()).digest()
    return b2a_base64(digest, newline=False).rstrip(b"=").translate(bytes.maketrans(b"+/", b"-_")).decode()


def _check_intended_use(jwk: Mapping[str, Any]) -> None:
    """Refuse keys for other purposes (RFC 7517 4.2 and 4.3)."""
    if jwk.get("use", "sig") != "sig":
        raise OddKeyError("its use is not sig")
    if "key_ops" not in jwk:
        return
    operations = jwk["key_ops"]
    if not (isinstance(operations, list) and "verify" in operations):
        raise OddKeyError("its key_ops do not hold verify")
    if "use" in jwk and not all(operation in ("sign", "verify") for operation in operations):
        raise OddKeyError("its use and its key_ops contradict each other")


def _text(jwk: Mapping[str, Any], name: str) -> str | None:
    value = jwk.get(name)
    if isinstance(value, str) or name not in jwk:
        return value
    raise OddKeyError(f"its {name} is not a string")


def _bytes(jwk: Mapping[str, Any], name: str) -> bytes:
    value = jwk.get(name)
    if not isinstance(value, str):
        raise OddKeyError(f"its {name} is missing")
    try:
        return decode_base64url(value.encode("ascii"))
    except ValueError:
        raise OddKeyError(f"its {name} is not base64url") from None


def _rsa(jwk: Mapping[str, Any]) -> _Material:
    modulus = int.from_bytes(_bytes(jwk, "n"))
    exponent = 65_537 if jwk.get("e") == "AQAB" else int.from_bytes(_bytes(jwk, "e"))  # nearly every key's: 0.5 us less
    if not MIN_RSA_BITS <= modulus.bit_length() <= MAX_RSA_BITS:
        raise OddKeyError(f"its modulus has {modulus.bit_length()} bits; {MIN_RSA_BITS} to {MAX_RSA_BITS} are accepted")
    if exponent < 3 or exponent % 2 == 0:  # with e=1 every text is its own signature
        raise OddKeyError("its exponent is not an odd number of at least 3")
    if exponent.bit_length() > MAX_EXPONENT_BITS:
        raise OddKeyError(f"its exponent has {exponent.bit_length()} bits; at most {MAX_EXPONENT_BITS} are accepted")
    return None, _build_rsa, (exponent, modulus)


def _ec(jwk: Mapping[str, Any]) -> _Material:
    curve, x, y = jwk.get("crv"), _bytes(jwk, "x"), _bytes(jwk, "y")
    if not isinstance(curve, str) or not len(x) == len(y) == _COORDINATE_BYTES.get(curve):
        raise OddKeyError("its crv is unknown or its coordinates do not have the curve's full length")
    return curve, _build_ec, (curve, int.from_bytes(x), int.from_bytes(y))


def _okp(jwk: Mapping[str, Any]) -> _Material:
    curve, x = jwk.get("crv"), _bytes(jwk, "x")
    if not isinstance(curve, str) or len(x) != _OKP_BYTES.get(curve):
        raise OddKeyError("its crv is not Ed25519 or Ed448, or x does not have the curve's length")
    prime, polynomial = _SMALL_ORDERS[curve]
    y = int.from_bytes(x, "little") % 2 ** (8 * len(x) - 1)  # RFC 8032 5.1.2 and 5.2.2: the top bit is the sign of x
    if polynomial(y) % prime == 0:
        raise OddKeyError("its point has a small order: anybody can sign for it")
    return curve, _build_raw, (curve.lower(), f"{curve}PublicKey", x)


def _akp(jwk: Mapping[str, Any]) -> _Material:
    name, pub = jwk.get("alg"), _bytes(jwk, "pub")
    if not isinstance(name, str) or len(pub) != _AKP_BYTES.get(name):
        raise OddKeyError("its alg is not an ML-DSA algorithm, or pub does not have its length")
    return name, _build_raw, ("mldsa", f"{name.replace('-', '')}PublicKey", pub)


_READERS = {"RSA": _rsa, "EC": _ec, "OKP": _okp, "AKP": _akp}


def _build_rsa(exponent: int, modulus: int) -> Any:
    from cryptography.hazmat.primitives.asymmetric import rsa

    return rsa.RSAPublicNumbers(exponent, modulus).public_key()


def _build_ec(curve: str, x: int, y: int) -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.EllipticCurvePublicNumbers(x, y, getattr(ec, _CURVES[curve])()).public_key()


def _build_raw(module: str, kind: str, public_bytes: bytes) -> Any:
    key_type = getattr(import_module(f"cryptography.hazmat.primitives.asymmetric.{module}"), kind)
    return key_type.from_public_bytes(public_bytes)
