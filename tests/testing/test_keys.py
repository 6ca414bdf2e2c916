"""The signing keys: every algorithm is verified by PyJWT or cryptography, never by our own code."""

import base64
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import OKPAlgorithm

from token_guard.testing import LocalIssuer, SigningKey, sign_compact
from token_guard.testing.keys import ALGORITHMS, RESTING_RSA_KEYS

ASYMMETRIC = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]
EDWARDS = {"Ed25519": "Ed25519", "Ed448": "Ed448", "EdDSA": "Ed25519"}
ML_DSA = ["ML-DSA-44", "ML-DSA-65", "ML-DSA-87"]
PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"}


def verified_by_pyjwt(token: str, jwk: dict[str, Any]) -> Any:
    jws = jwt.PyJWS()
    if jwk["alg"] in {"Ed25519", "Ed448"}:  # PyJWT knows these only by their older name.
        jws.register_algorithm(jwk["alg"], OKPAlgorithm())
        key: Any = OKPAlgorithm.from_jwk(jwk)
    else:
        key = jwt.PyJWK(jwk).key
    return json.loads(jws.decode(token, key, algorithms=[jwk["alg"]]))


@pytest.mark.parametrize("algorithm", [*ASYMMETRIC, *EDWARDS])
def test_published_half_verifies_signature(algorithm: str) -> None:
    """What a key signs, PyJWT verifies with the JWK that the key publishes."""
    key = SigningKey.generate(algorithm)
    token = sign_compact({"alg": algorithm}, {"sub": "auth0|alice"}, key)
    assert verified_by_pyjwt(token, key.public_jwk()) == {"sub": "auth0|alice"}


@pytest.mark.parametrize("algorithm", ML_DSA)
def test_published_half_verifies_ml_dsa_signature(algorithm: str) -> None:
    """ML-DSA keys are of type AKP (RFC 9964) and cryptography verifies what they sign."""
    mldsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.mldsa", reason="cryptography < 48")
    key = SigningKey.generate(algorithm)
    jwk = key.public_jwk()
    assert jwk.keys() == {"kty", "alg", "pub", "use", "kid"}
    assert (jwk["kty"], jwk["alg"]) == ("AKP", algorithm)

    signing_input, _, signature = sign_compact({"alg": algorithm}, {}, key).rpartition(".")
    public_class = getattr(mldsa, f"{algorithm.replace('-', '')}PublicKey")
    public = public_class.from_public_bytes(base64.urlsafe_b64decode(jwk["pub"] + "=="))
    public.verify(base64.urlsafe_b64decode(signature + "=="), signing_input.encode())


@pytest.mark.parametrize(("algorithm", "curve"), EDWARDS.items())
def test_edwards_key_names_its_curve(algorithm: str, curve: str) -> None:
    """EdDSA is a name for Ed25519 here; the other two names fix the curve (RFC 9864)."""
    assert SigningKey.generate(algorithm).public_jwk()["crv"] == curve


def test_shared_secret_verifies_signature() -> None:
    """An HS256 key is verified with its secret, as bytes or pasted as text."""
    key = SigningKey.generate("HS256")
    token = sign_compact({"alg": "HS256"}, {"sub": "auth0|alice"}, key)
    assert jwt.decode(token, key.private, algorithms=["HS256"]) == {"sub": "auth0|alice"}
    assert jwt.decode(token, key.private.decode(), algorithms=["HS256"]) == {"sub": "auth0|alice"}


def test_shared_secret_has_no_public_half() -> None:
    """A secret cannot be published by mistake (RFC 7517, section 9.2)."""
    with pytest.raises(ValueError, match="shared secret"):
        SigningKey.generate("HS256").public_jwk()


@pytest.mark.parametrize("algorithm", [a for a in ALGORITHMS if a != "HS256"])
def test_published_half_is_public_and_complete(algorithm: str) -> None:
    """A published JWK has a key ID, a use and an algorithm, no private member and no second word on its use."""
    key = SigningKey.generate(algorithm)
    jwk = key.public_jwk()
    assert (jwk["kid"], jwk["use"], jwk["alg"]) == (key.kid, "sig", algorithm)
    assert not jwk.keys() & (PRIVATE_MEMBERS | {"key_ops"})


def test_refuses_unknown_algorithm_and_names_the_known() -> None:
    """A wrong algorithm is told at once, with the ones that exist."""
    with pytest.raises(ValueError, match=r"RS265.*RS256, .*Ed25519, .*HS256"):
        SigningKey.generate("RS265")
    with pytest.raises(ValueError, match="'none'"):
        SigningKey("none", b"")


def test_secrets_stay_out_of_the_repr() -> None:
    """A failing assertion that prints a key prints no secret."""
    key = SigningKey.generate("HS256")
    assert key.private.decode() not in repr(key)
    assert key.kid in repr(key)


def test_signs_bytes_as_they_are() -> None:
    """Duplicate members and whitespace reach the token unchanged, and the signature covers them."""
    key = SigningKey.generate("ES256")
    header, payload = b'{ "alg":"ES256" }', b'{"sub":"a", "sub":"b"}\n'
    token = sign_compact(header, payload, key)
    assert [base64.urlsafe_b64decode(part + "==") for part in token.split(".")[:2]] == [header, payload]
    assert jwt.PyJWS().decode(token, jwt.PyJWK(key.public_jwk()).key, algorithms=["ES256"]) == payload


def test_key_decides_the_signature_whatever_the_header_says() -> None:
    """The classic confusion can be minted: a public key's text used as a shared secret under a lying header."""
    public = LocalIssuer().key.private.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signing_input, _, signature = sign_compact({"alg": "RS256"}, {}, SigningKey("HS256", pem)).rpartition(".")
    assert base64.urlsafe_b64decode(signature + "==") == hmac.digest(pem, signing_input.encode(), "sha256")


def test_rsa_keys_are_reused_but_never_while_somebody_holds_them() -> None:
    """Thousands of tests share a few RSA keys, yet two issuers alive at the same time never do."""
    held = SigningKey.generate("RS256")
    passing = [SigningKey.generate("RS256").public_jwk()["n"] for _ in range(3 * RESTING_RSA_KEYS)]
    assert held.public_jwk()["n"] not in passing
    assert len(set(passing)) < len(passing)
    # One that was let go comes back late, so that whoever kept its public half does not meet it at once.
    assert len(set(passing[: RESTING_RSA_KEYS + 1])) == RESTING_RSA_KEYS + 1


def test_key_ids_differ_even_for_a_reused_key() -> None:
    """A key ID names one signing key for ever."""
    assert len({SigningKey.generate("RS256").kid for _ in range(3 * RESTING_RSA_KEYS)}) == 3 * RESTING_RSA_KEYS
