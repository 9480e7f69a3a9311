"""The pictures in docs are drawn from the texts beside them, and name what there is."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from osdisco import errors
from osdisco.coordination import DistributedLock, LeaderElection, LockGuard, Term
from osdisco.mesh import ExtensionServiceMesh

DOCS = Path(__file__).parents[2] / "docs"
SOURCES = sorted((DOCS / "pictures").glob("*.dot"))
CALLED = (DistributedLock, LockGuard, LeaderElection, Term, ExtensionServiceMesh)

each_source = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)


def test_there_are_those_that_are_shown() -> None:
    pages = "".join((DOCS / page).read_text() for page in ("cluster.md", "coordination.md", "mesh.md"))
    shown = re.findall(r"\]\(pictures/(\w+)\.svg\)", pages)
    assert sorted(shown) == [source.stem for source in SOURCES]


@each_source
def test_it_is_drawn_from_its_source(source: Path) -> None:
    seal = runpy.run_path(str(DOCS / "pictures" / "draw.py"))["seal"]
    assert source.with_suffix(".svg").read_text().endswith(seal(source)), "say `make pictures`"


@each_source
def test_it_names_what_there_is(source: Path) -> None:
    text = source.read_text()
    assert all(hasattr(errors, name) for name in re.findall(r"\w+Error\b", text))
    assert all(any(hasattr(kind, name) for kind in CALLED) for name in re.findall(r"(\w+)\(\w*\)", text))
    assert all((DOCS.parent / name).exists() for name in re.findall(r"osdisco/[\w/]+\.py", text))
