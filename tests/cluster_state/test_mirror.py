"""The writer: what it asks of the cluster, what it writes, and what is left when it dies at any step of that."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest
from mirrors import EVERYTHING, HEAD, JOURNAL, PREFIX, Mirrored, blobs_in
from worlds import World, until

from osdisco.backend import Condition, Delete, Op, Put
from osdisco.client import Client
from osdisco.cluster import ClusterStateService, MirrorState, StateComponent, StateVersion
from osdisco.cluster._head import Journal
from osdisco.errors import ConflictError, IndeterminateError
from osdisco.testing import FakeCluster, Fault

NODES, BLOCKS = StateComponent.NODES, StateComponent.BLOCKS
VERSION = "/_cluster/state/version"


def faults_of(client: Client) -> Any:
    return client.backend.faults  # type: ignore[attr-defined]


def fetches(cluster: FakeCluster) -> int:
    """Return how often the whole state was asked for."""
    return sum(
        count for path, count in cluster.requests.items() if path.startswith("/_cluster/state") and path != VERSION
    )


async def test_the_cluster_is_asked_once_a_second_and_once_for_each_change_however_many_read(
    mirrored: Mirrored,
) -> None:
    mirror = await mirrored.mirror()
    readers = [await mirrored.reader(*EVERYTHING) for _ in range(300)]
    await mirrored.seen(mirror, *readers)
    before = Counter(mirrored.cluster.requests), fetches(mirrored.cluster)
    for number in range(5):
        mirrored.cluster.create_index(f"new-{number}")
        await mirrored.seen(*readers)
    seconds = 60 - 5 * 2
    await asyncio.sleep(seconds)
    assert fetches(mirrored.cluster) - before[1] == 5
    small = mirrored.cluster.requests[VERSION] - before[0][VERSION]
    assert seconds * 0.9 <= small <= seconds * 1.1 + 5 * 3
    assert mirrored.cluster.requests["/_nodes/http"] - before[0]["/_nodes/http"] <= 3


async def test_a_change_seldom_comes_alone(mirrored: Mirrored) -> None:
    """Many changes within half a second are one fetch; under constant change there still is one now and then."""
    mirror = await mirrored.mirror(*EVERYTHING)
    await mirrored.seen(mirror)
    before, heads = fetches(mirrored.cluster), len(mirrored.audit.heads)
    for number in range(100):
        mirrored.cluster.create_index(f"i-{number}")
        await asyncio.sleep(0.1)
    await mirrored.seen(mirror)
    assert 5 <= fetches(mirrored.cluster) - before <= 9
    assert len(mirrored.audit.heads) - heads == fetches(mirrored.cluster) - before


async def test_a_moved_shard_costs_one_small_blob(world: World) -> None:
    cluster = FakeCluster()
    with cluster.together():
        for number in range(300):
            cluster.create_index(f"logs-{number}", shards=3)
    mirrored = Mirrored(world, cluster)
    mirror = await mirrored.mirror(*EVERYTHING)
    await mirrored.seen(mirror)
    before, sizes = mirrored.blobs, mirror.mirror.sizes
    assert sizes["routing_table"].blobs > 4
    cluster.move_shard("logs-7", 1, "n1" if cluster.copies("logs-7", 1)[0]["node"] != "n1" else "n2")
    await mirrored.seen(mirror)
    new = Counter(component for component, _ in mirrored.blobs - before)
    assert new["routing_table"] == 1
    assert new["metadata"] <= 1  # which copies are in sync
    assert new.total() <= 2


async def test_nothing_is_written_while_nothing_changes(mirrored: Mirrored) -> None:
    mirror = await mirrored.mirror()
    await mirrored.seen(mirror)
    before = mirrored.world.store.scan(PREFIX).items
    await asyncio.sleep(200)
    assert mirrored.world.store.scan(PREFIX).items == before


async def test_garbage_stays_for_slow_readers_and_goes_then(mirrored: Mirrored) -> None:
    mirror = await mirrored.mirror(*EVERYTHING)
    await mirrored.seen(mirror)
    first = {blob.address for blob in mirrored.head.blobs()}
    for number in range(4):
        mirrored.cluster.create_index(f"new-{number}")
        await mirrored.seen(mirror)
    gone = first - mirrored.last_heads(3)
    assert gone
    await asyncio.sleep(45)
    assert first <= mirrored.blobs  # not 60 s old
    await asyncio.sleep(30)
    assert not gone & mirrored.blobs
    assert mirrored.blobs == mirrored.last_heads(3)
    assert Journal.parse(mirrored.world.store.scan(PREFIX).items[JOURNAL].value).pending == {}


async def test_garbage_of_the_last_heads_stays_however_old_it_is(mirrored: Mirrored) -> None:
    mirror = await mirrored.mirror(*EVERYTHING)
    await mirrored.seen(mirror)
    mirrored.cluster.create_index("new")
    await mirrored.seen(mirror)
    await asyncio.sleep(300)
    assert mirrored.blobs == mirrored.last_heads(2)


async def test_the_journal_never_outgrows_its_key(mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("osdisco.cluster._publisher.WAITING_MAX", 12)
    mirror = await mirrored.mirror(*EVERYTHING)
    for number in range(30):
        mirrored.cluster.create_index(f"new-{number}")
        await mirrored.seen(mirror)
        journal = Journal.parse(mirrored.world.store.scan(PREFIX).items[JOURNAL].value)
        assert sum(map(len, journal.garbage.values())) <= 12


class Interception:
    """Catches one of a process's writes of keys that begin in a way. It arrives, soon or late, or it was never sent.

    Args:
        at: which of them it is; 1 is the next one.
        then: called when it is caught, as to end the process.
        arrives: after how many seconds; never when None.
    """

    def __init__(
        self,
        mirrored: Mirrored,
        client: Client,
        keys: str,
        *,
        at: int = 1,
        then: Callable[[], object] = lambda: None,
        arrives: float | None,
    ) -> None:
        self.left = at
        self._store, self._keys, self._then, self._arrives = mirrored.world.store, keys, then, arrives
        self._commit = client.backend.commit
        client.backend.commit = self._meet  # type: ignore[method-assign]

    async def _meet(self, ops: Sequence[Op], expect: Mapping[str, Condition], *, timeout: float) -> Mapping[str, int]:
        if any(op.key.startswith(self._keys) for op in ops):
            self.left -= 1
            if self.left == 0:
                self._then()
                self._send(ops, expect)
                raise IndeterminateError("the answer is lost")
        return await self._commit(ops, expect, timeout=timeout)

    def _send(self, ops: Sequence[Op], expect: Mapping[str, Condition]) -> None:
        def arrive() -> None:
            with suppress(ConflictError):
                self._store.commit(ops, expect)

        if self._arrives is not None:
            asyncio.get_running_loop().call_later(self._arrives, arrive)


@pytest.mark.parametrize("arrives", [None, 0.0, 12.0], ids=["never sent", "applied", "late"])
@pytest.mark.parametrize("at", range(1, 12))
async def test_a_mirror_killed_at_any_of_its_writes_leaves_nothing_torn_and_nothing_behind(
    mirrored: Mirrored, at: int, arrives: float | None
) -> None:
    client = mirrored.world.process()

    def kill() -> None:
        mirrored.world.kill(client)
        mirrored.cluster.join("n4")  # nobody publishes any more what was on its way

    caught = Interception(mirrored, client, PREFIX, at=at, arrives=arrives, then=kill)
    await mirrored.mirror(client=client)
    heir = await mirrored.mirror()
    reader = await mirrored.reader(*EVERYTHING)
    for number in range(5):
        mirrored.cluster.create_index(f"new-{number}")
        await asyncio.sleep(30)
    assert caught.left == 0
    assert heir.mirroring
    await mirrored.seen(reader, seconds=30)
    await asyncio.sleep(100)
    assert mirrored.blobs <= mirrored.last_heads(3)
    assert not reader.stale


async def test_lost_answers_and_late_writes_cost_nothing_but_time(mirrored: Mirrored) -> None:
    client = mirrored.world.process()
    mirror = await mirrored.mirror(*EVERYTHING, client=client)
    for number in range(20):
        fault = faults_of(client).drop_answer if number % 2 else faults_of(client).drop
        fault("commit", times=1, key="cluster/")
        faults_of(client).late("commit", after=3.0, times=1, key="cluster/")
        mirrored.cluster.create_index(f"new-{number}")
        await asyncio.sleep(5)
    await mirrored.seen(mirror)
    await asyncio.sleep(150)
    assert mirrored.blobs <= mirrored.last_heads(3)


async def test_a_head_that_was_on_its_way_when_a_later_one_was_written_is_refused(mirrored: Mirrored) -> None:
    client = mirrored.world.process()
    mirror = await mirrored.mirror(*EVERYTHING, client=client)
    await mirrored.seen(mirror)
    caught = Interception(mirrored, client, HEAD, arrives=20.0)
    mirrored.cluster.create_index("first")
    await mirrored.seen(mirror)
    mirrored.cluster.create_index("second")
    await mirrored.seen(mirror)
    assert caught.left < 0
    await asyncio.sleep(30)
    assert mirrored.head.version == mirrored.cluster.version


async def test_a_removal_that_was_on_its_way_spares_what_is_needed_again(mirrored: Mirrored) -> None:
    """The blob that was garbage is shown again when its removal arrives."""
    client = mirrored.world.process()
    mirror = await mirrored.mirror(BLOCKS, client=client)
    mirrored.cluster.block("read_only", "logs")
    await mirrored.seen(mirror)
    (blocked,) = [blob.address for blob in mirrored.head.blobs("blocks")]
    mirrored.cluster.unblock("read_only", "logs")
    for number in range(3):
        mirrored.cluster.create_index(f"new-{number}")
        await mirrored.seen(mirror)
    caught = Interception(mirrored, client, f"{PREFIX}blob/blocks/{blocked[1]}", arrives=4.0)
    await until(lambda: caught.left <= 0, 90)
    mirrored.cluster.block("read_only", "logs")
    await mirrored.seen(mirror)
    await asyncio.sleep(10)
    assert blocked in mirrored.blobs


async def test_a_mirror_that_was_cut_off_writes_nothing_after_another_one_leads(mirrored: Mirrored) -> None:
    """Its head was on the way when it lost the leadership. Who leads now has written nothing yet."""
    client = mirrored.world.process()
    old = await mirrored.mirror(client=client)
    await mirrored.seen(old)
    heir = await mirrored.mirror()
    mirrored.sources[heir].faults.add(Fault.CUT)
    Interception(mirrored, client, HEAD, then=lambda: mirrored.world.kill(client), arrives=30.0)
    before = mirrored.head
    mirrored.cluster.create_index("new")
    await until(lambda: heir.mirroring, 25)
    await asyncio.sleep(30)
    assert mirrored.head == before
    mirrored.sources[heir].faults.clear()
    await mirrored.seen(heir, seconds=60)


async def test_two_candidates_are_one_mirror(mirrored: Mirrored) -> None:
    services = [await mirrored.mirror(*EVERYTHING) for _ in range(2)]
    await mirrored.seen(*services)
    assert sorted(service.mirroring for service in services) == [False, True]
    leader = next(service for service in services if service.mirroring)
    before = mirrored.cluster.requests[VERSION]
    await asyncio.sleep(20)
    assert mirrored.cluster.requests[VERSION] - before <= 23
    await leader.stop()
    (heir,) = [service for service in services if service is not leader]
    await until(lambda: heir.mirroring)


async def test_who_cannot_reach_the_cluster_gives_the_leadership_away(mirrored: Mirrored) -> None:
    mirror = await mirrored.mirror()
    await mirrored.seen(mirror)
    heir = await mirrored.mirror()
    mirrored.sources[mirror].faults.add(Fault.DENIED)
    mirrored.cluster.create_index("new")
    await until(lambda: heir.mirroring, 30)
    await mirrored.seen(heir)
    await asyncio.sleep(60)  # by then it stands again, behind the other one
    assert heir.mirroring


async def test_who_may_not_write_lets_others_lead(mirrored: Mirrored) -> None:
    client = mirrored.world.process()
    faults_of(client).deny("commit", key="default/head")
    mirror = await mirrored.mirror(client=client)
    await until(lambda: mirror.mirror.candidate is MirrorState.RESTING)
    heir = await mirrored.mirror(*EVERYTHING)
    await mirrored.seen(heir)
    assert "denied" in str(mirror.mirror.error)
    await asyncio.sleep(60)
    assert heir.mirroring


async def test_who_is_the_only_candidate_keeps_trying(mirrored: Mirrored) -> None:
    mirror = await mirrored.mirror()
    await mirrored.seen(mirror)
    with mirrored.cluster.faults.on(Fault.UNAVAILABLE):
        before = mirrored.cluster.requests[VERSION]
        await asyncio.sleep(300)
        assert mirror.mirroring
        assert 20 <= mirrored.cluster.requests[VERSION] - before <= 50
    mirrored.cluster.create_index("new")
    await mirrored.seen(mirror, seconds=20)


async def test_when_nobody_reaches_the_cluster_the_leadership_goes_round_slowly(mirrored: Mirrored) -> None:
    services = [await mirrored.mirror() for _ in range(3)]
    leaders: list[ClusterStateService] = []
    with mirrored.cluster.faults.on(Fault.CUT):
        for _ in range(300):
            await asyncio.sleep(1)
            leading = [service for service in services if service.mirroring]
            assert len(leading) <= 1
            leaders += [one for one in leading if leaders[-1:] != [one]]
        assert {*leaders} == {*services}
        assert len(leaders) <= 40
    await until(lambda: mirrored.shows_now(services[0]), 40)


async def test_a_cluster_that_does_not_answer_the_small_question_is_said_to_be_away(mirrored: Mirrored) -> None:
    """A source that waits for ever keeps the leadership, so all others must know that they see what is old."""
    mirror = await mirrored.mirror()
    reader = await mirrored.reader(*EVERYTHING)
    await mirrored.seen(mirror, reader)
    source, answered = mirrored.sources[mirror], asyncio.Event()
    version = source.version

    async def silent() -> StateVersion:
        await answered.wait()
        return await version()

    source.version = silent  # type: ignore[method-assign]
    await until(lambda: "has not answered" in str(reader.stale_reason), 10)
    mirrored.cluster.create_index("new")
    answered.set()
    await mirrored.seen(reader)
    await until(lambda: not reader.stale, 10)


async def test_a_busy_cluster_is_left_alone_for_as_long_as_it_wishes(mirrored: Mirrored) -> None:
    await mirrored.mirror()
    mirrored.cluster.faults.add(Fault.BUSY, seconds=12.0, times=1)
    await until(lambda: mirrored.cluster.requests[VERSION] == 1)
    await asyncio.sleep(11)
    assert mirrored.cluster.requests[VERSION] == 1
    await until(lambda: mirrored.cluster.requests[VERSION] > 1)


@pytest.mark.parametrize(
    "fault", [Fault.HALF, Fault.WRONG_JSON, Fault.NO_JSON, Fault.HTML, Fault.EMPTY, Fault.HUGE, Fault.NOT_FOUND]
)
@pytest.mark.parametrize("path", [VERSION, "/_cluster/state/"])
async def test_an_answer_that_is_none_is_never_published(mirrored: Mirrored, fault: Fault, path: str) -> None:
    mirror = await mirrored.mirror(*EVERYTHING)
    await mirrored.seen(mirror)
    before = mirrored.head
    with mirrored.cluster.faults.on(fault, path):
        mirrored.cluster.create_index("new")
        await asyncio.sleep(10)
        assert mirrored.head == before
        assert "cannot be mirrored" in str(mirror.stale_reason)
    await mirrored.seen(mirror, seconds=20)
    await until(lambda: not mirror.stale)


async def test_what_somebody_removed_by_hand_is_there_again(world: World) -> None:
    mirrored = Mirrored(world, audited=False)
    mirror = await mirrored.mirror(*EVERYTHING)
    await mirrored.seen(mirror)
    store = world.store
    store.commit([Delete(HEAD)], {})
    await until(lambda: "removed" in str(mirror.stale_reason))
    assert mirror.state.nodes
    await until(lambda: not mirror.stale, 40)
    for key in [key for key in store.scan(PREFIX).items if "/blob/" in key]:
        store.commit([Delete(key)], {})
    reader = await mirrored.reader(*EVERYTHING)
    await until(lambda: "is not there" in str(reader.stale_reason))
    await mirrored.seen(reader, seconds=40)
    assert not reader.stale
    await asyncio.sleep(200)
    assert blobs_in(store.scan(PREFIX).items) == {blob.address for blob in mirrored.head.blobs()}


async def test_what_a_newer_osdisco_has_written_is_not_touched(world: World) -> None:
    mirrored, store = Mirrored(world, audited=False), world.store
    newer = b'{"format":2,"anything":[]}'
    store.commit([Put(HEAD, newer)], {})
    mirror = await mirrored.mirror()
    await asyncio.sleep(60)
    assert store.scan(PREFIX).items[HEAD].value == newer
    assert "format 2" in str(mirror.mirror.error)
