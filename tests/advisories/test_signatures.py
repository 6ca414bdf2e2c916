"""Advisories about signatures: none at all, those of another algorithm, and those in another form."""

import hashlib
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.utils import raw_to_der_signature

from tests.advisories.conftest import DIGEST_INFO, api, claims, now, refused, signed, with_signature
from token_guard import Issuer, Reason, ResourceServer
from token_guard.testing import LocalIssuer, SigningKey
from token_guard.testing.keys import base64url


def pem(key: Any, form: PublicFormat = PublicFormat.SubjectPublicKeyInfo) -> bytes:
    text: bytes = key.public_bytes(Encoding.PEM, form)
    return text


@pytest.mark.parametrize(
    "alg",
    [
        pytest.param("none", id="CVE-2015-9235 (jsonwebtoken), CVE-2026-28802 (Authlib), CVE-2020-26244 (pyoidc)"),
        pytest.param("None", id="CVE-2022-23540 (jsonwebtoken)"),
        pytest.param("NONE", id="CVE-2025-61152 (python-jose)"),
        pytest.param("nOnE", id="Insomnia Security: JWT validation bypass in the Auth0 Authentication API"),
        pytest.param("none ", id="a space more"),
        pytest.param("", id="no name at all"),
    ],
)
def test_refuses_unsigned_tokens(organizer: ResourceServer, issuer: LocalIssuer, alg: str) -> None:
    """CVE-2015-9235 and its heirs: the token said that it needs no signature, in a spelling that no deny-list had."""
    unsigned = issuer.unsigned(headers={"alg": alg, "kid": issuer.key.kid})
    assert refused(organizer, unsigned).reason is Reason.ALGORITHM_NOT_ALLOWED
    # A signature beside it makes it no better.
    assert refused(organizer, issuer.token(headers={"alg": alg})).reason is Reason.ALGORITHM_NOT_ALLOWED


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "Ed25519", "HS256"])
@pytest.mark.parametrize("length", [0, 1, 31])
def test_refuses_a_signature_that_is_only_begun(algorithm: str, length: int) -> None:
    """CVE-2020-28042 (ServiceStack): as many bytes were compared as the token brought, so that none were enough."""
    issuer = LocalIssuer(algorithm=algorithm)
    keys = {"issuer": Issuer(issuer.url, secret=issuer.key.private), "jwks": None} if algorithm == "HS256" else {}
    server = api(issuer, **keys)
    token = issuer.token(claims={"iat": None})
    signature = issuer.key.sign(token.rpartition(".")[0].encode())
    assert refused(server, with_signature(token, signature[:length])).reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("forge", [LocalIssuer.signed_by_stranger, lambda issuer: issuer.tampered(issuer.token())])
def test_checks_every_signature(organizer: ResourceServer, issuer: LocalIssuer, forge: Callable[..., str]) -> None:
    """CVE-2021-22573 (Google OAuth Client for Java): claims were checked, the signature was not."""
    assert refused(organizer, forge(issuer)).reason is Reason.BAD_SIGNATURE


CONFUSIONS: dict[str, Callable[[Any, dict[str, Any]], bytes]] = {
    "CVE-2015-9235 (jsonwebtoken), CVE-2016-10555 (jwt-simple): PEM": lambda key, _: pem(key),
    "CVE-2017-11424 (PyJWT), CVE-2023-48223 (fast-jwt): PKCS1 PEM": lambda key, _: pem(key, PublicFormat.PKCS1),
    "CVE-2026-34950 (fast-jwt): white space before the PEM": lambda key, _: b" \n" + pem(key),
    "CVE-2022-29217 (PyJWT): OpenSSH": lambda key, _: key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
    "CVE-2024-33663 (python-jose), CVE-2024-37568 (Authlib): DER": lambda key, _: key.public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    ),
    "CVE-2026-48526 (PyJWT): JWK": lambda _, jwk: repr(jwk).replace("'", '"').encode(),
    "CVE-2026-22817 (Hono): the modulus": lambda _, jwk: jwk["n"].encode(),
}


