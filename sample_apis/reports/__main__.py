"""Run the reports service: `python -m sample_apis.reports`, on port 8003 unless REPORTS_PORT says otherwise."""

import django
import httpx
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler

from sample_apis.organizer import AUDIENCE as ORGANIZER
from sample_apis.organizer import resource_server_from_env
from sample_apis.reports.app import AUDIENCE, REALM, django_settings
from sample_apis.reports.weekly import Source
from sample_apis.service import run, serve_wsgi
from sample_apis.settings import Environ, read_url, require
from token_guard import OnBehalfOf, ResourceServer


def build(reports: ResourceServer, environ: Environ) -> WSGIHandler:
    def source(name: str, scope: str, default_port: int) -> Source:
        """Return a service that is called with tokens of the least scope for it."""
        on_behalf_of = OnBehalfOf(
            reports,
            client_id=environ.get("REPORTS_CLIENT_ID") or "reports-api",
            client_secret=require("REPORTS_CLIENT_SECRET", environ, "the secret of this API's client"),
            audience=environ.get("REPORTS_TARGET_AUDIENCE") or ORGANIZER,
            scopes=scope,
        )
        address = read_url(f"REPORTS_{name.upper()}_URL", environ, default=f"http://127.0.0.1:{default_port}")
        return Source(name, httpx.Client(auth=on_behalf_of, base_url=address))

    contacts, calendars = source("contacts", "read:contacts", 8001), source("calendars", "read:calendar", 8002)
    settings.configure(**django_settings(reports, contacts, calendars))
    django.setup()
    return WSGIHandler()


if __name__ == "__main__":
    run(
        "reports",
        default_port=8003,
        resource_server_from_env=lambda environ: resource_server_from_env(environ, audience=AUDIENCE, realm=REALM),
        build=build,
        serve=serve_wsgi,
    )
