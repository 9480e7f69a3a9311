"""What must hold of requests, watches and sessions while something goes wrong on their way."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import TypeVar

from attrs import define, field
from network import LATE, OWN_DEADLINE, SILENCE, TIMEOUT, TROUBLE, TTL, Fault, Ways

from osdisco.errors import IndeterminateError, OsdiscoError
from osdisco.session import Session, SessionState
from osdisco.testing import ChaosProxy
from osdisco.testing.histories import Outcome
from osdisco.testing.traffic import Traffic, Watcher
from osdisco.testing.watched import Log

T = TypeVar("T")

WORKERS = ("w1", "w2", "w3")
"""Those on the way that is struck; w0 is on the clean one."""

_NUMBERS = count()


@define
class Case:
    """Requests, a watch and a session on one store, each by a client of its own, and what is wrong with them.

    Attributes:
        unsafe: what must never be, however busy the machine is.
        slow: what came too late, or not in the time that it had.
        late: seconds by which the machine itself was late at most.
    """

    ways: Ways
    fault: Fault
    seed: int
    unsafe: list[str] = field(factory=list)
    slow: list[str] = field(factory=list)
    late: float = 0.0
    traffic: Traffic = field(init=False)
    log: Watcher = field(init=False)
    session: Session = field(init=False)
    struck: float = field(init=False, default=0.0)
    healed: float = field(init=False, default=0.0)
    mine: str = field(init=False, default="")
    _tasks: list[asyncio.Task[None]] = field(init=False, factory=list)

    @property
    def now(self) -> float:
        """On the clock of all deadlines."""
        return self.ways.clean.runtime.clock.now()

    @property
    def goes_on(self) -> bool:
        """Whether all must go on, by another endpoint if need be."""
        return self.fault.goes_on or self.ways.good is not None

    @property
    def severed(self) -> bool:
        """Whether there is no way left, so that the session must be lost."""
        return self.fault.severs and self.ways.good is None

    @property
    def wrong(self) -> list[str]:
        """All that was."""
        return self.unsafe + self.slow

    async def run(self) -> None:
        """Let it go well, break something, mend it, and note what was wrong."""
        number = next(_NUMBERS)
        self.mine = f"mine/{number}"
        self.traffic = Traffic(random.Random(self.seed), prefix=f"{number}/", keys=3, pause=self.fault.pause)
        self.log = self.traffic.watcher(self.ways.clean)
        self.session = await (await self.ways.client()).session()
        await self.session.put(self.mine, b"")
        clients = {"w0": self.ways.clean, **{who: await self.ways.client() for who in WORKERS}}
        watcher = self.traffic.watcher(await self.ways.client())
        self._tasks += [asyncio.create_task(one.watch()) for one in self.traffic.watchers]
        self._tasks.append(asyncio.create_task(self._look_at_the_machine()))
        try:
            async with asyncio.timeout(5):
                while not all(one.frames for one in self.traffic.watchers):
                    await asyncio.sleep(0.01)
            workers = [asyncio.create_task(self.traffic.work(to, who), name=who) for who, to in clients.items()]
            self._tasks += workers
            await asyncio.sleep(0.4)
            await self._trouble(watcher)
            self.healed = self.now
            await self._act(self.fault.heal)
            self.traffic.over = True
            await self._end(workers)
            await self._settle()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        self._requests()

    async def _act(self, act: Callable[[ChaosProxy], object]) -> None:
        done = act(self.ways.bad)
        if inspect.isawaitable(done):
            await done

    async def _look_at_the_machine(self) -> None:
        """Measure how late it is by itself: this process, and the server on the way on which there is no trouble."""
        while True:
            asked = self.now
            if self.fault.reachable:
                with suppress(OsdiscoError):
                    await self.ways.clean.get("clean")
            answered = self.now
            await asyncio.sleep(0.02)
            self.late = max(self.late, answered - asked, self.now - answered - 0.02)

    async def _trouble(self, watcher: Watcher) -> None:
        losing = asyncio.create_task(self._lost())
        self._tasks.append(losing)  # type: ignore[arg-type]
        await self._act(self.fault.strike)
        self.struck = self.now
        seeing = asyncio.create_task(self._seen_again(watcher))
        self._tasks.append(seeing)  # type: ignore[arg-type]
        await asyncio.sleep(TROUBLE)
        seen, lost = await by_now(seeing), await by_now(losing)
        if self.goes_on and not self.fault.trickles and (seen is None or seen > SILENCE + 1):
            self.slow.append(f"what was written in the trouble was seen after {seen} s, not {SILENCE}")
        if self.severed:
            self._must_be_lost(lost)

    def _must_be_lost(self, lost: float | None) -> None:
        last = self.struck + OWN_DEADLINE
        if self.session.deadline > last:
            self.unsafe.append(f"the session's deadline is {self.session.deadline - last:.2f} s too late")
        if lost is None:
            self.slow.append(f"the session was not lost in {TROUBLE} s, although no renewal can have come through")
        elif lost > last + LATE:
            self.slow.append(f"the session was lost {lost - self.struck:.2f} s after the last renewal could be sent")

    async def _seen_again(self, watcher: Watcher) -> float:
        """Return after how many seconds the watch showed what the clean client wrote after the strike."""
        while True:
            shown = {item.value for frame in watcher.frames for item in getattr(frame, "puts", ())}
            shown |= {item.value for item in watcher.items.values()}
            for one in self.traffic.history.operations:
                if one.who == "w0" and one.begin > self.struck + 0.1 and one.value in shown:
                    return self.now - self.struck
            await asyncio.sleep(0.02)

    async def _lost(self) -> float:
        """Return when the session was lost; look whether the store holds its key until then."""
        while not self.session.lost.is_set():
            if self.fault.reachable and await self.ways.clean.get(self.mine) is None and self.session.valid:
                self.unsafe.append("the store gave away the session's key before the session was lost")
            with suppress(TimeoutError):
                await asyncio.wait_for(self.session.lost.wait(), 0.05)
        lost, deadline = self.now, self.session.deadline
        if lost > deadline + LATE:
            self.slow.append(f"the session was lost {lost - deadline:.2f} s after its own deadline")
        return lost

    async def _end(self, workers: list[asyncio.Task[None]]) -> None:
        """Wait for those who ask; the last request of each has its timeout and no more."""
        ended, hanging = await asyncio.wait(workers, timeout=TIMEOUT + LATE)
        for worker in ended:
            worker.result()
        self.slow += [f"a request of {worker.get_name()} did not end in its timeout" for worker in hanging]

    async def _settle(self) -> None:
        """Everybody must come to see the same, and sessions that are not lost must go on."""
        try:
            await self.traffic.settle(self.ways.clean, seconds=15)
        except TimeoutError:
            self.slow.append("15 s after the trouble not all watches show what is in the store")
        deadline = self.now + 2 * TTL
        while self.session.state is SessionState.SUSPENDED and self.now < deadline:
            await asyncio.sleep(0.02)
        if self.session.state is SessionState.LOST:
            if self.goes_on:
                self.slow.append(f"the session was lost, although there was another way: {self.session.lost.reason}")
        elif self.session.state is not SessionState.CONNECTED:
            self.slow.append(f"{2 * TTL} s after the trouble the session is {self.session.state}")
        else:
            with suppress(IndeterminateError):  # where the connection is dead, and nobody knew
                await self.session.put(self.mine, b"still")

    def _requests(self) -> None:
        conflates = self.ways.clean.limits.conflates
        self.unsafe += self.traffic.problems(None if conflates else Log(self.log.frames))
        begun = self.struck if self.fault.harmless else self.struck + TIMEOUT + LATE  # or it finds its way first
        answered: Counter[str] = Counter()
        for one in self.traffic.history.operations:
            if one.end - one.begin > TIMEOUT + LATE and one.who in WORKERS:
                self.slow.append(f"took longer than its timeout: {one}")
            done = one.outcome in (Outcome.DONE, Outcome.REFUSED)
            answered[one.who] += done and begun < one.begin < self.healed
        if self.goes_on:
            self.slow += [f"no request of {who} was answered in the trouble" for who in WORKERS if not answered[who]]


async def by_now(task: asyncio.Task[T]) -> T | None:
    """End a task, and return its result if it has one already. Raises what it failed by."""
    task.cancel()
    await asyncio.wait([task])
    return None if task.cancelled() else task.result()


async def undisturbed(there: Ways, fault: Fault, seed: int) -> Case:
    """Run a case, and once more when it was slow on a machine that stood still. What is unsafe is never excused."""
    for _ in range(4):
        case = Case(there, fault, seed)
        await case.run()
        if case.unsafe or not case.slow or case.late < LATE / 2:
            return case
        there.bad.cut()
    case.slow.insert(0, f"the machine was {case.late:.2f} s late again and again, with other things to do")
    return case
