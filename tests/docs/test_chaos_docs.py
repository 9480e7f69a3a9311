"""The page on `ChaosProxy`: its examples run and show what they say, on every server, and no public name lacks one."""

from __future__ import annotations

import ast

import pytest
from examples import DOCS, Example, examples_of

import osdisco
from osdisco.testing import ChaosProxy, Direction

PAGE = DOCS / "chaos-proxy.md"
FRAME, *EXAMPLES = examples_of(PAGE)


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
@pytest.mark.osdisco("etcd", "consul")
async def test_an_example_shows_what_it_says(example: Example, osdisco_url: str) -> None:
    scheme, _, rest = osdisco_url.partition("://")
    address, _, namespace = rest.partition("/")
    async with (
        ChaosProxy(address) as proxy,
        osdisco.connect(f"{scheme}://{proxy.address}/{namespace}?timeout=500ms") as client,
    ):
        await client.put("seen", b"before")
        await client.get("seen")
        await example.run(FRAME, {"client": client, "proxy": proxy})


def test_every_example_shows_something() -> None:
    assert [str(example) for example in EXAMPLES if not example.claims] == []


def test_the_frame_is_what_examples_run_in() -> None:
    assert "async with ChaosProxy(etcd.address) as proxy:" in FRAME.text
    assert "?timeout=500ms" in FRAME.text
    compile(FRAME.text, str(PAGE), "exec")


@pytest.mark.parametrize("cls", [ChaosProxy, Direction])
def test_every_public_name_is_in_an_example_or_a_table(cls: type) -> None:
    used = {node.attr for example in EXAMPLES for node in ast.walk(example.tree()) if isinstance(node, ast.Attribute)}
    text = PAGE.read_text()
    names = {name for name in {*vars(cls), *getattr(cls, "__annotations__", {})} if not name.startswith("_")}
    assert len(names) > 8
    assert {name for name in names if name not in used and f"`{name}" not in text} == set()
