"""Issuer: which settings describe an authorization server that can be trusted. RFC 8414 2, RFC 7518 3.2, RFC 8725 3."""

import re
from types import MappingProxyType
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from token_guard import ConfigurationError, Issuer
from token_guard.issuer import accepted_urls, string_set
from token_guard.testing import SigningKey
from token_guard.trust import filled_issuers

URL = "https://issuer.example/"
SECRET = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "url",
    [
        "https://issuer.example",
        "https://issuer.example/",
        "https://issuer.example:8443/tenant/v2.0",
        "https://10.0.0.1/",
        "http://localhost:8080/",
        "http://127.0.0.1/",
        "http://127.8.9.10/",
        "http://[::1]:8080/",
    ],
)
def test_url_is_kept_exactly(url: str) -> None:
    """JWT-04, SEC: https, or http on loopback; nothing is normalised, since `iss` is compared with it."""
    assert Issuer(url).url == url
    assert Issuer(URL, jwks_uri=url).jwks_uri == url
    assert Issuer(URL, metadata_url=url).metadata_url == url


UNSAFE = [
    *("", "issuer.example", "//issuer.example/", "https://", "https:///path", "https:issuer.example", "https://:443/"),
    *("http://issuer.example/", "http://10.0.0.1/", "http://0.0.0.0/", "http://localhost.example/", "http://[::2]/"),
    *("http://127.0.0.1.example/", "ftp://issuer.example/", "file:///etc/passwd", "javascript:alert(1)", "urn:issuer"),
    *("https://user@issuer.example/", "https://user:password@issuer.example/", "https://a@b@issuer.example/"),
    *("https://issuer.example:port/", "https://issuer.example:0/", "https://issuer.example:99999/", "https://[::1/"),
    *(
        " https://issuer.example/",
        "https://issuer.example/ ",
        "https://issuer.example/\n",
        "https://issuer.example/a b",
    ),
    *("https://issuer.example\\@other.example/", "https://issuer.example/\x00", "https://issuer.example/\t"),
    *("http://other.example[::1]/", "http://[::1]other.example/", "http://localhost:80[::1]/", "https://a[::1]/"),
]


@pytest.mark.parametrize("url", [*UNSAFE, 7, b"https://issuer.example/", ["https://issuer.example/"]])
@pytest.mark.parametrize("name", ["issuer", "jwks_uri", "metadata_url"])
def test_refuses_an_address_that_is_not_safe(name: str, url: Any) -> None:
    """JWK-19: told at start-up, with the setting's name."""
    with pytest.raises(ConfigurationError, match=name):
        Issuer(url) if name == "issuer" else Issuer(URL, **{name: url})


@pytest.mark.parametrize(
    "url", ["https://issuer.example/?a=b", "https://issuer.example/#a", "https://issuer.example/?"]
)
def test_an_issuer_has_no_query_and_no_fragment(url: str) -> None:
    """RFC 8414 2: unlike the address of a key set, which may have a query."""
    with pytest.raises(ConfigurationError, match="no query and no fragment"):
        Issuer(url)
    assert Issuer(URL, jwks_uri="https://issuer.example/keys?appid=1").jwks_uri


@pytest.mark.parametrize(
    "sources",
    [
        {"jwks": {"keys": []}, "jwks_uri": "https://issuer.example/keys"},
        {"jwks_uri": "https://issuer.example/keys", "metadata_url": "https://issuer.example/metadata"},
        {"jwks": {"keys": []}, "secret": SECRET},
        {"metadata_url": "https://issuer.example/metadata", "secret": SECRET},
    ],
)
def test_keys_come_from_one_source(sources: dict[str, Any]) -> None:
    """JWA-09: two sources contradict each other, a secret beside published keys above all."""
    with pytest.raises(ConfigurationError, match="contradict"):
        Issuer(URL, **sources)


