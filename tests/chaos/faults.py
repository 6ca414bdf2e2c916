"""Each fault of an issuer, met by a resource server that holds keys and by one that does not: what it tells whom.

A row of the table has an issuer, a resource server and a clock of its own, so that all can be played side by side.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import product

from tests.chaos.clock import ManualClock
from tests.chaos.faulty_issuer import FAULTS, NO_FAULT, Fault, FaultyIssuer
from tests.chaos.load import ACCEPTED, GOOD, KINDS, UNKNOWN_KEY, Outcome, Record, of_resource_server, show_each
from token_guard import KeyPolicy, ResourceServer

POLICY = KeyPolicy()
SHORTEST_RETRY = 0.5  # seconds that nobody asks the issuer again after a failure
LONGEST_RETRY = 30.0  # seconds after which it is asked again

AT_ONCE = 32  # rows

# Each fault as it meets no keys, and those of before. First those in which nothing happens for ten seconds.
ROWS = sorted(product(FAULTS, ("cold", "held")), key=lambda row: not row[0].startswith(("hanging", "dripping")))

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
            if keys == "held":
                organizer.warm_up()
                clock.advance(POLICY.time_to_live - SHORTEST_RETRY / 2)  # a refresh is due, which nobody waits for
            before, faulty.fault = faulty.flights, FAULTS[name]
            during = show_each(door, faulty.issuer, name=keys)
            clock.advance(SHORTEST_RETRY / 2)  # the keys that were held are stale now
            again = show_each(door, faulty.issuer, kinds=[GOOD], name=keys)
            flights, faulty.fault = faulty.flights - before, NO_FAULT
            clock.advance(LONGEST_RETRY)
            after = show_each(door, faulty.issuer, name=keys)
            [health] = organizer.health()
        elsewhere = len(faulty.elsewhere)
    told = during.outcomes(), again.outcomes(), after.outcomes()
    during += again
    during += after
    return Row(*told, flights, elsewhere, health.state, during)


def play_all() -> dict[tuple[str, str], Row]:
    """Play the whole table, many rows side by side."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(ROWS, pool.map(lambda row: play(*row), ROWS), strict=True))


def expected(name: str, keys: str) -> Told:
    """What each kind is told during the fault: its own, unless only a key that cannot be had would tell."""
    missing = {"cold": [kind for kind in KINDS if KINDS[kind].by_keys], "held": [UNKNOWN_KEY]}[keys]
    fault = FAULTS[name]
    return {
        kind: {own} if arrive(fault, keys) or kind not in missing else {Outcome(503, str(fault.cold))}
        for kind, own in OWN.items()
    }


def arrive(fault: Fault, keys: str) -> bool:
    """Whether keys arrive in spite of the fault."""
    return fault.cold is None or (fault.metadata_alone and keys == "held")


OWN = {kind: ACCEPTED if row.reason is None else Outcome(401, row.reason) for kind, row in KINDS.items()}


def problems(name: str, keys: str, row: Row) -> list[str]:
    """Say what a row has that the table does not want."""
    fault, during = FAULTS[name], expected(name, keys)
    unseen = fault.certificate_expired or fault.name_unknown
    checks = {
        "during the fault": row.during == during,
        "a moment later": row.again == {GOOD: during[GOOD]},
        "after it": row.after == {kind: {own} for kind, own in OWN.items()},
        # Where keys arrive, the unknown key may ask for them once more.
        "flights": row.flights in ({1, 2} if arrive(fault, keys) else {0} if unseen else {1}),
        "where the redirect points": row.elsewhere == 0,
        "health": row.state == "fresh",
    }
    return [f"{name}, {keys}: {check}: {row}" for check, right in checks.items() if not right]
