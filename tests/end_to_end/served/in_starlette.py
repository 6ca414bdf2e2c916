"""The application in Starlette."""

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.end_to_end.served.organizer import answer, organizer
from token_guard_asgi import TokenGuardMiddleware


async def tell(_: Request) -> JSONResponse:
    return JSONResponse(answer())


app = Starlette(routes=[Route("/", tell)], middleware=[Middleware(TokenGuardMiddleware, resource_server=organizer)])
