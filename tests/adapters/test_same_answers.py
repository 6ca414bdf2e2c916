"""One table of requests through every adapter: the same status, headers and body from each (design, section 4).

The application of each framework is in `applications/`. A row says what any of them has to answer.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import httpx
import pytest
from sentry_sdk.integrations.django import DjangoIntegration
from sentry_sdk.integrations.fastapi import FastApiIntegration
from sentry_sdk.integrations.flask import FlaskIntegration
from sentry_sdk.integrations.starlette import StarletteIntegration
from werkzeug.test import EnvironBuilder, run_wsgi_app

from tests.adapters.applications import in_django, in_fastapi, in_flask, in_starlette
from tests.adapters.applications.error_tracker import recorded_errors
from tests.adapters.applications.routes import CAUGHT
from token_guard import Issuer, ResourceServer
from token_guard.testing import LocalIssuer

ISSUER = LocalIssuer()
UNREACHABLE = LocalIssuer("https://unreachable.example/")
TRANSPORT = UNREACHABLE.transport()
TRANSPORT.failing = True
ORGANIZER = ResourceServer(
    issuer=[Issuer(ISSUER.url, jwks=ISSUER.jwks()), Issuer(UNREACHABLE.url)],
    audience="organize",
    transport=TRANSPORT,
    monotonic=lambda: 0.0,  # no time passes: the first failure to fetch keys is the only one
)
OF_REFUSALS = {"www-authenticate", "access-control-expose-headers", "cache-control", "retry-after"}

# What a row expects


@dataclass(frozen=True)
class Answer:
    """What a client gets. Of an answer that is the framework's own, `body` is None: the words are not ours."""

    status: int
    reason: str | None = None  # of the refusal, as the log has it
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None


def text(body: str) -> Answer:
    return Answer(200, body=body.encode())


def refused(status: int, reason: str, body: dict[str, str], **parameters: str) -> Answer:
    """Return a refusal whose challenge has `parameters` after the realm."""
    challenge = ", ".join(f'{name}="{value}"' for name, value in {"realm": "api", **parameters}.items())
    headers = {"www-authenticate": f"Bearer {challenge}", "access-control-expose-headers": "WWW-Authenticate"}
    return with_body(Answer(status, reason, headers), body)


def with_body(answer: Answer, content: dict[str, str]) -> Answer:
    body = json.dumps(content).encode()
    about = {"content-type": "application/json", "cache-control": "no-store", "content-length": str(len(body))}
    return replace(answer, headers={**answer.headers, **about}, body=body)


def error(status: int, reason: str, code: str, description: str, **parameters: str) -> Answer:
    said = {"error": code, "error_description": description}
    return refused(status, reason, said, **said, **parameters)


def head(answer: Answer) -> Answer:
    """Return the answer to HEAD where `answer` is that to GET."""
    return replace(answer, body=b"")


MISSING = refused(401, "missing_token", {})
MALFORMED_REQUEST = error(
    400, "malformed_request", "invalid_request", "The Authorization header must hold one Bearer token"
)
NEEDS_READ = error(
    403,
    "insufficient_scope",
    "insufficient_scope",
    "The access token lacks a scope that this operation needs",
    scope="read:contacts",
)
UNAVAILABLE = with_body(
    Answer(503, "keys_unavailable", {"retry-after": "1"}),
    {"error": "temporarily_unavailable", "error_description": "The access token cannot be checked at the moment"},
)


def invalid(reason: str, description: str = "The access token is not accepted by this API") -> Answer:
    return error(401, reason, "invalid_token", description)


# The table


@dataclass(frozen=True)
class Row:
    """A request and its answer. It may need a "guard" around all routes, or a "mark" that opens a single one."""

    answer: Answer
    path: str = "/contacts"
    authorization: tuple[str, ...] = ()
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    needs: str = ""


def bearer(token: str) -> tuple[str, ...]:
    return (f"Bearer {token}",)


GOOD = bearer(ISSUER.token("read:contacts", subject="alice"))
WEAK = bearer(ISSUER.token("read:calendar", subject="alice"))
PREFLIGHT = (("Origin", "https://app.example"), ("Access-Control-Request-Method", "GET"))
ALICE = text("alice")

