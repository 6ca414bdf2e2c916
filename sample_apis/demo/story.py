"""The story: what is asked, with which token, and what must come of it. Knows no printing and no processes.

It reads from top to bottom: what stands between two steps (a rotated key, a stopped issuer) happens between them.
"""

import shlex
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx

from sample_apis.demo.narrator import Tell
from sample_apis.demo.stage import CLIENT_ID, Stage
from sample_apis.organizer import AUDIENCE

READ_BOTH = "read:contacts read:calendar"

CONTACT = {"name": "Front desk", "email": "desk@example.com"}
EVENT = {"title": "Weekly review", "starts_at": "2027-01-04T09:00:00Z", "ends_at": "2027-01-04T10:00:00Z"}


def ask(method: str, url: str, token: str | None = None, **content: Any) -> httpx.Request:
    """Make a request with a bearer token; `content` is `json` or `data`, as httpx takes it."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx.Request(method, url, headers=headers, **content)


def scopes_tell_services_apart(stage: Stage, tell: Tell) -> None:
    mint = stage.issuer.token
    contacts, events = stage.contact_list, stage.event_list
    tell("No token", "Every route is closed unless it is marked public.", ask("GET", contacts), "401 missing_token")
    adding = ask("POST", contacts, mint("create:contacts"), json=CONTACT)
    tell("Add a contact", "To create is a scope of its own, and so is to delete.", adding, "201")
    adding = ask("POST", events, mint("create:calendar"), json=EVENT)
    tell("Add an event", "Calendars is another process, and guards the same audience.", adding, "201")

    token = mint("read:contacts")
    why = "The token has the scope that this route needs."
    tell("read:contacts at contacts", why, ask("GET", contacts, token), "200")
    why = "The same token is genuine here too, but lacks a scope: 403, and the challenge names the scope."
    tell("read:contacts at calendars", why, ask("GET", events, token), "403 scope read:calendar")

    token = mint(READ_BOTH)
    why = "One token serves both services, because both are one audience."
    tell("Both scopes at contacts", why, ask("GET", contacts, token), "200")
    tell("Both scopes at calendars", "The same token, at the other service.", ask("GET", events, token), "200")
    gateway = stage.gateway.url
    why = "The gateway has both services under one address: the same token and the same answer."
    tell("Gateway to contacts", why, ask("GET", f"{gateway}/contacts", token), "200")
    why = "Contacts is written with Flask, calendars with Starlette; their refusals are alike."
    tell("Gateway to calendars", why, ask("GET", f"{gateway}/calendars/events", token), "200")


def clients_get_tokens(stage: Stage, tell: Tell) -> None:
    form = {
        "grant_type": "client_credentials",
        "client_id": CLIENT_ID,
        "client_secret": stage.issuer.clients[CLIENT_ID].secret,
        "audience": AUDIENCE,
    }
    why = "A client that acts for itself gets its token here, by client credentials."
    grant = tell("The token endpoint", why, ask("POST", token_endpoint(stage), data=form), "200 Bearer 86400")
    token = grant.json().get("access_token")
    why = "The client is a subject of its own, and has no contacts yet."
    tell("The client's own token", why, ask("GET", stage.contact_list, token), "200")


def tokens_good_and_bad(stage: Stage, tell: Tell) -> None:
    issuer = stage.issuer
    for title, why, token, expected in (
        ("aud is a string", "The usual form of the claim.", issuer.token(audience=AUDIENCE), "200"),
        (
            "aud is an array",
            "It is enough that one member names this API.",
            issuer.token(audience=["https://reports.example/", AUDIENCE]),
            "200",
        ),
        (
            "aud is another API",
            "A token for another API is refused, whatever its scope.",
            issuer.token(audience="https://reports.example/"),
            "401 wrong_audience",
        ),
        ("Expired", "The answer says so, since the client can get a new one.", issuer.expired(), "401 expired"),
        (
            "Tampered",
            "The last letter of the subject was changed, and the signature no longer fits.",
            issuer.tampered(issuer.token()),
            "401 bad_signature",
        ),
        (
            "Signed by a stranger",
            "It names the issuer's key, but another key signed it.",
            issuer.signed_by_stranger(),
            "401 bad_signature",
        ),
        (
            "Custom domain",
            "The issuer's other name is trusted, too. To the sample, its subjects are other people: no contacts.",
            issuer.token(issuer=issuer.custom_domain),
            "200",
        ),
    ):
        tell(title, why, ask("GET", stage.contact_list, token), expected)


def keys_come_and_go(stage: Stage, tell: Tell) -> None:
    issuer = stage.issuer
    issuer.rotate()
    why = "The issuer now signs with a key that the service has never seen: it fetches the keys, once."
    tell("Key rotated", why, ask("GET", stage.contact_list, issuer.token()), "200")

    port = urlsplit(issuer.url).port or 0
    issuer.stop()
    why = "Nobody answers at the issuer's address, but the service holds its keys."
    tell("Issuer stopped: contacts", why, ask("GET", stage.contact_list, issuer.token()), "200")
    why = "So does calendars: those from before the rotation, and this token is of the old key."
    old = issuer.token("read:calendar", key=issuer.keys[0])
    tell("Issuer stopped: calendars", why, ask("GET", stage.event_list, old), "200")

    stage.contacts.restart()
    why = "Without keys it cannot tell a good token from a bad one: that is a 503, not a 401."
    answer = tell("And contacts restarted", why, ask("GET", stage.contact_list, issuer.token()), "503 with Retry-After")

    issuer.start(port)
    time.sleep(int(answer.headers.get("Retry-After", 1)))
    why = "After the seconds of Retry-After the service gets the keys; nobody restarts it."
    tell("Issuer back", why, ask("GET", stage.contact_list, issuer.token()), "200")


CHAPTERS: tuple[Callable[[Stage, Tell], None], ...] = (
    scopes_tell_services_apart,
    clients_get_tokens,
    tokens_good_and_bad,
    keys_come_and_go,
)


def token_endpoint(stage: Stage) -> str:
    endpoint: str = stage.issuer.metadata()["token_endpoint"]
    return endpoint


def curl_commands(stage: Stage) -> Iterator[tuple[str, str]]:
    """Yield what each command shows, and the command with a real token, which is good for a day."""

    def curl(url: str, scope: str, *options: str) -> str:
        token = stage.issuer.token(scope)
        return shlex.join(["curl", "-i", url, "-H", f"Authorization: Bearer {token}", *options])

    yield "200: the contacts", curl(stage.contact_list, "read:contacts")
    yield "403: the same scope at calendars", curl(stage.event_list, "read:contacts")
    yield "200: both scopes, through the gateway", curl(f"{stage.gateway.url}/calendars/events", READ_BOTH)
    yield "401: no token", shlex.join(["curl", "-i", stage.contact_list])
    contact = ("-H", "Content-Type: application/json", "-d", '{"name": "Reception"}')
    yield "201: a new contact", curl(stage.contact_list, "create:contacts", *contact)
    credentials = f"{CLIENT_ID}:{stage.issuer.clients[CLIENT_ID].secret}"
    form = ("-d", "grant_type=client_credentials", "-d", f"audience={AUDIENCE}")
    yield "200: a token for a client", shlex.join(["curl", "-i", token_endpoint(stage), "-u", credentials, *form])
