"""Measure what Token Guard costs, mostly as ratios to the bare signature check of cryptography in the same process.

"bare" is the key's own `verify` and nothing else. "cold" is ResourceServer.validate with warm keys and its cache of
verified tokens off, "hit" with the token in that cache. All cases take turns; ratios are those of the best rounds and
of the medians. "at most" is what we promise. Nothing fails for being slow, but for instructions above their record.
"""

import argparse
import json
import os
import platform
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.charts import svg
from benchmarks.plan import FULL, QUICK, TINY
from benchmarks.report import Table, as_json, as_markdown, as_text

DOCS = Path(__file__).resolve().parent.parent / "docs" / "benchmarks"

# Each is a module here, which is imported only when it is wanted: not every environment has what all of them need.
SUBJECTS = {
    "validation": "validating and refusing, against the bare signature check and other libraries",
    "adapters": "what a guard adds to a request inside each framework, without sockets",
    "http": "the same behind real servers, under the load of wrk",
    "memory": "what remembered tokens take",
    "growth": "many keys, issuers, scopes and distinct tokens",
    "refresh": "latency while keys are refreshed",
    "start": "imports, and a large key set",
    "instructions": "instructions of a validation, counted by valgrind, against those on record",
}


def main() -> None:
    """Read the command line, measure, and print; then write what was asked for."""
    parser = arguments()
    options = parser.parse_args()
    if options.docs and (options.subjects or options.only):
        parser.error("--docs writes results.md as a whole: measure everything")
    plan = replace(options.plan, only=tuple(options.only), record=options.record)
    conditions = circumstances()
    print("\n".join(f"{name} {value}" for name, value in conditions.items()), flush=True)
    tables: list[Table] = []
    try:
        for subject in options.subjects or SUBJECTS:
            for table in import_module(f"benchmarks.{subject}").run(plan):
                print("", as_text(table), sep="\n", flush=True)
                tables.append(table)
    except ValueError as error:  # what was asked for measures nothing
        parser.error(str(error))
    if options.json:
        report = {**conditions, "tables": [as_json(table) for table in tables]}
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    if options.docs:
        write_docs(conditions, tables)
    failures = [f"{table.title}: {table.failure}" for table in tables if table.failure]
    if failures:
        sys.exit("\n".join(failures))


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    epilog = "subjects:\n" + "\n".join(f"  {name:13} {meaning}" for name, meaning in SUBJECTS.items())
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=__doc__,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("subjects", nargs="*", metavar="SUBJECT", help="measure this alone; several may be named", type=subject)
    sizes = parser.add_mutually_exclusive_group()
    sizes.set_defaults(plan=QUICK)
    sizes.add_argument("--full", dest="plan", action="store_const", const=FULL, help="the long run: half an hour")
    sizes.add_argument("--tiny", dest="plan", action="store_const", const=TINY, help="show only that everything runs")
    add("--only", action="append", default=[], help="validation: only cases whose name contains this; may be repeated")
    add("--record", action="store_true", help="instructions: put what was counted on record")
    add("--json", type=Path, metavar="FILE", help="write the tables as JSON, too")
    add("--docs", action="store_true", help="write the tables and the charts into docs/benchmarks, too")
    return parser


def subject(text: str) -> str:
    """Return a subject. Raises ValueError where there is none of this name."""
    if text not in SUBJECTS:
        raise ValueError
    return text


def circumstances() -> dict[str, Any]:
    """Return what the numbers depend on: versions, the machine, and how busy it is before we begin."""
    optimised = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    load, processors = os.getloadavg()[0], os.cpu_count() or 1
    busy = ": busy with other work, so that times are uncertain" if load > processors / 2 else ""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": f"{platform.python_version()}, {'with' if optimised else 'without'} --enable-optimizations",
        **{name: version(name) for name in ("cryptography", "pyjwt")},
        "machine": f"{platform.machine()}, {processors} processors",
        "load": f"{load:.1f}{busy}",
    }


def write_docs(conditions: dict[str, Any], tables: Iterable[Table]) -> None:
    """Write results.md and the charts that it shows."""
    lines = ["# Results", "", "Written by `scripts/bench --docs`; [README.md](README.md) says what they mean.", ""]
    lines += [f"* {name}: {value}" for name, value in conditions.items()]
    for table in tables:
        lines += ["", as_markdown(table)]
        if table.chart is not None:
            (DOCS / table.chart.file).write_text(svg(table))
    (DOCS / "results.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
