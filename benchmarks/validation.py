"""The cases: the bare signature checks, our validation, our refusals, and PyJWT, all on the same kind of token.

Keys are warm. No token is validated twice in a row: each case walks through a list of distinct tokens. "cold" switches
the cache of verified tokens off; for "hit" it holds them all.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from jwt.utils import raw_to_der_signature

from benchmarks.measure import Case
from token_guard import InvalidToken, KeyPolicy, Reason, ResourceServer
from token_guard.jws import read_unverified
from token_guard.testing import LocalIssuer, SigningKey

# What follows signature and message in the key's own `verify`.
PARAMETERS: dict[str, tuple[Any, ...]] = {
    "RS256": (padding.PKCS1v15(), hashes.SHA256()),
    "ES256": (ec.ECDSA(hashes.SHA256()),),
    "EdDSA": (),
}
FLOOR = "bare RS256"
CLAIMS = {"permissions": ["read:contacts", "create:contacts"], "org_id": "org_abc123", "https://north.example/tier": 3}


def cases(tokens: int) -> Iterator[Case]:
    """Return the cases, each with this many distinct tokens."""
    for algorithm in PARAMETERS:
        yield from accepted(LocalIssuer(algorithm=algorithm), tokens)
    yield from refused(LocalIssuer(), tokens)


def mint(issuer: LocalIssuer, tokens: int, /, **options: Any) -> list[str]:
    """Mint distinct tokens of the hosted service's usual size, which differ in the subject."""
    options = {"audience": ["organize", f"{issuer.url}userinfo"], "claims": CLAIMS} | options
    scope = "openid profile email read:contacts create:contacts read:calendar"
    return [issuer.token(scope, subject=f"auth0|{number:06}", **options) for number in range(tokens)]


def accepted(issuer: LocalIssuer, tokens: int) -> Iterator[Case]:
    """What it takes to accept a good token."""
    algorithm, minted = issuer.key.algorithm, mint(issuer, tokens)
    bare, key_set = f"bare {algorithm}", jwt.PyJWKSet.from_dict(issuer.jwks())
    key = key_set[issuer.key.kid].key
    signatures = [(token.signature, token.signing_input) for token in map(read_unverified, minted)]
    if algorithm == "ES256":
        signatures = [(raw_to_der_signature(signature, key.curve), message) for signature, message in signatures]
    parameters = PARAMETERS[algorithm]
    settings: dict[str, Any] = {"issuer": issuer.url, "audience": "organize", "jwks": issuer.jwks()}
    remembering, organizer = ResourceServer(**settings), ResourceServer(**settings, token_cache_size=0)

    def decode(token: str) -> object:
        own = key_set[jwt.get_unverified_header(token)["kid"]]
        return jwt.decode(token, own, algorithms=[algorithm], audience="organize", issuer=issuer.url)

    yield Case(bare, lambda signed: key.verify(*signed, *parameters), signatures, bare)
    yield Case(f"cold {algorithm}", organizer.validate, minted, bare)
    yield Case(f"hit {algorithm}", remembering.validate, minted, bare)
    yield Case(f"PyJWT {algorithm}", decode, minted, bare)


def refused(issuer: LocalIssuer, tokens: int) -> Iterator[Case]:
    """What it takes to refuse a bad token."""
    good, stranger, other = mint(issuer, tokens), SigningKey.generate("RS256"), SigningKey.generate("ES256")
    organizer = ResourceServer(issuer=issuer.url, audience="organize", jwks=issuer.jwks(), algorithms=["RS256"])
    # Its keys are fetched; the first unknown key ID, in the round that warms up, begins a cooldown that outlasts us.
    fetching = ResourceServer(
        issuer=issuer.url,
        audience="organize",
        transport=issuer.transport(),
        keys=KeyPolicy(time_to_live=86_400, unknown_key_cooldown=86_400),
    )
    refusals: list[tuple[str, Reason, ResourceServer, list[str]]] = [
        ("malformed", Reason.MALFORMED, organizer, [token.replace(".", ".e", 1) for token in good]),
        ("60 kB of junk", Reason.TOO_LARGE, organizer, [token[:1] * 60_000 for token in good]),
        ("unknown issuer", Reason.WRONG_ISSUER, organizer, mint(issuer, tokens, issuer="https://else.example/")),
        ("wrong audience", Reason.WRONG_AUDIENCE, organizer, mint(issuer, tokens, audience="else")),
        ("expired", Reason.EXPIRED, organizer, mint(issuer, tokens, lifetime=-3600)),
        ("algorithm not allowed", Reason.ALGORITHM_NOT_ALLOWED, organizer, mint(issuer, tokens, key=other)),
        ("unknown kid in its cooldown", Reason.UNKNOWN_KEY, fetching, mint(issuer, tokens, key=stranger)),
        ("tampered", Reason.BAD_SIGNATURE, organizer, [issuer.tampered(token) for token in good]),
    ]
    for name, reason, resource_server, bad in refusals:
        yield Case(f"refused: {name}", partial(refuse, resource_server.validate, reason), bad, FLOOR)


def refuse(validate: Callable[[str], object], reason: Reason, token: str) -> None:
    """Validate a token that must be refused for this reason."""
    try:
        validate(token)
    except InvalidToken as error:
        if error.reason is not reason:
            raise
    else:
        raise AssertionError(f"a token was accepted that is {reason}")
