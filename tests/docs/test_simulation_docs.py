"""The example of docs/simulation.md runs as it stands there, and its failure shows the lines that the page shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "simulation.md").read_text()


def example() -> str:
    """Return the one block of Python on the page."""
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    return str(block)


@pytest.fixture
def pytester(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("OSDISCO_TEST_SEEDS", "40")
    monkeypatch.setenv("OSDISCO_TEST_FIRST_SEED", "1")
    return pytester


def test_the_example_runs(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_reindexing=example())
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    done.assert_outcomes(passed=1)
    done.stdout.fnmatch_lines(["no_older_version_comes_after_a_newer_one: seeds *"])


def test_the_example_notices_a_write_that_is_not_guarded(pytester: pytest.Pytester) -> None:
    careless = example().replace("await guard.commit([", "await client.commit([")
    assert careless != example()
    pytester.makepyfile(test_reindexing=careless)
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    done.assert_outcomes(failed=1)
    again = "run it again: pytest test_reindexing.py::test_reindexing --osdisco-seed=*"
    done.stdout.fnmatch_lines([again, "or: python -m osdisco.testing.simulate test_reindexing.py:no_older_version*"])


def test_the_figures_are_those_that_were_kept() -> None:
    text = (DOCS / "simulation.json").read_text()
    assert 'File \\"' not in text, "paths of the machine that it ran on"
    kept = json.loads(text)
    for report in kept:
        assert f"| {report['scenario']} | {report['seeds']:,} |" in PAGE
    assert len(kept) == len(re.findall(r"^\| \w+ \| [\d,]+ \|", PAGE, re.MULTILINE))
