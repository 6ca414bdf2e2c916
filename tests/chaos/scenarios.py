"""What can happen to an issuer, played under a load of good and bad tokens: one function a scenario.

Each plays rounds for some seconds, at least one, and reports what was told and what must not have happened. The tests
play them for a moment, scripts/chaos for as long as it is told. Latencies are recorded and judged by nobody.
"""

import gc
import json
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

from tests.chaos import faults
from tests.chaos.applications import COOLDOWN, TIME_TO_LIVE, Settings, running
from tests.chaos.clock import ManualClock
from tests.chaos.faulty_issuer import FAULTS, KEYS, METADATA, NO_FAULT, WRONG_ANSWERS, FaultyIssuer
from tests.chaos.load import (
    ACCEPTED,
    GOOD,
    LONGEST_RETRY,
    PATIENCE,
    REFUSED_UNKNOWN,
    STUCK,
    UNKNOWN_KEY,
    Door,
    Outcome,
    Record,
    load,
    of_application,
    of_resource_server,
    recovered,
    show,
    show_each,
    wait_until,
)
from token_guard import Reason
from token_guard.testing import LocalIssuer
from token_guard.testing.keys import base64url

ROTATION = 2.0  # seconds between two rotations
KEYS_LEFT = 2  # keys that stay published after they have ceased to sign, for the tokens that are on their way
OUTAGE = 600.0  # seconds, of the injected clock
STEPS = 60  # of that clock in an outage
STEP = 0.05  # seconds that a step really takes
FLOOD = 100_000  # random key IDs
FEW_BLOCKS = 2_000  # of memory: what a hundred thousand refusals may leave behind, less than one in fifty
TASKS, THREADS = 10_000, 200
NAPS = (2.0, 14.0)  # seconds that an issuer is stopped for: shorter and longer than a flight to it may take

IN_PROCESS = "in process"
UNAVAILABLE = Outcome(503, Reason.KEYS_UNAVAILABLE)

# In every way in which an issuer without TLS can bring no keys.
DOWN = [*WRONG_ANSWERS.values(), FAULTS["empty key set"], FAULTS["wrong issuer"]]


@dataclass
class Report:
    """What a scenario has seen. `facts` are numbers to print; without `problems` all went as it must."""

    record: Record = field(default_factory=Record)
    facts: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def demand(self, right: bool, problem: str) -> None:
        if not right:
            self.problems.append(problem)

    def count(self, fact: str, number: float = 1) -> None:
        self.facts[fact] = self.facts.get(fact, 0) + number

    def take(self, record: Record, **allowed: Any) -> None:
        """Judge a record, and keep it."""
        self.problems += record.problems(**allowed)
        self.record += record


Scenario = Callable[[float, Path], Report]


def each_fault(seconds: float, folder: Path) -> Report:
    """Every fault of the issuer, with keys that are held and without."""
    report = Report()
    for _ in rounds(seconds):
        for (name, keys), row in faults.play_all().items():
            report.problems += faults.problems(name, keys, row)
            report.record += row.record
            report.count("rows")
    return report


def rotation(seconds: float, folder: Path) -> Report:
    """A rotation every two seconds, the next key published ahead, the last ones withdrawn."""
    report = Report()
    with FaultyIssuer() as faulty, opened(folder, Settings(faulty.issuer.url)) as doors:
        issuer, retired = faulty.issuer, list[str]()
        greet(report, doors, issuer)
        upcoming = issuer.add_key("ES256")
        before, started = faulty.flights, time.monotonic()
        with load(doors, issuer) as record:
            while time.monotonic() < started + seconds:
                time.sleep(ROTATION)
                retired.append(issuer.key.kid)
                issuer.key, upcoming = upcoming, issuer.add_key("ES256")
                for kid in retired[:-KEYS_LEFT]:
                    issuer.withdraw(kid)
                del retired[:-KEYS_LEFT]
                report.count("rotations")
        elapsed = time.monotonic() - started
        report.take(record)
        report.count("flights", faulty.flights - before)
        report.demand(
            report.facts["flights"] <= len(doors) * (elapsed / COOLDOWN + 2), "more than one fetch per cooldown"
        )
        # A key that is withdrawn is refused from the next good fetch on, also for a token that is remembered.
        last = issuer.token()
        told = {name: door.show(last) for name, door in doors.items()}
        issuer.withdraw(issuer.key.kid)
        time.sleep(COOLDOWN)
        for name, door in doors.items():
            told_of_unknown = door.show(issuer.unknown_key())
            report.demand(
                (told[name], told_of_unknown, door.show(last)) == (ACCEPTED, REFUSED_UNKNOWN, REFUSED_UNKNOWN),
                f"{name}: a withdrawn key is used after a good fetch",
            )
    return report


