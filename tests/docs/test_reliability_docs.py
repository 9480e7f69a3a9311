"""docs/reliability.md is what the data says, and the data is of tests that there are."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
import reliability
from reliability import CANNOT, CLASSES, PAGE, ROOT, STORES, Row

ROWS = reliability.read(reliability.DATA)


def test_the_page_is_written_from_the_data() -> None:
    text = PAGE.read_text()
    assert reliability.with_part(text, reliability.page(ROWS)) == text, "python tests/reliability.py --write"


def test_the_rows_are_those_of_the_marked_tests(tmp_path: Path) -> None:
    """A test that is new, or has cases more, or is marked otherwise, must be run: `make faults`."""
    file = tmp_path / "listed.json"
    subprocess.run([sys.executable, "tests/reliability.py", "--list", str(file)], cwd=ROOT, check=True)
    there = {(row.fault, row.store, row.test): row.cases for row in reliability.read(file)}
    assert {(row.fault, row.store, row.test): row.cases for row in ROWS} == there


def test_every_row_says_how_often_and_when() -> None:
    for row in ROWS:
        assert row.cases > 0
        assert row.passed >= row.cases
        assert date.fromisoformat(row.date) <= date.fromisoformat(reliability.today())


def test_every_class_is_held_on_each_store_on_which_it_can_happen() -> None:
    cells = {(fault, store) for fault in CLASSES for store in STORES}
    held = {(row.fault, row.store) for row in ROWS if not row.failed}
    assert cells - CANNOT.keys() - held == set()
    assert not [row for row in ROWS if row.failed]


def test_rounds_are_added_and_what_was_run_again_is_replaced() -> None:
    def row(test: str, passed: int, failed: int = 0, day: int = 1) -> Row:
        return Row("F1", "etcd", test, 2, passed, failed, f"2026-01-0{day}")

    here = "tests/docs/test_reliability_docs.py::test_the_page_is_written_from_the_data"
    more = [row("a", 1, 1, day=2), row("b", 2)]
    assert reliability.added([row("a", 2)], more) == [row("a", 3, 1, day=2), row("b", 2)]
    assert reliability.replaced([row(here, 2), row("gone", 2)], [row("a", 2)]) == [row(here, 2), row("a", 2)]
    assert reliability.replaced([row(here, 2)], [row(here, 4)]) == [row(here, 4)]
    assert "**3/4**" in reliability.page([row("a", 3, 1)])


def test_a_run_of_a_part_is_not_booked() -> None:
    command = [sys.executable, "-m", "pytest", "--reliability=x.json", "--collect-only", "-q", __file__]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--all-faults" in done.stderr
