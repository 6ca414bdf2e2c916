"""The signing keys of a local issuer, and the one function that signs a token.

It knows algorithms and bytes; it must not know what a header or a claim means, so that it can sign wrong ones too.
Keys, their conversion and signatures come from PyJWT and cryptography. RFC 7515 (compact JWS), RFC 7518, RFC 8037,
RFC 9864 and RFC 9964 (algorithms and key types).
"""

import base64
import json
import secrets
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

RSA_KEY_SIZE = 2048
RESTING_RSA_KEYS = 8
"""So many other RSA keys are handed out before one whose issuer is gone comes back."""

_resting_rsa_keys: deque[rsa.RSAPrivateKey] = deque()


def _rsa_key() -> rsa.RSAPrivateKey:
    """An RSA key that nobody uses: generating one takes some 60 ms, too much for each of a thousand tests."""
    if len(_resting_rsa_keys) > RESTING_RSA_KEYS:
        return _resting_rsa_keys.popleft()
    return rsa.generate_private_key(public_exponent=65537, key_size=RSA_KEY_SIZE)


class _Algorithm(NamedTuple):
    generate: Callable[[], Any]
    sign: Callable[[bytes, Any], bytes]
    public_members: Callable[[Any], dict[str, Any]]


def _from_pyjwt(name: str, generate: Callable[[], Any]) -> _Algorithm:
    """A row for keys that PyJWT converts and signs with, under its own name for the algorithm."""
    implementation = jwt.get_algorithm_by_name(name)
    return _Algorithm(
        generate, implementation.sign, lambda private: implementation.to_jwk(private.public_key(), as_dict=True)
    )


def _ml_dsa(generate: Callable[[], Any]) -> _Algorithm:
    """A row for ML-DSA, which PyJWT does not know. RFC 9964, section 3: the key type AKP."""
    return _Algorithm(
        generate,
        lambda message, private: bytes(private.sign(message)),
        lambda private: {"kty": "AKP", "pub": base64url(private.public_key().public_bytes_raw())},
    )


def _no_public_members(private: bytes) -> dict[str, Any]:
    raise ValueError("an HS256 key is a shared secret: it has no public half to publish")


_ALGORITHMS = {
    "RS256": _from_pyjwt("RS256", _rsa_key),
    "RS384": _from_pyjwt("RS384", _rsa_key),
    "RS512": _from_pyjwt("RS512", _rsa_key),
    "PS256": _from_pyjwt("PS256", _rsa_key),
    "PS384": _from_pyjwt("PS384", _rsa_key),
    "PS512": _from_pyjwt("PS512", _rsa_key),
    "ES256": _from_pyjwt("ES256", partial(ec.generate_private_key, ec.SECP256R1())),
    "ES384": _from_pyjwt("ES384", partial(ec.generate_private_key, ec.SECP384R1())),
    "ES512": _from_pyjwt("ES512", partial(ec.generate_private_key, ec.SECP521R1())),
    "Ed25519": _from_pyjwt("EdDSA", Ed25519PrivateKey.generate),
    "Ed448": _from_pyjwt("EdDSA", Ed448PrivateKey.generate),
    "EdDSA": _from_pyjwt("EdDSA", Ed25519PrivateKey.generate),
    # Text, so that the secret can be pasted into a setting as it is.
    "HS256": _Algorithm(
        lambda: secrets.token_hex(32).encode(), jwt.get_algorithm_by_name("HS256").sign, _no_public_members
    ),
}
with suppress(ImportError):  # cryptography has ML-DSA since 48.
    from cryptography.hazmat.primitives.asymmetric import mldsa

    _ALGORITHMS |= {
        "ML-DSA-44": _ml_dsa(mldsa.MLDSA44PrivateKey.generate),
        "ML-DSA-65": _ml_dsa(mldsa.MLDSA65PrivateKey.generate),
        "ML-DSA-87": _ml_dsa(mldsa.MLDSA87PrivateKey.generate),
    }

ALGORITHMS = tuple(_ALGORITHMS)
"""The names that a signing key may have here."""


def _new_kid() -> str:
    return secrets.token_hex(8)


@dataclass(frozen=True, eq=False)
class SigningKey:
    """A private key with its name and algorithm.

    `private` is a private key of cryptography, for HS256 the secret as bytes. Whether it fits the algorithm is not
    checked: a test may need the wrong one, `SigningKey("HS256", public_key_as_pem)` for example.

    Raises: ValueError for an algorithm that is not in `ALGORITHMS`.
    """

    algorithm: str
    private: Any = field(repr=False)
    kid: str = field(default_factory=_new_kid)

    def __post_init__(self) -> None:
        _row(self.algorithm)

    @classmethod
    def generate(cls, algorithm: str, kid: str | None = None) -> Self:
        """A new key, under a new key ID unless one is given. No two keys alive at the same time are equal.

        Raises: ValueError for an algorithm that is not in `ALGORITHMS`.
        """
        key = cls(algorithm, _row(algorithm).generate(), kid or _new_kid())
        if isinstance(key.private, rsa.RSAPrivateKey):  # It rests, to be handed out again, when nobody holds it.
            weakref.finalize(key, _resting_rsa_keys.append, key.private).atexit = False
        return key

    @property
    def symmetric(self) -> bool:
        """Whether the key is a shared secret, which no key set may publish."""
        return isinstance(self.private, bytes)

    def public_jwk(self) -> dict[str, Any]:
        """The public half as an issuer publishes it: the members of its key type, `use`, `alg` and `kid`.

        Raises: ValueError for a shared secret.
        """
        members = _row(self.algorithm).public_members(self.private)
        members.pop("key_ops", None)  # RFC 7517, section 4.3: not together with `use`.
        return members | {"use": "sig", "alg": self.algorithm, "kid": self.kid}

    def sign(self, message: bytes) -> bytes:
        """The signature of the bytes, in the form that a JWS carries."""
        return _row(self.algorithm).sign(message, self.private)


def sign_compact(header: bytes | Mapping[str, Any], payload: bytes | Mapping[str, Any], key: SigningKey) -> str:
    """Sign any header and payload as a compact JWS (RFC 7515, section 7.1).

    Bytes are signed as they are: duplicate members, odd JSON, whitespace, no JSON at all. The key's algorithm makes the
    signature whatever `alg` says. Nothing is checked.
    """
    signing_input = ".".join(
        base64url(part if isinstance(part, bytes) else json.dumps(part, separators=(",", ":")).encode())
        for part in (header, payload)
    )
    return f"{signing_input}.{base64url(key.sign(signing_input.encode()))}"


def _row(algorithm: str) -> _Algorithm:
    try:
        return _ALGORITHMS[algorithm]
    except KeyError:
        raise ValueError(f"algorithm={algorithm!r} is not one of {', '.join(ALGORITHMS)}") from None


def base64url(raw: bytes | bytearray) -> str:
    """The bytes in the alphabet of RFC 7515, section 2, without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
