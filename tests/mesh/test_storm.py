"""A hundred processes call a hundred endpoints, of which many or all get into trouble: it gets no worse by the calls.

One seed for each test, in virtual time. What makes the difference is switched off, too, so that its lack is seen.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from mesh_storm import Storm

from osdisco.discovery import ExtensionStatus
from osdisco.mesh import BreakerState, PoolSettings, RetryBudget, RetryPolicy
from osdisco.testing import Simulation, run_seed

BLIND = RetryPolicy(budget=RetryBudget(failures=10**9))
ENDLESS = RetryPolicy(budget=RetryBudget(share=10, per_second=1000, failures=10**9))


class Crowd(Storm):
    """So many processes that call, so many that serve at ten addresses each, and no trouble but what a test makes."""

    def __init__(self, simulation: Simulation, servers: int = 10, callers: int = 100, each: int = 10, **options: Any):
        super().__init__(simulation, **options)
        self._size = servers, each, callers

    async def begin(self) -> None:
        self.simulation.over = True  # no weather but what a test makes
        servers, each, callers = self._size
        for _ in range(servers):
            self.serve(each)
        await self.served(servers * each)
        for _ in range(callers):
            self.call(self.caller())
        await self.all_back(10)
        await asyncio.sleep(1)
        for caller in self.callers:
            assert len(caller.pool.states) == servers * each

    async def served(self, count: int) -> None:
        """Wait until there are so many endpoints."""
        while len(self.registrations) < count:
            await asyncio.sleep(0.1)

    async def all_see(self, count: int) -> None:
        """Wait until each process that calls sees so many endpoints, and that this is so now."""
        async with asyncio.timeout(10):
            for caller in self.callers:
                view = caller.process.ask(lambda caller=caller: caller.mesh.services["geo"].view)
                while view.stale or len(view) != count:
                    await asyncio.sleep(0.1)

    def forget(self) -> None:
        """Count from now on."""
        self.wire.sent.clear()
        for caller in self.callers:
            caller.results.clear()
            caller.tasks.clear()

    def attempts(self) -> float:
        """Return how many attempts there were for each call."""
        return len(self.wire.sent) / sum(len(caller.results) for caller in self.callers)

    def failed(self) -> float:
        """Return the share of calls that failed."""
        results = [error for caller in self.callers for error in caller.results]
        return sum(error is not None for error in results) / len(results)

    def busiest(self, seconds: float = 1.0) -> float:
        """Return the most calls that came to one endpoint in such a time, against the mean of all that got any."""
        counts = Counter((one.to, int(one.at / seconds)) for one in self.wire.sent)
        span = (self.wire.sent[-1].at - self.wire.sent[0].at) / seconds
        return max(counts.values()) / (len(self.wire.sent) / span / len({one.to for one in self.wire.sent}))

    def check_asked_once(self) -> None:
        """No call asks an endpoint twice while there are others."""
        asked = Counter((one.call, one.to) for one in self.wire.sent)
        assert max(asked.values()) == 1


def run(play: Callable[[Crowd], Awaitable[None]], seed: int, **options: Any) -> None:
    async def played(simulation: Simulation) -> None:
        crowd = Crowd(simulation, **options)
        await play(crowd)
        await crowd.all_back(10)
        crowd.check_ejected()
        crowd.check_nothing_left()
        await crowd.end()

    run_seed(played, seed)


async def nothing_succeeds(crowd: Crowd, seconds: float) -> None:
    await crowd.begin()
    for site in crowd.sites():
        site.fails = 1.0
    crowd.forget()
    await crowd.load(seconds, 5)
    await crowd.all_back(5)
    crowd.check_asked_once()


def test_when_nothing_succeeds_there_are_hardly_more_attempts_than_calls_and_no_herd_after_it(seed: int) -> None:
    async def play(crowd: Crowd) -> None:
        await nothing_succeeds(crowd, 18)
        assert crowd.attempts() <= 1.2
        crowd.wire.heal()
        crowd.forget()
        await crowd.load(3, 4)
        await crowd.all_back(5)
        assert crowd.failed() == 0
        assert crowd.busiest() < 5

    run(play, seed)


@pytest.mark.parametrize("policy", [BLIND, ENDLESS])
def test_it_is_a_storm_if_retries_do_not_end_when_nothing_succeeds(policy: RetryPolicy, seed: int) -> None:
    async def play(crowd: Crowd) -> None:
        await nothing_succeeds(crowd, 6)
        assert crowd.attempts() > 2.5

    run(play, seed, callers=20, retry_policies=policy)


def test_with_a_third_in_trouble_and_no_store_hardly_a_call_is_lost_and_who_comes_back_is_not_run_over(
    seed: int,
) -> None:
    async def play(crowd: Crowd) -> None:
        await crowd.begin()
        crowd.forget()
        outages = [process.faults.outage() for process in crowd.simulation.living]
        dead, slow, broken = crowd.servers[:3]
        dead.kill()
        crowd.wire.lose(dead)
        for site in crowd.wire.of(slow):
            site.slow = 20.0
        for site in crowd.wire.of(broken):
            site.fails = 1.0
        await crowd.load(10, 2)
        await crowd.all_back(5)
        crowd.check_asked_once()
        crowd.check_ejected()
        assert crowd.failed() < 0.02
        assert crowd.attempts() <= 1.3
        await asyncio.sleep(50)
        for rule in outages:
            rule.end()
        crowd.wire.heal()
        crowd.serve(10)
        await crowd.served(110)
        crowd.forget()
        await crowd.load(2, 4)  # a part still sees the dead: who looks for the store again does so after 5 s at most
        await crowd.all_back(5)
        assert crowd.failed() < 0.02
        assert crowd.busiest() < 5
        await crowd.all_see(100)
        crowd.forget()
        await crowd.load(3, 4)
        await crowd.all_back(5)
        assert crowd.failed() == 0
        assert crowd.busiest() < 5

    run(play, seed)


@pytest.mark.parametrize(("panic", "least", "most"), [(0.5, 0.3, 0.5), (0.0, 1.0, 1.0)])
def test_in_a_panic_the_few_who_are_fit_do_not_get_the_calls_of_all(
    panic: float, least: float, most: float, seed: int
) -> None:
    async def play(crowd: Crowd) -> None:
        await crowd.begin()
        for process, registration in crowd.registrations[:60]:
            await process.call(registration.set_status(ExtensionStatus.UNHEALTHY))
        await asyncio.sleep(1)
        crowd.forget()
        await crowd.load(2, 5)
        await crowd.all_back(5)
        fit = {registration.endpoint.address for _, registration in crowd.registrations[60:]}
        share = sum(one.to in fit for one in crowd.wire.sent) / len(crowd.wire.sent)
        assert least <= share <= most

    run(play, seed, callers=20, pool=PoolSettings(panic=panic))


def test_who_may_be_well_again_is_tried_by_a_few_calls_of_each_caller(seed: int) -> None:
    async def play(crowd: Crowd) -> None:
        await crowd.begin()
        bad = crowd.sites()[0]
        bad.fails = 1.0
        await crowd.load(3, 40)  # each of them must have failed there often enough to judge
        assert _state_of(crowd, bad.address) == {BreakerState.OPEN}
        bad.heal()
        bad.silent = True
        crowd.forget()
        await crowd.load(13, 20)
        tries = Counter(one.by for one in crowd.wire.sent if one.to == bad.address)
        assert max(tries.values()) <= 3
        assert len(tries) == len(crowd.callers)

    run(play, seed, servers=1, each=4, callers=5, pool=PoolSettings(outliers=None))


def _state_of(crowd: Crowd, address: str) -> set[BreakerState]:
    states = [state for caller in crowd.callers for state in caller.pool.states.values()]
    return {state.breaker.state for state in states if state.endpoint.address == address and state.breaker is not None}
