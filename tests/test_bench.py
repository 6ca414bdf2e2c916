"""The benchmarks run, and print what they say they print. No time is judged here."""

import json
import subprocess
import sys

import pytest


def bench(*options: str) -> str:
    """Run the benchmarks as scripts/bench does once it has set up, with as little work as there can be."""
    command = [sys.executable, "-m", "benchmarks", "--rounds=1", "--tokens=2", *options]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def test_prints_a_table_of_every_case() -> None:
    """One line a case, under the versions and a heading."""
    lines = bench().splitlines()
    assert lines[0].startswith("python 3.")
    assert sum(line.endswith("  of bare RS256") for line in lines) == 12
    assert [line[:14].strip() for line in lines[2:14]] == [
        f"{kind} {algorithm}" for algorithm in ("RS256", "ES256", "EdDSA") for kind in ("bare", "cold", "hit", "PyJWT")
    ]


def test_prints_json_of_chosen_cases_and_their_floor() -> None:
    """`--only` keeps what the chosen cases are compared with."""
    report = json.loads(bench("--json", "--only", "cold ES", "--only", "expired"))
    assert report["rounds"] == 1
    assert [timing["name"] for timing in report["timings"]] == [
        "bare RS256",
        "bare ES256",
        "cold ES256",
        "refused: expired",
    ]
    for timing in report["timings"]:
        assert timing["best"] == timing["quartiles"][1] > 0
        assert (timing["best_ratio"] == 1) == timing["name"].startswith("bare")


@pytest.mark.parametrize("options", [["--only", "nothing"], ["--rounds", "0"]])
def test_refuses_options_that_measure_nothing(options: list[str]) -> None:
    """Exit status 2, as for every wrong option."""
    with pytest.raises(subprocess.CalledProcessError) as failed:
        bench(*options)
    assert failed.value.returncode == 2
