"""How long validations take while keys are being fetched, against quiet times: the slowest of a hundred.

Cold validations on one thread, keys of a hundred, fetched in memory on the thread of the resource server. Wall-clock
times, so that whatever else the machine does is in them, too.
"""

import threading
from collections.abc import Callable, Iterator
from statistics import quantiles
from time import perf_counter

from benchmarks.plan import Plan
from benchmarks.report import AT_MOST, Cell, Table, say
from benchmarks.tokens import AUDIENCE, mint
from token_guard import ResourceServer
from token_guard.testing import LocalIssuer

P99_AT_MOST = 1.5
PAUSE = 0.05  # seconds between two refreshes: twenty a second, where there is one in ten minutes by default


def run(plan: Plan) -> Iterator[Table]:
    """Validate for as long as some refreshes take, and then for the same time without any."""
    say(f"refresh: {plan.refreshes} refreshes")
    issuer = LocalIssuer()
    for _ in range(7):  # as many keys as large issuers publish
        issuer.add_key("RS256")
    organizer = ResourceServer(issuer=issuer.url, audience=AUDIENCE, transport=issuer.transport(), token_cache_size=0)
    organizer.warm_up()
    tokens = mint(issuer, plan.tokens)

    def refresh() -> None:
        for _ in range(plan.refreshes):
            organizer.refresh()
            stop.wait(PAUSE)

    stop = threading.Event()
    refreshing = threading.Thread(target=refresh, daemon=True)
    refreshing.start()
    busy = latencies(organizer.validate, tokens, refreshing.is_alive)
    ended = perf_counter() + sum(busy)
    quiet = latencies(organizer.validate, tokens, lambda: perf_counter() < ended)
    organizer.close()
    rows: list[tuple[Cell, ...]] = []
    for name, position in (("median", 49), ("p99", 98)):
        while_quiet, while_busy = (quantiles(times, n=100)[position] * 1e6 for times in (quiet, busy))
        at_most = P99_AT_MOST if name == "p99" else None
        rows.append((name, while_quiet, while_busy, while_busy / while_quiet, at_most))
    note = f"One refresh every {PAUSE * 1e3:.0f} ms, {len(busy):,} and {len(quiet):,} validations."
    columns = ("of validations", "quiet µs", "while keys are refreshed µs", "ratio", AT_MOST)
    yield Table("Latency while keys are refreshed", columns, rows, note=note, limited="ratio")


def latencies(validate: Callable[[str], object], tokens: list[str], going_on: Callable[[], bool]) -> list[float]:
    """Return how long each validation took, in seconds, for as long as something goes on."""
    times: list[float] = []
    while going_on() or len(times) < 2:
        for token in tokens:
            started = perf_counter()
            validate(token)
            times.append(perf_counter() - started)
    return times
