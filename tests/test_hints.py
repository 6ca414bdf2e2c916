"""What the log says that an operator may have meant, word for word. That it helps: tests/test_misconfigurations.py."""

from typing import Any

import pytest

from token_guard.hints import algorithm_hint, audience_hint, issuer_hint, scope_hint

SLASH = "only the slash at the end differs: spell the setting issuer as the token does"
SCHEME = "only http and https differ: tell the issuer the public address that it is behind"
COMMAS = "the setting issuer is one text with commas: give a list, or separate by spaces"
VERSION_1 = "it is a version 1.0 token of Entra ID: say Issuer.entra(version=1), if that differs"
VERSION_2 = "it is a version 2.0 token of Entra ID: say Issuer.entra(version=2), if that differs"
NO_TENANT = "the token names no tenant (claim tid), which tokens of this issuer must"
ANOTHER = "where it is another domain or realm of yours, list it in the setting issuer"


@pytest.mark.parametrize(
    ("claims", "trusted", "hint"),
    [
        ({"iss": "https://a.example"}, ["https://b.example/", "https://a.example/"], SLASH),
        ({"iss": "https://a.example/"}, ["https://a.example"], SLASH),
        ({"iss": "https://a.example/X"}, ["https://a.example/"], ANOTHER),
        ({"iss": "https://a.example/"}, ["https://a.example/X"], ANOTHER),
        ({"iss": "http://a.example/"}, ["https://a.example/"], SCHEME),
        ({"iss": "https://a.example/"}, ["http://a.example/"], SCHEME),
        ({"iss": "http://a.example/of/https://b.example/"}, ["https://a.example/of/https://b.example/"], SCHEME),
        ({"iss": "https://b.example/of/https://a.example/"}, ["https://a.example/"], ANOTHER),
        ({"iss": "https://a.example/"}, ["https://a.example/of/https://a.example/"], ANOTHER),
        ({"iss": "https://a.example/"}, ["https://a.example/,https://b.example/"], COMMAS),
        ({"iss": "https://b.example/"}, ["https://a.example/ , https://b.example/"], COMMAS),
        ({"iss": "https://b.example/"}, ["https://a.example/ https://b.example/"], ANOTHER),
        (
            {"iss": "https://a.example/b/", "tid": "b"},
            ["https://a.example/{tenantid}/"],
            "the tenant 'b' is not among the issuer's tenants: add it there, if it is yours",
        ),
        ({"iss": "https://a.example/b/", "tid": "c"}, ["https://a.example/{tenantid}/"], ANOTHER),
        ({"iss": "https://a.example/b/", "tid": ["b"]}, ["https://a.example/{tenantid}/"], ANOTHER),
        ({"iss": "https://a.example/b/"}, ["https://b.example/", "https://a.example/{tenantid}/"], NO_TENANT),
        ({"iss": "https://a.example/b/", "ver": "2.0"}, ["https://a.example/{tenantid}/"], NO_TENANT),
        ({"iss": "https://a.example/b/"}, ["https://a.example/"], ANOTHER),
        ({"iss": "https://a.example/b/v2.0"}, ["https://a.example/{tenantid}/"], ANOTHER),
        ({"iss": "https://b.example/b/"}, ["https://a.example/{tenantid}/"], ANOTHER),
        ({"iss": "https://a.example/", "ver": "1.0"}, ["https://b.example/"], VERSION_1),
        ({"iss": "https://a.example/", "ver": "2.0"}, ["https://b.example/"], VERSION_2),
        ({"iss": "https://a.example/", "ver": "3.0"}, ["https://b.example/"], ANOTHER),
        ({"iss": "https://a.example/", "ver": ["1.0"]}, ["https://b.example/"], ANOTHER),
        ({"iss": "https://sts.windows.net/b/"}, ["https://b.example/"], VERSION_1),
        ({"iss": "https://sts.windows.net/b/", "ver": "2.0"}, ["https://b.example/"], VERSION_2),
    ],
    ids=str,
)
def test_tells_how_the_issuer_may_be_spelled(claims: dict[str, Any], trusted: list[str], hint: str) -> None:
    """DISC-05, ENTRA-01, ENTRA-02: the nearest of the issuers that are configured decides."""
    assert issuer_hint(claims, trusted) == hint


