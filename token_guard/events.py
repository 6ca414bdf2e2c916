"""The log: each line has an event of a stable name, and fields for programs. Never a token, never a secret.

Knows the names and how loud they are; what happened is for the caller to say. The README tells what to do about each.
"""

import logging
from enum import StrEnum
from typing import Any

_log = logging.getLogger("token_guard")


class Event(StrEnum):
    """What a log record is about: its attribute `event`. Stable: alerts and dashboards may depend on these words."""

    REQUEST_REFUSED = "request_refused"
    KEYS_FETCHED = "keys_fetched"
    KEYS_CHANGED = "keys_changed"
    KEY_FETCH_FAILED = "key_fetch_failed"
    STALE_KEYS_USED = "stale_keys_used"
    ISSUER_RECOVERED = "issuer_recovered"
    ODD_KEY = "odd_key"
    KEY_STORE_USED = "key_store_used"
    KEY_STORE_IGNORED = "key_store_ignored"
    KEY_STORE_FAILED = "key_store_failed"
    SCOPES_NOT_GRANTED = "scopes_not_granted"
    AFTER_REQUEST_FAILED = "after_request_failed"


QUIET = frozenset({Event.KEYS_FETCHED, Event.KEYS_CHANGED, Event.ISSUER_RECOVERED})
"""The events that are told at INFO: nothing is to be done about them. All others are warnings."""


def tell(
    event: Event,
    text: str,
    *arguments: object,
    quietly: bool = False,
    cause: BaseException | None = None,
    **fields: Any,
) -> None:
    """Log `text` with its `arguments`, and `fields` as attributes of the record.

    `quietly`: at INFO in any case. `cause`: an error of the application's own, whose traceback tells where to look.
    """
    level = logging.INFO if quietly or event in QUIET else logging.WARNING
    _log.log(level, text, *arguments, exc_info=cause, extra={"event": event, **fields}, stacklevel=2)
