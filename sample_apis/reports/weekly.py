"""The weekly report, made of what contacts and calendars answer on behalf of the user. Knows no web framework.

Every way in which the other services, or the authorization server, can fail becomes an answer that says whose turn it
is: the user's (403), nobody's but time's (503), or ours (502).
"""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import httpx

from sample_apis.problems import Problem
from token_guard import ExchangeRefused, TemporarilyUnavailable

PAGE = 100  # items: as many as the services give at once

# What the user can mend by logging in once more (RFC 6749 5.2, OpenID Connect Core 3.1.2.6). All else is our mistake.
USERS_TURN = {"consent_required", "interaction_required", "invalid_grant", "login_required"}

Item = dict[str, Any]


class Source:
    """A service that is asked on behalf of the user of the current request. `client` sends the token that it needs."""

    def __init__(self, name: str, client: httpx.Client) -> None:
        self._name = name
        self._client = client

    def items(self, path: str, **query: str) -> Iterator[Item]:
        """Yield everything in a list, page by page.

        Raises:
            Problem: there is no list, and why.
        """
        following: str | None = str(httpx.URL(path, params={**query, "limit": PAGE}))
        while following:
            page = self._page(following)
            yield from page["items"]
            following = page["next"]

    def _page(self, address: str) -> Item:
        try:
            answer = self._client.get(address)
        except ExchangeRefused as refused:
            raise self._not_granted(refused) from refused
        except TemporarilyUnavailable as error:
            detail = "The authorization server does not answer. Try again."
            raise _busy(detail, str(max(1, round(error.retry_after)))) from error
        except httpx.RequestError as error:
            raise _busy(f"The {self._name} service does not answer. Try again.", "1") from error
        if answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
            raise _busy(f"The {self._name} service is busy. Try again.", answer.headers.get("Retry-After", "1"))
        if answer.status_code == HTTPStatus.FORBIDDEN:
            raise Problem(HTTPStatus.FORBIDDEN, f"The {self._name} service does not let reports read for you.")
        try:
            page = answer.raise_for_status().json()
            # Of the next address the path alone: a token goes to no host that an answer names.
            following = page["next"] and httpx.URL(page["next"]).raw_path.decode()
            if following is not None and not following.startswith("/"):
                raise ValueError("the next address has no path")
            return {"items": list(page["items"]), "next": following}
        except (httpx.HTTPStatusError, httpx.InvalidURL, ValueError, TypeError, KeyError) as error:
            detail = f"The {self._name} service did not answer with a list, but with {answer.status_code}."
            raise Problem(HTTPStatus.BAD_GATEWAY, detail) from error

    def _not_granted(self, refused: ExchangeRefused) -> Problem:
        words = f"{refused.error}: {refused.description}" if refused.description else refused.error
        if refused.error in USERS_TURN:
            detail = f"You have to allow, or log in once more, that reports read {self._name} for you ({words})."
            return Problem(HTTPStatus.FORBIDDEN, detail)
        # What only the operator can mend is told by its code; the words are in the log.
        detail = f"The authorization server refused a token for {self._name} ({refused.error})."
        return Problem(HTTPStatus.BAD_GATEWAY, detail)


def weekly_report(contacts: Source, calendars: Source, begin: str, end: str) -> Item:
    """Return the week's events by their start, each with the contacts whose names are in its title.

    Raises:
        Problem: a service could not be read.
    """
    known = list(contacts.items("/contacts"))
    events = calendars.items("/calendars/events", **{"from": begin, "to": end})
    return {
        "from": begin,
        "to": end,
        "contacts": len(known),
        "events": [_with_contacts(event, known) for event in events],
    }


def _with_contacts(event: Item, known: list[Item]) -> Item:
    told = {name: event[name] for name in ("title", "location", "starts_at", "ends_at")}
    named = [contact for contact in known if contact["name"].casefold() in event["title"].casefold()]
    return {**told, "with": [{name: contact[name] for name in ("name", "email", "phone")} for contact in named]}


def _busy(detail: str, retry_after: str) -> Problem:
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": retry_after})
