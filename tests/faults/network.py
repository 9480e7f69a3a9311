"""What goes wrong between a client and an endpoint, and what must hold of requests, watches and sessions meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from itertools import count
from typing import Final

import pytest
from attrs import define, field, frozen

import osdisco
from osdisco.client import Client
from osdisco.errors import IndeterminateError, OsdiscoError
from osdisco.runtime import CredentialProvider
from osdisco.session import Session, SessionState
from osdisco.testing import ChaosProxy
from osdisco.testing.histories import Outcome
from osdisco.testing.traffic import Traffic, Watcher
from osdisco.testing.watched import Log

_NUMBERS = count()

STORES = ("etcd", "etcd+http", "consul")

TTL: Final = 3.0
TIMEOUT: Final = 1.0
OWN_DEADLINE: Final = 0.99 * TTL - min(1.0, TTL / 10)
"""Seconds from the sending of the last good renewal on, after which a session is lost."""
TROUBLE: Final = OWN_DEADLINE + 0.5
"""Seconds that trouble lasts: who has not found another way by then has lost its session."""
LATE: Final = 0.4
"""Seconds by which a busy machine may be late."""
SILENCE: Final = 1.5
"""Seconds after which watches of these tests take silence for trouble, instead of 12 to 15."""


@frozen
class Fault:
    """One kind of trouble.

    `harmless` is what everything goes on through. What `trickles` is no silence: a watch may stay with it.
    """

    name: str
    strike: Callable[[ChaosProxy], object]
    classes: tuple[str, ...]
    harmless: bool = False
    trickles: bool = False
    pause: float = 0.03


def _gone(proxy: ChaosProxy) -> None:
    proxy.refuse()
    proxy.reset()


def _hung(proxy: ChaosProxy) -> None:
    proxy.hang()
    proxy.cut()


def _slow(proxy: ChaosProxy) -> None:
    proxy.to_client.bandwidth = 100


def _late(proxy: ChaosProxy) -> None:
    proxy.to_client.delay = 1.5 * TIMEOUT


def _unsteady(proxy: ChaosProxy) -> None:
    proxy.to_server.jitter = proxy.to_client.jitter = 0.05


def _bytes(proxy: ChaosProxy) -> None:
    proxy.to_server.slice_size = proxy.to_client.slice_size = 1


def _answers_break_off(proxy: ChaosProxy) -> None:
    proxy.to_client.cut_after = 60


def _requests_break_off(proxy: ChaosProxy) -> None:
    proxy.to_server.cut_after = 120


FAULTS = [
    Fault("gone", _gone, ("F17",)),
    Fault("held", ChaosProxy.hold, ("F14",)),
    Fault("swallowed", ChaosProxy.blackhole, ("F14",)),
    Fault("answers swallowed", lambda proxy: proxy.to_client.blackhole(), ("F16",)),
    Fault("answers held", lambda proxy: proxy.to_client.hold(), ("F16",)),
    Fault("requests held", lambda proxy: proxy.to_server.hold(), ("F14",)),
    Fault("cut", ChaosProxy.cut, ("F17",)),
    Fault("reset", ChaosProxy.reset, ("F17",)),
    Fault("server gone unheard", lambda proxy: proxy.half_open("server"), ("F17",)),
    Fault("client gone unheard", lambda proxy: proxy.half_open("client"), ("F17",)),
    Fault("hung", _hung, ("F14",)),
    Fault("answers break off", _answers_break_off, ("F16", "F17")),
    Fault("requests break off", _requests_break_off, ("F17",)),
    Fault("slow", _slow, ("F10", "F18"), trickles=True),
    Fault("late", _late, ("F18",)),
    Fault("unsteady", _unsteady, ("F18",), harmless=True),
    Fault("byte by byte", _bytes, ("F18",), harmless=True, trickles=True, pause=0.3),
]


def marked(faults: Iterator[Fault] | list[Fault]) -> list[object]:
    """Return faults as parameters of tests that hold them on every store."""
    return [
        pytest.param(fault, id=fault.name.replace(" ", "-"), marks=pytest.mark.fault(*fault.classes, on=STORES))
        for fault in faults
    ]


def impatient(patch: pytest.MonkeyPatch) -> None:
    """Let watches take silence for trouble sooner; how long they really wait is seen in test_silence.py."""
    patch.setattr("osdisco_etcd._watch.PATIENCE", 2 / 3 * SILENCE)
    patch.setattr("osdisco_etcd._watch.LAST_CALL", 1 / 3 * SILENCE)
    patch.setattr("osdisco_consul._backend.SILENCE", SILENCE)
    patch.setattr("osdisco_consul._backend.WAIT", SILENCE / 2)


@define
class Ways:
    """Ways to one store: by the `bad` proxy first, then by the `good` one, if there is one; and a clean one."""

    store: str
    bad: ChaosProxy
    good: ChaosProxy | None
    clean: Client
    _url: Callable[[list[str]], str]
    _credentials: CredentialProvider | None
    _stack: AsyncExitStack

    async def client(self) -> Client:
        """Return a client of its own, used once so that it has found its way."""
        addresses = [self.bad.address] + ([self.good.address] if self.good else [])
        url = with_options(self._url(addresses), ttl=TTL, timeout=TIMEOUT)
        client = await self._stack.enter_async_context(osdisco.connect(url, credentials=self._credentials))
        await client.get("warm", timeout=10)
        return client


@asynccontextmanager
async def ways(
    store: str,
    url: str | tuple[str, Callable[[list[str]], str]],
    *,
    seed: int,
    alone: bool,
    credentials: CredentialProvider | None = None,
) -> AsyncIterator[Ways]:
    """Open the ways to a store.

    Args:
        store: its scheme.
        url: its URL, or its address and what makes URLs of addresses.
        seed: of the proxies.
        alone: whether there is no second endpoint.
        credentials: of all clients but the clean one.
    """
    if isinstance(url, str):
        address, _, rest = url.partition("://")[2].partition("/")
        there = address, lambda addresses: f"{store}://{','.join(addresses)}/{rest}"
    else:
        there = url
    address, url_of = there
    async with AsyncExitStack() as stack:
        bad = await stack.enter_async_context(ChaosProxy(address, seed=seed))
        good = None if alone else await stack.enter_async_context(ChaosProxy(address, seed=seed))
        clean = await stack.enter_async_context(osdisco.connect(with_options(url_of([address]), timeout=5)))
        yield Ways(store, bad, good, clean, url_of, credentials, stack)


def with_options(url: str, **seconds: float) -> str:
    """Return a URL with more options."""
    return url + ("&" if "?" in url else "?") + "&".join(f"{name}={value:g}s" for name, value in seconds.items())


@define
class Case:
    """Requests, a watch and a session on one store, each by a client of its own, and what is wrong with them."""

    ways: Ways
    fault: Fault
    seed: int
    wrong: list[str] = field(factory=list)
    traffic: Traffic = field(init=False)
    log: Watcher = field(init=False)
    session: Session = field(init=False)
    struck: float = field(init=False, default=0.0)
    healed: float = field(init=False, default=0.0)
    late: float = field(init=False, default=0.0)
    mine: str = field(init=False, default="")
    reachable: bool = field(init=False, default=True)
    goes_on: bool = field(init=False, default=False)

    @property
    def now(self) -> float:
        """On the clock of all deadlines."""
        return self.ways.clean.runtime.clock.now()

    async def run(
        self, strike: Callable[[], object], heal: Callable[[], object], *, reachable: bool = True, goes_on: bool = False
    ) -> list[str]:
        """Let it go well, break something, mend it, and return what was wrong.

        Args:
            strike, heal: begin and end the trouble.
            reachable: whether the store itself stays well, so that the clean client can look all the time.
            goes_on: whether all must go on though there is no other endpoint.
        """
        self.reachable = reachable
        self.goes_on = goes_on or self.ways.good is not None
        number = next(_NUMBERS)
        self.mine = f"mine/{number}"
        self.traffic = Traffic(random.Random(self.seed), prefix=f"{number}/", keys=3, pause=self.fault.pause)
        self.log = self.traffic.watcher(self.ways.clean)
        self.session = await (await self.ways.client()).session()
        await self.session.put(self.mine, b"")
        clients = [self.ways.clean, *[await self.ways.client() for _ in range(3)]]
        watcher = self.traffic.watcher(await self.ways.client())
        tasks = [asyncio.create_task(one.watch()) for one in self.traffic.watchers]
        tasks.append(asyncio.create_task(self._look_at_the_machine()))
        try:
            async with asyncio.timeout(5):
                while not all(one.frames for one in self.traffic.watchers):
                    await asyncio.sleep(0.01)
            workers = [
                asyncio.create_task(self.traffic.work(client, f"w{number}")) for number, client in enumerate(clients)
            ]
            tasks += workers
            await asyncio.sleep(0.4)
            self.struck = self.now
            strike()
            await self._trouble(watcher)
            self.healed = self.now
            heal()
            self.traffic.over = True
            await asyncio.wait(workers, timeout=TIMEOUT + LATE)
            await self._settle()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        self._requests()
        return self.wrong

    async def _look_at_the_machine(self) -> None:
        """Measure how late it is by itself: this process, and the server on the way on which there is no trouble."""
        while True:
            asked = self.now
            with suppress(OsdiscoError):
                await self.ways.clean.get("clean")
            answered = self.now
            await asyncio.sleep(0.02)
            self.late = max(self.late, answered - asked, self.now - answered - 0.02)

    async def _trouble(self, watcher: Watcher) -> None:
        seeing = asyncio.create_task(self._seen_again(watcher))
        losing = asyncio.create_task(self._lost())
        await asyncio.sleep(TROUBLE)
        for task in (seeing, losing):
            task.cancel()
        seen, lost = await asyncio.gather(seeing, losing, return_exceptions=True)
        if self.goes_on:
            if not (self.fault.trickles or (isinstance(seen, float) and seen < SILENCE + 1)):
                self.wrong.append(f"what was written in the trouble was seen after {seen} s, not {SILENCE}")
            if isinstance(lost, float):
                self.wrong.append(f"the session was lost after {lost:.2f} s, although there was another way")
        elif not isinstance(lost, asyncio.CancelledError | float):
            raise lost

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
        """Return after how many seconds the session was lost; look whether the store holds its key until then."""
        while not self.session.lost.is_set():
            if self.reachable and await self.ways.clean.get(self.mine) is None and self.session.valid:
                self.wrong.append("the store gave away the session's key before the session was lost")
            with suppress(TimeoutError):
                await asyncio.wait_for(self.session.lost.wait(), 0.05)
        lost, deadline = self.now, self.session.deadline
        if lost > deadline + LATE:
            self.wrong.append(f"the session was lost {lost - deadline:.2f} s after its own deadline")
        if self.reachable and lost > self.struck + OWN_DEADLINE + LATE and not self.goes_on:
            self.wrong.append(f"the session was lost {lost - self.struck:.2f} s after the last renewal could be sent")
        return lost - self.struck

    async def _settle(self) -> None:
        """Everybody must come to see the same, and sessions that are not lost must go on."""
        try:
            await self.traffic.settle(self.ways.clean, seconds=15)
        except TimeoutError:
            self.wrong.append("15 s after the trouble not all watches show what is in the store")
        if self.session.state is not SessionState.LOST:
            deadline = self.now + 2 * TTL
            while self.session.state is SessionState.SUSPENDED and self.now < deadline:
                await asyncio.sleep(0.02)
            if self.session.state is not SessionState.CONNECTED:
                self.wrong.append(f"{2 * TTL} s after the trouble the session is {self.session.state}")
                return
            with suppress(IndeterminateError):  # where the connection is dead, and nobody knew
                await self.session.put(self.mine, b"still")

    def _requests(self) -> None:
        conflates = self.ways.clean.limits.conflates
        log = None if conflates else Log(self.log.frames)
        self.wrong += self.traffic.problems(log)
        done = 0
        for one in self.traffic.history.operations:
            if one.end - one.begin > TIMEOUT + LATE and one.who not in ("w0", "the last"):
                self.wrong.append(f"took longer than its timeout: {one}")
            in_trouble = self.struck + TIMEOUT + LATE < one.begin < self.healed
            done += one.who != "w0" and in_trouble and one.outcome is Outcome.DONE
        if self.goes_on and done < 1:
            self.wrong.append("no request was done by the other endpoint")


async def undisturbed(case: Callable[[], Case], there: Ways) -> list[str]:
    """Run a case and return what was wrong, but not what a machine did that stood still: then it is run again."""
    for _ in range(4):
        one = case()
        wrong = await one.run(partial(one.fault.strike, there.bad), there.bad.heal)
        if not wrong or one.late < LATE / 2:
            return wrong
        there.bad.cut()
    return [f"the machine was {one.late:.2f} s late again and again, with other things to do", *wrong]
