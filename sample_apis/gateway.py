"""One ASGI application that fronts both services: `python -m sample_apis.gateway`, on port 8000 by default.

    /contacts...    the contacts service (Flask, through a2wsgi)
    /calendars...   the calendars service
    /healthz        public: the one resource server of both

There is one resource server, so one set of keys. The gateway has no guard of its own: each service brings its guard,
and a path that belongs to neither is a plain 404. A path is passed on whole, so no service needs to know of it.
"""

from typing import Any

from a2wsgi import WSGIMiddleware
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sample_apis.calendars import app as calendars
from sample_apis.calendars.store import EventStore
from sample_apis.contacts import app as contacts
from sample_apis.contacts.store import ContactStore
from sample_apis.organizer import health_in_words
from sample_apis.service import run, serve_asgi
from sample_apis.settings import Environ, open_store
from token_guard import ResourceServer


def create_app(organizer: ResourceServer, contact_store: ContactStore, event_store: EventStore) -> Starlette:
    """Return the services behind one address."""

    async def healthz(request: Request) -> Response:
        return JSONResponse(health_in_words(organizer))

    flask_app = contacts.create_app(organizer, contact_store)

    def wsgi_app(environ: Any, start_response: Any) -> Any:  # a2wsgi spells the types of WSGI its own way
        # a2wsgi does not say that its input ends by itself, so Flask would take a chunked body for an empty one.
        environ["wsgi.input_terminated"] = True
        return flask_app(environ, start_response)

    services: dict[str, Any] = {
        "/contacts": WSGIMiddleware(wsgi_app),
        "/calendars": calendars.create_app(organizer, event_store),
    }
    routes = [Route("/healthz", healthz)]
    # A Route, not a Mount: a Mount would cut the prefix off, and it is part of the services' own paths.
    for path, service in services.items():
        routes += [Route(path, service), Route(f"{path}/{{rest:path}}", service)]
    return Starlette(routes=routes, exception_handlers=calendars.EXCEPTION_HANDLERS)


def build(organizer: ResourceServer, environ: Environ) -> Starlette:
    return create_app(
        organizer,
        open_store("contacts", environ, ContactStore),
        open_store("calendars", environ, EventStore),
    )


if __name__ == "__main__":
    run("gateway", default_port=8000, build=build, serve=serve_asgi)
