"""The signature algorithms: a row says which keys fit, how long a signature is, and who verifies it.

The cryptography is cryptography's and PyJWT's; both are imported when a row is first used. RFC 7518 3, RFC 8037,
RFC 9864 (`Ed25519`, `Ed448`), RFC 9964 (ML-DSA). `none` has no row and can never have one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from .errors import ConfigurationError
from .lazy import lazy

# (key, signature, message) -> genuine? Private to the core: the answer never leaves key_set.py.
Verifier = Callable[[Any, bytes, bytes], bool]


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """One algorithm. `curves` are the `crv` values that fit, or the `alg` for an AKP key; empty where none applies.

    `signature_bytes` is None where the key decides it. `secret_bytes` is the least length of a shared secret.
    """

    name: str
    key_type: str
    make_verifier: Callable[[], Verifier]
    curves: frozenset[str] = frozenset()
    signature_bytes: frozenset[int] | None = None
    secret_bytes: int | None = None

    @lazy
    def verify(self) -> Verifier:
        """Tell whether a signature over a message is genuine under a key: `verify(key, signature, message)`."""
        return self.make_verifier()


def _signature(*arguments: Any) -> Verifier:
    """Return a verifier that gives the key's own `verify` these arguments."""
    from cryptography.exceptions import InvalidSignature

    def verify(key: Any, signature: bytes, message: bytes) -> bool:
        try:
            key.verify(signature, message, *arguments)
        except InvalidSignature:
            return False
        return True

    return verify


def _pkcs1(digest: str) -> Verifier:
    return _signature(_crypto("asymmetric.padding").PKCS1v15(), _digest(digest))


def _pss(digest: str) -> Verifier:
    padding, algorithm = _crypto("asymmetric.padding"), _digest(digest)
    # RFC 7518 3.5: the same hash in MGF1, and a salt as long as the hash
    verify = _signature(padding.PSS(padding.MGF1(algorithm), algorithm.digest_size), algorithm)
    # RFC 8017 8.1.2: the full length. OpenSSL takes it without leading zeros, too: a second spelling of the same token.
    return lambda key, signature, message: len(signature) == (key.key_size + 7) // 8 and verify(key, signature, message)


def _ecdsa(digest: str) -> Verifier:
    from jwt.utils import raw_to_der_signature

    verify = _signature(_crypto("asymmetric.ec").ECDSA(_digest(digest)))
    return lambda key, signature, message: verify(key, raw_to_der_signature(signature, key.curve), message)


def _hmac(digest: str) -> Verifier:
    from jwt.algorithms import HMACAlgorithm

    algorithm = HMACAlgorithm(getattr(HMACAlgorithm, digest))  # it compares in constant time (RFC 7518 3.2)
    return lambda key, signature, message: algorithm.verify(message, key, signature)


def _crypto(module: str) -> Any:
    return import_module(f"cryptography.hazmat.primitives.{module}")


def _digest(name: str) -> Any:
    return getattr(_crypto("hashes"), name)()


def _rows() -> list[Algorithm]:  # pragma: no mutate block
    # The import runs it, before a mutant is chosen: tests/test_algorithms.py holds every row against the RFCs.
    rows = []
    for bits, curve, size in (("256", "P-256", 64), ("384", "P-384", 96), ("512", "P-521", 132)):
        digest = f"SHA{bits}"
        rows += [
            Algorithm(name=f"RS{bits}", key_type="RSA", make_verifier=partial(_pkcs1, digest)),
            Algorithm(name=f"PS{bits}", key_type="RSA", make_verifier=partial(_pss, digest)),
            Algorithm(
                name=f"ES{bits}",
                key_type="EC",
                curves=frozenset({curve}),
                signature_bytes=frozenset({size}),  # RFC 7518 3.4: R and S, each as long as the curve's order
                make_verifier=partial(_ecdsa, digest),
            ),
            Algorithm(
                name=f"HS{bits}",
                key_type="oct",
                secret_bytes=int(bits) // 8,  # RFC 7518 3.2: a key as long as the hash
                make_verifier=partial(_hmac, digest),
            ),
        ]
    # RFC 9864: the newer names fix the curve, the older one does not.
    for name, curves, sizes in (
        ("Ed25519", {"Ed25519"}, {64}),
        ("Ed448", {"Ed448"}, {114}),
        ("EdDSA", {"Ed25519", "Ed448"}, {64, 114}),
    ):
        rows.append(
            Algorithm(
                name=name,
                key_type="OKP",
                curves=frozenset(curves),
                signature_bytes=frozenset(sizes),
                make_verifier=_signature,
            )
        )
    for name, size in (("ML-DSA-44", 2420), ("ML-DSA-65", 3309), ("ML-DSA-87", 4627)):
        rows.append(
            Algorithm(
                name=name,
                key_type="AKP",
                curves=frozenset({name}),
                signature_bytes=frozenset({size}),
                make_verifier=_signature,
            )
        )
    return rows


ALGORITHMS: dict[str, Algorithm] = {row.name: row for row in _rows()}

# RFC 9068 2.1 and RFC 8725 3.1: signatures by default; ML-DSA where it is listed.
DEFAULT_ALGORITHMS = tuple(name for name, row in ALGORITHMS.items() if row.key_type in {"RSA", "EC", "OKP"})
DEFAULT_SECRET_ALGORITHMS = ("HS256",)


def check_algorithms(names: object, *, secret: bool) -> frozenset[str]:
    """Return `names` as a set of algorithms that this machine can verify.

    `secret` tells whether the issuer signs with a shared secret; MACs and signatures never share a list (RFC 8725 3.1).

    Raises:
        ConfigurationError: empty, unknown, of the other kind, or not offered by the installed cryptography.
    """
    if isinstance(names, str):
        names = (names,)
    listed = tuple(names) if isinstance(names, (tuple, list, set, frozenset)) else ()
    if not listed:
        raise ConfigurationError("algorithms must be a non-empty collection of names such as ['RS256', 'ES256']")
    for name in listed:
        row = ALGORITHMS.get(name) if isinstance(name, str) else None
        if row is None:
            raise ConfigurationError(
                f"algorithms: {name!r} is not one of {', '.join(ALGORITHMS)}; separate them by spaces, or give a list"
            )
        if (row.key_type == "oct") != secret:
            fix = "needs Issuer(secret=...)" if not secret else "is not for an issuer that has a secret"
            raise ConfigurationError(f"algorithms: {name} {fix}; one issuer uses a secret or public keys, never both")
        if row.key_type == "AKP" and not has_ml_dsa():
            raise ConfigurationError(f"algorithms: {name} needs cryptography 48 or later; upgrade it or drop {name}")
    return frozenset(listed)


def has_ml_dsa() -> bool:
    """Tell whether the installed cryptography, and the library that it was built with, offer ML-DSA."""
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        _crypto("asymmetric.mldsa").MLDSA44PublicKey.from_public_bytes(bytes(1312))
    except (ImportError, UnsupportedAlgorithm):
        return False
    return True
