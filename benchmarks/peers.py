"""The other libraries, each used as its documentation says and with warm keys, on the same tokens.

They are in the dependency group `bench` and nowhere else; one that is not installed is left out.
"""

import asyncio
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt

from benchmarks.measure import finish
from benchmarks.tokens import AUDIENCE
from token_guard.testing import LocalIssuer

Validate = Callable[[str], object]
_ALL = ("RS256", "ES256", "EdDSA")


@dataclass(frozen=True)
class Peer:
    """Another library. `prepare` returns what validates a token, or raises ImportError where it is not installed."""

    name: str
    algorithms: tuple[str, ...]
    prepare: Callable[[LocalIssuer], Validate]


def prepared(issuer: LocalIssuer) -> Iterator[tuple[str, Validate]]:
    """Return those that are installed and know the issuer's algorithm, after a look whether they do what they say.

    Raises:
        AssertionError: one accepts a token that was tampered with, or refuses a good one.
    """
    token = issuer.token(audience=AUDIENCE)
    for peer in PEERS:
        try:
            validate = peer.prepare(issuer) if issuer.key.algorithm in peer.algorithms else None
        except ImportError:
            validate = None
        if validate is not None:
            if not _accepts(validate, token) or _accepts(validate, issuer.tampered(token)):
                raise AssertionError(f"{peer.name} does not validate as it is used here")
            yield peer.name, validate


def _accepts(validate: Validate, token: str) -> bool:
    try:
        return validate(token) is not None
    except Exception:  # noqa: BLE001  # each library has its own
        return False


def _pyjwt(issuer: LocalIssuer) -> Validate:
    keys, algorithms = jwt.PyJWKSet.from_dict(issuer.jwks()), [issuer.key.algorithm]

    def validate(token: str) -> object:
        key = keys[jwt.get_unverified_header(token)["kid"]]
        return jwt.decode(token, key, algorithms=algorithms, audience=AUDIENCE, issuer=issuer.url)

    return validate


def _joserfc(issuer: LocalIssuer) -> Validate:
    from joserfc.jwk import KeySet
    from joserfc.jwt import JWTClaimsRegistry, decode

    warnings.filterwarnings("ignore", "EdDSA is deprecated")  # RFC 9864; it is what nearly all issuers write
    keys, algorithms = KeySet.import_key_set(issuer.jwks()), [issuer.key.algorithm]  # type: ignore[arg-type]
    registry = JWTClaimsRegistry(
        iss={"essential": True, "value": issuer.url},
        aud={"essential": True, "value": AUDIENCE},
        exp={"essential": True},
    )

    def validate(token: str) -> object:
        decoded = decode(token, keys, algorithms=algorithms)
        registry.validate(decoded.claims)
        return decoded

    return validate


def _authlib(issuer: LocalIssuer) -> Validate:
    import authlib.deprecate  # noqa: F401  # first, as it switches its warnings on

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it recommends joserfc, which is measured, too
        from authlib.jose import JsonWebKey, JsonWebToken

    keys, decoder = JsonWebKey.import_key_set(issuer.jwks()), JsonWebToken([issuer.key.algorithm])
    options = {
        "iss": {"essential": True, "value": issuer.url},
        "aud": {"essential": True, "value": AUDIENCE},
        "exp": {"essential": True},
    }

    def validate(token: str) -> object:
        claims = decoder.decode(token, keys, claims_options=options)
        claims.validate()
        return claims

    return validate


def _python_jose(issuer: LocalIssuer) -> Validate:
    from jose import jwt as jose

    keys, algorithms = {key["kid"]: key for key in issuer.jwks()["keys"]}, [issuer.key.algorithm]

    def validate(token: str) -> object:
        key = keys[jose.get_unverified_header(token)["kid"]]
        return jose.decode(token, key, algorithms=algorithms, audience=AUDIENCE, issuer=issuer.url)

    return validate


def _auth0_api_python(issuer: LocalIssuer) -> Validate:
    from auth0_api_python import ApiClient, ApiClientOptions

    client = ApiClient(
        ApiClientOptions(
            domain=urlsplit(issuer.url).netloc,
            audience=AUDIENCE,
            custom_fetch=httpx.AsyncClient(transport=issuer.transport()).get,
            cache_ttl_seconds=86_400,
        )
    )
    return _warm(issuer, client.verify_access_token)


def _fastmcp(issuer: LocalIssuer) -> Validate:
    import httpx2
    from fastmcp.server.auth.providers.jwt import JWTVerifier

    published = httpx2.MockTransport(lambda _: httpx2.Response(200, json=issuer.jwks()))
    verifier = JWTVerifier(
        jwks_uri=issuer.metadata()["jwks_uri"],
        issuer=issuer.url,
        audience=AUDIENCE,
        algorithm=issuer.key.algorithm,
        http_client=httpx2.AsyncClient(transport=published),
    )
    return _warm(issuer, verifier.load_access_token)


def _warm(issuer: LocalIssuer, validate: Callable[[str], Any]) -> Validate:
    """Let an asynchronous validator fetch its keys; from then on it waits for nothing."""

    async def fetch() -> None:
        await validate(issuer.token(audience=AUDIENCE))

    asyncio.run(fetch())
    return lambda token: finish(validate(token))


PEERS = (
    Peer("PyJWT", _ALL, _pyjwt),
    Peer("joserfc", _ALL, _joserfc),
    Peer("Authlib", _ALL, _authlib),
    Peer("python-jose", ("RS256", "ES256"), _python_jose),
    Peer("auth0-api-python", ("RS256",), _auth0_api_python),
    Peer("FastMCP", _ALL, _fastmcp),
)
