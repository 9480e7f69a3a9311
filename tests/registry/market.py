"""What simulations of the registry share: instances that register, change and leave, and what others see of them.

Each registration has a *life* of its own, and counts its changes in its metadata: so old data is known when it is seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from itertools import count

from attrs import define
from worlds import NAMESPACE

from osdisco.backend import Delete
from osdisco.discovery import ExtensionStatus, ViewFresh, ViewStale
from osdisco.discovery.events import ViewEvent
from osdisco.registry import (
    Registration,
    ServiceDefinition,
    ServiceEndpoint,
    ServiceEvent,
    ServiceRegistry,
    ServiceView,
    ViewProtecting,
    ViewProtectionOver,
)
from osdisco.testing import SimulatedProcess, Simulation

SERVICE = "geo"
LIVING = [ExtensionStatus.STARTING, ExtensionStatus.HEALTHY, ExtensionStatus.DEGRADED, ExtensionStatus.UNHEALTHY]
QUIET = 25.0
"""Seconds after the last fault until all must be well: leases of the killed end, and the protection of the gone."""


class Seer:
    """Follows the service in a view and by its events, and holds one against the other."""

    def __init__(self, view: ServiceView, simulation: Simulation) -> None:
        self.view = view
        self._told: dict[str, ServiceEndpoint] = {}
        self._newest: dict[str, int] = {}  # of each life
        self._lasting = {"stale": False, "protecting": False}
        self._simulation = simulation
        view.add_listener(self.hear)

    def hear(self, event: ServiceEvent | ViewEvent) -> None:
        self._simulation.seen["told"] += 1
        match event:
            case ServiceEvent():
                self._change(event)
            case ViewStale() | ViewFresh():
                self._turn("stale", isinstance(event, ViewStale))
            case ViewProtecting() | ViewProtectionOver():
                self._turn("protecting", isinstance(event, ViewProtecting))
                self._simulation.seen["protected"] += isinstance(event, ViewProtecting)

    def _turn(self, what: str, on: bool) -> None:
        assert self._lasting[what] is not on, f"told twice: {what} {on}"
        self._lasting[what] = on

    def _change(self, event: ServiceEvent) -> None:
        """Each event begins where the one before has ended, and no older data of a life comes after newer."""
        assert self._told.get(event.id) == event.old != event.new
        if event.new is None:
            del self._told[event.id]
            return
        self._told[event.id] = event.new
        life, number = event.new.metadata["life"], int(event.new.metadata["number"])
        newest = self._newest.get(life, 0)
        assert newest <= number, f"{event.id}: number {number} of the life {life} came after {newest}"
        self._newest[life] = number

    def check(self, want: Mapping[str, ServiceEndpoint]) -> None:
        """When it is quiet: the view is what is registered, and listeners have heard of it."""
        assert dict(self.view) == want == {one.extension_id: one for one in self.view.endpoints}
        assert self._told == want
        assert self._lasting == {"stale": False, "protecting": False}
        assert not self.view.stale
        assert not self.view.protecting
        assert not self.view.skipped


@define(eq=False)
class Stall:
    """An instance of a process."""

    registration: Registration
    number: int = 1

    @property
    def acknowledged(self) -> bool:
        """Whether it was registered at all, as far as it knows."""
        return self.registration._registrar.incarnation > 0


class Market:
    """All of them, by process."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.random = simulation.random
        self.seen = simulation.seen
        self.stalls: dict[SimulatedProcess, Stall] = {}
        self.seers: dict[SimulatedProcess, Seer] = {}
        self._addresses: dict[SimulatedProcess, str] = {}
        self._shares: dict[SimulatedProcess, float] = {}
        self._numbers = count(1)

    def open(self, address: str = "") -> None:
        """Start a process that is registered at an address until the faults are over."""
        process = self.simulation.process()
        self._addresses[process] = address = address or f"10.0.0.{next(self._numbers)}:9700"
        process.start(self._sell(process, address))

    def look(self, share: float) -> None:
        """Start a process that follows the service, protected to that share."""
        process = self.simulation.process()
        self._shares[process] = share
        process.start(self._look(process, share))

    def restart(self, dead: SimulatedProcess) -> None:
        """A process was killed: another one takes its place, and its address, which is its id.

        The first record of one that was never acknowledged may still come, and would then be the newer one: it is for
        the network's delays, and not for us, to keep them apart. The next one has another address.
        """
        self.seers.pop(dead, None)
        stall = self.stalls.pop(dead, None)
        if dead in self._shares:
            self.look(self._shares[dead])
        else:
            self.open(self._addresses[dead] if stall is not None and stall.acknowledged else "")

    async def _look(self, process: SimulatedProcess, share: float) -> None:
        view = ServiceRegistry(process.client).view(SERVICE, protection=share)
        if self.random.random() < 0.5:
            self.seers[process] = Seer(view, self.simulation)
            view.start()
        else:
            view.start()
            await asyncio.sleep(self.random.uniform(0, 3))
            self.seers[process] = Seer(view, self.simulation)

    async def _sell(self, process: SimulatedProcess, address: str) -> None:
        registry = ServiceRegistry(process.client)
        while True:
            metadata = {"life": str(next(self._numbers)), "number": "1"}
            stall = self.stalls[process] = Stall(
                registry.register(ServiceDefinition(SERVICE, "1", address, metadata=metadata))
            )
            await stall.registration
            await self._stay(stall)
            if self.simulation.over:
                return
            await stall.registration.deregister()
            self.seen["left"] += 1

    async def _stay(self, stall: Stall) -> None:
        """Change now and then; leave after a while, or when the faults are over with all that is to be seen of it."""
        until = self.simulation.clock.now() + self.random.choice([2.0, 4.0, 100.0])
        while not self.simulation.over and not (self.simulation.clock.now() > until and stall.acknowledged):
            await asyncio.sleep(self.random.uniform(0, 1))
            await self._change(stall)
        if self.simulation.over:
            await self._change(stall)
            await stall.registration.wait_registered()
            self.seen["acknowledged"] += 1

    async def _change(self, stall: Stall) -> None:
        stall.number += 1
        if self.random.random() < 0.3:
            await stall.registration.set_status(self.random.choice(LIVING))
        number = str(stall.number)
        await stall.registration.update(metadata={"number": number}, weight=self.random.randint(0, 9))
        assert stall.registration.endpoint.metadata["number"] == number, "what was changed was forgotten"
        self.seen["changed"] += 1

    def operations(self) -> dict[str, Callable[[], object]]:
        """What an operator does by hand, and what the store does when it was away for long."""
        return {"leases ended": self._end_leases, "records deleted": self._delete}

    def _end_leases(self) -> bool:
        living = list(self.stalls)
        ended = False
        for process in self.random.sample(living, self.random.randint(1, len(living))) if living else ():
            session = process.client._sessions._shared
            ended |= session is not None and self.simulation.store.faults.end_lease(session.id)
        return ended

    def _delete(self) -> bool:
        keys = self.simulation.keys("svc/")
        some = self.random.sample(keys, self.random.randint(1, len(keys))) if keys else []
        self.simulation.store.commit([Delete(f"{NAMESPACE}/{key}") for key in some], {}) if some else None
        return bool(some)

    async def end(self) -> None:
        """When it is quiet everybody sees the same, which is what each said last; and nothing is left of it."""
        await self.simulation.finish(QUIET)
        await asyncio.sleep(QUIET)
        registrations = [stall.registration for stall in self.stalls.values()]
        assert all(one.registered and not one.superseded for one in registrations)
        want = {one.endpoint.extension_id: one.endpoint for one in registrations}
        for process, seer in self.seers.items():
            process.ask(seer.check, want)
            found = await process.call(ServiceRegistry(process.client).get_endpoints(SERVICE))
            assert found == [want[id_] for id_ in sorted(want)]
        for process, stall in self.stalls.items():
            await process.call(stall.registration.deregister())
        await asyncio.sleep(1)
        for process, seer in self.seers.items():
            process.ask(seer.check, {})
            await process.call(seer.view.aclose())
        assert await self.simulation.close() == []
