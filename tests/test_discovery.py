"""Where an issuer's metadata may be, and what a metadata document says."""

from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import JSON_VALUES
from token_guard import ConfigurationError, Issuer
from token_guard.addresses import is_safe_address
from token_guard.discovery import MisconfiguredError, metadata_urls, read_metadata

ISSUER = "https://as.example/t1"
URL = f"{ISSUER}/.well-known/openid-configuration"
GOOD: dict[str, Any] = {"issuer": ISSUER, "jwks_uri": "https://keys.example/jwks"}

OAUTH, OPENID = "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"


@pytest.mark.parametrize(
    ("issuer", "paths"),
    [
        ("https://as.example", [OPENID, OAUTH]),
        ("https://as.example/", [OPENID, OAUTH]),
        ("https://as.example/t1", [f"/t1{OPENID}", f"{OAUTH}/t1", f"{OPENID}/t1"]),
        ("https://as.example/t1/", [f"/t1{OPENID}", f"{OAUTH}/t1", f"{OPENID}/t1"]),
        ("https://as.example/a/b", [f"/a/b{OPENID}", f"{OAUTH}/a/b", f"{OPENID}/a/b"]),
    ],
)
def test_lists_every_form_of_the_address(issuer: str, paths: list[str]) -> None:
    """DISC-01, DISC-02, DISC-03 (V7): the OpenID form appended first, then those inserted before the path."""
    assert metadata_urls(issuer) == tuple(f"https://as.example{path}" for path in paths)


def test_keeps_the_port_and_the_spelling_of_the_host() -> None:
    """DISC-05: only the final slash is dropped, and only from the address."""
    assert metadata_urls("https://AS.example:8443/")[0] == f"https://AS.example:8443{OPENID}"


def test_reads_the_address_of_the_keys() -> None:
    """DISC-04, DISC-07, DISC-08, DISC-09: a document of this issuer names its keys; the rest of it says nothing."""
    document = {**GOOD, "extra": {"a": [1]}, "id_token_signing_alg_values_supported": ["HS256", "none"]}
    assert read_metadata(document, issuer=ISSUER, url=URL) == "https://keys.example/jwks"


@pytest.mark.parametrize(
    "named",
    [f"{ISSUER}/", "https://AS.example/t1", "https://evil.example/t1", "https://as.example:443/t1", None, [ISSUER]],
)
def test_refuses_metadata_that_names_another_issuer(named: object) -> None:
    """DISC-04, DISC-05: the issuer is equal to the letter; the error names both spellings and the fix."""
    with pytest.raises(MisconfiguredError) as refused:
        read_metadata({**GOOD, "issuer": named}, issuer=ISSUER, url=URL)
    assert str(refused.value) == (
        f"{URL} names the issuer {named!r}, but the setting issuer is {ISSUER!r}; they must be equal to the letter,"
        " trailing slash included: set issuer to what the document says, if that is whom you trust"
    )


@pytest.mark.parametrize(
    "jwks_uri",
    [None, "", 7, "http://keys.example/jwks", "/jwks", "ftp://keys.example", "https://user@keys.example/", "https://"],
)
def test_refuses_metadata_without_a_safe_address_of_keys(jwks_uri: object) -> None:
    """DISC-08, JWK-19: `jwks_uri` is present and https; otherwise nothing is fetched and the error names the fix."""
    with pytest.raises(MisconfiguredError, match="jwks_uri="):
        read_metadata({**GOOD, "jwks_uri": jwks_uri}, issuer=ISSUER, url=URL)


@pytest.mark.parametrize("document", [None, [], "text", 7, True, [GOOD]])
def test_refuses_metadata_that_is_no_object(document: object) -> None:
    """DISC-07: metadata is a JSON object."""
    with pytest.raises(MisconfiguredError, match="not a JSON object"):
        read_metadata(document, issuer=ISSUER, url=URL)


def test_accepts_keys_on_loopback() -> None:
    """DISC-06: http is for loopback alone, in metadata too."""
    document = {"issuer": "http://127.0.0.1:8080/", "jwks_uri": "http://127.0.0.1:8080/jwks"}
    assert read_metadata(document, issuer="http://127.0.0.1:8080/", url=URL) == document["jwks_uri"]


def test_shows_a_stranger_s_text_escaped_and_short() -> None:
    """What a document says reaches the log as one short line."""
    with pytest.raises(MisconfiguredError) as refused:
        read_metadata({**GOOD, "issuer": "x\r\ny" + "z" * 5000}, issuer=ISSUER, url=URL)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500


# Whatever the input.

ADDRESSES = st.text("htps:/[]@.:1#?\\ \né", max_size=20).map("https://".__add__)
MEMBERS = {"issuer": st.just(ISSUER) | JSON_VALUES, "jwks_uri": ADDRESSES | JSON_VALUES}


@given(JSON_VALUES | st.fixed_dictionaries({}, optional=MEMBERS))
@settings(max_examples=200, deadline=None)
def test_any_document_names_a_safe_address_or_contradicts(document: Any) -> None:
    """DISC-04, JWK-19: accepted exactly where the issuer is ours and the address safe, and then as it is written."""
    try:
        address = read_metadata(document, issuer=ISSUER, url=URL)
    except MisconfiguredError as error:
        assert str(error).isprintable()  # noqa: PT017
        assert (
            not isinstance(document, dict)
            or document.get("issuer") != ISSUER
            or not isinstance(document.get("jwks_uri"), str)
            or not is_safe_address(document["jwks_uri"])
        )
    else:
        assert document == {"issuer": ISSUER, "jwks_uri": address}
        assert is_safe_address(address)


@given(ADDRESSES)
@settings(max_examples=200, deadline=None)
def test_any_issuer_is_looked_for_at_its_own_host(url: str) -> None:
    """DISC-01: an issuer that may be configured has metadata at safe addresses of the same host."""
    try:
        Issuer(url)
    except ConfigurationError:
        return
    addresses = metadata_urls(url)
    assert len(addresses) in (2, 3)
    assert all(is_safe_address(address) for address in addresses)
    assert {urlsplit(address)[:2] for address in addresses} == {urlsplit(url)[:2]}
