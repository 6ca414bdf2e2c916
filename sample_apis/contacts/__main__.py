"""Run the contacts service: `python -m sample_apis.contacts`, on port 8001 unless CONTACTS_PORT says otherwise."""

from flask import Flask

from sample_apis.contacts.app import create_app
from sample_apis.contacts.store import ContactStore
from sample_apis.service import run, serve_wsgi
from sample_apis.settings import Environ, open_store
from token_guard import ResourceServer


def build(organizer: ResourceServer, environ: Environ) -> Flask:
    return create_app(organizer, open_store("contacts", environ, ContactStore))


if __name__ == "__main__":
    run("contacts", default_port=8001, build=build, serve=serve_wsgi)
