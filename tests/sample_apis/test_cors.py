"""Cross-origin requests, through a WSGI and an ASGI service that are guarded: what a browser would let its page see."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from sample_apis.calendars import app as calendars
from sample_apis.calendars.store import EventStore
from sample_apis.contacts import app as contacts
from sample_apis.contacts.store import ContactStore
from sample_apis.cors import allow_origins_asgi, allow_origins_wsgi, read_origins
from sample_apis.settings import SettingError
from token_guard import ResourceServer

PAGE, STRANGER = "http://localhost:3000", "https://stranger.example"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}

Bearer = Callable[..., dict[str, str]]
Send = Callable[..., Any]
Serve = Callable[..., Send]


@pytest.fixture(params=["WSGI", "ASGI"])
def serve(request: pytest.FixtureRequest, organizer: ResourceServer, tmp_path: Path) -> Iterator[Serve]:
    """Serve to the pages of some origins, contacts through WSGI and calendars through ASGI, and return how to ask."""
    clients: list[Any] = []

    def serve(*origins: str) -> Send:
        if request.param == "WSGI":
            wsgi_app = contacts.create_app(organizer, ContactStore(tmp_path / "contacts.sqlite3"))
            transport = httpx.WSGITransport(app=allow_origins_wsgi(wsgi_app, frozenset(origins)))
            client: Any = httpx.Client(transport=transport, base_url="http://contacts")
            path = "/contacts"
        else:
            asgi_app = calendars.create_app(organizer, EventStore(tmp_path / "calendars.sqlite3"))
            client = TestClient(allow_origins_asgi(asgi_app, frozenset(origins)))
            path = "/calendars/events"
        clients.append(client)
        return lambda headers, method="GET": client.request(method, path, headers=headers)

    yield serve
    for client in clients:
        client.close()


def test_a_page_reads_answers_and_refusals(serve: Serve, bearer: Bearer) -> None:
    """The challenge of a 401 and a 403, too: a page that cannot see them cannot say what is wrong."""
    send = serve(PAGE, "http://localhost:3001")
    good, weak = bearer("read:contacts read:calendar"), bearer("other")
    for headers, status in ((good, 200), ({}, 401), (weak, 403)):
        answer = send({**headers, "Origin": PAGE})
        assert answer.status_code == status
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        assert "WWW-Authenticate" in answer.headers["Access-Control-Expose-Headers"]
        assert "Origin" in answer.headers["Vary"]
        assert "Access-Control-Allow-Credentials" not in answer.headers


def test_a_preflight_is_answered_without_a_token(serve: Serve) -> None:
    """It allows the methods and headers that the services know, and nothing is asked of the application."""
    answer = serve(PAGE)({**PREFLIGHT, "Origin": PAGE}, "OPTIONS")
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert {"PUT", "DELETE"} <= set(answer.headers["Access-Control-Allow-Methods"].split(", "))
    assert "Authorization" in answer.headers["Access-Control-Allow-Headers"].split(", ")


@pytest.mark.parametrize("origin", [STRANGER, f"{PAGE}/", "http://localhost:30001", "null", "*"])
def test_a_page_of_another_origin_reads_nothing(serve: Serve, bearer: Bearer, origin: str) -> None:
    """An origin is compared whole; the answer stays the same for all who are no browser."""
    send = serve(PAGE)
    answer = send({**bearer("read:contacts read:calendar"), "Origin": origin})
    preflight = send({**PREFLIGHT, "Origin": origin}, "OPTIONS")
    assert answer.status_code == 200
    for each in (answer, preflight):
        assert "Access-Control-Allow-Origin" not in each.headers
        assert "Origin" in each.headers["Vary"]


def test_without_the_setting_no_page_reads_anything(serve: Serve, bearer: Bearer) -> None:
    """The default: no header is added."""
    answer = serve()({**bearer("read:contacts read:calendar"), "Origin": PAGE})
    assert answer.status_code == 200
    assert not {"Access-Control-Allow-Origin", "Vary"} & set(answer.headers)


def test_origins_come_from_the_environment() -> None:
    """Several are separated by spaces; none is the default."""
    assert read_origins({}) == read_origins({"CORS_ALLOWED_ORIGINS": ""}) == frozenset()
    assert read_origins({"CORS_ALLOWED_ORIGINS": f"{PAGE} {STRANGER}"}) == {PAGE, STRANGER}


@pytest.mark.parametrize(
    "wrong", ["*", "null", "localhost:3000", f"{PAGE}/", f"{PAGE}/page", "http://", "ftp://a", f"{PAGE},{STRANGER}"]
)
def test_what_is_no_origin_is_named_with_its_fix(wrong: str) -> None:
    """A slash at the end would never match what a browser sends."""
    with pytest.raises(SettingError, match="^CORS_ALLOWED_ORIGINS holds .*: write each origin as browsers do"):
        read_origins({"CORS_ALLOWED_ORIGINS": wrong})
