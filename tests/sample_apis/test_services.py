"""What both services promise, alone and behind the gateway, over HTTP and with signed tokens."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from uuid import uuid4

import pytest

from sample_apis.organizer import SCOPES
from sample_apis.validation import MAX_BODY
from tests.sample_apis.conftest import Service
from token_guard.testing import LocalIssuer

Bearer = Callable[..., dict[str, str]]


def test_an_entry_is_created_read_replaced_and_deleted(service: Service, bearer: Bearer) -> None:
    """Each step needs its own scope and no more; a replacement needs the one that creates."""
    read, create, delete = (bearer(f"{action}:{service.resource}") for action in ("read", "create", "delete"))
    created = service.client.post(service.path, json=service.entries[0], headers=create)
    entry = created.json()
    address = created.headers["Location"]
    assert created.status_code == 201
    assert entry == {**service.entries[0], "id": entry["id"]}
    assert address == f"{service.path}/{entry['id']}"
    assert service.client.get(address, headers=read).json() == entry
    replaced = service.client.put(address, json=service.changed, headers=create)
    assert (replaced.status_code, replaced.json()) == (200, {**service.changed, "id": entry["id"]})
    assert service.client.get(address, headers=read).json() == replaced.json()
    deleted = service.client.delete(address, headers=delete)
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert service.client.get(address, headers=read).status_code == 404


@pytest.mark.parametrize(
    ("method", "action", "of_one"),
    [
        ("GET", "read", False),
        ("POST", "create", False),
        ("GET", "read", True),
        ("PUT", "create", True),
        ("DELETE", "delete", True),
    ],
)
def test_a_route_asks_for_its_scope_before_it_looks_at_anything(
    service: Service, bearer: Bearer, method: str, action: str, of_one: bool
) -> None:
    """Every other scope of the catalogue is not enough, and the challenge names the one that is."""
    needed = f"{action}:{service.resource}"
    others = " ".join(scope for scope in SCOPES if scope != needed)
    path = f"{service.path}/{uuid4()}" if of_one else service.path
    refused = service.client.request(method, path, headers=bearer(others))
    assert refused.status_code == 403
    assert refused.json()["reason"] == "insufficient_scope"
    assert f'scope="{needed}"' in refused.headers["WWW-Authenticate"]
    assert service.client.request(method, path).status_code == 401
    assert service.client.request(method, path, headers=bearer(needed)).status_code not in (401, 403)


@pytest.mark.parametrize(
    ("mint", "reason"),
    [("expired", "expired"), ("signed_by_stranger", "bad_signature"), ("unknown_key", "unknown_key")],
)
def test_a_bad_token_is_refused(service: Service, issuer: LocalIssuer, mint: str, reason: str) -> None:
    """The guard judges real signatures; the samples show its reason."""
    token = getattr(issuer, mint)(f"read:{service.resource}")
    refused = service.client.get(service.path, headers={"Authorization": f"Bearer {token}"})
    assert (refused.status_code, refused.json()["reason"]) == (401, reason)


def test_a_stranger_is_told_that_there_is_nothing(
    service: Service, bearer: Bearer, issuer: LocalIssuer, elsewhere: LocalIssuer
) -> None:
    """Another user, and a user of the same name at another issuer, get the answer for what never existed."""
    scope = f"read:{service.resource} create:{service.resource} delete:{service.resource}"
    address = service.client.post(service.path, json=service.entries[0], headers=bearer(scope)).headers["Location"]
    nowhere = f"{service.path}/{uuid4()}"
    namesake = {"Authorization": f"Bearer {elsewhere.token(scope)}"}
    for stranger in (bearer(scope, subject="auth0|bob"), namesake):
        for method, body in (("GET", None), ("PUT", service.entries[0]), ("DELETE", None)):
            answers = [service.client.request(method, at, json=body, headers=stranger) for at in (address, nowhere)]
            assert [answer.status_code for answer in answers] == [404, 404]
            assert answers[0].content == answers[1].content
        assert service.client.get(service.path, headers=stranger).json() == {"items": [], "next": None}
    assert len(service.client.get(service.path, headers=bearer(scope)).json()["items"]) == 1


def test_a_token_without_a_subject_owns_nothing(service: Service, bearer: Bearer) -> None:
    """Without a subject there is nobody to whom an entry could belong."""
    refused = service.client.get(service.path, headers=bearer(f"read:{service.resource}", claims={"sub": None}))
    assert (refused.status_code, refused.headers["Content-Type"]) == (403, "application/problem+json")


def test_a_list_comes_in_pages(service: Service, bearer: Bearer) -> None:
    """Following `next` as it stands shows every entry once."""
    headers = bearer(f"read:{service.resource} create:{service.resource}")
    created = [service.client.post(service.path, json=entry, headers=headers).json() for entry in service.entries]
    address, seen = f"{service.path}?limit=2", []
    while address:
        page = service.client.get(address, headers=headers).json()
        seen += page["items"]
        address = page["next"]
    assert seen == created


def test_mistakes_are_named_with_their_fix(service: Service, bearer: Bearer) -> None:
    """The house style: problem+json with the members that need a change."""
    headers = bearer(f"read:{service.resource} create:{service.resource}")
    field = next(iter(service.entries[0]))
    answer = service.client.post(service.path, json={**service.entries[0], field: ""}, headers=headers)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json() == {
        "type": "about:blank",
        "title": "Unprocessable Entity",
        "status": 422,
        "detail": f"To be changed: {field}.",
        "errors": [{"field": field, "fix": "Send a text of 1 to 200 characters without line breaks."}],
    }
    query = service.client.get(f"{service.path}?limit=0&after=%25&colour=red", headers=headers)
    assert query.status_code == 422
    assert {error["field"] for error in query.json()["errors"]} == {"limit", "after", "colour"}


def test_every_kind_of_wrong_request_has_its_problem(service: Service, bearer: Bearer) -> None:
    """The frameworks' own answers are in the house style too."""
    headers = bearer(f"read:{service.resource} create:{service.resource}")
    json_headers = {**headers, "Content-Type": "application/json"}
    answers = {
        400: service.client.post(service.path, content=b"{", headers=json_headers),
        404: service.client.get(f"{service.path}/nothing/here", headers=headers),
        405: service.client.patch(service.path, headers=headers),
        413: service.client.post(service.path, content=b" " * (MAX_BODY + 1), headers=json_headers),
        415: service.client.post(service.path, content=b"name=Grace", headers=headers),
    }
    for status, answer in answers.items():
        assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")
        assert answer.json()["status"] == status
    assert {"GET", "POST"} <= set(answers[405].headers["Allow"].split(", "))


def test_a_failure_of_our_own_is_a_problem_without_its_cause(service: Service, bearer: Bearer) -> None:
    """A table that is gone is a 500 in the house style; what broke is for the log."""
    with closing(sqlite3.connect(service.database)) as connection:
        connection.executescript("DROP TABLE IF EXISTS contact; DROP TABLE IF EXISTS event")
    answer = service.client.get(service.path, headers=bearer(f"read:{service.resource}"))
    assert (answer.status_code, answer.headers["Content-Type"]) == (500, "application/problem+json")
    assert "table" not in answer.text


def test_health_needs_no_token(service: Service, issuer: LocalIssuer, elsewhere: LocalIssuer) -> None:
    """Health says ready and, in words, how it stands with each issuer."""
    answer = service.client.get("/healthz")
    held = [{"issuer": one.url, "state": "fresh", "in_words": "its keys are held"} for one in (issuer, elsewhere)]
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "issuers": held})


def test_an_unknown_path_of_a_service_is_closed(service: Service) -> None:
    """Without a token nobody learns which paths exist."""
    assert service.client.get(f"{service.path}/nothing/here").status_code == 401
