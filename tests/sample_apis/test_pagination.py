"""Cursors survive the trip through an address, and a broken one is a named field, never a failure."""

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

import pytest

from sample_apis.pagination import PAGE_QUERY, Cursor, Page
from sample_apis.problems import InvalidFields
from sample_apis.validation import read_fields


@dataclass(frozen=True)
class Thing:
    name: str


def test_the_next_address_keeps_the_query_and_holds_the_cursor() -> None:
    """Whoever follows `next` needs to add nothing."""
    page = Page.of([Thing("a"), Thing("ü&"), Thing("z")], 2, lambda thing: Cursor(thing.name, "id"))
    answer = page.as_dict("/things", {"limit": "2", "colour": "red"})
    address = urlsplit(str(answer["next"]))
    query = dict(parse_qsl(address.query))
    assert answer["items"] == [{"name": "a"}, {"name": "ü&"}]
    assert address.path == "/things"
    assert query.pop("colour") == "red"
    assert read_fields(query, PAGE_QUERY) == {"limit": 2, "after": Cursor("ü&", "id")}


def test_the_last_page_has_no_next() -> None:
    """A page that holds all that was found is the last, also when it is full."""
    page = Page.of([Thing("a"), Thing("b")], 2, lambda thing: Cursor(thing.name, "id"))
    assert page.as_dict("/things", {})["next"] is None


@pytest.mark.parametrize("after", ["", "%", "abc", "YQ==", "YQpiCmM=", "gAph", "é"])
def test_refuses_a_cursor_that_it_did_not_write(after: str) -> None:
    """An invented cursor is told as the field `after`."""
    with pytest.raises(InvalidFields) as refused:
        read_fields({"after": after}, PAGE_QUERY)
    assert [error["field"] for error in refused.value.errors] == ["after"]
