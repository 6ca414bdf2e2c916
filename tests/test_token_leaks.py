"""The plug-in that fails a test which shows a token: a run of tests that show one, and of tests that do not."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

CONFTEST = """
from tests.token_leaks import TokenLeaks
def pytest_configure(config):
    config.pluginmanager.register(TokenLeaks())
"""

IMPORTS = """
import logging, subprocess, sys
from token_guard import InvalidToken, Reason, RequestRejected, ResourceServer
from token_guard.guard import RequestCell
from token_guard.jws import read_unverified
from token_guard.testing import LocalIssuer
issuer = LocalIssuer(algorithm="Ed25519")
server = ResourceServer(issuer=issuer.url, audience="organize", jwks=issuer.jwks())
class Talkative(RequestCell):
    def __repr__(self):
        return f"<{self.raw_token}>"
"""

# The body of a test that shows the token `raw`, and the place that the report must name.
LEAKS = {
    'logging.getLogger("shop").warning("%s", raw)': "a record of the logger 'shop'",
    'logging.getLogger("shop").warning("refused", extra={"token": raw})': "a record of the logger 'shop'",
    'logging.getLogger("shop").warning(f"{read_unverified(raw).signature}")': "a record of the logger 'shop'",
    'logging.getLogger("token_guard").debug("%s", raw)': "a record of the logger 'token_guard'",
    'logger = logging.getLogger("aside"); logger.propagate = False; logger.error(raw)': "the logger 'aside'",
    'try: raise ValueError(raw)\n    except ValueError: logging.exception("failed")': "the traceback in a record of",
    "print(raw)": "the section 'Captured stdout call'",
    "sys.stderr.write(raw)": "the section 'Captured stderr call'",
    'subprocess.run([sys.executable, "-c", f"print({raw!r})"], capture_output=True)': "what the process",
    'RequestCell(str).admit(server.validate(raw), raw); Talkative(str).admit("", raw)': "the repr of a cell",
    "InvalidToken(Reason.MALFORMED, detail=raw)": "a InvalidToken",
    'try: read_unverified(raw + ".")\n    except InvalidToken: pass': "the local variable 'raw' in",
    "assert raw is None": "the failure's own text",
}

SAFE = [
    "assert server.validate(raw).subject",
    'logging.getLogger("shop").warning("%s", server.validate(raw))',
    'print(issuer.token().rpartition(".")[0])',
    "RequestCell(str).admit(server.validate(raw), raw)",
    'try: server.validate(raw + "x")\n    except RequestRejected as error: logging.exception("%r", error)',
]


def run(folder: Path, bodies: list[str], conftest: str = CONFTEST, *options: str) -> "subprocess.CompletedProcess[str]":
    """Run one test for each body, in a process of its own that ends with pytest's exit status."""
    tests = [f"def test_{number}(raw=issuer.token()):\n    {body}\n" for number, body in enumerate(bodies)]
    (folder / "conftest.py").write_text(conftest)
    (folder / "test_run.py").write_text(IMPORTS + "\n".join(tests))
    (folder / "pytest.ini").write_text("[pytest]\n")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "-c", folder / "pytest.ini", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_each_leak_fails_its_test_and_names_the_place(tmp_path: Path) -> None:
    """SEC-03: whatever way a token gets out, the run fails, and says where."""
    ended = run(tmp_path, list(LEAKS))
    reports = re.split(r"^_+ test_(\d+) _+$", ended.stdout, flags=re.MULTILINE)
    reported = dict(zip(reports[1::2], reports[2::2], strict=True))
    assert ended.returncode == pytest.ExitCode.TESTS_FAILED
    missed = [body for number, (body, place) in enumerate(LEAKS.items()) if place not in reported.get(str(number), "")]
    assert missed == []


def test_tests_that_show_no_token_pass(tmp_path: Path) -> None:
    """A token that is held, judged and refused, and the half of one that is no token, fail nothing."""
    ended = run(tmp_path, SAFE)
    assert ended.returncode == pytest.ExitCode.OK, ended.stdout


@pytest.mark.parametrize("processes", ["0", "1"])
def test_a_leak_after_the_tests_fails_the_run(processes: str, tmp_path: Path) -> None:
    """What is logged when all tests have passed belongs to none of them, and fails all the same."""
    late = """
import pytest
@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish():
    import test_run
    test_run.logging.getLogger("late").error(test_run.issuer.token())
"""
    ended = run(tmp_path, SAFE[:1], CONFTEST + late, f"--numprocesses={processes}")
    assert ended.returncode == pytest.ExitCode.TESTS_FAILED
    assert "outside of any test: a token's signature is in a record of the logger 'late'" in ended.stdout
