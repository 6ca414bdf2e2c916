"""Requests a second, and processor time for each, behind real servers under load. Needs wrk, and Linux.

Four servers of a framework run at once and are loaded in turn: open, guarded by nothing but a signature check, by Token
Guard with its cache of verified tokens off (cold), and by Token Guard as it is (hit).
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from socket import create_server
from statistics import median
from tempfile import TemporaryDirectory

import httpx

from benchmarks.applications import FRAMEWORK, FRAMEWORKS, GUARD, GUARDS, ISSUER, JWKS
from benchmarks.plan import Plan
from benchmarks.report import AT_MOST, Cell, Chart, Table, say
from benchmarks.tokens import mint
from token_guard.testing import LocalIssuer

COLD_AT_MOST = 1.6  # times what the signature check adds
CONNECTIONS = 16
START_TIMEOUT = 60.0  # seconds
_LUA = Path(__file__).with_name("wrk.lua")
TOKENS = "TOKEN_GUARD_BENCH_TOKENS"
_TICKS = os.sysconf("SC_CLK_TCK")  # a second has so many

_UVICORN = (
    "-m uvicorn benchmarks.applications:served --factory --no-access-log --log-level warning"
    " --host 127.0.0.1 --port {port} --workers {processes}"
)
_GUNICORN = (
    "-m gunicorn benchmarks.applications:served() --no-control-socket --log-level warning"
    " --bind 127.0.0.1:{port} --workers {processes}"
)

# framework -> what starts its server, given a port and a number of processes
SERVERS = {"Starlette": _UVICORN, "FastAPI": _UVICORN, "Flask": _GUNICORN, "Django": _GUNICORN}


@dataclass
class Server:
    """A server that runs, and what was seen of it: requests a second, and seconds of processor time for a request."""

    port: int
    pid: int
    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)


def run(plan: Plan) -> Iterator[Table]:
    """Load every server in turn. Without wrk there is one line that says how to get it."""
    if shutil.which("wrk") is None:
        say("http: skipped, as there is no wrk; scripts/setup-package wrk brings it")
        return
    seen: dict[tuple[str, int], dict[str, Server]] = {}
    with TemporaryDirectory() as folder:
        issuer = LocalIssuer()
        jwks, tokens = Path(folder, "jwks.json"), Path(folder, "tokens")
        jwks.write_text(json.dumps(issuer.jwks()))
        tokens.write_text("\n".join(mint(issuer, plan.tokens)))
        environment = {ISSUER: issuer.url, JWKS: str(jwks), TOKENS: str(tokens)}
        for framework in FRAMEWORKS:
            for processes in plan.processes:
                say(f"http: {framework}, {_counted(processes)}")
                seen[framework, processes] = measured(framework, processes, environment, plan)
    yield costs(seen, min(plan.processes))
    yield rates(seen, plan.processes)


def measured(framework: str, processes: int, environment: dict[str, str], plan: Plan) -> dict[str, Server]:
    """Run a framework's four servers and load them in alternation."""
    with ExitStack() as stack:
        servers = {
            guard: stack.enter_context(serving(framework, processes, environment | {GUARD: guard})) for guard in GUARDS
        }
        for number in range(-1, plan.loads):  # round -1 warms up, fills the cache, and is not counted
            for guard in list(servers)[:: -1 if number % 2 else 1]:
                server = servers[guard]
                before = ticks(server.pid)
                requests, seconds = load(server.port, plan.seconds, environment)
                if number >= 0:
                    server.rates.append(requests / seconds)
                    server.costs.append((ticks(server.pid) - before) / _TICKS / requests)
        return servers


@contextmanager
def serving(framework: str, processes: int, environment: dict[str, str]) -> Iterator[Server]:
    """Run a server on a free port until the block ends.

    Raises:
        TimeoutError: it does not begin to answer.
    """
    with create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, *SERVERS[framework].format(port=port, processes=processes).split()]
    process = subprocess.Popen(command, env={**os.environ, **environment, FRAMEWORK: framework}, start_new_session=True)
    try:
        _wait_for(port, process, Path(environment[TOKENS]).read_text().partition("\n")[0])
        yield Server(port, process.pid)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _wait_for(port: int, process: "subprocess.Popen[bytes]", token: str) -> None:
    ends = time.monotonic() + START_TIMEOUT
    while time.monotonic() < ends and process.poll() is None:
        try:  # a port may be open long before anybody answers
            httpx.get(f"http://127.0.0.1:{port}/", headers={"Authorization": f"Bearer {token}"}, timeout=START_TIMEOUT)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"no server on port {port}")


def load(port: int, seconds: int, environment: dict[str, str]) -> tuple[int, float]:
    """Load a server with wrk, and return how many requests were answered in how many seconds.

    Raises:
        AssertionError: some were not answered with 200.
    """
    command = ["wrk", "--threads=1", f"--connections={CONNECTIONS}", f"--duration={seconds}s", f"--script={_LUA}"]
    result = subprocess.run(
        [*command, f"http://127.0.0.1:{port}/"],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    numbers = {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", result.stdout)}
    if numbers["failed"] or not numbers["requests"]:
        raise AssertionError(f"not every request was answered well:\n{result.stdout}")
    return numbers["requests"], numbers["microseconds"] / 1e6


def ticks(pid: int) -> int:
    """Return the processor time of a process and all that descend from it, user and system, in clock ticks."""
    parents: dict[int, int] = {}
    spent: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()  # a name in brackets may hold anything
        except OSError:  # it has ended meanwhile
            continue
        one = int(path.parent.name)
        parents[one], spent[one] = int(fields[1]), int(fields[11]) + int(fields[12])
    total, generation = 0, {pid}
    while generation:
        total += sum(spent.get(one, 0) for one in generation)
        generation = {one for one, parent in parents.items() if parent in generation}
    return total


def costs(seen: dict[tuple[str, int], dict[str, Server]], processes: int) -> Table:
    """Return what a request costs the processor, and what of it is the guard."""
    rows: list[tuple[Cell, ...]] = []
    for framework in FRAMEWORKS:
        servers = seen[framework, processes]
        best = {guard: min(server.costs) * 1e6 for guard, server in servers.items()}
        middle = {guard: median(server.costs) * 1e6 for guard, server in servers.items()}
        for guard in servers:
            added, signature = best[guard] - best["open"], best["signature"] - best["open"]
            ratio = added / signature if guard in ("cold", "hit") and signature > 0 else None
            at_most = COLD_AT_MOST if guard == "cold" else None
            rows.append((f"{framework}, {guard}", best[guard], middle[guard], added, ratio, at_most))
    columns = ("server", "best µs", "median µs", "added", "added / by signature check", AT_MOST)
    title = f"Processor time of a request, {_counted(processes)}"
    chart = Chart("http.svg", ("best µs",), "µs")
    return Table(title, columns, rows, chart=chart, limited="added / by signature check")


def rates(seen: dict[tuple[str, int], dict[str, Server]], processes: tuple[int, ...]) -> Table:
    """Return how many requests a second were answered."""
    rows: list[tuple[Cell, ...]] = [
        (f"{framework}, {guard}", *(median(seen[framework, count][guard].rates) for count in processes))
        for framework in FRAMEWORKS
        for guard in GUARDS
    ]
    columns = tuple(str(count) for count in processes)
    note = f"wrk runs on the same {os.cpu_count()} processors."
    chart = Chart("rates.svg", columns, "by number of processes")
    return Table("Requests a second", ("server, by processes", *columns), rows, note=note, chart=chart)


def _counted(processes: int) -> str:
    return f"{processes} process{'es' * (processes > 1)}"
