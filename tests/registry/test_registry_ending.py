"""Ends that come in the middle of something: of a registration, of a view, and of who is told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count

import pytest
from services import definition, found, viewed
from worlds import Suspensions, World

from osdisco._tasks import Supervisor
from osdisco.discovery import FunctionCheck
from osdisco.discovery._telling import Audience, Backlog, Reader
from osdisco.errors import ClosedError, DeniedError
from osdisco.registry import ServiceEvent, ServiceRegistry
from osdisco.registry.listeners import MANNERS


async def slow_to_end() -> None:
    try:
        await asyncio.sleep(1000)
    finally:
        await asyncio.sleep(0.5)


@pytest.mark.parametrize("more", [0, 3])
async def test_an_instance_that_is_cancelled_anywhere_while_it_leaves_leaves_nothing(world: World, more: int) -> None:
    client = world.process()
    for first in count(1):
        checks = [FunctionCheck(slow_to_end, name=name, timeout=100) for name in ("one", "two")]
        registration = await ServiceRegistry(client).register(definition(), checks=checks)
        await asyncio.sleep(0.5)
        leave = Suspensions(first, more)
        await asyncio.gather(leave.of(registration.deregister()), return_exceptions=True)
        await asyncio.sleep(1)
        assert len(client._feeds) == 0, f"still followed when it is cancelled at its suspension {first}"
        assert not [task for task in asyncio.all_tasks() if "check" in task.get_name()]
        assert world.keys("svc/") == []
        if leave.count < first:
            break
    assert first > 2


@pytest.mark.parametrize("what", ["view", "client", "client before it began"])
async def test_a_view_that_was_closed_takes_no_listener(world: World, what: str) -> None:
    client = world.process()
    view = ServiceRegistry(client).view("geo") if "before" in what else await viewed(client)
    await (view.aclose() if what == "view" else client.aclose())
    before = asyncio.all_tasks()
    with pytest.raises(ClosedError, match="closed"):
        view.add_listener(print)
    assert asyncio.all_tasks() == before


async def test_what_happens_after_the_end_is_not_told_to_who_is_behind() -> None:
    audience = Audience[ServiceEvent](Supervisor(), MANNERS)
    bridging, ending = Backlog[ServiceEvent](), Backlog[ServiceEvent](bridges=False)
    for backlog in (bridging, ending):
        audience.follow(backlog)
    before, after = (ServiceEvent(None, found(number)) for number in (1, 2))
    audience.put([before])
    audience.end(DeniedError("no longer"))
    audience.put([after])
    assert await told(bridging, 2) == [before, after]
    assert await told(ending, 1) == [before]
    with pytest.raises(DeniedError):
        await told(ending, 1)
    ending.put([after])
    assert len(ending) == 0
    audience.end(ClosedError("the end"))
    assert not audience.needed


async def told(backlog: Backlog[ServiceEvent], number: int) -> Sequence[object]:
    reader = Reader(backlog)
    return [await reader.next() for _ in range(number)]


async def test_who_asks_for_findings_while_the_view_is_closed_does_not_begin_them_anew(world: World) -> None:
    client = world.process()
    view = await viewed(client)
    await view.findings()
    unfollow = view._unfollow

    async def asked_first() -> None:
        with pytest.raises(ClosedError):
            await view.findings()
        await unfollow()

    view._unfollow = asked_first  # type: ignore[method-assign]
    await view.aclose()
    assert len(client._feeds) == 0