OF_KEYCLOAK = "Keycloak writes account where it knows no API: add an audience mapper to the client or its scope there"
OF_US = "the setting audience names the client, not the API: set it to what the token is for, if that is you"
ID_TOKEN = "it is for the client itself, as ID tokens are: the client must ask for, and send, an access token"
TEXT = "the setting audience is one text with commas: give a list, or separate by spaces"
SPELLING = "only a slash at the end or api:// differs: spell the setting audience as the token does"
UNKNOWN = "set audience to the name under which the issuer knows this API, or let the client ask for a token for it"


@pytest.mark.parametrize(
    ("claims", "audience", "accepted", "hint"),
    [
        ({"azp": "spa"}, ["account", "spa"], ["organize"], OF_KEYCLOAK),
        *(({name: "spa"}, ["organize"], ["spa"], OF_US) for name in ("client_id", "azp", "cid", "appid")),
        *(({name: "spa"}, ["spa"], ["organize"], ID_TOKEN) for name in ("client_id", "azp", "cid", "appid")),
        ({"sub": "spa"}, ["spa"], ["organize"], UNKNOWN),
        ({}, ["b"], ["other", "a, b"], TEXT),
        ({}, ["b"], [" b"], UNKNOWN),
        ({}, ["a/"], ["other", "a"], SPELLING),
        ({}, ["a"], ["other", "a/"], SPELLING),
        ({}, ["api://a"], ["other", "a"], SPELLING),
        ({}, ["a"], ["other", "api://a"], SPELLING),
        ({}, ["A"], ["a"], UNKNOWN),
        ({}, [], ["a"], UNKNOWN),
        ({"azp": "spa"}, ["a"], [], UNKNOWN),
    ],
    ids=str,
)
def test_tells_how_the_audience_may_be_meant(
    claims: dict[str, Any], audience: list[str], accepted: list[str], hint: str
) -> None:
    """AUTH0-03, KC-02: the token's audience and client, and ours, tell which of them was set wrongly."""
    assert audience_hint(claims, audience, accepted) == hint


NO_SECRET = "it needs a shared secret: let the issuer sign with RS256 instead, or give Issuer(secret=...)"
NO_KEYS = "the setting secret accepts HMAC alone: leave it out, to use the keys that the issuer publishes"


@pytest.mark.parametrize(
    ("name", "accepted", "hint"),
    [
        ("HS256", ["RS256", "ES256"], NO_SECRET),
        ("RS256", ["HS256", "HS512"], NO_KEYS),
        ("HS384", ["HS256"], "add HS384 to the setting algorithms, if that is how the issuer signs"),
        ("ES256", ["RS256"], "add ES256 to the setting algorithms, if that is how the issuer signs"),
    ],
)
def test_tells_how_the_algorithm_may_be_allowed(name: str, accepted: list[str], hint: str) -> None:
    """JWA-09: secrets and published keys go with algorithms of their own, and never together."""
    assert algorithm_hint(name, accepted) == hint


IN_PERMISSIONS = "; its claim 'permissions' holds such: name it in the setting scope_claims, if they are to count"


@pytest.mark.parametrize(
    ("claims", "granted", "hint"),
    [
        ({"sub": "a", "permissions": ["x", "b"]}, [], IN_PERMISSIONS),
        ({"sub": "a", "permissions": "x b"}, ["c"], IN_PERMISSIONS),
        ({"sub": "a", "permissions": "x,b"}, ["c"], ""),
        ({"sub": "a", "permissions": "x\tb"}, ["c"], ""),
        ({"sub": "a", "permissions": {"b": 1}}, ["c"], ""),
        (
            {"sub": "a", "permissions": 7},
            [],
            "; the token has no scopes at all, and the setting scope_claims names none of ['sub', 'permissions']",
        ),
    ],
    ids=str,
)
def test_tells_where_scopes_may_be(claims: dict[str, Any], granted: list[str], hint: str) -> None:
    """AUTH0-06: another claim that holds one of those that the token lacks, or that there is none at all."""
    assert scope_hint(claims, granted, ["b", "d"]) == hint
