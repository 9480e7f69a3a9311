"""The shared value: JSON that is read strictly, changed without losing a change, and followed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf, nan
from typing import Any

import pytest
from strikes import STRIKES, trouble_among
from worlds import Suspensions, World, connect

from osdisco.client import Client
from osdisco.coordination import CoordinationService, SharedValue
from osdisco.errors import (
    ClosedError,
    ConflictError,
    DeniedError,
    IndeterminateError,
    InvalidNameError,
    OsdiscoError,
    RecordError,
)
from osdisco.testing import Scenario, SimulatedProcess, Simulation, scenario


def flags_of(client: Client, default: Any = None, name: str = "flags") -> SharedValue:
    return CoordinationService(client).shared_value(name, default)


@pytest.mark.parametrize("value", [None, True, 0, -1.5, "é\n", [], [1, [None]], {}, {"a": {"é": [1.0]}}])
async def test_json_comes_back_as_it_was(world: World, value: Any) -> None:
    flags = flags_of(world.process())
    await flags.set(value)
    got = await flags_of(world.process(), "default").get()
    assert got == value
    assert type(got) is type(value)
    assert await flags.update(lambda old: [old]) == [value]


async def test_the_default_stands_until_a_value_is_set_and_is_nobodys_to_change(world: World) -> None:
    default: dict[str, int] = {}
    flags = flags_of(world.process(), default)
    (await flags.get())["mine"] = 1
    default["changed"] = 1
    assert await flags.get() == {}
    assert world.keys() == []
    assert await flags.update(lambda old: {**old, "a": 1}) == {"a": 1}


BAD = [object(), {1, 2}, b"", nan, inf, {"a": nan}, "\ud800", {"\ud800": 1}, "x" * 70_000, {1: "a", "1": "b"}]


@pytest.mark.parametrize("value", BAD, ids=lambda value: f"{value!a:.20}")
async def test_what_is_no_json_or_too_large_is_refused_and_nothing_written(world: World, value: Any) -> None:
    client = world.process()
    with pytest.raises(RecordError):
        flags_of(client, value)
    with pytest.raises(RecordError):
        await flags_of(client).set(value)
    with pytest.raises(RecordError):
        await flags_of(client).update(lambda _: value)
    assert world.keys() == []


FOREIGN = [b"", b"{", b"NaN", b"1e999", b"\xff\xfe", b'{"a": 1, "a": 2}', b"[" * 100_000, b" " * 70_000]


@pytest.mark.parametrize("value", FOREIGN, ids=lambda value: f"{value!a:.20}")
async def test_what_others_wrote_there_is_reported_and_can_be_replaced(world: World, value: bytes) -> None:
    client = world.process()
    await client.put("val/flags", value)
    with pytest.raises(RecordError):
        await flags_of(client).get()
    with pytest.raises(RecordError):
        await flags_of(client).update(lambda old: old)
    await flags_of(client).set(1)
    assert await flags_of(client).get() == 1


async def test_updates_of_many_processes_lose_none(world: World) -> None:
    values = [flags_of(world.process(), []) for _ in range(10)]
    await values[0].set([])
    await asyncio.gather(*(value.update(lambda old, n=n: [*old, n]) for n, value in enumerate(values)))
    assert sorted(await values[0].get()) == list(range(10))


async def test_an_error_of_the_function_writes_nothing(world: World) -> None:
    with pytest.raises(ZeroDivisionError):
        await flags_of(world.process(), 0).update(lambda old: 1 / old)
    assert world.keys() == []


async def test_an_update_that_others_always_outrun_is_a_conflict(world: World) -> None:
    client, other = world.process(), world.process()
    client.backend.faults.delay("commit", request=0.2)

    async def outrun() -> None:
        while True:
            await flags_of(other).update(lambda old: (old or 0) + 1)
            await asyncio.sleep(0.05)

    task = asyncio.ensure_future(outrun())
    with pytest.raises(ConflictError):
        await flags_of(client).update(lambda old: "mine")
    task.cancel()
    await asyncio.wait([task])


async def test_a_lost_answer_is_of_unknown_outcome(world: World) -> None:
    client = world.process()
    client.backend.faults.drop_answer("commit")
    for call in (flags_of(client).set(1), flags_of(client).update(lambda old: old)):
        with pytest.raises(IndeterminateError):
            await call


async def test_a_cancelled_write_is_not_cut_on_the_wire(world: World) -> None:
    client = world.process()
    client.backend.faults.delay("commit", request=1)
    task = asyncio.ensure_future(Suspensions(1).of(flags_of(client).set(1)))
    await asyncio.wait([task])
    assert task.cancelled()
    await asyncio.sleep(2)
    assert await flags_of(client).get() == 1


async def test_a_watch_shows_the_present_value_first_then_what_changes(world: World) -> None:
    client, other = world.process(), world.process()
    async with flags_of(client, "none").watch() as values:
        assert await anext(values) == "none"
        await flags_of(other).set({"a": 1})
        assert await anext(values) == {"a": 1}
        await other.put("val/flags", b"{")
        await flags_of(other).set(2)
        assert await anext(values) == 2  # what is no JSON was skipped
        await other.delete("val/flags")
        assert await anext(values) == "none"
        await flags_of(other, name="another").set(1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(values), 60)
    with pytest.raises(StopAsyncIteration):
        await anext(values)


async def test_a_watch_lives_through_an_outage_and_arrives_at_the_latest(world: World) -> None:
    client, other = world.process(), world.process()
    await flags_of(other).set(1)
    async with flags_of(client).watch() as values:
        assert await anext(values) == 1
        client.backend.faults.outage()
        for value in range(2, 5):
            await flags_of(other).set(value)
        world.store.faults.compact()
        await asyncio.sleep(30)
        client.backend.faults.clear()
        assert await anext(values) == 4


async def test_a_watch_ends_when_the_permission_or_the_client_is_gone(world: World) -> None:
    client = world.process()
    async with flags_of(client).watch() as values:
        await anext(values)
        client.backend.faults.deny("watch")
        with pytest.raises(DeniedError):
            await anext(values)
    client.backend.faults.clear()
    async with flags_of(client).watch() as values:
        await anext(values)
        await client.aclose()
        with pytest.raises(ClosedError):
            await anext(values)
    with pytest.raises(ClosedError):
        await flags_of(client).get()


async def test_names_are_only_text(world: World) -> None:
    client = world.process()
    names = ["..", "//", "a b", "é", "%2F", "a/b", "\0"]
    for name in names:
        async with flags_of(client, name=name).watch() as values:
            assert await anext(values) is None
            await flags_of(client, name=name).set(name)
            assert await anext(values) == name
    assert len(world.keys("val/")) == len(names)
    with pytest.raises(InvalidNameError):
        flags_of(client, name="")


class Updates:
    """No confirmed update is overwritten unseen, and who follows sees them in order and the last one in the end."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.confirmed = self.doubtful = 0
        self.followed: dict[SimulatedProcess, list[int]] = {}
        self.followers: dict[SimulatedProcess, asyncio.Task[None]] = {}

    async def run(self) -> None:
        simulation = self.simulation
        await trouble_among(simulation, self._work, simulation.random.randint(2, 4))
        await asyncio.sleep(40)
        process = simulation.living[0]
        total = await process.call(flags_of(process.client, default=0).get())
        assert self.confirmed <= total <= self.confirmed + self.doubtful, (total, self.confirmed, self.doubtful)
        for process in simulation.living:
            seen = self.followed[process]
            assert seen == sorted(seen)
            assert seen[-1] == total
            process.ask(self.followers[process].cancel)
        await simulation.finish(5)
        assert await simulation.close() == (["val/flags"] if total else [])  # it may be that no update came through

    async def _work(self, process: SimulatedProcess) -> None:
        self.followers[process] = process.start(self._follow(process))
        while not self.simulation.over:
            await self._update(process)
            await asyncio.sleep(self.simulation.random.uniform(0, 1))

    async def _update(self, process: SimulatedProcess) -> None:
        self.doubtful += 1  # also when it is killed
        try:
            await flags_of(process.client, default=0).update(lambda value: value + 1)
            self.confirmed += 1
            self.simulation.seen["updated"] += 1
        except IndeterminateError:
            return
        except OsdiscoError as exc:
            self.simulation.seen[type(exc).__name__] += 1
        self.doubtful -= 1

    async def _follow(self, process: SimulatedProcess) -> None:
        async with flags_of(process.client, default=0).watch() as values:
            async for value in values:
                self.followed.setdefault(process, []).append(value)
                self.simulation.seen["seen"] += 1


@scenario(often={**STRIKES, "killed": 0.4, "updated": 15, "seen": 20})
async def updates(simulation: Simulation) -> None:
    await Updates(simulation).run()


@pytest.mark.timeout(900)
def test_whatever_happens(osdisco_simulate: Callable[[Scenario], None]) -> None:
    osdisco_simulate(updates)


@pytest.mark.osdisco("memory", "etcd", "etcd+http", "consul")
async def test_on_every_store(osdisco_url: str) -> None:
    async with connect(osdisco_url) as client, connect(osdisco_url) as other:
        async with flags_of(client, []).watch() as values:
            assert await anext(values) == []
            appending = [
                flags_of(one).update(lambda old, n=n: [*(old or []), n]) for n, one in enumerate([client, other])
            ]
            await asyncio.gather(*appending)
            async with asyncio.timeout(10):
                while sorted(await anext(values)) != [0, 1]:
                    pass
        assert sorted(await flags_of(other).get()) == [0, 1]
