"""Measure what Token Guard costs, mostly as ratios to the bare signature check of cryptography in the same process.

"bare" is the key's own `verify` and nothing else. "cold" is ResourceServer.validate with warm keys and its cache of
verified tokens off, "hit" with the token in that cache. All cases take turns; ratios are those of the best rounds and
of the medians. "at most" is the aim; what is more is marked as missed. Nothing fails for being slow, but for
instructions above their record.
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
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.charts import svg
from benchmarks.plan import FULL, QUICK, TINY, Plan
from benchmarks.report import Table, as_json, as_markdown, as_text, say

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
    options = read_options()
    plan = replace(options.plan, only=tuple(options.only), record=options.record)
    conditions = circumstances(plan)
    print("\n".join(f"{name} {value}" for name, value in conditions.items()), flush=True)
    tables: list[Table] = []
    try:
        for subject in options.subjects or SUBJECTS:
            for table in import_module(f"benchmarks.{subject}").run(plan):
                print("", as_text(table), sep="\n", flush=True)
                tables.append(table)
    except ValueError as error:  # what was asked for measures nothing
        say(str(error))
        sys.exit(2)
    if options.json:
        report = {**conditions, "tables": [as_json(table) for table in tables]}
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    if options.docs:
        write_docs(conditions, tables)
    missed = [str(row[0]) for table in tables for row in table.rows if table.missed(row)]
    if missed:
        say(f"missed are {len(missed)}: {'; '.join(missed)}")
    failures = [f"{table.title}: {table.failure}" for table in tables if table.failure]
    if failures:
        sys.exit("\n".join(failures))


def read_options() -> argparse.Namespace:
    """Return what the command line asks for. Exits with 2 where it asks for what fits nothing."""
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
    add("--json", type=file, metavar="FILE", help="write the tables as JSON, too")
    add("--docs", action="store_true", help="write the tables and the charts into docs/benchmarks, too")
    options = parser.parse_args()
    options.subjects = list(dict.fromkeys(options.subjects))
    if options.docs and (options.subjects or options.plan is not FULL):
        parser.error("--docs writes results.md: measure everything, scripts/bench --full --docs")
    for option, belongs_to in (("only", "validation"), ("record", "instructions")):
        if getattr(options, option) and belongs_to not in options.subjects:
            parser.error(f"--{option} is for {belongs_to}: name it, scripts/bench {belongs_to} --{option}")
    return options


def subject(text: str) -> str:
    """Return a subject.

    Raises:
        ArgumentTypeError: there is none of this name.
    """
    if text not in SUBJECTS:
        meant = "".join(f"; did you mean {name}?" for name in get_close_matches(text.lower(), SUBJECTS, 1))
        raise argparse.ArgumentTypeError(f"there is no {text!r}; known are {', '.join(SUBJECTS)}{meant}")
    return text


def file(text: str) -> Path:
    """Return where a file can be written, before half an hour is spent on what is to be in it.

    Raises:
        ArgumentTypeError: it is a folder, or in a folder that is not there or may not be written to.
    """
    path = Path(text)
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} cannot be written: name a file in a folder that is there")
    return path


def circumstances(plan: Plan) -> dict[str, Any]:
    """Return what the numbers depend on: versions, the machine, and how busy it is before we begin."""
    configured = "with" if "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "") else "without"
    load, processors = os.getloadavg()[0], os.cpu_count() or 1
    busy = ": busy with other work, so that times are uncertain" if load > processors / 2 else ""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": f"{platform.python_version()}, configured {configured} --enable-optimizations",
        **{name: version(name) for name in ("cryptography", "pyjwt")},
        "machine": f"{platform.machine()}, {processors} processors",
        "load": f"{load:.1f}{busy}",
        "run": plan.name,
    }


def write_docs(conditions: dict[str, Any], tables: Iterable[Table]) -> None:
    """Write results.md and the charts that it shows."""
    lines = ["# Results", "", "Of `scripts/bench --full --docs`; [README.md](README.md) says what they mean.", ""]
    lines += [f"* {name}: {value}" for name, value in conditions.items()]
    for table in tables:
        lines += ["", as_markdown(table)]
        if table.chart is not None:
            (DOCS / table.chart.file).write_text(svg(table))
    (DOCS / "results.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
