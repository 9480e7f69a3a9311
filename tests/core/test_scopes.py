"""Loss and scopes: a body ends in LostError when ownership is lost, and a cancellation from outside stays one."""
# ruff: noqa: PT012, SIM117 - how bodies end is what these tests are about

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import pytest

from osdisco._loss import Loss, Scope
from osdisco.errors import LostError
from osdisco.testing import VirtualClock

pytestmark = pytest.mark.usefixtures("osdisco_clock")


def scope(lost: Loss) -> Scope:
    return Scope(lost, lost.raise_if_set)


def later(seconds: float, lost: Loss, reason: str = "gone") -> None:
    asyncio.get_running_loop().call_later(seconds, lost.set, reason)


def cancelling() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def assert_no_stray_cancellation() -> None:
    """A cancellation that was requested but not delivered shows at the next awaits."""
    assert cancelling() == 0
    for _ in range(3):
        await asyncio.sleep(0)
    await asyncio.sleep(1)


# the latch


async def test_loss_is_latched_with_its_first_reason() -> None:
    lost = Loss()
    assert (lost.is_set(), lost.reason, repr(lost)) == (False, None, "<not lost>")
    lost.raise_if_set()
    assert lost.set("first")
    assert not lost.set("second")
    assert (lost.is_set(), lost.reason, repr(lost)) == (True, "first", "<lost: first>")
    with pytest.raises(LostError, match="first") as caught:
        lost.raise_if_set()
    assert caught.value.reason == "first"
    assert await lost.wait() == "first"


async def test_everybody_is_told_once_and_late_comers_at_once() -> None:
    lost, told = Loss(), list[str]()
    lost.call(lambda reason: told.append(f"a {reason}"))
    forget = lost.call(lambda reason: told.append(f"b {reason}"))
    lost.call(lambda reason: told.append(f"c {reason}"))
    forget()
    lost.set("x")
    lost.set("y")
    lost.call(lambda reason: told.append(f"d {reason}"))()
    assert told == ["a x", "c x", "d x"]


async def test_who_fails_when_told_keeps_it_from_nobody(caplog: pytest.LogCaptureFixture) -> None:
    lost, told = Loss(), list[str]()

    def fail(reason: str) -> None:
        raise ZeroDivisionError(reason)

    lost.call(fail)
    lost.call(told.append)
    with caplog.at_level(logging.ERROR):
        assert lost.set("x")
    assert told == ["x"]
    assert "ZeroDivisionError" in caplog.text


# one scope


async def test_a_body_is_cancelled_on_loss_and_ends_in_lost_error(osdisco_clock: VirtualClock) -> None:
    lost, cleaned = Loss(), False
    later(5, lost)
    with pytest.raises(LostError, match="gone") as caught:
        async with scope(lost):
            try:
                await asyncio.sleep(60)
            finally:
                cleaned = True
    assert cleaned
    assert osdisco_clock.now() == 5
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    await assert_no_stray_cancellation()


async def test_a_body_without_loss_ends_as_it_ends() -> None:
    lost = Loss()
    async with scope(lost):
        await asyncio.sleep(1)
    with pytest.raises(ZeroDivisionError):
        async with scope(lost):
            1 // 0  # noqa: B018
    later(1, lost)
    await asyncio.sleep(2)
    await assert_no_stray_cancellation()


async def test_a_body_cancelled_from_outside_stays_cancelled() -> None:
    lost = Loss()

    async def body() -> None:
        async with scope(lost):
            await asyncio.sleep(60)

    task = asyncio.create_task(body())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert task.cancelling() == 1


@pytest.mark.parametrize("loss_first", [True, False])
async def test_loss_and_cancellation_at_once_stay_a_cancellation(loss_first: bool) -> None:
    lost = Loss()

    async def body() -> None:
        async with scope(lost):
            await asyncio.sleep(60)

    task = asyncio.create_task(body())
    await asyncio.sleep(1)
    if loss_first:
        lost.set("gone")
        await asyncio.sleep(0)  # the loss has asked for the cancellation; it is not delivered yet
        task.cancel()
    else:
        task.cancel()
        lost.set("gone")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelling() == 1, "only the caller's own request is left, as with asyncio.timeout"


async def test_a_cancellation_during_the_cleanup_after_loss_stays_a_cancellation() -> None:
    lost = Loss()

    async def body() -> None:
        async with scope(lost):
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(10)

    task = asyncio.create_task(body())
    await asyncio.sleep(1)
    lost.set("gone")
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelling() == 1


