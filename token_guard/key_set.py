"""Choose the keys of an issuer for a header, and verify a signature. RFC 7517 5, RFC 7515 5.2.

Knows nothing about where keys come from or how long they may be used.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from .algorithms import Algorithm
from .errors import InvalidToken, Reason, shown
from .issuer import fill_template
from .jwk import OddKeyError, VerificationKey
from .jws import UnverifiedToken
from .lazy import lazy

MAX_KEYS = 100  # our own bound on the keys of one set that are considered
MAX_CANDIDATES = 4  # our own bound on the keys of one key ID that are tried

generations: "itertools.count[int]" = itertools.count(1)
"""Numbers that tell what keys verified a token. No two issuers share one, nor two configurations of one issuer."""


class Key(Protocol):
    """What a signature can be checked with."""

    @property
    def public_key(self) -> Any:
        """The key, in the form that the algorithm's verifier takes."""

    @property
    def issuer(self) -> str | None:
        """The one issuer that the key is for, where it says so; it may be a template for tenants."""


class KeySet:
    """The usable signature keys of one issuer, indexed by key ID. `key_ids` are those, in the order published."""

    def __init__(self, keys: Iterable[VerificationKey]) -> None:
        self._keys = tuple(keys)
        self._by_kid: defaultdict[str | None, list[VerificationKey]] = defaultdict(list)
        for key in self._keys:
            self._by_kid[key.kid].append(key)
        self.key_ids: tuple[str, ...] = tuple(kid for kid in self._by_kid if kid is not None)
        self._chosen: dict[tuple[str, str | None], list[VerificationKey]] = {}

    @lazy
    def identity(self) -> frozenset[tuple[object, ...]]:
        """What is another where the usable keys have changed. Given keys never change, and are never asked."""
        return frozenset(key.identity for key in self._keys)

    @property
    def is_usable(self) -> bool:
        """Whether at least one key can verify anything at all."""
        return any(key.public_key is not None for key in self._keys)

    def candidates(self, algorithm: Algorithm, kid: str | None) -> list[VerificationKey]:
        """Return the keys that may have signed a token with this header; empty where none fits.

        Without a key ID the only fitting key is used, and none where several fit: guessing is not deciding.
        """
        chosen = self._chosen.get((algorithm.name, kid))
        if chosen is not None:
            return chosen
        named = self._keys if kid is None else self._by_kid.get(kid, ())
        fitting = [key for key in named if key.fits(algorithm) and key.public_key is not None]
        if not fitting or (kid is None and len(fitting) > 1):
            return []
        # So they are found in 0.1 us instead of 0.35. Only key IDs that the issuer publishes are remembered: strangers
        # cannot fill this table.
        return self._chosen.setdefault((algorithm.name, kid), fitting)


def told_key_ids(key_ids: Iterable[str]) -> str:
    """Return the key IDs as a log line may hold them. Each is cut before all are: an issuer's may be very long."""
    return shown([kid[:100] for kid in key_ids])


class SharedSecret:
    """The one secret of an issuer that signs with HMAC. A token's key ID means nothing here."""

    issuer = None

    def __init__(self, secret: bytes) -> None:
        self.public_key = secret


def read_key_set(document: object) -> tuple[KeySet, list[str]]:
    """Return the usable keys of a JWK Set, and for each odd key what is odd about it.

    Raises:
        ValueError: the document is not an object with an array `keys`.
    """
    members = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(members, (list, tuple)):
        raise ValueError("a key set is an object with an array `keys` (RFC 7517 5)")
    usable: list[VerificationKey] = []
    odd: list[str] = []
    for position, jwk in enumerate(members[:MAX_KEYS]):
        try:
            usable.append(VerificationKey(jwk))
        except OddKeyError as error:
            odd.append(f"key {position} is skipped: {error}")
    if len(members) > MAX_KEYS:
        odd.append(f"{len(members) - MAX_KEYS} keys after the first {MAX_KEYS} are skipped")
    return KeySet(usable), odd


def keys_for_issuer(keys: Iterable[Key], claims: Mapping[str, Any]) -> list[Key]:
    """Return the keys that may sign for the issuer and the tenant of these claims, each by what it says itself.

    Raises:
        InvalidToken: `unknown_key`; each of `keys` is for another issuer.
    """
    issuer, tenant = claims["iss"], claims["tid"]
    fitting = [key for key in keys if key.issuer is None or fill_template(key.issuer, tenant) == issuer]
    if not fitting:
        others = ", ".join(shown(key.issuer) for key in keys)
        raise InvalidToken(Reason.UNKNOWN_KEY, detail=f"the key is for {others} alone, the token's iss is {issuer}")
    return fitting


def verify_signature(token: UnverifiedToken, algorithm: Algorithm, keys: Iterable[Key]) -> None:
    """Verify the token's signature under one of `keys`.

    Does NOT choose the keys, nor look at any claim.

    Raises:
        InvalidToken: `bad_signature`.
    """
    sizes = algorithm.signature_bytes
    if sizes is None or len(token.signature) in sizes:
        for key in itertools.islice(keys, MAX_CANDIDATES):
            if algorithm.verify(key.public_key, token.signature, token.signing_input):
                return
    detail = f"no key of the issuer verifies this {algorithm.name} signature: the token was changed or cut off on the"
    detail += " way, or signed by another issuer that uses this key ID"
    raise InvalidToken(Reason.BAD_SIGNATURE, detail=detail)
