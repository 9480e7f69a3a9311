"""The pains of other libraries' users with locks and elections, each cited: all of them must be impossible here.

"Broken by" says which change of the library brings the pain back, and makes its test fail.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import pytest
from elections import election_of
from recipes import RECIPES, Recipe, believes, give_up, stand
from worlds import NAMESPACE, World, lease_of

from osdisco.backend import Delete, Put
from osdisco.client import Client
from osdisco.coordination import CoordinationService, LeaderElection
from osdisco.coordination._handle import Handle
from osdisco.errors import DeniedError, LostError, OsdiscoError
from osdisco.testing import VirtualClock


@pytest.fixture(params=RECIPES, ids=lambda recipe: recipe.name)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return request.param


async def body(recipe: Recipe, client: Client, cancelled: list[float] | None = None) -> None:
    """Do something for long while it is held."""
    async with recipe.stand(client, 5):
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            if cancelled is not None:
                cancelled.append(client.runtime.clock.now())
            raise


async def test_pain_01_a_holder_that_is_cut_off_knows_before_another_one_holds(world: World, recipe: Recipe) -> None:
    """hashicorp/consul#18271: a partitioned holder did not know for minutes.

    Broken by: a session whose deadline passes without a word (`Session._ring`), or `is_leader` without the deadline.
    """
    client, other = world.process(), world.process()
    thing = recipe.of(client)
    handle = await stand(thing)
    next_one = recipe.waiting(other)
    client.backend.faults.freeze()
    lost = asyncio.ensure_future(handle.lost.wait())
    while not next_one.done():
        assert believes(handle) is not lost.done()
        assert not isinstance(thing, LeaderElection) or thing.is_leader is not lost.done()
        await asyncio.sleep(0.1)
    assert lost.done()
    assert world.clock.now() <= world.ttl + 1
    client.backend.faults.thaw()
    with pytest.raises(LostError):
        await handle.commit([Put("plan", b"old")])
    await give_up(next_one.result())


async def test_pain_02_who_is_told_of_a_loss_keeps_it_from_nobody(world: World, recipe: Recipe) -> None:
    """hashicorp/consul#2371: "lost" is signalled while renewals keep the lock, so nobody leads any more.

    Broken by: a lost session that does not revoke its lease (`Session._lose`).
    """
    client, other = world.process(), world.process()
    handle = await recipe.stand(client)
    await asyncio.sleep(1)
    (live,) = world.store.scan(f"{NAMESPACE}/sess/").items
    world.store.commit([Delete(live)], {})  # of the session that is still renewed well
    await asyncio.wait_for(handle.lost.wait(), 1)
    async with recipe.stand(other, 1):
        pass


async def test_pain_03_what_was_lost_is_acquired_again_with_the_same_object(world: World, recipe: Recipe) -> None:
    """hashicorp/consul#4902: a lock object is of no use after a loss.

    Broken by: an object that keeps its handle and hands it out again (`Acquisition._begin`).
    """
    client = world.process()
    thing = recipe.of(client)
    lost = await stand(thing)
    world.store.faults.end_lease(await lease_of(client))
    await lost.lost.wait()
    handle = await stand(thing, 5)
    assert handle.token > lost.token
    for use in (lambda: give_up(lost), lambda: lost.commit([Put("plan", b"old")]), lost.__aenter__):
        with pytest.raises(LostError):
            await use()
    handle.check()
    await give_up(handle)
    assert recipe.left(world) == []


async def test_pain_04_a_holder_without_a_network_owns_until_its_deadline(world: World, recipe: Recipe) -> None:
    """apache/curator#727: the network drops, and the holder still "owns".

    Broken by: a session that is valid until somebody says otherwise (`Session.check`, `valid` without the clock).
    """
    client, other = world.process(), world.process()
    handle = await recipe.stand(client)
    cut = client.backend.faults.outage()
    await asyncio.sleep(world.ttl / 2)
    cut.end()
    await asyncio.sleep(2 * world.ttl)
    assert believes(handle)  # it was back in time
    client.backend.faults.outage()
    world.clock.jump(world.ttl)  # suspended: no timer and no task had its turn since
    assert not believes(handle)
    async with recipe.stand(other, world.ttl):
        assert not believes(handle)


async def test_pain_05_one_at_most_holds_through_any_reconnect(world: World, recipe: Recipe) -> None:
    """apache/curator#1137, #1169, #1211: two leaders around a reconnect.

    Broken by: a handle that does not follow the session of its entry (`Handle._check_lost` and `_forget`).
    """
    clients = [world.process() for _ in range(3)]
    holding: dict[Client, Handle] = {}
    seen: set[int] = set()

    async def work(client: Client) -> None:
        while True:
            with suppress(OsdiscoError):
                async with recipe.stand(client) as holding[client]:
                    seen.add(holding[client].token)
                    await asyncio.sleep(60)
            await asyncio.sleep(0.1)

    tasks = [asyncio.ensure_future(work(client)) for client in clients]
    for _ in range(8):
        await asyncio.sleep(5)
        (holder,) = [client for client in clients if believes(holding.get(client))]
        holder.backend.faults.freeze()
        for _ in range(30):
            await asyncio.sleep(0.5)
            assert sum(believes(handle) for handle in holding.values()) <= 1
        holder.backend.faults.thaw()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert len(seen) == 9


async def test_pain_06_what_is_left_of_the_session_before_is_nothing_to_the_next(world: World, recipe: Recipe) -> None:
    """apache/curator#1121: a lock is granted on the dying node of the session before.

    Broken by: entries named after their process, and found by their name alone (`Places.enqueue`, `Candidate.id`,
    `Entry._find`).
    """
    client = world.process()
    world.store.faults.expiry_factor = 2.0  # as on Consul
    first = await recipe.stand(client)
    cut, stays = client.backend.faults.outage("renew"), client.backend.faults.outage("revoke")
    await first.lost.wait()
    cut.end()
    assert recipe.leases(world) == {first._entry.session.id} != {await lease_of(client)}
    second = await asyncio.wait_for(recipe.stand(client), 3 * world.ttl)
    assert recipe.leases(world) == {await lease_of(client)}
    assert second.token > first.token
    await asyncio.sleep(3 * world.ttl)
    second.check()
    stays.end()
    await give_up(second)


async def test_pain_07_nobody_holds_who_slept_through_the_end_of_its_lease(world: World, recipe: Recipe) -> None:
    """etcd-io/etcd#11456 (Jepsen): the lock is returned after the death of its lease.

    Broken by: no look at the clock between the wait and the success (`Queue.ahead`, `_State` of the semaphore,
    `Candidate._promote`, and the scopes around them).
    """
    holder, shared = world.process(), world.clock
    handle = await recipe.stand(holder)
    world.clock = VirtualClock()
    client = world.process()
    suspended, world.clock = world.clock, shared
    task = recipe.waiting(client)
    await recipe.contended(world, 2)
    commits = client.backend.calls["commit"]
    suspended.jump(2 * world.ttl)
    await give_up(handle)
    with pytest.raises(LostError):
        await asyncio.wait_for(task, 0.01)
    assert client.backend.calls["commit"] == commits
    await asyncio.sleep(1)
    assert recipe.left(world) == []


async def test_pain_07_nobody_holds_whose_lease_ended_unnoticed(world: World, recipe: Recipe) -> None:
    """etcd-io/etcd#11456 again: renewals are answered well, and the entry is gone with its lease.

    Broken by: a waiter that finds nobody before it, its own entry not looked for (`before`, `Candidate._is_removed`).
    """
    holder, client = world.process(), world.process()
    handle = await recipe.stand(holder)
    task = recipe.waiting(client)
    await recipe.contended(world, 2)
    client.backend.faults.outage("watch", key="sess/")
    client.backend.faults.false_renew()
    world.store.revoke(await lease_of(client))
    await give_up(handle)
    with pytest.raises(LostError):
        await asyncio.wait_for(task, 1)
    assert recipe.left(world) == []


@pytest.mark.parametrize("death", ["revoked", "cut off"])
async def test_pain_08_who_waits_with_a_dead_session_does_not_wait_on(world: World, recipe: Recipe, death: str) -> None:
    """etcd-io/etcd#19597: a waiter whose session has ended waits for its predecessor all the same.

    Broken by: waits outside of the session's scope (`Queue.wait_for_turn`, `_Place.promoted`, `Candidate.elect`).
    """
    async with recipe.stand(world.process()) as handle:
        client = world.process()
        task = recipe.waiting(client)
        await recipe.contended(world, 2)
        if death == "revoked":
            world.store.faults.end_lease(await lease_of(client))
        else:
            client.backend.faults.freeze()
        with pytest.raises(LostError):
            await asyncio.wait_for(task, 1 if death == "revoked" else world.ttl)
        handle.check()


async def test_pain_08_who_participates_with_a_session_of_its_own_is_told_of_its_end(world: World) -> None:
    """etcd-io/etcd#19597, for `participate`. Broken by: campaigning on with the session that has ended."""
    client = world.process()
    async with client.session() as session:
        election = election_of(client, session=session)
        task = asyncio.ensure_future(election.participate())
        await asyncio.sleep(1)
        assert election.is_leader
        world.store.faults.end_lease(session.id)
        with pytest.raises(LostError):
            await asyncio.wait_for(task, 1)


