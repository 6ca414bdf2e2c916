"""Where the keys of one issuer come from, and what is known of them. Here: keys given with the configuration.

Knows nothing about tokens beyond algorithm and key ID, nor about fetching.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

from .algorithms import Algorithm
from .errors import ConfigurationError, InvalidToken, Reason, shown
from .events import Event, tell
from .hints import key_set_hint
from .issuer import Issuer
from .key_set import Key, SharedSecret, generations, read_key_set, told_key_ids


@dataclass(frozen=True)
class Clocks:
    """Two clocks that return seconds: `clock`, since the epoch, judges tokens; `monotonic` judges keys."""

    clock: Callable[[], float]
    monotonic: Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class IssuerHealth:
    """What is known of one issuer's keys.

    `state`: `fresh`, `stale`, `misconfigured`, `unavailable` or `never_fetched`. `source`, where the keys come from:
    `issuer`, `key_store` or `given`, or None where there are none. `age` of the keys and `next_attempt` from now are in
    seconds; `last_success` is in seconds since the epoch.
    """

    issuer: str
    state: str
    source: str | None
    age: float | None
    last_success: float | None
    last_error: str | None
    next_attempt: float
    key_ids: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary that JSON can hold."""
        return asdict(self)


class Keys(Protocol):
    """Where the keys of one issuer come from."""

    def ready(self, algorithm: Algorithm, kid: str | None) -> Sequence[Key]:
        """Return the keys to try where nothing has to be fetched or refreshed; otherwise none."""

    def find(self, algorithm: Algorithm, kid: str | None) -> Sequence[Key]:
        """Return the keys to try, after a fetch where one is wanted."""

    async def find_async(self, algorithm: Algorithm, kid: str | None) -> Sequence[Key]:
        """Do the same without blocking the event loop."""

    def generation(self) -> int | None:
        """Return which keys are held, or None where that must be found out first."""

    def fetch(self) -> "Future[None] | None":
        """Return a flight to the issuer to wait for, where there is anything to fetch."""

    def flight(self) -> "Future[None] | None":
        """Return the flight under way, if there is one."""

    def saved(self) -> "Future[None] | None":
        """Return what ends when the keys of the last flight are in the key store, if there was one."""

    def health(self) -> IssuerHealth:
        """Return what is known, without any I/O."""


class GivenKeys:
    """Keys that were given with the configuration: nothing is ever fetched."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self._generation = next(generations)
        self._secret = SharedSecret(issuer.secret) if isinstance(issuer.secret, bytes) else None
        try:
            self._keys, odd = read_key_set(issuer.jwks if self._secret is None else {"keys": []})
        except ValueError as error:
            raise ConfigurationError(f"jwks of issuer {issuer.url!r}: {error}{key_set_hint(issuer.jwks)}") from None
        if self._secret is None and not self._keys.is_usable:
            odd.append("it holds no key that verifies signatures; give public ones, or leave jwks out to fetch them")
        for sentence in odd:
            tell(Event.ODD_KEY, "jwks of issuer %s: %s", issuer.url, sentence, issuer=issuer.url)

    def ready(self, algorithm: Algorithm, kid: str | None) -> Sequence[Key]:
        return (self._secret,) if self._secret is not None else self._keys.candidates(algorithm, kid)

    def find(self, algorithm: Algorithm, kid: str | None) -> Sequence[Key]:
        detail = partial(_unknown_key, algorithm.name, kid, self._keys.key_ids)
        raise InvalidToken(Reason.UNKNOWN_KEY, detail=detail)

    async def find_async(self, algorithm: Algorithm, kid: str | None) -> Sequence[Key]:
        return self.find(algorithm, kid)

    def generation(self) -> int | None:
        return self._generation

    def fetch(self) -> None:
        return None

    def flight(self) -> None:
        return None

    def saved(self) -> None:
        return None

    def health(self) -> IssuerHealth:
        return IssuerHealth(
            issuer=self._issuer.url,
            state="fresh",
            source="given",
            age=None,
            last_success=None,
            last_error=None,
            next_attempt=0,
            key_ids=self._keys.key_ids,
        )


def _unknown_key(alg: str, kid: str | None, key_ids: tuple[str, ...]) -> str:
    detail = f"no given key for alg {alg} and kid {shown(kid)}; jwks has {told_key_ids(key_ids)}"
    return f"{detail}: put the issuer's new keys there, or leave it out to fetch them"
