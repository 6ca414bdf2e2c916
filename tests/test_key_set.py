"""Choosing the keys of an issuer for a header, and verifying a signature with them. RFC 7517 5, RFC 7518 3."""

import base64
import json
import logging
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from token_guard import ConfigurationError, InvalidToken, Issuer, Reason, ResourceServer
from token_guard.algorithms import ALGORITHMS
from token_guard.key_set import MAX_CANDIDATES, MAX_KEYS, KeySet, keys_for_issuer, read_key_set
from token_guard.testing import LocalIssuer, SigningKey, keys, sign_compact
from token_guard.testing.keys import base64url

NOW = 1_700_000_000
CLAIMS = {"iss": "https://issuer.example/", "aud": "organize", "exp": NOW + 60, "sub": "auth0|alice"}
RSA, EC = SigningKey.generate("RS256", kid="r1"), SigningKey.generate("ES256", kid="e1")
OFF_CURVE = EC.public_jwk() | {"x": EC.public_jwk()["y"], "y": EC.public_jwk()["x"]}


def key_set(*jwks: object) -> KeySet:
    return read_key_set({"keys": list(jwks)})[0]


def chosen(keys: KeySet, algorithm: str, kid: str | None) -> list[str | None]:
    return [key.kid for key in keys.candidates(ALGORITHMS[algorithm], kid)]


def organizer(*jwks: Mapping[str, Any], **options: Any) -> ResourceServer:
    return ResourceServer(
        issuer="https://issuer.example/", audience="organize", jwks={"keys": jwks}, clock=lambda: NOW, **options
    )


def token(key: SigningKey, **header: Any) -> str:
    return sign_compact({"alg": key.algorithm, "kid": key.kid} | header, CLAIMS, key)


def resigned(raw: str, signature: bytes | Callable[[bytes], bytes]) -> str:
    """The token with another signature: these bytes, or what a function makes of the signing input."""
    signing_input = raw.rpartition(".")[0]
    return (
        f"{signing_input}.{base64url(signature if isinstance(signature, bytes) else signature(signing_input.encode()))}"
    )


def signature_of(raw: str, key: SigningKey) -> bytes:
    """A genuine signature over the token's signing input: the one that it has, or another as good (ECDSA)."""
    return key.sign(raw.rpartition(".")[0].encode())


def subject(server: ResourceServer, raw: str) -> str | None:
    return server.validate(raw).subject


def refusal(server: ResourceServer, raw: str) -> Reason:
    with pytest.raises(InvalidToken) as refused:
        server.validate(raw)
    return refused.value.reason


# Reading a key set.


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        (
            "https://issuer.example/jwks",
            "; a text was given: an address is given as jwks_uri=, and JSON is read first, by json.loads",
        ),
        (LocalIssuer(algorithm="ES256").jwks, "; a function was given: call it, jwks=issuer.jwks()"),
        ([EC.public_jwk()], '; a list was given: wrap it, jwks={"keys": [...]}'),
        ((EC.public_jwk(),), '; a list was given: wrap it, jwks={"keys": [...]}'),
        (EC.public_jwk(), '; one key was given: wrap it, jwks={"keys": [...]}'),
        ({}, ""),
        (7, ""),
    ],
    ids=["text", "function", "list", "tuple", "key", "object", "number"],
)
def test_a_setting_that_is_no_key_set_is_told_with_the_fix(given: Any, advice: str) -> None:
    """JWK-01: what came and what to write, never the key itself, which may be a private one."""
    with pytest.raises(ConfigurationError) as told:
        ResourceServer(issuer="https://issuer.example/", audience="organize", jwks=given)
    assert str(told.value) == (
        f"jwks of issuer 'https://issuer.example/': a key set is an object with an array `keys` (RFC 7517 5){advice}"
    )


