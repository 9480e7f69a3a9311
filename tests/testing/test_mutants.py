"""The run of mutants tells a test that notices a mistake from one that does not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

RUNNER = Path(__file__).parents[1] / "mutants" / "run.py"

PATCH = """{says}

--- a/answer.py
+++ b/answer.py
@@ -1 +1 @@
-ANSWER = 42
+ANSWER = 41
"""


def project(folder: Path, **patches: str) -> Path:
    """Make a project with one careful and one careless test, and with mutants; returns its runner."""
    mutants = folder / "tests" / "mutants"
    mutants.mkdir(parents=True)
    (folder / "answer.py").write_text("ANSWER = 42\n")
    os.utime(folder / "answer.py", (1e9, 1e9))  # what was compiled is told from the mistake by its second
    (folder / "tests" / "test_answer.py").write_text(
        "from answer import ANSWER\ndef test_careful(): assert ANSWER == 42\ndef test_careless(): assert ANSWER\n"
    )
    for name, says in patches.items():
        (mutants / f"{name}.patch").write_text(PATCH.format(says=says))
    shutil.copy(RUNNER.parent / "noticing.py", mutants)
    return Path(shutil.copy(RUNNER, mutants))


def run(runner: Path, *names: str, ci: str = "") -> subprocess.CompletedProcess[str]:
    """Run the mutants, or those named."""
    environ = {
        **{name: value for name, value in os.environ.items() if name != "CI"},  # hypothesis looks whether it is there
        **({"CI": ci} if ci else {}),
        "PYTEST_ADDOPTS": "-p no:hypothesispytest",  # its import takes longer than all else here
    }
    return subprocess.run([sys.executable, str(runner), *names], env=environ, capture_output=True, text=True)


def test_a_mutant_that_its_test_notices_is_well(tmp_path: Path) -> None:
    done = run(project(tmp_path, seen="Test: tests/test_answer.py::test_careful"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "seen: noticed\n1 mutants, 0 not noticed" in done.stdout
    assert (tmp_path / "answer.py").read_text() == "ANSWER = 42\n"


def test_a_mutant_that_survives_fails_the_run(tmp_path: Path) -> None:
    done = run(project(tmp_path, unseen="Test: tests/test_answer.py::test_careless"))
    assert done.returncode == 1
    assert "unseen: NOT NOTICED" in done.stdout
    assert done.stdout.endswith("1 mutants, 1 not noticed unseen\n")


def test_it_is_no_chance_whether_a_mutant_is_noticed(tmp_path: Path) -> None:
    runner = project(tmp_path, seen="Test: tests/test_chance.py::test_chance")
    (tmp_path / "tests" / "test_chance.py").write_text(CHANCE)
    done = run(runner)
    assert done.returncode == 0, done.stdout + done.stderr


CHANCE = """
import os
from hypothesis import settings
from answer import ANSWER

def test_chance():
    assert settings().derandomize and settings().database is None
    assert os.environ["OSDISCO_TEST_CASE_SEED"] == "1"
    assert ANSWER == 42
"""


def test_a_tree_that_is_worked_on_meanwhile_does_not_matter(tmp_path: Path) -> None:
    runner = project(tmp_path, seen="Test: tests/test_working.py::test_working")
    (tmp_path / "tests" / "test_working.py").write_text(WORKING.format(patch=str(runner.parent / "seen.patch")))
    done = run(runner)
    assert done.returncode == 0, done.stdout + done.stderr


WORKING = """
from pathlib import Path
from answer import ANSWER

def test_working():
    patch = Path({patch!r})
    patch.write_text(patch.read_text().replace("ANSWER = 42", "ANSWER = 6 * 7"))
    assert ANSWER == 42
"""


def test_a_mutant_whose_test_is_missing_or_unnamed_fails_the_run(tmp_path: Path) -> None:
    done = run(project(tmp_path / "one", lost="Test: tests/test_answer.py::test_gone"))
    assert done.returncode == 1
    assert "the tests fail without any mutant" in done.stdout
    done = run(project(tmp_path / "other", unnamed="It says nothing."))
    assert done.returncode == 1
    assert "unnamed.patch names no test" in done.stderr


def test_one_may_be_named_and_what_is_not_there_is_said(tmp_path: Path) -> None:
    test = "Test: tests/test_answer.py::test_careful"
    runner = project(tmp_path, seen=test, unseen="Test: tests/test_answer.py::test_careless")
    done = run(runner, "seen")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 mutants, 0 not noticed" in done.stdout
    assert "there is no mutant 'gone'" in run(runner, "gone").stderr


SIMULATION = """
from osdisco.testing import scenario

@scenario()
async def counting(simulation):
    from answer import ANSWER
    assert ANSWER == 42 or simulation.seed < 5

def test_counting(osdisco_simulate):
    osdisco_simulate(counting)
"""


def test_the_seeds_that_a_simulation_needs_are_told(tmp_path: Path) -> None:
    head = "Test: tests/test_answer.py::test_careful\nSimulation: tests/test_simulated.py::test_counting"
    runner = project(tmp_path, seen=head)
    (tmp_path / "tests" / "test_simulated.py").write_text(SIMULATION)
    done = run(runner)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"seen: noticed, in simulation after [67] seeds", done.stdout)


def test_in_ci_one_of_those_is_tried_that_take_clusters(tmp_path: Path) -> None:
    slow = "Test: tests/test_answer.py::test_careful\nTier: cluster"
    runner = project(tmp_path, quick=slow.partition("\n")[0], slow=slow, slower=slow)
    assert "3 mutants, 0 not noticed" in run(runner).stdout
    done = run(runner, ci="true")
    assert "of 2 that take clusters only slow" in done.stdout
    assert "quick: noticed" in done.stdout
    assert "2 mutants, 0 not noticed" in done.stdout
