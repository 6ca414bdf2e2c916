"""Issuers that are known only when a token names them, such as one for each customer.

The name in a token is a stranger's word: it is compared with an allow-list before anything else happens, and what is
fetched for such an issuer comes from public addresses alone. Knows nothing about keys. RFC 8725 3.8 and 3.10.
"""

import inspect
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import urlsplit

import cachetools

from .addresses import is_safe_address
from .errors import ConfigurationError, Reason, TemporarilyUnavailable
from .issuer import TENANT, Issuer, string_set

Made = TypeVar("Made")


@dataclass(frozen=True)
class IssuerResolver:
    """Finds the settings of an issuer by its name, for a ResourceServer that cannot list its issuers.

    `resolve` gets the `iss` of a token, not yet verified, and returns an `Issuer` of exactly that URL, or None where it
    is not trusted. It is asked for every token of such an issuer, remembered or not, so it must be quick and must not
    wait for anything; a tenant that it forgets is refused from then on. It must know a closed set: whoever can invent
    names that it knows can make us fetch for each of them. `allowed_hosts` are the hosts that it is asked
    about at all, spelled as in the URL, with the port where one is written. `at_most` issuers are kept at a time; of
    the others the keys are fetched again.

    Raises:
        ConfigurationError: a setting is malformed.
    """

    resolve: Callable[[str], Issuer | None]
    allowed_hosts: Collection[str] = field(kw_only=True)
    at_most: int = field(default=1000, kw_only=True)

    def __post_init__(self) -> None:
        if not callable(self.resolve) or inspect.iscoroutinefunction(self.resolve):
            raise ConfigurationError("IssuerResolver: resolve must be a function that is not awaited")
        hosts = frozenset(string_set("IssuerResolver: allowed_hosts", self.allowed_hosts))
        for host in hosts:
            is_host = is_safe_address(f"https://{host}") and urlsplit(f"https://{host}").netloc == host
            if not is_host or "*" in host or host.startswith(".") or host.endswith(":443") or host != host.lower():
                raise ConfigurationError(
                    "IssuerResolver: allowed_hosts must hold whole hosts in lower case, such as 'login.example' or"
                    f" 'login.example:8443', not {host!r}"
                )
        object.__setattr__(self, "allowed_hosts", hosts)
        if isinstance(self.at_most, bool) or not isinstance(self.at_most, int) or self.at_most < 1:
            raise ConfigurationError(
                f"IssuerResolver: at_most must be a whole number, at least 1, not {self.at_most!r}"
            )

    def issuer(self, url: str) -> Issuer | None:
        """Return the issuer of this name, or None where it is not trusted.

        Raises:
            TemporarilyUnavailable: `resolve` fails, or returns something else.
        """
        if not self._may_ask(url):
            return None
        try:
            issuer: object = self.resolve(url)
        except Exception as error:
            detail = f"the issuer resolver raised {type(error).__name__}"
            raise TemporarilyUnavailable(Reason.ISSUER_MISCONFIGURED, detail=detail) from error
        if issuer is None or (isinstance(issuer, Issuer) and issuer.url == url and TENANT not in url):
            return issuer
        detail = f"the issuer resolver must return None or an Issuer({url!r}), not {issuer!r}"
        raise TemporarilyUnavailable(Reason.ISSUER_MISCONFIGURED, detail=detail)

    def hint(self, url: str) -> str:
        """Return why the issuer of this name is not trusted, for the log."""
        if self._may_ask(url):
            return "the IssuerResolver's resolve does not know it"
        return "it is not https, or its host, with the port where there is one, is not in the resolver's allowed_hosts"

    def _may_ask(self, url: str) -> bool:
        return url.startswith("https://") and is_safe_address(url) and urlsplit(url).netloc in self.allowed_hosts


def split_resolver(issuer: object) -> tuple[object, IssuerResolver | None]:
    """Return the issuers that are listed, and the resolver of others where there is one.

    Raises:
        ConfigurationError: two resolvers.
    """
    if isinstance(issuer, IssuerResolver):
        return (), issuer
    if not isinstance(issuer, Collection) or isinstance(issuer, (str, bytes)):
        return issuer, None
    resolvers = [member for member in issuer if isinstance(member, IssuerResolver)]
    if len(resolvers) > 1:
        raise ConfigurationError("issuer holds two IssuerResolvers; keep one")
    return ([member for member in issuer if member is not resolvers[0]], resolvers[0]) if resolvers else (issuer, None)


class ResolvedIssuers(Generic[Made]):
    """What was made of the issuers that a resolver has named: of those that were asked for last, a bounded number."""

    def __init__(self, resolver: IssuerResolver, make: Callable[[Issuer], Made]) -> None:
        self._resolver = resolver
        self._make = make
        self.begin_anew()

    def get(self, url: str) -> Made | None:
        """Return what was made of the issuer of this name, as the resolver describes it now; None if not trusted.

        Raises:
            TemporarilyUnavailable: the resolver fails, or returns what nothing can be made of.
        """
        issuer = self._resolver.issuer(url)
        if issuer is None:
            return None
        with self._lock:
            known = self._made.get(url)
        if known is not None and known[0] == issuer:
            return known[1]
        try:
            made = self._make(issuer)  # without the lock: it may log, and a log may be slow
        except ConfigurationError as error:
            raise TemporarilyUnavailable(Reason.ISSUER_MISCONFIGURED, detail=str(error)) from error
        with self._lock:
            known = self._made.get(url)
            if known is None or known[0] != issuer:  # else somebody was quicker
                known = self._made[url] = issuer, made
            return known[1]

    def hint(self, url: str) -> str:
        """Return why the issuer of this name is not trusted."""
        return self._resolver.hint(url)

    def values(self) -> list[Made]:
        """Return what is kept at the moment."""
        with self._lock:
            return [made for _, made in self._made.values()]

    def begin_anew(self) -> None:
        """Begin anew in a forked child, whose lock may be held by a thread that it does not have."""
        self._lock = threading.Lock()
        self._made: cachetools.LRUCache[str, tuple[Issuer, Made]] = cachetools.LRUCache(self._resolver.at_most)
