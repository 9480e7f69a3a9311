"""What the process holds, sampled over time, and whether it grows: of `make soak` and `make leaks`."""

from __future__ import annotations

import asyncio
import gc
import os
import stat
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

from attrs import define

GROWTH_MOST = 2 * 2**20
"""Bytes that the process may grow by in all of the time that is measured."""
WARM_UP = 0.3
"""How much is done before that, as a share of what is measured."""
SAMPLES_LEAST = 10


@define
class Sample:
    """What the process holds between two rounds, when nothing is registered."""

    at: float
    resident: int
    tasks: int
    sockets: int
    descriptors: int
    threads: int

    @classmethod
    def taken(cls, begun: float) -> Self:
        gc.collect()
        with open("/proc/self/statm") as statm:
            resident = int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")
        kinds, tasks = descriptors(), asyncio.all_tasks()
        threads = len(os.listdir("/proc/self/task"))  # those of C libraries, too
        at = time.monotonic() - begun
        return cls(at, resident, len(tasks), sum(map(stat.S_ISSOCK, kinds)), len(kinds), threads)

    def __str__(self) -> str:
        return (
            f"{self.at:5.0f} s: {self.resident / 2**20:7.2f} MiB, {self.tasks} tasks, {self.sockets} sockets, "
            f"{self.descriptors} descriptors, {self.threads} threads"
        )


COUNTED = ("tasks", "sockets", "descriptors", "threads")
CHURNING = COUNTED[:3]
"""What is counted while clients are open: gRPC keeps as many threads as it finds useful then."""


def descriptors() -> list[int]:
    """Return the mode of each open file descriptor."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the listing's own
            found.append(os.stat(f"/proc/self/fd/{name}").st_mode)
    return found


def verdict(samples: Sequence[Sample], seconds: float) -> list[str]:
    """Return what is not flat in so many seconds, of which the samples are."""
    if len(samples) < SAMPLES_LEAST:
        return [f"{len(samples)} samples are too few to tell anything"]
    wrong, grown = list[str](), growth(samples, seconds)
    print(f"grown by {grown / 2**20:.2f} MiB in {seconds:.0f} s")
    if grown > GROWTH_MOST:
        wrong.append(f"memory grew by {grown / 2**20:.2f} MiB; {GROWTH_MOST / 2**20:.0f} are allowed")
    before, after = _ends(samples, 3)
    for what in CHURNING:
        most, least = max(getattr(one, what) for one in before), min(getattr(one, what) for one in after)
        if least > most:  # idle connections come and go
            wrong.append(f"{most} {what} at most at first, and {least} at least in the end")
    return wrong


def growth(samples: Sequence[Sample], seconds: float) -> float:
    """Return by how many bytes the process grows in so many seconds.

    By the medians of the first and of the last tenth of the samples, and the time between these.
    """
    (begun, before), (ended, after) = (
        (statistics.median(one.at for one in part), statistics.median(one.resident for one in part))
        for part in _ends(samples, 10)
    )
    return (after - before) / (ended - begun) * seconds


def _ends(samples: Sequence[Sample], share: int) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """Return the first and the last of so many parts."""
    part = max(len(samples) // share, 1)
    return samples[:part], samples[-part:]
