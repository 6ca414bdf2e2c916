"""Rules for every test: none shows a token, and where `CI` is set, a skipped test is a failed one."""

import os
from collections.abc import Generator

import pytest

from tests.token_leaks import TokenLeaks


class SkipsAreFailures:
    """Turns each skip, of a test or of a whole file, into a failure that says why it skipped: green hides no hole."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        # pytest reports an expected failure as skipped, too; that test did run.
        if report.skipped and not hasattr(report, "wasxfail"):
            fail(report)
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        report = yield
        if report.skipped:
            fail(report)
        return report


def fail(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Make a skip's report that of a failure."""
    assert isinstance(report.longrepr, tuple)
    report.outcome = "failed"
    report.longrepr = f"skipped, which is a failure where CI is set: {report.longrepr[2]}"


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(TokenLeaks())
    if os.environ.get("CI"):
        config.pluginmanager.register(SkipsAreFailures())
