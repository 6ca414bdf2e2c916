"""LocalIssuer: an authorization server small enough to live inside a test.

Its job is to mint access tokens, good ones and bad ones, and to publish the keys that verify the good. It must not know
how a token is validated: what it mints is judged by the code under test. RFC 7519 and RFC 9068 (claims), RFC 8414
(metadata), RFC 6749, section 4.4 (client credentials).
"""

import base64
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from token_guard.testing.keys import SigningKey, base64url, sign_compact
from token_guard.testing.server import Client, HttpServer, InMemoryTransport, answer

DEFAULT_LIFETIME = 86_400
"""Seconds: what the hosted service gives to an access token."""

LONG_EXPIRED = -3_600
"""Seconds: further back than any leeway reaches."""

_Claims = dict[str, Any]


class _Dialect(NamedTuple):
    typ: str
    client: Callable[[str], _Claims]  # how a token names the client that it was issued to
    itself: Callable[[str], _Claims]  # how it says that the client acts for itself


_DIALECTS = {
    "auth0": _Dialect(
        typ="JWT",
        client=lambda client_id: {"azp": client_id},
        itself=lambda client_id: {"sub": f"{client_id}@clients", "gty": "client-credentials"},
    ),
    "rfc9068": _Dialect(
        typ="at+jwt",
        client=lambda client_id: {"client_id": client_id, "jti": uuid.uuid4().hex},
        itself=lambda client_id: {"sub": client_id},
    ),
}


