"""Runs scenarios for the pytest plugin: the seeds of one run, and what was seen in them."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from osdisco.testing.simulate import first_seed, simulate
from osdisco.testing.simulation import Scenario, run_seed


class Seeds:
    """The seeds of a process of pytest: the same ones for every scenario, other ones in each run."""

    def __init__(self) -> None:
        self._first = first_seed()
        self._count = int(os.environ.get("OSDISCO_TEST_SEEDS", "200"))

    def run(self, scenario: Scenario, *, node: str, only: int | str | None, tell: Callable[[str], None]) -> None:
        """Run a scenario by all seeds, or by one here; fails with the line that runs the seed again.

        What was seen is told in a line.
        """
        if isinstance(only, int):
            run_seed(scenario, only)
            return
        report = simulate(scenario, range(self._first, self._first + self._count))
        tell(str(report))
        if (failure := report.first_failure) is not None:
            needed = failure.seed - self._first + 1
            again = f"run it again: pytest {node} --osdisco-seed={failure.seed}\nor: {scenario.replay(failure.seed)}"
            pytest.fail(f"{failure.error}\nnoticed after {needed} seeds\n{again}", pytrace=False)
        rare = {what: rate for what, rate in scenario.often.items() if report.seen[what] < rate * report.seeds}
        assert not rare, f"too rare to mean something: {rare} in each of {report.seeds} seeds; seen {report.seen}"
