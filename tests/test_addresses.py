"""Addresses: which URLs may be asked at all. What `check_https` refuses is in tests/test_issuer.py, by setting."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from token_guard.addresses import is_safe_address


@given(st.text() | st.text("htps:/[]@.:1#?\\ \né", max_size=20).map("https://".__add__))
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_safe_address_or_not(url: str) -> None:
    """JWK-19: no text raises, and what is safe has a host and no user information."""
    if is_safe_address(url):
        assert url.lower().startswith(("https://", "http://"))
        assert "@" not in re.split("[/?#]", url)[2]
        assert url.isprintable()
