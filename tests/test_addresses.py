"""Addresses: which URLs may be asked at all. What `check_https` refuses is in tests/test_issuer.py, by setting."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from token_guard import ConfigurationError
from token_guard.addresses import MAX_URL_CHARACTERS, check_https, is_public_address, is_safe_address


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://alice:secret@a.example/", "one with user information"),
        ("http://a.example/", "'http://a.example/'"),
        (7, "7"),
        (["@"], "['@']"),
    ],
)
def test_says_which_addresses_are_accepted(url: object, shown: str) -> None:
    """In one sentence, without a password."""
    with pytest.raises(ConfigurationError) as refused:
        check_https("jwks_uri", url)
    assert str(refused.value) == (
        f"jwks_uri must be an absolute https URL without spaces or user information, not {shown} (http is accepted for"
        " localhost, 127.0.0.0/8 and ::1)"
    )


def test_an_address_has_a_greatest_length() -> None:
    """The limit itself is within the limit, and a character more is not."""
    url = "https://a.example/".ljust(MAX_URL_CHARACTERS, "a")
    assert (is_safe_address(url), is_safe_address(f"{url}a")) == (True, False)


def test_a_backslash_is_in_no_address() -> None:
    """Some read it as a slash, and find another host before it."""
    assert not is_safe_address("https://a.example/\\b")


@given(st.text() | st.text("htps:/[]@.:1#?\\ \né", max_size=20).map("https://".__add__))
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_safe_address_or_not(url: str) -> None:
    """JWK-19: no text raises, and what is safe has a host and no user information."""
    if is_safe_address(url):
        assert url.lower().startswith(("https://", "http://"))
        assert "@" not in re.split("[/?#]", url)[2]
        assert url.isprintable()


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_knows_public_addresses(address: str) -> None:
    """What anybody may connect to, as IPv4, as IPv6, and as IPv4 within IPv6."""
    assert is_public_address(address)


@pytest.mark.parametrize(
    "address",
    [
        *[
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
        ],
        *[
            "192.0.2.1",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "192.0.0.192",
            "168.63.129.16",
            "255.255.255.255",
            "192.0.0.1",
        ],
        *[
            "::",
            "::1",
            "fe80::1",
            "fe80::1%eth0",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "fec0::1",
            "2001:db8::1",
            "100::1",
        ],
        *[
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "::7f00:1",
        ],
        *["2001:0:4136:e378:8000:63bf:f5ff:fffe", "localhost", "", "1.1.1.1.1", "0x7f000001"],
    ],
)
def test_knows_addresses_that_are_not_public(address: str) -> None:
    """JWK-19: private, loopback, link-local, shared, documentation, multicast and reserved ones, however wrapped."""
    assert not is_public_address(address)
