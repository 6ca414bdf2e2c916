"""The contacts service: what each route needs, reads and answers. SQL is in `store.py`.

    GET    /contacts        read:contacts      a page of contacts by name; ?limit= and ?after=
    POST   /contacts        create:contacts    a new contact
    GET    /contacts/{id}   read:contacts
    PUT    /contacts/{id}   create:contacts    replaces the whole contact
    DELETE /contacts/{id}   delete:contacts
    GET    /healthz         public

The paths are whole, so an address is the same whether the service runs alone or behind the gateway.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from uuid import UUID

from flask import Blueprint, Flask, Response, current_app, request, url_for
from werkzeug.exceptions import HTTPException

from sample_apis.contacts.store import ContactStore
from sample_apis.organizer import health_in_words
from sample_apis.ownership import owner_of
from sample_apis.pagination import PAGE_QUERY
from sample_apis.problems import PROBLEM_JSON, Problem
from sample_apis.validation import MAX_BODY, Reader, email, optional, phone, read_fields, read_json, text
from token_guard import ResourceServer, current_access_token, public, requires_scope
from token_guard_flask import TokenGuard

CONTACT: Mapping[str, Reader] = {"name": text(200), "email": optional(email), "phone": optional(phone)}

contacts = Blueprint("contacts", __name__)


def create_app(organizer: ResourceServer, store: ContactStore) -> Flask:
    """Return the service as a WSGI application: every route needs a token, except those marked `@public`."""
    app = Flask(__name__)
    app.extensions["contact_store"] = store
    app.register_blueprint(contacts)
    app.register_error_handler(Problem, answer_problem)
    app.register_error_handler(HTTPException, answer_http_exception)

    @app.get("/healthz")
    @public
    def healthz() -> dict[str, object]:
        return health_in_words(organizer)

    TokenGuard(app, organizer)
    return app


@contacts.get("/contacts")
@requires_scope("read:contacts")
def list_contacts() -> dict[str, object]:
    query = request.args.to_dict()
    page = stored().list(owner_of(current_access_token()), **read_fields(query, PAGE_QUERY))
    return page.as_dict(url_for(".list_contacts"), query)


@contacts.post("/contacts")
@requires_scope("create:contacts")
def create_contact() -> tuple[dict[str, object], int, dict[str, str]]:
    contact = stored().add(owner_of(current_access_token()), **sent_contact())
    return asdict(contact), 201, {"Location": url_for(".read_contact", contact_id=contact.id)}


@contacts.get("/contacts/<uuid:contact_id>")
@requires_scope("read:contacts")
def read_contact(contact_id: UUID) -> dict[str, object]:
    return asdict(stored().get(owner_of(current_access_token()), str(contact_id)))


@contacts.put("/contacts/<uuid:contact_id>")
@requires_scope("create:contacts")
def replace_contact(contact_id: UUID) -> dict[str, object]:
    return asdict(stored().replace(owner_of(current_access_token()), str(contact_id), **sent_contact()))


@contacts.delete("/contacts/<uuid:contact_id>")
@requires_scope("delete:contacts")
def delete_contact(contact_id: UUID) -> tuple[str, int]:
    stored().delete(owner_of(current_access_token()), str(contact_id))
    return "", 204


def stored() -> ContactStore:
    store: ContactStore = current_app.extensions["contact_store"]
    return store


def sent_contact() -> dict[str, Any]:
    return read_fields(read_json(request.content_type, request.stream.read(MAX_BODY + 1)), CONTACT)


def answer_problem(problem: Problem) -> Response:
    return Response(problem.body(), problem.status, problem.headers, content_type=PROBLEM_JSON)


def answer_http_exception(error: HTTPException) -> Response:
    """Answer Flask's own errors in the house style. Our own failures arrive here as a 500 that Flask has logged."""
    headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
    return answer_problem(Problem(error.code or 500, error.description or "", headers=headers))
