"""Rules of the house, read from the source: who imports whom, and where time, randomness and tasks come from."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = [path.name for path in sorted((ROOT / "backends").iterdir()) if (path / "__init__.py").exists()]
DRIVERS = {"grpc", "aiohttp", "aetcd", "etcd3", "consul", "requests"}
SPEAK_HTTP = (
    "osdisco/cluster/_wire.py",
    "osdisco/discovery/_http.py",
    "osdisco/integrations/",
    "osdisco/mesh/",
    "osdisco/serve/",
    "osdisco/testing/_search_server.py",
)
"""The parts of the library that use aiohttp for something else than a store; each is loaded late."""

SPEAK_GRPC = "osdisco/integrations/grpc.py: grpc"
"""What hands a channel of gRPC to users, and is loaded by nothing else."""

LIBRARY = sorted((ROOT / "osdisco").rglob("*.py"))
CORE = [path for path in LIBRARY if path.relative_to(ROOT / "osdisco").parts[0] not in ("testing", "cli")]
BACKENDS = sorted((ROOT / "backends").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))


Rule = Callable[[ast.Module], Iterable[str]]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def broken(paths: Iterable[Path], rule: Rule) -> list[str]:
    """Return where a rule is broken; a rule yields what it does not like of a module."""
    return [f"{path.relative_to(ROOT)}: {found}" for path in paths for found in rule(tree(path))]


def imported(module: ast.Module) -> Iterator[str]:
    """Yield what a module imports, wherever it does so, as `module` or `module.name`."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_private(dotted: str) -> bool:
    return any(part.startswith("_") and not part.startswith("__") for part in dotted.split("."))


def attributes(module: ast.Module, of: str) -> set[str]:
    """Return the attributes of a module that are used: `random.Random` for `of="random"`."""
    return {
        f"{of}.{node.attr}"
        for node in ast.walk(module)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == of
    }


def roots(module: ast.Module) -> set[str]:
    return {dotted.split(".")[0] for dotted in imported(module)}


def test_there_is_something_to_look_at() -> None:
    assert len(CORE) > 15
    assert len(BACKENDS) > 10
    assert {"osdisco_consul", "osdisco_etcd", "osdisco_memory"} <= set(PACKAGES)
    assert broken(CORE, roots)


def test_the_library_imports_no_backend_and_no_driver() -> None:
    def speaks_to_others(found: str) -> bool:
        return found == SPEAK_GRPC or (found.startswith(SPEAK_HTTP) and found.endswith(": aiohttp"))

    def drivers(paths: list[Path], allowed: set[str]) -> list[str]:
        found = broken(paths, lambda module: roots(module) & {*PACKAGES, *DRIVERS} - allowed)
        return [one for one in found if not speaks_to_others(one)]

    assert drivers(CORE, set()) == []
    assert drivers(LIBRARY, {"osdisco_memory"}) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_a_backend_imports_only_what_is_public_and_no_other_backend(package: str) -> None:
    def rule(module: ast.Module) -> Iterable[str]:
        for dotted in imported(module):
            root = dotted.split(".")[0]
            if root in PACKAGES and root != package:
                yield dotted
            if root == "osdisco" and is_private(dotted):
                yield dotted

    assert broken((path for path in BACKENDS if package in path.parts), rule) == []


def test_nothing_imports_backends_by_their_folder() -> None:
    assert broken([*LIBRARY, *BACKENDS, *TESTS], lambda module: roots(module) & {"backends"}) == []


def test_time_and_randomness_come_from_the_runtime_alone() -> None:
    def rule(module: ast.Module) -> Iterable[str]:
        yield from roots(module) & {"time", "uuid", "secrets", "datetime"}
        yield from (dotted for dotted in imported(module) if dotted.startswith("random."))
        yield from attributes(module, "random") - {"random.Random"}  # the type may be named
        yield from attributes(module, "os") & {"os.urandom", "os.getrandom"}

    runtime = ROOT / "osdisco" / "runtime.py"
    assert broken([runtime], rule)
    assert broken((path for path in [*CORE, *BACKENDS] if path != runtime), rule) == []


def test_tasks_of_the_core_have_an_owner_and_only_one_place_starts_threads() -> None:
    starting = {"create_task", "ensure_future", "run_in_executor", "to_thread"}

    def rule(module: ast.Module) -> Iterable[str]:
        yield from {node.attr for node in ast.walk(module) if isinstance(node, ast.Attribute)} & starting
        yield from roots(module) & {"concurrent", "multiprocessing", "subprocess"}
        yield from attributes(module, "threading") - {"threading.current_thread", "threading.main_thread"}

    tasks, aside = ROOT / "osdisco" / "_tasks.py", ROOT / "osdisco" / "cluster" / "_aside.py"
    assert broken([tasks], rule) == ["osdisco/_tasks.py: create_task"]
    assert broken([aside], rule) == ["osdisco/cluster/_aside.py: to_thread"]
    assert broken((path for path in CORE if path not in (tasks, aside)), rule) == []


def test_cancellation_is_not_swallowed() -> None:
    def rule(module: ast.Module) -> Iterable[str]:
        for node in ast.walk(module):
            if not isinstance(node, ast.ExceptHandler):
                continue
            caught = "" if node.type is None else ast.unparse(node.type)
            wide = not caught or "BaseException" in caught or "CancelledError" in caught
            if wide and not any(isinstance(inner, ast.Raise) for inner in ast.walk(node)):
                yield f"line {node.lineno} catches {caught or 'everything'} and does not raise"

    assert broken([*CORE, *BACKENDS], rule) == []


SAFE_YAML = {"yaml.safe_load", "yaml.SafeLoader", "yaml.ScalarNode", "yaml.YAMLError", "yaml.MarkedYAMLError"}
SAFE_YAML |= {"yaml.constructor"}
"""What makes nothing but plain values: loaders are safe ones, or derived from them."""


def test_nothing_is_unpickled_or_evaluated() -> None:
    def rule(module: ast.Module) -> Iterable[str]:
        yield from roots(module) & {"pickle", "marshal", "shelve"}
        yield from attributes(module, "yaml") - SAFE_YAML
        calls = [node.func for node in ast.walk(module) if isinstance(node, ast.Call)]
        yield from {call.id for call in calls if isinstance(call, ast.Name)} & {"eval", "exec", "__import__"}

    assert broken([*LIBRARY, *BACKENDS], rule) == []
