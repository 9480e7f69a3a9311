"""The README's example runs as printed, and its table names the stores that there are."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_example_runs_as_printed() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.S)
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\['geo-1'\]\nheld with fencing token \d+\n", done.stdout)
    assert done.stderr == ""


def test_the_table_names_every_scheme() -> None:
    known = {point.name for point in entry_points(group="osdisco.backends") if point.value.startswith("osdisco_")}
    assert known == {scheme for scheme in re.findall(r"`([a-z+]+)://", README) if scheme != "myscheme"}