async def test_loss_during_the_cleanup_after_a_cancellation_stays_a_cancellation() -> None:
    lost, cleaned = Loss(), list[str]()

    async def body() -> None:
        async with scope(lost):
            try:
                await asyncio.sleep(60)
            finally:
                try:
                    await asyncio.sleep(10)
                finally:
                    cleaned.append("cut short")

    task = asyncio.create_task(body())
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.sleep(1)
    lost.set("gone")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned
    assert task.cancelling() == 1


async def test_loss_found_by_the_body_itself_leaves_no_stray_cancellation() -> None:
    lost = Loss()
    with pytest.raises(LostError, match="found"):
        async with scope(lost):
            lost.set("found")
            lost.raise_if_set()
    await assert_no_stray_cancellation()


async def test_a_body_that_survives_the_loss_that_it_found_is_cancelled_at_its_next_await() -> None:
    lost, reached = Loss(), False
    with pytest.raises(LostError, match="found"):
        async with scope(lost):
            lost.set("found")
            await asyncio.sleep(1)
            await asyncio.sleep(1)
            reached = True
    assert not reached
    await assert_no_stray_cancellation()


async def test_a_body_that_ends_without_having_noticed_ends_in_lost_error() -> None:
    lost = Loss()
    with pytest.raises(LostError, match="unseen"):
        async with scope(lost):
            lost.set("unseen")
    await assert_no_stray_cancellation()


async def test_a_body_that_ends_past_its_deadline_ends_in_lost_error_though_nobody_looked() -> None:
    lost, past = Loss(), False

    def check() -> None:
        if past:
            lost.set("past the deadline")
        lost.raise_if_set()

    with pytest.raises(LostError, match="past the deadline"):
        async with Scope(lost, check):
            past = True
    await assert_no_stray_cancellation()


async def test_a_body_that_swallows_the_cancellation_ends_in_lost_error_all_the_same() -> None:
    lost = Loss()
    later(1, lost)
    with pytest.raises(LostError):
        async with scope(lost):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
    await assert_no_stray_cancellation()


async def test_a_body_that_fails_in_its_cleanup_ends_in_that_failure() -> None:
    lost = Loss()
    later(1, lost)
    with pytest.raises(ZeroDivisionError):
        async with scope(lost):
            try:
                await asyncio.sleep(60)
            finally:
                1 // 0  # noqa: B018
    await assert_no_stray_cancellation()


async def test_a_scope_is_not_entered_after_the_loss() -> None:
    lost = Loss()
    lost.set("before")
    with pytest.raises(LostError, match="before"):
        async with scope(lost):
            pytest.fail("entered")
    await assert_no_stray_cancellation()


async def test_a_scope_is_entered_once() -> None:
    lost = Loss()
    once = scope(lost)
    async with once:
        pass
    with pytest.raises(RuntimeError, match="entered once"):
        async with once:
            pytest.fail("its body would not be cancelled")


async def test_a_scope_that_was_left_does_not_cancel_its_task() -> None:
    lost = Loss()
    async with scope(lost):
        pass
    lost.set("gone")
    await assert_no_stray_cancellation()


async def test_a_loss_that_falls_together_with_the_end_of_the_body_cancels_nothing_later() -> None:
    lost = Loss()
    with pytest.raises(LostError):
        async with scope(lost):
            await asyncio.sleep(1)
            lost.set("gone")
    await assert_no_stray_cancellation()


# several scopes, and asyncio's own timeouts


async def test_scopes_of_one_loss_nest() -> None:
    lost, seen = Loss(), list[str]()
    later(1, lost)
    with pytest.raises(LostError, match="gone"):
        async with scope(lost):
            try:
                async with scope(lost):
                    await asyncio.sleep(60)
            except BaseException as exc:
                seen.append(type(exc).__name__)
                raise
    assert len(seen) == 1
    await assert_no_stray_cancellation()


async def test_the_loss_of_the_inner_one_spares_the_outer_one() -> None:
    outer, inner = Loss(), Loss()
    later(1, inner, "inner")
    async with scope(outer):
        with pytest.raises(LostError, match="inner"):
            async with scope(inner):
                await asyncio.sleep(60)
        await assert_no_stray_cancellation()


