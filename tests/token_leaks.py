"""TokenLeaks: a pytest plug-in that fails the test that shows a token, and names the place, never the token.

A token is known by its signature, from the moment a local issuer makes it. Looked through are the records of all
loggers, what tests and the child processes that they wait for print, and every error of Token Guard: its texts, and the
locals of our own functions in its traceback, which error trackers send away.
"""

import logging
import re
import subprocess
import traceback
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from token_guard import AccessToken, ExchangeRefused, TemporarilyUnavailable, TokenGuardError
from token_guard.errors import RequestRejected
from token_guard.request import RequestCell
from token_guard.testing.keys import SigningKey, base64url

OURS = tuple(f"{Path(__file__).parents[1] / folder}/" for folder in ("token_guard", "adapters", "sample_apis"))
OUR_LOGGERS = ("token_guard", "sample_apis")
MOST_ERRORS = 1_000  # of one test; one that causes more causes the same few again and again

# What a signature looks like: the last segment of a token (of HS256 it is the shortest), or bytes as a repr shows them.
_SEGMENT = re.compile(r"[A-Za-z0-9_-]{43,}")
_BYTES = re.compile(r"""\bb'(?:[^'\\]|\\.)+'|\bb"(?:[^"\\]|\\.)+\"""")


class TokenLeaks:
    """Register it, and every test is watched."""

    def __init__(self) -> None:
        self._signatures: set[str] = set()
        self._errors: deque[TokenGuardError] = deque(maxlen=MOST_ERRORS)
        self._leaks: list[str] = []
        self._patches = pytest.MonkeyPatch()

    def pytest_configure(self) -> None:
        """Watch the functions through which a token comes into the world, and those through which it could get out."""
        for owner, name, look in (
            (SigningKey, "sign", self._learn),
            (logging.Logger, "handle", self._look_at_record),
            (subprocess.Popen, "communicate", self._look_at_output),
            (RequestRejected, "__init__", self._keep_error),
            (TemporarilyUnavailable, "__init__", self._keep_error),
            (ExchangeRefused, "__init__", self._keep_error),
            (RequestCell, "admit", self._look_at_cell),
        ):
            self._patches.setattr(owner, name, _watched(getattr(owner, name), look))
        for logger in OUR_LOGGERS:
            logging.getLogger(logger).setLevel(logging.DEBUG)  # what is not logged by default must not hold one, either

    def pytest_unconfigure(self) -> None:
        self._patches.undo()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        self._look_at_errors()
        for title, content in report.sections:
            self._look_at(f"the section {title!r} of the report", content)
        if report.failed:
            self._look_at("the failure's own text", report.longreprtext)
        if self._leaks:
            leaks = "\n".join(dict.fromkeys(self._leaks))
            self._leaks.clear()
            if report.failed:
                report.sections.append(("Tokens were shown", leaks))
            else:
                report.outcome, report.longrepr = "failed", leaks
        return report

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the run for what was shown between and after the tests."""
        self._look_at_errors()
        if self._leaks:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            if hasattr(session.config, "workeroutput"):  # a process of pytest-xdist, whose exit status nobody reads
                session.config.workeroutput["leaks"] = self._leaks

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self._leaks += getattr(node, "workeroutput", {}).get("leaks", [])

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for leak in dict.fromkeys(self._leaks):
            terminalreporter.write_line(f"outside of any test: {leak}", red=True)

    def _learn(self, signature: bytes, *_: object) -> None:
        self._signatures.update((base64url(signature), repr(signature)))

    def _keep_error(self, _: None, error: TokenGuardError, *__: object) -> None:
        self._errors.append(error)  # it has its traceback when the test has ended

    def _look_at_record(self, _: None, __: logging.Logger, record: logging.LogRecord) -> None:
        self._look_at(f"a record of the logger {record.name!r}", record.getMessage(), vars(record))
        if record.exc_info and record.exc_info[1]:
            place = f"the traceback in a record of the logger {record.name!r}"
            self._look_at(place, "".join(traceback.format_exception(record.exc_info[1])))

    def _look_at_output(self, output: tuple[object, object], process: "subprocess.Popen[Any]", *_: object) -> None:
        self._look_at(f"what the process {process.args!r} printed", *output)

    def _look_at_cell(self, _: None, cell: RequestCell, token: AccessToken, *__: object) -> None:
        self._look_at("the repr of a cell or of its access token", repr(cell), repr(token))

    def _look_at_errors(self) -> None:
        while self._errors:
            error = self._errors.popleft()
            self._look_at(f"a {type(error).__name__}", str(error), repr(error), vars(error))
            # What it arose from, too, also where `from None` hides that.
            chain = [each for each in (error, error.__cause__, error.__context__) if each is not None]
            for frame, line in (place for each in chain for place in traceback.walk_tb(each.__traceback__)):
                code = frame.f_code
                if code.co_filename.startswith(OURS):
                    for name, value in frame.f_locals.items():
                        place = f"{name!r} in {code.co_filename}:{line}, {code.co_qualname}"
                        self._look_at(f"the traceback of a {type(error).__name__}: the local variable {place}", value)

    def _look_at(self, place: str, *shown: object) -> None:
        for value in shown:
            with suppress(Exception):  # an object whose constructor has failed may have no repr
                text = value if isinstance(value, str) else repr(value)
                if not self._signatures.isdisjoint(_SEGMENT.findall(text) + _BYTES.findall(text)):
                    self._leaks.append(f"a token's signature is in {place}")


def _watched(function: Callable[..., Any], look: Callable[..., None]) -> Callable[..., Any]:
    """Return the function, with a look at what it returned and what it was given."""

    @wraps(function)
    def watched(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        look(result, *args)
        return result

    return watched
