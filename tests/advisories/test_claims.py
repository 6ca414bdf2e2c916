"""Advisories about claims: issuer, audience, times, and the kind of token."""

import unicodedata
from collections.abc import Mapping
from typing import Any

import pytest

from tests.advisories.conftest import NOW, api, claims, encoded, refused, signed, with_signature
from token_guard import AccessToken, Issuer, Reason, ResourceServer
from token_guard.testing import LocalIssuer


@pytest.mark.parametrize(
    "name",
    ["http", "https://issuer.example", "issuer.example", "/", "", "ttps://issuer.example/", "https://issuer.example//"],
)
def test_an_issuer_is_compared_whole(organizer: ResourceServer, issuer: LocalIssuer, name: str) -> None:
    """CVE-2024-53861 (PyJWT): any part of the issuer's name was as good as the whole."""
    assert refused(organizer, issuer.token(issuer=name, claims={"iss": name})).reason is Reason.WRONG_ISSUER


@pytest.mark.parametrize("extra", [[], ["https://evil.example/"], [{}]])
def test_an_issuer_is_one_name(organizer: ResourceServer, issuer: LocalIssuer, extra: list[object]) -> None:
    """CVE-2025-30144 (fast-jwt): an array with the issuer among others passed, and each reader took another of them."""
    token = issuer.token(claims={"iss": [*extra, issuer.url]})
    assert refused(organizer, token).reason is Reason.CLAIM_MALFORMED


def test_an_unknown_issuer_is_refused(issuer: LocalIssuer) -> None:
    """CVE-2021-21378 (Envoy): a token of an issuer that no provider knew counted as no token at all."""
    server = api(issuer, issuer=[Issuer(issuer.url, jwks=issuer.jwks()), Issuer("https://b.example/")], jwks=None)
    stranger = LocalIssuer("https://evil.example/")
    assert refused(server, stranger.token()).reason is Reason.WRONG_ISSUER


@pytest.mark.parametrize(
    "name",
    [
        "https://i\u017f\u017fuer.example/",  # the long s, which upper() and NFKC make an s
        "https://ISSUER.example/",
        "HTTPS://issuer.example/",
        "https://issuer.example\uff0f",
        "https://issuer.ex\u00adample/",
        "https://issuer.example/\u200b",
        "https://\u0456ssuer.example/",  # a Cyrillic i
        "https://issuer.example/%",
        "https://issuer.example./",
        "https://issuer.example:443/",
        " https://issuer.example/",
        "https://issuer.example/\0",
    ],
    ids=ascii,
)
def test_an_issuer_is_not_normalised(organizer: ResourceServer, issuer: LocalIssuer, name: str) -> None:
    """CVE-2019-19844 (Django): names that are equal only after a Unicode transformation were taken for equal."""
    assert refused(organizer, issuer.token(issuer=name)).reason is Reason.WRONG_ISSUER


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_an_audience_is_not_normalised(issuer: LocalIssuer, form: str) -> None:
    """CVE-2019-19844 (Django), for an audience: two spellings of one word are two audiences."""
    ours = "caf\u00e9\ufb01"
    theirs = unicodedata.normalize(form, ours)  # type: ignore[arg-type]
    server = api(issuer, audience=ours)
    if theirs == ours:
        server.validate(issuer.token(audience=theirs))
    else:
        assert refused(server, issuer.token(audience=theirs)).reason is Reason.WRONG_AUDIENCE


@pytest.mark.parametrize("audience", ["https://reports.example/", ["calendar", "organizer-spa"]])
def test_a_token_for_another_api_is_refused(organizer: ResourceServer, issuer: LocalIssuer, audience: Any) -> None:
    """CVE-2023-22482 (Argo CD), CVE-2025-62610 (Hono), CVE-2018-6873 (Auth0): nobody asked whom the token was for."""
    assert refused(organizer, issuer.token(audience=audience)).reason is Reason.WRONG_AUDIENCE
    assert refused(organizer, issuer.token(claims={"aud": None})).reason is Reason.CLAIM_MISSING


