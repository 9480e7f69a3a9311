"""Many candidates, many faults, many seeds: what must hold of elections whatever happens, and that they go on after it.

A failure shows its seed; `--osdisco-seed=N` runs that one alone, and `OSDISCO_TEST_SEEDS` sets how many there are.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import pytest
from elections import election_of
from worlds import NAMESPACE, World

from osdisco.backend import Condition, Delete, Op, Put
from osdisco.client import Client
from osdisco.coordination import Leader, LeaderElection, Term
from osdisco.errors import CoordinationError, OsdiscoError
from osdisco.testing import run

SEEDS = int(os.environ.get("OSDISCO_TEST_SEEDS", "100"))
CHAOS = 12.0
"""Seconds of faults, then there are none."""
TTL = 4.0
RESOURCE = f"{NAMESPACE}/resource"


class Simulation:
    """One run. With `operator`, leases and keys of the election are also removed by hand."""

    def __init__(self, seed: int, operator: bool, seen: Counter[str]) -> None:
        self.world = World(seed=seed, ttl=TTL)
        self.random = self.world.random
        self.operator = operator
        self.seen = seen
        self.tokens: list[int] = []
        self.written: list[int] = []
        self.observed: list[Leader | None] = []
        self.terms: set[Term] = set()
        self.workers: dict[asyncio.Task[None], Client] = {}
        self.dead: list[asyncio.Task[None]] = []
        self.candidates: list[str] = []

    async def run(self) -> None:
        self.world.store.faults.conflate = self.random.random() < 0.5
        self.world.store.faults.expiry_factor = self.random.choice([None, 1.5, 2.0])
        self._record_writes()
        observer = asyncio.ensure_future(self._observe(self.world.process()))
        for _ in range(self.random.randint(2, 4)):
            self._start_process()
        while self.world.clock.now() < CHAOS:
            await asyncio.sleep(self.random.expovariate(3))
            self.random.choice(self._troubles())()
        await self._end(observer)

    def _record_writes(self) -> None:
        commit = self.world.store.commit

        def recording(ops: Sequence[Op], expect: Mapping[str, Condition]) -> Mapping[str, int]:
            revisions = commit(ops, expect)
            self.written += [int(op.value) for op in ops if isinstance(op, Put) and op.key == RESOURCE]
            return revisions

        self.world.store.commit = recording

    async def _observe(self, client: Client) -> None:
        async with election_of(client).observe() as leaders:
            async for leader in leaders:
                self.observed.append(leader)

    def _start_process(self) -> None:
        client = self.world.process(timeout=2)
        for number in range(self.random.randint(1, 2)):
            priority = self.random.choice([0, 0, 1])
            election = election_of(client, candidate_id=f"{client.runtime.name}-{number}", priority=priority)
            self.candidates.append(election.candidate_id)
            self.workers[asyncio.ensure_future(self._work(election))] = client

    async def _work(self, election: LeaderElection) -> None:
        """Lead now and then until the faults are over, and then once more."""
        last = False
        while not last:
            last = self.world.clock.now() >= CHAOS
            timeout = None if last else self.random.choice([None, None, 1.0, 6.0])
            turn = asyncio.ensure_future(self._turn(election, timeout))
            canceller = asyncio.get_running_loop().call_later(self.random.uniform(0, 5), turn.cancel)
            if last or self.random.random() < 0.7:
                canceller.cancel()
            try:
                await turn
            except OsdiscoError as exc:
                self.seen[type(exc).__name__] += 1
                last = False
                await asyncio.sleep(self.random.uniform(0, 1))
            except asyncio.CancelledError:
                self.seen["cancelled"] += 1
                if asyncio.current_task().cancelling():
                    turn.cancel()
                    await asyncio.wait([turn])
                    raise
            finally:
                canceller.cancel()

    async def _turn(self, election: LeaderElection, timeout: float | None) -> None:
        term = await election.campaign(timeout)
        self._acquired(term)
        try:
            async with term:
                for _ in range(self.random.randint(0, 2)):
                    await asyncio.sleep(self.random.uniform(0, 1))
                    await term.commit([Put("resource", b"%d" % term.token)])
                    await self._something(term)
        finally:
            self.terms.discard(term)

    async def _something(self, term: Term) -> None:
        if self.random.random() < 0.3:
            await term.proclaim({"token": term.token})
        if self.random.random() < 0.5 and self.world.clock.now() < CHAOS:
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

    def _acquired(self, term: Term) -> None:
        self.seen["acquired"] += 1
        if not self.operator:  # else both may believe in it until the watch tells
            believing = [other for other in self.terms if other.leading]
            assert not believing, f"{term} while {believing}"
        assert term.token not in self.tokens, f"{term} for the second time"
        if not self.operator:
            assert not self.tokens or term.token > self.tokens[-1], f"{term} after {self.tokens[-1]}"
        self.tokens.append(term.token)
        self.terms.add(term)

    def _troubles(self) -> list[Callable[[], None]]:
        mine = [self._lose_answer, self._lose_answer, self._come_late, self._delay, self._cut_off, self._kill]
        return [*mine, self._resync] + [self._end_lease, self._remove_key] * self.operator

    def _some(self) -> Client:
        return self.random.choice(list(self.workers.values()))

    def _lose_answer(self) -> None:
        faults = self._some().backend.faults
        self.random.choice([faults.drop, faults.drop_answer])("commit", times=self.random.randint(1, 3))
        self.seen["lost answers"] += 1

    def _come_late(self) -> None:
        self._some().backend.faults.late("commit", after=self.random.uniform(0, 2 * TTL), times=1, key="election/")
        self.seen["late"] += 1

    def _delay(self) -> None:
        seconds = self.random.uniform(0, 2)
        back = self.random.uniform(0, 2)
        self._some().backend.faults.delay(request=seconds, answer=back, times=self.random.randint(1, 10))

    def _cut_off(self) -> None:
        faults = self._some().backend.faults
        rule = faults.outage(*self.random.choice([(), ("renew",), ("watch",), ("get",), ("commit",)]))
        asyncio.get_running_loop().call_later(self.random.uniform(0, 1.5 * TTL), rule.end)
        self.seen["cut off"] += 1

    def _resync(self) -> None:
        self.world.store.faults.compact()
        self.world.store.faults.resync()

    def _kill(self) -> None:
        """The process ends, and another one starts."""
        if self.random.random() < 0.5:
            return
        client = self._some()
        self.world.kill(client)
        for task in [task for task, its in self.workers.items() if its is client]:
            del self.workers[task]
            task.cancel()
            self.dead.append(task)
        self._start_process()
        self.seen["killed"] += 1

    def _end_lease(self) -> None:
        session = self._some()._sessions._shared
        if session is not None and self.world.store.faults.end_lease(session.id):
            self.seen["lease ended"] += 1

    def _remove_key(self) -> None:
        keys = self.world.keys("election/")
        if keys:
            self.world.store.commit([Delete(f"{NAMESPACE}/{self.random.choice(keys)}")], {})
            self.seen["key removed"] += 1

    async def _end(self, observer: asyncio.Task[None]) -> None:
        """Everybody who lives leads once more, and nothing stays."""
        for client in self.workers.values():
            client.backend.faults.clear()
        done, waiting = await asyncio.wait(self.workers, timeout=10 * TTL)
        assert not waiting, f"{len(waiting)} of {len(self.workers)} still wait: {self.world.keys('election/')}"
        for task in done:
            task.result()
        assert self.written == sorted(self.written), f"an older leader wrote after a newer one: {self.written}"
        await asyncio.sleep(3 * TTL)
        assert not [key for key in self.world.keys("election/") if not self._may_stay(key)], "before any session ended"
        observer.cancel()
        await asyncio.wait([observer])
        self._check_observed()
        await self.world.aclose()
        assert not self.world.keys("election/") + self.world.keys("x/")
        await asyncio.gather(*self.dead, return_exceptions=True)

    def _may_stay(self, key: str) -> bool:
        """What was proclaimed, until its session ends: an operator took `leader` alone, when answers were lost."""
        return self.operator and key.startswith("election/e/said/")

    def _check_observed(self) -> None:
        tokens = [leader.token for leader in self.observed if leader is not None]
        assert tokens == sorted(tokens), f"leaders were seen in another order: {self.observed}"
        assert self.observed[-1] is None


async def _simulate(seed: int, operator: bool, seen: Counter[str]) -> None:
    await Simulation(seed, operator, seen).run()


OFTEN = {
    "acquired": 8,
    "cancelled": 3,
    "lost answers": 5,
    "late": 1.5,
    "cut off": 2,
    "killed": 1,
    "LostError": 0.5,
    "transferred": 0.5,
}
"""What must have happened in a seed on average for the run to mean something."""


@pytest.mark.parametrize("operator", [False, True])
def test_whatever_happens(operator: bool, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "osdisco")
    one = request.config.getoption("--osdisco-seed")
    seen: Counter[str] = Counter()
    for seed in range(SEEDS) if one is None else [one]:
        run(_simulate(seed, operator, seen), seed=seed, limit=10_000)
    assert one is not None or all(seen[what] >= SEEDS * often for what, often in OFTEN.items()), seen
