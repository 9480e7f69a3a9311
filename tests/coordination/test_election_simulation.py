"""Many candidates, many faults, many seeds: what must hold of elections, and that they go on afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from contests import OFTEN, Contest
from elections import election_of

from osdisco.backend import Put
from osdisco.coordination import Leader, LeaderElection, Term
from osdisco.errors import CoordinationError
from osdisco.testing import Scenario, SimulatedProcess, Simulation, scenario


class Leading(Contest):
    """Leaders exclude each other, their tokens rise, and observers see them in that order."""

    prefix = "election/"
    ttl = 4.0
    seconds = 12.0
    rate = 3.0

    def __init__(self, simulation: Simulation, *, operator: bool | None = None) -> None:
        super().__init__(simulation, operator=operator)
        self.observed: list[Leader | None] = []
        self.candidates: list[str] = []
        observer = simulation.process(ttl=self.ttl)
        self.observer = observer.start(self._observe(observer))

    async def _observe(self, process: SimulatedProcess) -> None:
        async with election_of(process.client).observe() as leaders:
            async for leader in leaders:
                self.observed.append(leader)

    def restart(self, dead: SimulatedProcess) -> None:
        if dead not in self.workers.values():  # the observer
            process = self.simulation.process(ttl=self.ttl)
            self.observed.clear()
            self.observer = process.start(self._observe(process))
        else:
            super().restart(dead)

    def turn_of(self, process: SimulatedProcess, number: int) -> Callable[[float | None], Any]:
        priority = self.random.choice([0, 0, 1])
        election = election_of(process.client, candidate_id=f"{process.name}-{number}", priority=priority)
        self.candidates.append(election.candidate_id)
        return lambda timeout: self._lead(process, election, timeout)

    async def turn(self, process: SimulatedProcess, timeout: float | None) -> None:
        raise NotImplementedError

    async def _lead(self, process: SimulatedProcess, election: LeaderElection, timeout: float | None) -> None:
        term = await election.campaign(timeout)
        with self.holding(term, process):
            async with term:
                for _ in range(self.random.randint(0, 2)):
                    await asyncio.sleep(self.while_held())
                    await term.commit([Put("resource", b"%d" % term.token)])
                    await self._something(term)

    async def _something(self, term: Term) -> None:
        if self.random.random() < 0.3:
            await term.proclaim({"token": term.token})
        if self.random.random() < 0.5 and not self.simulation.over:
            await self._transfer(term)

    async def _transfer(self, term: Term) -> None:
        try:
            await term.transfer(self.random.choice(self.candidates))
        except CoordinationError:
            term.check()  # it is ours all the same
        else:
            self.seen["transferred"] += 1
        await asyncio.sleep(self.random.uniform(0, 0.2))
        term.check()

    async def end(self) -> None:
        """Everybody who lives leads once more; what is left goes before any session ends."""
        _, waiting = await asyncio.wait(self.workers, timeout=15 * self.ttl)
        assert not waiting, f"{len(waiting)} of {len(self.workers)} still wait: {self.simulation.keys(self.prefix)}"
        await asyncio.sleep(4 * self.ttl)
        left = [key for key in self.simulation.keys(self.prefix) if not self._may_stay(key)]
        assert not left, f"left before any session ended: {left}"
        self.observer.cancel()
        await asyncio.wait([self.observer])
        tokens = [leader.token for leader in self.observed if leader is not None]
        assert tokens == sorted(tokens), f"leaders were seen in another order: {self.observed}"
        assert self.observed[-1] is None
        await super().end()

    def _may_stay(self, key: str) -> bool:
        """What was proclaimed, until its session ends: an operator took `leader` alone, when answers were lost."""
        return self.operator and key.startswith("election/e/said/")


@scenario(often={**OFTEN, "transferred": 0.4})
async def election(simulation: Simulation) -> None:
    await Leading(simulation).run(simulation.random.randint(2, 4))


@pytest.mark.timeout(900)
def test_whatever_happens(osdisco_simulate: Callable[[Scenario], None]) -> None:
    osdisco_simulate(election)
