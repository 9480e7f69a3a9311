"""What simulations of discovery share: extensions that register, change, leave and see each other, and what must hold.

A *telling* is what one record says, by which it is recognised: who wrote it (each service has a name of its own), its
number, which rises with each change, and its status.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from attrs import define, field
from extensions import info
from worlds import NAMESPACE

from osdisco._feed import Change
from osdisco.backend import Delete, Item
from osdisco.discovery import DiscoveryListener, DiscoveryService, ExtensionEvent, ExtensionInfo, ExtensionStatus
from osdisco.errors import DiscoveryError
from osdisco.testing import SimulatedProcess, Simulation

Telling = tuple[str, int, str]

PREFIX = f"{NAMESPACE}/ext/"
LIVING = [ExtensionStatus.STARTING, ExtensionStatus.HEALTHY, ExtensionStatus.DEGRADED, ExtensionStatus.UNHEALTHY]
QUIET = 25.0
"""Seconds after the last fault until all must be well: leases of the killed end, and who was late has looked again."""


def telling(extension: ExtensionInfo | None) -> Telling | None:
    if extension is None:
        return None
    return extension.metadata["service"], int(extension.metadata["number"]), extension.status.value


class History:
    """What anybody could have read of each id after each change of the store, found out from the bytes alone."""

    def __init__(self, simulation: Simulation) -> None:
        self.shown: dict[str, list[Telling | None]] = defaultdict(lambda: [None])
        self._records: dict[str, dict[str, tuple[tuple[int, int], Telling]]] = defaultdict(dict)
        self._incarnations: dict[str, int] = {}
        self._newest: dict[str, int] = defaultdict(int)
        self._simulation = simulation
        self._write = simulation.store._write
        simulation.store._write = self._recording  # type: ignore[method-assign]

    @property
    def now(self) -> dict[str, Telling]:
        """What is in the store."""
        return {id_: shown[-1] for id_, shown in self.shown.items() if shown[-1] is not None}

    def _recording(self, after: Mapping[str, Item | None]) -> None:
        self._write(after)
        ids = {self._take(key, item) for key, item in after.items() if key.startswith(PREFIX)}
        for id_ in sorted(ids):
            records = self._records[id_].values()
            self._show(id_, max(records)[1] if records else None)

    def _take(self, key: str, item: Item | None) -> str:
        id_ = key.removeprefix(PREFIX).partition("/")[0]
        if item is None:
            self._records[id_].pop(key, None)
            return id_
        said = json.loads(item.value)
        metadata = said["extension"]["metadata"]
        self._check_incarnation(metadata["service"], said["incarnation"])
        written = metadata["service"], int(metadata["number"]), said["extension"]["status"]
        incarnation = said["incarnation"] or item.created
        self._records[id_][key] = (incarnation, item.created), written
        return id_

    def _check_incarnation(self, service: str, incarnation: int) -> None:
        """Once a service knows its incarnation it keeps it."""
        known = self._incarnations.setdefault(service, incarnation) or incarnation
        self._incarnations[service] = known
        if incarnation != known:
            self._simulation.fail(f"{service} was {known} and became {incarnation}")

    def _show(self, id_: str, now: Telling | None) -> None:
        """Nobody may ever read an older record of a service after a newer one."""
        shown = self.shown[id_]
        if now == shown[-1]:
            return
        shown.append(now)
        if now is None:
            return
        newest = self._newest[now[0]] = max(self._newest[now[0]], now[1])
        if now[1] < newest:
            self._simulation.fail(f"{now} can be read after number {newest}")


class Witness(DiscoveryListener):
    """One service's view, and what its listeners hear of it."""

    def __init__(self, service: DiscoveryService, history: History) -> None:
        self.service = service
        self.differences: dict[str, list[Telling | None]] = defaultdict(list)
        self.heard: dict[str, list[Telling | None]] = defaultdict(list)
        self.present: dict[str, ExtensionInfo] = {}
        self._history = history
        self._reached: dict[str, int] = defaultdict(int)
        service.add_listener(self.hear)
        service.add_listener(self)

    def follow(self) -> None:
        """Look at the view from now on, whenever it has changed."""
        take = self.service._view.on_change

        def take_and_look(change: Change) -> None:
            take(change)
            self.look()

        self.service._view.on_change = take_and_look  # type: ignore[method-assign]
        self.look()

    def look(self) -> None:
        """The view shows what was in the store, in the order in which it was there."""
        now = {id_: telling(extension) for id_, extension in self.service.extensions.items()}
        for id_ in sorted(now.keys() | self.differences.keys()):
            shown, before = now.get(id_), (self.differences[id_] or [None])[-1]
            if shown != before:
                self.differences[id_].append(shown)
                self._follow(id_, shown)

    def _follow(self, id_: str, shown: Telling | None) -> None:
        truth, reached = self._history.shown[id_], self._reached[id_]
        assert shown in truth[reached:], f"{id_}: {shown} was not in the store after {truth[: reached + 1][-3:]}"
        self._reached[id_] = truth.index(shown, reached)

    def hear(self, event: ExtensionEvent) -> None:
        """Each event begins where the one before has ended."""
        id_, old, new = event.extension.id, telling(event.old), telling(event.new)
        before = (self.heard[id_] or [None])[-1]
        assert old == before, f"{id_} was {before} and is said to have been {old}"
        assert old != new, f"{id_} is still {new}"
        self.heard[id_].append(new)

    def on_extensions_discovered(self, extensions: Sequence[ExtensionInfo]) -> None:
        for extension in extensions:
            assert extension.id not in self.present
            self.present[extension.id] = extension

    def on_extensions_removed(self, extensions: Sequence[ExtensionInfo]) -> None:
        for extension in extensions:
            del self.present[extension.id]

    def check(self, now: Mapping[str, Telling]) -> None:
        """When it is quiet: the view is what is in the store, and listeners have heard every difference, once."""
        view = {id_: telling(extension) for id_, extension in self.service.extensions.items()}
        assert view == now, f"shown is {view}, there is {now}"
        for id_ in sorted(self.heard.keys() | self.differences.keys()):
            heard, differences = self.heard[id_], self.differences[id_]
            assert heard == differences, f"{id_}: heard {heard} of {differences}"
        assert sorted(self.present) == sorted(now)
        assert not self.service.extensions.stale
        assert not self.service.extensions.skipped