@pytest.mark.parametrize("fault", ["drop", "drop_answer", "late"])
async def test_pain_09_no_lost_answer_leaves_a_phantom(world: World, recipe: Recipe, fault: str) -> None:
    """cagriekin/charts#327: a leader in the store that nobody is, and candidates that wait for it.

    Broken by: an entry that is deleted while a create of it may still come (`Entry._last_words`).
    """
    options = {"after": 1.5} if fault == "late" else {}
    clients = [world.process(timeout=1) for _ in range(2)]
    folder = recipe.queue.partition("/")[0] + "/"
    for step in range(24):
        client = clients[step % 2]
        await client.shared_session()
        getattr(client.backend.faults, fault)("commit", times=1 + step % 3, key=folder, **options)
        with suppress(OsdiscoError):
            await give_up(await recipe.stand(client, timeout=(step + 1) / 8))
        await asyncio.sleep(5)
        client.backend.faults.clear()
        await asyncio.sleep(2)
        assert recipe.contenders(world) == []
        async with recipe.stand(clients[0], 0.1):
            pass


async def cancelled(world: World, client: Client, waiting: asyncio.Task[object]) -> type[BaseException]:
    waiting.cancel()
    await asyncio.wait([waiting])
    return asyncio.CancelledError


async def denied(world: World, client: Client, waiting: asyncio.Task[object]) -> type[BaseException]:
    client.backend.faults.deny("watch", "scan")
    return DeniedError


