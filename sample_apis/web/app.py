"""The files of the single-page app, and /config.json, which tells it where everything is. Sees no token.

    GET /              the app; a login comes back here
    GET /callback      the page for the implicit response
    GET /config.json   the authorization server, the client ID, the APIs and their scopes
    GET /library/...   the issuer's library, as `npm ci` has put it into node_modules

Content Security Policy Level 3: the pages take scripts and styles from here alone, and talk to the named services only.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sample_apis.organizer import AUDIENCE, SCOPES
from sample_apis.settings import Environ, SettingError
from sample_apis.web.server import read_origin

FOLDER = Path(__file__).parent
PAGES = FOLDER / "static"
LIBRARY = FOLDER / "node_modules" / "@auth0" / "auth0-spa-js" / "dist"
LIBRARY_FILES = ("auth0-spa-js.production.esm.js", "auth0-spa-js.worker.production.js")

REPORTS_AUDIENCE = "https://reports.example/"
REPORTS_SCOPE = "read:reports"

# The hidden frame of the library needs one site for app and authorization server; 127.0.0.1 is another than localhost.
PAGE_HOST = "localhost"

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """Where everything is, each as an origin."""

    domain: str
    contacts: str
    calendars: str
    reports: str
    backend: str

    @classmethod
    def from_environ(cls, environ: Environ) -> "Addresses":
        """Read WEB_DOMAIN and the others.

        Raises:
            SettingError: one is not an origin.
        """
        return cls(
            domain=read_origin("WEB_DOMAIN", environ, "http://localhost:9400"),
            contacts=read_origin("WEB_CONTACTS", environ, "http://localhost:8001"),
            calendars=read_origin("WEB_CALENDARS", environ, "http://localhost:8002"),
            reports=read_origin("WEB_REPORTS", environ, "http://localhost:8003"),
            backend=read_origin("WEB_BACKEND", environ, "http://localhost:8090"),
        )


class SecurityHeaders:
    """ASGI middleware that adds the same headers to every answer."""

    def __init__(self, app: ASGIApp, headers: Mapping[str, str]) -> None:
        self._app = app
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        await self._app(scope, receive, send_with_headers)


def create_app(addresses: Addresses, client_id: str, *, library: Path = LIBRARY) -> Starlette:
    """Return the server of the page as an ASGI application. `library` is the folder with the issuer's library.

    Raises:
        SettingError: the library is not installed.
    """
    if not all((library / name).is_file() for name in LIBRARY_FILES):
        raise SettingError(f"the page's library is not installed: run scripts/setup-browser app, or npm ci in {FOLDER}")
    config = {
        "domain": addresses.domain,
        "client_id": client_id,
        "audience": AUDIENCE,
        "scopes": SCOPES,
        "contacts": f"{addresses.contacts}/contacts",
        "calendars": f"{addresses.calendars}/calendars/events",
        "reports": f"{addresses.reports}/reports/weekly",
        "reports_audience": REPORTS_AUDIENCE,
        "reports_scope": REPORTS_SCOPE,
        "backend": addresses.backend,
    }

    async def answer_config(request: Request) -> Response:
        return JSONResponse(config)

    return Starlette(
        routes=[
            Route("/", page("index.html")),
            *(Route(path, page("callback.html")) for path in ("/callback", "/callback.html")),
            Route("/config.json", answer_config),
            *(Route(f"/library/{name}", file(library / name)) for name in LIBRARY_FILES),
            Mount("/", StaticFiles(directory=PAGES)),
        ],
        middleware=[Middleware(SecurityHeaders, headers=security_headers(addresses))],
    )


def page(name: str) -> Endpoint:
    async def answer(request: Request) -> Response:
        if request.url.hostname == "127.0.0.1":
            return RedirectResponse(request.url.replace(hostname=PAGE_HOST))
        return FileResponse(PAGES / name)

    return answer


def file(path: Path) -> Endpoint:
    async def answer(request: Request) -> Response:
        return FileResponse(path)

    return answer


def security_headers(addresses: Addresses) -> Mapping[str, str]:
    apis = f"{addresses.contacts} {addresses.calendars} {addresses.reports}"
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "worker-src": "'self'",
        "connect-src": f"'self' {addresses.domain} {apis}",
        "frame-src": addresses.domain,
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Cache-Control": "no-cache",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
