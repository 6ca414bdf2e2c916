"""Cross-origin requests: which web pages may call the services and read the answers, refusals included. Fetch, 3.3.

An answer without these headers is hidden from a page of another origin, so they are added outside of the guard. Access
tokens travel in a header of their own and no cookie is looked at, so credentials in the sense of Fetch are never
allowed. Knows WSGI and ASGI, and no service.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sample_apis.settings import Environ, SettingError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

Origins = frozenset[str]
Headers = list[tuple[str, str]]

VARIABLE = "CORS_ALLOWED_ORIGINS"

_EVERY_ANSWER = {"Access-Control-Expose-Headers": "Location, Retry-After, WWW-Authenticate"}
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type",
    "Access-Control-Max-Age": "600",  # seconds
}


def read_origins(environ: Environ) -> Origins:
    """Return the origins in CORS_ALLOWED_ORIGINS, separated by spaces. By default there are none.

    Raises:
        SettingError: something is not an origin.
    """
    origins = environ.get(VARIABLE, "").split()
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}" or not parts.netloc:
            raise SettingError(
                f"{VARIABLE} holds {origin!r}: write each origin as browsers do, such as http://localhost:3000, without"
                " a path or a slash at its end"
            )
    return frozenset(origins)


def allow_origins_wsgi(app: "WSGIApplication", origins: Origins) -> "WSGIApplication":
    """Let pages of `origins` call a WSGI application."""
    if not origins:
        return app

    def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        origin = environ.get("HTTP_ORIGIN")
        if _is_preflight(environ["REQUEST_METHOD"], origin, environ.get("HTTP_ACCESS_CONTROL_REQUEST_METHOD"), origins):
            start_response("204 No Content", _headers(origin, origins, _PREFLIGHT))
            return []

        def start(status: str, headers: Headers, *error: Any) -> Callable[[bytes], object]:
            return start_response(status, [*headers, *_headers(origin, origins, _EVERY_ANSWER)], *error)

        return app(environ, start)

    return answer


def allow_origins_asgi(app: "ASGIApp", origins: Origins) -> "ASGIApp":
    """Let pages of `origins` call an ASGI application."""
    if not origins:
        return app

    async def answer(scope: "Scope", receive: "Receive", send: "Send") -> None:
        sent = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope.get("headers", ())}
        origin = sent.get("origin")

        async def send_readable(message: "Message") -> None:
            if message["type"] == "http.response.start":
                added = _encoded(_headers(origin, origins, _EVERY_ANSWER))
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        if _is_preflight(scope.get("method"), origin, sent.get("access-control-request-method"), origins):
            headers = _encoded(_headers(origin, origins, _PREFLIGHT))
            await send({"type": "http.response.start", "status": 204, "headers": headers})
            await send({"type": "http.response.body"})
        else:
            await app(scope, receive, send_readable)

    return answer


def _is_preflight(method: str | None, origin: str | None, wanted: str | None, origins: Origins) -> bool:
    """Tell whether a browser asks for a page of ours. What others ask is the application's to answer."""
    return method == "OPTIONS" and wanted is not None and origin in origins


def _headers(origin: str | None, origins: Origins, more: Mapping[str, str]) -> Headers:
    allowed = {"Access-Control-Allow-Origin": origin, **more} if origin is not None and origin in origins else {}
    return [("Vary", "Origin"), *allowed.items()]  # a cache must not answer one origin with what another may read


def _encoded(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
