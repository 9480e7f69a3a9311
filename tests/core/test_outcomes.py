"""Operations: what is tried again, until when, and what each costs. Unknown outcomes are never sent again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest
from core_fakes import Spy, client_of, spied

from osdisco import Client, Delete, Put, Revision, Runtime
from osdisco.errors import (
    ConflictError,
    DeniedError,
    IndeterminateError,
    UnavailableError,
)
from osdisco.testing import VirtualClock
from osdisco_memory import MemoryStore

Use = Callable[[Client], Awaitable[object]]


WRITES: dict[str, Use] = {
    "put": lambda c: c.put("k", b""),
    "create": lambda c: c.create("k", b""),
    "update": lambda c: c.update("k", lambda _: b""),
    "delete": lambda c: c.delete("k"),
    "commit": lambda c: c.commit([Put("k", b""), Delete("l")]),
}
READS: dict[str, Use] = {"get": lambda c: c.get("k"), "scan": lambda c: c.scan()}
ALL = WRITES | READS


def call_of(name: str) -> str:
    return "commit" if name in WRITES else name


@pytest.mark.parametrize("fault", ["drop", "drop_answer"])
@pytest.mark.parametrize("name", WRITES)
async def test_a_write_whose_outcome_is_unknown_is_sent_once_and_says_so(
    client: Client, store: MemoryStore, spy: Spy, name: str, fault: str
) -> None:
    getattr(store.faults, fault)("commit")
    with pytest.raises(IndeterminateError):
        await WRITES[name](client)
    assert spy.count("commit") == 1


@pytest.mark.parametrize("name", WRITES)
async def test_a_write_into_a_frozen_store_is_unknown_within_its_time(
    client: Client, store: MemoryStore, spy: Spy, clock: VirtualClock, name: str
) -> None:
    store.faults.delay("commit", request=60)
    with pytest.raises(IndeterminateError):
        await WRITES[name](client)
    assert spy.count("commit") == 1
    assert clock.now() == pytest.approx(5)


@pytest.mark.parametrize("name", ALL)
async def test_what_was_refused_unapplied_is_sent_again_until_it_is_answered(
    client: Client, store: MemoryStore, spy: Spy, clock: VirtualClock, name: str
) -> None:
    call = call_of(name)
    store.faults.outage(call, times=3)
    await ALL[name](client)
    assert spy.count(call) == 4
    assert clock.now() < 0.5


@pytest.mark.parametrize("name", ALL)
async def test_the_first_repeat_goes_out_at_once_and_the_pauses_grow(
    client: Client, store: MemoryStore, spy: Spy, clock: VirtualClock, name: str
) -> None:
    call = call_of(name)
    store.faults.outage(call)
    with pytest.raises(UnavailableError, match=r"\(gave up after \d+ attempts\)"):
        await ALL[name](client)
    times = spy.times(call)
    assert times[1] == times[0]
    pauses = [after - before for before, after in pairwise(times[1:])]
    assert 0.02 < pauses[0] <= 0.05
    assert all(pause <= 1 for pause in pauses)
    assert max(pauses) > 0.5
    assert 4 <= clock.now() <= 5
    assert 8 <= len(times) <= 20


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("timeout", [0.3, 2.0, 9.0])
async def test_an_operation_ends_within_the_time_that_its_caller_gives(
    client: Client, store: MemoryStore, clock: VirtualClock, name: str, timeout: float
) -> None:
    uses: dict[str, Use] = {
        "put": lambda c: c.put("k", b"", timeout=timeout),
        "create": lambda c: c.create("k", b"", timeout=timeout),
        "update": lambda c: c.update("k", lambda _: b"", timeout=timeout),
        "delete": lambda c: c.delete("k", timeout=timeout),
        "commit": lambda c: c.commit([Put("k", b""), Delete("l")], timeout=timeout),
        "get": lambda c: c.get("k", timeout=timeout),
        "scan": lambda c: c.scan(timeout=timeout),
    }
    for fault in (store.faults.freeze, store.faults.outage):
        begun = clock.now()
        fault()
        with pytest.raises((UnavailableError, IndeterminateError)):
            await uses[name](client)
        assert clock.now() - begun <= timeout + 1e-6
        store.faults.clear()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("timeout", [0, 0.0, -1])
async def test_who_has_no_time_left_is_told_at_once(
    client: Client, store: MemoryStore, clock: VirtualClock, name: str, timeout: float
) -> None:
    uses: dict[str, Use] = {
        "put": lambda c: c.put("k", b"", timeout=timeout),
        "create": lambda c: c.create("k", b"", timeout=timeout),
        "update": lambda c: c.update("k", lambda _: b"", timeout=timeout),
        "delete": lambda c: c.delete("k", timeout=timeout),
        "commit": lambda c: c.commit([Put("k", b""), Delete("l")], timeout=timeout),
        "get": lambda c: c.get("k", timeout=timeout),
        "scan": lambda c: c.scan(timeout=timeout),
    }
    store.faults.freeze()
    with pytest.raises((UnavailableError, IndeterminateError)):
        await uses[name](client)
    assert clock.now() < 0.01
    store.faults.thaw()


@pytest.mark.parametrize("name", READS)
async def test_a_silent_endpoint_uses_up_half_of_the_time_of_a_read(
    client: Client, spy: Spy, store: MemoryStore, clock: VirtualClock, name: str
) -> None:
    store.faults.delay(name, request=60, times=1)
    await READS[name](client)
    assert clock.now() == pytest.approx(2.5)
    assert spy.count(name) == 2


@pytest.mark.parametrize("name", ALL)
async def test_what_cannot_become_better_is_not_sent_again(
    client: Client, store: MemoryStore, spy: Spy, clock: VirtualClock, name: str
) -> None:
    store.faults.deny(call_of(name))
    with pytest.raises(DeniedError):
        await ALL[name](client)
    assert spy.count(call_of(name)) == 1
    assert clock.now() == 0


async def test_a_conflict_is_not_sent_again(client: Client, spy: Spy) -> None:
    with pytest.raises(ConflictError):
        await client.commit([Delete("a")], expect={"a": Revision(1)})
    assert spy.count("commit") == 1


async def test_a_create_that_was_refused_and_then_beaten_is_a_conflict(client: Client, store: MemoryStore) -> None:
    store.faults.outage("commit", times=1)
    asyncio.get_running_loop().call_soon(store.commit, [Put("ns/k", b"other")], {})
    with pytest.raises(ConflictError):
        await client.create("k", b"mine")


async def test_an_operation_can_be_cancelled_between_attempts(client: Client, store: MemoryStore) -> None:
    store.faults.outage()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await client.get("k")


async def test_many_clients_do_not_come_back_at_once(store: MemoryStore, clock: VirtualClock) -> None:
    from random import Random

    store.faults.outage("get")
    spies = []
    for number in range(5):
        runtime = Runtime(clock=clock, random=Random(number))
        spy = Spy(store, runtime)
        spies.append(spy)
        with pytest.raises(UnavailableError):
            await Client(spy, runtime).get("k", timeout=2)
    begun = [spy.times("get")[0] for spy in spies]
    assert len({round(spy.times("get")[5] - at, 6) for spy, at in zip(spies, begun, strict=True)}) == 5


# what it costs


class Loop:
    """Notes what is asked of the running loop."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        loop = asyncio.get_running_loop()
        for name in ("create_task", "call_later", "call_at"):
            monkeypatch.setattr(loop, name, self._noting(name, getattr(loop, name)))

    def _noting(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*args: Any, **kwargs: Any) -> Any:
            self.asked.append(name)
            return function(*args, **kwargs)

        return noting


async def test_a_plain_put_or_get_needs_neither_a_task_nor_a_timer(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop(monkeypatch)
    timed: list[Use] = [lambda c: c.get("k", timeout=1), lambda c: c.put("k", b"", timeout=1)]
    for use in (*ALL.values(), *timed):
        await client.delete("k")
        await use(client)
    assert loop.asked == []
    await client.shared_session()
    assert loop.asked, "the instrument works"


async def test_an_operation_is_one_call_of_the_store(client: Client, spy: Spy) -> None:
    for name, use in ALL.items():
        await client.delete("k")
        before = len(spy.sent)
        await use(client)
        assert len(spy.sent) - before == (2 if name == "update" else 1), name


async def test_an_idle_client_asks_nothing(store: MemoryStore, clock: VirtualClock) -> None:
    client, spy = spied(store, clock)
    await clock.advance(3600)
    assert not spy.sent
    assert not spy.opened
    await client.aclose()


async def test_the_operation_gets_the_timeout_of_the_url(spy: Spy, clock: VirtualClock) -> None:
    async with client_of(spy, clock, timeout=3.0) as client:
        await client.put("k", b"")
        assert spy.timeouts == [3.0]
