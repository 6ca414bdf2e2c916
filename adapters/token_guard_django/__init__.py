"""Token Guard for Django: WSGI and ASGI, function and class based views, and REST framework."""

from .middleware import TokenGuardMiddleware

__all__ = ["TokenGuardMiddleware"]
