"""ResourceServer: the road from a request to an access token, and the settings that shape it.

extract -> validate -> (authorize, in the handler) -> challenge. It and fetched_keys are the only readers of a clock.
RFC 6750 2 and 3; RFC 9068 4.
"""

import inspect
import os
import time
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from weakref import ref

from .access_token import AccessToken
from .algorithms import ALGORITHMS, Algorithm
from .bearer import bearer_token
from .challenge import Answer, ChallengePolicy, challenge
from .claims import ClaimPolicy, audience_is_ours, certainly_right, check_claims, times_are_right
from .errors import ConfigurationError, InvalidToken, Reason, TemporarilyUnavailable, TokenGuardError
from .hints import algorithm_hint
from .issuer import Issuer, Profile
from .issuer_resolver import IssuerResolver, split_resolver
from .jws import UnverifiedToken, read_unverified
from .key_cache import KeyPolicy
from .key_set import Key, keys_for_issuer, verify_signature
from .key_source import Clocks, GivenKeys, IssuerHealth, Keys
from .request import Refusal, RequestView
from .scopes import DEFAULT_SCOPE_PATTERN, close_implications
from .settings import SETTINGS_PREFIX, check_kinds, read_settings, seconds, whole_number
from .token_cache import Remembered, TokenCache, TokenCacheStatistics
from .trust import Trust, Trusted, filled_issuers, server_audiences

if TYPE_CHECKING:
    from concurrent.futures import Future

    import httpx

DEFAULT_LEEWAY = 30.0  # seconds
MAX_LEEWAY = 300.0
DEFAULT_TOKEN_CACHE_SIZE = 10_000  # tokens; some 8 MB where it is full of usual ones

_Judged = tuple[UnverifiedToken, Trusted, Algorithm, int | None]  # and the generation of keys before they are chosen


