"""The benchmarks run, and print what they say they print. No time is judged here."""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import httpx
import pytest

from benchmarks import charts, counted, http, instructions, peers
from benchmarks.__main__ import SUBJECTS
from benchmarks.applications import FRAMEWORKS, GUARD, ISSUER, JWKS
from benchmarks.measure import finish
from benchmarks.report import Chart, Table, as_json, as_markdown, as_text
from benchmarks.tokens import mint
from token_guard.testing import LocalIssuer

ROOT = Path(__file__).parent.parent
WITHOUT_PROGRAMS = {"PATH": ""}


def bench(*options: str, environment: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    """Run the benchmarks as scripts/bench does once it has set up, with as little work as there can be."""
    command = [sys.executable, "-m", "benchmarks", "--tiny", *options]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run of everything that needs no other program writes, and as `text` what it prints."""
    file = tmp_path_factory.mktemp("bench") / "report.json"
    needs_no_program = [subject for subject in SUBJECTS if subject not in ("http", "instructions")]
    text = bench(*needs_no_program, "--json", str(file)).stdout
    report: dict[str, Any] = json.loads(file.read_text())
    return {**report, "text": text, "tables": {table["title"]: table["rows"] for table in report["tables"]}}


def first_cells(rows: list[dict[str, Any]]) -> list[str]:
    return [next(iter(row.values())) for row in rows]


def test_prints_what_it_writes(report: dict[str, Any]) -> None:
    """Versions, the machine and its load come first, as nobody could judge the numbers without."""
    lines = report["text"].splitlines()
    assert f"cryptography {version('cryptography')}" in lines
    assert [line.split()[0] for line in lines[:7]] == [
        *("date", "python", "cryptography", "pyjwt", "machine", "load", "run")
    ]
    assert set(report["tables"]) <= set(lines)


def test_compares_validation_with_its_floor_and_its_peers(report: dict[str, Any]) -> None:
    """For each algorithm the bare check, ours cold and remembered, and every library that is installed."""
    rows = {row["case"]: row for row in report["tables"]["Accepting a token"]}
    for algorithm in ("RS256", "ES256", "EdDSA"):
        for kind in ("bare", "cold", "hit", "PyJWT", "joserfc", "Authlib"):
            row = rows[f"{kind} {algorithm}"]
            assert row["best µs"] == row["median"] > 0
            assert row["compared with"] == ("bare RS256" if kind == "hit" else f"bare {algorithm}")
        assert rows[f"bare {algorithm}"]["ratio of best"] == 1
    assert rows["hit RS256, 4 in turn"]["at most"] == 0.14


def test_measures_every_refusal(report: dict[str, Any]) -> None:
    """A row for each way to be refused, up to the signature."""
    assert first_cells(report["tables"]["Refusing a token"]) == [
        f"refused: {name}"
        for name in (
            "opaque",
            "malformed header",
            "malformed payload",
            "60 kB of junk",
            "unknown issuer",
            "wrong audience",
            "expired",
            "algorithm not allowed",
            "unknown kid in its cooldown",
            "tampered",
        )
    ]


def test_measures_what_a_guard_adds_in_each_framework(report: dict[str, Any]) -> None:
    """And what it adds to that which is no request."""
    rows = report["tables"]["What a hit adds in process"]
    assert first_cells(rows) == [*FRAMEWORKS, "of that FastAPI's own", "WebSocket of 100 messages", "lifespan"]
    assert all(row["added"] == pytest.approx(row["with a hit"] - row["open, best µs"]) for row in rows)


def test_measures_memory_and_growth(report: dict[str, Any]) -> None:
    """A remembered token takes some bytes, and no growth is left out."""
    memory, *_ = report["tables"]["Memory of the cache of verified tokens"]
    assert memory["what"] == "bytes a remembered token"
    assert memory["measured"] > 200
    assert [re.sub(r": \d+", "", what) for what in first_cells(report["tables"]["Growth"])[::3]] == [
        "keys in the set",
        "issuers",
        "scopes in the token",
    ]
    assert len(report["tables"]["Distinct tokens through a cache of 2"]) == 10


def test_measures_refreshes_and_the_start(report: dict[str, Any]) -> None:
    """`import token_guard` is on record as loading none of the large packages."""
    assert first_cells(report["tables"]["Latency while keys are refreshed"]) == ["median", "p99"]
    ours, pyjwt, *_ = report["tables"]["Start"]
    loads = list(ours)[-1]
    assert (ours["what"], ours[loads]) == ("import token_guard", "none")
    assert (pyjwt["what"], pyjwt[loads]) == ("import jwt", "cryptography, jwt")
    assert first_cells(report["tables"]["Indexing a set of 100 keys"])[0] == "PyJWT: PyJWKSet.from_dict"


def test_keeps_to_chosen_cases_and_their_floor() -> None:
    """`--only` keeps what the chosen cases are compared with."""
    lines = bench("validation", "--only", "cold ES", "--only", "expired").stdout.splitlines()
    chosen = [line.split("  ")[0] for line in lines if line.endswith(("RS256", "ES256"))]
    assert chosen == ["bare RS256", "bare ES256", "cold ES256", "refused: expired"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["validation", "--only", "nothing"], "--only matches none of: bare RS256; cold RS256;"),
        (["Validaton"], "there is no 'Validaton'; known are validation, adapters,"),
        (["Validaton"], "did you mean validation?"),
        (["--full"], "not allowed with argument --tiny"),
        (["--docs"], "--docs writes results.md: measure everything, scripts/bench --full --docs"),
        (["memory", "--only", "hit"], "name it, scripts/bench validation --only"),
        (["validation", "--record"], "name it, scripts/bench instructions --record"),
        (["memory", "--json", "no-such-folder/report.json"], "no-such-folder/report.json cannot be written"),
        (["memory", "--json", "docs"], "docs cannot be written: name a file in a folder that is there"),
    ],
)
def test_refuses_options_that_fit_nothing(options: list[str], told: str) -> None:
    """Exit status 2, as for every wrong option, before anything is measured."""
    with pytest.raises(subprocess.CalledProcessError) as failed:
        bench(*options)
    assert failed.value.returncode == 2
    assert told in failed.value.stderr


def test_case_does_not_matter_to_only() -> None:
    """Nobody remembers how a case is spelled."""
    assert "\ncold ES256 " in bench("validation", "--only", "COLD es").stdout


def test_ends_in_one_line_where_it_is_interrupted() -> None:
    """Ctrl-C is no failure to be looked into."""
    command = [sys.executable, "-m", "benchmarks", "memory"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        while not running.stdout.readline().startswith("run "):
            pass
        running.send_signal(signal.SIGINT)
        assert running.stderr.read().splitlines()[-1] == "bench: interrupted"
    assert running.returncode == 130


def test_help_installs_nothing(tmp_path: Path) -> None:
    """What would set up is not even there."""
    (tmp_path / "scripts").mkdir()
    script = shutil.copy(ROOT / "scripts" / "bench", tmp_path / "scripts")
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: scripts/bench [-h]")
    assert done.stderr == ""


@pytest.mark.parametrize(("subject", "package"), [("http", "wrk"), ("instructions", "valgrind")])
def test_says_which_program_is_missing(subject: str, package: str) -> None:
    """What cannot be measured is left out by name, and with the way to mend it."""
    run = bench(subject, environment=WITHOUT_PROGRAMS)
    assert f"{subject}: skipped, as there is no {package}" in run.stderr
    assert f"scripts/setup-package {package}" in run.stderr


def test_leaves_no_instructions_uncounted_where_ci_is_set() -> None:
    """A check that did not run is no check that passed."""
    with pytest.raises(subprocess.CalledProcessError) as failed:
        bench("instructions", environment=WITHOUT_PROGRAMS | {"CI": "1"})
    assert "there is no valgrind" in failed.value.stderr


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_servers_are_guarded_as_they_say(framework: str, tmp_path: Path) -> None:
    """Open, by the signature alone, and by us; and the processor time of a server is seen."""
    issuer = LocalIssuer()
    [token] = mint(issuer, 1)
    (tmp_path / "jwks").write_text(json.dumps(issuer.jwks()))
    (tmp_path / "tokens").write_text(token)
    environment = {ISSUER: issuer.url, JWKS: str(tmp_path / "jwks"), http.TOKENS: str(tmp_path / "tokens")}
    expired = issuer.expired()
    with ExitStack() as stack:
        for guard, statuses in {"open": (200, 200, 200), "signature": (200, 200, 500), "hit": (200, 401, 401)}.items():
            server = stack.enter_context(http.serving(framework, 1, environment | {GUARD: guard}))
            for sent, status in zip((token, expired, issuer.tampered(token)), statuses, strict=True):
                headers = {"Authorization": f"Bearer {sent}"}
                assert httpx.get(f"http://127.0.0.1:{server.port}/", headers=headers).status_code == status
            assert http.ticks(server.pid) > 0


def test_peers_validate() -> None:
    """Each of them was seen to accept a good token and to refuse a bad one; none that is here is left out."""
    assert [name for name, _ in peers.prepared(LocalIssuer())][:3] == ["PyJWT", "joserfc", "Authlib"]


def test_finds_a_peer_that_validates_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that is used wrongly would be praised for its speed."""
    lax = peers.Peer("lax", ("RS256",), lambda _: str.upper)
    monkeypatch.setattr(peers, "PEERS", (lax,))
    with pytest.raises(AssertionError, match="lax does not validate"):
        list(peers.prepared(LocalIssuer()))


async def waits() -> None:
    class Forever:
        def __await__(self) -> Any:
            yield

    await Forever()


def test_tokens_are_as_long_as_is_said() -> None:
    """Of the hosted service's usual size: all numbers depend on it."""
    assert {len(token) for token in mint(LocalIssuer(), 3)} == {984}


def test_refuses_to_measure_what_waits() -> None:
    """An event loop would be measured with it."""
    with pytest.raises(AssertionError, match="waits"):
        finish(waits())


def test_counts_the_same_tokens_every_time() -> None:
    """Counts are compared over months: keys and tokens may not change in between."""
    assert instructions.prepared() == instructions.prepared()


@pytest.mark.parametrize("case", ["bare", "cold", "hit"])
def test_repeats_a_case_that_is_counted(case: str) -> None:
    """Every case accepts its tokens: what raises would be counted, too."""
    calls = counted.cases(instructions.prepared())[case]
    assert len(calls) == 10
    counted.repeat(calls, 11)


JUDGED: list[tuple[dict[str, int] | None, str, str]] = [
    ({"cold": 100, "hit": 100}, "hit +6.0% against the record", ""),
    ({"cold": 100, "hit": 102}, "", ""),
    (None, "", "Nothing was on record"),
]


@pytest.mark.parametrize(("record", "failure", "note"), JUDGED, ids=["risen", "within five percent", "unknown"])
def test_judges_instructions_by_their_record(record: dict[str, int] | None, failure: str, note: str) -> None:
    """More than 5 % above is a failure; an unknown version is none, and is told."""
    table = instructions.judged("cpython", {"cold": 105, "hit": 106}, record)
    assert table.failure == failure
    assert note in table.note


def test_has_a_record_for_each_case_it_counts() -> None:
    """What is on record can be compared."""
    records = json.loads(instructions.RECORD.read_text())
    assert records
    assert all(record.keys() == {"cold", "hit"} for record in records.values())


TABLE = Table("Cold < hot", ("case", "µs", "at most"), [("a & b", 1.234, None), ("c", 12_345, 2.0)], limited="µs")


MARKDOWN = """\
## Cold < hot

| case | µs | at most |
| --- | ---: | ---: |
| a & b | 1.23 |  |
| c | 12,345 | 2.00, missed |"""


@pytest.mark.parametrize(
    ("shape", "shown"),
    [
        (as_text, "Cold < hot\ncase       µs       at most\na & b    1.23\nc      12,345  2.00, missed"),
        (
            as_markdown,
            MARKDOWN,
        ),
        (
            as_json,
            {
                "title": "Cold < hot",
                "rows": [
                    {"case": "a & b", "µs": 1.234, "at most": None, "missed": False},
                    {"case": "c", "µs": 12_345, "at most": 2.0, "missed": True},
                ],
            },
        ),
    ],
)
def test_shows_a_table(shape: Callable[[Table], object], shown: object) -> None:
    """The same numbers for a terminal, a page and a program."""
    assert shape(TABLE) == shown


@pytest.mark.parametrize(("measured", "missed"), [(1.504, False), (1.506, True), (0.2, False)])
def test_misses_what_is_more_in_the_digits_that_are_shown(measured: float, missed: bool) -> None:
    """1.50 beside 1.50 is no miss."""
    row = ("cold", measured, 1.5)
    assert Table("", ("case", "ratio", "at most"), [row], limited="ratio").missed(row) is missed


def test_draws_a_bar_for_each_number() -> None:
    """Plain SVG: text, and rectangles as long as the numbers are large."""
    chart = Chart("chart.svg", ("µs", "at most"), "µs & more")
    svg = ET.fromstring(charts.svg(Table(TABLE.title, TABLE.columns, TABLE.rows, chart=chart)))
    bars = [int(bar.attrib["width"]) for bar in svg.iter("{http://www.w3.org/2000/svg}rect")]
    texts = [text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert bars == [1, 420, 1]
    assert texts == ["Cold < hot: µs & more", "a & b, µs", "1.23", "c, µs", "12,345", "c, at most", "2.00"]


def test_draws_nothing_of_nothing() -> None:
    """A table without a chart has no picture."""
    with pytest.raises(ValueError, match="nothing to draw"):
        charts.svg(TABLE)
