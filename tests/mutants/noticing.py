"""A plugin of pytest that says which tests failed themselves, and not what they stand on.

What counts is a failure of a test's own call, or of what looks afterwards at what it has left. A server that does not
start, and a test that was ended because it took too long, prove nothing.
"""

from __future__ import annotations

import pytest

BY = "= noticed by = "
"""Begins a line that names such a test."""

_FAILED = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FAILED] = []


def pytest_exception_interact(node: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
    raised = call.excinfo.value if call.excinfo is not None else None
    if "from pytest-timeout" in report.longreprtext:
        return
    if report.when == "call" or (report.when == "teardown" and isinstance(raised, AssertionError)):
        node.config.stash[_FAILED].append(report.nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for name in config.stash[_FAILED]:
        terminalreporter.write_line(BY + name)
