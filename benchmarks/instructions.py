"""Count the instructions of a validation under valgrind, and compare them with those on record.

Keys, tokens, clock and hash seed are always the same, and what starts the process cancels out: it is counted once with
and once without the validations. So the counts are the same on a busy machine, but for a part in a thousand. They
depend on versions, compiler and architecture; each combination has a record of its own in instructions.json.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from benchmarks.plan import Plan
from benchmarks.report import AT_MOST, Cell, Table, say
from benchmarks.tokens import AUDIENCE, mint
from token_guard.testing import LocalIssuer, SigningKey

RECORD = Path(__file__).with_name("instructions.json")
RISE_AT_MOST = 0.05
COLD_AT_MOST = 90_000  # above the bare check
_NOW = 1_800_000_000.0  # seconds since the epoch
_TOKENS = 10
# Without the processor's own extensions, by which the SHA-256 of a hit differs by 13,700 instructions.
_THE_SAME_EVERYWHERE = {"PYTHONHASHSEED": "0", "OPENSSL_ia32cap": "0x0:0x0"}

Counts = dict[str, int]  # "cold": above the bare check; "hit": all of them, as it checks no signature


def run(plan: Plan) -> Iterator[Table]:
    """Count, judge, and put on record where that is asked for. Where there is no valgrind, say so.

    Raises:
        SystemExit: there is no valgrind although CI is set, where nothing may be left out unnoticed.
    """
    if shutil.which("valgrind") is None:
        reason = "there is no valgrind; scripts/setup-package valgrind brings it"
        if os.environ.get("CI"):
            sys.exit(f"bench: instructions: {reason}")
        say(f"instructions: skipped, as {reason}")
        return
    counts = counted(plan.counted)
    name, records = combination(), json.loads(RECORD.read_text())
    table = judged(name, counts, records.get(name))
    if plan.record:
        RECORD.write_text(json.dumps(records | {name: counts}, indent=2, sort_keys=True) + "\n")
        table = replace(table, failure="", note=f"{table.note} What was counted is on record now.")
    yield table


def combination() -> str:
    """Return what the counts depend on."""
    python = f"cpython {platform.python_version()} ({platform.python_compiler()})"
    return f"{python} / cryptography {version('cryptography')} / {platform.machine()}"


def judged(name: str, counts: Counts, record: Mapping[str, int] | None) -> Table:
    """Return the counts beside the record, with a failure where one has risen too far."""
    rows: list[tuple[Cell, ...]] = []
    risen: list[str] = []
    for case, count in counts.items():
        before = (record or {}).get(case)
        change = "" if before is None else f"{count / before - 1:+.1%}"
        if before is not None and count > before * (1 + RISE_AT_MOST):
            risen.append(f"{case} {change} against the record")
        rows.append((case, count, before, change, COLD_AT_MOST if case == "cold" else None))
    note = "cold: above the bare check. hit: all of them."
    if record is None:
        note += " Nothing was on record; scripts/bench instructions --record changes that."
    columns = ("RS256, instructions", "counted", "on record", "change", AT_MOST)
    return Table(f"Instructions: {name}", columns, rows, note=note, failure="; ".join(risen), limited="counted")


def counted(times: int) -> Counts:
    """Return the instructions of one validation, each way."""
    say(f"instructions: {times:,} validations of each kind")
    runs = ("bare", "bare", "cold", "hit"), (0, times, times, times)
    with TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        given = Path(folder, "given.json")
        given.write_text(json.dumps(prepared()))
        start, bare, cold, hit = pool.map(partial(_under_valgrind, given), *runs)
    return {"cold": round((cold - bare) / times), "hit": round((hit - start) / times)}


def prepared() -> dict[str, Any]:
    """Return keys, settings and tokens: the same ones every time."""
    key = SigningKey("RS256", _private_key(), kid="counted")
    issuer = LocalIssuer(clock=lambda: _NOW)
    issuer.key, issuer.keys = key, (key,)
    settings = {"issuer": issuer.url, "audience": AUDIENCE}
    return {"jwks": issuer.jwks(), "settings": settings, "tokens": mint(issuer, _TOKENS), "now": _NOW}


def _private_key() -> rsa.RSAPrivateKey:
    """Return a key that is no secret: the first primes above two round numbers."""
    p, q = 3 * 2**1022 + 1037, 7 * 2**1021 + 309
    public = rsa.RSAPublicNumbers(65_537, p * q)
    d = rsa.rsa_recover_private_exponent(public.e, p, q)
    private = rsa.RSAPrivateNumbers(
        p, q, d, rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q), public
    )
    return private.private_key()


def _under_valgrind(given: Path, case: str, times: int) -> int:
    valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    result = subprocess.run(
        [*valgrind, sys.executable, "-m", "benchmarks.counted", case, str(times), str(given)],
        env={**os.environ, **_THE_SAME_EVERYWHERE},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    found = re.search(r"Collected : (\d+)", result.stderr)
    if result.returncode or found is None:
        raise RuntimeError(f"valgrind failed:\n{result.stderr}")
    return int(found[1])
