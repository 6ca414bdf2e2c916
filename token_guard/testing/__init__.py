"""An authorization server in a box, for tests and demos of APIs that Token Guard protects."""

from token_guard.testing.keys import SigningKey, sign_compact
from token_guard.testing.local_issuer import LocalIssuer
from token_guard.testing.server import InMemoryTransport

__all__ = ["InMemoryTransport", "LocalIssuer", "SigningKey", "sign_compact"]