async def closed(world: World, client: Client, waiting: asyncio.Task[object]) -> type[BaseException]:
    await client.aclose()
    return OsdiscoError


async def lost(world: World, client: Client, waiting: asyncio.Task[object]) -> type[BaseException]:
    world.store.faults.end_lease(await lease_of(client))
    return LostError


@pytest.mark.parametrize("leave", [cancelled, denied, closed, lost])
async def test_pain_10_who_does_not_come_to_hold_leaves_no_ghost(world: World, recipe: Recipe, leave: object) -> None:
    """etcd-io/etcd#21128: a failed Campaign leaves a candidate behind, which is then elected and never leads.

    Broken by: a wait that fails without giving up its entry (`Entry.abandon`, `Candidate.withdraw`).
    """
    holder, client = world.process(), world.process()
    handle = await recipe.stand(holder)
    waiting = recipe.waiting(client)
    await recipe.contended(world, 2)
    await asyncio.sleep(1)
    with pytest.raises(await leave(world, client, waiting)):
        await asyncio.wait_for(waiting, 5)
    await asyncio.sleep(1)
    assert len(recipe.contenders(world)) == 1
    await give_up(handle)
    async with recipe.stand(holder, 0.1):
        pass
    assert recipe.left(world) == []


@pytest.mark.parametrize("conflate", [False, True])
async def test_pain_11_tasks_of_one_session_exclude_each_other(world: World, recipe: Recipe, conflate: bool) -> None:
    """etcd-io/etcd#11360: a key named after the lease lets two tasks of one process hold the same thing.

    Broken by: entries named after their session (`Places.enqueue`, `Candidate.id`).
    """
    world.store.faults.conflate = conflate
    client = world.process()
    thing, inside, turns = recipe.of(client), 0, 0

    async def turn() -> None:
        nonlocal inside, turns
        async with stand(thing, 60):
            inside += 1
            assert inside == 1
            await asyncio.sleep(1)
            inside -= 1
            turns += 1

    await asyncio.wait_for(asyncio.gather(*(turn() for _ in range(4))), 20)
    assert turns == 4


