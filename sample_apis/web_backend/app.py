"""The app with a backend: one redirect for each API, the answers told apart by `state`. Tokens stay on the server.

    GET  /               the page
    POST /login          to the authorization server, for the Organizer's audience
    POST /authorize/API  the same for one API, when a silent request was refused
    POST /call/NAME      call an API; without a token for it, get one by a redirect with prompt=none first
    GET  /callback       the answer of the authorization server
    POST /logout         end the session, here and there

RFC 6749 10.12 (state), OpenID Connect Core 3.1.2.1 (prompt=none).
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.templating import Jinja2Templates

from sample_apis.organizer import AUDIENCE
from sample_apis.web.app import PAGES as SHARED
from sample_apis.web.app import REPORTS_AUDIENCE, REPORTS_SCOPE, SecurityHeaders, file
from sample_apis.web_backend.login import TIMEOUT, Api, Login, LoginRefused, PendingRequest
from sample_apis.web_backend.sessions import Answer, Notice, Session, Sessions

APIS: Mapping[str, Api] = {
    "organize": Api(AUDIENCE, "read:contacts read:calendar"),
    "reports": Api(REPORTS_AUDIENCE, REPORTS_SCOPE),
}
FIRST_API = "organize"  # whose redirect is the login, too
COOKIE = "organizer_web_backend"  # of its own name: the ports of localhost share their cookies
RENEW_BEFORE = 60  # seconds of a token's life that must be left

# What only a page of the authorization server can settle, in words: a visible request helps.
UNANSWERED_IN_SILENCE = {
    "login_required": "The authorization server does not know you any more. Log in again.",
    "consent_required": "This needs your consent first.",
    "interaction_required": "The authorization server has a question for you.",
}

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Call:
    """A button of the page: what it asks, and the name of the API whose token it needs."""

    name: str
    label: str
    url: str
    api: str


class Backend:
    """The endpoints and what they share."""

    def __init__(self, login: Login, calls: Sequence[Call], *, origin: str) -> None:
        self._login = login
        self._calls = {call.name: call for call in calls}
        self._origin = origin
        self._sessions = Sessions()
        self._pages = Jinja2Templates(Path(__file__).parent / "pages")

    async def show(self, request: Request) -> Response:
        session = self._session(request) or Session()
        notice, session.notice = session.notice, None
        context = {"session": session, "notice": notice, "calls": self._calls.values(), "apis": APIS}
        return self._pages.TemplateResponse(request, "page.html", context)

    async def log_in(self, request: Request) -> Response:
        return await self._send_away(request, PendingRequest(api=FIRST_API), silent=False)

    async def authorize(self, request: Request) -> Response:
        return await self._send_away(request, PendingRequest(api=known(APIS, request, "api")), silent=False)

    async def call(self, request: Request) -> Response:
        session, call = self._session(request), self._calls[known(self._calls, request, "name")]
        if session is None or session.user is None:
            return await self.log_in(request)
        grant = session.grants.get(call.api)
        if grant is None or grant.seconds_left < RENEW_BEFORE:
            return await self._send_away(request, PendingRequest(api=call.api, call=call.name), silent=True)
        await self._ask(session, call)
        return RedirectResponse("/", HTTPStatus.SEE_OTHER)

    async def receive(self, request: Request) -> Response:
        """Take the answer to the pending request that it names, once. Nothing is stored before it is believed."""
        query, session = request.query_params, self._session(request)
        pending = session.pending.pop(query.get("state", ""), None) if session else None
        if session is None or pending is None:
            raise HTTPException(
                400, "This answer belongs to no request that this browser has pending, so it is not used."
            )
        try:
            if "error" in query:
                raise LoginRefused(query.get("error_description") or query["error"])
            user, grant = await self._login.redeem(query.get("code", ""), pending)
            if session.user and user.subject != session.user.subject:
                raise LoginRefused("Somebody else has logged in there in the meantime. Log out, and log in again.")
        except LoginRefused as refusal:
            words = UNANSWERED_IN_SILENCE.get(query.get("error", ""))
            session.notice = Notice(words=words or str(refusal), retry=pending.api if words else None)
            return RedirectResponse("/", HTTPStatus.SEE_OTHER)
        session.grants[pending.api] = grant
        if session.user:
            if pending.call:
                await self._ask(session, self._calls[pending.call])
            return RedirectResponse("/", HTTPStatus.SEE_OTHER)
        session.user = user
        self._sessions.forget(request.cookies.get(COOKIE))  # so that nobody who planted the old name shares the login
        return self._with_cookie(RedirectResponse("/", HTTPStatus.SEE_OTHER), session)

    async def log_out(self, request: Request) -> Response:
        self._sessions.forget(request.cookies.get(COOKIE))
        response = RedirectResponse(self._login.logout_address(self._origin), HTTPStatus.SEE_OTHER)
        response.delete_cookie(COOKIE)
        return response

    async def refuse(self, request: Request, error: Exception) -> Response:
        words, status = (error.detail, error.status_code) if isinstance(error, HTTPException) else (str(error), 502)
        return self._pages.TemplateResponse(request, "refused.html", {"words": words}, status)

    async def _send_away(self, request: Request, pending: PendingRequest, *, silent: bool) -> Response:
        address = await self._login.address_for(pending, APIS[pending.api], silent=silent)
        session = self._session(request)
        response = RedirectResponse(address, HTTPStatus.SEE_OTHER)
        if session is None:
            session = Session()
            self._with_cookie(response, session)
        session.pending[pending.state] = pending
        return response

    async def _ask(self, session: Session, call: Call) -> None:
        token = session.grants[call.api].access_token
        headers = {"Accept": "application/json", "Authorization": f"Bearer {token}"}
        host = urlsplit(call.url).netloc
        told = f"GET {urlsplit(call.url).path} HTTP/1.1\nHost: {host}\nAuthorization: Bearer {token[:6]}…{token[-4:]}"
        try:
            async with httpx.AsyncClient(timeout=TIMEOUT) as client:
                response = await client.get(call.url, headers=headers)
        except httpx.HTTPError:
            words = f"There was no answer from {host}."
            session.show(Answer(title=call.label, request=told, status="No answer", tone="bad", answer=words))
            return
        status = f"{response.status_code} {response.reason_phrase}"
        tone = "good" if response.is_success else "warn" if response.status_code in (403, 503) else "bad"
        answer = readable(response)
        session.show(Answer(title=call.label, request=told, status=status, tone=tone, answer=answer))

    def _session(self, request: Request) -> Session | None:
        return self._sessions.find(request.cookies.get(COOKIE))

    def _with_cookie(self, response: Response, session: Session) -> Response:
        # Lax, not Strict: the answer of an authorization server on another site must find its session.
        secure = self._origin.startswith("https:")
        response.set_cookie(COOKIE, self._sessions.keep(session), httponly=True, samesite="lax", secure=secure)
        return response


def known(table: Mapping[str, object], request: Request, parameter: str) -> str:
    name: str = request.path_params[parameter]
    if name not in table:
        raise HTTPException(HTTPStatus.NOT_FOUND, "There is nothing of this name.")
    return name


def readable(response: httpx.Response) -> str:
    """Return an answer as it may be shown."""
    shown = ("Content-Type", "WWW-Authenticate", "Retry-After")
    lines = [f"{name}: {response.headers[name]}" for name in shown if name in response.headers]
    try:
        body = json.dumps(response.json(), indent=2, ensure_ascii=False)
    except ValueError:
        body = response.text
    return "\n".join([f"HTTP/1.1 {response.status_code} {response.reason_phrase}", *lines, "", body])


def from_own_pages(endpoint: Endpoint, origin: str) -> Endpoint:
    """Refuse a form that another site has sent. Every browser names the origin of a POST."""

    async def guarded(request: Request) -> Response:
        if request.headers.get("Origin") != origin:
            raise HTTPException(403, f"This form was not sent from a page of {origin}.")
        return await endpoint(request)

    return guarded


def create_app(login: Login, calls: Sequence[Call], *, origin: str) -> Starlette:
    """Return the app as an ASGI application. `origin` is its address for browsers."""
    backend = Backend(login, calls, origin=origin)

    def post(path: str, endpoint: Endpoint) -> Route:
        return Route(path, from_own_pages(endpoint, origin), methods=["POST"])

    return Starlette(
        routes=[
            Route("/", backend.show),
            Route("/callback", backend.receive),
            post("/login", backend.log_in),
            post("/authorize/{api}", backend.authorize),
            post("/call/{name}", backend.call),
            post("/logout", backend.log_out),
            *(Route(f"/{name}", file(SHARED / name)) for name in ("style.css", "icon.svg")),
        ],
        middleware=[Middleware(SecurityHeaders, headers=security_headers(login.registration.domain))],
        exception_handlers={HTTPException: backend.refuse, LoginRefused: backend.refuse},
    )


def security_headers(domain: str) -> Mapping[str, str]:
    policy = {
        "default-src": "'none'",
        "style-src": "'self'",
        "img-src": "'self'",
        "form-action": f"'self' {domain}",  # browsers apply it to the redirect that follows a form, too
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Cache-Control": "no-store",
        "Referrer-Policy": "same-origin",  # not no-referrer: the forms need their Origin
        "X-Content-Type-Options": "nosniff",
    }
