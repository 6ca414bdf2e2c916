"""Token Guard for Starlette, FastAPI and any ASGI framework.

`TokenGuardMiddleware` guards a whole application. `token_guard_asgi.fastapi` has a dependency for single endpoints of
FastAPI, and is imported only by those who ask for it.
"""

from .middleware import TokenGuardMiddleware

__all__ = ["TokenGuardMiddleware"]
