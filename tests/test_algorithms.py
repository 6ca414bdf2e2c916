"""The table of algorithms, and which of them may be listed together. RFC 7518 3, RFC 9864, RFC 9964, RFC 8725 3.1."""

import hmac
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from token_guard import ConfigurationError, InvalidToken, Issuer, Reason, ResourceServer
from token_guard.algorithms import (
    ALGORITHMS,
    DEFAULT_ALGORITHMS,
    DEFAULT_SECRET_ALGORITHMS,
    check_algorithms,
    has_ml_dsa,
)
from token_guard.jwk import VerificationKey
from token_guard.testing import LocalIssuer, SigningKey, keys
from token_guard.testing.keys import base64url

SECRET_ALGORITHMS = {"HS256", "HS384", "HS512"}
ML_DSA = ["ML-DSA-44", "ML-DSA-65", "ML-DSA-87"]


def refusal(issuer: LocalIssuer, raw: str, **options: Any) -> Reason:
    server = ResourceServer(issuer=issuer.url, audience="organize", jwks=issuer.jwks(), **options)
    with pytest.raises(InvalidToken) as refused:
        server.validate(raw)
    return refused.value.reason


def test_default_is_signatures_alone() -> None:
    """ALG-01: asymmetric, with RS256 among them; neither MACs nor `none`, nor what must be listed."""
    assert set(DEFAULT_ALGORITHMS) == {
        *(f"{family}{bits}" for family in ("RS", "PS", "ES") for bits in (256, 384, 512)),
        *("Ed25519", "Ed448", "EdDSA"),
    }
    assert DEFAULT_SECRET_ALGORITHMS == ("HS256",)


def test_table_says_what_the_standards_say() -> None:
    """RFC 7518 3, RFC 8037 3.1, 9964: key types and curves, the bytes of a signature, those of a secret at least."""
    rows = {
        name: (row.key_type, set(row.curves), row.signature_bytes, row.secret_bytes) for name, row in ALGORITHMS.items()
    }
    assert rows == {
        **{f"{family}{bits}": ("RSA", set(), None, None) for family in ("RS", "PS") for bits in (256, 384, 512)},
        "ES256": ("EC", {"P-256"}, {64}, None),
        "ES384": ("EC", {"P-384"}, {96}, None),
        "ES512": ("EC", {"P-521"}, {132}, None),
        "HS256": ("oct", set(), None, 32),
        "HS384": ("oct", set(), None, 48),
        "HS512": ("oct", set(), None, 64),
        "Ed25519": ("OKP", {"Ed25519"}, {64}, None),
        "Ed448": ("OKP", {"Ed448"}, {114}, None),
        "EdDSA": ("OKP", {"Ed25519", "Ed448"}, {64, 114}, None),
        "ML-DSA-44": ("AKP", {"ML-DSA-44"}, {2420}, None),
        "ML-DSA-65": ("AKP", {"ML-DSA-65"}, {3309}, None),
        "ML-DSA-87": ("AKP", {"ML-DSA-87"}, {4627}, None),
    }


@pytest.mark.parametrize("name", ["none", "None", "NONE", "RSA1_5", "ES256K", "RS1", "dir", ""])
def test_table_has_no_row_for_what_is_never_verified(name: str) -> None:
    """JWS-13, ALG-01: not even a switch could bring it back."""
    assert name not in ALGORITHMS


@pytest.mark.parametrize("name", DEFAULT_ALGORITHMS)
def test_default_accepts(name: str) -> None:
    """ALG-01, ALG-02, ALG-03: with no setting at all, every algorithm of the default is verified."""
    issuer = LocalIssuer(algorithm=name)
    organizer = ResourceServer(issuer=issuer.url, audience="organize", jwks=issuer.jwks())
    assert organizer.validate(issuer.token()).subject == "auth0|alice"


@pytest.mark.parametrize("name", sorted(SECRET_ALGORITHMS | set(ML_DSA)))
def test_default_refuses_what_must_be_configured(name: str) -> None:
    """ALG-01: known algorithms that nobody listed are refused before any key is looked for."""
    issuer = LocalIssuer()
    assert refusal(issuer, issuer.token(headers={"alg": name})) is Reason.ALGORITHM_NOT_ALLOWED


@pytest.mark.parametrize(
    ("listed", "used"), [("Ed25519", "EdDSA"), ("EdDSA", "Ed25519"), ("RS256", "RS384"), ("ES256", "RS256")]
)
def test_only_the_listed_names_are_accepted(listed: str, used: str) -> None:
    """ALG-03, JWS-12: listing one name implies no other, not even the other name of the same algorithm."""
    issuer = LocalIssuer(algorithm=used)
    assert refusal(issuer, issuer.token(), algorithms=[listed]) is Reason.ALGORITHM_NOT_ALLOWED