@pytest.mark.parametrize(
    ("audience", "reason"),
    [
        ([""], Reason.WRONG_AUDIENCE),
        ("", Reason.CLAIM_MALFORMED),
        ([], Reason.CLAIM_MALFORMED),
        (None, Reason.CLAIM_MALFORMED),
        ({}, Reason.CLAIM_MALFORMED),
        ({"organize": True}, Reason.CLAIM_MALFORMED),
        ([["organize"]], Reason.CLAIM_MALFORMED),
        (["organize", None], Reason.CLAIM_MALFORMED),
        (["organize", 7], Reason.CLAIM_MALFORMED),
        (list("organize"), Reason.WRONG_AUDIENCE),
        (True, Reason.CLAIM_MALFORMED),
        (0, Reason.CLAIM_MALFORMED),
    ],
    ids=repr,
)
def test_an_odd_audience_is_no_audience(
    organizer: ResourceServer, issuer: LocalIssuer, audience: object, reason: Reason
) -> None:
    """CVE-2020-26160 (jwt-go): an array became an empty text, and an empty audience was nobody's business."""
    assert refused(organizer, signed(issuer, claims(issuer, aud=audience))).reason is reason


@pytest.mark.parametrize("audience", ["organize-admin", "organ", "ORGANIZE", "organize ", "xorganize", "organize\n"])
def test_an_audience_is_compared_whole(organizer: ResourceServer, issuer: LocalIssuer, audience: str) -> None:
    """CVE-2024-53861 (PyJWT), for an audience: a part, a case or a space more is another API."""
    assert refused(organizer, issuer.token(audience=audience)).reason is Reason.WRONG_AUDIENCE


def test_an_audience_is_no_pattern(issuer: LocalIssuer) -> None:
    """CVE-2026-35041 (fast-jwt): the audience was matched by a regular expression that a claim could make run on.

    GHSA-3j8v-cgw4-2g6q (fast-jwt): the expression remembered where it was, and refused every second good token.
    """
    server = api(issuer, audience="(a+)+$", token_cache_size=0)
    assert refused(server, issuer.token(audience="a" * 5000 + "!")).reason is Reason.WRONG_AUDIENCE
    assert refused(server, issuer.token(audience="aaa")).reason is Reason.WRONG_AUDIENCE
    assert [server.validate(issuer.token(audience="(a+)+$")).audience for _ in range(4)] == [("(a+)+$",)] * 4


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    "value", ["99999999999", "", None, True, False, [NOW], {"$date": NOW}, "2033-05-18T03:33:20Z"], ids=repr
)
def test_a_time_of_another_type_is_no_time(
    organizer: ResourceServer, issuer: LocalIssuer, name: str, value: object
) -> None:
    """CVE-2026-25537 (jsonwebtoken for Rust): a time that could not be read was treated as one that was not there."""
    assert refused(organizer, signed(issuer, claims(issuer, **{name: value}))).reason is Reason.CLAIM_MALFORMED


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "0x7fffffff", "+1", "1_0"])
def test_a_time_is_a_finite_number(organizer: ResourceServer, issuer: LocalIssuer, number: str) -> None:
    """CVE-2026-25537 (jsonwebtoken for Rust), in Python's words: no time is ever after NaN, and infinity never comes.

    CVE-2020-10735 (CPython): to read a number of many digits takes time that grows with their square.
    """
    payload = '{"iss": "%s", "aud": "organize", "exp": %s}' % (issuer.url, number)  # noqa: UP031
    assert refused(organizer, signed(issuer, payload.encode())).reason is Reason.MALFORMED


def test_a_token_from_the_future_is_refused(organizer: ResourceServer, issuer: LocalIssuer) -> None:
    """CVE-2020-26244 (pyoidc): `iat` was not asked whether it can be true."""
    future = {"iat": NOW + 3600, "exp": NOW + 7200}
    assert refused(organizer, issuer.token(claims=future)).reason is Reason.ISSUED_IN_FUTURE


