"""The trouble that simulations of recipes and of discovery share."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from osdisco.testing import SimulatedProcess, Simulation

STRIKES = dict.fromkeys(
    [
        "lost answers",
        "late",
        "delayed",
        "refused",
        "partitioned",
        "slow renewal, then silence",
        "watch cut",
        "resync",
        "late expiry",
        "paused",
        "suspended",
        "clock jumped",
        "clock drifts",
    ],
    0.4,
)
"""How often each must have struck in a seed, on average, for the seeds to mean something."""


async def trouble_among(
    simulation: Simulation, work: Callable[[SimulatedProcess], Coroutine[Any, Any, None]], processes: int
) -> None:
    """Make trouble for some processes that do the same, and for those that take the place of killed ones."""

    def start(_: SimulatedProcess | None = None) -> None:
        process = simulation.process()
        process.start(work(process))

    for _ in range(processes):
        start()
    await simulation.trouble(12, restart=start)