class LocalIssuer:
    """An authorization server that mints tokens and publishes its keys.

    For tests and demos: its private keys never leave the process.

        issuer = LocalIssuer()
        organizer = ResourceServer(issuer=issuer.url, audience="organize", jwks=issuer.jwks())
        organizer.validate(issuer.token("read:contacts"))

    Publish the keys in one of three ways: `jwks()` as a static key set, `transport()` in memory, `start()` over HTTP on
    loopback. `dialect` is how its tokens look: "auth0" (the hosted service's own) or "rfc9068". `lifetime` is in
    seconds, `clock` returns seconds as `time.time` does. `custom_domain` is a second URL under which the same issuer is
    asked: each gets metadata and tokens that name the URL that was asked.

    The attributes may be set at any time: `key` signs, `keys` are published. It does not check what it is told to mint.

    Raises: ValueError for an algorithm or a dialect that does not exist.
    """

    def __init__(
        self,
        url: str = "https://issuer.example/",
        *,
        custom_domain: str | None = None,
        audience: str = "organize",
        algorithm: str = "RS256",
        dialect: Literal["auth0", "rfc9068"] = "auth0",
        lifetime: int = DEFAULT_LIFETIME,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if dialect not in _DIALECTS:
            raise ValueError(f"dialect={dialect!r} is not one of {', '.join(_DIALECTS)}")
        self.url: str = url
        self.custom_domain = custom_domain
        self.audience = audience
        self.dialect = dialect
        self.lifetime = lifetime
        self.clock = clock
        self.clients: dict[str, Client] = {}
        self.keys: tuple[SigningKey, ...] = ()
        self.key: SigningKey = self.add_key(algorithm)
        self._server: HttpServer | None = None

    # What it publishes.

    @property
    def urls(self) -> tuple[str, ...]:
        """The issuer's names: its URL, then its custom domain where there is one."""
        return (self.url,) if self.custom_domain is None else (self.url, self.custom_domain)

    def jwks(self) -> dict[str, Any]:
        """The published key set (RFC 7517, section 5): public halves only, oldest key first."""
        return {"keys": [key.public_jwk() for key in self.keys]}

    def metadata(self, issuer: str | None = None) -> dict[str, Any]:
        """The issuer's metadata (RFC 8414, section 2), naming `issuer` instead of the URL when it is given."""
        issuer = issuer or self.url
        base = issuer.rstrip("/")
        return {
            "issuer": issuer,
            "jwks_uri": f"{base}/.well-known/jwks.json",
            "token_endpoint": f"{base}/oauth/token",
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "grant_types_supported": ["client_credentials"],
            "response_types_supported": [],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": sorted({key.algorithm for key in self.keys}),
        }

    # Its keys and clients.

    def add_key(self, algorithm: str, publish: bool = True) -> SigningKey:
        """Make a key that does not sign yet: pass it to `token(key=...)` or make it `issuer.key`.

        An HS256 secret is never published; the resource server is given its `private`.

        Raises: ValueError for an algorithm that does not exist.
        """
        key = SigningKey.generate(algorithm)
        if publish and not key.symmetric:
            self.keys += (key,)
        return key

    def rotate(self) -> SigningKey:
        """Sign with a new, published key from now on. The previous key stays published until `withdraw`."""
        self.key = self.add_key(self.key.algorithm)
        return self.key

    def withdraw(self, kid: str) -> None:
        """Publish the key no longer. It still signs if it is the current one.

        Raises: KeyError for a key ID that is not published.
        """
        if kid not in {key.kid for key in self.keys}:
            raise KeyError(kid)
        self.keys = tuple(key for key in self.keys if key.kid != kid)

    def add_client(self, client_id: str, secret: str, *, scope: str = "") -> None:
        """Let a client ask the token endpoint for tokens with at most this scope."""
        self.clients[client_id] = Client(client_id, secret, scope)

    # Good tokens.

    def token(
        self,
        scope: str = "read:contacts",
        *,
        subject: str = "auth0|alice",
        client_id: str = "organizer-spa",
        issuer: str | None = None,
        audience: str | list[str] | None = None,
        lifetime: int | None = None,
        key: SigningKey | None = None,
        headers: Mapping[str, Any] | None = None,
        claims: Mapping[str, Any] | None = None,
    ) -> str:
        """Mint an access token of a user.

        `issuer`, `audience`, `lifetime` (seconds; negative: already expired) and `key` take the place of the issuer's
        own. `headers` and `claims` are merged over what the dialect says; None removes a member (a real `null` needs
        `sign_compact`). An empty scope leaves the claim out.
        """
        dialect, key = _DIALECTS[self.dialect], key or self.key
        lifetime = self.lifetime if lifetime is None else lifetime
        now = int(self.clock())
        header = {"alg": key.algorithm, "typ": dialect.typ, "kid": key.kid}
        payload = {
            "iss": issuer or self.url,
            "sub": subject,
            "aud": self.audience if audience is None else audience,
            # An expired token was issued when a token that ends then is issued, not after its own end.
            "iat": now if lifetime >= 0 else now + lifetime - self.lifetime,
            "exp": now + lifetime,
            "scope": scope or None,
            **dialect.client(client_id),
        }
        return sign_compact(_merge(header, headers), _merge(payload, claims), key)

    def client_token(
        self,
        scope: str = "",
        client_id: str = "organizer-machine",
        *,
        claims: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> str:
        """Mint an access token of a client that acts for itself. `options` are those of `token`."""
        itself = _DIALECTS[self.dialect].itself(client_id)
        return self.token(scope, client_id=client_id, claims={**itself, **(claims or {})}, **options)

    # Bad tokens: each is wrong in one way and right in all others. Scope and options are those of `token`.

    def expired(self, scope: str = "read:contacts", **options: Any) -> str:
        """A token that ended an hour ago."""
        return self.token(scope, lifetime=LONG_EXPIRED, **options)

    def signed_by_stranger(self, scope: str = "read:contacts", **options: Any) -> str:
        """A token that names the current key but is signed by another of the same algorithm."""
        return self.token(scope, key=SigningKey.generate(self.key.algorithm, kid=self.key.kid), **options)

    def unknown_key(self, scope: str = "read:contacts", **options: Any) -> str:
        """A token that names, and is signed by, a key which is not published."""
        return self.token(scope, key=SigningKey.generate(self.key.algorithm), **options)

    def unsigned(
        self, scope: str = "read:contacts", *, headers: Mapping[str, Any] | None = None, **options: Any
    ) -> str:
        """A token with the algorithm `none` and an empty signature (RFC 7519, section 6)."""
        signed = self.token(scope, headers={"alg": "none", "kid": None, **(headers or {})}, **options)
        return signed[: signed.rindex(".") + 1]

    def tampered(self, token: str) -> str:
        """The token with one payload bit flipped, in the last character of its subject, and its signature kept.

        Raises: ValueError for a token that this issuer did not mint.
        """
        header, payload, signature = token.split(".")
        raw = bytearray(base64.urlsafe_b64decode(payload + "=="))
        member = b'"sub":' + json.dumps(json.loads(raw)["sub"]).encode()
        raw[raw.index(member) + len(member) - 2] ^= 1
        return ".".join((header, base64url(raw), signature))

    # Where it is asked.

    def transport(self) -> InMemoryTransport:
        """A transport for httpx that answers as the issuer does, without a socket, and counts requests."""
        return InMemoryTransport(self)

    def start(self, port: int = 0) -> None:
        """Answer over HTTP on 127.0.0.1 until `stop`; port 0 takes a free one.

        From then on the issuer's URL is http://127.0.0.1:PORT/ and its custom domain http://localhost:PORT/, unless a
        URL with that port was given; a path stays.

        Raises: OSError when the port is taken; RuntimeError when it is served already.
        """
        if self._server is not None:
            raise RuntimeError(f"the issuer is served already: {self.url}")
        self._server = HttpServer(partial(answer, self), port)
        custom_domain = self.custom_domain or urlsplit(self.url)._replace(netloc="localhost").geturl()
        self.url = self._server.moved_here(self.url, "127.0.0.1")
        self.custom_domain = self._server.moved_here(custom_domain, "localhost")

    def stop(self) -> None:
        """Close the port and every connection; it can be asked for again at once. Keys, clients and URLs stay."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    @contextmanager
    def serve(self, port: int = 0) -> Iterator[Self]:
        """`start`, and `stop` at the end of the `with` block."""
        self.start(port)
        try:
            yield self
        finally:
            self.stop()


def _merge(members: _Claims, changes: Mapping[str, Any] | None) -> _Claims:
    return {name: value for name, value in {**members, **(changes or {})}.items() if value is not None}
