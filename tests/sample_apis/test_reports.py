"""The reports service with the real contacts and calendars behind it, and a token endpoint that keeps what it is sent.

The whole with the authorization server of the samples, each in its own process, is in `test_reports_process.py`.
"""

from tests.adapters import django_settings as configured  # noqa: F401 - configures Django

# isort: split

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from a2wsgi import ASGIMiddleware
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.test import override_settings

from sample_apis.calendars import app as calendars
from sample_apis.calendars.store import EventStore
from sample_apis.contacts import app as contacts
from sample_apis.contacts.store import ContactStore
from sample_apis.ownership import Owner
from sample_apis.problems import PROBLEM_JSON
from sample_apis.reports.app import AUDIENCE, django_settings
from sample_apis.reports.weekly import Source
from tests.token_endpoint import TokenEndpoint
from token_guard import ChallengePolicy, OnBehalfOf, ResourceServer
from token_guard.testing import LocalIssuer

SECRET = "reports-api-secret"
WEEK = {"from": "2026-11-23T00:00:00Z"}


@dataclass
class System:
    """The three services. `transports` take the place of a service's own where a test puts one in."""

    issuer: LocalIssuer
    endpoint: TokenEndpoint
    contacts: ContactStore
    events: EventStore
    client: httpx.Client = field(default_factory=httpx.Client)
    transports: dict[str, httpx.BaseTransport] = field(default_factory=dict)

    def owner(self, subject: str = "auth0|alice") -> Owner:
        return Owner(self.issuer.url, subject)

    def headers(self, scope: str = "read:reports", **options: Any) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.issuer.token(scope, **{'audience': AUDIENCE, **options})}"}

    def report(self, subject: str = "auth0|alice", **query: str) -> httpx.Response:
        return self.client.get("/reports/weekly", params=query or WEEK, headers=self.headers(subject=subject))


class Switch(httpx.BaseTransport):
    """What a test has put in for a service, and else the service."""

    def __init__(self, system: System, name: str, service: httpx.BaseTransport) -> None:
        self._system, self._name, self._service = system, name, service

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._system.transports.get(self._name, self._service).handle_request(request)


@pytest.fixture
def system(issuer: LocalIssuer, organizer: ResourceServer, tmp_path: Path) -> Iterator[System]:
    stores = ContactStore(tmp_path / "contacts.sqlite3"), EventStore(tmp_path / "calendars.sqlite3")
    system = System(issuer, TokenEndpoint(issuer), *stores)
    policy = ChallengePolicy(expose_reasons=True)
    reports = ResourceServer(issuer=issuer.url, audience=AUDIENCE, jwks=issuer.jwks(), challenge=policy)
    calendars_app: Any = calendars.create_app(organizer, system.events)  # a2wsgi spells the types of ASGI its own way
    wsgi_app: Any = ASGIMiddleware(calendars_app)
    apps = (("contacts", contacts.create_app(organizer, system.contacts)), ("calendar", wsgi_app))
    with ExitStack() as opened:
        sources = []
        for name, app in apps:
            options: dict[str, Any] = {"client_id": "reports-api", "client_secret": SECRET, "audience": "organize"}
            auth = OnBehalfOf(reports, **options, scopes=f"read:{name}", transport=system.endpoint)
            service = Switch(system, name, httpx.WSGITransport(app=app))
            client = httpx.Client(auth=auth, transport=service, base_url=f"http://{name}")
            sources.append(Source(name, opened.enter_context(client)))
            opened.callback(auth.close)
        opened.enter_context(override_settings(**django_settings(reports, *sources)))
        transport = httpx.WSGITransport(app=WSGIHandler(), raise_app_exceptions=False)
        system.client = opened.enter_context(httpx.Client(transport=transport, base_url="http://reports"))
        yield system


# What it answers.


def test_the_report_is_made_of_what_the_user_has(system: System) -> None:
    """The events of the week by their start, each with the contacts that its title names, and the number of all."""
    grace: dict[str, Any] = {"name": "Grace", "email": "grace@example.com", "phone": None}
    lunch: dict[str, Any] = {"title": "Lunch with grace", "location": "Canteen"}
    review: dict[str, Any] = {"title": "Review", "location": None}
    monday = {"starts_at": "2026-11-23T11:00:00Z", "ends_at": "2026-11-23T12:00:00Z"}
    friday = {"starts_at": "2026-11-27T11:00:00Z", "ends_at": "2026-11-27T12:00:00Z"}
    later = {"starts_at": "2026-11-30T00:00:00Z", "ends_at": "2026-11-30T12:00:00Z"}
    system.contacts.add(system.owner(), **grace)
    system.contacts.add(system.owner(), name="Ada", email=None, phone=None)
    for event in ({**review, **friday}, {**lunch, **monday}, {**review, **later}):
        system.events.add(system.owner(), **event)
    assert system.report().json() == {
        "from": "2026-11-23T00:00:00Z",
        "to": "2026-11-30T00:00:00Z",
        "contacts": 2,
        "events": [{**lunch, **monday, "with": [grace]}, {**review, **friday, "with": []}],
    }


