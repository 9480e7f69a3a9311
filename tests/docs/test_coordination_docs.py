"""The pages on coordination: every example runs and shows what it says, on every store, and nothing lacks one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from apis import calls, lines, without_example
from examples import DOCS, Area, Example, examples_of
from pages import Pages
from worlds import World

import osdisco.coordination
from osdisco.coordination import CoordinationService

COORDINATION = Area(
    "coordination",
    lambda client, other: {"coordination": CoordinationService(client), "elsewhere": CoordinationService(other)},
)
EXAMPLES = COORDINATION.examples
(API,) = examples_of(DOCS / "api-coordination.md")


class TestCoordination(Pages):
    area = COORDINATION


WRONG = [
    "1 + 1  # -> 3",
    "two = 1 + 1  # -> 3",
    "await coordination.counter('a').add(2)  # -> 1",
    "await coordination.counter('a').add(2)  # raises LostError",
    "async with coordination.lock('a') as guard:\n    guard.check()  # raises LostError",
    "assert False",
]


@pytest.mark.parametrize("text", WRONG)
async def test_a_wrong_example_fails(world: World, text: str) -> None:
    example = Example(COORDINATION.pages[0], 2, "wrong", text)
    assert example.claims
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        await COORDINATION.run(example, world.process(), world.process())


# Nothing lacks an example

INTERNAL = {("DistributedLock", "hold"), ("DistributedLock", "try_hold")}
INTERNAL |= {(told, name) for told in ("Term", "StatusWatch") for name in ("on_change", "on_trouble")}
"""For what is built on them; users have other calls."""


def test_every_public_name_has_an_example() -> None:
    """A new public method, property or field fails here until a page shows it."""
    classes = [getattr(osdisco.coordination, name) for name in osdisco.coordination.__all__]
    assert without_example(COORDINATION, classes) - INTERNAL == set()


def test_every_call_of_the_api_has_an_example() -> None:
    shown = {call for example in EXAMPLES for call in calls(example.tree())}
    missing = [call for call in lines(API.tree()) if call[:2] not in shown]
    assert missing == []


# What it costs


Steps = AsyncIterator[None]
"""What is there before; the operation; and its end."""


async def held(thing: Any, seconds: float = 0.5) -> Steps:
    await (await thing.acquire()).release()
    yield
    guard = await thing.acquire()
    await asyncio.sleep(seconds)
    yield
    await guard.release()


async def given_up(acquire: Callable[[], Any], give_up: Callable[[Any], Awaitable[None]]) -> Steps:
    handle = await acquire()
    await asyncio.sleep(2)
    yield
    await give_up(handle)
    yield


async def called(*calls: Callable[[], Awaitable[object]]) -> Steps:
    """Measure the last of the calls."""
    for call in calls[:-1]:
        await call()
    yield
    await calls[-1]()
    yield


async def revoked(c: CoordinationService) -> Steps:
    guard = await c.lock("a").acquire()
    yield
    await c.lock("a").revoke(guard.token)
    yield


async def campaigned(c: CoordinationService) -> Steps:
    yield
    async with c.election("a").campaign():
        yield


async def proclaimed(c: CoordinationService) -> Steps:
    async with c.election("a").campaign() as term:
        yield
        await term.proclaim({"a": 1})
        yield


async def entered(c: CoordinationService) -> Steps:
    yield
    stay = await c.double_barrier("a", parties=1).enter()
    yield
    await stay.leave()


async def joined(c: CoordinationService) -> Steps:
    yield
    async with c.group("a").join("a"):
        yield


async def divided(c: CoordinationService) -> Steps:
    async with c.group("a").join("a") as membership:
        yield
        async with membership.partition(8) as owned:
            await owned.until(lambda mine: len(mine) == 8)
            yield


COSTS: dict[str, Callable[[CoordinationService], Steps]] = {
    "`lock().acquire()`, held up to 1 s": lambda c: held(c.lock("a")),
    "`lock().acquire()`, held longer": lambda c: held(c.lock("a"), 2),
    "`guard.release()`": lambda c: given_up(c.lock("a").acquire, lambda guard: guard.release()),
    "`rwlock().read().acquire()`, held longer": lambda c: held(c.rwlock("a").read(), 2),
    "`semaphore().acquire()`, held longer": lambda c: held(c.semaphore("a", limit=2), 2),
    "`multilock()` of 3, `acquire()`, held longer": lambda c: held(c.multilock(["a", "b", "c"]), 2),
    "`lock().contenders()`": lambda c: called(c.lock("a").contenders),
    "`lock().revoke()` without grace": revoked,
    "`election().campaign()`": campaigned,
    "`term.proclaim()`": proclaimed,
    "`term.resign()`": lambda c: given_up(c.election("a").campaign, lambda term: term.resign()),
    "`election().leader()`": lambda c: called(c.election("a").leader),
    "`barrier().hold()`": lambda c: called(c.barrier("a").hold),
    "`barrier().wait()`, not held": lambda c: called(c.barrier("a").wait),
    "`barrier().release()`": lambda c: called(c.barrier("a").hold, lambda: asyncio.sleep(1), c.barrier("a").release),
    "`double_barrier(parties=1).enter()`": entered,
    "`counter().add()`": lambda c: called(c.counter("a").add),
    "`counter().add(exactly_once=True)`": lambda c: called(lambda: c.counter("a").add(exactly_once=True)),
    "`shared_value().set()`": lambda c: called(lambda: c.shared_value("a").set(1)),
    "`shared_value().update()`": lambda c: called(lambda: c.shared_value("a").update(lambda _: 1)),
    "`consensus().propose()`, the first": lambda c: called(lambda: c.consensus("a").propose(b"a")),
    "`consensus().propose()`, a later one": lambda c: called(*2 * [lambda: c.consensus("a").propose(b"a")]),
    "`group().join()`": joined,
    "`membership.partition(8)`": divided,
    "`status()`, and one request more for each session": lambda c: called(c.status),
}


def costs() -> dict[str, tuple[int, ...]]:
    """Return the table of the page: reads, commits and watches by operation."""
    _, _, below = (DOCS / "coordination.md").read_text().partition("| operation | reads | commits | watches |")
    rows = re.findall(r"^\| (.+?) \| (\d+) \| (\d+) \| (\d+) \|$", below, re.M)
    return {row[0]: tuple(map(int, row[1:])) for row in rows}


def test_the_table_of_costs_is_measured() -> None:
    assert costs().keys() == COSTS.keys()


@pytest.mark.parametrize("operation", COSTS)
async def test_an_operation_costs_what_the_table_says(world: World, operation: str) -> None:
    client = world.process()
    backend, session = client.backend, await client.shared_session()
    steps = COSTS[operation](CoordinationService(client, session=session))
    await anext(steps)
    await asyncio.sleep(0.5)
    backend.calls.clear()
    await anext(steps)
    await asyncio.sleep(0.1)
    watching = sum(backend.watching.values()) - 1  # but the session's own
    assert (backend.calls["get"] + backend.calls["scan"], backend.calls["commit"], watching) == costs()[operation]
    await anext(steps, None)
