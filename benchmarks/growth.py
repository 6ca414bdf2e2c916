"""Whether work and memory stay flat while something grows: keys, issuers, scopes, distinct tokens."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from resource import getpagesize
from time import process_time
from typing import Any

from benchmarks.measure import Case, measure
from benchmarks.memory import shared_secret_server
from benchmarks.plan import Plan
from benchmarks.report import Cell, Chart, Table, say
from benchmarks.tokens import AUDIENCE, SCOPE, bare, key_set, mint, stream
from token_guard import Issuer, ResourceServer
from token_guard.testing import LocalIssuer

KEYS = (1, 10, 100)
ISSUERS = (1, 10, 50)
SCOPES = (6, 50, 500)
_PARTS = 10  # of the stream of distinct tokens


def run(plan: Plan) -> Iterator[Table]:
    """Measure what grows, each against the bare check of the same tokens."""
    say(f"growth: keys, issuers, scopes, {plan.rounds} rounds")
    grown = {
        **{f"keys in the set: {count}": keys(count, plan.tokens) for count in KEYS},
        **{f"issuers: {count}": issuers(count, plan.tokens) for count in ISSUERS},
        **{f"scopes in the token: {count}": scopes(count, plan.tokens) for count in SCOPES},
    }
    timings = measure((case for label, cases in grown.items() for case in named(label, *cases)), plan.rounds)
    rows: list[tuple[Cell, ...]] = []
    for label in grown:
        floor, cold, hit = (timings[f"{label}, {kind}"] for kind in ("bare", "cold", "hit"))
        rows.append((label, floor.best, cold.best_ratio, cold.median_ratio, hit.best_ratio, hit.median_ratio))
    columns = ("what grows", "bare, best µs", "cold", "cold, of medians", "hit", "hit, of medians")
    unit = "times the bare check of the same tokens"
    yield Table("Growth", columns, rows, chart=Chart("growth.svg", ("cold", "hit"), unit))
    yield distinct(plan.distinct)


def named(label: str, issuer: LocalIssuer, minted: list[str], settings: dict[str, Any]) -> Iterator[Case]:
    """Return the bare check of the tokens, and their validation by a resource server of these settings."""
    floor = bare(issuer, minted, f"{label}, bare")
    yield floor
    yield Case(f"{label}, cold", ResourceServer(**settings, token_cache_size=0).validate, minted, floor.name)
    yield Case(f"{label}, hit", ResourceServer(**settings).validate, minted, floor.name)


def keys(count: int, tokens: int) -> tuple[LocalIssuer, list[str], dict[str, Any]]:
    """An issuer that publishes so many keys, and signs with the last."""
    issuer = LocalIssuer()
    return issuer, mint(issuer, tokens), {"issuer": issuer.url, "audience": AUDIENCE, "jwks": key_set(issuer, count)}


def issuers(count: int, tokens: int) -> tuple[LocalIssuer, list[str], dict[str, Any]]:
    """So many issuers that take turns. They share a key, which is no matter to whoever validates."""
    first = LocalIssuer()
    urls = [f"https://issuer-{number}.example/" for number in range(count)]
    minted = [mint(first, 1, issuer=urls[number % count], claims={"n": number})[0] for number in range(tokens)]
    trusted = [Issuer(url, jwks=first.jwks()) for url in urls]
    return first, minted, {"issuer": trusted, "audience": AUDIENCE}


def scopes(count: int, tokens: int) -> tuple[LocalIssuer, list[str], dict[str, Any]]:
    """Tokens with so many scopes: a larger token has more to hash, to decode and to parse."""
    issuer = LocalIssuer()
    scope = SCOPE + "".join(f" read:shelf_{number:03}" for number in range(count - len(SCOPE.split())))
    return issuer, mint(issuer, tokens, scope), {"issuer": issuer.url, "audience": AUDIENCE, "jwks": issuer.jwks()}


def distinct(count: int) -> Table:
    """Send distinct tokens through a cache of a hundredth of their number, and look at each tenth of them."""
    size = count // 100
    say(f"growth: {count:,} distinct tokens through a cache of {size:,}")
    issuer = LocalIssuer(algorithm="HS256")  # a million signatures of RSA would take ten minutes
    organizer = shared_secret_server(issuer, size)
    minted, rows = stream(issuer, count), list[tuple[Cell, ...]]()
    for part in range(1, _PARTS + 1):
        spent = 0.0
        for _ in range(_PARTS):
            some = list(islice(minted, count // _PARTS**2))
            started = process_time()
            for token in some:
                organizer.validate(token)
            spent += process_time() - started
        rows.append((f"after {count // _PARTS * part:,} tokens", spent / count * _PARTS * 1e6, resident()))
    columns = ("distinct tokens", "µs a token", "resident MiB")
    title = f"Distinct tokens through a cache of {size:,}"
    return Table(title, columns, rows, chart=Chart("distinct.svg", columns[1:], "work and memory"))


def resident() -> float:
    """Return the memory of this process in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize() / 2**20
