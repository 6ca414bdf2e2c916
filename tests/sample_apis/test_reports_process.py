"""The whole system as processes: authorization server, contacts, calendars and reports, set up by variables alone."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.sample_apis.authorization_server.conftest import Browser, Command
from tests.sample_apis.test_processes import Running, refusal, running
from token_guard.testing import LocalIssuer

AUDIENCE = "https://reports.example/"
SECRET = {"REPORTS_CLIENT_SECRET": "reports-api-secret", "REPORTS_PORT": "0"}
PAGE = "http://localhost:3000"


@dataclass
class System:
    """The three services and a browser at the authorization server that they trust."""

    browser: Browser
    contacts: Running
    calendars: Running
    reports: Running


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    with ExitStack() as started:
        authorization_server = started.enter_context(Command(tmp_path).serving("--port", "0"))
        settings = {"TOKEN_GUARD_ISSUER": authorization_server.domain, "CORS_ALLOWED_ORIGINS": PAGE}
        contacts = started.enter_context(running("contacts", tmp_path, settings))
        calendars = started.enter_context(running("calendars", tmp_path, settings))
        addresses = {"REPORTS_CONTACTS_URL": contacts.address, "REPORTS_CALENDARS_URL": calendars.address}
        reports = started.enter_context(running("reports", tmp_path, {**settings, **addresses, **SECRET}))
        client = started.enter_context(httpx.Client(base_url=authorization_server.domain))
        yield System(Browser(client), contacts, calendars, reports)


def get(address: str, token: str, **headers: str) -> httpx.Response:
    return httpx.get(address, headers={"Authorization": f"Bearer {token}", **headers})


def test_reports_reads_for_the_user_who_asks(system: System) -> None:
    """OBOA-02, XCHG-05: contacts sees the user as subject and reports as actor; a forwarded token is refused."""
    writing = "create:contacts create:calendar"
    token = system.browser.tokens(scope=f"openid {writing}")["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    contact = {"name": "Grace", "email": None, "phone": None}
    event = {"title": "Lunch with Grace", "starts_at": "2026-11-24T11:00:00Z", "ends_at": "2026-11-24T12:00:00Z"}
    assert httpx.post(f"{system.contacts.address}/contacts", json=contact, headers=headers).status_code == 201
    assert httpx.post(f"{system.calendars.address}/calendars/events", json=event, headers=headers).status_code == 201

    received = system.browser.tokens(audience=AUDIENCE, scope="openid read:reports")["access_token"]
    weekly = f"{system.reports.address}/reports/weekly?from=2026-11-23T00:00:00Z"
    report = get(weekly, received, Origin=PAGE)
    assert (report.status_code, report.headers["Access-Control-Allow-Origin"]) == (200, PAGE)
    assert [(event["title"], event["with"]) for event in report.json()["events"]] == [("Lunch with Grace", [contact])]

    for address in (f"{system.contacts.address}/contacts", f"{system.calendars.address}/calendars/events"):
        forwarded = get(address, received, Origin=PAGE)
        assert (forwarded.status_code, forwarded.json()["reason"]) == (401, "wrong_audience")
        assert forwarded.headers["Access-Control-Allow-Origin"] == PAGE
    assert get(weekly, token).json()["reason"] == "wrong_audience"

    services = (system.contacts, system.calendars)
    assert [service.stop(signal.SIGTERM) for service in services] == [0, 0]
    down = get(weekly, received)
    assert (down.status_code, down.json()["detail"]) == (503, "The contacts service does not answer. Try again.")
    assert system.reports.stop(signal.SIGINT) == 0
    for service in services:
        assert "'reports-api' acts on behalf of 'auth0|alice'" in service.output
    assert system.reports.output.endswith("reports stopped\n")
    for output in (system.reports.output, system.contacts.output, system.calendars.output):
        assert not any(part in output for sent in (token, received) for part in sent.split("."))
        assert SECRET["REPORTS_CLIENT_SECRET"] not in output


def test_reports_starts_without_its_issuer_and_answers_503(tmp_path: Path) -> None:
    """An outage at start-up is no reason not to start, and never a 401."""
    issuer = LocalIssuer(audience=AUDIENCE)
    with issuer.serve():
        pass  # its URL has a port from now on, and nobody answers there
    with running("reports", tmp_path, {"TOKEN_GUARD_ISSUER": issuer.url, **SECRET}) as service:
        answer = get(f"{service.address}/reports/weekly", issuer.token("read:reports"))
        assert (answer.status_code, answer.json()["reason"]) == (503, "keys_unavailable")
        assert httpx.get(f"{service.address}/healthz").json()["issuers"][0]["state"] == "unavailable"
        assert service.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"REPORTS_CLIENT_SECRET": ""}, "REPORTS_CLIENT_SECRET is not set: set it to the secret of this API's client"),
        ({"REPORTS_CONTACTS_URL": "localhost:8001"}, "REPORTS_CONTACTS_URL is 'localhost:8001': set it to an address"),
        ({"REPORTS_CALENDARS_URL": "http://[/"}, "REPORTS_CALENDARS_URL is 'http://[/': set it to an address"),
        ({"REPORTS_PORT": "x"}, "REPORTS_PORT is 'x': set it"),
        ({"CORS_ALLOWED_ORIGINS": "*"}, "CORS_ALLOWED_ORIGINS holds '*': write each origin"),
        ({"TOKEN_GUARD_ISSUER": ""}, "TOKEN_GUARD_ISSUER"),
    ],
)
def test_a_wrong_setting_ends_the_start_with_its_name_and_the_fix(
    tmp_path: Path, wrong: dict[str, str], words: str
) -> None:
    """Each is told in one line."""
    output = refusal("reports", tmp_path, {"TOKEN_GUARD_ISSUER": "https://issuer.example/", **SECRET, **wrong})
    assert words in output
    assert "Traceback" not in output