@pytest.mark.parametrize(
    "document", [None, [], {}, "keys", 1, {"keys": None}, {"keys": {}}, {"keys": "[]"}, {"KEYS": []}, [{"keys": []}]]
)
def test_refuses_what_is_no_key_set(document: Any) -> None:
    """JWK-01: a key set is an object with an array `keys`; given as a setting, anything else is told at start-up."""
    with pytest.raises(ValueError, match=r"^a key set is an object with an array `keys` \(RFC 7517 5\)$"):
        read_key_set(document)
    if document is not None:
        with pytest.raises(ConfigurationError, match="jwks"):
            ResourceServer(issuer="https://issuer.example/", audience="organize", jwks=document)


def test_skips_odd_keys_one_by_one(caplog: pytest.LogCaptureFixture) -> None:
    """JWK-02, JWK-15: a good key among odd ones verifies; the log names each by position and shows no key material."""
    secret = base64url(b"a very secret secret of 32 bytes")
    odd = [
        {"kty": "XYZ"},
        {"kty": "RSA"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "oct", "k": secret},
        RSA.public_jwk() | {"d": secret},
        None,
    ]
    jwks: list[Any] = [*odd, OFF_CURVE, RSA.public_jwk()]
    with caplog.at_level(logging.WARNING):
        server = organizer(*jwks)
    assert subject(server, token(RSA)) == "auth0|alice"
    assert [record.getMessage().split("key ")[1][0] for record in caplog.records] == list("012345")
    assert secret not in caplog.text


def test_considers_a_bounded_number_of_keys() -> None:
    """JWK-17: a huge set costs no more than its first hundred keys, and the rest is told."""
    jwk = EC.public_jwk()
    jwks = [jwk | {"kid": str(number)} for number in range(MAX_KEYS + 1)]
    keys, odd = read_key_set({"keys": jwks})
    assert (len(keys.key_ids), odd) == (MAX_KEYS, [f"1 keys after the first {MAX_KEYS} are skipped"])
    keys, odd = read_key_set({"keys": jwks[:MAX_KEYS]})
    assert (len(keys.key_ids), odd) == (MAX_KEYS, [])


def test_a_set_without_a_usable_key_says_so() -> None:
    """JWK-01: keys that cryptography cannot build do not make a set usable."""
    assert key_set(EC.public_jwk()).is_usable
    assert not key_set(OFF_CURVE, {"kty": "oct"}).is_usable
    assert not key_set().is_usable


def test_identity_of_a_set_is_that_of_its_keys() -> None:
    """Whether a refetch changed anything depends on material, key ID, algorithm and issuer, not on order."""
    jwk, other = EC.public_jwk(), RSA.public_jwk()
    assert key_set(jwk, other).identity == key_set(other, jwk | {"x5t": "AAAA"}, {"kty": "XYZ"}).identity
    for changed in (
        jwk | {"kid": "e2"},
        jwk | {"issuer": "https://issuer.example/"},
        {name: jwk[name] for name in jwk if name != "alg"},
        SigningKey.generate("ES256", "e1").public_jwk(),
    ):
        assert key_set(changed, other).identity != key_set(jwk, other).identity


# Choosing keys.


@pytest.mark.parametrize("kid", ["R1", "r1 ", "r", "", "r1\0", "ｒ1"])
def test_key_id_is_compared_exactly(kid: str) -> None:
    """JWK-08: a case-sensitive string, compared whole."""
    keys = key_set(RSA.public_jwk(), {"kty": "XYZ", "kid": kid})
    assert chosen(keys, "RS256", "r1") == ["r1"]
    assert chosen(keys, "RS256", kid) == []


@pytest.mark.parametrize("kid", ["../../etc/passwd", "' OR 1=1--", "\r\nX: y", "\x1b[2J", "😀", "k" * 2500])
def test_hostile_key_id_is_an_unknown_key(kid: str) -> None:
    """JWK-13: it is looked up and shown, escaped and short, and nothing else."""
    with pytest.raises(InvalidToken) as refused:
        organizer(RSA.public_jwk()).validate(token(RSA, kid=kid))
    assert refused.value.reason is Reason.UNKNOWN_KEY
    assert str(refused.value).isascii()
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 300


