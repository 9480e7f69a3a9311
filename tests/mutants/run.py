"""Applies each known mistake of this folder to a copy of the tree and sees whether its test notices.

    python tests/mutants/run.py [NAME …]        all of them, or those named

A mutant is a patch whose head, above the diff, says in a line `Test: tests/…::test_…` which test must fail: itself, not
by taking too long, and not something that it stands on (noticing.py). A line
`Simulation: tests/…::test_…` names a simulation that is run, too, to see how many seeds it needs; so is told for a test
that is a simulation itself. Their seeds are the same in each run. `OSDISCO_MUTANT_SEEDS` sets how many are tried where
that is only told. `Tier: cluster` says that its test starts clusters: with CI=true one such mutant is tried, by chance.
`OSDISCO_MUTANT_SHARE=3` tries every third of all, another third each time; `OSDISCO_MUTANT_SEED` repeats a choice.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import noticing

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".servers", ".*_cache", "__pycache__", "*.egg-info", ".hypothesis")
FAILED = 1  # pytest's exit code when tests ran and failed, or something they stand on
SEEDS = 1000
"""How many seeds a simulation may need where it is the test of a mutant."""
ASKED = int(os.environ.get("OSDISCO_MUTANT_SEEDS", SEEDS))
"""How many seeds one may take that is only asked how many it needs."""
SHARE = int(os.environ.get("OSDISCO_MUTANT_SHARE", "1"))
"""One of how many mutants is tried, where none are named."""
CASE_SEED = "1"
"""Of cases that are drawn by chance: whether they notice a mutant is not to be chance."""
WHOLE = 50
"""Seeds for the tree without mistakes."""


def main(names: list[str]) -> int:
    """Return the exit code: 0 when every mutant was noticed."""
    patches = [HERE / f"{name}.patch" for name in names] or chosen(sorted(HERE.glob("*.patch")))
    mutants = {patch: named_test(patch) for patch in patches}
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        whole = run_tests(copied(ROOT, folder, "whole"), *dict.fromkeys(mutants.values()), seeds=WHOLE, timeout=300)
        if whole.returncode != 0:
            print(whole.stdout, "the tests fail without any mutant")
            return 1
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            outcomes = list(pool.map(lambda mutant: noticed(*mutant, folder), mutants.items()))
    missed = [patch.stem for patch, seen in zip(mutants, outcomes, strict=True) if not seen]
    print(f"{len(mutants)} mutants, {len(missed)} not noticed", *missed)  # by name: a log may be kept by its end only
    return 1 if missed else 0


def chosen(patches: list[Path]) -> list[Path]:
    """Return those that are tried: all or a share of them, and in CI only one of those that take clusters."""
    seed = int(os.environ.get("OSDISCO_MUTANT_SEED", random.randrange(2**32)))
    choice = random.Random(seed)
    slow = [patch for patch in patches if head_line(patch, "Tier: ") == "cluster"]
    if os.environ.get("CI", "").lower() in ("true", "1") and slow:
        one = choice.choice(slow)
        print(f"of {len(slow)} that take clusters only {one.stem}")
        patches = [patch for patch in patches if patch is one or patch not in slow]
    if SHARE > 1:
        print(f"one of {SHARE}, chosen by OSDISCO_MUTANT_SEED={seed}")
        patches = sorted(choice.sample(patches, -(-len(patches) // SHARE)))
    return patches


def named_test(patch: Path) -> str:
    """Return the test of the patch's head."""
    if not patch.exists():
        raise SystemExit(f"there is no mutant {patch.stem!r}; all of them: run without a name")
    test = head_line(patch, "Test: ")
    if test is None:
        raise SystemExit(f"{patch.name} names no test")
    return test


def head_line(patch: Path, name: str) -> str | None:
    """Return what a line of the patch's head says."""
    lines = (line for line in patch.read_text().splitlines() if line.startswith(name))
    return next((line.removeprefix(name).strip() for line in lines), None)


def noticed(patch: Path, test: str, folder: str) -> bool:
    """Return whether the test fails on a copy with the mistake."""
    tree = copied(Path(folder, "whole"), folder, patch.stem)  # with what was compiled there
    alone = {**os.environ, "GIT_CEILING_DIRECTORIES": folder}  # no repository around the copy is the one to patch
    kept = tree / patch.relative_to(ROOT)  # as it was when the run began: the tree may be worked on meanwhile
    applied = subprocess.run(["git", "apply", str(kept)], cwd=tree, env=alone).returncode == 0
    done = run_tests(tree, test) if applied else None
    simulation = head_line(patch, "Simulation: ")
    simulated = run_tests(tree, simulation, seeds=ASKED) if simulation and applied else done
    shutil.rmtree(tree)
    said = outcome(done, test)
    told = told_seeds(simulated, ASKED if simulation else SEEDS)
    print(f"{patch.stem}: {said}{told}", flush=True)
    return said == "noticed"


def outcome(done: subprocess.CompletedProcess[str] | None, test: str) -> str:
    """Return what became of the test, in words."""
    if done is None:
        return "DOES NOT APPLY"
    if done.returncode == 0:
        return "NOT NOTICED"
    if done.returncode != FAILED:
        return f"BROKEN: pytest ended with {done.returncode}"
    failed = [line.removeprefix(noticing.BY) for line in done.stdout.splitlines() if line.startswith(noticing.BY)]
    if any(node == test or node.startswith(f"{test}[") for node in failed):
        return "noticed"
    return "BROKEN: the test took too long, or what it stands on failed"


def told_seeds(done: subprocess.CompletedProcess[str] | None, seeds: int) -> str:
    """Return how many seeds a simulation needed; nothing if it was none."""
    output = done.stdout if done is not None else ""
    if needed := re.search(r"noticed after (\d+) seeds", output):
        return f", in simulation after {needed[1]} seeds"
    return f", in simulation not in {seeds} seeds" if "= simulated =" in output else ""


def copied(tree: Path, folder: str, name: str) -> Path:
    """Return a copy of a tree."""
    return shutil.copytree(tree, Path(folder, name), ignore=LEFT_OUT if tree == ROOT else None)


def run_tests(tree: Path, *tests: str, seeds: int = SEEDS, timeout: int = 60) -> subprocess.CompletedProcess[str]:
    """Run tests of a tree on the code of that tree, as pytest ended. Its output shows unless they fail, or simulate."""
    path = os.pathsep.join([str(tree), str(tree / "backends"), str(HERE)])
    environ = {
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPATH": path,
        "OSDISCO_TEST_SEEDS": str(seeds),
        "OSDISCO_TEST_FIRST_SEED": "0",
        "OSDISCO_TEST_CASE_SEED": CASE_SEED,
    }
    options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "noticing", "-o", f"timeout={timeout}"]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    done = subprocess.run(command, cwd=tree, env={**os.environ, **environ}, capture_output=True, text=True)
    if outcome(done, tests[0]) != "noticed" and not told_seeds(done, seeds):
        print(done.stdout, done.stderr)
    return done


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