def test_a_report_shows_one_user_s_things_alone(system: System) -> None:
    """What is whose is decided by the services that keep it."""
    system.contacts.add(system.owner("auth0|bob"), name="Grace", email=None, phone=None)
    assert [system.report(name).json()["contacts"] for name in ("auth0|alice", "auth0|bob")] == [0, 1]


def test_a_report_counts_what_is_on_every_page(system: System) -> None:
    """Lists come in pages of a hundred, all asked for with one token."""
    for number in range(201):
        system.contacts.add(system.owner(), name=f"Grace {number}", email=None, phone=None)
    assert system.report().json()["contacts"] == 201
    assert len(system.endpoint.requests) == 2


@pytest.mark.parametrize(
    ("sent", "begin", "end"),
    [
        ("2026-11-24T09:30:00+01:00", "2026-11-24T08:30:00Z", "2026-12-01T08:30:00Z"),
        ("9999-12-24T23:59:59Z", "9999-12-24T23:59:59Z", "9999-12-31T23:59:59Z"),
    ],
)
def test_a_week_begins_when_it_is_told_to(system: System, sent: str, begin: str, end: str) -> None:
    """With an offset of its own."""
    report = system.report(**{"from": sent}).json()
    assert (report["from"], report["to"]) == (begin, end)


def test_a_week_begins_this_monday(system: System) -> None:
    """At midnight in UTC, if nothing else is asked for."""
    before = datetime.now(UTC)
    begin = datetime.fromisoformat(system.client.get("/reports/weekly", headers=system.headers()).json()["from"])
    assert (begin.weekday(), begin.hour, begin.minute, begin.second) == (0, 0, 0, 0)
    assert begin <= datetime.now(UTC)
    assert before < begin + timedelta(days=7)


@pytest.mark.parametrize("query", [{"from": "today"}, {"from": "9999-12-25T00:00:00Z"}, {"colour": "red"}])
def test_a_wrong_week_is_named_with_its_fix(system: System, query: dict[str, str]) -> None:
    """The house style of every service; nothing is asked of the others."""
    answer = system.report(**query)
    assert (answer.status_code, answer.headers["Content-Type"]) == (422, PROBLEM_JSON)
    assert [error["field"] for error in answer.json()["errors"]] == list(query)
    assert system.endpoint.requests == []


# On whose behalf.


def test_contacts_sees_the_user_as_subject_and_reports_as_actor(
    system: System, caplog: pytest.LogCaptureFixture
) -> None:
    """OBOA-02, XCHG-05: each service gets a token of its own least scope; the log says who acts for whom."""
    caplog.set_level(logging.INFO, "sample_apis")
    assert system.report().status_code == 200
    asked = [(form["audience"], form["scope"]) for form in system.endpoint.forms]
    assert asked == [("organize", "read:contacts"), ("organize", "read:calendar")]
    assert caplog.messages.count("'reports-api' acts on behalf of 'auth0|alice'") == 2


def test_forwarding_the_received_token_is_refused(system: System) -> None:
    """XCHG-05: it is meant for reports, so at contacts and calendars its audience is wrong."""
    received = system.headers("read:reports read:contacts read:calendar")
    assert system.client.get("/reports/weekly", params=WEEK, headers=received).status_code == 200
    for source, path in ((settings.REPORTS_CONTACTS, "/contacts"), (settings.REPORTS_CALENDARS, "/calendars/events")):
        refused = source._client.get(path, headers=received, auth=None)
        assert (refused.status_code, refused.json()["reason"]) == (401, "wrong_audience")


@pytest.mark.parametrize(
    ("headers", "status", "reason"),
    [
        ({}, 401, "missing_token"),
        ({"scope": "read:contacts read:calendar"}, 403, "insufficient_scope"),
        ({"scope": "read:reports", "audience": "organize"}, 401, "wrong_audience"),
        ({"scope": "read:reports", "lifetime": -3600}, 401, "expired"),
    ],
)
def test_without_a_token_for_reports_nothing_is_exchanged(
    system: System, headers: dict[str, Any], status: int, reason: str
) -> None:
    """OBOA-01: a token for the organizer opens contacts and calendars, and not this service."""
    answer = system.client.get("/reports/weekly", headers=system.headers(**headers) if headers else {})
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert ('scope="read:reports"' in answer.headers["WWW-Authenticate"]) == (status == 403)
    assert system.endpoint.requests == []


# When there is no report.