ROWS = {
    "no header": Row(MISSING),
    "no header, no requirement": Row(MISSING, "/me"),
    "Basic": Row(MISSING, authorization=("Basic dXNlcjpwYXNz",)),
    "Bearer": Row(MALFORMED_REQUEST, authorization=("Bearer",)),
    "Bearer a b": Row(MALFORMED_REQUEST, authorization=("Bearer a b",)),
    "two Authorization headers": Row(MALFORMED_REQUEST, authorization=GOOD + GOOD),
    "junk token": Row(invalid("malformed", "The access token is malformed"), authorization=bearer("junk")),
    "expired": Row(invalid("expired", "The access token expired"), authorization=bearer(ISSUER.expired())),
    "wrong audience": Row(invalid("wrong_audience"), authorization=bearer(ISSUER.token(audience="reports"))),
    "wrong issuer": Row(invalid("wrong_issuer"), authorization=bearer(ISSUER.token(issuer="https://other.example/"))),
    "unknown key": Row(invalid("unknown_key"), authorization=bearer(ISSUER.unknown_key())),
    "stranger's signature": Row(invalid("bad_signature"), authorization=bearer(ISSUER.signed_by_stranger())),
    "keys unavailable": Row(UNAVAILABLE, authorization=bearer(UNREACHABLE.token())),
    "good token": Row(ALICE, authorization=GOOD),
    "good token, no requirement": Row(ALICE, "/me", authorization=WEAK),
    "aud array": Row(ALICE, authorization=bearer(ISSUER.token(subject="alice", audience=["reports", "organize"]))),
    "lower-case scheme": Row(ALICE, authorization=(GOOD[0].replace("Bearer", "bearer"),)),
    "missing scope": Row(NEEDS_READ, authorization=WEAK),
    "any_of": Row(ALICE, "/either", authorization=bearer(ISSUER.token("read:everything", subject="alice"))),
    "any_of, none": Row(NEEDS_READ, "/either", authorization=WEAK),
    "by hand": Row(ALICE, "/by-hand", authorization=GOOD),
    "by hand, missing scope": Row(NEEDS_READ, "/by-hand", authorization=WEAK),
    "by hand, caught by the handler": Row(NEEDS_READ, "/catches", authorization=WEAK),
    "HEAD": Row(Answer(200), authorization=GOOD, method="HEAD"),
    "HEAD, no header": Row(head(MISSING), method="HEAD"),
    "HEAD, missing scope": Row(head(NEEDS_READ), authorization=WEAK, method="HEAD"),
    "HEAD, by hand": Row(head(NEEDS_READ), "/by-hand", authorization=WEAK, method="HEAD"),
    "public path": Row(text("healthy"), "/health"),
    "public path, junk token": Row(text("healthy"), "/health", authorization=bearer("junk")),
    "public route": Row(text("public"), "/public", needs="mark"),
    "public route, junk token": Row(text("public"), "/public", authorization=bearer("junk"), needs="mark"),
    "unknown path": Row(Answer(404), "/unknown", authorization=GOOD),
    "unknown path, no header": Row(MISSING, "/unknown", needs="guard"),
    "wrong method": Row(Answer(405), method="DELETE", authorization=GOOD),
    "wrong method, no header": Row(MISSING, method="DELETE", needs="guard"),
    "preflight": Row(text("passed"), "/preflight", method="OPTIONS", headers=PREFLIGHT),
    "what follows the preflight": Row(MISSING, "/preflight", headers=PREFLIGHT, needs="guard"),
    "plain OPTIONS": Row(MISSING, "/preflight", method="OPTIONS", needs="guard"),
    "plain OPTIONS with a token": Row(text("passed"), "/preflight", method="OPTIONS", authorization=GOOD),
    "handler would fail": Row(MISSING, "/fails"),
}
FAILS = Row(Answer(500), "/fails", authorization=GOOD)


# The applications

Sent = tuple[int, list[tuple[str, str]], bytes]
Ask = Callable[[Row], Sent]
Make = Callable[..., AbstractContextManager[Any]]


@contextmanager
def over_asgi(app: Any) -> Iterator[Ask]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)  # as a server does, it drops the body of a HEAD

    async def send(row: Row) -> Sent:
        request = httpx.Request(row.method, f"http://localhost{row.path}", headers=fields(row))
        response = await transport.handle_async_request(request)
        return response.status_code, response.headers.multi_items(), await response.aread()

    with asyncio.Runner() as runner:
        yield lambda row: runner.run(send(row))


@contextmanager
def over_wsgi(app: Any) -> Iterator[Ask]:
    def ask(row: Row) -> Sent:
        environ = EnvironBuilder(row.path, method=row.method, headers=fields(row)).get_environ()
        try:
            pieces, status, headers = run_wsgi_app(app, environ, buffered=True)
        except LookupError:  # In its debug mode Flask leaves what a handler raises to the server, which answers 500.
            return 500, [], b""
        return int(status.split()[0]), headers.to_wsgi_list(), b"".join(pieces)

    yield ask