def test_new_name_fixes_the_curve() -> None:
    """ALG-02: an Ed448 key does not verify a token whose `alg` is Ed25519, nor the reverse."""
    issuer = LocalIssuer(algorithm="Ed448")
    assert refusal(issuer, issuer.token(headers={"alg": "Ed25519"})) is Reason.UNKNOWN_KEY
    issuer = LocalIssuer(algorithm="Ed25519")
    assert refusal(issuer, issuer.token(headers={"alg": "Ed448"})) is Reason.UNKNOWN_KEY


@pytest.mark.parametrize("name", [name for name in keys.ALGORITHMS if name not in SECRET_ALGORITHMS])
def test_verifier_tells_genuine_from_forged(name: str) -> None:
    """JWA-01: one bit of the message or of the signature, or another key, and the answer is no."""
    key, stranger = SigningKey.generate(name), SigningKey.generate(name)
    message, signature = b"message", key.sign(b"message")
    forged = bytes([signature[0] ^ 1]) + signature[1:]
    verify = ALGORITHMS[name].make_verifier()
    public, other = (VerificationKey(one.public_jwk()).public_key for one in (key, stranger))
    assert verify(public, signature, message) is True
    assert verify(public, signature, b"massage") is False
    assert verify(public, forged, message) is False
    assert verify(other, signature, message) is False


@pytest.mark.parametrize("curve", ["Ed25519", "Ed448"])
def test_older_name_takes_either_curve(curve: str) -> None:
    """ALG-03: under `EdDSA` the key decides the curve, and with it the length of the signature."""
    issuer = LocalIssuer(algorithm=curve)
    (jwk,) = issuer.jwks()["keys"]
    organizer = ResourceServer(issuer=issuer.url, audience="organize", jwks={"keys": [jwk | {"alg": "EdDSA"}]})
    assert organizer.validate(issuer.token(headers={"alg": "EdDSA"})).subject == "auth0|alice"


@pytest.mark.parametrize("name", sorted(SECRET_ALGORITHMS))
@pytest.mark.parametrize("form", ["PEM", "DER", "JWK"])
def test_a_public_key_is_never_a_shared_secret(name: str, form: str) -> None:
    """JWA-09: a token signed with the text of the published key as the HMAC secret, under any list of the default."""
    issuer = LocalIssuer()
    public = issuer.key.private.public_key()
    secret = {
        "PEM": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "DER": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "JWK": str(issuer.jwks()["keys"][0]).encode(),
    }[form]
    signing_input = issuer.token(headers={"alg": name}).rpartition(".")[0]
    forged = base64url(hmac.digest(secret, signing_input.encode(), f"sha{name[2:]}"))
    assert refusal(issuer, f"{signing_input}.{forged}") is Reason.ALGORITHM_NOT_ALLOWED


NON_EMPTY = r"^algorithms must be a non-empty collection of names such as \['RS256', 'ES256'\]$"


@pytest.mark.parametrize(
    ("names", "secret", "problem"),
    [
        ([], False, NON_EMPTY),
        ((), True, NON_EMPTY),
        ("", False, "'' is not one of"),
        (None, False, NON_EMPTY),
        (7, False, NON_EMPTY),
        ({"RS256": 1}, False, NON_EMPTY),
        (["none"], False, "'none' is not one of"),
        (["RS256", "none"], False, "'none' is not one of"),
        (["none"], True, "'none' is not one of"),
        (["rs256"], False, f"'rs256' is not one of {', '.join(ALGORITHMS)}; "),
        ("RS256 ES256", False, "'RS256 ES256' is not one of"),
        (["RS256", None], False, "None is not one of"),
        ([["RS256"]], False, "is not one of"),
        (["RS256", "HS256"], False, "HS256 needs Issuer"),
        (["HS256"], False, "HS256 needs Issuer"),
        (["HS256", "RS256"], True, "RS256 is not for an issuer that has a secret"),
    ],
)
def test_refuses_a_list_that_cannot_be_meant(names: object, secret: bool, problem: str) -> None:
    """JWS-13, JWA-09: `none`, unknown names, and MACs beside signatures are told at start-up."""
    with pytest.raises(ConfigurationError, match=problem):
        check_algorithms(names, secret=secret)


