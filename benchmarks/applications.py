"""One small application in each framework: open, guarded by nothing but a signature check, or guarded by Token Guard.

`served` is what the servers of the HTTP benchmarks start, each in processes of its own.
"""

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import jwt

from benchmarks.tokens import AUDIENCE, PARAMETERS
from token_guard import AccessToken, ResourceServer

ISSUER, JWKS, FRAMEWORK, GUARD = (f"TOKEN_GUARD_BENCH_{name}" for name in ("ISSUER", "JWKS", "FRAMEWORK", "GUARD"))
BODY = "ok"


class SignatureCheck:
    """The least that a guard could do: one known key, no look at any claim. A floor to compare with, and no guard."""

    def __init__(self, jwk: dict[str, Any]) -> None:
        self._verify: Callable[..., None] = jwt.PyJWK(jwk).key.verify

    def __call__(self, authorization: str) -> None:
        """Verify the RS256 signature of the token. Raises InvalidSignature."""
        message, _, signature = authorization.removeprefix("Bearer ").rpartition(".")
        self._verify(base64.urlsafe_b64decode(signature + "=="), message.encode(), *PARAMETERS["RS256"])


Guarding = SignatureCheck | ResourceServer | None


def starlette(guarding: Guarding) -> Any:
    """An application whose guard, where it has one, is a middleware."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    from token_guard_asgi import TokenGuardMiddleware

    async def answer(_: Request) -> PlainTextResponse:
        return PlainTextResponse(BODY)

    middleware = []
    if isinstance(guarding, SignatureCheck):
        middleware.append(Middleware(_signature_middleware, guarding))
    elif guarding is not None:
        middleware.append(Middleware(TokenGuardMiddleware, resource_server=guarding))
    return Starlette(routes=[Route("/", answer)], middleware=middleware)


def _signature_middleware(app: Any, check: SignatureCheck) -> Any:
    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            check(dict(scope["headers"])[b"authorization"].decode())
        await app(scope, receive, send)

    return guarded


def fastapi(guarding: Guarding) -> Any:
    """An application whose guard, where it has one, is a dependency."""
    from fastapi import Depends, FastAPI, Security
    from fastapi.requests import Request
    from fastapi.responses import PlainTextResponse

    from token_guard_asgi.fastapi import AccessTokenSecurity

    app = FastAPI()
    if isinstance(guarding, ResourceServer):
        access_token = AccessTokenSecurity(guarding)

        @app.get("/", response_class=PlainTextResponse)
        async def guarded(token: Annotated[AccessToken, Security(access_token, scopes=["read:contacts"])]) -> str:
            return BODY

        return app

    async def checked(request: Request) -> None:
        if guarding is not None:
            guarding(request.headers["Authorization"])

    @app.get("/", response_class=PlainTextResponse, dependencies=[] if guarding is None else [Depends(checked)])
    async def answer() -> str:
        return BODY

    return app


def fastapi_with_idle_dependency() -> Any:
    """An application with a security dependency that does nothing: what of the guard is FastAPI's."""
    from fastapi import FastAPI, Security
    from fastapi.openapi.models import HTTPBearer
    from fastapi.requests import HTTPConnection
    from fastapi.responses import PlainTextResponse
    from fastapi.security import SecurityScopes
    from fastapi.security.base import SecurityBase

    class Idle(SecurityBase):
        model, scheme_name = HTTPBearer(), "Idle"

        async def __call__(self, connection: HTTPConnection, security_scopes: SecurityScopes) -> None:
            return None

    app = FastAPI()

    @app.get("/", response_class=PlainTextResponse)
    async def answer(nothing: Annotated[None, Security(Idle(), scopes=["read:contacts"])]) -> str:
        return BODY

    return app


def flask(guarding: Guarding) -> Any:
    """An application whose guard, where it has one, is an extension."""
    from flask import Flask, request

    from token_guard_flask import TokenGuard

    app = Flask(__name__)
    app.add_url_rule("/", view_func=lambda: BODY, endpoint="answer")
    if isinstance(guarding, SignatureCheck):
        app.before_request(lambda: guarding(request.headers["Authorization"]))
    elif guarding is not None:
        TokenGuard(app, guarding)
    return app


def django(guarding: Guarding) -> Any:
    """An application whose guard, where it has one, is a middleware. Its settings are those of the whole process."""
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler

    middleware = []
    if isinstance(guarding, SignatureCheck):
        middleware.append(f"{__name__}.django_signature_middleware")
    elif guarding is not None:
        middleware.append("token_guard_django.TokenGuardMiddleware")
    if not settings.configured:
        settings.configure(ROOT_URLCONF="benchmarks.django_urls", ALLOWED_HOSTS=["*"])
        import django

        django.setup()
    settings.MIDDLEWARE = middleware
    settings.SIGNATURE_CHECK = guarding
    settings.TOKEN_GUARD = {"RESOURCE_SERVER": guarding}
    return WSGIHandler()


def django_signature_middleware(get_response: Any) -> Any:
    """The middleware that the settings name, as Django takes no objects there."""
    from django.conf import settings

    check = settings.SIGNATURE_CHECK

    def guarded(request: Any) -> Any:
        check(request.META["HTTP_AUTHORIZATION"])
        return get_response(request)

    return guarded


FRAMEWORKS: dict[str, Callable[[Guarding], Any]] = {
    "Starlette": starlette,
    "FastAPI": fastapi,
    "Flask": flask,
    "Django": django,
}

# What stands before the view, made of the issuer's URL and its key set.
GUARDS: dict[str, Callable[[str, dict[str, Any]], Guarding]] = {
    "open": lambda _, __: None,
    "signature": lambda _, jwks: SignatureCheck(jwks["keys"][0]),
    "cold": lambda url, jwks: ResourceServer(issuer=url, audience=AUDIENCE, jwks=jwks, token_cache_size=0),
    "hit": lambda url, jwks: ResourceServer(issuer=url, audience=AUDIENCE, jwks=jwks),
}


def served() -> Any:
    """Return the application that the environment describes."""
    jwks = json.loads(Path(os.environ[JWKS]).read_text())
    return FRAMEWORKS[os.environ[FRAMEWORK]](GUARDS[os.environ[GUARD]](os.environ[ISSUER], jwks))