async def test_the_loss_of_the_outer_one_goes_through_the_inner_one() -> None:
    outer, inner = Loss(), Loss()
    later(1, outer, "outer")
    with pytest.raises(LostError, match="outer"):
        async with scope(outer):
            async with scope(inner):
                await asyncio.sleep(60)
    await assert_no_stray_cancellation()


async def test_both_lost_at_once_end_in_one_lost_error() -> None:
    outer, inner = Loss(), Loss()
    later(1, inner, "inner")
    later(1, outer, "outer")
    with pytest.raises(LostError):
        async with scope(outer):
            async with scope(inner):
                await asyncio.sleep(60)
    await assert_no_stray_cancellation()


async def test_a_timeout_around_a_scope_is_a_timeout() -> None:
    lost = Loss()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1), scope(lost):
            await asyncio.sleep(60)
    await assert_no_stray_cancellation()


async def test_a_loss_within_a_timeout_is_a_loss() -> None:
    lost = Loss()
    later(1, lost)
    with pytest.raises(LostError):
        async with asyncio.timeout(10), scope(lost):
            await asyncio.sleep(60)
    await assert_no_stray_cancellation()
    await asyncio.sleep(20)


async def test_a_timeout_in_a_scope_is_a_timeout() -> None:
    lost = Loss()
    async with scope(lost):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.sleep(60)
        await assert_no_stray_cancellation()


async def test_a_loss_goes_through_a_timeout_in_its_scope() -> None:
    lost = Loss()
    later(1, lost)
    with pytest.raises(LostError):
        async with scope(lost), asyncio.timeout(10):
            await asyncio.sleep(60)
    await assert_no_stray_cancellation()


@pytest.mark.parametrize("timeout_first", [True, False])
async def test_a_timeout_around_and_a_loss_at_once_are_one_error(timeout_first: bool) -> None:
    lost = Loss()
    later(1 + timeout_first * 1e-6, lost)
    with pytest.raises((TimeoutError, LostError)):
        async with asyncio.timeout(1 + (not timeout_first) * 1e-6), scope(lost):
            await asyncio.sleep(60)
    await assert_no_stray_cancellation()


@pytest.mark.parametrize("timeout_first", [True, False])
async def test_a_timeout_inside_and_a_loss_at_once_are_one_error(timeout_first: bool) -> None:
    lost = Loss()
    later(1 + timeout_first * 1e-6, lost)
    with pytest.raises((TimeoutError, LostError)):
        async with scope(lost):
            async with asyncio.timeout(1 + (not timeout_first) * 1e-6):
                await asyncio.sleep(60)
    await assert_no_stray_cancellation()


async def test_a_timeout_inside_and_a_loss_in_the_same_step_are_a_loss() -> None:
    lost = Loss()
    with pytest.raises(LostError):
        async with scope(lost):
            async with asyncio.timeout(10) as timeout:
                later(1, lost)
                asyncio.get_running_loop().call_later(1, lambda: timeout.reschedule(0))
                await asyncio.sleep(60)
    await assert_no_stray_cancellation()


async def test_a_task_group_in_a_scope_ends_its_tasks_on_loss() -> None:
    lost, ended = Loss(), list[int]()

    async def child(number: int) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(number)

    later(1, lost)
    with pytest.raises(LostError):
        async with scope(lost), asyncio.TaskGroup() as group:
            group.create_task(child(1))
            group.create_task(child(2))
    assert sorted(ended) == [1, 2]
    await assert_no_stray_cancellation()


async def test_a_scope_needs_a_task() -> None:
    failures: list[str] = []

    def outside_of_a_task() -> None:
        try:
            scope(Loss()).enter()
        except RuntimeError as exc:
            failures.append(str(exc))

    asyncio.get_running_loop().call_soon(outside_of_a_task)
    await asyncio.sleep(1)
    assert failures == ["a scope needs a task whose body it can cancel"]


async def test_a_scope_in_the_cleanup_of_a_cancelled_task_still_ends_in_lost_error() -> None:
    lost, ended = Loss(), list[str]()

    async def body() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            later(1, lost)
            try:
                async with scope(lost):
                    await asyncio.sleep(60)
            except LostError as exc:
                ended.append(exc.reason)

    task = asyncio.create_task(body())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["gone"]
    assert task.cancelling() == 1


async def test_scopes_that_were_left_are_forgotten_by_what_they_watched() -> None:
    lost = Loss()
    for _ in range(100):
        async with scope(lost):
            pass
    assert not lost._callbacks
