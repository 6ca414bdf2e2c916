"""What a service writes into its log."""

import logging
import sys

from sample_apis.service import TokenFreeFormatter
from token_guard.testing import LocalIssuer


def test_a_token_never_reaches_the_log_not_even_in_a_traceback(issuer: LocalIssuer) -> None:
    """Whoever puts a token into a message or an exception, the formatter takes it out."""
    token = issuer.token()
    try:
        raise ValueError(token)
    except ValueError:
        record = logging.LogRecord("app", logging.ERROR, "", 0, "failed for %s", (token,), sys.exc_info())
    text = TokenFreeFormatter().format(record)
    assert "failed for [token]" in text
    assert "ValueError: [token]" in text
    assert not any(part in text for part in token.split("."))
