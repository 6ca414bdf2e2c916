"""Each fault of an issuer, met by a resource server without keys, with fresh ones and with old ones: what it tells.

A row of the table has an issuer, a resource server and a clock of its own, so that all can be played side by side.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import product

from tests.chaos.clock import ManualClock
from tests.chaos.faulty_issuer import EVERY_FAULT, FAULTS, FAULTS_OF_ONE_DOCUMENT, NO_FAULT, Fault, FaultyIssuer
from tests.chaos.load import (
    ACCEPTED,
    GOOD,
    KINDS,
    NEED_KEYS,
    UNKNOWN_KEY,
    Outcome,
    Record,
    of_resource_server,
    recovered,
    show_each,
    wait_until,
)
from token_guard import KeyPolicy, ResourceServer

POLICY = KeyPolicy()
SHORTEST_RETRY = 0.5  # seconds that nobody asks the issuer again after a failure
AT_ONCE = 32  # rows that are played side by side

# How old the keys are as the fault begins, in seconds. A refresh is due before their time to live ends, which nobody
# waits for; once it has ended, as where no request came for long, the first requests do wait.
AGES = {
    "cold": None,
    "fresh": 0.0,
    "ageing": POLICY.time_to_live - SHORTEST_RETRY / 2,
    "expired": POLICY.time_to_live + 1,
}

# First come the rows in which nothing happens for ten seconds.
ROWS = sorted(
    [*product(FAULTS, AGES), *product(FAULTS_OF_ONE_DOCUMENT, ("cold", "fresh"))],
    key=lambda row: not row[0].startswith(("hanging", "dripping")),
)

# What each kind is told where keys are held.
OWN = {kind: ACCEPTED if row.reason is None else Outcome(401, row.reason) for kind, row in KINDS.items()}

Told = dict[str, set[Outcome]]


@dataclass(frozen=True)
class Row:
    """What tokens of each kind were told during the fault, once more a moment later, and after it.

    `flights` are the visits that the issuer saw during the fault, `elsewhere` those where its redirects point.
    """

    during: Told
    again: Told
    after: Told
    flights: int
    elsewhere: int
    state: str
    record: Record


def play(name: str, keys: str) -> Row:
    """Meet the fault, with the keys as it begins, and see it end."""
    clock = ManualClock()
    with FaultyIssuer(tls=True) as faulty:
        organizer = ResourceServer(
            issuer=faulty.issuer.url, audience="organize", transport=faulty.transport(), monotonic=clock, keys=POLICY
        )
        with closing(organizer):
            door = of_resource_server(organizer)
            if (age := AGES[keys]) is not None:
                organizer.warm_up()
                clock.advance(age)
            before, faulty.fault = faulty.flights, EVERY_FAULT[name]
            during = show_each(door, faulty.issuer, name=keys)
            clock.advance(SHORTEST_RETRY / 2)  # keys that were held are stale now
            again = show_each(door, faulty.issuer, kinds=[GOOD], name=keys)
            flights, faulty.fault = faulty.flights - before, NO_FAULT
            wait_until(lambda: recovered([door], faulty.issuer, clock))
            after = show_each(door, faulty.issuer, name=keys)
            [health] = organizer.health()
        elsewhere = len(faulty.elsewhere)
    told = during.outcomes(), again.outcomes(), after.outcomes()
    during += again
    during += after
    return Row(*told, flights, elsewhere, health.state, during)


def play_all() -> dict[tuple[str, str], Row]:
    """Play the whole table."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(ROWS, pool.map(lambda row: play(*row), ROWS), strict=True))


def expected(name: str, keys: str) -> Told:
    """What each kind is told during the fault: its own, unless only a key that cannot be had would tell."""
    missing = NEED_KEYS if keys == "cold" else {UNKNOWN_KEY}
    fault = EVERY_FAULT[name]
    return {
        kind: {own} if arrive(fault, keys) or kind not in missing else {Outcome(503, str(fault.cold))}
        for kind, own in OWN.items()
    }


def arrive(fault: Fault, keys: str) -> bool:
    """Whether keys arrive in spite of the fault."""
    return fault.cold is None or (fault.metadata_alone and keys != "cold")


def problems(name: str, keys: str, row: Row) -> list[str]:
    """Say what a row has that the table does not want."""
    fault, during = EVERY_FAULT[name], expected(name, keys)
    unseen = fault.certificate_expired or fault.name_unknown
    flights = {1, 2} if arrive(fault, keys) else {0} if unseen else {1}  # 2: an unknown key asks once more
    wanted = {
        "told": (row.during, during),
        "told a moment later": (row.again, {GOOD: during[GOOD]}),
        "told after it": (row.after, {kind: {own} for kind, own in OWN.items()}),
        "flights": (row.flights, row.flights if row.flights in flights else flights),
        "visits elsewhere": (row.elsewhere, 0),
        "health": (row.state, "fresh"),
    }
    return [f"{name}, {keys}: {what}: {seen}, not {right}" for what, (seen, right) in wanted.items() if seen != right]