@pytest.mark.parametrize(
    ("algorithms", "needed"),
    [(None, 32), (["HS256"], 32), (["HS384"], 48), (["HS512"], 64), (["HS256", "HS512"], 64)],
)
def test_secret_is_as_long_as_the_hash(algorithms: list[str] | None, needed: int) -> None:
    """JWA-07: one byte less is told at start-up; text counts in bytes."""
    assert Issuer(URL, secret=b"x" * needed, algorithms=algorithms).secret == b"x" * needed
    assert Issuer(URL, secret="é" * (needed // 2), algorithms=algorithms).secret == ("é" * (needed // 2)).encode()
    for short in (b"x" * (needed - 1), "x" * (needed - 1), b"", ""):
        with pytest.raises(ConfigurationError, match="needs a secret of at least"):
            Issuer(URL, secret=short, algorithms=algorithms)


def test_secret_is_no_public_key_and_no_key_set() -> None:
    """JWA-09: the PEM text of a key, and anything that is neither text nor bytes."""
    public = SigningKey.generate("RS256").private.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for secret in (pem, pem.decode(), {"kty": "oct"}, 7, bytearray(64), ["x" * 64]):
        with pytest.raises(ConfigurationError, match="not a key file"):
            Issuer(URL, secret=secret)  # type: ignore[arg-type]


def test_secret_brings_its_own_algorithm() -> None:
    """JWA-09: HS256 where nothing is listed, never a signature beside it; without a secret never HS256."""
    assert Issuer(URL, secret=SECRET).algorithms == {"HS256"}
    with pytest.raises(ConfigurationError, match="RS256 is not for an issuer that has a secret"):
        Issuer(URL, secret=SECRET, algorithms=["RS256"])
    with pytest.raises(ConfigurationError, match="HS256 needs"):
        Issuer(URL, algorithms=["RS256", "HS256"])
    with pytest.raises(ConfigurationError, match="'none'"):
        Issuer(URL, algorithms=["none"])


def test_secret_and_keys_stay_out_of_the_repr() -> None:
    """BEARER-15: printing the configuration shows no secret."""
    assert SECRET not in repr(Issuer(URL, secret=SECRET))
    assert "private" not in repr(Issuer(URL, jwks={"keys": [{"private": 1}]}))


@pytest.mark.parametrize("profile", ["RFC9068", "", "strict", 7, ["generic"]])
def test_refuses_an_unknown_profile(profile: Any) -> None:
    """A misspelled profile must not fall back to the tolerant one."""
    with pytest.raises(ConfigurationError, match="profile must be one of generic, rfc9068"):
        Issuer(URL, profile=profile)


@pytest.mark.parametrize(
    "values", ["", [], (), set(), {}, {"a": 1}, b"a", [""], ["a", ""], [None], [b"a"], [["a"]], 7, True]
)
@pytest.mark.parametrize("name", ["audience", "organizations", "scope_claims", "tenants", "client_ids"])
def test_refuses_a_collection_that_is_empty_or_not_of_texts(name: str, values: Any) -> None:
    """An empty list means a mistake, not that everything is accepted."""
    with pytest.raises(ConfigurationError, match=name):
        Issuer(URL, **{name: values})


@pytest.mark.parametrize("values", ["a", ["a"], ("a", "a"), {"a"}, frozenset(["a"])])
def test_accepts_one_text_or_a_collection(values: Any) -> None:
    """One string is one member, never its letters."""
    issuer = Issuer(URL, audience=values, organizations=values, scope_claims=values, tenants=values, client_ids=values)
    assert (issuer.audience, issuer.organizations, issuer.client_ids) == ({"a"}, {"a"}, {"a"})
    assert (issuer.scope_claims, issuer.tenants) == (("a",), ("a",))


@pytest.mark.parametrize(
    ("claims", "paths"),
    [
        ("roles", (("roles",),)),
        (["roles", "https://x.y/roles"], (("roles",), ("https://x.y/roles",))),
        ([("realm_access", "roles"), "groups"], (("realm_access", "roles"), ("groups",))),
        (("realm_access", "roles"), (("realm_access",), ("roles",))),
    ],
)
def test_role_claims_are_names_and_paths(claims: Any, paths: tuple[tuple[str, ...], ...]) -> None:
    """AUTH0-09, KC-03: a name is literal, and only a tuple inside the collection is a path."""
    assert Issuer(URL, role_claims=claims).role_claims == paths


@pytest.mark.parametrize("claims", ["", [], (), {}, b"a", 7, [""], [()], [("a", "")], [("a", 7)], [["a"]], [None]])
def test_refuses_role_claims_of_another_form(claims: Any) -> None:
    """A list inside the collection is a mistake, not a path."""
    with pytest.raises(ConfigurationError, match="role_claims"):
        Issuer(URL, role_claims=claims)


# Tenants.

TEMPLATE = "https://login.example/{tenantid}/v2.0"


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        (TEMPLATE, {}, "needs tenants"),
        (TEMPLATE, {"tenants": "any"}, "needs {tenantid} in the URL, and jwks_uri or metadata_url"),
        (URL, {"tenants": "any", "jwks_uri": URL}, "needs {tenantid} in the URL"),
        ("https://login.example/{tenant}/", {"tenants": ["a"]}, "the one placeholder that it may hold is {tenantid}"),
        ("https://login.example/{tenantid}/{policy}", {"tenants": ["a"]}, "the one placeholder"),
        *(
            (TEMPLATE, {"tenants": [name]}, "tenants must be a name")
            for name in ("a/b", "..", "a?b", "ü", "{tenantid}")
        ),
    ],
)
def test_refuses_tenants_that_make_no_issuer(url: str, options: dict[str, Any], message: str) -> None:
    """ENTRA-02: a template needs an allow-list or an explicit "any", and a tenant cannot change what its URL means."""
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        Issuer(url, **options)


