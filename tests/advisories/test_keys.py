"""Advisories about keys: brought by the token, weak ones, those of others, and what a key ID can be made to do."""

import base64
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.advisories.conftest import DIGEST_INFO, api, claims, refused, signed, with_signature
from token_guard import ConfigurationError, Issuer, Reason, ResourceServer
from token_guard.testing import LocalIssuer, SigningKey
from token_guard.testing.keys import base64url


def certificate_chain(key: SigningKey) -> list[str]:
    """What stands in `x5c`, near enough: whoever trusts it takes the key of the first entry."""
    spki = key.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return [base64.b64encode(spki).decode()]


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(
            lambda key: {"jwk": key.public_jwk()},
            id="CVE-2018-0114 (node-jose), CVE-2026-27962 (Authlib), CVE-2026-34240 (jose for Dart): jwk",
        ),
        pytest.param(lambda key: {"x5c": certificate_chain(key)}, id="x5c"),
        pytest.param(lambda key: {"jwks": {"keys": [key.public_jwk()]}}, id="jwks"),
        pytest.param(lambda key: {"key": key.public_jwk(), "keys": [key.public_jwk()]}, id="key"),
    ],
)
def test_a_token_does_not_bring_its_key(
    organizer: ResourceServer, issuer: LocalIssuer, header: Callable[[SigningKey], Mapping[str, Any]]
) -> None:
    """CVE-2018-0114 (node-jose) and its heirs: the key in the header verified the signature that came with it."""
    own = SigningKey.generate("RS256")
    assert refused(organizer, issuer.token(key=own, headers=header(own))).reason is Reason.UNKNOWN_KEY
    named = SigningKey("RS256", own.private, issuer.key.kid)
    assert refused(organizer, issuer.token(key=named, headers=header(named))).reason is Reason.BAD_SIGNATURE
    # The attack is the header alone: a good token that carries one stays good, under the issuer's key.
    organizer.validate(issuer.token(headers=header(own)))


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param("", id="CVE-2026-44351 (fast-jwt), CVE-2026-45363 (ruby-jwt), CVE-2019-20933 (InfluxDB): empty"),
        pytest.param(b"", id="empty bytes"),
        pytest.param("not so secret", id="CVE-2023-51442 (Navidrome): a word out of the source code"),
        pytest.param("x" * 31, id="CVE-2025-45768 (PyJWT): shorter than the hash"),
    ],
)
def test_a_secret_is_long(secret: str | bytes) -> None:
    """CVE-2026-44351 (fast-jwt) and others: a MAC under a secret that is empty, short or known to all was accepted."""
    with pytest.raises(ConfigurationError, match="at least 32 bytes"):
        Issuer("https://issuer.example/", secret=secret)


@pytest.mark.parametrize("kid", ["unknown", "", None])
def test_no_key_is_not_the_empty_key(organizer: ResourceServer, issuer: LocalIssuer, kid: str | None) -> None:
    """CVE-2026-44351 (fast-jwt), CVE-2026-45363 (ruby-jwt): a key that was not found became an empty secret."""
    empty = SigningKey("HS256", b"")
    forged = issuer.token(key=empty, headers={"kid": kid})
    assert refused(organizer, forged).reason is Reason.ALGORITHM_NOT_ALLOWED
    shared = api(issuer, issuer=Issuer(issuer.url, secret="s" * 32), jwks=None)
    assert refused(shared, forged).reason is Reason.BAD_SIGNATURE


