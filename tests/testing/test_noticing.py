"""A mutant is noticed by a test that fails itself: tests/mutants/run.py."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

MUTANTS = Path(__file__).resolve().parents[1] / "mutants"

CASES = """
import time, pytest

@pytest.fixture
def server():
    raise AssertionError("it does not start")

@pytest.fixture
def leftovers():
    yield
    assert False, "something was left"

@pytest.fixture
def stopped():
    yield
    raise OSError("it does not end")

def test_fails(): assert False
def test_stands_on_nothing(server): pass
def test_takes_long(): time.sleep(5)
def test_leaves_something(leftovers): pass
def test_stands_on_what_does_not_end(stopped): pass
"""


@pytest.mark.parametrize(
    ("test", "said"),
    [
        ("fails", "noticed"),
        ("leaves_something", "noticed"),
        ("stands_on_nothing", "BROKEN"),
        ("takes_long", "BROKEN"),
        ("stands_on_what_does_not_end", "BROKEN"),
    ],
)
def test_only_a_test_that_fails_itself_notices(
    test: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(MUTANTS)
    run = runpy.run_path(str(MUTANTS / "run.py"))
    (tmp_path / "test_it.py").write_text(CASES)
    done = run["run_tests"](tmp_path, f"test_it.py::test_{test}", timeout=1)
    assert run["outcome"](done, f"test_it.py::test_{test}").startswith(said)