@pytest.mark.parametrize(
    ("names", "secret"),
    [("RS256", False), (["RS256", "RS256"], False), ({"ES256", "EdDSA"}, False), (("HS256", "HS512"), True)],
)
def test_accepts_one_name_or_a_collection(names: Any, secret: bool) -> None:
    """BCP-01: the list is explicit, in any collection."""
    assert check_algorithms(names, secret=secret) == frozenset([names] if isinstance(names, str) else names)


@pytest.mark.parametrize("salt_length", [0, 20, 31, 33, padding.PSS.MAX_LENGTH])
def test_a_salt_is_as_long_as_the_digest(salt_length: Any) -> None:
    """RFC 7518 3.5: with a salt of another length the same key makes a signature that is none."""
    issuer = LocalIssuer(algorithm="PS256")
    signing_input, _, _ = issuer.token().rpartition(".")
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), salt_length)
    signature = issuer.key.private.sign(signing_input.encode(), pss, hashes.SHA256())
    assert refusal(issuer, f"{signing_input}.{base64url(signature)}") is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("name", ML_DSA)
def test_ml_dsa_is_verified_where_cryptography_has_it_and_told_where_not(name: str) -> None:
    """ALG-07, ALG-09: a listed algorithm works, or the resource server does not start and names it."""
    if has_ml_dsa():
        issuer = LocalIssuer(algorithm=name)
        organizer = ResourceServer(issuer=issuer.url, audience="organize", jwks=issuer.jwks(), algorithms=[name])
        assert organizer.validate(issuer.token()).subject == "auth0|alice"
    else:
        with pytest.raises(ConfigurationError, match=name):
            check_algorithms([name], secret=False)


@pytest.mark.parametrize("name", [name for name in keys.ALGORITHMS if name in ML_DSA])
def test_ml_dsa_signs_with_an_empty_context(name: str) -> None:
    """ALG-07: a signature over another context string is none of ours."""
    key = SigningKey.generate(name)
    issuer = LocalIssuer()
    issuer.key, issuer.keys = key, (key,)
    signing_input, _, _ = issuer.token().rpartition(".")
    signature = key.private.sign(signing_input.encode(), b"context")
    assert refusal(issuer, f"{signing_input}.{base64url(signature)}", algorithms=[name]) is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("name", sorted(SECRET_ALGORITHMS))
def test_verifies_with_the_issuer_s_secret(name: str) -> None:
    """JWA-07: HS256, HS384 and HS512 with a secret as long as the hash; a wrong or truncated MAC is refused."""
    secret = b"0123456789abcdef" * 4
    issuer = LocalIssuer()
    configured = Issuer(issuer.url, secret=secret, algorithms=[name])
    organizer = ResourceServer(issuer=configured, audience="organize")
    signing_input = issuer.token(headers={"alg": name}).rpartition(".")[0]
    genuine = hmac.digest(secret, signing_input.encode(), f"sha{name[2:]}")
    assert organizer.validate(f"{signing_input}.{base64url(genuine)}").subject == "auth0|alice"
    for wrong in (b"", genuine[:-1], genuine[:16], genuine + b"\0", bytes(len(genuine))):
        with pytest.raises(InvalidToken) as refused:
            organizer.validate(f"{signing_input}.{base64url(wrong)}")
        assert refused.value.reason is Reason.BAD_SIGNATURE


def test_macs_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """JWA-08: the comparison is that of the standard library, made for secrets."""
    compared = []
    compare_digest = hmac.compare_digest

    def recording(ours: bytes, theirs: bytes) -> bool:
        compared.append({ours, theirs})
        return compare_digest(ours, theirs)

    monkeypatch.setattr(hmac, "compare_digest", recording)
    assert not ALGORITHMS["HS256"].verify(b"k" * 32, b"signature", b"message")
    assert compared == [{b"signature", hmac.digest(b"k" * 32, b"message", "sha256")}]


@given(
    st.lists(st.sampled_from(sorted(ALGORITHMS)) | st.text(max_size=6) | st.none(), max_size=3) | st.none() | st.text(),
    st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_any_list_is_accepted_whole_or_a_configuration_error(names: Any, secret: bool) -> None:
    """JWA-09: no list is shortened to what is understood, and no accepted list holds both kinds."""
    try:
        accepted = check_algorithms(names, secret=secret)
    except ConfigurationError:
        return
    assert accepted == frozenset([names] if isinstance(names, str) else names)
    assert accepted <= SECRET_ALGORITHMS if secret else accepted.isdisjoint(SECRET_ALGORITHMS)
