"""Sessions (rules S10 to S12): valid from the moment of sending, never by an answer alone, and lost for good."""

from __future__ import annotations

import asyncio
import logging
import re
from threading import Thread

import pytest
from core_fakes import Spy, keys, leases

from osdisco import Client, SessionState
from osdisco.errors import (
    LimitError,
    LostError,
)
from osdisco.testing import VirtualClock
from osdisco_memory import MemoryStore

CONNECTED, SUSPENDED, LOST = SessionState.CONNECTED, SessionState.SUSPENDED, SessionState.LOST

TTL = 10.0
VALID = 0.99 * TTL - 1.0  # S11: how long a renewal is good for, counted from its sending


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


@pytest.mark.parametrize("left", [0.06, 0.1, 0.2, 0.5])
async def test_an_outage_shorter_than_the_ttl_suspends_and_passes(
    client: Client, store: MemoryStore, clock: VirtualClock, left: float
) -> None:
    async with client.session() as session:
        await session.put("mine", b"")
        await clock.advance(1)
        with store.faults.outage():
            await clock.advance(TTL / 3)
            assert session.state is SUSPENDED
            session.check()
            assert session.valid
            await clock.advance(session.deadline - clock.now() - left)  # another attempt comes in what is left
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