@pytest.mark.parametrize("form", CONFUSIONS.values(), ids=CONFUSIONS)
@pytest.mark.parametrize("published", ["with alg", "without alg"])
def test_a_public_key_is_no_secret(
    issuer: LocalIssuer, form: Callable[[Any, dict[str, Any]], bytes], published: str
) -> None:
    """CVE-2022-29217 (PyJWT) and all of algorithm confusion: HMAC took the public key, which everybody has, as secret.

    CVE-2026-22817 and -22818 (Hono): where the published key named no algorithm, the token's header did.
    """
    jwk = issuer.key.public_jwk()
    if published == "without alg":
        del jwk["alg"]
    server = api(issuer, jwks={"keys": [jwk]})
    secret = form(issuer.key.private.public_key(), issuer.key.public_jwk())
    forged = issuer.token(key=SigningKey("HS256", secret, issuer.key.kid))
    server.validate(issuer.token())
    assert refused(server, forged).reason is Reason.ALGORITHM_NOT_ALLOWED


@pytest.mark.parametrize("algorithm", ["HS256", "ES256", "PS256", "Ed25519"])
def test_only_listed_algorithms_count(issuer: LocalIssuer, algorithm: str) -> None:
    """CVE-2026-22818 (Hono): the header chose among all algorithms, because nobody had to list those that are used."""
    server = api(issuer, algorithms=["RS256"])
    forged = issuer.token(key=SigningKey.generate(algorithm, issuer.key.kid))
    assert refused(server, forged).reason is Reason.ALGORITHM_NOT_ALLOWED


@pytest.mark.parametrize("algorithm", ["ES256", "Ed25519", "RS512", "PS256"])
def test_the_key_must_be_of_the_algorithm(issuer: LocalIssuer, algorithm: str) -> None:
    """CVE-2021-46743 (firebase/php-jwt): with several kinds of keys, `kid` paired an algorithm with another's key.

    CVE-2022-23539 (jsonwebtoken): keys of another type passed. CVE-2026-48523 (PyJWT): the key's own `alg` did not
    have to be the header's.
    """
    other = SigningKey.generate(algorithm)
    server = api(issuer, jwks={"keys": [issuer.key.public_jwk(), other.public_jwk()]})
    server.validate(issuer.token(key=other))
    assert refused(server, issuer.token(key=other, headers={"alg": "RS256"})).reason is Reason.UNKNOWN_KEY
    assert refused(server, issuer.token(headers={"alg": algorithm})).reason is Reason.UNKNOWN_KEY


@pytest.mark.parametrize("algorithm", ["ES256", "Ed25519"])
def test_the_key_must_be_of_the_type(issuer: LocalIssuer, algorithm: str) -> None:
    """CVE-2022-23539 (jsonwebtoken), where the published keys name no algorithm: their type decides what they are."""
    other = SigningKey.generate(algorithm)
    keys = [key.public_jwk() for key in (issuer.key, other)]
    for jwk in keys:
        del jwk["alg"]
    server = api(issuer, jwks={"keys": keys})
    server.validate(issuer.token(key=other))
    assert refused(server, issuer.token(key=other, headers={"alg": "RS256"})).reason is Reason.UNKNOWN_KEY
    assert refused(server, issuer.token(headers={"alg": algorithm})).reason is Reason.UNKNOWN_KEY


def test_the_signature_must_be_of_the_algorithm(issuer: LocalIssuer) -> None:
    """CVE-2026-48523 (PyJWT): the header named an algorithm that was allowed, and another one made the signature."""
    jwk = issuer.key.public_jwk()
    del jwk["alg"]
    server = api(issuer, jwks={"keys": [jwk]}, algorithms=["RS256"])
    disguised = issuer.token(key=SigningKey("RS512", issuer.key.private, issuer.key.kid), headers={"alg": "RS256"})
    assert refused(server, disguised).reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "ES512"])