@pytest.mark.parametrize(
    ("refused", "status", "words"),
    [
        ({"error": "consent_required", "error_description": "Ask alice."}, 403, "(consent_required: Ask alice.)"),
        ({"error": "interaction_required"}, 403, "(interaction_required)"),
        ({"error": "invalid_grant"}, 403, "log in once more"),
        ({"error": "invalid_client"}, 502, "(invalid_client)"),
        ({"error": "invalid_target", "error_description": "Not paired."}, 502, "(invalid_target)"),
    ],
)
def test_what_the_authorization_server_refuses_is_said_in_its_words(
    system: System, refused: dict[str, str], status: int, words: str
) -> None:
    """XCHG-06: what the user can mend is a 403, what we have to mend is a 502."""
    system.endpoint.answer = httpx.Response(400, json=refused)
    answer = system.report()
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, PROBLEM_JSON)
    assert words in answer.json()["detail"]


def test_an_authorization_server_that_is_down_is_nobody_s_fault(system: System) -> None:
    """CLI-05: 503 and when to come back: never a 401, and never the words about a token that cannot be checked."""
    system.endpoint.answer = httpx.Response(503, headers={"Retry-After": "17"})
    answer = system.report()
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "17")
    assert answer.json()["detail"] == "The authorization server does not answer. Try again."


def refusing_connections(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused", request=request)


FAILURES: dict[str, tuple[Callable[[httpx.Request], httpx.Response], int, str]] = {
    "down": (refusing_connections, 503, "does not answer"),
    "busy": (lambda _: httpx.Response(503, headers={"Retry-After": "17"}), 503, "is busy"),
    "token refused": (lambda _: httpx.Response(401), 502, "with 401"),
    "scope refused": (lambda _: httpx.Response(403), 403, "does not let reports read for you"),
    "broken": (lambda _: httpx.Response(500), 502, "with 500"),
    "another service": (lambda _: httpx.Response(200, html="<html></html>"), 502, "with 200"),
    "no list": (lambda _: httpx.Response(200, json=[]), 502, "with 200"),
    "a list without an end": (lambda _: httpx.Response(200, json={"items": []}), 502, "with 200"),
    "moved": (lambda _: httpx.Response(302, headers={"Location": "https://stranger.example/"}), 502, "with 302"),
}


@pytest.mark.parametrize("name", ["contacts", "calendar"])
@pytest.mark.parametrize(("failure", "status", "words"), FAILURES.values(), ids=FAILURES)
def test_a_service_that_fails_is_named(
    system: System,
    caplog: pytest.LogCaptureFixture,
    name: str,
    failure: Callable[[httpx.Request], httpx.Response],
    status: int,
    words: str,
) -> None:
    """Which service, and whose turn it is; a 401 of theirs is never the client's."""
    system.transports[name] = httpx.MockTransport(failure)
    answer = system.report()
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, PROBLEM_JSON)
    assert f"The {name} service" in answer.json()["detail"]
    assert words in answer.json()["detail"]
    if status == 503:
        assert int(answer.headers["Retry-After"]) >= 1
    assert "eyJ" not in caplog.text


def test_a_token_goes_to_no_host_that_an_answer_names(system: System) -> None:
    """XCHG-05: of the address of the next page the path alone is taken."""
    asked: list[httpx.URL] = []

    def lead_astray(request: httpx.Request) -> httpx.Response:
        asked.append(request.url)
        following = "https://stranger.example/contacts?after=1" if len(asked) == 1 else None
        return httpx.Response(200, json={"items": [], "next": following})

    system.transports["contacts"] = httpx.MockTransport(lead_astray)
    assert system.report().status_code == 200
    assert [str(url) for url in asked] == ["http://contacts/contacts?limit=100", "http://contacts/contacts?after=1"]


# The house style.


def test_what_is_not_there_is_a_problem(system: System) -> None:
    """Without a token nobody learns which paths exist."""
    assert system.client.get("/reports/monthly").status_code == 401
    missing = system.client.get("/reports/monthly", headers=system.headers())
    refused = system.client.post("/reports/weekly", headers=system.headers())
    assert (missing.status_code, missing.headers["Content-Type"]) == (404, PROBLEM_JSON)
    assert (refused.status_code, refused.headers["Content-Type"]) == (405, PROBLEM_JSON)
    assert refused.headers["Allow"].startswith("GET")


def test_a_failure_of_our_own_is_a_problem_without_its_cause(system: System, caplog: pytest.LogCaptureFixture) -> None:
    """Items that are no contacts are a case that nobody thought of: a 500, whose cause is in the log alone."""
    system.events.add(system.owner(), title="A", location=None, starts_at="2026-11-24T0", ends_at="2026-11-24T1")
    nobody = httpx.Response(200, json={"items": [{"nickname": "G"}], "next": None})
    system.transports["contacts"] = httpx.MockTransport(lambda _: nobody)
    answer = system.report()
    assert (answer.status_code, answer.headers["Content-Type"]) == (500, PROBLEM_JSON)
    assert "nickname" not in answer.text
    assert "KeyError" in caplog.text


def test_health_needs_no_token(system: System) -> None:
    """Health says ready and, in words, how it stands with the issuer."""
    answer = system.client.get("/healthz")
    held = {"issuer": system.issuer.url, "state": "fresh", "in_words": "its keys are held"}
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "issuers": [held]})
