"""Run the app with a backend: `python -m sample_apis.web_backend`, on port 8090 unless WEB_BACKEND_PORT says otherwise.

Further settings: WEB_BACKEND_DOMAIN (the authorization server), WEB_BACKEND_ORIGIN (the address that browsers use),
WEB_BACKEND_CLIENT_ID, WEB_BACKEND_CLIENT_SECRET, and WEB_BACKEND_CONTACTS, WEB_BACKEND_CALENDARS, WEB_BACKEND_REPORTS
(where these are).
"""

from starlette.applications import Starlette

from sample_apis.settings import Environ
from sample_apis.web.server import read_origin, run_app
from sample_apis.web_backend.app import Call, create_app
from sample_apis.web_backend.login import Login, Registration

DEFAULT_PORT = 8090


def build(environ: Environ) -> Starlette:
    origin = read_origin("WEB_BACKEND_ORIGIN", environ, f"http://localhost:{DEFAULT_PORT}")
    registration = Registration(
        domain=read_origin("WEB_BACKEND_DOMAIN", environ, "http://localhost:9400"),
        client_id=environ.get("WEB_BACKEND_CLIENT_ID") or "organizer-web",
        client_secret=environ.get("WEB_BACKEND_CLIENT_SECRET") or "organizer-web-secret",
        redirect_uri=f"{origin}/callback",
    )
    contacts = read_origin("WEB_BACKEND_CONTACTS", environ, "http://localhost:8001")
    calendars = read_origin("WEB_BACKEND_CALENDARS", environ, "http://localhost:8002")
    reports = read_origin("WEB_BACKEND_REPORTS", environ, "http://localhost:8003")
    calls = (
        Call("contacts", "Call contacts", f"{contacts}/contacts", "organize"),
        Call("calendars", "Call calendars", f"{calendars}/calendars/events", "organize"),
        Call("report", "Weekly report", f"{reports}/reports/weekly", "reports"),
    )
    return create_app(Login(registration), calls, origin=origin)


if __name__ == "__main__":
    run_app("web_backend", default_port=DEFAULT_PORT, build=build)