@pytest.mark.parametrize(
    ("r", "s"), [(0, 0), (0, 1), (1, 0), ("n", "n"), ("n", 0), (0, "n")], ids=lambda number: f"{number}"
)
def test_refuses_psychic_signatures(algorithm: str, r: int | str, s: int | str) -> None:
    """CVE-2022-21449 (Java): r and s of zero, or of the group's order, were a good signature of everything."""
    issuer = LocalIssuer(algorithm=algorithm)
    server = api(issuer)
    curve = issuer.key.private.curve
    numbers = [curve.group_order if number == "n" else int(number) for number in (r, s)]
    blank = b"".join(number.to_bytes((curve.key_size + 7) // 8, "big") for number in numbers)
    token = signed(issuer, claims(issuer))
    server.validate(token)
    assert refused(server, with_signature(token, blank)).reason is Reason.BAD_SIGNATURE


def padded_der(der: bytes) -> bytes:
    """DER with a zero before the first integer, which BER allows and DER does not."""
    return bytes((der[0], der[1] + 1, der[2], der[3] + 1, 0)) + der[4:]


@pytest.mark.parametrize(
    "spell",
    [
        pytest.param(lambda raw, der: der, id="CVE-2019-14853 (python-ecdsa): DER"),
        pytest.param(lambda raw, der: padded_der(der), id="CVE-2020-14966 (jsrsasign): zeros within"),
        pytest.param(lambda raw, der: der + b"\0", id="CVE-2019-14859 (python-ecdsa): DER and more"),
        pytest.param(lambda raw, der: b"\0" + raw, id="a byte before"),
        pytest.param(lambda raw, der: raw + b"\0", id="a byte after"),
        pytest.param(lambda raw, der: b"\0" + raw[:32] + b"\0" + raw[32:], id="each half longer"),
        pytest.param(lambda raw, der: raw + raw, id="twice"),
    ],
)
def test_an_ecdsa_signature_has_one_form(spell: Callable[[bytes, bytes], bytes]) -> None:
    """CVE-2019-14859 (python-ecdsa) and CVE-2020-14966 (jsrsasign): one signature verified in many spellings."""
    issuer = LocalIssuer(algorithm="ES256")
    server = api(issuer)
    token = signed(issuer, claims(issuer))
    raw = issuer.key.sign(token.rpartition(".")[0].encode())
    server.validate(with_signature(token, raw))
    spelled = spell(raw, raw_to_der_signature(raw, issuer.key.private.curve))
    assert refused(server, with_signature(token, spelled)).reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("algorithm", ["RS256", "PS256"])
def test_an_rsa_signature_has_one_length(algorithm: str) -> None:
    """CVE-2020-14968 (jsrsasign): zero bytes before a signature were ignored, and so made new spellings of a token."""
    issuer = LocalIssuer(algorithm=algorithm, clock=now)
    server = api(issuer)
    token, raw = with_a_leading_zero(issuer)
    server.validate(with_signature(token, raw))
    for other in (raw[1:], b"\0" + raw, raw + b"\0"):
        assert refused(server, with_signature(token, other)).reason is Reason.BAD_SIGNATURE


def with_a_leading_zero(issuer: LocalIssuer) -> tuple[str, bytes]:
    """A token and its signature, which begins with a zero byte, as one in 256 does."""
    tokens = (signed(issuer, claims(issuer, jti=str(number))) for number in count())
    both = ((token, issuer.key.sign(token.rpartition(".")[0].encode())) for token in tokens)
    return next((token, raw) for token, raw in both if raw[0] == 0)


def test_refuses_a_forged_cube_root(issuer: LocalIssuer) -> None:
    """CVE-2016-1494 (Python-RSA): with the exponent 3, rubbish after the digest let anybody compute a signature."""
    server = api(issuer, jwks={"keys": [issuer.key.public_jwk() | {"e": base64url(b"\x03")}]})
    token = signed(issuer, claims(issuer))
    digest = hashlib.sha256(token.rpartition(".")[0].encode()).digest()
    wanted = b"\x00\x01" + b"\xff" * 8 + b"\x00" + DIGEST_INFO + digest
    block = int.from_bytes(wanted.ljust(256, b"\xff"), "big")
    root = cube_root(block)
    assert (root**3).to_bytes(256, "big").startswith(wanted)  # what the faulty verifier looked at
    assert refused(server, with_signature(token, root.to_bytes(256, "big"))).reason is Reason.BAD_SIGNATURE


def cube_root(number: int) -> int:
    """The greatest integer whose cube is not above the number."""
    low, high = 0, 1 << (number.bit_length() // 3 + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**3 <= number else (low, middle - 1)
    return low


def test_an_error_never_tells_the_right_signature() -> None:
    """CVE-2019-7644 (Auth0 WCF Service JWT): the refusal of a forged token quoted the signature it should have had."""
    issuer = LocalIssuer(algorithm="HS256")
    server = api(issuer, issuer=Issuer(issuer.url, secret=issuer.key.private), jwks=None)
    token = signed(issuer, claims(issuer))
    server.validate(token)
    error = refused(server, with_signature(token, bytes(32)))
    answer = server.challenge(error)
    right = token.rpartition(".")[2]
    told = f"{error} {error!r} {error.detail} {error.__cause__!r} {error.__context__!r} {answer}"
    assert error.reason is Reason.BAD_SIGNATURE
    assert right not in told
    assert issuer.key.sign(token.rpartition(".")[0].encode()).hex() not in told