PUBLIC_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param(
            PUBLIC_KEY.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), id="CVE-2015-9235 (jsonwebtoken)"
        ),
        pytest.param(PUBLIC_KEY.public_bytes(Encoding.PEM, PublicFormat.PKCS1), id="CVE-2017-11424 (PyJWT): PKCS1"),
        pytest.param(
            b"\n " + PUBLIC_KEY.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
            id="CVE-2026-34950 (fast-jwt): white space first",
        ),
        pytest.param(
            PUBLIC_KEY.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH), id="CVE-2022-29217 (PyJWT): OpenSSH"
        ),
        pytest.param(
            b'{"kty": "RSA", "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx", "e": "AQAB"}',
            id="CVE-2026-48526 (PyJWT): JWK",
        ),
    ],
)
def test_a_public_key_cannot_be_configured_as_secret(secret: bytes) -> None:
    """CVE-2022-29217 (PyJWT): a public key in a form that no deny-list knew was taken as the secret of a MAC."""
    with pytest.raises(ConfigurationError, match="not a key file"):
        Issuer("https://issuer.example/", secret=secret)


def jwk_of(issuer: LocalIssuer, **changes: Any) -> dict[str, Any]:
    """The issuer's published key with changes; a None removes a member."""
    members = issuer.key.public_jwk() | changes
    return {name: value for name, value in members.items() if value is not None}


def test_with_exponent_one_nothing_is_signed(issuer: LocalIssuer) -> None:
    """Salt, issue 40889: keys were made with the exponent 1, under which every text is its own signature."""
    server = api(issuer, jwks={"keys": [jwk_of(issuer, e=base64url(b"\x01"))]})
    token = signed(issuer, claims(issuer))
    digest = hashlib.sha256(token.rpartition(".")[0].encode()).digest()
    block = b"\x00\x01".ljust(256 - 1 - len(DIGEST_INFO + digest), b"\xff") + b"\x00" + DIGEST_INFO + digest
    assert refused(server, with_signature(token, block)).reason is Reason.UNKNOWN_KEY


@pytest.mark.parametrize("bits", [1024, 1536, 2040])
def test_small_rsa_keys_verify_nothing(bits: int) -> None:
    """CVE-2025-45768 (PyJWT): the library verified with keys of any size, however easy to break."""
    issuer = LocalIssuer()
    issuer.key = SigningKey("RS256", rsa.generate_private_key(public_exponent=65537, key_size=bits))
    issuer.keys = (issuer.key,)
    assert refused(api(issuer, clock=issuer.clock), issuer.token()).reason is Reason.UNKNOWN_KEY


@pytest.mark.parametrize("change", [{"x": base64url(bytes(32))}, {"y": base64url(b"\x01" * 32)}, {"crv": "P-384"}])
def test_points_off_the_curve_verify_nothing(change: Mapping[str, str]) -> None:
    """CVE-2016-9121 (go-jose), CVE-2017-12974 (Nimbus), CVE-2017-16007 (node-jose): points off the curve were keys."""
    issuer = LocalIssuer(algorithm="ES256")
    api(issuer, clock=issuer.clock).validate(issuer.token())
    server = api(issuer, jwks={"keys": [jwk_of(issuer, **change)]}, clock=issuer.clock)
    assert refused(server, issuer.token()).reason is Reason.UNKNOWN_KEY


@pytest.mark.parametrize(
    "change",
    [
        {"use": "enc"},
        {"use": None, "key_ops": ["encrypt"]},
        {"use": None, "key_ops": []},
        {"use": "enc", "alg": None},
        {"alg": "RSA-OAEP"},
    ],
    ids=repr,
)
def test_a_key_for_encryption_verifies_no_signature(issuer: LocalIssuer, change: Mapping[str, Any]) -> None:
    """CVE-2023-51774 (json-jwt): keys for encryption and for signatures were confused, and identities with them."""
    server = api(issuer, jwks={"keys": [jwk_of(issuer, **change)]})
    assert refused(server, issuer.token()).reason is Reason.UNKNOWN_KEY
    # Keys that say nothing of their use are for signatures too.
    api(issuer, jwks={"keys": [jwk_of(issuer, use=None, alg=None)]}).validate(issuer.token())