def test_without_a_key_id_the_only_fitting_key_is_used() -> None:
    """JWK-11: one key that fits the algorithm is enough, two are one too many; unusable ones do not count."""
    rsa, ec = RSA.public_jwk(), EC.public_jwk()
    assert chosen(key_set(rsa, ec), "RS256", None) == ["r1"]
    assert chosen(key_set(rsa, ec, OFF_CURVE), "ES256", None) == ["e1"]
    assert chosen(key_set(rsa, rsa | {"kid": "r2"}), "RS256", None) == []
    assert chosen(key_set(rsa, rsa | {"kid": "r2", "alg": "PS256"}), "RS256", None) == ["r1"]
    assert chosen(key_set(ec), "RS256", None) == []
    assert subject(organizer(rsa, ec), sign_compact({"alg": "RS256"}, CLAIMS, RSA)) == "auth0|alice"


def test_key_id_named_by_the_header_must_exist_even_where_one_key_fits() -> None:
    """JWK-11: a wrong key ID is not the same as none, and a key without an ID is found by none."""
    nameless = {name: value for name, value in RSA.public_jwk().items() if name != "kid"}
    assert chosen(key_set(nameless), "RS256", "r1") == []
    assert chosen(key_set(nameless), "RS256", None) == [None]


def test_equal_key_ids_on_keys_of_different_types() -> None:
    """JWK-12: the algorithm decides between them."""
    ec = SigningKey("ES256", EC.private, kid="r1")
    server = organizer(RSA.public_jwk(), ec.public_jwk())
    assert subject(server, token(ec)) == "auth0|alice"
    assert subject(server, token(RSA)) == "auth0|alice"


@pytest.mark.parametrize("position", range(MAX_CANDIDATES + 1))
def test_equal_key_ids_and_types_are_all_tried_within_bounds(position: int) -> None:
    """JWK-12: any of a few keys of one ID may have signed; no more than a few are tried."""
    same = [SigningKey.generate("ES256", kid="k") for _ in range(MAX_CANDIDATES + 1)]
    server = organizer(*[key.public_jwk() for key in same])
    if position < MAX_CANDIDATES:
        assert subject(server, token(same[position])) == "auth0|alice"
    else:
        assert refusal(server, token(same[position])) is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("repetition", range(2))
def test_choice_does_not_depend_on_what_was_asked_before(repetition: int) -> None:
    """JWK-06, JWK-07: asking for one algorithm never opens a key to another."""
    keys = key_set(RSA.public_jwk(), EC.public_jwk())
    for _ in range(repetition + 1):
        assert chosen(keys, "RS256", "r1") == ["r1"]
        assert chosen(keys, "PS256", "r1") == []
        assert chosen(keys, "RS256", "e1") == []
        assert chosen(keys, "RS256", None) == ["r1"]
        assert chosen(keys, "ES384", "e1") == []


@pytest.mark.parametrize("published", ["RS256", "ES384", "ES512", "Ed25519"])
def test_a_key_of_another_kind_is_no_key_for_the_token(published: str) -> None:
    """JWK-07, ALG-05: an ES256 token whose `kid` names a key of another type or curve."""
    other = SigningKey.generate(published, kid="e1").public_jwk()
    del other["alg"]
    assert refusal(organizer(other), token(EC)) is Reason.UNKNOWN_KEY


def test_a_key_for_one_rsa_algorithm_is_none_for_the_other() -> None:
    """JWK-06: a PS256 token by the same RSA key that is published for RS256."""
    server = organizer(RSA.public_jwk(), algorithms=["RS256", "PS256"])
    assert refusal(server, token(SigningKey("PS256", RSA.private, kid="r1"))) is Reason.UNKNOWN_KEY


ONE, OTHER, TEMPLATE = "https://one.example/", "https://other.example/", "https://{tenantid}.example/"


