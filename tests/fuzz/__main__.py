"""Fuzz what reads a stranger's input: one target after the other, each in a process of its own.

Inputs that reach new code are kept in .fuzz/TARGET/corpus, and the next run goes on from there. An input that fails is
kept in .fuzz/TARGET, and the command that replays it is printed; once mended, it belongs into tests/fuzz/corpus/TARGET.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).resolve().parent.parent.parent
KEPT = ROOT / ".fuzz"
HERE = ROOT / "tests" / "fuzz"
LONGEST = 20_000  # bytes: more than any limit for a token
SLOWEST = 10  # seconds for one input
MOST_MEMORY = 1024  # MiB

_DETAIL = re.compile(
    r"#\d+\s+(?:NEW|REDUCE|RELOAD)|INFO: |WARNING: |###|\"|stat::|$"
)  # lines of libFuzzer, by the thousand


def fuzz(name: str, limit: str, seed: int) -> bool:
    """Fuzz one target, print what comes of it, and tell whether nothing was found."""
    kept = KEPT / name
    corpus = kept / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(TARGETS[name].seeds):
        (corpus / f"seed-{number}").write_bytes(content)
    known = set(kept.iterdir())
    command = [sys.executable, "-m", "tests.fuzz.one_target", name, str(corpus), str(HERE / "corpus" / name)]
    command += [limit, f"-seed={seed}", f"-max_len={LONGEST}", f"-timeout={SLOWEST}"]
    command += [f"-rss_limit_mb={MOST_MEMORY}", f"-artifact_prefix={kept}/", f"-dict={HERE}/words.dict"]
    print(f"\n== {name}", flush=True)
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
    )
    assert process.stdout is not None
    for line in process.stdout:
        if not _DETAIL.match(line):
            print(line, end="", flush=True)
    for path in sorted(set(kept.iterdir()) - known):
        print(f"replay: .venv/bin/python -m tests.fuzz.one_target {name} {path.relative_to(ROOT)}")
    return process.wait() == 0


def main() -> None:
    """Fuzz the targets named on the command line, or all of them."""
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", choices=TARGETS, action="append", help="fuzz this target alone; may be repeated")
    parser.add_argument("--seconds", type=int, default=600, help="for each target (600)")
    parser.add_argument("--runs", type=int, help="so many for each target instead, the same each time with one --seed")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers (0: another one each time)")
    parser.add_argument("--list", action="store_true", help="print the names of the targets")
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{name:10} {target.run.__doc__}" for name, target in TARGETS.items()))
        return

    limit = f"-max_total_time={options.seconds}" if options.runs is None else f"-runs={options.runs}"
    results = {name: fuzz(name, limit, options.seed) for name in options.target or TARGETS}
    print()
    for name, passed in results.items():
        print(f"{name:10} {'nothing found' if passed else 'FAILED'}")
    sys.exit(not all(results.values()))


if __name__ == "__main__":
    main()
