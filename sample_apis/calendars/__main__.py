"""Run the calendars service: `python -m sample_apis.calendars`, on port 8002 unless CALENDARS_PORT says otherwise."""

from starlette.applications import Starlette

from sample_apis.calendars.app import create_app
from sample_apis.calendars.store import EventStore
from sample_apis.service import run, serve_asgi
from sample_apis.settings import Environ, open_store
from token_guard import ResourceServer


def build(organizer: ResourceServer, environ: Environ) -> Starlette:
    return create_app(organizer, open_store("calendars", environ, EventStore))


if __name__ == "__main__":
    run("calendars", default_port=8002, build=build, serve=serve_asgi)