@pytest.mark.parametrize(
    ("named", "issuers"),
    [
        ([ONE, OTHER], [ONE]),  # one key under one key ID, published once an issuer
        ([TEMPLATE], [TEMPLATE]),
        ([TEMPLATE, OTHER], [TEMPLATE]),
        ([OTHER], []),
        ([""], []),
        ([None], []),
        ([7, [ONE], {}], []),
    ],
    ids=str,
)
def test_a_key_that_names_an_issuer_is_for_that_one_alone(named: list[object], issuers: list[str]) -> None:
    """ENTRA-03: the tenant filled in; what is no text is the name of no issuer, and a key without a name is for all."""
    keys = key_set(*(EC.public_jwk() | {"issuer": issuer} for issuer in named)).candidates(ALGORITHMS["ES256"], "e1")
    claims = {"iss": ONE, "tid": "one"}
    if issuers:
        assert [key.issuer for key in keys_for_issuer(keys, claims)] == issuers
    else:
        with pytest.raises(InvalidToken) as refused:
            keys_for_issuer(keys, claims)
        assert refused.value.reason is Reason.UNKNOWN_KEY
        others = ", ".join(repr(key.issuer) for key in keys)
        assert refused.value.detail == f"the key is for {others} alone, the token's iss is {ONE}"
    unnamed = key_set(EC.public_jwk()).candidates(ALGORITHMS["ES256"], "e1")
    assert keys_for_issuer([*keys, *unnamed], claims)[-1:] == unnamed


def test_keys_belong_to_one_issuer() -> None:
    """JWK-16: a key that only B published never verifies a token that says it is A's, known `kid` or not."""
    a, b = LocalIssuer("https://a.example/", algorithm="ES256"), LocalIssuer("https://b.example/", algorithm="ES256")
    server = ResourceServer(issuer=[Issuer(issuer.url, jwks=issuer.jwks()) for issuer in (a, b)], audience="organize")
    assert server.validate(a.token()).issuer == a.url
    assert server.validate(b.token()).issuer == b.url
    assert refusal(server, a.token(key=b.key)) is Reason.UNKNOWN_KEY
    assert refusal(server, a.token(key=SigningKey("ES256", b.key.private, kid=a.key.kid))) is Reason.BAD_SIGNATURE


# Verifying signatures.


def test_the_log_tells_what_a_bad_signature_may_come_from() -> None:
    """JWS-01: nobody can say which; both are worth a look."""
    server = organizer(EC.public_jwk())
    stranger = SigningKey.generate("ES256", kid=EC.kid)
    with pytest.raises(InvalidToken) as refused:
        server.validate(token(stranger))
    assert refused.value.reason is Reason.BAD_SIGNATURE
    assert refused.value.detail == (
        "no key of the issuer verifies this ES256 signature: the token was changed or cut off on the way, or signed by"
        " another issuer that uses this key ID"
    )


@pytest.mark.parametrize("algorithm", [name for name in keys.ALGORITHMS if name != "HS256"])
def test_verifies_every_algorithm_and_nothing_near_it(algorithm: str) -> None:
    """JWA-02, ALG-04, ALG-07: the genuine signature and no other: a bit, a byte more or less, none, zeros, ones."""
    key = SigningKey.generate(algorithm)
    server = organizer(key.public_jwk(), algorithms=[algorithm])
    good = token(key)
    assert subject(server, good) == "auth0|alice"

    signature = signature_of(good, key)
    size = len(signature)
    for wrong in (
        bytes([signature[0] ^ 1]) + signature[1:],
        signature[:-1] + bytes([signature[-1] ^ 128]),
        signature[:-1],
        signature[1:],
        b"\0" + signature,
        signature + b"\0",
        signature * 2,
        b"",
        bytes(size),
        b"\xff" * size,
    ):
        assert refusal(server, resigned(good, wrong)) is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("part", [0, 1])
