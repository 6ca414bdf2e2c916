"""Run the server of the single-page app: `python -m sample_apis.web`, on port 8080 unless WEB_PORT says otherwise.

Further settings: WEB_DOMAIN (the authorization server), WEB_CLIENT_ID, WEB_CONTACTS, WEB_CALENDARS, WEB_REPORTS and
WEB_BACKEND (where these are).
"""

from starlette.applications import Starlette

from sample_apis.settings import Environ
from sample_apis.web.app import Addresses, create_app
from sample_apis.web.server import run_app


def build(environ: Environ) -> Starlette:
    return create_app(Addresses.from_environ(environ), environ.get("WEB_CLIENT_ID") or "organizer-spa")


if __name__ == "__main__":
    run_app("web", default_port=8080, build=build)
