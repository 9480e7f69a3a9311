"""What rules do to calls on their way: limits, faults, and copies."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial

import pytest

from osdisco.errors import ConfigError, RemoteError
from osdisco.mesh import FaultRule, Mirroring, TokenBucket
from osdisco.mesh.faults import inject
from osdisco.mesh.mirroring import AT_ONCE, BYTES_MAX, QUEUE_MAX, TIMEOUT
from osdisco.testing import VirtualClock


async def test_a_bucket_gives_its_burst_and_then_what_comes_in(osdisco_clock: VirtualClock) -> None:
    bucket = TokenBucket(osdisco_clock.now, per_second=10, burst=5)
    assert [bucket.take() for _ in range(5)] == [0] * 5
    assert bucket.take() == pytest.approx(0.1)
    await asyncio.sleep(0.1001)
    assert bucket.take() == 0
    assert bucket.take() > 0
    await asyncio.sleep(3600)
    assert [bucket.take() == 0 for _ in range(6)] == [True] * 5 + [False]


async def test_in_no_time_span_more_is_given_than_the_burst_and_the_rate(osdisco_clock: VirtualClock) -> None:
    bucket = TokenBucket(osdisco_clock.now, per_second=3, burst=2)
    given = 0
    for _ in range(1000):
        given += bucket.take() == 0
        await asyncio.sleep(0.01)
    assert 31 <= given <= 32


@pytest.mark.parametrize("bad", [(0, 1), (-1, 1), (1, 0.5), (float("nan"), 1), (1, float("inf"))])
async def test_a_bucket_that_would_never_give_is_refused(osdisco_clock: VirtualClock, bad: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="more than 0 tokens a second and holds 1 or more"):
        TokenBucket(osdisco_clock.now, *bad)


async def test_a_fault_delays_and_then_fails_as_the_rule_says(osdisco_clock: VirtualClock) -> None:
    began = osdisco_clock.now()
    with pytest.raises(RemoteError, match=r"geo.search: InjectedFault: failed on purpose") as told:
        await inject(FaultRule(delay=2, status=503), service="geo", method="search")
    assert osdisco_clock.now() - began == pytest.approx(2)
    assert (told.value.status, told.value.sent) == (503, False)
    await inject(FaultRule(delay=2), service="geo", method="search")
    assert osdisco_clock.now() - began == pytest.approx(4)


async def test_copies_are_sent_and_what_becomes_of_them_is_only_counted(osdisco_clock: VirtualClock) -> None:
    mirroring = Mirroring()

    async def work(number: int) -> None:
        await asyncio.sleep(0.1)
        if number % 2:
            raise OSError("gone")

    for number in range(30):
        assert mirroring.offer(partial(work, number))
    await asyncio.sleep(1)
    assert (mirroring.sent, mirroring.failed, mirroring.dropped) == (15, 15, 0)
    await mirroring.aclose()


async def test_large_copies_do_not_pile_up_either(osdisco_clock: VirtualClock) -> None:
    mirroring, told = Mirroring(), Counter[str]()

    async def hang() -> None:
        await asyncio.sleep(3600)

    large = BYTES_MAX // 4
    taken = [mirroring.offer(hang, size=large, told=lambda result: told.update([result])) for _ in range(7)]
    assert (taken, told) == ([True] * 4 + [False] * 3, {"dropped": 3})
    await asyncio.sleep(TIMEOUT + 1)
    assert told == {"dropped": 3, "failed": 4}
    assert mirroring.offer(hang, size=3 * BYTES_MAX)  # one alone may be of any size
    assert not mirroring.offer(hang, size=1)
    await mirroring.aclose()


async def test_copies_do_not_pile_up_and_what_hangs_ends(osdisco_clock: VirtualClock) -> None:
    mirroring = Mirroring()
    running = 0
    most = 0

    async def hang() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await asyncio.sleep(3600)
        finally:
            running -= 1

    taken = [mirroring.offer(hang) for _ in range(AT_ONCE + QUEUE_MAX + 7)]
    assert taken.count(False) == mirroring.dropped == 7
    await asyncio.sleep(TIMEOUT + 1)
    assert most == AT_ONCE
    assert mirroring.failed == AT_ONCE
    await mirroring.aclose()
    assert mirroring.dropped == 7 + QUEUE_MAX - AT_ONCE, "those that waited, too"
    assert running == 0
    assert not mirroring.offer(hang)
