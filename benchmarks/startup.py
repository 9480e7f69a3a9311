"""What `import osdisco` and `osdisco --help` cost, in fresh processes, in turns with what they stand on."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from benchmarks.figures import Figure

GROUP = "Starting up"
ABOVE_MOST_MS, HELP_MOST_MS = 30.0, 150.0
BASE = "import asyncio, attr"
FOREIGN = ("grpc", "aetcd", "etcd3", "consul", "aiohttp", "cattrs", "click", "rich")


def measure(rounds: int) -> list[Figure]:
    """Return the figures; medians of `rounds` pairs of processes."""
    return [
        _above("import osdisco", f"{BASE}, osdisco", rounds),
        _above("from osdisco import Client, connect: what the first use loads", f"{BASE}; {USE}", rounds),
        _help(rounds),
        _loaded("import osdisco", "import osdisco"),
        _loaded("from osdisco import Client, connect", USE),
    ]


USE = "from osdisco import Client, connect"


def _above(name: str, code: str, rounds: int) -> Figure:
    pairs = _pairs(["-c", code], ["-c", BASE], rounds)
    above = [(ours - theirs) * 1e3 for ours, theirs in pairs]
    detail = {"min": min(above), "max": max(above)} | _medians(pairs)
    return Figure(GROUP, name, statistics.median(above), "ms above", BASE, most=ABOVE_MOST_MS, detail=detail)


def _help(rounds: int) -> Figure:
    pairs = _pairs(["-m", "osdisco.cli", "--help"], ["-c", "pass"], rounds)
    took = [ours * 1e3 for ours, _ in pairs]
    detail = {"min": min(took), "max": max(took)} | _medians(pairs)
    against = "a bare interpreter, beside"
    return Figure(GROUP, "osdisco --help", statistics.median(took), "ms", against, most=HELP_MOST_MS, detail=detail)


def _loaded(name: str, code: str) -> Figure:
    show = "import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    command = [sys.executable, "-c", f"{code}; {show}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # nosec B603 # noqa: S603 - our own
    found = sorted(set(done.stdout.split()) & set(FOREIGN))
    detail = {"loaded": ", ".join(found)} if found else {}
    what = f"{name}: of {', '.join(FOREIGN)} it loads"
    return Figure(GROUP, what, float(len(found)), "", most=0, detail=detail)


def _medians(pairs: list[tuple[float, float]]) -> dict[str, object]:
    names = ("ours ms", "beside it ms")
    return {name: statistics.median(pair[side] for pair in pairs) * 1e3 for side, name in enumerate(names)}


def _pairs(ours: list[str], theirs: list[str], rounds: int) -> list[tuple[float, float]]:
    """Return seconds of each, whichever goes first; the pair before writes bytecode and is not counted."""
    _run(ours), _run(theirs)
    pairs = []
    for number in range(rounds):
        first, second = (ours, theirs) if number % 2 else (theirs, ours)
        times = (_run(first), _run(second))
        pairs.append(times if number % 2 else (times[1], times[0]))
    return pairs


def _run(arguments: list[str]) -> float:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    command = [sys.executable, *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=env)  # nosec B603 # noqa: S603 - our own
    return time.perf_counter() - start