def test_a_template_stands_for_one_issuer_a_tenant() -> None:
    """ENTRA-02: the listed ones are exact; with a key set for all of them there is one issuer to ask."""
    a, b = "https://login.example/a/v2.0", "https://login.example/b/v2.0"
    each = Issuer(TEMPLATE, tenants=["a", "b"])
    assert accepted_urls(each) == (a, b)
    assert [(one.url, one.tenants) for one in filled_issuers(each)] == [(a, ("a",)), (b, ("b",))]
    shared = Issuer(TEMPLATE, tenants=["a", "b"], jwks_uri="https://login.example/keys")
    assert (accepted_urls(shared), filled_issuers(shared)) == ((a, b), [shared])
    of_any = Issuer(TEMPLATE, tenants="any", jwks_uri="https://login.example/keys")
    assert (accepted_urls(of_any), filled_issuers(of_any)) == ((TEMPLATE,), [of_any])


def test_a_tenant_named_any_is_no_other() -> None:
    """ENTRA-02: only the word itself, not a list that holds it, opens an issuer to everybody."""
    listed = Issuer(TEMPLATE, tenants=["any"])
    assert accepted_urls(listed) == ("https://login.example/any/v2.0",)
    assert [one.tenants for one in filled_issuers(listed)] == [("any",)]


def test_refuses_a_tenant_that_is_configured_twice() -> None:
    """Two policies for one issuer are a contradiction, however they are written."""
    with pytest.raises(ConfigurationError, match="'https://login.example/a/v2.0' is configured twice"):
        filled_issuers([Issuer(TEMPLATE, tenants=["a", "b"]), "https://login.example/a/v2.0"])


def test_clients_instead_of_an_audience_contradict_the_strict_profile() -> None:
    """COG-01: RFC 9068 demands an audience, wherever the profile is set."""
    with pytest.raises(ConfigurationError, match="client_ids"):
        filled_issuers(Issuer(URL, client_ids="a"), profile="rfc9068")


def test_configuration_is_frozen() -> None:
    """What was checked cannot be changed afterwards."""
    with pytest.raises(AttributeError):
        Issuer(URL).url = "https://other.example/"  # type: ignore[misc]


def test_given_keys_are_those_of_the_moment() -> None:
    """What is done to a key set afterwards, at any depth, changes nothing; in it, any mapping and sequence will do."""
    key = {"kty": "RSA", "key_ops": ["verify"], "n": 1}
    jwks: dict[str, Any] = {"keys": [key, MappingProxyType({"kty": "EC"}), None], "more": ({"a": 1},)}
    issuer = Issuer(URL, jwks=jwks)
    key["key_ops"].append("encrypt")  # type: ignore[attr-defined]
    key["kty"] = "EC"
    jwks["more"][0]["a"] = 2
    jwks["keys"].append(key)
    assert issuer.jwks == {
        "keys": [{"kty": "RSA", "key_ops": ["verify"], "n": 1}, {"kty": "EC"}, None],
        "more": [{"a": 1}],
    }


