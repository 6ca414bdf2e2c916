"""The stores: rows, pages and, above all, owners who never see each other."""

from pathlib import Path

import pytest

from sample_apis.calendars.store import EventStore
from sample_apis.contacts.store import ContactStore
from sample_apis.ownership import Owner
from sample_apis.pagination import Cursor
from sample_apis.problems import Conflict, NotFound

ALICE = Owner("https://northwind.example/", "alice")
STRANGERS = [Owner("https://northwind.example/", "bob"), Owner("https://elsewhere.example/", "alice")]


@pytest.fixture
def contacts(tmp_path: Path) -> ContactStore:
    return ContactStore(tmp_path / "contacts.sqlite3")


@pytest.fixture
def events(tmp_path: Path) -> EventStore:
    return EventStore(tmp_path / "events.sqlite3")


def test_contacts_outlive_the_process(tmp_path: Path) -> None:
    """A second store on the same file finds what the first one wrote."""
    contact = ContactStore(tmp_path / "c").add(ALICE, name="Grace", email="grace@example.com", phone=None)
    assert ContactStore(tmp_path / "c").get(ALICE, contact.id) == contact


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_stranger_cannot_see_change_or_delete_a_contact(contacts: ContactStore, stranger: Owner) -> None:
    """Another subject, and the same subject at another issuer, are strangers."""
    contact = contacts.add(ALICE, name="Grace", email="grace@example.com", phone=None)
    with pytest.raises(NotFound):
        contacts.get(stranger, contact.id)
    with pytest.raises(NotFound):
        contacts.replace(stranger, contact.id, name="Mallory", email=None, phone=None)
    with pytest.raises(NotFound):
        contacts.delete(stranger, contact.id)
    assert contacts.list(stranger, limit=100, after=Cursor()).items == []
    assert contacts.get(ALICE, contact.id) == contact


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_stranger_cannot_see_change_or_delete_an_event(events: EventStore, stranger: Owner) -> None:
    """Another subject, and the same subject at another issuer, are strangers."""
    times = {"starts_at": "2026-11-24T08:00:00Z", "ends_at": "2026-11-24T09:00:00Z"}
    event = events.add(ALICE, title="Review", location=None, **times)
    with pytest.raises(NotFound):
        events.get(stranger, event.id)
    with pytest.raises(NotFound):
        events.replace(stranger, event.id, title="Nothing", location=None, **times)
    with pytest.raises(NotFound):
        events.delete(stranger, event.id)
    assert events.list(stranger, begin="0001", end="9999", limit=100, after=Cursor()).items == []
    assert events.get(ALICE, event.id) == event


def test_an_email_address_is_unique_for_its_owner_alone(contacts: ContactStore) -> None:
    """The same address in other letters is a conflict; another owner's address and no address at all are none."""
    contacts.add(ALICE, name="Grace", email="grace@example.com", phone=None)
    other = contacts.add(ALICE, name="Ada", email=None, phone=None)
    contacts.add(ALICE, name="Edsger", email=None, phone=None)
    contacts.add(STRANGERS[0], name="Grace", email="grace@example.com", phone=None)
    with pytest.raises(Conflict):
        contacts.add(ALICE, name="Grace", email="GRACE@example.com", phone=None)
    with pytest.raises(Conflict):
        contacts.replace(ALICE, other.id, name="Ada", email="grace@example.com", phone=None)
    assert contacts.get(ALICE, other.id).email is None


def test_pages_hold_every_contact_once_in_the_order_of_names(contacts: ContactStore) -> None:
    """Equal names and a change between two pages lose nothing and repeat nothing."""
    for name in ("carol", "Alan", "alan", "Bob", "alan"):
        contacts.add(ALICE, name=name, email=None, phone=None)
    names, cursor = [], Cursor()
    while True:
        page = contacts.list(ALICE, limit=2, after=cursor)
        names += [contact.name.lower() for contact in page.items]
        if page.end is None:
            break
        cursor = page.end
        contacts.add(ALICE, name="Aaron", email=None, phone=None)  # sorts before every cursor
    assert names == ["alan", "alan", "alan", "bob", "carol"]


def test_a_time_range_holds_the_events_that_overlap_it(events: EventStore) -> None:
    """An event that ends where the range begins, or begins where it ends, is outside."""
    for day, start, end in ((1, "08", "10"), (2, "10", "11"), (3, "11", "12"), (4, "12", "13"), (5, "07", "23")):
        times = {"starts_at": f"2026-11-24T{start}:00:00Z", "ends_at": f"2026-11-24T{end}:00:00Z"}
        events.add(ALICE, title=str(day), location=None, **times)
    page = events.list(ALICE, begin="2026-11-24T10:00:00Z", end="2026-11-24T12:00:00Z", limit=9, after=Cursor())
    assert [event.title for event in page.items] == ["5", "2", "3"]


def test_what_is_deleted_is_gone(contacts: ContactStore, events: EventStore) -> None:
    """The second deletion finds nothing."""
    contact = contacts.add(ALICE, name="Grace", email=None, phone=None)
    event = events.add(
        ALICE, title="R", location=None, starts_at="2026-11-24T08:00:00Z", ends_at="2026-11-24T09:00:00Z"
    )
    contacts.delete(ALICE, contact.id)
    events.delete(ALICE, event.id)
    with pytest.raises(NotFound):
        contacts.delete(ALICE, contact.id)
    with pytest.raises(NotFound):
        events.delete(ALICE, event.id)