def outage(seconds: float, folder: Path) -> Report:
    """Ten minutes, ten lifetimes of the keys, in which the issuer is down in every way in turn."""
    report, clock = Report(), ManualClock(folder / "clock")
    with FaultyIssuer() as faulty, opened(folder, Settings(faulty.issuer.url, folder / "clock")) as doors:
        greet(report, doors, faulty.issuer)
        for _ in rounds(seconds):
            with load(doors, faulty.issuer) as record:
                for step in range(STEPS):
                    faulty.fault = DOWN[step * len(DOWN) // STEPS]
                    clock.advance(OUTAGE / STEPS)
                    time.sleep(STEP)
            report.take(record, unavailable={UNKNOWN_KEY})
            report.count("seconds of outage", OUTAGE)
            faulty.fault = NO_FAULT
            wait_until(lambda: recovered(doors.values(), faulty.issuer, clock))
            report.take(show_all(doors, faulty.issuer))
        report.count("flights", faulty.flights)
    return report


def flood(seconds: float, folder: Path) -> Report:
    """A hundred thousand random key IDs."""
    report, clock = Report(), ManualClock(folder / "clock")
    with FaultyIssuer() as faulty, opened(folder, Settings(faulty.issuer.url, folder / "clock")) as doors:
        greet(report, doors, faulty.issuer)
        for _ in rounds(seconds):
            clock.advance(COOLDOWN)
            _flood_one(report, doors[IN_PROCESS], faulty)
            clock.advance(COOLDOWN)
            _flood_all(report, doors, faulty)
            clock.advance(TIME_TO_LIVE - COOLDOWN / 2)  # the keys are good, and their refresh is due
            _hang(report, doors, faulty)
            clock.advance(LONGEST_RETRY)
    return report


def _flood_one(report: Report, door: Door, faulty: FaultyIssuer) -> None:
    """All of the flood through one door: one fetch in the one cooldown, and nothing is left of it in memory."""
    forge = forger(faulty.issuer)
    before, told = faulty.flights, {door.show(forge()) for _ in range(1_000)}
    gc.collect()
    blocks = sys.getallocatedblocks()
    told |= {door.show(forge()) for _ in range(FLOOD)}
    gc.collect()
    blocks = sys.getallocatedblocks() - blocks
    report.count("random key IDs", FLOOD)
    report.facts["blocks of memory left"] = max(blocks, report.facts.get("blocks of memory left", 0))
    report.demand(told == {REFUSED_UNKNOWN}, f"the flood was told {told}")
    report.demand(faulty.flights - before == 1, f"the flood caused {faulty.flights - before} fetches in one cooldown")
    report.demand(blocks < FEW_BLOCKS, f"the flood left {blocks} blocks of memory behind")


def _flood_all(report: Report, doors: Mapping[str, Door], faulty: FaultyIssuer) -> None:
    """A flood at every door while good tokens come in: one fetch a door in the one cooldown."""
    forge, over, before = forger(faulty.issuer), threading.Event(), faulty.flights
    with load(doors, faulty.issuer) as record:

        def stream(name: str, door: Door) -> None:
            while not over.is_set():
                show(door, name, UNKNOWN_KEY, forge(), record)

        threads = [threading.Thread(target=stream, args=named, daemon=True) for named in doors.items()]
        for thread in threads:
            thread.start()
        time.sleep(1)
        over.set()
        for thread in threads:
            thread.join(PATIENCE)
    report.take(record)
    report.demand(faulty.flights - before <= len(doors), f"{faulty.flights - before} fetches from {len(doors)} doors")


def _hang(report: Report, doors: Mapping[str, Door], faulty: FaultyIssuer) -> None:
    """An unknown key ID waits for an issuer that hangs; good tokens pass it."""
    before, faulty.fault = faulty.flights, FAULTS["hanging"]
    waiting = [Newcomer(door, faulty.issuer.unknown_key()) for door in doors.values()]
    wait_until(lambda: faulty.flights - before >= len(doors))
    report.take(show_all(doors, faulty.issuer, kinds=[GOOD]))
    report.demand(all(one.is_alive() for one in waiting), "a good token waited for the fetch of an unknown key")
    faulty.fault = NO_FAULT
    told = {one.told() for one in waiting}
    report.demand(told <= {REFUSED_UNKNOWN, UNAVAILABLE}, f"those who waited were told {told}")


def stampede(seconds: float, folder: Path) -> Report:
    """Thousands come at once while no keys are held: all are served by one fetch."""
    report = Report()
    for _ in rounds(seconds):
        for crowd in ({"tasks": TASKS, "threads": 0}, {"tasks": 0, "threads": THREADS}):
            with FaultyIssuer() as faulty, closing(Settings(faulty.issuer.url).resource_server()) as organizer:
                faulty.fault = FAULTS["slow"]
                door = of_resource_server(organizer)
                report.take(show_each(door, faulty.issuer, name=IN_PROCESS, kinds=[GOOD], **crowd))
            report.demand(faulty.visits == [METADATA, KEYS], f"{crowd} caused the visits {faulty.visits}")
    return report


def asleep(seconds: float, folder: Path) -> Report:
    """The issuer's process is stopped, its key changes while it sleeps, and it wakes up."""
    report = Report()
    with published(folder) as (issuer, publish, process), opened(folder, Settings(issuer.url)) as doors:
        greet(report, doors, issuer)
        for _, nap in zip(rounds(seconds), cycle(NAPS), strict=False):
            issuer.keys = (issuer.key,)  # the last round's key is withdrawn
            with load(doors, issuer) as record:
                process.send_signal(signal.SIGSTOP)
                upcoming = issuer.add_key("ES256")
                publish()
                time.sleep(COOLDOWN)  # who asked just before the change would be told that there is no such key
                newcomers = [Newcomer(door, issuer.token(key=upcoming)) for door in doors.values()]
                time.sleep(nap)
                process.send_signal(signal.SIGCONT)
                told = [newcomer.told() for newcomer in newcomers]
                wait_until(lambda: recovered(doors.values(), issuer))
                issuer.key = upcoming
            report.take(record, unavailable={UNKNOWN_KEY})
            report.count("seconds asleep", nap)
            # Nobody could know the new key yet. A short nap makes its tokens wait; after a long one they come again.
            patient = nap == NAPS[0]
            refused = [outcome for outcome in told if outcome != ACCEPTED and (patient or outcome.status != 503)]
            report.demand(not refused, f"{nap} s asleep, tokens of the new key were told {told}")
    return report


def restart(seconds: float, folder: Path) -> Report:
    """Everybody is started anew while the issuer is down, with a key store."""
    report, store = Report(), folder / "store"
    with FaultyIssuer() as faulty:
        settings = Settings(faulty.issuer.url, store=store)
        with opened(folder, settings) as doors:
            greet(report, doors, faulty.issuer)
            wait_until(lambda: any(store.glob("*.json")))
        for _, fault in zip(rounds(seconds), cycle(reversed(WRONG_ANSWERS.values())), strict=False):
            faulty.fault = fault
            with opened(folder, settings) as doors:
                with load(doors, faulty.issuer) as record:
                    time.sleep(1)
                report.take(record, unavailable={UNKNOWN_KEY})
                faulty.fault = NO_FAULT
                wait_until(lambda: recovered(doors.values(), faulty.issuer))
                report.take(show_all(doors, faulty.issuer))
            report.count("restarts")
    return report


SCENARIOS: dict[str, Scenario] = {
    "faults": each_fault,
    "rotation": rotation,
    "outage": outage,
    "flood": flood,
    "stampede": stampede,
    "asleep": asleep,
    "restart": restart,
}


def rounds(seconds: float) -> Iterator[None]:
    """Yield for each round: one, and more while the time lasts."""
    started = time.monotonic()
    yield
    while time.monotonic() < started + seconds:
        yield


@contextmanager
def opened(folder: Path, settings: Settings) -> Iterator[dict[str, Door]]:
    """A resource server in this process, and the application of each framework in its own, all without keys yet."""
    with ExitStack() as stack:
        organizer = stack.enter_context(closing(settings.resource_server()))
        addresses = stack.enter_context(running(folder, settings))
        applications = {name: stack.enter_context(of_application(url)) for name, url in addresses.items()}
        yield {IN_PROCESS: of_resource_server(organizer), **applications}


@contextmanager
def published(folder: Path) -> Iterator[tuple[LocalIssuer, Callable[[], None], "subprocess.Popen[bytes]"]]:
    """An issuer whose documents are files that a process of its own serves, and the function that writes them."""
    site = folder / "issuer"
    (site / ".well-known").mkdir(parents=True)
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(site)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().split()[5].decode()
            issuer = LocalIssuer(f"http://127.0.0.1:{port}/", algorithm="ES256")

            def publish() -> None:
                for path, document in ((METADATA, issuer.metadata()), (KEYS, issuer.jwks())):
                    written = site / "new"
                    written.write_text(json.dumps(document))
                    written.replace(site / path[1:])

            publish()
            yield issuer, publish, process
        finally:
            process.kill()


class Newcomer(threading.Thread):
    """Shows one token, and may have to wait."""

    def __init__(self, door: Door, token: str) -> None:
        super().__init__(daemon=True)
        self._door, self._token = door, token
        self._told = STUCK
        self.start()

    def run(self) -> None:
        self._told = self._door.show(self._token)

    def told(self) -> Outcome:
        self.join(PATIENCE)
        return self._told


def greet(report: Report, doors: Mapping[str, Door], issuer: LocalIssuer) -> None:
    """Show every door a good token, so that it holds the keys."""
    report.take(show_all(doors, issuer, kinds=[GOOD]))


def show_all(doors: Mapping[str, Door], issuer: LocalIssuer, **options: Any) -> Record:
    record = Record()
    for name, door in doors.items():
        record += show_each(door, issuer, name=name, **options)
    return record


def forger(issuer: LocalIssuer) -> Callable[[], str]:
    """Make tokens with random key IDs, as fast as a flood needs them: with a signature of nobody."""
    _, payload, signature = issuer.token().split(".")

    def forge() -> str:
        header = {"alg": "ES256", "typ": "JWT", "kid": secrets.token_urlsafe(16)}
        return f"{base64url(json.dumps(header).encode())}.{payload}.{signature}"

    return forge