@pytest.mark.parametrize("kid", ["shared", "m1"])
def test_a_secret_in_a_key_set_verifies_nothing(issuer: LocalIssuer, kid: str) -> None:
    """CVE-2026-22817 (Hono): HMAC was the default for what a key set published, which everybody can read."""
    mac = SigningKey("HS256", b"s" * 32, kid)
    published = {"kty": "oct", "kid": kid, "k": base64url(mac.private)}
    server = api(issuer, jwks={"keys": [issuer.key.public_jwk(), published]})
    server.validate(issuer.token())
    assert refused(server, issuer.token(key=mac)).reason is Reason.ALGORITHM_NOT_ALLOWED
    assert refused(server, issuer.token(key=mac, headers={"alg": "RS256"})).reason is Reason.UNKNOWN_KEY


KEY_IDS = {
    "a file": "/dev/null",
    "a path": "../../../../../../dev/null",
    "a Windows path": "..\\..\\..\\windows\\win.ini",
    "SQL": "x' UNION SELECT 'known' -- ",
    "a command": "key; cat /etc/passwd |",
    "an address": "http://169.254.169.254/latest/meta-data/",
    "a NUL": "r1\0.pem",
    "an attribute": "__class__.__init__.__globals__",
    "a format": "{0.__class__} %s %n",
    "prose": "k" * 2000,
}


@pytest.mark.parametrize("kid", KEY_IDS.values(), ids=KEY_IDS)
@pytest.mark.parametrize("secret", [b"", b"known"], ids=["empty", "known"])
def test_a_key_id_is_looked_up_and_nothing_else(
    organizer: ResourceServer, issuer: LocalIssuer, kid: str, secret: bytes
) -> None:
    """CVE-2025-65945 (node-jws, GHSA-869p-cjfg-cm3x): the header decided where the secret of a MAC came from.

    As a path, a query or an address, such a key ID fetches a key whose content the attacker knows.
    """
    forged = issuer.token(key=SigningKey("HS256", secret, kid))
    assert refused(organizer, forged).reason is Reason.ALGORITHM_NOT_ALLOWED
    shared = api(issuer, issuer=Issuer(issuer.url, secret="s" * 32), jwks=None)
    assert refused(shared, forged).reason is Reason.BAD_SIGNATURE
    assert refused(organizer, issuer.token(headers={"kid": kid})).reason is Reason.UNKNOWN_KEY


def test_a_key_id_reads_no_file(organizer: ResourceServer, issuer: LocalIssuer, tmp_path: Path) -> None:
    """CVE-2025-65945 (node-jws) as a path: a key that the attacker put where the server can read it."""
    own = SigningKey.generate("RS256", kid=str(tmp_path / "key.pem"))
    (tmp_path / "key.pem").write_bytes(
        own.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    assert refused(organizer, issuer.token(key=own)).reason is Reason.UNKNOWN_KEY


@pytest.mark.parametrize("kid", [7, None, True, ["r1"], {"r1": 1}, 1.5], ids=repr)
def test_a_key_id_is_text(organizer: ResourceServer, issuer: LocalIssuer, kid: object) -> None:
    """CVE-2019-17195 (Nimbus): a header member of another type raised what nobody caught."""
    assert refused(organizer, signed(issuer, claims(issuer), kid=kid)).reason is Reason.MALFORMED


def test_keys_of_one_issuer_verify_no_token_of_another() -> None:
    """CVE-2025-59936 (get-jwks): keys were cached under their key ID alone, so any issuer could sign for the others."""
    ours, theirs = LocalIssuer("https://a.example/"), LocalIssuer("https://b.example/")
    server = ResourceServer(
        issuer=[Issuer(ours.url, jwks=ours.jwks()), Issuer(theirs.url, jwks=theirs.jwks())], audience="organize"
    )
    assert server.validate(theirs.token()).issuer == theirs.url
    assert refused(server, ours.token(key=theirs.key)).reason is Reason.UNKNOWN_KEY
    same_name = SigningKey("RS256", theirs.key.private, ours.key.kid)
    assert refused(server, ours.token(key=same_name)).reason is Reason.BAD_SIGNATURE
