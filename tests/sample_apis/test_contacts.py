"""What is special about contacts: an e-mail address is unique."""

from collections.abc import Callable
from pathlib import Path

import httpx

from sample_apis.contacts.app import create_app
from sample_apis.contacts.store import ContactStore
from token_guard import ResourceServer


def test_a_second_contact_with_the_same_email_address_is_a_conflict(
    organizer: ResourceServer, bearer: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    """409 says what to do; the first contact stays as it is."""
    app = create_app(organizer, ContactStore(tmp_path / "contacts.sqlite3"))
    headers = bearer("read:contacts create:contacts")
    grace = {"name": "Grace", "email": "grace@example.com"}
    with httpx.Client(transport=httpx.WSGITransport(app=app), base_url="http://contacts") as client:
        assert client.post("/contacts", json=grace, headers=headers).status_code == 201
        refused = client.post("/contacts", json={**grace, "name": "Ada"}, headers=headers)
        names = [contact["name"] for contact in client.get("/contacts", headers=headers).json()["items"]]
    assert (refused.status_code, refused.json()["title"]) == (409, "Conflict")
    assert names == ["Grace"]
