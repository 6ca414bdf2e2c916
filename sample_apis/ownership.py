"""Who owns what is stored: the subject of the access token, as its issuer names it. Knows no framework and no SQL.

Where another party acts for the subject the log says so. What is owned, and by whom, stays the same.
"""

import logging
from http import HTTPStatus
from typing import NamedTuple

from sample_apis.problems import Problem
from token_guard import AccessToken

_log = logging.getLogger("sample_apis")


class Owner(NamedTuple):
    """Whom a row belongs to. A subject is unique only at its issuer (RFC 7519 4.1.2), so both are the owner's name."""

    issuer: str
    subject: str


def owner_of(token: AccessToken) -> Owner:
    """Return the token's subject, a user or a client that calls for itself, as the owner.

    Raises:
        Problem: 403, the token names no subject, so nothing can belong to it.
    """
    if token.subject is None:
        raise Problem(HTTPStatus.FORBIDDEN, "The access token names no subject. Get one that does.")
    if token.actor is not None:
        _log.info("%a acts on behalf of %a", token.actor.subject, token.subject)
    return Owner(token.issuer, token.subject)
