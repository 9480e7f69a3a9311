"""A plugin of pytest that says which tests failed themselves, and not what they stand on.

What counts is a failure of a test's own call, or of what looks afterwards at what it has left. A server that does not
start, and a test that was ended because it took too long, prove nothing.

Properties are tried with the same examples in each run, and the first that fails is enough: whether a mutant is noticed
is not to be chance, and shrinking the example could take too long.
"""

from __future__ import annotations

from collections.abc import Generator

import hypothesis
import pytest

hypothesis.settings.register_profile(
    "mutants",
    derandomize=True,
    database=None,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)
hypothesis.settings.load_profile("mutants")

BY = "= noticed by = "
"""Begins a line that names such a test."""

_failed: list[str] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    raised = call.excinfo.value if call.excinfo is not None else None
    report.found = raised is None or isinstance(raised, AssertionError)  # without any, something else was found
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if not report.failed or "from pytest-timeout" in report.longreprtext:
        return
    if report.when == "call" or (report.when == "teardown" and report.found):
        _failed.append(report.nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name in _failed:
        terminalreporter.write_line(BY + name)
