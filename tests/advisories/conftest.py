"""What every attack starts from: an issuer, the API that trusts it, a good token, and the reason of a refusal.

Each test here names the advisory that it repeats. Names in parentheses are those of the project that was hit.
"""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from token_guard import RequestRejected, ResourceServer, TemporarilyUnavailable
from token_guard.testing import LocalIssuer, SigningKey, sign_compact
from token_guard.testing.keys import base64url

NOW = 1_700_000_000
DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
"""What stands before a SHA-256 digest in an RSA signature (RFC 8017 9.2, note 1)."""


def now() -> float:
    return NOW


@pytest.fixture(scope="session")
def issuer() -> LocalIssuer:
    return LocalIssuer(clock=now)


@pytest.fixture
def organizer(issuer: LocalIssuer) -> ResourceServer:
    """An API that accepts the issuer's tokens: without that, a refusal would prove nothing."""
    organizer = api(issuer)
    assert organizer.validate(issuer.token()).subject == "auth0|alice"
    return organizer


def api(issuer: LocalIssuer, /, **options: Any) -> ResourceServer:
    """A resource server for the issuer; unless told otherwise its keys are given."""
    arguments: dict[str, Any] = {"issuer": issuer.url, "audience": "organize", "jwks": issuer.jwks(), "clock": now}
    return ResourceServer(**{**arguments, **options})


def refused(server: ResourceServer, token: str) -> RequestRejected | TemporarilyUnavailable:
    """The refusal of a token. Any other exception is a failed test."""
    with pytest.raises(Exception) as raised:  # noqa: PT011  # that nothing else is raised is what is tested
        server.validate(token)
    assert isinstance(raised.value, (RequestRejected, TemporarilyUnavailable)), raised.value
    return raised.value


def claims(issuer: LocalIssuer, **changes: Any) -> dict[str, Any]:
    """The claims of a good token, with changes. A None is a real `null`."""
    good = {"iss": issuer.url, "sub": "auth0|alice", "aud": "organize", "iat": NOW, "exp": NOW + 600, "scope": "a:b"}
    return {**good, **changes}


def signed(
    issuer: LocalIssuer, payload: bytes | Mapping[str, Any], *, key: SigningKey | None = None, **header: Any
) -> str:
    """A token with this payload as it is, and a good signature."""
    key = key or issuer.key
    return sign_compact({"alg": key.algorithm, "typ": "JWT", "kid": key.kid, **header}, payload, key)


def with_signature(token: str, signature: bytes) -> str:
    """The token with another signature."""
    return f"{token.rpartition('.')[0]}.{base64url(signature)}"


def encoded(*parts: bytes | Mapping[str, Any]) -> str:
    """Parts of a token that nobody signed."""
    return ".".join(base64url(part if isinstance(part, bytes) else json.dumps(part).encode()) for part in parts)
