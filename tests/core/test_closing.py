"""Nothing is left behind: by closing, twice or in any order, and by a cancellation at any await."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from core_fakes import CancelledAt, Spy, keys, leases, spied

from osdisco import Client, Put, Session, SessionState
from osdisco.errors import ClosedError, IndeterminateError, OsdiscoError, UnavailableError
from osdisco.testing import VirtualClock, run
from osdisco_memory import MemoryStore


def tasks() -> list[str]:
    """Return the names of all tasks but the test's own and its fixtures'."""
    names = (task.get_name() for task in asyncio.all_tasks() - {asyncio.current_task()})
    return sorted(name for name in names if not name.startswith("fixture"))


def timers() -> list[str]:
    """Return what the loop is going to call."""
    loop = asyncio.get_running_loop()
    return [str(handle) for handle in loop._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]


async def open_and_close(client: Client) -> None:
    with suppress(IndeterminateError):  # of the put; what counts is what is left
        async with client.session() as session:
            await session.put("k", b"")
            await asyncio.sleep(0.1)


FAULTS: dict[str, Callable[[MemoryStore], object]] = {
    "fine": lambda store: None,
    "slow": lambda store: store.faults.delay(request=0.05, answer=0.05),
    "granted long before the answer": lambda store: store.faults.delay("grant", answer=1.0),
    "first answers lost": lambda store: store.faults.drop_answer("commit", "revoke", times=2),
    "first revoke refused": lambda store: store.faults.outage("revoke", times=1),
}

Cut = Callable[[Coroutine[Any, Any, None]], Awaitable[bool]]
"""Runs something, cancelling it somewhere; returns whether it got that far."""


def at_await(step: int, *, answered: bool = False, again: bool = False) -> Cut:
    """Cancel when the work itself waits for the `step`-th time."""

    async def cut(work: Coroutine[Any, Any, None]) -> bool:
        cancelled = CancelledAt(work, step, answered=answered, again=again)
        with suppress(asyncio.CancelledError):
            await asyncio.create_task(awaited(cancelled))
        return cancelled.reached

    return cut


def at_round(rounds: int) -> Cut:
    """Cancel after so many rounds of the loop, wherever the tasks are that the work started."""

    async def cut(work: Coroutine[Any, Any, None]) -> bool:
        task = asyncio.create_task(work)
        for _ in range(rounds):
            await asyncio.sleep(0)
        return await _cancelled(task)

    return cut


def at_time(seconds: float) -> Cut:
    """Cancel at a moment of virtual time."""

    async def cut(work: Coroutine[Any, Any, None]) -> bool:
        task = asyncio.create_task(work)
        await asyncio.sleep(seconds)
        return await _cancelled(task)

    return cut


async def _cancelled(task: asyncio.Task[None]) -> bool:
    early = not task.done()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return early


async def awaited(awaitable: Awaitable[object]) -> None:
    await awaitable


async def cut_everywhere(
    clock: VirtualClock,
    cuts: Iterable[Cut],
    work: Callable[[Client], Coroutine[Any, Any, None]],
    prepare: Callable[[MemoryStore, Client], Awaitable[object]],
) -> None:
    """Cut `work` short in all ways, each time on a new store; nothing must be left and the client must work on."""
    for number, cut in enumerate(cuts):
        store = MemoryStore(clock=clock)
        client, _ = spied(store, clock, ttl=10.0)
        await prepare(store, client)
        reached = await cut(work(client))
        await clock.advance(2.5)  # what was begun comes to its end, far within the ttl
        assert (leases(store), keys(store)) == ([], []), f"left behind by cut {number}"
        assert tasks() == [], f"left running by cut {number}"
        store.faults.clear()
        async with client.session() as session:
            session.check()
        await client.aclose()
        assert timers() == [], f"left scheduled by cut {number}"
        if not reached:
            assert number > 2, "nothing was cut"
            return
    raise AssertionError("there are more places to cut than were tried")


def faulty(fault: str) -> Callable[[MemoryStore, Client], Awaitable[None]]:
    async def prepare(store: MemoryStore, client: Client) -> None:
        FAULTS[fault](store)

    return prepare


@pytest.mark.parametrize("again", [False, True], ids=["once", "at every await"])
@pytest.mark.parametrize("answered", [False, True], ids=["while waiting", "with the answer"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_session_cancelled_at_any_await_of_its_life_leaves_nothing(
    clock: VirtualClock, fault: str, answered: bool, again: bool
) -> None:
    cuts = (at_await(step, answered=answered, again=again) for step in range(1, 60))
    await cut_everywhere(clock, cuts, open_and_close, faulty(fault))


async def test_a_session_cancelled_in_any_round_of_the_loop_leaves_nothing(clock: VirtualClock) -> None:
    async def work(client: Client) -> None:
        async with client.session() as session:
            await session.put("k", b"")

    await cut_everywhere(clock, map(at_round, range(1, 100)), work, faulty("fine"))


@pytest.mark.parametrize("fault", ["slow", "granted long before the answer"])
@pytest.mark.parametrize("offset", [0.0, 0.0125], ids=["as something comes", "between"])
async def test_a_session_cancelled_at_any_moment_leaves_nothing(clock: VirtualClock, fault: str, offset: float) -> None:
    cuts = (at_time(offset + step * 0.025) for step in range(1, 100))
    await cut_everywhere(clock, cuts, open_and_close, faulty(fault))


@pytest.mark.parametrize("again", [False, True], ids=["once", "at every await"])
async def test_closing_a_session_cancelled_at_any_moment_leaves_nothing(clock: VirtualClock, again: bool) -> None:
    opened: dict[Client, Session] = {}

    async def prepare(store: MemoryStore, client: Client) -> None:
        session = opened[client] = await client.session()
        await session.put("k", b"")
        session.keep_until_ended(asyncio.sleep(0.5), "something that ends in its own time")
        store.faults.delay("revoke", request=0.1, answer=0.1)

    cuts = [at_await(1, again=again), *(at_time(step * 0.05) for step in range(1, 20))]
    await cut_everywhere(clock, cuts, lambda client: opened[client].aclose(), prepare)
    assert all(session.state is SessionState.LOST for session in opened.values())


async def test_a_shared_session_that_nobody_waits_for_any_more_goes_with_the_client(
    store: MemoryStore, clock: VirtualClock
) -> None:
    client, _ = spied(store, clock)
    store.faults.delay("grant", answer=1)
    waiting = asyncio.create_task(client.shared_session())
    await asyncio.sleep(0.5)
    waiting.cancel()
    await client.aclose()
    assert leases(store) == keys(store) == tasks() == timers() == []


# closing a client


async def busy_client(store: MemoryStore, clock: VirtualClock) -> tuple[Client, Spy]:
    client, spy = spied(store, clock, ttl=10.0)
    await (await client.session()).put("a", b"")
    await (await client.shared_session()).put("b", b"")
    await client.view()
    await client.scoped("deeper").view()
    await client.watch().__aenter__()
    await clock.advance(1)
    return client, spy


async def test_a_closed_client_leaves_no_lease_key_watch_task_or_timer(store: MemoryStore, clock: VirtualClock) -> None:
    client, spy = await busy_client(store, clock)
    assert len(leases(store)) == 2
    assert len(keys(store)) == 4
    assert spy.following
    assert tasks()
    await client.aclose()
    assert leases(store) == keys(store) == tasks() == timers() == []
    assert not spy.following


@pytest.mark.parametrize("step", range(1, 4))
async def test_closing_a_client_goes_on_when_its_caller_is_cancelled(
    store: MemoryStore, clock: VirtualClock, step: int
) -> None:
    client, _ = await busy_client(store, clock)
    store.faults.delay("revoke", request=0.2, answer=0.2)
    with suppress(asyncio.CancelledError):
        await asyncio.create_task(awaited(CancelledAt(client.aclose(), step)))
    await client.aclose()
    assert leases(store) == keys(store) == tasks() == timers() == []


async def test_closing_twice_waits_for_the_same_end(store: MemoryStore, clock: VirtualClock) -> None:
    client, spy = await busy_client(store, clock)
    store.faults.delay("revoke", request=0.5)
    first = asyncio.create_task(client.aclose())
    await asyncio.sleep(0.1)
    await client.aclose()
    assert leases(store) == []
    await first
    await client.aclose()
    assert spy.count("revoke") == 2


async def test_a_client_closes_within_its_timeout_when_the_store_does_not_answer(
    store: MemoryStore, clock: VirtualClock
) -> None:
    client, _ = await busy_client(store, clock)
    begun = clock.now()
    store.faults.freeze()
    await client.aclose()
    assert clock.now() - begun <= client.options.timeout
    assert tasks() == timers() == []
    store.faults.thaw()
    await clock.advance(11)
    assert leases(store) == keys(store) == []


async def test_a_revoke_that_fails_once_is_tried_again_while_closing(store: MemoryStore, clock: VirtualClock) -> None:
    for fault in ("outage", "drop", "drop_answer"):
        client, _ = await busy_client(store, clock)
        getattr(store.faults, fault)("revoke", times=2)
        await client.aclose()
        assert leases(store) == keys(store) == [], fault


async def test_a_session_that_is_being_opened_when_the_client_closes_leaves_no_lease(
    store: MemoryStore, clock: VirtualClock
) -> None:
    client, _ = spied(store, clock)
    store.faults.delay("grant", request=0.2, answer=0.5)
    opening = asyncio.gather(client.session(), client.shared_session(), return_exceptions=True)
    await asyncio.sleep(0.4)
    await client.aclose()
    assert leases(store) == keys(store) == []
    assert all(isinstance(result, OsdiscoError) for result in await opening)
    assert tasks() == timers() == []


async def test_a_session_closed_by_another_while_it_is_being_opened_is_not_given_out(
    client: Client, store: MemoryStore, clock: VirtualClock
) -> None:
    store.faults.delay("grant", answer=0.5)
    session = client.session()

    async def open_it() -> Session:
        return await session

    opening = asyncio.create_task(open_it())
    await asyncio.sleep(0.1)
    await session.aclose()
    with pytest.raises(OsdiscoError):
        await opening
    assert leases(store) == keys(store) == []


async def test_what_is_used_after_the_client_closed_says_so(store: MemoryStore, clock: VirtualClock) -> None:
    client, spy = spied(store, clock)
    deeper = client.scoped("deeper")
    view, waiting = client.view(), client.session()
    await client.aclose()
    uses: list[Callable[[], Awaitable[object]]] = [
        lambda: client.get("k"),
        lambda: client.put("k", b""),
        lambda: client.create("k", b""),
        lambda: client.update("k", lambda _: b""),
        lambda: client.delete("k"),
        lambda: client.scan(),
        lambda: client.commit([Put("k", b"")]),
        lambda: client.inspect(),
        lambda: client.shared_session(),
        lambda: awaited(view),
        lambda: awaited(waiting),
        lambda: client.watch().__aenter__(),
        lambda: deeper.get("k"),
        lambda: deeper.shared_session(),
    ]
    for use in uses:
        with pytest.raises(ClosedError):
            await use()
    with pytest.raises(ClosedError):
        client.session()
    assert spy.sent == []
    await client.aclose()


async def test_closing_a_scoped_client_closes_nothing(client: Client) -> None:
    async with client.scoped("deeper") as deeper:
        await deeper.put("k", b"1")
    await deeper.aclose()
    assert await deeper.get("k") == await client.scoped("deeper").get("k")
    assert (await client.shared_session()).valid


async def test_who_waits_for_a_view_or_a_watch_is_told_that_the_client_closed(
    store: MemoryStore, clock: VirtualClock
) -> None:
    client, _ = spied(store, clock)
    view = await client.view()
    watch = client.watch()
    changes = await watch.__aenter__()
    await anext(changes)

    async def next_change() -> object:
        return await anext(changes)

    waiting = [asyncio.create_task(view.until(lambda _: False)), asyncio.create_task(next_change())]
    await asyncio.sleep(0.1)
    await client.aclose()
    for result in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(result, ClosedError), result
    await watch.__aexit__(None, None, None)
    assert view.stale


async def test_a_read_under_way_when_the_client_closes_ends(store: MemoryStore, clock: VirtualClock) -> None:
    client, _ = spied(store, clock)
    store.faults.freeze()
    reading = asyncio.create_task(client.get("k"))
    await asyncio.sleep(0.1)
    await client.aclose()
    with pytest.raises((ClosedError, UnavailableError)):
        await reading
    assert clock.now() < 1
    store.faults.thaw()


async def use(client: Client, chance: Random) -> None:
    match chance.randrange(5):
        case 0:
            async with client.session() as session:
                await session.put("k", b"")
        case 1:
            await client.shared_session()
        case 2:
            async with client.view() as view:
                await view.until(lambda items: "k" in items, timeout=chance.random())
        case 3:
            async with client.watch() as changes:
                await anext(changes)
        case 4:
            await client.update("n", lambda old: (old or b"") + b"x")


async def use_until_closed(client: Client, chance: Random) -> None:
    while True:
        try:
            await use(client, chance)
        except ClosedError:
            return
        except OsdiscoError:
            await asyncio.sleep(chance.random() / 10)


@pytest.mark.parametrize("seed", range(40))
def test_whatever_runs_when_a_client_closes_ends_with_an_error_of_ours_and_leaves_nothing(seed: int) -> None:
    chance, clock = Random(seed), VirtualClock()

    async def main() -> None:
        store = MemoryStore(clock=clock)
        client, spy = spied(store, clock, ttl=10.0, timeout=2.0)
        store.faults.delay("grant", "commit", "get", request=chance.random() / 5, answer=chance.random() / 5)
        users = [asyncio.create_task(use_until_closed(client, chance)) for _ in range(4)]
        await asyncio.sleep(chance.random() * 3)
        await client.aclose()
        left = [key for key in keys(store) if key != "ns/n"]
        assert (leases(store), left, dict(spy.following)) == ([], [], {})
        await asyncio.gather(*users)

    run(main(), seed=seed, clock=clock)
