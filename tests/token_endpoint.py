"""A token endpoint for tests of who asks it for what: everything that it is sent is kept."""

import asyncio
import threading
from typing import Any
from urllib.parse import parse_qsl

import httpx
import jwt

from token_guard.exchange import ACCESS_TOKEN_TYPE
from token_guard.testing import LocalIssuer
from token_guard.testing.server import answer as issuer_answer


class TokenEndpoint(httpx.AsyncBaseTransport):
    """The issuer with a token endpoint that grants everything, keeps each request, and waits while it is told to.

    What is in `changes` is merged over its answers; `answer`, where it is set, takes their place.
    """

    def __init__(self, issuer: LocalIssuer) -> None:
        self.issuer = issuer
        self.is_open = threading.Event()
        self.is_open.set()
        self.discoveries = 0
        self.requests: list[httpx.Request] = []
        self.changes: dict[str, Any] = {}
        self.answer: httpx.Response | Exception | None = None

    @property
    def forms(self) -> list[dict[str, str]]:
        """The forms that came, each without a repeated field."""
        pairs = [parse_qsl(request.content.decode(), strict_parsing=True) for request in self.requests]
        assert all(len(dict(form)) == len(form) for form in pairs)
        return [dict(form) for form in pairs]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        if request.method == "GET":
            self.discoveries += 1
            return streamed(issuer_answer(self.issuer, request))
        self.requests.append(request)
        while not self.is_open.is_set():  # noqa: ASYNC110  # the test opens it from another thread or loop
            await asyncio.sleep(0.001)
        if isinstance(self.answer, Exception):
            raise self.answer
        return streamed(self.answer or self._grant(self.forms[-1]))

    def _grant(self, form: dict[str, str]) -> httpx.Response:
        sent = form.get("subject_token") or form.get("assertion")
        claims = {"jti": str(len(self.requests)), "act": {"sub": "reports-api"}}
        subject = jwt.decode(sent, options={"verify_signature": False})["sub"] if sent else "reports-api@clients"
        token = self.issuer.token(
            form.get("scope", ""),
            subject=subject,
            client_id="reports-api",
            claims=claims,
            audience=form.get("audience"),
        )
        body = {"access_token": token, "token_type": "Bearer", "issued_token_type": ACCESS_TOKEN_TYPE}
        members = {**body, "expires_in": 3600, **self.changes}
        return httpx.Response(200, json={name: value for name, value in members.items() if value is not None})


def streamed(response: httpx.Response) -> httpx.Response:
    """The response as it comes from a socket."""
    return httpx.Response(response.status_code, headers=response.headers, stream=httpx.ByteStream(response.content))
