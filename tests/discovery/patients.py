"""Something to check in virtual time, and a monitor of checks: what tests of health use."""

from __future__ import annotations

import asyncio
from typing import Any

from worlds import World

from osdisco._signal import Signal
from osdisco.discovery import (
    Check,
    CheckFailedError,
    ExtensionStatus,
    FunctionCheck,
)
from osdisco.discovery.health import Monitor


class Patient:
    """Something to check: `well` decides how each run ends, `runs` tells when they were."""

    def __init__(self, world: World, *, well: bool = False) -> None:
        self.well = well
        self.runs: list[float] = []
        self._ran = Signal()
        self._now = world.clock.now

    def look(self) -> None:
        self.runs.append(self._now())
        self._ran.fire()
        if not self.well:
            raise CheckFailedError("it is ill")

    async def after(self, runs: int) -> None:
        """Wait until it was looked at some more times, and what came of it is known."""
        wanted = len(self.runs) + runs
        await self._ran.wait_for(lambda: len(self.runs) >= wanted, 1000)
        await asyncio.sleep(0.01)

    def check(self, name: str = "patient", **options: Any) -> FunctionCheck:
        return FunctionCheck(self.look, name=name, **{"interval": 10, "startup_grace": 30, **options})


async def monitored(world: World, *checks: Check) -> tuple[Monitor, list[ExtensionStatus]]:
    """Start a monitor that ends with its client; returns it and what it publishes."""
    told: list[ExtensionStatus] = []
    client = world.process()
    monitor = Monitor(checks, client.runtime, client._connection.supervisor, told.append)
    monitor.start()
    return monitor, told