@given(st.none() | st.text() | st.lists(st.text() | st.none()) | st.dictionaries(st.text(), st.text()) | st.binary())
@settings(max_examples=100, deadline=None)
def test_any_value_is_a_set_of_texts_or_a_configuration_error(values: Any) -> None:
    """No member is dropped, and none is empty."""
    try:
        accepted = string_set("audience", values)
    except ConfigurationError:
        return
    assert list(accepted) == list(dict.fromkeys([values] if isinstance(values, str) else values))
    assert all(accepted)


def test_a_password_in_an_address_is_not_shown() -> None:
    """SEC-03: user information in a setting is refused, and not printed."""
    with pytest.raises(ConfigurationError) as refused:
        Issuer("https://user:hunter2@issuer.example/")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "settings", "message"),
    [
        (
            f"{URL}#a",
            {},
            "issuer 'https://issuer.example/#a' must have no query and no fragment (RFC 8414 2)",
        ),
        (
            f"{URL}.well-known/jwks.json",
            {},
            f"issuer '{URL}.well-known/jwks.json' is the address of a document: give the part before /.well-known/",
        ),
        (
            URL,
            {"secret": SECRET, "jwks": {"keys": []}},
            "issuer 'https://issuer.example/': jwks and secret contradict each other; keep one",
        ),
        (
            URL,
            {"client_ids": "a", "profile": "rfc9068"},
            f"issuer '{URL}': client_ids is for tokens without aud, which profile='rfc9068' demands; keep one",
        ),
        (
            "https://issuer.example/{tenantid}/{policy}",
            {},
            "issuer 'https://issuer.example/{tenantid}/{policy}': the one placeholder that it may hold is {tenantid}",
        ),
        (
            "https://issuer.example/{tenantid}",
            {},
            "issuer 'https://issuer.example/{tenantid}' needs tenants: the ids of those that are accepted, or 'any'",
        ),
        (
            "https://issuer.example/{tenantid}",
            {"tenants": "any"},
            (
                "issuer 'https://issuer.example/{tenantid}': tenants='any' needs {tenantid} in the URL, and jwks_uri or"
                " metadata_url: where the keys are that serve all tenants"
            ),
        ),
        (
            "https://issuer.example/{tenantid}",
            {"tenants": ["a/b"]},
            "tenants must be a name of letters, digits and ._~- that stands in the issuer's URL, not 'a/b'",
        ),
        (
            URL,
            {"secret": b'{"kty": "oct"}'},
            (
                f"issuer '{URL}': secret must be random text or bytes, not a key file; public keys are given as jwks=,"
                " or fetched"
            ),
        ),
        (
            URL,
            {"secret": "short"},
            "issuer 'https://issuer.example/': HS256 needs a secret of at least 32 bytes",
        ),
        (URL, {"profile": "at+jwt"}, "profile must be one of generic, rfc9068, not 'at+jwt'"),
        *(
            (URL, {name: {"a": 1}}, f"{name} must be a string or a non-empty collection of strings, not {{'a': 1}}")
            for name in ("audience", "organizations", "client_ids", "scope_claims", "tenants")
        ),
        (URL, {"audience": ["a", ""]}, "audience must hold non-empty strings alone, not ['a', '']"),
        (
            URL,
            {"scope_claims": "scope,scp"},
            "scope_claims: 'scope,scp' is not one claim; separate them by spaces, or give a list",
        ),
        (
            URL,
            {"scope_claims": ["scope", "scp,"]},
            "scope_claims: 'scp,' is not one claim; separate them by spaces, or give a list",
        ),
        (URL, {"role_claims": {}}, "role_claims must be a claim or a non-empty collection of claims, not {}"),
        (URL, {"role_claims": [("a", 7)]}, "role_claims must hold names, and tuples of names for paths, not ('a', 7)"),
    ],
    ids=str,
)
def test_an_error_names_the_setting_and_the_fix(url: str, settings: dict[str, Any], message: str) -> None:
    """What is told at start-up is all that an operator has: the setting, what was given, and what is wanted."""
    with pytest.raises(ConfigurationError) as refused:
        Issuer(url, **settings)
    assert str(refused.value) == message
