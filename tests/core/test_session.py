"""Sessions (rules S10 to S13): valid from the moment of sending, never by an answer alone, and lost for good."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from itertools import pairwise
from threading import Thread

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


@pytest.fixture
def clock(osdisco_clock: VirtualClock) -> VirtualClock:
    return osdisco_clock


def block_loop(clock: VirtualClock, seconds: float) -> None:
    """Let time pass in one step of a task, as `time.sleep` would: no timer and no other task runs."""
    loop = asyncio.get_running_loop()
    loop._now += seconds  # type: ignore[attr-defined]


# S11: the deadline


async def test_a_session_is_valid_from_the_sending_of_its_grant_not_from_the_answer(
    client: Client, store: MemoryStore, spy: Spy, clock: VirtualClock
) -> None:
    store.faults.delay("grant", request=0.5, answer=1.0)
    async with client.session() as session:
        assert clock.now() == 1.5
        assert session.deadline == pytest.approx(spy.times("grant")[0] + VALID)


async def test_a_renewal_extends_from_its_sending_not_from_its_answer(
    client: Client, store: MemoryStore, spy: Spy, clock: VirtualClock
) -> None:
    async with client.session() as session:
        store.faults.delay("renew", request=0.5, answer=1.0)
        await clock.advance(TTL / 3 + 1.6)
        assert session.deadline == pytest.approx(spy.times("renew")[0] + VALID)
        assert spy.times("renew")[0] == pytest.approx(TTL / 3)


@pytest.mark.parametrize(("ttl", "margin"), [(2.0, 0.2), (10.0, 1.0), (60.0, 1.0)])
async def test_the_margin_is_a_tenth_of_the_ttl_and_at_most_a_second(client: Client, ttl: float, margin: float) -> None:
    async with client.session(ttl) as session:
        assert session.deadline == pytest.approx(0.99 * ttl - margin)


async def test_an_idle_session_lives_on_through_many_ttls(client: Client, clock: VirtualClock) -> None:
    async with client.session() as session:
        for _ in range(500):
            await clock.advance(TTL / 100 * 5)
            session.check()
            assert session.state is CONNECTED
        assert session.lost.reason is None


async def test_renewals_that_take_nine_tenths_of_the_ttl_each_way_do_not_prolong_it(
    client: Client, store: MemoryStore, clock: VirtualClock
) -> None:
    async with client.session() as session:
        store.faults.delay("renew", request=0.9 * TTL, answer=0.9 * TTL)
        assert await session.lost.wait()
        assert clock.now() == pytest.approx(VALID)


async def test_the_session_ends_locally_before_the_store_can_give_its_keys_away(
    client: Client, store: MemoryStore, clock: VirtualClock
) -> None:
    async with client.session() as session:
        await session.put("mine", b"")
        await clock.advance(3.4)  # a renewal went through
        with store.faults.drop("renew"):
            await session.lost.wait()
            lost_at = clock.now()
        assert keys(store), "the store still holds the keys when the owner knows"
        assert lost_at == pytest.approx(TTL / 3 + VALID)


async def test_an_answer_after_the_deadline_does_not_count(
    client: Client, store: MemoryStore, spy: Spy, clock: VirtualClock
) -> None:
    async with client.session() as session:
        spy.meanwhile["renew"] = lambda: clock.jump(TTL)  # the machine sleeps while the good answer is on its way
        await clock.advance(TTL / 3 + 0.001)
        assert session.state is LOST
        assert session.lost.reason == "the answer to a renewal came after the deadline"
        with pytest.raises(LostError):
            session.check()


async def test_a_loss_stays_whatever_is_answered_later(
    client: Client, store: MemoryStore, spy: Spy, clock: VirtualClock
) -> None:
    async with client.session() as session:
        store.faults.freeze()
        reason = await session.lost.wait()
        store.faults.thaw()  # all renewals that were sent meanwhile are answered now
        await clock.advance(3 * TTL)
        assert session.state is LOST
        assert session.lost.reason == reason
        with pytest.raises(LostError, match=re.escape(reason)):
            session.check()


async def test_a_loss_in_the_very_step_of_a_good_answer_is_a_loss(
    client: Client, spy: Spy, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with client.session() as session:
        deadline = session.deadline
        spy.meanwhile["renew"] = lambda: session._lose("by another way")
        with caplog.at_level(logging.ERROR):
            await clock.advance(TTL)
        assert session.state is LOST
        assert session.deadline == deadline
        assert not caplog.records, "no task failed on it"


async def test_a_suspended_machine_finds_its_session_lost_at_the_first_check_before_any_await(
    client: Client, clock: VirtualClock
) -> None:
    async with client.session() as session:
        session.check()
        clock.jump(VALID - 0.001)
        session.check()
        clock.jump(0.001)
        assert not session.valid
        with pytest.raises(LostError, match="deadline passed"):
            session.check()
        assert session.state is LOST


async def test_a_blocked_loop_finds_its_session_lost_at_the_first_check(client: Client, clock: VirtualClock) -> None:
    async with client.session() as session:
        block_loop(clock, TTL)
        with pytest.raises(LostError):
            session.check()


async def test_a_thread_that_works_under_the_session_may_check_it(client: Client, clock: VirtualClock) -> None:
    found: list[str] = []

    def work() -> None:
        try:
            session.check()
        except LostError as exc:
            found.append(exc.reason)

    async with client.session() as session:
        for seconds in (0, TTL):
            clock.jump(seconds)
            thread = Thread(target=work)
            thread.start()
            thread.join()
        assert len(found) == 1
        assert "deadline passed" in found[0]
        with pytest.raises(LostError):
            async with session.scope():
                pytest.fail("entered")


async def test_a_scope_that_a_suspend_outlasts_ends_in_lost_error(client: Client, clock: VirtualClock) -> None:
    async with client.session() as session:
        with pytest.raises(LostError, match="deadline passed"):
            async with session.scope():
                clock.jump(TTL)


async def test_a_blocked_loop_is_told_of_in_the_log(
    client: Client, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with client.session() as session:
        block_loop(clock, TTL / 3 + TTL / 6 + 0.1)
        await clock.advance(0.1)
        assert "something blocks the event loop" in caplog.text
        assert session.state is CONNECTED


@pytest.mark.parametrize("seconds", [-3600, 3600])
async def test_the_wall_clock_decides_nothing(client: Client, clock: VirtualClock, seconds: float) -> None:
    async with client.session() as session:
        deadline = session.deadline
        clock.jump_wall(seconds)
        session.check()
        assert session.deadline == deadline
        await clock.advance(5 * TTL)
        assert session.state is CONNECTED


async def test_check_asks_nobody(client: Client, spy: Spy) -> None:
    async with client.session() as session:
        await asyncio.sleep(0.1)
        before = len(spy.sent)
        for _ in range(100):
            session.check()
            assert session.valid
        assert len(spy.sent) == before


# S10: a good renewal proves nothing


async def test_a_lease_that_died_while_renewals_are_answered_well_is_noticed_by_the_liveness_key(
    client: Client, store: MemoryStore, clock: VirtualClock
) -> None:
    async with client.session() as session:
        await clock.advance(1)
        store.faults.false_renew()
        reason = await session.lost.wait()
        assert clock.now() == pytest.approx(TTL, abs=0.1)
        assert "its key in the store is gone" in reason


async def test_a_lease_revoked_by_an_operator_is_noticed_within_the_latency_of_a_watch(
    client: Client, store: MemoryStore, clock: VirtualClock
) -> None:
    async with client.session() as session:
        await clock.advance(1)
        store.faults.end_lease(session.id)
        await session.lost.wait()
        assert clock.now() == pytest.approx(1, abs=0.1)


async def test_a_liveness_key_deleted_by_an_operator_ends_the_session_and_frees_its_keys(
    client: Client, store: MemoryStore, clock: VirtualClock
) -> None:
    async with client.session() as session:
        await session.put("mine", b"")
        await clock.advance(1)
        await client.delete(f"sess/{session.uid}/live")
        await session.lost.wait()
        await clock.advance(0.1)
        assert keys(store) == leases(store) == []


async def test_a_lease_that_the_store_does_not_know_any_more_is_noticed_at_the_next_renewal(
    client: Client, store: MemoryStore, clock: VirtualClock
) -> None:
    async with client.session() as session:
        await clock.advance(1)
        store.faults.outage("watch")
        store.faults.end_lease(session.id)
        assert "no longer knows the lease" in await session.lost.wait()
        assert clock.now() == pytest.approx(TTL / 3, abs=0.1)


async def test_a_lost_answer_to_the_liveness_key_leaves_one_key_that_is_followed(
    client: Client, store: MemoryStore, clock: VirtualClock
) -> None:
    store.faults.drop_answer("commit", times=1, key="/live")
    async with client.session() as session:
        await clock.advance(1)
        assert keys(store) == [f"ns/sess/{session.uid}/live"]
        store.faults.end_lease(session.id)
        await clock.advance(0.1)
        assert session.state is LOST


async def test_a_liveness_key_that_cannot_be_written_yet_is_written_later(
    client: Client, store: MemoryStore, clock: VirtualClock
) -> None:
    with store.faults.outage("commit"):
        async with client.session() as session:
            await clock.advance(2 * TTL)
            assert session.state is CONNECTED
            store.faults.clear()
            await clock.advance(TTL)
            assert keys(store) == [f"ns/sess/{session.uid}/live"]


async def test_a_watch_that_fails_in_a_strange_way_does_not_end_the_guarding(
    client: Client, store: MemoryStore, spy: Spy, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, strange = spy.watch, [KeyError("strange"), OSError("strange")]

    def watch(target: str, *, after: int | None = None) -> object:
        if strange:
            raise strange.pop()
        return good(target, after=after)

    monkeypatch.setattr(spy, "watch", watch)
    async with client.session() as session:
        await clock.advance(2)
        assert not strange
        store.faults.end_lease(session.id)
        await clock.advance(0.1)
        assert session.state is LOST


async def test_the_guard_does_not_get_slower_with_every_reconnect_of_a_long_life(
    client: Client, store: MemoryStore, spy: Spy, clock: VirtualClock
) -> None:
    async with client.session() as session:
        for _ in range(12):
            await clock.advance(60)
            store.faults.outage("watch", times=1)
            await clock.advance(0.001)
        await clock.advance(60)
        store.faults.outage("watch", times=1)
        await clock.advance(0.2)
        assert spy.following[f"ns/sess/{session.uid}/live"] == 1


# S12: loss, and what is none


async def test_an_outage_shorter_than_the_ttl_suspends_and_passes(
    client: Client, store: MemoryStore, clock: VirtualClock
) -> None:
    async with client.session() as session:
        await session.put("mine", b"")
        await clock.advance(1)
        with store.faults.outage():
            await clock.advance(TTL / 3)
            assert session.state is SUSPENDED
            session.check()
            assert session.valid
            await clock.advance(VALID - TTL / 6 - clock.now() - 0.1)  # the last pause between attempts is not over
        await clock.advance(2)
        assert session.state is CONNECTED
        assert "ns/mine" in keys(store)
        await clock.advance(5 * TTL)
        assert session.state is CONNECTED


async def test_a_frozen_store_suspends_and_then_loses_at_the_local_deadline(
    client: Client, store: MemoryStore, clock: VirtualClock
) -> None:
    states: list[tuple[float, SessionState]] = []
    async with client.session() as session:
        store.faults.freeze()
        while session.state is not LOST:
            states.append((clock.now(), session.state))
            await clock.advance(0.05)
        assert [state for _, state in states] == sorted((s for _, s in states), key=[CONNECTED, SUSPENDED].index)
        assert clock.now() == pytest.approx(VALID, abs=0.1)
        assert session.lost.reason == "no renewal was answered within the ttl"
    store.faults.thaw()


async def test_the_leader_of_the_store_restarts_and_nobody_who_renews_loses(
    client: Client, store: MemoryStore, clock: VirtualClock
) -> None:
    store.faults.expiry_factor = 2  # a new leader begins all leases anew
    async with client.session() as session:
        for _ in range(5):
            store.faults.freeze()
            await clock.advance(TTL / 3)
            store.faults.thaw()
            await clock.advance(TTL)
            assert session.state is CONNECTED


@pytest.mark.parametrize("fault", ["outage", "deny", "drop", "drop_answer"])
async def test_renewals_that_fail_for_too_long_lose_whatever_they_fail_of(
    client: Client, store: MemoryStore, clock: VirtualClock, fault: str
) -> None:
    async with client.session() as session:
        getattr(store.faults, fault)("renew")
        await clock.advance(TTL / 3 + 0.1)
        assert session.state is SUSPENDED
        await session.lost.wait()
        assert clock.now() == pytest.approx(VALID)


async def test_a_renewal_that_is_refused_for_a_reason_of_its_own_is_tried_again(
    client: Client, spy: Spy, clock: VirtualClock
) -> None:
    def refuse() -> None:
        raise LimitError("too many requests")

    async with client.session() as session:
        spy.meanwhile["renew"] = refuse
        await clock.advance(TTL / 3 + 0.1)
        assert session.state is SUSPENDED
        spy.meanwhile.clear()
        await clock.advance(TTL)
        assert session.state is CONNECTED


async def test_renewals_are_not_hurried_by_failures(
    client: Client, store: MemoryStore, spy: Spy, clock: VirtualClock
) -> None:
    async with client.session(60):
        store.faults.outage("renew")
        await clock.advance(20)
        before = spy.count("renew")
        await clock.advance(35)
        assert spy.count("renew") - before < 30


async def test_a_lost_session_gives_its_lease_back_once_the_store_can_be_reached(
    client: Client, store: MemoryStore, clock: VirtualClock
) -> None:
    store.faults.expiry_factor = 10
    async with client.session() as session:
        await session.put("mine", b"")
        with store.faults.outage("renew"):
            await session.lost.wait()
        await clock.advance(1)
        assert keys(store) == leases(store) == []


async def test_a_lost_session_takes_its_tasks_along(client: Client, store: MemoryStore, clock: VirtualClock) -> None:
    async with client.session() as session:
        await clock.advance(1)
        store.faults.end_lease(session.id)
        await clock.advance(1)
        assert asyncio.all_tasks() == {asyncio.current_task()} | {
            task for task in asyncio.all_tasks() if task.get_name().startswith("fixture")
        }


async def test_the_body_of_a_scope_is_cancelled_at_the_deadline(
    client: Client, store: MemoryStore, clock: VirtualClock
) -> None:
    async with client.session() as session:
        store.faults.freeze()
        with pytest.raises(LostError, match="within the ttl"):
            async with session.scope():
                await asyncio.sleep(3600)
        assert clock.now() == pytest.approx(VALID)
    store.faults.thaw()


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
