"""Lists in pages. A page starts behind the last item of the page before, so an insert never shows an item twice.

The cursor is where a page ended: the sort key and the ID of its last item. It is no secret and grants nothing: the
stores look only at what the caller owns, whatever the cursor says.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Generic, NamedTuple, TypeVar
from urllib.parse import urlencode

from sample_apis.validation import Reader, Unfit, optional, whole_number

DEFAULT_LIMIT = 20
MAX_LIMIT = 100

Item = TypeVar("Item")


class Cursor(NamedTuple):
    """Where a page ended. The empty cursor sorts before every item."""

    sort_key: str = ""
    item_id: str = ""


@dataclass(frozen=True)
class Page(Generic[Item]):
    """Some items of a list, in order, and where the next page starts; None after the last one."""

    items: Sequence[Item]
    end: Cursor | None

    @classmethod
    def of(cls, found: Sequence[Item], limit: int, cursor_of: Callable[[Item], Cursor]) -> "Page[Item]":
        """Make the page from a query for `limit + 1` items: the one too many tells that there is another page."""
        items = found[:limit]
        return cls(items, cursor_of(items[-1]) if len(found) > limit else None)

    def as_dict(self, path: str, query: Mapping[str, str]) -> dict[str, object]:
        """Return the answer's body. `next` is the address of the next page, with the same query, or null."""
        following = None if self.end is None else f"{path}?{urlencode({**query, 'after': _write(self.end)})}"
        return {"items": [asdict(item) for item in self.items], "next": following}  # type: ignore[call-overload]


def _write(cursor: Cursor) -> str:
    return urlsafe_b64encode("\n".join(cursor).encode()).decode()


def _read(sent: object) -> Cursor:
    try:
        sort_key, item_id = urlsafe_b64decode(str(sent)).decode().split("\n")
    except ValueError:
        raise Unfit("Take it unchanged from the address in `next` of the page before.") from None
    return Cursor(sort_key, item_id)


PAGE_QUERY: Mapping[str, Reader] = {
    "limit": optional(whole_number(1, MAX_LIMIT), DEFAULT_LIMIT),
    "after": optional(_read, Cursor()),
}