@define(eq=False)
class Resident:
    """A service in a process, under an id that other processes may have, too."""

    process: SimulatedProcess
    id: str
    name: str
    service: DiscoveryService
    witness: Witness | None = None
    numbers: Any = field(factory=lambda: count(2))

    @property
    def acknowledged(self) -> bool:
        """Whether it was registered at all, as far as it knows."""
        return self.service._own.incarnation > 0


class Neighbourhood:
    """All of them. `residents` are the latest of each process."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.random = simulation.random
        self.seen = simulation.seen
        self.history = History(simulation)
        self.residents: dict[SimulatedProcess, Resident] = {}
        self._ids: dict[SimulatedProcess, str] = {}
        self._numbers = count(1)

    def start(self, id_: str) -> SimulatedProcess:
        """Start a process that lives under an id until the faults are over; without one it only looks."""
        process = self.simulation.process()
        self._ids[process] = id_
        process.start(self._live(process, id_) if id_ else self._look(process))
        return process

    def restart(self, dead: SimulatedProcess) -> None:
        """A process was killed: another one takes its place and its id."""
        self.residents.pop(dead, None)
        self.start(self._ids[dead])

    async def _look(self, process: SimulatedProcess) -> None:
        seer = Resident(process, "", "seer", DiscoveryService(process.client))
        self.residents[process] = seer
        await self._begin(seer)

    async def _live(self, process: SimulatedProcess, id_: str) -> None:
        while True:
            resident = self._resident(process, id_)
            await self._begin(resident)
            try:
                await self._stay(resident)
            except DiscoveryError:
                assert resident.service.superseded
                self.seen["superseded"] += 1
                return
            if self.simulation.over:
                return
            await resident.service.stop()
            self.seen["left"] += 1

    def _resident(self, process: SimulatedProcess, id_: str) -> Resident:
        name = f"s{next(self._numbers)}"
        extension = info(id_, metadata={"service": name, "number": "1"})
        resident = Resident(process, id_, name, DiscoveryService(process.client, extension))
        self.residents[process] = resident
        return resident

    async def _begin(self, resident: Resident) -> None:
        """Listen from before the start, or only from later on."""
        if self.random.random() < 0.5:
            resident.witness = Witness(resident.service, self.history)
            await resident.service.start()
        else:
            await resident.service.start()
            await asyncio.sleep(self.random.uniform(0, 3))
            resident.witness = Witness(resident.service, self.history)
        resident.witness.follow()

    async def _stay(self, resident: Resident) -> None:
        """Change now and then; leave after a while, or when the faults are over with all that is to be seen of it."""
        until = self.simulation.clock.now() + self.random.choice([2.0, 4.0, 100.0])
        while not self.simulation.over and not (self.simulation.clock.now() > until and resident.acknowledged):
            await asyncio.sleep(self.random.uniform(0, 1))
            await self._change(resident)
        if self.simulation.over:
            await self._change(resident)
            await resident.service.wait_registered()
            self.seen["acknowledged"] += 1

    async def _change(self, resident: Resident) -> None:
        metadata = {"number": str(next(resident.numbers))}
        await resident.service.update(metadata=metadata, status=self.random.choice(LIVING))
        self.seen["changed"] += 1

    def operations(self) -> dict[str, Any]:
        """What an operator does by hand."""
        return {"lease ended": self._end_lease, "record deleted": self._delete}

    def _end_lease(self) -> bool:
        session = self.random.choice(self.simulation.living).client._sessions._shared
        return session is not None and self.simulation.store.faults.end_lease(session.id)

    def _delete(self) -> bool:
        keys = self.simulation.keys("ext/")
        if keys:
            self.simulation.store.commit([Delete(f"{NAMESPACE}/{self.random.choice(keys)}")], {})
        return bool(keys)

    async def end(self) -> None:
        """When it is quiet everybody sees the same, which is what the newest of each id said last."""
        await self.simulation.finish(QUIET)
        await asyncio.sleep(QUIET)
        now = self.history.now
        self._check_the_newest(now)
        for process, resident in self.residents.items():
            assert resident.witness is not None
            process.ask(resident.witness.check, now)
            found = await process.call(resident.service.discover_extensions())
            assert {extension.id: telling(extension) for extension in found} == now
        await self._leave()
        assert await self.simulation.close() == []

    def _check_the_newest(self, now: Mapping[str, Telling]) -> None:
        """Of each id the newest incarnation stands, by its latest record, and the older ones were told."""
        families: dict[str, list[Resident]] = defaultdict(list)
        for resident in self.residents.values():
            if resident.id:
                families[resident.id].append(resident)
        standing = {}
        for id_, family in families.items():
            newest = max(family, key=lambda resident: resident.service._own.incarnation)
            left = [resident for resident in family if not resident.service.superseded]
            assert len(left) <= 1, f"{id_}: {', '.join(resident.name for resident in left)} were not told"
            assert left == [newest], f"{newest.name} withdrew, and no newer {id_} lives"
            for resident in left:
                assert resident.service.registered
                standing[id_] = telling(resident.service.extension)
        assert now == standing, f"{now} is to be seen, {standing} live"

    async def _leave(self) -> None:
        """One after the other; who stays sees it."""
        *leaving, last = self.residents.values()
        for resident in leaving:
            await resident.process.call(resident.service.stop())
        await asyncio.sleep(1)
        assert last.service.extensions.keys() <= {last.id}
        await last.process.call(last.service.stop())
