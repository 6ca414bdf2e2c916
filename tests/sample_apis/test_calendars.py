"""What is special about calendars: time, and an event loop that must never wait for the disk."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from blockbuster import blockbuster_ctx

from sample_apis.calendars.app import create_app
from sample_apis.calendars.store import EventStore
from token_guard import ResourceServer

pytestmark = pytest.mark.anyio

EVENT = {"title": "Review", "starts_at": "2026-11-24T09:00:00+01:00", "ends_at": "2026-11-24T10:00:00+01:00"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def client(
    organizer: ResourceServer, bearer: Callable[..., dict[str, str]], tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(organizer, EventStore(tmp_path / "calendars.sqlite3"))
    headers = bearer("read:calendar create:calendar delete:calendar")
    transport = httpx.ASGITransport(app=app)
    with blockbuster_ctx():  # a blocking call on the event loop raises
        async with httpx.AsyncClient(transport=transport, base_url="http://calendars", headers=headers) as client:
            yield client


async def test_no_request_blocks_the_event_loop(client: httpx.AsyncClient) -> None:
    """Every statement runs in a thread."""
    created = await client.post("/calendars/events", json=EVENT)
    address = created.headers["Location"]
    answers = [
        created,
        await client.get("/calendars/events"),
        await client.get(address),
        await client.put(address, json=EVENT),
        await client.delete(address),
        await client.get("/healthz"),
    ]
    assert [answer.status_code for answer in answers] == [201, 200, 200, 200, 204, 200]


async def test_a_moment_comes_back_in_utc(client: httpx.AsyncClient) -> None:
    """The offset that was sent decides which moment is stored."""
    event = (await client.post("/calendars/events", json=EVENT)).json()
    assert (event["starts_at"], event["ends_at"]) == ("2026-11-24T08:00:00Z", "2026-11-24T09:00:00Z")


async def test_a_list_keeps_to_its_range_from_page_to_page(client: httpx.AsyncClient) -> None:
    """The range is compared as moments, whatever offsets it is given in, and goes with `next`."""
    for hour in (8, 9, 10, 11):
        times = {"starts_at": f"2026-11-24T{hour:02}:00:00Z", "ends_at": f"2026-11-24T{hour:02}:59:00Z"}
        await client.post("/calendars/events", json={"title": str(hour), **times})
    query = {"from": "2026-11-24T10:00:00+01:00", "to": "2026-11-24T11:00:00Z", "limit": "1"}
    first = (await client.get("/calendars/events", params=query)).json()
    second = (await client.get(first["next"])).json()
    assert [event["title"] for event in first["items"] + second["items"]] == ["9", "10"]
    assert second["next"] is None


@pytest.mark.parametrize("ends_at", [EVENT["starts_at"], "2026-11-24T09:30:00+02:00"])
async def test_an_event_must_end_after_it_starts(client: httpx.AsyncClient, ends_at: str) -> None:
    """Equal moments, and an end that only looks later than the start, are named with their fix."""
    refused = await client.post("/calendars/events", json={**EVENT, "ends_at": ends_at})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "ends_at")


async def test_a_range_must_end_after_it_begins(client: httpx.AsyncClient) -> None:
    """A turned-round range is a mistake, not an empty list."""
    query = {"from": "2026-11-24T10:00:00Z", "to": "2026-11-24T10:00:00Z"}
    refused = await client.get("/calendars/events", params=query)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "to")