def test_signature_covers_header_and_claims(part: int) -> None:
    """JWS-09: another header or other claims under the same signature are refused."""
    parts, others = token(EC).split("."), token(EC, x=1).split(".")
    parts[part] = (others[0], base64url(json.dumps(CLAIMS | {"sub": "auth0|bob"}).encode()))[part]
    assert refusal(organizer(EC.public_jwk()), ".".join(parts)) is Reason.BAD_SIGNATURE


ORDERS = {
    "ES256": (32, 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551),
    "ES384": (48, 2**384 - 1388124618062372383947042015309946732620727252194336364173),
    "ES512": (66, 2**521 - 657877501894328237357444332315020117536923257219387276263472201219398408051703),
}


@pytest.mark.parametrize("algorithm", ORDERS)
def test_refuses_r_and_s_out_of_range(algorithm: str) -> None:
    """JWA-03: R and S lie in 1...n-1, whatever the other is; adding n to a good one gives no second spelling."""
    key = SigningKey.generate(algorithm)
    server, good = organizer(key.public_jwk()), token(key)
    size, n = ORDERS[algorithm]
    signature = signature_of(good, key)
    r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
    largest = 2 ** (8 * size) - 1
    for pair in ((0, 0), (0, s), (r, 0), (n, s), (r, n), (n, n), (1, 1), (n - 1, 1), (largest, s), (r, largest)):
        wrong = b"".join(number.to_bytes(size, "big") for number in pair)
        assert refusal(server, resigned(good, wrong)) is Reason.BAD_SIGNATURE
    for pair in ((r + n, s), (r, s + n)):
        if max(pair) <= largest:
            wrong = b"".join(number.to_bytes(size, "big") for number in pair)
            assert refusal(server, resigned(good, wrong)) is Reason.BAD_SIGNATURE


@pytest.mark.parametrize(
    ("algorithm", "digest"), [("ES256", hashes.SHA256()), ("ES384", hashes.SHA384()), ("ES512", hashes.SHA512())]
)
def test_refuses_ecdsa_signatures_in_other_forms(algorithm: str, digest: hashes.HashAlgorithm) -> None:
    """JWA-02: DER, padded to the right length or not, and R and S without their leading zeros."""
    key = SigningKey.generate(algorithm)
    server, good, size = organizer(key.public_jwk()), token(key), ORDERS[algorithm][0]

    def der(message: bytes) -> bytes:
        signature: bytes = key.private.sign(message, ec.ECDSA(digest))
        return signature

    def shorter(message: bytes) -> bytes:
        r, s = decode_dss_signature(der(message))
        return b"".join(number.to_bytes(size - 1, "big") for number in (r >> 8, s >> 8))

    for sign in (der, lambda message: der(message)[: 2 * size].ljust(2 * size, b"\0"), shorter):
        assert refusal(server, resigned(good, sign)) is Reason.BAD_SIGNATURE


SHA1, SHA256, SHA512 = hashes.SHA1(), hashes.SHA256(), hashes.SHA512()


@pytest.mark.parametrize(
    ("algorithm", "padding", "digest"),
    [
        pytest.param("PS256", PSS(MGF1(SHA256), 0), SHA256, id="no salt"),
        pytest.param("PS256", PSS(MGF1(SHA256), 20), SHA256, id="short salt"),
        pytest.param("PS256", PSS(MGF1(SHA256), PSS.MAX_LENGTH), SHA256, id="longest salt"),
        pytest.param("PS256", PSS(MGF1(SHA1), 32), SHA256, id="MGF1 with SHA-1"),
        pytest.param("PS256", PSS(MGF1(SHA512), 32), SHA256, id="MGF1 with SHA-512"),
        pytest.param("PS256", PSS(MGF1(SHA256), 32), SHA512, id="another hash"),
        pytest.param("PS256", PKCS1v15(), SHA256, id="RS256 under PS256"),
        pytest.param("RS256", PSS(MGF1(SHA256), 32), SHA256, id="PS256 under RS256"),
        pytest.param("RS256", PKCS1v15(), SHA1, id="SHA-1 DigestInfo"),
        pytest.param("RS256", PKCS1v15(), SHA512, id="SHA-512 DigestInfo"),
        pytest.param("RS512", PKCS1v15(), SHA256, id="SHA-256 DigestInfo under RS512"),
    ],
)
def test_refuses_rsa_signatures_with_other_parameters(
    algorithm: str, padding: Any, digest: hashes.HashAlgorithm
) -> None:
    """JWA-05, JWA-06: padding, hash, mask and salt are those of the algorithm that the header names."""
    key = SigningKey(algorithm, RSA.private, kid="r1")
    server, good = organizer(key.public_jwk()), token(key)
    assert subject(server, good) == "auth0|alice"
    assert (
        refusal(server, resigned(good, lambda message: RSA.private.sign(message, padding, digest)))
        is Reason.BAD_SIGNATURE
    )


