"""docs/reliability.md is what the data says, and the data is of tests that there are."""

from __future__ import annotations

import re

import reliability
from reliability import CANNOT, CLASSES, PAGE, ROOT, STORES, Row

ROWS = reliability.read(reliability.DATA)


def test_the_page_is_written_from_the_data() -> None:
    text = PAGE.read_text()
    assert reliability.with_part(text, reliability.page(ROWS)) == text, "python tests/reliability.py --write"


def test_every_row_is_of_a_test_that_holds_its_class() -> None:
    for row in ROWS:
        folder = (ROOT / row.test.partition("::")[0]).parent
        named = set().union(*(marks(file.read_text()) for file in folder.glob("*.py")))
        assert reliability.exists(row.test), row.test
        assert row.fault in named, f"{row.test} is not marked with {row.fault}"
        assert row.cases > 0
        assert row.passed >= row.cases


def test_every_class_is_held_on_each_store_on_which_it_can_happen() -> None:
    cells = {(fault, store) for fault in CLASSES for store in STORES}
    held = {(row.fault, row.store) for row in ROWS if not row.failed}
    assert cells - CANNOT.keys() - held == set()
    assert not [row for row in ROWS if row.failed]


def marks(text: str) -> list[str]:
    """Return the classes that a file names: in marks, or in tables from which marks are made."""
    return re.findall(r'"(F\d+)"', text)


def test_rounds_are_added_and_what_was_run_again_is_replaced() -> None:
    def row(test: str, passed: int, failed: int = 0) -> Row:
        return Row("F1", "etcd", test, 2, passed, failed)

    here = "tests/docs/test_reliability_docs.py::test_the_page_is_written_from_the_data"
    assert reliability.added([row("a", 2)], [row("a", 1, 1), row("b", 2)]) == [row("a", 3, 1), row("b", 2)]
    assert reliability.replaced([row(here, 2), row("gone", 2)], [row("a", 2)]) == [row(here, 2), row("a", 2)]
    assert reliability.replaced([row(here, 2)], [row(here, 4)]) == [row(here, 4)]
    assert "**3/4**" in reliability.page([row("a", 3, 1)])
