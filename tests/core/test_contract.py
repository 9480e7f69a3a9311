"""The contract names its tests: each rule has one, each one exists, and the suite has none that no rule names."""

from __future__ import annotations

import re
from pathlib import Path

from osdisco import backend
from osdisco.testing import BackendSuite

ROOT = Path(__file__).parents[2]
TEXT = (backend.__doc__ or "").partition("The contract.")[2]
REFERENCE = re.compile(r"\[((?:tests/\S+\.py )?)\s*((?:test_\w+,?\s*)+)\]")


def references() -> list[tuple[str, str]]:
    text = re.sub(r"\s+", " ", TEXT)
    return [(file.strip(), name) for file, names in REFERENCE.findall(text) for name in re.findall(r"test_\w+", names)]


def test_every_rule_names_a_test() -> None:
    rules = re.split(r"\n(?=(?:S\d+|    [KE]?\d+\.) )", TEXT)[1:]
    rules = [rule for rule in rules if not re.fullmatch(r"S\d+  \w[\w ]*\s*", rule)]
    assert len(rules) == 33
    assert [rule for rule in rules if not REFERENCE.search(re.sub(r"\s+", " ", rule))] == []


def test_every_test_that_is_named_exists() -> None:
    missing = []
    for file, name in references():
        found = f"def {name}(" in (ROOT / file).read_text() if file else hasattr(BackendSuite, name)
        missing += [] if found else [f"{file} {name}"]
    assert missing == []


def test_every_test_of_the_suite_is_named() -> None:
    suite = {name for name in dir(BackendSuite) if name.startswith("test_")}
    assert suite - {name for _, name in references()} == set()
