"""Play what can happen to an issuer for a long time, under a load of good and bad tokens, and tell what became of them.

Every scenario gets its share of the time, and one round at least. It ends with a table, and with status 1 where a good
token was refused, a bad one accepted or anything else went wrong. Latencies are printed and judged by nobody.
"""

import argparse
import json
import logging
import signal
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from tests.chaos.load import KINDS, Record
from tests.chaos.scenarios import SCENARIOS, Report

PROGRESS = 10.0  # seconds between two lines of progress


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"chaos: {text}", file=sys.stderr, flush=True)


def play(name: str, seconds: float) -> Report:
    """Play one scenario in a folder of its own, and say from time to time that it goes on."""
    over, started = threading.Event(), time.monotonic()

    def tell() -> None:
        while not over.wait(PROGRESS):
            say(f"{name}: {time.monotonic() - started:.0f} s of {seconds:.0f} s")

    say(f"{name} begins, for {seconds:.0f} s")
    threading.Thread(target=tell, daemon=True).start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            report = SCENARIOS[name](seconds, Path(folder))
    except Exception:  # noqa: BLE001  # the other scenarios are played all the same
        report = Report(problems=[traceback.format_exc()])
    finally:
        over.set()
    facts = ", ".join(f"{number:.0f} {fact}" for fact, number in report.facts.items())
    say(f"{name} has ended after {time.monotonic() - started:.0f} s: {facts}")
    for problem in report.problems:
        say(f"{name}: PROBLEM: {problem}")
    return report


def latencies(record: Record) -> dict[str, dict[str, float]]:
    """Return what each door took to answer good tokens and bad ones, in milliseconds."""
    every: dict[str, list[float]] = {}
    for (door, kind), seconds in record.seconds.items():
        every.setdefault(f"{door}, {'bad' if KINDS[kind].reason else 'good'}", []).extend(seconds)
    return {
        what: {
            name: round(1_000 * seconds[int(part * (len(seconds) - 1))], 2)
            for name, part in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
        }
        for what, seconds in ((what, sorted(seconds)) for what, seconds in sorted(every.items()))
    }


def summary(reports: dict[str, Report]) -> str:
    """Return a table of what became of the tokens in each scenario, and one of the latencies."""
    lines = [f"{'scenario':10} {'good':>9} {'accepted':>9} {'503':>9} {'bad':>9} {'refused':>9} {'503':>9}   problems"]
    for name, report in reports.items():
        numbers = [
            sum(
                number
                for (_, kind, outcome), number in report.record.told.items()
                if (KINDS[kind].reason is None) is good and outcome.status in statuses
            )
            for good, accepted in ((True, (200,)), (False, (401,)))
            for statuses in (range(1_000), accepted, (503,))
        ]
        lines.append(f"{name:10} {' '.join(f'{number:9}' for number in numbers)}   {len(report.problems) or 'none'}")
    lines += ["", f"{'scenario':10} {'door, tokens':18} {'p50':>10} {'p99':>10} {'max':>10}   milliseconds"]
    for name, report in reports.items():
        for what, took in latencies(report.record).items():
            lines.append(f"{name:10} {what:18} {' '.join(f'{number:10.2f}' for number in took.values())}")
    return "\n".join(lines)


def as_json(reports: dict[str, Report]) -> dict[str, Any]:
    """Return everything that was seen, as JSON can hold it."""
    return {
        name: {
            "facts": report.facts,
            "told": [
                {"door": door, "kind": kind, "status": outcome.status, "reason": outcome.reason, "number": number}
                for (door, kind, outcome), number in sorted(report.record.told.items())
            ],
            "milliseconds": latencies(report.record),
            "problems": report.problems,
        }
        for name, report in reports.items()
    }


def main() -> None:
    """Read the command line, play, and print."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="for how long, all scenarios together (600)")
    parser.add_argument("--scenario", choices=SCENARIOS, action="append", help="play this one; may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was seen to this file")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that every process and server is ended
    logging.getLogger("token_guard").addHandler(logging.NullHandler())

    names = options.scenario or list(SCENARIOS)
    reports = {name: play(name, options.seconds / len(names)) for name in names}
    print(summary(reports))
    if options.json is not None:
        options.json.write_text(json.dumps(as_json(reports), indent=2) + "\n")
    sys.exit(any(report.problems for report in reports.values()))


if __name__ == "__main__":
    main()
