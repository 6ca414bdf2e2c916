"""Measure what a validation costs, as ratios to the bare signature check of cryptography in the same process.

"bare" is the key's own `verify` and nothing else. "cold" is ResourceServer.validate with warm keys and its cache of
verified tokens off, "hit" with the token in that cache. "refused" is "cold" for bad tokens. "PyJWT" takes its key by
`kid` from its PyJWKSet. All cases take turns; the ratios are those of the best round and of the medians.
"""

import argparse
import json
import platform
from dataclasses import asdict
from importlib.metadata import version

from benchmarks.measure import measure, table
from benchmarks.validation import cases


def positive(text: str) -> int:
    """Return a number from the command line. Raises ValueError where it is no positive integer."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def main() -> None:
    """Read the command line, measure, and print."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=positive, default=40, help="rounds that every case takes part in (40)")
    parser.add_argument(
        "--tokens", type=positive, default=200, help="distinct tokens, each validated once a round (200)"
    )
    parser.add_argument(
        "--only",
        action="append",
        help="only cases whose name contains this, and what they are compared with; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()

    every_case = list(cases(options.tokens))
    chosen = [case for case in every_case if not options.only or any(word in case.name for word in options.only)]
    if not chosen:
        parser.error(f"--only matches none of: {', '.join(case.name for case in every_case)}")
    wanted = {case.name for case in chosen} | {case.floor for case in chosen}
    timings = measure([case for case in every_case if case.name in wanted], options.rounds)

    versions = {"python": platform.python_version(), **{name: version(name) for name in ("cryptography", "pyjwt")}}
    if options.json:
        print(json.dumps({**versions, "rounds": options.rounds, "timings": [asdict(one) for one in timings]}, indent=2))
    else:
        print(", ".join(f"{name} {number}" for name, number in versions.items()), table(timings), sep="\n")


if __name__ == "__main__":
    main()
