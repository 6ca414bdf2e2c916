"""Token Guard for Flask."""

from .extension import TokenGuard

__all__ = ["TokenGuard"]