def fields(row: Row) -> list[tuple[str, str]]:
    return [*(("Authorization", value) for value in row.authorization), *row.headers]


def always(make: Callable[..., Any]) -> Make:
    """Return a maker of an application that needs nothing around it while it is used."""
    return lambda **options: nullcontext(make(**options))


@dataclass(frozen=True)
class Variant:
    """The application in one framework, how it is asked, and what it has of that which rows need."""

    make: Make
    ask: Callable[[Any], AbstractContextManager[Ask]]
    has: frozenset[str]


GUARD, MARK = frozenset({"", "guard"}), frozenset({"", "mark"})
VARIANTS = {
    "Starlette": Variant(always(in_starlette.application), over_asgi, GUARD),
    "mounted Starlette": Variant(always(in_starlette.mounted), over_asgi, GUARD),
    "FastAPI": Variant(always(in_fastapi.application), over_asgi, MARK),
    "FastAPI behind a guard": Variant(always(in_fastapi.behind_guard), over_asgi, GUARD),
    "Flask": Variant(always(in_flask.application), over_wsgi, GUARD | MARK),
    "Flask behind a gateway": Variant(always(in_flask.behind_gateway), over_asgi, GUARD | MARK),
    "Django under WSGI": Variant(partial(in_django.application, asgi=False), over_wsgi, GUARD | MARK),
    "Django under ASGI": Variant(partial(in_django.application, asgi=True), over_asgi, GUARD | MARK),
}
MODES = {
    "plain": {"catches": False, "debug": False},
    "catch-all": {"catches": True, "debug": False},
    "debug": {"catches": False, "debug": True},
    "error tracker": {"catches": False, "debug": False},
}
INTEGRATIONS = (DjangoIntegration, FastApiIntegration, FlaskIntegration, StarletteIntegration)

in_every_variant = pytest.mark.parametrize("name", VARIANTS)
sync_and_async = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
in_every_mode = pytest.mark.parametrize("mode", MODES)


@contextmanager
def running(name: str, asynchronous: bool, mode: str) -> Iterator[tuple[Ask, list[Any]]]:
    """Run the application; yield how to ask it, and the errors that the error tracker records in its mode."""
    variant = VARIANTS[name]
    tracker: AbstractContextManager[list[Any]] = nullcontext([])
    if mode == "error tracker":
        tracker = recorded_errors(*(integration() for integration in INTEGRATIONS))
    with (
        tracker as errors,
        variant.make(server=ORGANIZER, asynchronous=asynchronous, **MODES[mode]) as app,
        variant.ask(app) as ask,
    ):
        yield ask, errors


def observe(ask: Ask, row: Row, caplog: pytest.LogCaptureFixture) -> Answer:
    """Return the answer to a row, without what is the framework's own and no row can expect."""
    caplog.clear()
    status, pairs, body = ask(row)
    headers = {name.lower(): value for name, value in pairs}
    assert len(headers) == len(pairs), "a header field is repeated"
    reasons = [record.__dict__["reason"] for record in caplog.records if "reason" in record.__dict__]
    if not row.answer.headers:
        headers = {name: value for name, value in headers.items() if name in OF_REFUSALS}
    return Answer(status, ", ".join(reasons) or None, headers, None if row.answer.body is None else body)


@in_every_mode
@sync_and_async
@in_every_variant
def test_gives_the_same_answers(name: str, asynchronous: bool, mode: str, caplog: pytest.LogCaptureFixture) -> None:
    """Every row has its answer, whatever the application catches and shows; no error is logged, and none is tracked."""
    caplog.set_level(logging.INFO, "token_guard")
    rows = {title: row for title, row in ROWS.items() if row.needs in VARIANTS[name].has}
    answers, logged = {}, []
    with running(name, asynchronous, mode) as (ask, tracked):
        for title, row in rows.items():
            answers[title] = observe(ask, row, caplog)
            logged += [(title, record) for record in caplog.records if record.levelno >= logging.ERROR]
    assert answers == {title: row.answer for title, row in rows.items()}
    assert logged == []
    assert tracked == []


@in_every_mode
@sync_and_async
@in_every_variant
def test_leaves_failures_to_the_application(
    name: str, asynchronous: bool, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A handler that fails on its own is a 500 without anything of a refusal, for the application to catch."""
    with running(name, asynchronous, mode) as (ask, tracked):
        assert observe(ask, FAILS, caplog) == FAILS.answer
        assert (CAUGHT[0].encode() in ask(FAILS)) == MODES[mode]["catches"]
    assert bool(tracked) == (mode == "error tracker")
