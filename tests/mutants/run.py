"""Applies each known mistake of this folder to a copy of the tree and sees whether its test notices.

A mutant is a patch whose head, above the diff, says in a line `Test: tests/…::test_…` which test must fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".servers", ".*_cache", "__pycache__", "*.egg-info", ".hypothesis")
NOTICED = 1  # pytest's exit code when tests ran and failed


def main() -> int:
    """Return the exit code: 0 when every mutant was noticed."""
    mutants = {patch: named_test(patch) for patch in sorted(HERE.glob("*.patch"))}
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        if run_tests(copied(folder, "whole"), *dict.fromkeys(mutants.values())) != 0:
            print("the tests fail without any mutant")
            return 1
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            outcomes = list(pool.map(lambda mutant: noticed(*mutant, folder), mutants.items()))
    print(f"{len(mutants)} mutants, {outcomes.count(False)} not noticed")
    return 0 if all(outcomes) else 1


def named_test(patch: Path) -> str:
    """Return the test of the patch's head."""
    for line in patch.read_text().splitlines():
        if line.startswith("Test: "):
            return line.removeprefix("Test: ").strip()
    raise SystemExit(f"{patch.name} names no test")


def noticed(patch: Path, test: str, folder: str) -> bool:
    """Return whether the test fails on a copy with the mistake."""
    tree = copied(folder, patch.stem)
    alone = {**os.environ, "GIT_CEILING_DIRECTORIES": folder}  # no repository around the copy is the one to patch
    applied = subprocess.run(["git", "apply", str(patch)], cwd=tree, env=alone).returncode == 0
    code = run_tests(tree, test) if applied else None
    shutil.rmtree(tree)
    said = {NOTICED: "noticed", 0: "NOT NOTICED", None: "DOES NOT APPLY"}
    print(f"{patch.stem}: {said.get(code, f'BROKEN: pytest ended with {code}')}", flush=True)
    return code == NOTICED


def copied(folder: str, name: str) -> Path:
    """Return a copy of the tree."""
    return shutil.copytree(ROOT, Path(folder, name), ignore=LEFT_OUT)


def run_tests(tree: Path, *tests: str) -> int:
    """Run tests of a tree on the code of that tree; returns pytest's exit code. Its output shows unless they fail."""
    path = os.pathsep.join([str(tree), str(tree / "backends")])
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-o", "timeout=60", *tests]
    done = subprocess.run(command, cwd=tree, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    if done.returncode != NOTICED:
        print(done.stdout, done.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