async def test_pain_12_an_attempt_in_vain_leaves_nothing_in_the_end(world: World, recipe: Recipe) -> None:
    """python-zk/kazoo#760: a failed try-lock leaves an orphan in the queue.

    Broken by: a removal that is tried once (`Entry._end`).
    """
    holder, client = world.process(), world.process(timeout=1)
    async with recipe.stand(holder) as handle:
        await client.shared_session()
        client.backend.faults.delay("scan", "commit", answer=0.3)
        attempt = asyncio.ensure_future(recipe.attempt(client))
        await recipe.contended(world, 2)
        rule = client.backend.faults.outage("commit")
        assert await asyncio.wait_for(attempt, 5) is None
        await asyncio.sleep(5)
        assert len(recipe.contenders(world)) == 2
        rule.end()
        await asyncio.sleep(5)
        assert len(recipe.contenders(world)) == 1
        handle.check()


@pytest.mark.parametrize("seed", range(30))
async def test_pain_13_readers_and_writers_never_wait_for_who_came_later(world: World, seed: int) -> None:
    """python-zk/kazoo#649: a reader waits for a writer that came after it, and that writer for the reader.

    Broken by: waiting for every writer in the queue, and not only for those before (`before`).
    """
    chance, clients = random.Random(seed), [world.process() for _ in range(3)]
    kinds = [chance.choice(["read", "write"]) for _ in range(8)]
    began: list[int] = []

    async def turn(number: int) -> None:
        lock = getattr(CoordinationService(chance.choice(clients)).rwlock("job"), kinds[number])()
        async with lock.acquire(timeout=60):
            began.append(number)
            await asyncio.sleep(1)

    tasks = []
    for number in range(len(kinds)):
        tasks.append(asyncio.ensure_future(turn(number)))
        await asyncio.sleep(0.01)
    await asyncio.wait_for(asyncio.gather(*tasks), 1.1 * len(kinds))
    for number, kind in enumerate(kinds):
        later = began[: began.index(number)]
        assert kind == "read" or max(later, default=-1) < number
        assert all(kinds[one] == "read" for one in later if one > number)


async def test_pain_14_a_loss_is_raised_to_the_holder_and_the_session_is_rebuilt(world: World, recipe: Recipe) -> None:
    """sodafoundation/delfin#640, StackStorm/st2#4015: the log says "no longer owned", and the process must restart.

    Broken by: a shared session that stays the shared one when it is lost (`_Sessions.shared`).
    """
    client = world.process()
    for _ in range(3):
        cancelled: list[float] = []
        working = asyncio.ensure_future(body(recipe, client, cancelled))
        await asyncio.sleep(0.5)
        assert recipe.leases(world) == {await lease_of(client)}
        world.store.faults.end_lease(await lease_of(client))
        with pytest.raises(LostError):
            await asyncio.wait_for(working, 1)
        assert cancelled


async def test_pain_14_who_participates_leads_again_by_itself(world: World) -> None:
    """StackStorm/st2#4015, for `participate`. Broken by: an end of it at the first loss."""
    client = world.process()
    election = election_of(client)
    participating = asyncio.ensure_future(election.participate())
    for _ in range(3):
        await asyncio.sleep(1)
        assert election.is_leader
        world.store.faults.end_lease(await lease_of(client))
        await asyncio.sleep(0.1)
    participating.cancel()
    await asyncio.wait([participating])


async def test_pain_15_a_body_is_cancelled_before_the_store_gives_its_lock_away(world: World, recipe: Recipe) -> None:
    """python-zk/kazoo#565: users cannot work out how to wire the loss to what they do.

    Broken by: a scope that does not cancel its body (`Scope._on_lost`).
    """
    client = world.process()
    cancelled: list[float] = []
    working = asyncio.ensure_future(body(recipe, client, cancelled))
    await asyncio.sleep(0.5)
    client.backend.faults.freeze()
    while not cancelled:
        await asyncio.sleep(0.1)
    assert len(recipe.contenders(world)) == 1  # the store still keeps it for us
    assert cancelled[0] < world.ttl
    with pytest.raises(LostError):
        await working
    client.backend.faults.clear()
