"""Listeners: told in order, what is there first; none can harm another, whatever it does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest
from extensions import Diary, info, observer, registered
from worlds import World, until

from osdisco.discovery import DiscoveryListener, ExtensionEvent, ExtensionInfo, ExtensionStatus, _telling
from osdisco.errors import ConfigError

HEALTHY, DEGRADED = ExtensionStatus.HEALTHY, ExtensionStatus.DEGRADED


class Everything(DiscoveryListener):
    def __init__(self) -> None:
        self.told: list[str] = []

    def on_extensions_discovered(self, extensions: Sequence[ExtensionInfo]) -> None:
        self.told += [f"+{extension.id}" for extension in extensions]

    def on_extensions_removed(self, extensions: Sequence[ExtensionInfo]) -> None:
        self.told += [f"-{extension.id}" for extension in extensions]

    def on_extension_status_changed(self, old: ExtensionInfo, new: ExtensionInfo) -> None:
        self.told.append(f"{new.id} {old.status.value}>{new.status.value}")


async def test_a_listener_is_told_what_is_there_and_then_what_changes(world: World) -> None:
    seer = await observer(world.process())
    first = await registered(world.process(), "a")
    await until(lambda: seer.extensions)
    listener = Everything()
    seer.add_listener(listener)
    second = await registered(world.process(), "b")
    await first.set_status(HEALTHY)
    await first.wait_registered(5)
    await first.update(version="2.0.0")  # no change of status
    await first.wait_registered(5)
    await second.stop()
    await until(lambda: "-b" in listener.told)
    assert listener.told == ["+a", "+b", "a starting>healthy", "b starting>stopping", "-b"]


async def test_a_listener_added_before_the_start_misses_nothing(world: World) -> None:
    from osdisco.discovery import DiscoveryService

    await registered(world.process(), "a")
    seer = DiscoveryService(world.process())
    diary = Diary(seer)
    async with seer:
        await until(lambda: diary.lines == ["+a starting"])


async def test_a_listener_needs_only_what_it_cares_for(world: World) -> None:
    class Removed:
        told: list[str]

        def on_extensions_removed(self, extensions: Sequence[ExtensionInfo]) -> None:
            self.told = [extension.id for extension in extensions]

    seer = await observer(world.process())
    listener = Removed()
    seer.add_listener(listener)
    await (await registered(world.process(), "a")).stop()
    await until(lambda: getattr(listener, "told", None) == ["a"])


@pytest.mark.parametrize("nothing", [object(), None, "text"])
async def test_what_cannot_be_told_is_refused(world: World, nothing: object) -> None:
    seer = await observer(world.process())
    with pytest.raises(ConfigError):
        seer.add_listener(nothing)


async def test_coroutine_listeners_are_awaited_one_change_after_the_other(world: World) -> None:
    told: list[str] = []

    async def slow(event: ExtensionEvent) -> None:
        told.append(f"<{event.extension.id}")
        await asyncio.sleep(3)
        told.append(f"{event.extension.id}>")

    seer = await observer(world.process())
    quick = Diary(seer)
    seer.add_listener(slow)
    for id_ in "abc":
        await registered(world.process(), id_)
    await until(lambda: len(quick.lines) == 3, 1)
    await until(lambda: len(told) == 6, 10)
    assert told == ["<a", "a>", "<b", "b>", "<c", "c>"]


async def _raise_later(event: ExtensionEvent) -> None:
    await asyncio.sleep(0)
    raise RuntimeError("bad listener")


def _raise(event: ExtensionEvent) -> None:
    raise RuntimeError("bad listener")


async def _await_something_cancelled(event: ExtensionEvent) -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


@pytest.mark.parametrize("bad", [_raise, _raise_later, _await_something_cancelled])
async def test_a_bad_listener_harms_nobody_and_is_told_on(
    world: World, bad: object, caplog: pytest.LogCaptureFixture
) -> None:
    seer = await observer(world.process())
    before = Diary(seer)
    seer.add_listener(bad)
    after = Diary(seer)
    for id_ in "ab":
        await registered(world.process(), id_)
    await until(lambda: len(caplog.records) == 2)
    await until(lambda: before.lines == after.lines == ["+a starting", "+b starting"])
    assert all("listener" in record.getMessage() for record in caplog.records)


async def test_a_listener_that_hangs_holds_nobody_and_no_more_than_it_must(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has not been told is merged: it is told the difference when it comes back."""
    monkeypatch.setattr(_telling, "PENDING_MAX", 10)
    told: list[ExtensionEvent] = []
    free = asyncio.Event()

    async def hanging(event: ExtensionEvent) -> None:
        told.append(event)
        await free.wait()

    seer = await observer(world.process())
    seer.add_listener(hanging)
    discovery = await registered(world.process(), "a")
    gone = await registered(world.process(), "b")
    await gone.stop()
    for number in range(50):
        await discovery.update(version=f"1.{number}")
        await discovery.wait_registered(5)
    await asyncio.sleep(1)
    (backlog,) = seer._audience._backlogs
    assert len(backlog) <= 11
    free.set()
    await until(lambda: told[-1].new is not None and told[-1].new.version == "1.49")
    assert [event.extension.id for event in told] == ["a"] * len(told)
    assert len(told) < 20
    for earlier, later in pairwise(told):
        assert earlier.new == later.old


def test_merging_keeps_what_was_before_and_what_is_after() -> None:
    a, a2, b, c = info("a"), info("a", version="2"), info("b"), info("c")
    event = ExtensionEvent
    merged = _telling.merge(
        [
            [event(None, a), event(b, None)],
            [event(a, a2), event(c, None)],
            [event(None, c)],
        ]
    )
    assert merged == [event(None, a2), event(b, None)]


async def test_a_removed_listener_hears_no_more(world: World) -> None:
    seer = await observer(world.process())
    diary = Diary(seer)
    await registered(world.process(), "a")
    await until(lambda: diary.lines)
    diary.remove()
    diary.remove()
    await registered(world.process(), "b")
    await asyncio.sleep(1)
    assert diary.lines == ["+a starting"]
    assert not seer._audience._tasks


async def test_a_listener_may_remove_itself_and_finish(world: World) -> None:
    told: list[str] = []

    async def once(event: ExtensionEvent) -> None:
        remove()
        await asyncio.sleep(1)
        told.append(event.extension.id)

    seer = await observer(world.process())
    remove = seer.add_listener(once)
    for id_ in "ab":
        await registered(world.process(), id_)
    await asyncio.sleep(5)
    assert told == ["a"]


async def test_a_listener_may_use_the_service(world: World) -> None:
    """It runs off the task that reads the store."""
    found: list[int] = []
    seer = await observer(world.process())

    async def look(event: ExtensionEvent) -> None:
        found.append(len(await seer.discover_extensions()))

    seer.add_listener(look)
    await registered(world.process(), "a")
    await until(lambda: found == [1])
