"""Timeouts that share timers: they end work as `asyncio.timeout` does, a tick later at most, and leave nothing."""

from __future__ import annotations

import asyncio

import pytest

from osdisco.mesh._alarms import TICK, Alarms
from osdisco.testing import VirtualClock


async def test_work_is_ended_when_its_time_is_over_or_a_tick_later(osdisco_clock: VirtualClock) -> None:
    alarms = Alarms()
    for seconds in (0.0001, 0.0123, 1.0, 7.77):
        began = osdisco_clock.now()
        with pytest.raises(TimeoutError), alarms.within(seconds) as scope:
            await asyncio.sleep(60)
        assert scope.expired
        assert seconds <= osdisco_clock.now() - began <= seconds + TICK + 1e-5
    assert len(alarms) == 0
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_work_that_ends_in_time_leaves_no_timer(osdisco_clock: VirtualClock) -> None:
    alarms = Alarms()

    async def work(seconds: float) -> str:
        with alarms.within(5) as scope:
            await asyncio.sleep(seconds)
        assert not scope.expired
        return "done"

    assert await asyncio.gather(*(work(number / 100) for number in range(200))) == ["done"] * 200
    assert len(alarms) == 0


async def test_many_share_a_timer_and_each_is_ended(osdisco_clock: VirtualClock) -> None:
    alarms, ended = Alarms(), []

    async def work(number: int) -> None:
        try:
            with alarms.within(1):
                await asyncio.sleep(60)
        except TimeoutError:
            ended.append(number)

    tasks = [asyncio.ensure_future(work(number)) for number in range(100)]
    await asyncio.sleep(0)
    assert len(alarms) == 1
    await asyncio.wait(tasks)
    assert sorted(ended) == list(range(100))
    assert len(alarms) == 0


async def test_who_is_cancelled_from_outside_is_cancelled_and_not_late(osdisco_clock: VirtualClock) -> None:
    alarms = Alarms()

    async def work() -> None:
        with alarms.within(5):
            await asyncio.sleep(60)

    for pause in (1, 5.0):
        task = asyncio.ensure_future(work())
        await asyncio.sleep(pause)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(alarms) == 0


async def test_of_two_the_inner_one_may_end_first(osdisco_clock: VirtualClock) -> None:
    alarms = Alarms()
    with alarms.within(5):
        with pytest.raises(TimeoutError), alarms.within(1):
            await asyncio.sleep(60)
        await asyncio.sleep(1)

    async def outer() -> None:
        async with asyncio.timeout(1):
            with alarms.within(5):
                await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        await outer()
    assert len(alarms) == 0


async def test_what_fails_by_itself_fails_as_it_is(osdisco_clock: VirtualClock) -> None:
    alarms = Alarms()
    with pytest.raises(KeyError), alarms.within(float("inf")):
        raise KeyError
    assert len(alarms) == 0
