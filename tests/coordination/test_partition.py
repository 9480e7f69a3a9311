"""Partitions: each with one owner at most, all with one when it is quiet, given up before they are taken."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping

import pytest
from strikes import STRIKES
from worlds import Suspensions, World, connect, lease_of

from osdisco.backend import ABSENT, Condition, Delete, Op, Put
from osdisco.client import Client
from osdisco.coordination import CoordinationService, Fence, Group, Member
from osdisco.coordination.partition import owner_of
from osdisco.errors import OsdiscoError, StaleTokenError, TimedOutError
from osdisco.testing import Scenario, SimulatedProcess, Simulation, run, scenario

COUNT = 12


def group_of(client: Client) -> Group:
    return CoordinationService(client).group("workers")


class Worker:
    """A member in a task of its own, that owns partitions until it is told to stop."""

    def __init__(self, client: Client, id_: str, *, weight: int = 1, count: int = COUNT) -> None:
        self.client = client
        self.owned: Mapping[int, int] = {}
        self.given_up: list[tuple[int, int]] = []
        self._stop = asyncio.Event()
        self._membership = group_of(client).join(id_, weight=weight)
        self._count = count
        self.task = asyncio.ensure_future(self._work())

    async def _work(self) -> None:
        async with self._membership as membership, membership.partition(self._count, released=self._released) as owned:
            self.owned = owned
            await self._stop.wait()

    async def _released(self, partition: int, token: int) -> None:
        self.given_up.append((partition, token))

    async def stop(self) -> None:
        self._stop.set()
        await self.task


def spread(*workers: Worker) -> list[int]:
    return sorted(number for worker in workers for number in worker.owned)


async def test_one_member_owns_all_and_two_share(world: World) -> None:
    a = Worker(world.process(), "a")
    await asyncio.sleep(5)
    assert list(a.owned) == list(range(COUNT))
    b = Worker(world.process(), "b")
    await asyncio.sleep(5)
    assert spread(a, b) == list(range(COUNT))
    assert 2 < len(b.owned) < COUNT - 2
    assert sorted(number for number, _ in a.given_up) == list(b.owned)
    assert all(b.owned[number] > token for number, token in a.given_up)
    await a.stop()
    await asyncio.sleep(5)
    assert list(b.owned) == list(range(COUNT))
    await b.stop()
    assert len(b.owned) == 0
    assert world.keys() == []


async def test_what_is_wanted_by_another_is_its_only_after_it_was_let_go(world: World) -> None:
    """The callback takes its time; until it is done nobody else has the partition."""
    letting_go: set[int] = set()

    async def released(partition: int, token: int) -> None:
        letting_go.add(partition)
        await asyncio.sleep(3)
        letting_go.discard(partition)

    async with group_of(world.process()).join("a") as a, a.partition(COUNT, released=released) as mine:
        await mine.until(lambda owned: len(owned) == COUNT, timeout=5)
        async with group_of(world.process()).join("b") as b, b.partition(COUNT) as theirs:
            met = 0
            for _ in range(100):
                await asyncio.sleep(0.1)
                assert not letting_go & theirs.keys()
                assert not mine.keys() & theirs.keys()
                met += bool(letting_go)
            assert met > 10
            assert sorted([*mine, *theirs]) == list(range(COUNT))


async def test_the_share_goes_by_weight_and_little_moves() -> None:
    members = [Member("a", 1), Member("b", 2), Member("c", 5)]
    owners = [owner_of(number, members) for number in range(8000)]
    shares = Counter(owners)
    assert shares["a"] == pytest.approx(1000, rel=0.15)
    assert shares["b"] == pytest.approx(2000, rel=0.15)
    assert shares["c"] == pytest.approx(5000, rel=0.15)
    without = [owner_of(number, members[1:]) for number in range(8000)]
    assert all(new == old for new, old in zip(without, owners, strict=True) if old != "a")
    assert owners[:12] == list("bbbbbabccbcc")  # the same in every process and version
    assert owner_of(0, []) is None


async def test_a_change_of_weight_moves_partitions(world: World) -> None:
    a, b = Worker(world.process(), "a"), Worker(world.process(), "b")
    await asyncio.sleep(5)
    before = len(a.owned)
    await a._membership.update(weight=50)
    await asyncio.sleep(5)
    assert len(a.owned) > before
    assert spread(a, b) == list(range(COUNT))
    await asyncio.gather(a.stop(), b.stop())


async def test_the_partitions_of_a_dead_member_go_to_the_others(world: World) -> None:
    a, b = Worker(world.process(), "a"), Worker(world.process(), "b")
    await asyncio.sleep(5)
    tokens = dict(b.owned)
    world.kill(b.client)
    await asyncio.sleep(2 * world.ttl)
    assert len(b.owned) == 0  # it knows
    assert list(a.owned) == list(range(COUNT))
    assert all(a.owned[number] > token for number, token in tokens.items())
    b.client.backend.faults.clear()
    await asyncio.sleep(2 * world.ttl)
    assert dict(b.owned).keys() == tokens.keys()
    fence = Fence(min(b.owned.values()))
    with pytest.raises(StaleTokenError):
        fence.admit(min(tokens.values()))
    await asyncio.gather(a.stop(), b.stop())


async def test_who_was_paused_does_not_believe_in_what_it_had(world: World) -> None:
    a = Worker(world.process(), "a")
    await asyncio.sleep(5)
    assert 3 in a.owned
    world.clock.jump(world.ttl)
    assert 3 not in a.owned
    assert len(a.owned) == 0
    assert list(a.owned) == []
    with pytest.raises(KeyError):
        a.owned[3]
    await asyncio.sleep(2 * world.ttl)
    await a.stop()


async def test_one_that_another_has_before_the_view_showed_ours_is_not_ours(world: World) -> None:
    client, other = world.process(), world.process()
    world.store.faults.conflate = True
    lease = await lease_of(other)
    async with group_of(client).join("a") as member, member.partition(1) as owned:
        client.backend.faults.outage("watch", key="part/")
        await owned.until(lambda owned: 0 in owned)
        record = b'{"member":"b","count":1,"attempt":"x"}'
        world.store.commit([Delete("ns/part/workers/0")], {})
        world.store.commit([Put("ns/part/workers/0", record, lease)], {"ns/part/workers/0": ABSENT})
        client.backend.faults.clear()
        await owned.until(lambda owned: 0 not in owned, timeout=5)


async def test_one_removed_by_hand_is_noticed_and_taken_anew(world: World) -> None:
    a = Worker(world.process(), "a")
    await asyncio.sleep(5)
    token = a.owned[3]
    world.store.commit([Delete("ns/part/workers/3")], {})
    await asyncio.sleep(5)
    assert a.owned[3] > token
    await a.stop()


@pytest.mark.parametrize("fault", ["drop", "drop_answer", "late"])
async def test_lost_answers_leave_no_partition_behind(world: World, fault: str) -> None:
    client = world.process()
    a = Worker(client, "a")
    await asyncio.sleep(5)
    b = Worker(world.process(), "b")
    for one in (a, b):
        late = {"after": 3} if fault == "late" else {}
        getattr(one.client.backend.faults, fault)("commit", times=10, key="part/", **late)
    await asyncio.sleep(30)
    assert spread(a, b) == list(range(COUNT))
    for one in (a, b):
        late = {"after": 3} if fault == "late" else {}
        getattr(one.client.backend.faults, fault)("commit", times=10, key="part/", **late)
    await asyncio.gather(a.stop(), b.stop())
    await asyncio.sleep(10)
    assert world.keys("part/") == []


async def test_what_comes_late_after_leaving_never_comes_to_be(world: World) -> None:
    client = world.process()
    client.backend.faults.late("commit", after=3, key="ns/part/")
    async with group_of(client).join("a") as a, a.partition(4):
        await asyncio.sleep(0.2)
        client.backend.faults.clear()
    await asyncio.sleep(0.1)
    client.backend.faults.clear()
    await asyncio.sleep(10)
    assert world.keys("part/") == []


async def test_what_is_given_up_late_spares_its_next_owner(world: World) -> None:
    """A removal whose answer was lost is sent again, and the first arrives when another owns the partition."""
    leaving, staying = Worker(world.process(), "a"), Worker(world.process(), "b")
    await asyncio.sleep(5)
    assert leaving.owned
    leaving.client.backend.faults.late("commit", after=3, times=len(leaving.owned), key="/part/")
    await leaving.stop()
    while len(staying.owned) < COUNT:
        await asyncio.sleep(0.05)
    owned = dict(staying.owned)
    await asyncio.sleep(5)
    assert dict(staying.owned) == owned
    assert len(world.keys("part/")) == COUNT
    await staying.stop()


async def test_a_callback_that_fails_stops_nothing(world: World) -> None:
    async def released(partition: int, token: int) -> None:
        raise ValueError("mine")

    async with group_of(world.process()).join("a") as a, a.partition(COUNT, released=released):
        await asyncio.sleep(5)
        b = Worker(world.process(), "b")
        await asyncio.sleep(5)
        assert len(b.owned) > 2
        await b.stop()
    assert world.keys() == []


async def test_quiet_costs_nothing(world: World) -> None:
    a, b = Worker(world.process(), "a"), Worker(world.process(), "b")
    await asyncio.sleep(30)
    a.client.backend.calls.clear()
    await asyncio.sleep(600)
    assert not {"get", "scan", "commit", "watch"} & a.client.backend.calls.keys()
    await asyncio.gather(a.stop(), b.stop())


async def test_waiting_for_partitions_ends_in_time(world: World) -> None:
    async with group_of(world.process()).join("a") as a, a.partition(4) as owned:
        await owned.until(lambda owned: len(owned) == 4, timeout=5)
        with pytest.raises(TimedOutError):
            await owned.until(lambda owned: len(owned) == 5, timeout=1)


async def test_what_others_wrote_there_is_left_alone(world: World) -> None:
    client = world.process()
    await client.put("part/workers/3", b"{")
    await client.put("part/workers/x", b"")
    a = Worker(client, "a")
    await asyncio.sleep(30)
    assert list(a.owned) == [number for number in range(COUNT) if number != 3]
    await client.delete("part/workers/3")
    await asyncio.sleep(5)
    assert 3 in a.owned
    await a.stop()


@pytest.mark.parametrize("fault", ["none", "drop", "drop_answer", "late"])
def test_a_cancelled_member_leaves_nothing(fault: str) -> None:
    async def stay(client: Client) -> None:
        async with group_of(client).join("a") as a, a.partition(4) as owned:
            await owned.until(lambda owned: len(owned) == 4)

    async def once(first: int) -> bool:
        world = World()
        client = world.process()
        late = {"after": 0.7} if fault == "late" else {}
        if fault != "none":
            getattr(client.backend.faults, fault)("commit", times=3, key="part/", **late)
        task = asyncio.ensure_future(Suspensions(first).of(stay(client)))
        await asyncio.wait([task])
        await asyncio.sleep(10)
        assert world.keys("part/") + world.keys("grp/") == []
        await world.aclose()
        assert world.keys() == []
        return task.cancelled()

    first = 1
    while run(once(first)):
        first += 1
    assert first > 5


class Shares:
    """No partition is believed in twice, and all have an owner when the faults are over."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.workers: dict[SimulatedProcess, Worker] = {}

    async def run(self) -> None:
        self._check_tokens()
        for _ in range(self.simulation.random.randint(2, 4)):
            self._start()
        looking = asyncio.ensure_future(self._look())
        await self.simulation.trouble(12, restart=self._start)
        await asyncio.sleep(40)
        looking.cancel()
        await asyncio.wait([looking])
        assert looking.cancelled(), looking.exception()
        living = {process: self.workers[process] for process in self.simulation.living}
        assert spread(*living.values()) == list(range(COUNT))
        await asyncio.gather(*(process.call(worker.stop()) for process, worker in living.items()))
        assert await self.simulation.close() == []

    def _start(self, _: SimulatedProcess | None = None) -> None:
        process = self.simulation.process()
        self.workers[process] = process.ask(_Patient, process.client, process.name)

    async def _look(self) -> None:
        """What is believed in is asked of each by its own clock, those that are paused or were killed included."""
        while True:
            owned = [number for worker in self.workers.values() for number in range(COUNT) if number in worker.owned]
            assert sorted(owned) == spread(*self.workers.values())
            assert len(owned) == len(set(owned)), f"owned twice: {self.workers}"
            self.simulation.seen["owned"] += len(owned)
            await asyncio.sleep(0.1)

    def _check_tokens(self) -> None:
        """Every owner is newer than the one before, and none writes over another."""
        commit, store = self.simulation.store.commit, self.simulation.store

        def checking(ops: list[Op], expect: Mapping[str, Condition]) -> Mapping[str, int]:
            puts = [op.key for op in ops if isinstance(op, Put) and op.key.startswith("ns/part/")]
            there = [key for key in puts if store.get(key) is not None]
            result = commit(ops, expect)
            assert not there, f"{there} was taken from its owner"
            self.simulation.seen["taken"] += len(puts)
            return result

        store.commit = checking


class _Patient(Worker):
    """Begins again when the store is away at the start."""

    async def _work(self) -> None:
        while True:
            try:
                return await super()._work()
            except OsdiscoError:
                self._membership = group_of(self.client).join(self._membership.member.id)


@scenario(often={**STRIKES, "killed": 0.4, "taken": 20, "owned": 500})
async def shares(simulation: Simulation) -> None:
    await Shares(simulation).run()


@pytest.mark.timeout(900)
def test_whatever_happens(osdisco_simulate: Callable[[Scenario], None]) -> None:
    osdisco_simulate(shares)


@pytest.mark.osdisco("memory", "etcd", "etcd+http", "consul")
async def test_on_every_store(osdisco_url: str) -> None:
    clients = [connect(osdisco_url) for _ in range(3)]
    workers = [Worker(client, f"m{n}", count=8) for n, client in enumerate(clients)]
    await _until(lambda: spread(*workers) == list(range(8)))
    await workers[0].stop()
    await _until(lambda: spread(*workers[1:]) == list(range(8)))
    await asyncio.gather(*(worker.stop() for worker in workers[1:]))
    assert (await clients[0].scan("part/")).items == {}
    for client in clients:
        await client.aclose()


async def _until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not done():
            await asyncio.sleep(0.02)
