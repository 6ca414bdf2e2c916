"""Tokens verified a moment ago. Remembers what they said, and never the token: the key is a digest.

Whether what is remembered may still be used is for the reader to judge: it is told the issuer and the times, and the
generation of keys that verified the token. Knows nothing about clocks or policies. RFC 9700 4.9.3 and 4.10.
"""

import hashlib
import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cachetools

from .bearer import MAX_TOKEN_BYTES
from .scopes import ScopeSet

if TYPE_CHECKING:
    from .trust import Trusted


@dataclass(slots=True)  # a frozen one costs 0.4 us more, for each token that is verified
class Remembered:
    """A token that passed every rule, and whose signature one generation of its issuer's keys verified.

    A resolved issuer that is forgotten is not kept for its tokens: they are refused or verified anew in any case.
    Between `starts` and `ends`, in seconds since the epoch, its times are right for certain; beyond them the claims in
    the `payload` tell. Its `scopes` are what nearly every request asks for, and most tokens share theirs with others:
    so the claims need not be read, which takes as long as all else of a hit.
    """

    trusted: "weakref.ref[Trusted]"
    payload: bytes
    starts: float
    ends: float
    generation: int
    scopes: ScopeSet


@dataclass(frozen=True, slots=True)
class TokenCacheStatistics:
    """How many tokens a cache holds of how many at most, and how often one was known.

    `hits`: tokens that were known, also those that are refused all the same, as expired or revoked. `outdated`: hits
    whose signature was checked all the same, as the keys had changed or were due to be fetched. `misses`: all others
    that look like a JWT, also those that are then refused. None is counted where the cache is off.
    """

    size: int
    max_size: int
    hits: int
    misses: int
    outdated: int


class TokenCache:
    """The tokens used most recently, for threads and tasks alike. Bounded; nothing in it can be turned into a token.

    A cache of size 0 has no digests, and so remembers nothing.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.begin_anew()

    def digest(self, raw_token: object) -> bytes | None:
        """Return the digest under which a token is remembered, or None where it is not: it may be no token at all."""
        if not self._size or not isinstance(raw_token, str) or len(raw_token) > MAX_TOKEN_BYTES:
            return None
        # What has no "{" of a header is refused without looking: that is a third of what an opaque token costs.
        if not raw_token.startswith("e") or not raw_token.isascii():
            return None
        return hashlib.sha256(raw_token.encode()).digest()

    def get(self, digest: bytes) -> Remembered | None:
        """Return what is remembered under a digest."""
        with self._lock:
            if digest not in self._remembered:  # and no get(), which asks the same within one more call
                self._misses += 1
                return None
            self._hits += 1
            return self._remembered[digest]

    def count_outdated(self) -> None:
        """Count that what was found is of no use: the keys changed since, or may have."""
        with self._lock:
            self._outdated += 1

    def put(self, digest: bytes, remembered: Remembered) -> None:
        """Remember a verified token, and forget the one that has not been used for longest where there is no room."""
        with self._lock:
            self._remembered[digest] = remembered

    def statistics(self) -> TokenCacheStatistics:
        """Return what is held, and how often it was asked for."""
        with self._lock:
            return TokenCacheStatistics(len(self._remembered), self._size, self._hits, self._misses, self._outdated)

    def begin_anew(self) -> None:
        """Begin anew in a forked child, whose lock may be held by a thread that it does not have."""
        self._lock = threading.Lock()
        self._remembered: cachetools.LRUCache[bytes, Remembered] = cachetools.LRUCache(self._size)
        self._hits = self._misses = self._outdated = 0
