"""Virtual time: an hour takes milliseconds, a seed repeats a run, and what cannot end says so."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from typing import Any

import pytest

from osdisco.testing import HangError, VirtualClock, VirtualLoop, run
from osdisco.testing.clock import WALL


async def _sleepers() -> list[tuple[float, int]]:
    ended: list[tuple[float, int]] = []

    async def sleep(n: int) -> None:
        for _ in range(3):
            await asyncio.sleep(10 * (n % 3))
            ended.append((asyncio.get_running_loop().time(), n))

    async with asyncio.TaskGroup() as group:
        for n in range(6):
            group.create_task(sleep(n))
    return ended


def test_timers_run_in_their_order_without_sleeping() -> None:
    started = time.monotonic()
    ended = run(_sleepers())
    assert [when for when, _ in ended] == sorted(when for when, _ in ended)
    assert ended[-1][0] == 60.0
    assert time.monotonic() - started < 1


def test_a_seed_repeats_its_order_and_another_gives_another() -> None:
    runs = [[run(_sleepers(), seed=seed) for seed in range(20)] for _ in range(2)]
    assert runs[0] == runs[1]
    assert len({tuple(order) for order in runs[0]}) > 10


def test_without_a_seed_the_order_is_asyncios_own() -> None:
    order: list[int] = []

    async def note(n: int) -> None:
        order.append(n)

    async def main() -> None:
        await asyncio.gather(*(note(n) for n in range(10)))

    run(main())
    assert order == list(range(10))


@pytest.mark.parametrize("seed", range(10))
def test_a_seed_leaves_plain_callbacks_in_their_order(seed: int) -> None:
    order: list[int] = []

    async def main() -> None:
        for n in range(10):
            asyncio.get_running_loop().call_soon(order.append, n)
        await asyncio.gather(*(asyncio.sleep(0) for _ in range(5)))

    run(main(), seed=seed)
    assert order == list(range(10))


async def _first_of(count: int) -> list[str]:
    """Sets of tasks have no order of their own, yet must have the same one in every run."""
    tasks = [asyncio.create_task(asyncio.sleep(1), name=f"t{n}") for n in range(count)]
    done, _ = await asyncio.wait(tasks)
    return [task.get_name() for task in done]


def test_sets_of_tasks_are_iterated_alike_in_every_run() -> None:
    assert run(_first_of(50)) == run(_first_of(50))


async def _forever() -> None:
    await asyncio.get_running_loop().create_future()


async def _ticking() -> None:
    while True:
        await asyncio.sleep(10)


def test_a_hang_says_where() -> None:
    with pytest.raises(HangError, match=r"nothing is scheduled[^$]*_forever, .*test_virtual_time.py:\d+"):
        run(_forever())


def test_what_only_ticks_for_ever_is_a_hang_too() -> None:
    with pytest.raises(HangError, match=r"still running after 3600 s of virtual time[^$]*_ticking"):
        run(_ticking(), limit=3600)


def test_a_failure_carries_its_seed() -> None:
    with pytest.raises(HangError) as hung:
        run(_forever(), seed=17)
    assert "in virtual time with seed=17" in hung.value.__notes__


def test_tasks_left_behind_are_an_error() -> None:
    async def leave() -> None:
        leave.task = asyncio.create_task(asyncio.sleep(1), name="left")  # type: ignore[attr-defined]

    with pytest.raises(AssertionError, match="left in"):
        run(leave())


async def _connect() -> Any:
    return await asyncio.open_connection("127.0.0.1", 9)


async def _resolve() -> Any:
    return await asyncio.get_running_loop().getaddrinfo("localhost", 9)


async def _thread() -> Any:
    return await asyncio.to_thread(time.time)


async def _process() -> Any:
    return await asyncio.create_subprocess_exec("true")


async def _socket() -> Any:
    with socket.socket() as plain:
        return await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", 9))


@pytest.mark.parametrize("outside", [_connect, _resolve, _thread, _process, _socket])
def test_what_reaches_outside_is_refused(outside: Any) -> None:
    with pytest.raises(RuntimeError, match="has no place in virtual time"):
        run(outside())


def test_timeouts_work() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.sleep(10)
        return asyncio.get_running_loop().time()

    assert run(main()) == 5.0


def test_a_clock_follows_its_loop_and_counts_suspend() -> None:
    async def main() -> None:
        clock = VirtualClock()
        await asyncio.sleep(30)
        assert (clock.now(), clock.wall()) == (30, WALL + 30)
        timer = asyncio.create_task(asyncio.sleep(10))
        clock.jump(3600)
        assert (clock.now(), clock.wall()) == (3630, WALL + 3630)
        await asyncio.sleep(0)
        assert not timer.done()
        await timer
        assert clock.now() == 3640

    run(main())


def test_wall_clocks_jump_without_now_noticing() -> None:
    async def main() -> None:
        clock = VirtualClock()
        clock.jump_wall(-3600)
        assert (clock.now(), clock.wall()) == (0, WALL - 3600)
        clock.set_wall(5)
        await clock.advance(2)
        assert (clock.now(), clock.wall()) == (2, 7)
        with pytest.raises(ValueError, match="backwards"):
            clock.jump(-1)

    run(main())


def test_a_clock_goes_on_in_the_next_loop() -> None:
    clock = VirtualClock()
    run(clock.advance(10), clock=clock)
    assert clock.now() == 10
    run(clock.advance(5), clock=clock)
    assert clock.now() == 15


def test_advance_returns_after_everything_that_was_due() -> None:
    seen: list[float] = []

    async def chain(clock: VirtualClock) -> None:
        await asyncio.sleep(5)
        for _ in range(20):
            await asyncio.sleep(0)
        seen.append(clock.now())

    async def main() -> None:
        clock = VirtualClock()
        tasks = [asyncio.create_task(chain(clock)) for _ in range(2)]
        await asyncio.gather(clock.advance(5), clock.advance(5))
        assert seen == [5, 5]
        await asyncio.gather(*tasks)

    run(main())


def test_advance_needs_a_virtual_loop() -> None:
    with pytest.raises(RuntimeError, match="VirtualLoop"):
        asyncio.run(VirtualClock().advance(1))


def test_another_thread_may_call_soon() -> None:
    loop = VirtualLoop()
    future = loop.create_future()
    loop.call_soon_threadsafe(future.set_result, 1)
    assert loop.run_until_complete(future) == 1
    loop.close()


def test_a_seed_repeats_its_order_in_another_process() -> None:
    """Nothing of it may hang on addresses or on the hashes of strings."""
    orders = set()
    for hash_seed in ("1", "2"):
        program = "import test_virtual_time as t; from osdisco.testing import run; print(run(t._order(), seed=7))"
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        orders.add(subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True).stdout)
    assert len(orders) == 1
    assert len(orders.pop().split()) == 50


async def _order() -> str:
    seen: list[str] = []

    async def step(name: str) -> None:
        await asyncio.sleep(0)
        seen.append(name)

    tasks = {asyncio.create_task(step(f"t{n}"), name=f"t{n}") for n in range(25)}
    done, _ = await asyncio.wait(tasks)
    return " ".join([*seen, *(task.get_name() for task in done)])
