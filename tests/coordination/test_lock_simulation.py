"""Many processes, many faults, many seeds: what must hold of the mutex whatever happens, and that it goes on after it.

A failure shows its seed; `--osdisco-seed=N` runs that one alone, and `OSDISCO_TEST_SEEDS` sets how many there are.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import pytest
from worlds import NAMESPACE, World

from osdisco.backend import Condition, Delete, Op, Put
from osdisco.client import Client
from osdisco.coordination import CoordinationService, LockGuard
from osdisco.errors import OsdiscoError
from osdisco.testing import run

SEEDS = int(os.environ.get("OSDISCO_TEST_SEEDS", "100"))
CHAOS = 8.0
"""Seconds of faults, then there are none."""
TTL = 3.0
RESOURCE = f"{NAMESPACE}/resource"


class Simulation:
    """One run. With `operator`, leases and entries are also removed by hand."""

    def __init__(self, seed: int, operator: bool, seen: Counter[str], processes: int | None = None) -> None:
        self.world = World(seed=seed, ttl=TTL)
        self.random = self.world.random
        self.operator = operator
        self.seen = seen
        self.processes = processes or self.random.randint(2, 4)
        self.tokens: list[int] = []
        self.written: list[int] = []
        self.holders: set[LockGuard] = set()
        self.workers: dict[asyncio.Task[None], Client] = {}
        self.dead: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        self.world.store.faults.conflate = self.random.random() < 0.5
        self.world.store.faults.expiry_factor = self.random.choice([None, 1.5, 2.0])
        self._record_writes()
        for _ in range(self.processes):
            self._start_process()
        while self.world.clock.now() < CHAOS:
            await asyncio.sleep(self.random.expovariate(4))
            self.random.choice(self._troubles())()
        await self._end()

    def _record_writes(self) -> None:
        commit = self.world.store.commit

        def recording(ops: Sequence[Op], expect: Mapping[str, Condition]) -> Mapping[str, int]:
            revisions = commit(ops, expect)
            self.written += [int(op.value) for op in ops if isinstance(op, Put) and op.key == RESOURCE]
            return revisions

        self.world.store.commit = recording

    def _start_process(self) -> None:
        client = self.world.process(timeout=2)
        for _ in range(self.random.randint(1, 2)):
            self.workers[asyncio.ensure_future(self._work(client))] = client

    async def _work(self, client: Client) -> None:
        """Take turns until the faults are over, and then once more."""
        last = False
        while not last:
            last = self.world.clock.now() >= CHAOS
            timeout = None if last else self.random.choice([None, None, 1.0, 6.0])
            turn = asyncio.ensure_future(self._turn(client, timeout))
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

    async def _turn(self, client: Client, timeout: float | None) -> None:
        lock = CoordinationService(client).lock("job")
        if self.random.random() < 0.2:
            guard = await lock.try_acquire()
            if guard is None:
                return
        else:
            guard = await lock.acquire(timeout=timeout)
        self._acquired(guard)
        try:
            async with guard:
                for _ in range(self.random.randint(0, 2)):
                    await asyncio.sleep(self.random.uniform(0, 1))
                    await guard.commit([Put("resource", b"%d" % guard.token)])
        finally:
            self.holders.discard(guard)

    def _acquired(self, guard: LockGuard) -> None:
        self.seen["acquired"] += 1
        if not self.operator:  # else both may believe in it until the watch tells
            believing = [other for other in self.holders if _believes(other)]
            assert not believing, f"{guard} while {believing}"
            assert not self.tokens or guard.token > self.tokens[-1], f"{guard} after {self.tokens[-1]}"
        self.tokens.append(guard.token)
        self.holders.add(guard)

    def _troubles(self) -> list[Callable[[], None]]:
        mine = [self._lose_answer, self._lose_answer, self._come_late, self._delay, self._cut_off, self._kill]
        return mine + [self._end_lease, self._remove_entry] * self.operator

    def _some(self) -> Client:
        return self.random.choice(list(self.workers.values()))

    def _lose_answer(self) -> None:
        faults = self._some().backend.faults
        self.random.choice([faults.drop, faults.drop_answer])("commit", times=self.random.randint(1, 3))
        self.seen["lost answers"] += 1

    def _come_late(self) -> None:
        self._some().backend.faults.late("commit", after=self.random.uniform(0, 2 * TTL), times=1, key="lock/")
        self.seen["late"] += 1

    def _delay(self) -> None:
        seconds = self.random.uniform(0, 2)
        back = self.random.uniform(0, 2)
        self._some().backend.faults.delay(request=seconds, answer=back, times=self.random.randint(1, 10))

    def _cut_off(self) -> None:
        faults = self._some().backend.faults
        rule = faults.outage(*self.random.choice([(), ("renew",), ("watch",), ("scan",), ("commit",)]))
        asyncio.get_running_loop().call_later(self.random.uniform(0, 1.5 * TTL), rule.end)
        self.seen["cut off"] += 1

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

    def _remove_entry(self) -> None:
        entries = self.world.keys("lock/")
        if entries:
            self.world.store.commit([Delete(f"{NAMESPACE}/{self.random.choice(entries)}")], {})
            self.seen["entry removed"] += 1

    async def _end(self) -> None:
        """Everybody who lives gets a turn, and nothing stays."""
        for client in self.workers.values():
            client.backend.faults.clear()
        done, waiting = await asyncio.wait(self.workers, timeout=10 * TTL + 3 * len(self.workers))
        assert not waiting, f"{len(waiting)} of {len(self.workers)} still wait: {self.world.keys('lock/')}"
        for task in done:
            task.result()
        assert self.written == sorted(self.written), f"an older holder wrote after a newer one: {self.written}"
        await self.world.aclose()
        await asyncio.sleep(3 * TTL)
        assert not self.world.keys("lock/") + self.world.keys("x/")
        await asyncio.gather(*self.dead, return_exceptions=True)


async def _simulate(seed: int, operator: bool, seen: Counter[str], processes: int | None = None) -> None:
    await Simulation(seed, operator, seen, processes).run()


def _believes(guard: LockGuard) -> bool:
    try:
        guard.check()
    except OsdiscoError:
        return False
    return True


OFTEN = {"acquired": 8, "cancelled": 3, "lost answers": 5, "late": 2, "cut off": 2, "killed": 1, "LostError": 0.5}
"""What must have happened in a seed on average for the run to mean something."""


@pytest.mark.parametrize("operator", [False, True])
def test_whatever_happens(operator: bool, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "osdisco")
    one = request.config.getoption("--osdisco-seed")
    seen: Counter[str] = Counter()
    for seed in range(SEEDS) if one is None else [one]:
        run(_simulate(seed, operator, seen), seed=seed, limit=10_000)
    assert one is not None or all(seen[what] >= SEEDS * often for what, often in OFTEN.items()), seen


def test_a_hundred_acquirers_with_random_kills(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "osdisco")
    seen: Counter[str] = Counter()
    run(_simulate(1, True, seen, processes=70), seed=1, limit=10_000)
    assert seen["acquired"] >= 100, seen
    assert seen["killed"] >= 1, seen