def test_the_first_of_several_faults_refuses(organizer: ResourceServer, issuer: LocalIssuer) -> None:
    """CVE-2024-51744 (golang-jwt): expired and forged at once, a caller that forgave the one forgot the other."""
    expired = issuer.expired()
    assert refused(organizer, expired).reason is Reason.EXPIRED
    assert refused(organizer, with_signature(expired, bytes(256))).reason is Reason.EXPIRED
    lately = issuer.token(claims={"exp": NOW - 10})
    organizer.validate(lately)  # within the leeway
    assert refused(organizer, with_signature(lately, bytes(256))).reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"nonce": "n-0S6_WzA2Mj", "scope": None}, id="GHSA-m732-5p4w-x69g (Hono): nonce"),
        pytest.param({"at_hash": "MTIzNDU2Nzg5MDEyMzQ1Ng"}, id="CVE-2026-28498 (Authlib): at_hash"),
        pytest.param({"c_hash": "LDktKdoQak3Pk0cnXxCltA"}, id="CVE-2026-28498 (Authlib): c_hash"),
        pytest.param({"at_hash": ""}, id="CVE-2026-28498 (Authlib): one that cannot be right"),
        pytest.param({"typ": "ID"}, id="Keycloak's ID token"),
        pytest.param({"typ": "Refresh"}, id="Keycloak's refresh token"),
        pytest.param({"token_use": "id"}, id="Cognito's ID token"),
        pytest.param({"events": {"http://schemas.openid.net/event/backchannel-logout": {}}}, id="a logout token"),
    ],
)
def test_another_kind_of_token_is_no_access_token(
    organizer: ResourceServer, issuer: LocalIssuer, changes: Mapping[str, Any]
) -> None:
    """GHSA-m732-5p4w-x69g (Hono): an ID token of the same issuer and keys opened the API."""
    assert refused(organizer, issuer.token(claims=changes)).reason is Reason.WRONG_TYPE


@pytest.mark.parametrize("typ", ["logout+jwt", "dpop+jwt", "secevent+jwt", "JOSE", "id+jwt", "", 7], ids=repr)
def test_another_type_is_no_access_token(organizer: ResourceServer, issuer: LocalIssuer, typ: object) -> None:
    """GHSA-m732-5p4w-x69g (Hono): what the header says that the token is, somebody has to read."""
    assert refused(organizer, issuer.token(headers={"typ": typ})).reason is Reason.WRONG_TYPE


@pytest.mark.parametrize("confirmation", [{"jkt": "0ZcOCORZNYy"}, {"x5t#S256": "bwcK0esc3AC"}, {}, None, "x"], ids=repr)
def test_a_bound_token_is_no_bearer_token(organizer: ResourceServer, issuer: LocalIssuer, confirmation: object) -> None:
    """CVE-2026-35042 (fast-jwt): a binding that was not understood was ignored, so whoever stole the token used it."""
    assert refused(organizer, signed(issuer, claims(issuer, cnf=confirmation))).reason is Reason.SENDER_CONSTRAINED


def test_claims_without_a_signature_tell_nothing(issuer: LocalIssuer) -> None:
    """CVE-2022-29165 (Argo CD): with anonymous access on, claims that nobody had verified were believed.

    `is_revoked` is the first that sees claims here, and sees none before the signature is checked.
    """
    seen: list[str | None] = []

    def is_revoked(token: AccessToken) -> bool:
        seen.append(token.subject)
        return False

    server = api(issuer, is_revoked=is_revoked)
    header = {"alg": "RS256", "typ": "JWT", "kid": issuer.key.kid}
    forged = encoded(header, claims(issuer, sub="admin"), bytes(256))
    assert refused(server, forged).reason is Reason.BAD_SIGNATURE
    server.validate(issuer.token())
    assert seen == ["auth0|alice"]
