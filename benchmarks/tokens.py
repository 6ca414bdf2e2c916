"""The tokens of all benchmarks, and the bare check of their signatures: the floor that everything is compared with."""

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from jwt.utils import raw_to_der_signature

from benchmarks.measure import Case
from token_guard import ResourceServer
from token_guard.jws import read_unverified
from token_guard.testing import LocalIssuer
from token_guard.testing.keys import base64url

AUDIENCE = "organize"
SCOPE = "openid profile email read:contacts create:contacts read:calendar"
FLOOR = "bare RS256"

# What follows signature and message in the key's own `verify`.
PARAMETERS: dict[str, tuple[Any, ...]] = {
    "RS256": (padding.PKCS1v15(), hashes.SHA256()),
    "ES256": (ec.ECDSA(hashes.SHA256()),),
    "EdDSA": (),
}
_CLAIMS = {
    "permissions": ["read:contacts", "create:contacts"],
    "org_id": "org_abc123",
    "https://north.example/tier": 3,
    "https://north.example/email": "somebody.who.organizes.so.much@contacts.north.example",
}


def mint(issuer: LocalIssuer, tokens: int, scope: str = SCOPE, /, **options: Any) -> list[str]:
    """Mint distinct tokens of the hosted service's usual size, 984 bytes with RS256, which differ in the subject."""
    return list(stream(issuer, tokens, scope, **options))


def stream(issuer: LocalIssuer, tokens: int, scope: str = SCOPE, /, **options: Any) -> Iterator[str]:
    """Do what `mint` does, one token at a time: a million of them are no list."""
    options = {"audience": [AUDIENCE, f"{issuer.url}userinfo"], "claims": _CLAIMS} | options
    return (issuer.token(scope, subject=f"auth0|{number:06}", **options) for number in range(tokens))


def key_set(issuer: LocalIssuer, keys: int) -> dict[str, Any]:
    """Return the issuer's key set, filled up to so many RSA keys. Nobody can sign with the others: they are numbers."""
    numbers = (secrets.randbits(2048) | 1 << 2047 | 1 for _ in range(keys - len(issuer.keys)))
    others = [
        {
            "kty": "RSA",
            "use": "sig",
            "alg": "RS256",
            "kid": secrets.token_hex(8),
            "n": base64url(number.to_bytes(256, "big")),
            "e": "AQAB",
        }
        for number in numbers
    ]
    return {"keys": [*others, *issuer.jwks()["keys"]]}


def resource_server(issuer: LocalIssuer, **options: Any) -> ResourceServer:
    """Return a resource server that was given the issuer's keys."""
    return ResourceServer(issuer=issuer.url, audience=AUDIENCE, jwks=issuer.jwks(), **options)


def bare(issuer: LocalIssuer, minted: list[str], name: str | None = None) -> Case:
    """Return the bare check of these tokens' signatures: the key's own `verify` and nothing else."""
    algorithm = issuer.key.algorithm
    key = jwt.PyJWK(issuer.key.public_jwk()).key
    verify: Callable[..., None] = key.verify
    signed = [(token.signature, token.signing_input) for token in map(read_unverified, minted)]
    if algorithm == "ES256":
        signed = [(raw_to_der_signature(signature, key.curve), message) for signature, message in signed]
    parameters = PARAMETERS[algorithm]
    name = name or f"bare {algorithm}"
    return Case(name, lambda one: verify(*one, *parameters), signed, name)
