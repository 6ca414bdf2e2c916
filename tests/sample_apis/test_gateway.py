"""The gateway: one resource server for both services, and no guard of its own."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from sample_apis.calendars.store import EventStore
from sample_apis.contacts.store import ContactStore
from sample_apis.gateway import create_app
from token_guard import ResourceServer
from token_guard.testing import InMemoryTransport, LocalIssuer


@pytest.fixture
def transport(issuer: LocalIssuer) -> InMemoryTransport:
    return issuer.transport()


@pytest.fixture
def client(issuer: LocalIssuer, transport: InMemoryTransport, tmp_path: Path) -> Iterator[TestClient]:
    with closing(ResourceServer(issuer=issuer.url, audience="organize", transport=transport)) as organizer:
        stores = ContactStore(tmp_path / "contacts.sqlite3"), EventStore(tmp_path / "calendars.sqlite3")
        with TestClient(create_app(organizer, *stores)) as client:
            yield client


def test_both_services_share_one_set_of_keys(
    client: TestClient, transport: InMemoryTransport, issuer: LocalIssuer
) -> None:
    """The second service verifies with the keys that the first one's request fetched."""
    headers = {"Authorization": f"Bearer {issuer.token('read:contacts read:calendar')}"}
    statuses = [client.get(path, headers=headers).status_code for path in ("/contacts", "/calendars/events")]
    fetched = [url for _, url in transport.requests if url.endswith("jwks.json")]
    assert (statuses, len(fetched)) == ([200, 200], 1)


@pytest.mark.parametrize("path", ["/", "/contactsbook", "/calendar"])
def test_a_path_of_no_service_is_not_found(client: TestClient, path: str) -> None:
    """There is nothing to guard behind it, so it is a plain 404 in the house style."""
    answer = client.get(path)
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")


def test_a_body_without_a_length_arrives_whole(client: TestClient, issuer: LocalIssuer) -> None:
    """A chunked body is read to its end, through a2wsgi too."""
    headers = {"Authorization": f"Bearer {issuer.token('create:contacts')}", "Content-Type": "application/json"}
    created = client.post("/contacts", content=iter([b'{"name":', b' "Grace"}']), headers=headers)
    assert (created.status_code, created.json()["name"]) == (201, "Grace")