@pytest.mark.parametrize("algorithm", ["RS256", "PS256"])
def test_an_rsa_signature_has_one_spelling(algorithm: str) -> None:
    """JWA-06: the number plus the modulus, or minus it, is another text and no signature."""
    key = SigningKey(algorithm, RSA.private, kid="r1")
    server, good = organizer(key.public_jwk()), token(key)
    number = int.from_bytes(signature_of(good, key), "big")
    modulus = RSA.private.public_key().public_numbers().n
    for other in (number + modulus, modulus - number):
        for size in (256, 257):
            if other < 256**size:
                wrong = other.to_bytes(size, "big")
                assert refusal(server, resigned(good, wrong)) is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("algorithm", ["RS256", "PS256"])
def test_an_rsa_signature_is_as_long_as_the_modulus(algorithm: str) -> None:
    """JWA-06: without its leading zeros it is the same number and another text (RFC 8017 8.1.2 and 8.2.2)."""
    key = SigningKey(algorithm, RSA.private, kid="r1")
    server = organizer(key.public_jwk())
    # About one signature in 256 begins with a zero byte.
    good, signature = next(
        (raw, signature)
        for raw in (token(key, n=number) for number in count())
        if not (signature := base64.urlsafe_b64decode(raw.rpartition(".")[2] + "=="))[0]
    )
    assert subject(server, good) == "auth0|alice"
    assert refusal(server, resigned(good, signature[1:])) is Reason.BAD_SIGNATURE


@pytest.mark.parametrize(
    ("algorithm", "order"),
    [
        ("Ed25519", 2**252 + 27742317777372353535851937790883648493),
        ("Ed448", 2**446 - 13818066809895115352007386748515426880336692474882178609894547503885),
    ],
)
def test_an_edwards_signature_has_one_spelling(algorithm: str, order: int) -> None:
    """ALG-04: S plus the group's order is refused (RFC 8032 5.1.7 and 5.2.7)."""
    key = SigningKey.generate(algorithm)
    server, good = organizer(key.public_jwk()), token(key)
    signature = signature_of(good, key)
    half = len(signature) // 2
    s = int.from_bytes(signature[half:], "little") + order
    wrong = signature[:half] + s.to_bytes(half, "little")
    assert refusal(server, resigned(good, wrong)) is Reason.BAD_SIGNATURE


# Whatever the input.

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just(EC.public_jwk()),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.sampled_from(["keys", "kid", "kty"]), children)
    ),
    max_leaves=5,
)


@given(
    JSON_VALUES | st.fixed_dictionaries({"keys": st.lists(JSON_VALUES, max_size=4)}), st.none() | st.text(max_size=3)
)
@settings(max_examples=200, deadline=None)
def test_any_document_is_a_key_set_or_a_value_error(document: object, kid: str | None) -> None:
    """JWK-01, JWK-02: whatever an issuer publishes, odd keys are skipped and only the shape of the whole can raise."""
    try:
        keys, odd = read_key_set(document)
    except ValueError:
        return
    assert keys.is_usable == bool(keys.key_ids)
    assert all(sentence.isascii() for sentence in odd)
    assert chosen(keys, "ES256", kid) in ([], ["e1"])
