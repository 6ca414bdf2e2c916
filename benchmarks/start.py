"""What it costs to start: to import the package, and to index a key set. Keys themselves are built when first used."""

import subprocess
import sys
from collections.abc import Iterator

import jwt

from benchmarks.measure import Case, measure, spread_of, table
from benchmarks.plan import Plan
from benchmarks.report import Cell, Table, say
from benchmarks.tokens import AUDIENCE, key_set
from token_guard import ResourceServer
from token_guard.key_set import read_key_set
from token_guard.testing import LocalIssuer

IMPORTED = ("token_guard", "jwt", "cryptography.hazmat.primitives.asymmetric.rsa", "asyncio", "httpx")
KEYS = 100
INDEX_AT_MOST = 1 / 3

_PROGRAM = """
import sys, time
started = time.process_time()
import {name}
print((time.process_time() - started) * 1e3, *(name for name in {watched} if name in sys.modules))
"""
_WATCHED = ("asyncio", "cryptography", "httpx", "jwt")


def run(plan: Plan) -> Iterator[Table]:
    """Import each package in a process of its own, and index a key set."""
    say(f"start: {plan.imports} imports of each package")
    spent: dict[str, list[float]] = {name: [] for name in IMPORTED}
    loads: dict[str, str] = {}
    for _ in range(plan.imports):
        for name in IMPORTED:
            milliseconds, loads[name] = imported(name)
            spent[name].append(milliseconds)
    rows: list[tuple[Cell, ...]] = [
        (f"import {name}", min(times), *spread_of(times), loads[name] or "none") for name, times in spent.items()
    ]
    columns = ("what", "best ms", "1/4", "median", "3/4", f"loads of {', '.join(_WATCHED)}")
    yield Table("Start", columns, rows)

    say(f"start: {KEYS} keys")
    issuer = LocalIssuer()
    document = [key_set(issuer, KEYS)]
    pyjwt = "PyJWT: PyJWKSet.from_dict"
    cases = [
        Case(pyjwt, jwt.PyJWKSet.from_dict, document, pyjwt),
        Case("read_key_set", read_key_set, document, pyjwt, INDEX_AT_MOST),
        Case(
            "a whole ResourceServer",
            lambda jwks: ResourceServer(issuer=issuer.url, audience=AUDIENCE, jwks=jwks),
            document,
            pyjwt,
        ),
    ]
    yield table(f"Indexing a set of {KEYS} keys", measure(cases, plan.rounds).values())


def imported(name: str) -> tuple[float, str]:
    """Return how many milliseconds an import takes in a new process, and which of the larger packages it loads."""
    program = _PROGRAM.format(name=name, watched=_WATCHED)
    result = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    milliseconds, *loaded = result.stdout.split()
    return float(milliseconds), ", ".join(loaded)
