"""The calendars service: what each route needs, reads and answers. SQL is in `store.py`.

    GET    /calendars/events        read:calendar      a page of events by start; ?from= &to= &limit= &after=
    POST   /calendars/events        create:calendar    a new event
    GET    /calendars/events/{id}   read:calendar
    PUT    /calendars/events/{id}   create:calendar    replaces the whole event
    DELETE /calendars/events/{id}   delete:calendar
    GET    /healthz                 public

The paths are whole, so an address is the same whether the service runs alone or behind the gateway. The store blocks,
so it is called in a thread: the event loop never waits for the disk.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sample_apis.calendars.store import EventStore
from sample_apis.organizer import health_in_words
from sample_apis.ownership import owner_of
from sample_apis.pagination import PAGE_QUERY
from sample_apis.problems import PROBLEM_JSON, InvalidFields, Problem
from sample_apis.validation import MAX_BODY, Reader, moment, optional, read_fields, read_json, text
from token_guard import ResourceServer, current_access_token, requires_scope
from token_guard_asgi import TokenGuardMiddleware

EVENT: Mapping[str, Reader] = {
    "title": text(200),
    "location": optional(text(200)),
    "starts_at": moment,
    "ends_at": moment,
}

LIST_QUERY: Mapping[str, Reader] = {
    "from": optional(moment, "0001-01-01T00:00:00Z"),
    "to": optional(moment, "9999-12-31T23:59:60Z"),  # sorts behind every moment that can be sent
    **PAGE_QUERY,
}


def create_app(organizer: ResourceServer, store: EventStore) -> Starlette:
    """Return the service as an ASGI application: every route needs a token, except the public path."""
    app = Starlette(
        routes=[
            Route("/calendars/events", Events),
            Route("/calendars/events/{id:uuid}", OneEvent, name="event"),
            Route("/healthz", healthz),
        ],
        middleware=[Middleware(TokenGuardMiddleware, resource_server=organizer, public_paths=["/healthz"])],
        exception_handlers=EXCEPTION_HANDLERS,
    )
    app.state.organizer = organizer
    app.state.store = store
    return app


class Events(HTTPEndpoint):
    @requires_scope("read:calendar")
    async def get(self, request: Request) -> Response:
        query = read_fields(request.query_params, LIST_QUERY)
        begin, end = query.pop("from"), query.pop("to")
        if begin >= end:
            raise InvalidFields({"to": "Send a moment later than `from`."})
        owner = owner_of(current_access_token())
        page = await run_in_threadpool(stored(request).list, owner, begin=begin, end=end, **query)
        return JSONResponse(page.as_dict(request.url.path, request.query_params))

    @requires_scope("create:calendar")
    async def post(self, request: Request) -> Response:
        owner = owner_of(current_access_token())
        event = await run_in_threadpool(stored(request).add, owner, **await sent_event(request))
        location = request.app.url_path_for("event", id=event.id)
        return JSONResponse(asdict(event), 201, {"Location": location})


class OneEvent(HTTPEndpoint):
    @requires_scope("read:calendar")
    async def get(self, request: Request) -> Response:
        owner = owner_of(current_access_token())
        return JSONResponse(asdict(await run_in_threadpool(stored(request).get, owner, event_id(request))))

    @requires_scope("create:calendar")
    async def put(self, request: Request) -> Response:
        owner = owner_of(current_access_token())
        fields = await sent_event(request)
        event = await run_in_threadpool(stored(request).replace, owner, event_id(request), **fields)
        return JSONResponse(asdict(event))

    @requires_scope("delete:calendar")
    async def delete(self, request: Request) -> Response:
        owner = owner_of(current_access_token())
        await run_in_threadpool(stored(request).delete, owner, event_id(request))
        return Response(status_code=204)


async def healthz(request: Request) -> Response:
    return JSONResponse(health_in_words(request.app.state.organizer))


def stored(request: Request) -> EventStore:
    store: EventStore = request.app.state.store
    return store


def event_id(request: Request) -> str:
    return str(request.path_params["id"])


async def sent_event(request: Request) -> dict[str, Any]:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            break
    event = read_fields(read_json(request.headers.get("Content-Type"), bytes(body)), EVENT)
    if event["starts_at"] >= event["ends_at"]:
        raise InvalidFields({"ends_at": "Send a moment later than `starts_at`."})
    return event


async def answer_problem(request: Request, problem: Problem) -> Response:
    return Response(problem.body(), problem.status, problem.headers, media_type=PROBLEM_JSON)


async def answer_http_exception(request: Request, error: HTTPException) -> Response:
    """Answer Starlette's own errors in the house style."""
    return await answer_problem(request, Problem(error.status_code, error.detail, headers=error.headers))


async def answer_failure(request: Request, error: Exception) -> Response:
    """Answer a failure of our own without its cause, which the server logs."""
    return await answer_problem(request, Problem(500, "The service failed. The cause is in its log."))


# Starlette types every handler as one of any Exception, so the table is where the types end.
EXCEPTION_HANDLERS: Mapping[Any, Any] = {
    Problem: answer_problem,
    HTTPException: answer_http_exception,
    Exception: answer_failure,
}
