"""What a client sends becomes values that the services may trust, or a problem that names each field and its fix.

A service describes its input as a table, member name -> reader. A reader takes what was sent (None when it was not
sent) and returns the value, or raises `Unfit` with a sentence that says what to send instead. Knows no framework.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from sample_apis.problems import InvalidFields, Problem

MAX_BODY = 64 * 1024  # bytes

# Control characters have no place in a name, and a lone surrogate cannot be stored as UTF-8.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]{1,189}")
_PHONE = re.compile(r"\+?[0-9][0-9 ()./-]{2,29}")
# RFC 3339 5.6 with whole seconds. `datetime.fromisoformat` alone also reads week dates and missing offsets.
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)", re.ASCII)

Reader = Callable[[object], Any]


class Unfit(ValueError):
    """A value that does not fit. Its text tells the client what to send instead."""


def read_json(content_type: str | None, body: bytes) -> Mapping[str, object]:
    """Return the JSON object in a request's body. Reading `MAX_BODY + 1` bytes of the body is enough to call this.

    Raises:
        Problem: 415 for another content type, 413 for a body over `MAX_BODY`, 400 for anything but a JSON object.
    """
    if (content_type or "").partition(";")[0].strip().lower() != "application/json":
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send JSON, with the header Content-Type: application/json.")
    if len(body) > MAX_BODY:
        raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"Send at most {MAX_BODY} bytes.")
    try:
        members = json.loads(body.decode())
    except (ValueError, RecursionError):
        raise Problem(HTTPStatus.BAD_REQUEST, "The body is not JSON in UTF-8. Send one JSON object.") from None
    if not isinstance(members, dict):
        raise Problem(HTTPStatus.BAD_REQUEST, "The body is JSON, but no object. Send one JSON object.")
    return members


def read_fields(sent: Mapping[str, object], readers: Mapping[str, Reader]) -> dict[str, Any]:
    """Return one value for each reader, or raise every fix at once.

    Raises:
        InvalidFields: a value does not fit, or a member was sent that has no reader.
    """
    values: dict[str, Any] = {}
    fixes = {name: f"Leave it out. Known are: {', '.join(readers)}." for name in sent if name not in readers}
    for name, read in readers.items():
        try:
            values[name] = read(sent.get(name))
        except Unfit as unfit:
            fixes[name] = str(unfit)
    if fixes:
        raise InvalidFields(fixes)
    return values


def optional(read: Reader, default: object = None) -> Reader:
    """Make a reader that takes a member which was not sent, or is null, for `default`."""
    return lambda sent: default if sent is None else read(sent)


def text(longest: int) -> Reader:
    """Make a reader of a line of text: 1 to `longest` characters after spaces at its ends are gone."""

    def read(sent: object) -> str:
        line = sent.strip() if isinstance(sent, str) else ""
        if not 1 <= len(line) <= longest or _UNPRINTABLE.search(line):
            raise Unfit(f"Send a text of 1 to {longest} characters without line breaks.")
        return line

    return read


def whole_number(least: int, most: int) -> Reader:
    """Make a reader of a whole number in a query, from `least` to `most`."""

    def read(sent: object) -> int:
        digits = str(sent)
        if not re.fullmatch("[0-9]{1,9}", digits) or not least <= int(digits) <= most:
            raise Unfit(f"Send a whole number from {least} to {most}.")
        return int(digits)

    return read


def email(sent: object) -> str:
    """Read an e-mail address by its form. Does not check that mail arrives there."""
    if not isinstance(sent, str) or not _EMAIL.fullmatch(sent) or _UNPRINTABLE.search(sent):
        raise Unfit("Send an e-mail address such as ada@example.com, or null.")
    return sent


def phone(sent: object) -> str:
    """Read a telephone number by its form. Does not check that anybody answers."""
    if not isinstance(sent, str) or not _PHONE.fullmatch(sent):
        raise Unfit("Send a telephone number such as +49 30 1234567, or null.")
    return sent


def moment(sent: object) -> str:
    """Read a date and time with its offset (RFC 3339) as the same moment in UTC: `2026-11-24T08:00:00Z`.

    All moments have this one form, so comparing the texts compares the moments, in Python and in SQL alike.
    """
    if isinstance(sent, str) and _MOMENT.fullmatch(sent):
        try:
            return datetime.fromisoformat(sent).astimezone(UTC).isoformat().replace("+00:00", "Z")
        except (ValueError, OverflowError):  # the 30th of February, or out of the calendar once it is in UTC
            pass
    raise Unfit(
        "Send a date and time with its offset from UTC, such as 2026-11-24T09:00:00+01:00. "
        "In an address a plus sign is written %2B."
    )
