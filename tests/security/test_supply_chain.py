"""What tests install is locked by version and hash, as pyproject.toml asks for it, from no place in particular."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PYTHONS = ("3.11", "3.12", "3.13")
NOT_SHIPPED = {"testing", "all"}
"""Extras that nobody's service runs with."""


def lock(name: str) -> str:
    return (ROOT / f"requirements/{name}.txt").read_text()


def pinned(name: str) -> list[Requirement]:
    """Return what a lock says, without its hashes."""
    return [Requirement(line.rstrip("\\ ")) for line in lock(name).splitlines() if re.match(r"\w", line)]


def asked(*, extras: set[str], group: str | None = None) -> Iterator[Requirement]:
    """Return what pyproject.toml asks for, with extras of its own."""
    project = PROJECT["project"]
    said = [*project["dependencies"], *(one for extra in extras for one in project["optional-dependencies"][extra])]
    said += PROJECT["dependency-groups"][group] if group else []
    for one in map(Requirement, said):
        if one.name != "osdisco":
            yield one


EXTRAS = set(PROJECT["project"]["optional-dependencies"]) - {"all"}
LOCKS = {
    "test": list(asked(extras=EXTRAS, group="dev")),
    "runtime": list(asked(extras=EXTRAS - NOT_SHIPPED)),
    **{name: [Requirement(one) for one in PROJECT["dependency-groups"][name]] for name in ("fuzz", "docs")},
    "docs": [Requirement(one) for one in PROJECT["dependency-groups"]["docs"]],
}


@pytest.mark.parametrize("name", LOCKS)
@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_holds_what_is_asked_for(name: str, python: str) -> None:
    here = {"python_version": python, "python_full_version": f"{python}.1", "sys_platform": "linux"}
    found = {
        canonicalize_name(one.name): str(one.specifier).removeprefix("==")
        for one in pinned(name)
        if one.marker is None or one.marker.evaluate(here)
    }
    for one in LOCKS[name]:
        if one.marker is None or one.marker.evaluate(here):
            version = found.get(canonicalize_name(one.name))
            assert version is not None, f"{one} is not locked: say make lock"
            assert one.specifier.contains(version, prereleases=True), f"{one} is locked at {version}: say make lock"


@pytest.mark.parametrize("name", LOCKS)
def test_all_of_a_lock_is_one_version_with_hashes_and_no_place_of_its_own(name: str) -> None:
    entries = re.split(r"\n(?=\w)", re.sub(r"^#.*\n", "", lock(name), flags=re.MULTILINE).strip())
    for entry in entries:
        assert re.match(r"[\w.-]+==[\w.]+( ;[^\\]+)? \\\n", entry), entry[:80]
        rest = entry.partition("\n")[2]
        assert re.fullmatch(r"( +--hash=sha256:[0-9a-f]{64}( \\)?\n?)+", rest), entry[:80]


def test_what_is_shipped_is_tested_in_the_same_versions() -> None:
    tested = {one.name: str(one.specifier) for one in pinned("test")}
    assert {one.name: str(one.specifier) for one in pinned("runtime")}.items() <= tested.items()


def test_osdisco_itself_needs_three_packages_at_most() -> None:
    assert len(PROJECT["project"]["dependencies"]) <= 3
