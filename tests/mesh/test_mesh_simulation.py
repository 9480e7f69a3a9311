"""Calls by many seeds: whatever happens to endpoints, callers and store, none is done twice, late, or lost for good."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from mesh_storm import Caller, Storm
from strikes import STRIKES

from osdisco.mesh import RetryBudget, RetryPolicy
from osdisco.testing import Scenario, SimulatedProcess, Simulation, scenario

SECONDS = 6.0
"""Of trouble in a seed."""
QUIET = 16.0
"""Seconds after the last fault, in which leases end, and circuits and what was lost return."""
BUDGET = RetryBudget(share=0.2, per_second=0.2, window=10)
METHODS = ("find", "add", "relay")


class Play(Storm):
    """Three or four servers, two callers, and those that take the place of killed ones."""

    def __init__(self, simulation: Simulation) -> None:
        super().__init__(simulation, retry_policies=RetryPolicy(budget=BUDGET))
        self.random = simulation.random

    def restart(self, dead: SimulatedProcess) -> None:
        self.wire.lose(dead)
        if dead in self.servers:
            self.serve()
        else:
            self.caller()

    def strike(self, **trouble: float | bool) -> bool:
        """Let one endpoint, or now and then all of them, be in trouble for a while."""
        sites = self.sites()
        if not sites:
            return False
        for site in sites if self.random.random() < 0.2 else [self.random.choice(sites)]:
            for name, value in trouble.items():
                setattr(site, name, value)
            self.simulation.later(self.random.uniform(0.2, 5), site.heal)
        return True

    def roll(self) -> bool:
        """Let one leave as it should, when another has come."""
        there = [process for process in self.servers if process.alive and self.wire.of(process)]
        if not there:
            return False
        self.serve()
        self.simulation.later(1.0, lambda: self.leave(there[0]))
        return True

    async def call_on(self) -> None:
        while not self.simulation.over:
            await asyncio.sleep(self.random.expovariate(7))
            if callers := self.living():
                self.call(self.random.choice(callers), self.random.choice(METHODS), self.random.choice([0.2, 1, 4]))

    async def end_well(self) -> None:
        """With everything well again every call succeeds, and nothing is left of what was."""
        self.wire.heal()
        if not self.living():
            self.caller()
        self.serve()
        await asyncio.sleep(QUIET)
        await self.all_back(10)
        for caller in self.living():
            before = len(caller.results)
            for _ in range(6):
                await self.call(caller, self.random.choice(METHODS))
            assert caller.results[before:] == [None] * 6
            self.check_budget(caller)
        self.check_nothing_left()
        await self.end()

    def check_budget(self, caller: Caller) -> None:
        """All retries come out of the budget."""
        sent = [one for one in self.wire.sent if one.by == caller.process.name]
        retries = sum(one.attempt > 1 for one in sent)
        windows = (SECONDS + QUIET + 10) / (0.9 * BUDGET.window) + 1
        assert retries <= BUDGET.share * len(caller.results) + BUDGET.per_second * BUDGET.window * windows
        self.simulation.seen["retries"] += retries
        self.simulation.seen["failed"] += sum(error is not None for error in caller.results)
        self.simulation.seen["well"] += sum(error is None for error in caller.results)


OFTEN = {"killed": 0.2, "slow": 0.2, "failing": 0.2, "answers lost": 0.2, "refusing": 0.2, "silent": 0.2, "rolled": 0.2}
OFTEN |= {"retries": 2, "failed": 5, "well": 20}


@scenario(often={**dict.fromkeys(STRIKES, 0.2), **OFTEN})
async def calls(simulation: Simulation) -> None:
    play = Play(simulation)
    for _ in range(simulation.random.randint(3, 4)):
        play.serve()
    for _ in range(2):
        play.caller()
    calling = asyncio.get_running_loop().create_task(play.call_on())
    own = {
        "slow": lambda: play.strike(slow=20.0),
        "failing": lambda: play.strike(fails=1.0),
        "answers lost": lambda: play.strike(loses=0.7),
        "refusing": lambda: play.strike(refuses=True),
        "silent": lambda: play.strike(silent=True),
        "rolled": play.roll,
    }
    await simulation.trouble(SECONDS, rate=6, restart=play.restart, also=own)
    await calling
    await play.end_well()


@pytest.mark.timeout(900)
def test_whatever_happens(osdisco_simulate: Callable[[Scenario], None]) -> None:
    osdisco_simulate(calls)
