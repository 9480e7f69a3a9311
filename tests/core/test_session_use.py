"""Sessions in use (S13, S15): their keys, their ttl, what they cost, and how they are opened."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from itertools import pairwise

import pytest
from core_fakes import Spy, keys, leases, spied

from osdisco import Client, HeldBy, Put, Runtime, Session, SessionState
from osdisco.errors import (
    ClosedError,
    ConflictError,
    IndeterminateError,
    InvalidCommitError,
    InvalidNameError,
    LimitError,
    LostError,
    UnavailableError,
)
from osdisco.testing import VirtualClock
from osdisco_memory import CONSUL, MemoryBackend, MemoryStore

CONNECTED, SUSPENDED, LOST = SessionState.CONNECTED, SessionState.SUSPENDED, SessionState.LOST

TTL = 10.0
VALID = 0.99 * TTL - 1.0  # S11: how long a renewal is good for, counted from its sending


# S13 and the keys of a session


async def test_keys_of_a_session_are_seen_with_its_lease_and_go_with_it(client: Client, clock: VirtualClock) -> None:
    async with client.session() as session:
        revision = await session.put("presence/me", b"up")
        item = await client.get("presence/me")
        assert item is not None
        assert (item.lease, item.revision, item.value) == (session.id, revision, b"up")
    assert await client.get("presence/me") is None


async def test_a_key_of_the_session_is_written_again_in_place(client: Client) -> None:
    async with client.session() as session:
        first = await session.put("k", b"1")
        second = await session.put("k", b"2")
        item = await client.get("k")
        assert item is not None
        assert (item.created, item.revision, item.value, item.lease) == (first, second, b"2", session.id)


async def test_puts_of_one_session_at_the_same_time_are_no_conflict(client: Client) -> None:
    async with client.session() as session:
        revisions = await asyncio.gather(*(session.put("k", str(number).encode()) for number in range(5)))
        assert len(set(revisions)) == 5
        item = await client.get("k")
        assert item is not None
        assert item.revision == max(revisions)


@pytest.mark.parametrize("fault", ["freeze", "outage"])
async def test_a_put_ends_within_the_time_of_one_operation(
    client: Client, store: MemoryStore, clock: VirtualClock, fault: str
) -> None:
    async with client.session(60) as session:
        await clock.advance(0.1)
        begun = clock.now()
        store.faults.delay("commit", request=2, times=1)  # what is left for the next attempt is less
        asyncio.get_running_loop().call_later(1.9, getattr(store.faults, fault))
        with pytest.raises((IndeterminateError, UnavailableError)):
            await session.put("k", b"")
        assert clock.now() - begun <= 5 + 1e-6
        store.faults.clear()


async def test_a_key_of_somebody_else_is_a_conflict(client: Client) -> None:
    await client.put("plain", b"")
    async with client.session() as one, client.session() as other:
        await other.put("taken", b"")
        for name in ("plain", "taken"):
            with pytest.raises(ConflictError, match=f"'{name}' exists and is not this session's"):
                await one.put(name, b"x")
        item = await client.get("taken")
        assert item is not None
        assert (item.value, item.lease) == (b"", other.id)


async def test_a_put_of_a_lost_session_is_refused_before_it_is_sent(client: Client, spy: Spy) -> None:
    async with client.session() as session:
        session._lose("test")
        before = spy.count("commit")
        with pytest.raises(LostError, match="test"):
            await session.put("k", b"")
        assert spy.count("commit") == before


async def test_a_put_that_finds_the_lease_gone_loses_the_session(client: Client, store: MemoryStore) -> None:
    async with client.session() as session:
        store.faults.end_lease(session.id)
        with pytest.raises(LostError, match="no longer knows the lease"):
            await session.put("k", b"")
        assert session.state is LOST


async def test_a_put_that_arrives_after_the_end_of_its_session_is_refused_by_the_store(
    client: Client, store: MemoryStore, clock: VirtualClock
) -> None:
    session = await client.session()
    store.faults.late("commit", after=5, key="ns/k", times=1)
    with pytest.raises(Exception, match="lost"):
        await session.put("k", b"")
    await session.aclose()
    await clock.advance(10)
    assert keys(store) == []


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("", b"", InvalidNameError),
        ("a//b", b"", InvalidNameError),
        ("k", "text", InvalidCommitError),
        ("k", None, InvalidCommitError),
        ("k", b"x" * (256 * 1024 + 1), LimitError),
    ],
)
async def test_what_cannot_be_put_is_refused_before_it_is_sent(
    client: Client, spy: Spy, name: str, value: bytes, error: type[Exception]
) -> None:
    async with client.session() as session:
        await asyncio.sleep(0.1)
        before = spy.count("commit")
        with pytest.raises(error):
            await session.put(name, value)
        assert spy.count("commit") == before


# the ttl


async def test_a_ttl_below_what_is_granted_is_raised_and_told(clock: VirtualClock) -> None:
    client, _ = spied(MemoryStore(clock=clock, limits=CONSUL), clock)
    async with client, client.session(1) as session:
        assert session.ttl == 10
        assert session.deadline == pytest.approx(VALID)


async def test_a_ttl_below_what_is_granted_is_refused_with_strict_ttl_and_leaves_no_lease(clock: VirtualClock) -> None:
    store = MemoryStore(clock=clock, limits=CONSUL)
    client, _ = spied(store, clock, strict_ttl=True, ttl=1.0)
    async with client:
        for session in (client.session(), client.session(1, strict=True)):
            with pytest.raises(LimitError, match=r"1.* s was asked for with strict_ttl; the store grants 10"):
                await session
        with pytest.raises(LimitError):
            await client.shared_session()
        async with client.session(1, strict=False) as session:
            assert session.ttl == 10
        async with client.session(12) as session:
            assert session.ttl == 12
        await clock.advance(0.1)
        assert leases(store) == []


@pytest.mark.parametrize("ttl", [86_401.0, 1e9, float("inf"), float("nan"), 0, 0.0, -1])
async def test_a_ttl_that_nobody_grants_is_refused_before_it_is_sent(client: Client, spy: Spy, ttl: float) -> None:
    with pytest.raises(LimitError, match=r"a ttl of .* at most 86400"):
        await client.session(ttl)
    assert spy.count("grant") == 0


async def test_the_ttl_is_the_one_of_the_url_when_none_is_given(client: Client) -> None:
    async with client.session() as session:
        assert session.ttl == TTL


# what it costs


async def test_a_session_sends_one_renewal_in_a_third_of_its_ttl_whatever_hangs_on_it(
    client: Client, spy: Spy, clock: VirtualClock
) -> None:
    session = await client.shared_session()
    for number in range(50):
        await session.put(f"k{number}", b"")
    before = len(spy.sent)
    await clock.advance(30 * TTL)
    assert 89 <= spy.count("renew") <= 91
    assert len(spy.sent) - before == spy.count("renew")
    gaps = [after - before for before, after in pairwise(spy.times("renew"))]
    assert all(gap == pytest.approx(TTL / 3) for gap in gaps)


async def test_slow_answers_do_not_make_renewals_rarer(
    client: Client, store: MemoryStore, spy: Spy, clock: VirtualClock
) -> None:
    store.faults.delay("renew", request=0.5, answer=0.5)
    async with client.session():
        await clock.advance(10 * TTL)
        assert spy.times("renew")[-1] == pytest.approx(spy.count("renew") * TTL / 3)


async def test_an_attempt_to_renew_waits_for_a_sixth_of_the_ttl_and_at_most_two_seconds(
    client: Client, spy: Spy, clock: VirtualClock
) -> None:
    for ttl, timeout in ((6.0, 1.0), (60.0, 2.0)):
        async with client.session(ttl):
            await clock.advance(ttl / 3 + 0.1)
            assert spy.sent[-1][0] == "renew"
            assert spy.timeouts[-1] == pytest.approx(timeout)


async def test_all_that_share_a_session_share_one(client: Client, spy: Spy) -> None:
    sessions = await asyncio.gather(*(client.shared_session() for _ in range(10)))
    sessions.append(await client.scoped("deeper").shared_session())
    assert len(set(sessions)) == 1
    assert spy.count("grant") == 1


async def test_a_shared_session_that_was_lost_is_replaced_at_the_next_use(
    client: Client, store: MemoryStore, clock: VirtualClock
) -> None:
    first = await client.shared_session()
    clock.jump(TTL)  # nobody has noticed yet
    second = await client.shared_session()
    assert second is not first
    assert second.id != first.id
    assert second.valid
    await clock.advance(1)
    assert first.state is LOST
    assert len(leases(store)) == 1


async def test_who_gives_up_waiting_for_the_shared_session_takes_it_from_nobody(
    client: Client, store: MemoryStore, spy: Spy
) -> None:
    store.faults.delay("grant", answer=1)
    waiting = [asyncio.create_task(client.shared_session()) for _ in range(2)]
    await asyncio.sleep(0.5)
    waiting[0].cancel()
    session = await waiting[1]
    assert session.valid
    assert spy.count("grant") == 1


async def test_the_shared_session_is_asked_for_again_after_it_could_not_be_opened(
    client: Client, store: MemoryStore
) -> None:
    with store.faults.outage(), pytest.raises(UnavailableError):
        await client.shared_session()
    assert (await client.shared_session()).valid


# opening


@pytest.mark.parametrize("fault", ["outage", "freeze"])
@pytest.mark.parametrize("timeout", [0.5, 5.0])
async def test_a_store_that_is_down_is_unavailable_within_the_deadline_of_one_operation(
    store: MemoryStore, clock: VirtualClock, fault: str, timeout: float
) -> None:
    client, _ = spied(store, clock, timeout=timeout)
    getattr(store.faults, fault)()
    async with client:
        with pytest.raises(UnavailableError):
            await client.session()
        assert clock.now() <= timeout + 1e-6
    store.faults.clear()


async def test_opening_takes_one_deadline_for_all_that_it_asks(
    client: Client, store: MemoryStore, clock: VirtualClock
) -> None:
    store.faults.outage("grant")
    with store.faults.outage("get") as outage:
        asyncio.get_running_loop().call_later(3.5, outage.end)
        with pytest.raises(UnavailableError, match="grant"):
            await client.session()
    assert 3.5 < clock.now() <= 5.0 + 1e-6


async def test_starting_while_the_store_is_down_is_fine_if_it_comes_in_time(
    client: Client, store: MemoryStore, clock: VirtualClock
) -> None:
    store.faults.outage()
    asyncio.get_running_loop().call_later(3, store.faults.clear)
    async with client.session() as session:
        assert 3 <= clock.now() < 5
        assert session.deadline > clock.now() + VALID - 0.1


async def test_a_grant_whose_answer_is_lost_is_asked_for_again(client: Client, store: MemoryStore, spy: Spy) -> None:
    store.faults.drop_answer("grant", times=1)
    async with client.session() as session:
        assert session.valid
        assert spy.count("grant") == 2


async def test_a_session_is_not_to_be_used_before_it_is_open(client: Client) -> None:
    session = client.session()
    uses: list[Callable[[], object]] = [lambda: session.id, lambda: session.ttl, session.check, session.scope().enter]
    for use in uses:
        with pytest.raises(ClosedError, match="not open yet"):
            use()
    assert session.state is SessionState.NEW
    assert not session.valid
    assert repr(session) == "<Session - new>"
    await session.aclose()
    assert session.state is LOST


async def test_a_session_is_opened_once(client: Client, spy: Spy) -> None:
    session = client.session()
    await session
    with pytest.raises(ClosedError, match="opened once"):
        await session
    await session.aclose()
    with pytest.raises(ClosedError, match="opened once"):
        await session
    assert spy.count("grant") == 1


async def test_a_session_is_opened_once_even_when_two_do_it_at_the_same_time(
    client: Client, store: MemoryStore, spy: Spy
) -> None:
    session = client.session()

    async def open_it() -> Session:
        return await session

    results = await asyncio.gather(open_it(), open_it(), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["ClosedError", "Session"]
    assert spy.count("grant") == len(leases(store)) == 1
    assert session.valid


async def test_a_session_stands_on_a_backend_alone(store: MemoryStore, clock: VirtualClock) -> None:
    runtime = Runtime(clock=clock)
    backend = MemoryBackend(store, runtime)
    async with backend.session(5, runtime, root="root/") as session:
        await session.put("k", b"")
        await clock.advance(1)
        assert sorted(keys(store)) == ["root/k", f"root/sess/{session.uid}/live"]
        await backend.commit([Put("root/k", b"2", session.id)], {"root/k": HeldBy(session.id)}, timeout=1)
    assert keys(store) == leases(store) == []
    await backend.aclose()


async def test_a_session_whose_backend_was_closed_is_lost_at_its_deadline(
    store: MemoryStore, clock: VirtualClock
) -> None:
    runtime = Runtime(clock=clock)
    backend = MemoryBackend(store, runtime)
    session = await backend.session(TTL, runtime)
    await backend.aclose()
    await clock.advance(TTL / 2)
    assert session.state is SUSPENDED
    await session.lost.wait()
    assert clock.now() == pytest.approx(VALID)
    await session.aclose()


# the epoch of fencing tokens


async def test_the_epoch_is_zero_until_an_operator_raises_it(client: Client) -> None:
    async with client.session() as session:
        assert session.epoch == 0
    await client.put("epoch", b"7")
    async with client.session() as session:
        assert session.epoch == 7


@pytest.mark.parametrize("value", [b"", b"x", b"-1", b"1.5", b"32768", b"\xff", b"9" * 5000])
async def test_an_epoch_that_is_none_is_refused(client: Client, store: MemoryStore, value: bytes) -> None:
    await client.put("epoch", value)
    with pytest.raises(LimitError, match="'epoch' must hold a number from 0 to 32767"):
        await client.session()
    assert leases(store) == []


# the log


async def test_states_and_their_reasons_are_logged(
    client: Client, store: MemoryStore, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with client.session() as session:
        with store.faults.outage("renew"):
            await session.lost.wait()
    told = [(record.levelname, record.getMessage()) for record in caplog.records if "->" in record.getMessage()]
    assert [(level, re.sub(r".*: (\w+ -> \w+): .*", r"\1", text)) for level, text in told] == [
        ("INFO", "new -> connected"),
        ("WARNING", "connected -> suspended"),
        ("WARNING", "suspended -> lost"),
    ]


async def test_a_session_that_its_owner_closed_is_no_warning(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    async with client.session():
        pass
    assert not caplog.records