class ResourceServer:
    """Decides whether an access token is genuine, current and meant for this API.

    One object serves all threads and event loops of a process, with one key cache. Configuration is checked here and
    never changes. Everything is in seconds.

    `issuer`: one or several, as URLs or `Issuer`s. `audience`: one string or a collection; one must match exactly; it
    is required, unless each issuer has an `audience` or `client_ids` of its own.
    `jwks`, `jwks_uri`, `algorithms`, `profile`, `scope_claims`: as in `Issuer`; with several issuers say them there.
    `leeway` (at most 300) forgives clocks that differ; `max_token_age` counts from `iat`. `scope_implications`: what
    else a scope grants. `scope_pattern`: how a scope is spelled from `{action}` and `{resource}`. `is_revoked` is asked
    on every validation, remembered or not; where it raises, or answers with anything but a bool, the token could not be
    checked. `token_cache_size`: how many verified tokens are remembered at most, by a digest. One is used until it
    expires or its key is withdrawn, and forgotten where others need the room; 0 remembers none.

    Does NOT check scopes: that is what `requires_scope` and `AccessToken.require` are for.

    Raises:
        ConfigurationError: a setting is missing, wrong, or contradicts another.
    """

    def __init__(
        self,
        *,
        issuer: str | Issuer | IssuerResolver | Collection[str | Issuer | IssuerResolver],
        audience: str | Collection[str] | None = None,
        jwks: Mapping[str, Any] | None = None,
        jwks_uri: str | None = None,
        algorithms: Collection[str] | None = None,
        profile: Profile | None = None,
        leeway: float = DEFAULT_LEEWAY,
        max_token_age: float | None = None,
        scope_claims: Collection[str] | None = None,
        scope_implications: Mapping[str, Collection[str]] | None = None,
        scope_pattern: str = DEFAULT_SCOPE_PATTERN,
        is_revoked: Callable[[AccessToken], bool] | None = None,
        token_cache_size: int = DEFAULT_TOKEN_CACHE_SIZE,
        keys: KeyPolicy | None = None,
        challenge: ChallengePolicy | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        transport: "httpx.AsyncBaseTransport | None" = None,
    ) -> None:
        # With the first resource server and not with the package: asyncio and PyJWT take longer than all the rest.
        import jwt.algorithms  # noqa: F401

        from .flights import FetchThread, fork_aware

        given = {"is_revoked": is_revoked, "keys": keys, "challenge": challenge}
        check_kinds(_KINDS, given | {"clock": clock, "monotonic": monotonic, "transport": transport})
        listed, resolver = split_resolver(issuer)
        options = {"jwks": jwks, "jwks_uri": jwks_uri, "algorithms": algorithms, "profile": profile}
        options["scope_claims"] = scope_claims
        issuers = filled_issuers(listed, has_resolver=resolver is not None, **options)
        policy = ClaimPolicy(
            issuer="",
            audiences=server_audiences(audience, issuers),
            profile="generic",
            leeway=seconds("leeway", leeway, at_most=MAX_LEEWAY),
            max_token_age=None if max_token_age is None else seconds("max_token_age", max_token_age),
            scope_claims=("scope", "scp"),
            scope_pattern=scope_pattern,
            scope_implications=close_implications(scope_implications or {}),
        )
        self._clock = clock
        self._is_revoked = is_revoked
        self._challenge = challenge or ChallengePolicy()
        self._token_cache = TokenCache(whole_number("token_cache_size", token_cache_size))
        self._thread = FetchThread(transport)
        self._key_settings = keys or KeyPolicy(), self._thread, Clocks(clock, monotonic)
        self._trust = Trust(issuers, resolver, options, policy, self._keys_of)
        fork_aware.update((self._token_cache, self._trust))

    def validate(self, raw_token: str) -> AccessToken:
        """Return the access token, or raise the reason why it is refused. May wait for the issuer's keys.

        Does NOT check scopes.

        Raises:
            InvalidToken: the token is not genuine, not current, or not meant for this API.
            TemporarilyUnavailable: the token could not be checked.
        """
        try:
            known = self._recall(digest := self._token_cache.digest(raw_token))
            if known is not None:
                return known
            judged = token, trusted, algorithm, _ = self._judge(raw_token)
            if keys := trusted.keys.ready(algorithm, token.header.kid):
                return self._accept(digest, judged, keys)
            # Not remembered: the generation of keys in `judged` is the one before those that are found.
            return self._accept(None, judged, trusted.keys.find(algorithm, token.header.kid))
        except TokenGuardError as error:
            del raw_token  # error trackers send the locals of a traceback away
            raise _without_frames(error) from error.__cause__

    async def validate_async(self, raw_token: str) -> AccessToken:
        """Do what `validate` does, without blocking the event loop while keys are fetched."""
        try:
            begun = self.begin(raw_token)
            return begun if isinstance(begun, AccessToken) else await begun
        except TokenGuardError:
            del raw_token
            raise

    def begin(self, raw_token: str) -> "AccessToken | Coroutine[Any, Any, AccessToken]":
        """Do what `validate_async` does. For nearly every token that is at once, and nothing is left to be awaited."""
        try:
            known = self._recall(digest := self._token_cache.digest(raw_token))
            if known is not None:
                return known
            judged = token, trusted, algorithm, _ = self._judge(raw_token)
            keys = trusted.keys.ready(algorithm, token.header.kid)
            return self._accept(digest, judged, keys) if keys else self._finish(judged)
        except TokenGuardError as error:
            del raw_token
            raise _without_frames(error) from error.__cause__

    async def _finish(self, judged: _Judged) -> AccessToken:
        token, trusted, algorithm, _ = judged
        try:
            return self._accept(None, judged, await trusted.keys.find_async(algorithm, token.header.kid))
        except TokenGuardError as error:
            raise _without_frames(error) from error.__cause__

    def authenticate(self, request: RequestView) -> AccessToken:
        """Return the access token of a whole request.

        Raises:
            MissingToken: no Bearer credentials.
            InvalidRequest: an Authorization header that cannot be read.
            InvalidToken, TemporarilyUnavailable: as `validate`.
        """
        return self.validate(_extract(request))

    async def authenticate_async(self, request: RequestView) -> AccessToken:
        """Do what `authenticate` does, without blocking the event loop while keys are fetched."""
        return await self.validate_async(_extract(request))

    def check_own(self, token: AccessToken) -> None:
        """Check that `token` was issued by one of our issuers for this API. For a token that some guard has validated.

        Does NOT validate the token.

        Raises:
            InvalidToken: `wrong_issuer` or `wrong_audience`.
        """
        trusted = self._trust.find(claims := dict(token.claims))
        if trusted is None:
            raise self._trust.refusal(claims)
        audience_is_ours(claims, trusted.policy)

    def challenge(self, error: Refusal) -> Answer:
        """Return the HTTP answer that a refusal demands: status, headers and JSON body (RFC 6750 3)."""
        return challenge(error, self._challenge)

    def warm_up(self) -> None:
        """Fetch the keys of every issuer, so that the first request need not.

        Raises:
            ConfigurationError: what an issuer publishes contradicts the configuration.
            TemporarilyUnavailable: there are no keys of the issuers named, neither theirs nor in the key store.
        """
        self._fetch(anew=False)

    async def warm_up_async(self) -> None:
        """Do what `warm_up` does, without blocking the event loop."""
        await self._fetch_async(anew=False)

    def refresh(self) -> None:
        """Fetch the keys of every issuer anew, however fresh they are: what was withdrawn before is refused after.

        A failed fetch keeps the keys that are held.

        Raises:
            ConfigurationError: what an issuer publishes contradicts the configuration.
            TemporarilyUnavailable: the keys of the issuers named could not be fetched.
        """
        self._fetch(anew=True)

    async def refresh_async(self) -> None:
        """Do what `refresh` does, without blocking the event loop."""
        await self._fetch_async(anew=True)

    def health(self) -> tuple[IssuerHealth, ...]:
        """Return what is known of each issuer's keys, in the order configured. Does no I/O."""
        return tuple(one.keys.health() for one in self._trust.issuers)

    @property
    def resolves_issuers(self) -> bool:
        """Whether an IssuerResolver finds issuers that are not listed."""
        return self._trust.resolves

    def token_cache_statistics(self) -> TokenCacheStatistics:
        """Return how many verified tokens are remembered, and how often one was. Counted anew in a forked process."""
        return self._token_cache.statistics()

    def close(self) -> None:
        """End the fetch thread. Keys that are held go on being used; a later fetch starts a new thread."""
        self._thread.close()

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **options: Any) -> "ResourceServer":
        """Return a resource server of the environment variables `TOKEN_GUARD_*`; `options` are further arguments.

        Several issuers, audiences, algorithms or scope claims are separated by spaces.

        Raises:
            ConfigurationError: a variable is missing, unknown or malformed.
        """
        values = {
            name.removeprefix(SETTINGS_PREFIX): value
            for name, value in (os.environ if environ is None else environ).items()
            if name.startswith(SETTINGS_PREFIX)
        }
        arguments = read_settings(values, SETTINGS_PREFIX)
        for name in arguments.keys() & options.keys():
            raise ConfigurationError(f"{name} is given as an argument and by {SETTINGS_PREFIX}*; keep one")
        return cls(**arguments, **options)

    def _keys_of(self, issuer: Issuer, resolved: bool) -> Keys:
        from .fetched_keys import FetchedKeys

        if issuer.has_given_keys:
            return GivenKeys(issuer)
        return FetchedKeys(issuer, *self._key_settings, public_only=resolved)

    def _recall(self, digest: bytes | None) -> AccessToken | None:
        """Return the access token where the same token was verified a moment ago.

        Its times are judged again, and the issuer's keys must be those that verified it: fresh, and none withdrawn.

        Raises:
            InvalidToken: as `times_are_right`, or `revoked`.
            TemporarilyUnavailable: as `_unless_revoked`.
        """
        remembered = None if digest is None else self._token_cache.get(digest)
        if remembered is None:
            return None
        trusted = remembered.trusted()
        is_trusted = trusted is not None and (not trusted.resolved or self._trust.still_holds(trusted))
        # The keys last: while a resolver takes its time, one may be withdrawn.
        if trusted is None or not is_trusted or remembered.generation != trusted.keys.generation():
            self._token_cache.count_outdated()
            return None
        token = AccessToken(remembered.payload, trusted.policy, remembered.scopes)
        now = self._clock()
        if not remembered.starts < now < remembered.ends:  # the claims need not be read for most of a token's life
            times_are_right(token.claims, trusted.policy, now)
        return token if self._is_revoked is None else self._unless_revoked(token, self._is_revoked)

    def _judge(self, raw_token: object) -> _Judged:
        """Read the token and apply every rule that can refuse it before its key is looked for.

        The generation of keys is asked before they are chosen: so a key that is withdrawn in between verifies a token
        that is remembered under the generation before it, and never again.
        """
        token = read_unverified(raw_token)
        trusted = self._trust.find(token.claims)
        if trusted is None:
            raise self._trust.refusal(token.claims)
        name = token.header.alg
        if name not in trusted.algorithms:
            detail = f"alg {name} is not allowed for issuer {trusted.policy.issuer}"
            detail += f"; {algorithm_hint(name, trusted.algorithms)}"
            raise InvalidToken(Reason.ALGORITHM_NOT_ALLOWED, detail=detail)
        check_claims(token, trusted.policy, self._clock())
        return token, trusted, ALGORITHMS[name], trusted.keys.generation()

    def _accept(self, digest: bytes | None, judged: _Judged, keys: Collection[Key]) -> AccessToken:
        """Check the signature, and only then make an access token of the claims."""
        unverified, trusted, algorithm, generation = judged
        if trusted.policy.tenants is not None:
            keys = keys_for_issuer(keys, unverified.claims)
        verify_signature(unverified, algorithm, keys)
        token = AccessToken(unverified.claims, trusted.policy)
        if digest is not None and generation is not None:
            span = certainly_right(unverified.claims, trusted.policy)
            self._token_cache.put(digest, Remembered(ref(trusted), unverified.payload, *span, generation, token.scopes))
        return token if self._is_revoked is None else self._unless_revoked(token, self._is_revoked)

    def _unless_revoked(self, token: AccessToken, is_revoked: Callable[[AccessToken], object]) -> AccessToken:
        try:
            revoked = is_revoked(token)
        except Exception as error:
            detail = f"is_revoked raised {type(error).__name__}"
            raise TemporarilyUnavailable(Reason.REVOCATION_UNAVAILABLE, detail=detail) from error
        if not isinstance(revoked, bool):
            detail = f"is_revoked returned {type(revoked).__name__}, not a bool"
            raise TemporarilyUnavailable(Reason.REVOCATION_UNAVAILABLE, detail=detail)
        if revoked:
            raise InvalidToken(Reason.REVOKED, detail="is_revoked says so")
        return token

    def _fetch(self, *, anew: bool) -> None:
        from .flights import wait

        for flight in self._flights(anew):
            wait(flight)
        self._raise_failures(unless_held=not anew)

    async def _fetch_async(self, *, anew: bool) -> None:
        from .flights import wait_async

        for flight in self._flights(anew):
            await wait_async(flight)
        self._raise_failures(unless_held=not anew)

    def _flights(self, anew: bool) -> "Iterator[Future[None]]":
        """Yield the flights to wait for, each before the next: to all issuers at once."""
        keys = [trusted.keys for trusted in self._trust.issuers]
        if anew:  # a flight that began before may bring what the issuer published before
            yield from filter(None, [each.flight() for each in keys])
        yield from filter(None, [each.fetch() for each in keys])
        yield from filter(None, [each.saved() for each in keys])  # a process that ends at once leaves its keys, too

    def _raise_failures(self, *, unless_held: bool) -> None:
        failed = [health for health in self.health() if health.last_error is not None]
        report = "; ".join(f"{health.issuer}: {health.last_error}" for health in failed)
        if any(health.state == "misconfigured" for health in failed):
            raise ConfigurationError(report)
        if any(health.state not in ("fresh", "stale") or not unless_held for health in failed):
            raise TemporarilyUnavailable(detail=report)


def _without_frames(error: TokenGuardError) -> TokenGuardError:
    """Drop the frames in which a refusal arose, and those of what it arose from: the token is among their locals."""
    error.__context__ = None
    return error.with_traceback(None)


def _extract(request: RequestView) -> str:
    try:
        return bearer_token(request.headers)
    except TokenGuardError as error:
        raise _without_frames(error) from None


_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "is_revoked": (
        lambda value: value is None or (callable(value) and not inspect.iscoroutinefunction(value)),
        "a function that returns a bool and is not awaited",
    ),
    "keys": (lambda value: isinstance(value, KeyPolicy | None), "a KeyPolicy"),
    "challenge": (lambda value: isinstance(value, ChallengePolicy | None), "a ChallengePolicy"),
    "clock": (callable, "a function that returns seconds since the epoch"),
    "monotonic": (callable, "a function that returns seconds"),
    "transport": (lambda value: value is None or hasattr(value, "handle_async_request"), "an httpx.AsyncBaseTransport"),
}
