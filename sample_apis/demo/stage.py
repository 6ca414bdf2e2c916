"""What the story plays on: a local issuer in this process, and three services that trust it, each a process."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sample_apis.demo.services import Service, running
from sample_apis.organizer import AUDIENCE
from token_guard.testing import LocalIssuer

CLIENT_ID = "organizer-machine"
CLIENT_SCOPE = "read:contacts read:calendar"


@dataclass(frozen=True)
class Stage:
    issuer: LocalIssuer
    contacts: Service
    calendars: Service
    gateway: Service
    folder: Path

    @property
    def contact_list(self) -> str:
        return f"{self.contacts.url}/contacts"

    @property
    def event_list(self) -> str:
        return f"{self.calendars.url}/calendars/events"

    @property
    def addresses(self) -> Mapping[str, str]:
        return {"issuer": self.issuer.url} | {
            service.name: service.url for service in (self.contacts, self.calendars, self.gateway)
        }


@contextmanager
def open_stage(folder: Path) -> Iterator[Stage]:
    """Start everything, with logs and databases in `folder`, and end it when the block ends.

    Raises:
        StartError: a service did not start.
    """
    issuer = LocalIssuer(audience=AUDIENCE)
    issuer.add_client(CLIENT_ID, secrets.token_urlsafe(), scope=CLIENT_SCOPE)
    with issuer.serve():
        settings = {"TOKEN_GUARD_ISSUER": " ".join(issuer.urls)}
        # One folder for all: the gateway serves the same contacts and events as the services alone.
        contacts, calendars, gateway = (
            Service(name, folder, settings) for name in ("contacts", "calendars", "gateway")
        )
        with running(contacts, calendars, gateway):
            yield Stage(issuer, contacts, calendars, gateway, folder)
