"""The whole system as a browser meets it: authorization server, three APIs and two apps, each a process.

Knows where each listens and what each is told of the others, not what is asked of them.
"""

import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sample_apis.calendars.store import EventStore
from sample_apis.contacts.store import ContactStore
from sample_apis.demo.services import Service, running
from sample_apis.ownership import Owner

# Where each listens if it can: what the services' own defaults are.
PORTS: Mapping[str, int] = {
    "authorization_server": 9400,
    "contacts": 8001,
    "calendars": 8002,
    "reports": 8003,
    "web": 8080,
    "web_backend": 8090,
}

# What alice finds in her accounts. Days are counted from the Monday of this week, as the weekly report does.
CONTACTS = (
    ("Front Desk", "desk@example.com", "+44 20 7946 0018"),
    ("Nightly Bakery", "orders@example.com", None),
    ("Northwind Support", "support@example.net", "+44 20 7946 0100"),
)
EVENTS = (
    ("Weekly review", "Room 4", 0, 16),
    ("Lunch with Nightly Bakery", None, 2, 12),
    ("Northwind Support: renew the contract", "Video call", 4, 10),
    ("Dentist", "High Street 7", 9, 8),
)


@dataclass(frozen=True, kw_only=True)
class BrowserSystem:
    authorization_server: Service
    contacts: Service
    calendars: Service
    reports: Service
    web: Service
    web_backend: Service
    page: str  # the address to open: the single-page app
    backend: str  # that of the app with a backend
    folder: Path  # of the logs and databases

    @property
    def services(self) -> tuple[Service, ...]:
        apis = (self.contacts, self.calendars, self.reports)
        return (self.authorization_server, *apis, self.web, self.web_backend)


@contextmanager
def open_browser_system(
    folder: Path, *, usual_ports: bool = True, settings: Mapping[str, str] | None = None
) -> Iterator[BrowserSystem]:
    """Start everything, with logs and databases in `folder`, and end it when the block ends.

    With `usual_ports` each service listens on its own default port where that is free. `settings` are added to those
    of the APIs.

    Raises:
        StartError: a service did not start.
    """
    ports = reserve_ports(PORTS if usual_ports else dict.fromkeys(PORTS, 0))
    origins = {name: f"http://localhost:{port}" for name, port in ports.items()}
    settings_of = settings_of_services(origins, settings or {})
    arguments = ("--implicit", *(f"--spa-origin={origins[name]}" for name in ("web", "web_backend")))
    services = {
        name: Service(
            name,
            folder,
            settings_of[name],
            port=port,
            arguments=arguments if name == "authorization_server" else (),
        )
        for name, port in ports.items()
    }
    fill_accounts(folder, Owner(f"{origins['authorization_server']}/", "auth0|alice"))
    system = BrowserSystem(**services, page=origins["web"], backend=origins["web_backend"], folder=folder)
    with running(*system.services):
        yield system


def settings_of_services(origins: Mapping[str, str], more: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
    """Return the environment of each service; `more` goes to the APIs."""
    domain = origins["authorization_server"]
    api = {"TOKEN_GUARD_ISSUER": f"{domain}/", "CORS_ALLOWED_ORIGINS": origins["web"], **more}
    apis = {name: origins[name] for name in ("contacts", "calendars", "reports")}
    return {
        "authorization_server": {},
        "contacts": api,
        "calendars": api,
        "reports": {
            **api,
            "REPORTS_CLIENT_SECRET": "reports-api-secret",
            "REPORTS_CONTACTS_URL": apis["contacts"],
            "REPORTS_CALENDARS_URL": apis["calendars"],
        },
        "web": {
            "WEB_DOMAIN": domain,
            "WEB_BACKEND": origins["web_backend"],
            **{f"WEB_{name.upper()}": origin for name, origin in apis.items()},
        },
        "web_backend": {
            "WEB_BACKEND_DOMAIN": domain,
            "WEB_BACKEND_ORIGIN": origins["web_backend"],
            **{f"WEB_BACKEND_{name.upper()}": origin for name, origin in apis.items()},
        },
    }


def reserve_ports(wanted: Mapping[str, int]) -> Mapping[str, int]:
    """Return a free port for each name, the wanted one where it is free. All must be known before the first starts:
    each service is told where the others are."""
    with ExitStack() as held:
        return {name: held.enter_context(listener_on(port)).getsockname()[1] for name, port in wanted.items()}


def listener_on(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError:
        return socket.create_server(("127.0.0.1", 0))


def fill_accounts(folder: Path, owner: Owner) -> None:
    """Store a few contacts and events, so that there is something to read."""
    contacts, events = ContactStore(folder / "contacts.sqlite3"), EventStore(folder / "calendars.sqlite3")
    for name, email, phone in CONTACTS:
        contacts.add(owner, name=name, email=email, phone=phone)
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    for title, location, days, hour in EVENTS:
        begin = today + timedelta(days=days - today.weekday(), hours=hour)
        moments = {"starts_at": in_utc(begin), "ends_at": in_utc(begin + timedelta(hours=1))}
        events.add(owner, title=title, location=location, **moments)


def in_utc(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
