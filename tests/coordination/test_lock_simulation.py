"""Many processes, many faults, many seeds: what must hold of the mutex, and that it goes on afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from contests import FAULTS, Contest

from osdisco.backend import Put
from osdisco.coordination import CoordinationService
from osdisco.testing import Scenario, SimulatedProcess, Simulation, run_seed, scenario

OFTEN = {**FAULTS, "killed": 0.4, "acquired": 6, "written": 4, "cancelled": 2, "LostError": 0.4}
"""What must have happened in a seed on average for the run to mean something."""


class Mutex(Contest):
    """Holders exclude each other, come in the order of the queue (their tokens rise), and write in that order."""

    prefix = "lock/"

    async def turn(self, process: SimulatedProcess, timeout: float | None) -> None:
        lock = CoordinationService(process.client).lock("job")
        if self.random.random() < 0.2:
            guard = await lock.try_acquire()
            if guard is None:
                return
        else:
            guard = await lock.acquire(timeout=timeout)
        with self.holding(guard, process):
            async with guard:
                for _ in range(self.random.randint(0, 2)):
                    await asyncio.sleep(self.random.uniform(0, 1))
                    await guard.commit([Put("resource", b"%d" % guard.token)])


@scenario(often=OFTEN)
async def mutex(simulation: Simulation) -> None:
    await Mutex(simulation).run(simulation.random.randint(2, 4))


@scenario(often={**OFTEN, "lease ended": 0.4, "key removed": 0.4, "false renewals": 0.4})
async def mutex_with_an_operator(simulation: Simulation) -> None:
    """Leases are ended and entries removed by hand, too."""
    await Mutex(simulation, operator=True).run(simulation.random.randint(2, 4))


async def crowd(simulation: Simulation) -> None:
    await Mutex(simulation, operator=True).run(70)
    assert simulation.seen["acquired"] >= 100, simulation.seen
    assert simulation.seen["killed"] >= 1, simulation.seen


@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", [mutex, mutex_with_an_operator], ids=lambda scenario: scenario.name)
def test_whatever_happens(scenario: Scenario, osdisco_simulate: Callable[[Scenario], None]) -> None:
    osdisco_simulate(scenario)


def test_a_hundred_acquirers_with_random_kills() -> None:
    run_seed(crowd, 1)
