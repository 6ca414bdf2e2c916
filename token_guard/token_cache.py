"""Tokens verified a moment ago. Remembers what they said, and never the token: the key is a digest.

Whether what is remembered may still be used is for the reader to judge: it is told the issuer and the times, and the
generation of keys that verified the token. Knows nothing about clocks or policies. RFC 9700 4.9.3 and 4.10.
"""

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cachetools

from .bearer import MAX_TOKEN_BYTES


@dataclass(frozen=True, slots=True)
class Remembered:
    """A token that passed every rule, and whose signature one generation of its issuer's keys verified.

    `claims` are those by which it is judged again; `payload` holds all of them.
    """

    claims: Mapping[str, Any]
    payload: bytes
    generation: int


class TokenCache:
    """The tokens used most recently, for threads and tasks alike. Bounded; nothing in it can be turned into a token.

    A cache of size 0 has no digests, and so remembers nothing.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._remembered: cachetools.LRUCache[bytes, Remembered] = cachetools.LRUCache(size)

    def digest(self, raw_token: object) -> bytes | None:
        """Return the digest under which a token is remembered, or None where it is not: it may be no token at all."""
        if not self._size or not isinstance(raw_token, str) or len(raw_token) > MAX_TOKEN_BYTES:
            return None
        return hashlib.sha256(raw_token.encode()).digest() if raw_token.isascii() else None

    def get(self, digest: bytes) -> Remembered | None:
        """Return what is remembered under a digest."""
        with self._lock:
            return self._remembered.get(digest)

    def put(self, digest: bytes, remembered: Remembered) -> None:
        """Remember a verified token, and forget the one that has not been used for longest where there is no room."""
        with self._lock:
            self._remembered[digest] = remembered

    def begin_anew(self) -> None:
        """Begin anew in a forked child, whose lock may be held by a thread that it does not have."""
        self._lock = threading.Lock()
        self._remembered = cachetools.LRUCache(self._size)
