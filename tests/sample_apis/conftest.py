"""The services as their clients see them: alone and behind the gateway, with tokens that a local issuer signs."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from sample_apis import gateway
from sample_apis.calendars import app as calendars
from sample_apis.calendars.store import EventStore
from sample_apis.contacts import app as contacts
from sample_apis.contacts.store import ContactStore
from token_guard import ChallengePolicy, Issuer, ResourceServer
from token_guard.testing import LocalIssuer

CONTACTS: list[dict[str, Any]] = [
    {"name": f"Grace {number}", "email": f"grace{number}@example.com", "phone": "+49 30 1234567"} for number in range(5)
]
EVENTS: list[dict[str, Any]] = [
    {
        "title": "Review",
        "location": "Room 4",
        "starts_at": f"2026-11-24T0{hour}:00:00Z",
        "ends_at": f"2026-11-24T0{hour}:30:00Z",
    }
    for hour in range(5)
]


@dataclass(frozen=True)
class Service:
    """A service at an address, entries in the order in which it lists them, and a change of the first one.

    `client` is httpx's or Starlette's.
    """

    client: Any
    path: str
    resource: str
    database: Path
    entries: list[dict[str, Any]]
    changed: dict[str, Any]


@pytest.fixture(scope="session")
def issuer() -> LocalIssuer:
    return LocalIssuer()


@pytest.fixture(scope="session")
def elsewhere() -> LocalIssuer:
    return LocalIssuer("https://elsewhere.example/")


@pytest.fixture(scope="session")
def organizer(issuer: LocalIssuer, elsewhere: LocalIssuer) -> Iterator[ResourceServer]:
    issuers = [Issuer(one.url, jwks=one.jwks()) for one in (issuer, elsewhere)]
    policy = ChallengePolicy(expose_reasons=True)
    with closing(ResourceServer(issuer=issuers, audience="organize", challenge=policy)) as organizer:
        yield organizer


@pytest.fixture
def bearer(issuer: LocalIssuer) -> Callable[..., dict[str, str]]:
    """Headers with a token for a scope: `bearer("read:contacts", subject="bob")`."""
    return lambda scope, **options: {"Authorization": f"Bearer {issuer.token(scope, **options)}"}


@pytest.fixture(
    params=["contacts alone", "contacts behind the gateway", "calendars alone", "calendars behind the gateway"]
)
def service(request: pytest.FixtureRequest, organizer: ResourceServer, tmp_path: Path) -> Iterator[Service]:
    """Every service, alone and behind the gateway: a test that takes it holds for all four."""
    name, _, where = request.param.partition(" ")
    contact_file, event_file = tmp_path / "contacts.sqlite3", tmp_path / "calendars.sqlite3"
    if where != "alone":
        stores = ContactStore(contact_file), EventStore(event_file)
        client: Any = TestClient(gateway.create_app(organizer, *stores), raise_server_exceptions=False)
    elif name == "contacts":
        wsgi_app = contacts.create_app(organizer, ContactStore(contact_file))
        client = httpx.Client(transport=httpx.WSGITransport(app=wsgi_app), base_url="http://contacts")
    else:
        client = TestClient(calendars.create_app(organizer, EventStore(event_file)), raise_server_exceptions=False)
    with client:
        if name == "contacts":
            yield Service(client, "/contacts", "contacts", contact_file, CONTACTS, {**CONTACTS[0], "phone": None})
        else:
            yield Service(client, "/calendars/events", "calendar", event_file, EVENTS, {**EVENTS[0], "location": None})
