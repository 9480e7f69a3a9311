"""What `import osdisco` and `osdisco --help` cost, in fresh processes, alternating with what they stand on."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from benchmarks.harness import Result, result


def imports(rounds: int) -> Result:
    """What the first use loads, above `import asyncio, attr`: names of `osdisco` are loaded when they are used."""
    ours = ["-c", "import asyncio, attr; from osdisco import Client, connect"]
    return _pairs("import Client, connect / asyncio, attr", ours, ["-c", "import asyncio, attr"], rounds)


def help_text(rounds: int) -> Result:
    """`osdisco --help` beside an interpreter that imports nothing."""
    return _pairs("osdisco --help / python -c pass", ["-m", "osdisco.cli", "--help"], ["-c", "pass"], rounds)


def _pairs(name: str, ours: list[str], theirs: list[str], rounds: int) -> Result:
    _run(ours), _run(theirs)
    pairs = [(_run(ours), _run(theirs)) for _ in range(rounds)]
    return result(name, 1, 1, [a for a, _ in pairs], [b for _, b in pairs])


def _run(arguments: list[str]) -> float:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env=env)  # nosec B603 # noqa: S603 - our own
    return time.perf_counter() - start
