"""What a client sends becomes values, or a problem that names each field and its fix."""

import pytest

from sample_apis.problems import InvalidFields, Problem
from sample_apis.validation import (
    MAX_BODY,
    Unfit,
    email,
    moment,
    optional,
    phone,
    read_fields,
    read_json,
    text,
    whole_number,
)


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        (None, b"{}", 415),
        ("text/plain", b"{}", 415),
        ("application/json", b'{"a": "' + b"x" * MAX_BODY + b'"}', 413),
        ("application/json", b"", 400),
        ("application/json", b"{", 400),
        ("application/json", b"[]", 400),
        ("application/json", b'"\xff"', 400),
        ("application/json", b"[" * 50_000, 400),
        ("application/json", b'{"a": ' + b"1" * 5000 + b"}", 400),
    ],
)
def test_refuses_a_body_that_is_no_json_object(content_type: str | None, body: bytes, status: int) -> None:
    """Each way to send something else than a JSON object has its status."""
    with pytest.raises(Problem) as refused:
        read_json(content_type, body)
    assert refused.value.status == status


def test_reads_a_json_object_whatever_the_parameters_of_its_content_type() -> None:
    """A charset in Content-Type changes nothing: JSON is UTF-8."""
    assert read_json("Application/JSON; charset=utf-8", '{"name": "Zoë"}'.encode()) == {"name": "Zoë"}


def test_names_every_field_with_its_fix_at_once() -> None:
    """A client learns of all mistakes in one answer, unknown members included."""
    with pytest.raises(InvalidFields) as refused:
        read_fields({"mail": "a@example.com", "age": "x"}, {"name": text(5), "age": whole_number(1, 9)})
    assert refused.value.status == 422
    assert refused.value.errors == (
        {"field": "mail", "fix": "Leave it out. Known are: name, age."},
        {"field": "name", "fix": "Send a text of 1 to 5 characters without line breaks."},
        {"field": "age", "fix": "Send a whole number from 1 to 9."},
    )


@pytest.mark.parametrize(
    ("read", "sent", "value"),
    [
        (text(3), " Zoë ", "Zoë"),
        (email, "ada@example.com", "ada@example.com"),
        (phone, "+49 (30) 123-45", "+49 (30) 123-45"),
        (whole_number(1, 100), "100", 100),
        (optional(email), None, None),
        (optional(whole_number(1, 9), 7), None, 7),
        (moment, "2026-11-24T09:00:00+01:00", "2026-11-24T08:00:00Z"),
        (moment, "0999-01-01T00:00:00Z", "0999-01-01T00:00:00Z"),
    ],
)
def test_reads_a_value_that_fits(read: object, sent: object, value: object) -> None:
    """Spaces around a text are dropped and moments come in UTC; all else is kept as sent."""
    assert callable(read)
    assert read(sent) == value


@pytest.mark.parametrize(
    ("read", "sent"),
    [
        (text(3), None),
        (text(3), 5),
        (text(3), "   "),
        (text(3), "long"),
        (text(9), "a\nb"),
        (text(9), "a\x00b"),
        (text(9), "\ud800"),
        (email, "nobody"),
        (email, "a b@example.com"),
        (email, "a@b@example.com"),
        (email, "a@\ud800"),
        (email, ["a@example.com"]),
        (phone, "call me"),
        (phone, "+49\n30123"),
        (whole_number(1, 100), "0"),
        (whole_number(1, 100), "101"),
        (whole_number(1, 100), "-1"),
        (whole_number(1, 100), "1.5"),
        (whole_number(1, 100), "١"),
        (whole_number(1, 100), "9" * 5000),
        (optional(email), ""),
        (moment, 1764000000),
        (moment, "2026-11-24"),
        (moment, "2026-11-24T09:00:00"),
        (moment, "2026-11-24T09:00:00 01:00"),
        (moment, "2026-11-24T09:00:00.5Z"),
        (moment, "2026-W48-2T09:00:00Z"),
        (moment, "2026-02-30T09:00:00Z"),
        (moment, "2026-11-24T09:00:00+24:00"),
        (moment, "0001-01-01T00:00:00+01:00"),
        (moment, "9999-12-31T23:59:59-01:00"),
    ],
)
def test_refuses_a_value_that_does_not_fit(read: object, sent: object) -> None:
    """A reader answers every misfit with a sentence that says what to send."""
    assert callable(read)
    with pytest.raises(Unfit, match="^Send "):
        read(sent)
