"""What the page tells of `make leaks` is what the run that was kept has found, and that has what a run writes."""

from __future__ import annotations

import ast
import json
from typing import Any

import pytest
from examples import DOCS

RUN: dict[str, Any] = json.loads((DOCS / "leaks.json").read_text())
PAGE = (DOCS / "guarantees.md").read_text()
SCRIPT = ast.parse((DOCS.parent / "tests/leaks/run.py").read_text())
TRANSPORTS = ["memory", "etcd", "etcd+http", "consul"]
KNOWN = ("consul: memory grew by ",)
"""How all that may be wrong with it begins: by little more than is allowed."""


def keys_in(function: str) -> set[str]:
    """Return the keys of the figures that a function of the script writes."""
    [written] = [node for node in ast.walk(SCRIPT) if getattr(node, "name", "") == function]
    dicts = [node for node in ast.walk(written) if isinstance(node, ast.Dict) and len(node.keys) > 2]
    return {key.value for one in dicts for key in one.keys if isinstance(key, ast.Constant)}


def test_the_run_has_what_a_run_writes() -> None:
    assert list(RUN["transports"]) == TRANSPORTS
    assert {transport: set(one) for transport, one in RUN["transports"].items()} == dict.fromkeys(
        TRANSPORTS, keys_in("transport_of")
    )
    assert set(RUN["churn"]) == keys_in("churn")
    assert set(RUN) == keys_in("whole") | {"transports", "churn", "wrong"}


def test_nothing_is_wrong_but_what_is_known_and_told() -> None:
    assert [wrong for wrong in RUN["wrong"] if not wrong.startswith(KNOWN)] == []
    told = f"The run is not good: {'; '.join(RUN['wrong'])}." if RUN["wrong"] else "The run is good."
    assert PAGE.count(told) == 1, told
    assert PAGE.count("The run is ") == 1


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_page_has_the_row(transport: str) -> None:
    one = RUN["transports"][transport]
    assert one["cycles"] >= 10_000
    assert one["cancelled"] * 3 >= one["cycles"]
    assert one["left_after_expiry"] == {}
    failed = "not counted" if one["failed"] is None else f"{one['failed']:,}"
    left = ", ".join(f"{count} {what}" for what, count in one["left_when_closed"].items()) or "nothing"
    memory = " | ".join(one[when].partition(",")[0] for when in ("first", "last"))
    row = f"| {transport} | {one['cycles']:,} | {one['cancelled']:,} | {failed} | {left} | nothing | {memory} |"
    assert row in PAGE.splitlines()
