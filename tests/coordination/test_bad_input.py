"""What no recipe takes, as tables: it is refused with a typed error that says what is allowed, and nothing is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from recipes import RECIPES, Recipe, give_up, settled, stand
from worlds import World, lease_of

from osdisco.backend import Put
from osdisco.coordination import CoordinationService, Fence, LeadershipListener
from osdisco.errors import (
    ClosedError,
    ConfigError,
    CoordinationError,
    InvalidNameError,
    LimitError,
    LostError,
    RecordError,
    StaleTokenError,
)

Call = Callable[[CoordinationService, Any], Any]

# Names

NAMED: dict[str, Call] = {
    "lock": lambda c, name: c.lock(name),
    "lock manager": lambda c, name: c.locks.acquire(name),
    "rwlock": lambda c, name: c.rwlock(name),
    "semaphore": lambda c, name: c.semaphore(name, limit=1),
    "multilock": lambda c, name: c.multilock(["fine", name]),
    "election": lambda c, name: c.election(name),
    "candidate": lambda c, name: c.election("fine", candidate_id=name),
    "barrier": lambda c, name: c.barrier(name),
    "barrier manager": lambda c, name: c.barriers.hold(name),
    "double barrier": lambda c, name: c.double_barrier(name, parties=1),
    "counter": lambda c, name: c.counter(name),
    "shared value": lambda c, name: c.shared_value(name),
    "consensus": lambda c, name: c.consensus(name),
    "group": lambda c, name: c.group(name),
    "member": lambda c, name: c.group("fine").join(name),
}
BAD_NAMES = {
    "": "must not be empty",
    "\ud800": "lone surrogate",
    "a" * 256: "255 are allowed",
    "é" * 128: "255 are allowed",
    7: "text",
    b"a": "text",
}


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: f"{name!a:.9}")
@pytest.mark.parametrize("recipe", NAMED)
async def test_a_bad_name(world: World, recipe: str, name: object) -> None:
    await refused(world, NAMED[recipe], name, (InvalidNameError, ConfigError), BAD_NAMES[name])


@pytest.mark.parametrize("recipe", sorted(NAMED.keys() - {"candidate"}))
async def test_a_name_that_fits_a_segment_and_no_key(world: World, recipe: str) -> None:
    """Escaped, it is three times as long."""
    await refused(world, NAMED[recipe], "é" * 120, InvalidNameError, "bytes")


async def refused(world: World, call: Call, argument: object, error: Any, says: str) -> None:
    client = world.process()
    with pytest.raises(error, match=says):
        await settled(call(CoordinationService(client), argument))
    assert not client.backend.calls["commit"]


# Numbers

TIMED: dict[str, Call] = {
    "lock": lambda c, timeout: c.lock("a", timeout=timeout),
    "lock.acquire": lambda c, timeout: c.lock("a").acquire(timeout),
    "lock manager": lambda c, timeout: c.locks.acquire("a", timeout=timeout),
    "read": lambda c, timeout: c.rwlock("a").read(timeout=timeout),
    "write.acquire": lambda c, timeout: c.rwlock("a").write().acquire(timeout),
    "semaphore": lambda c, timeout: c.semaphore("a", limit=1, timeout=timeout),
    "semaphore.acquire": lambda c, timeout: c.semaphore("a", limit=1).acquire(timeout),
    "multilock": lambda c, timeout: c.multilock(["a"], timeout=timeout),
    "multilock.acquire": lambda c, timeout: c.multilock(["a"]).acquire(timeout),
    "election.campaign": lambda c, timeout: c.election("a").campaign(timeout),
    "barrier.wait": lambda c, timeout: c.barrier("a").wait(timeout),
    "barrier manager": lambda c, timeout: c.barriers.wait("a", timeout=timeout),
    "double barrier": lambda c, timeout: c.double_barrier("a", parties=1, timeout=timeout),
    "double barrier.enter": lambda c, timeout: c.double_barrier("a", parties=1).enter(timeout),
}
BAD_TIMEOUTS = [0, -1, -0.0, float("nan"), float("inf"), True, False, "5", "5s", [], 10**400]


@pytest.mark.parametrize("timeout", BAD_TIMEOUTS, ids=lambda timeout: f"{timeout!a:.9}")
@pytest.mark.parametrize("call", TIMED)
async def test_a_timeout_that_is_no_time(world: World, call: str, timeout: object) -> None:
    await refused(world, TIMED[call], timeout, ConfigError, "seconds above zero")


async def test_a_timeout_that_is_no_time_while_something_is_held(world: World) -> None:
    coordination = CoordinationService(world.process())
    stay = await coordination.double_barrier("a", parties=1).enter()
    async with coordination.group("a").join("a") as membership, membership.partition(1) as owned:
        for wait in (
            stay.leave,
            membership.wait_joined,
            lambda timeout: membership.members.until(len, timeout),
            lambda timeout: owned.until(len, timeout),
        ):
            for timeout in BAD_TIMEOUTS:
                with pytest.raises(ConfigError, match="seconds above zero"):
                    await wait(timeout)
    await stay.leave()


COUNTED: dict[str, tuple[Call, str]] = {
    "limit": (lambda c, count: c.semaphore("a", limit=count), "from 1 to 10000"),
    "parties": (lambda c, count: c.double_barrier("a", parties=count), "from 1 to 500"),
    "partitions": (lambda c, count: c.group("a").join("a").partition(count), "from 1 to 1024"),
    "weight": (lambda c, count: c.group("a").join("a", weight=count), "from 1 to 10000"),
}
BAD_COUNTS = [0, -1, 1.0, 1.5, float("nan"), "1", None, True, 10_001, 10**5000]


@pytest.mark.parametrize("count", BAD_COUNTS, ids=lambda count: "1e5000" if count == BAD_COUNTS[-1] else repr(count))
@pytest.mark.parametrize("what", COUNTED)
async def test_a_count_that_is_none(world: World, what: str, count: object) -> None:
    call, says = COUNTED[what]
    await refused(world, call, count, ConfigError, says)


BAD_NUMBERS: dict[str, tuple[Call, list[object], type[Exception], str]] = {
    "priority": (
        lambda c, number: c.election("a", priority=number),
        ["high", 1.0, True, None, []],
        ConfigError,
        "a priority is an integer",
    ),
    "token": (
        lambda c, token: c.lock("a").revoke(token),
        ["7", 7.0, True, None],
        ConfigError,
        "a token is a whole number",
    ),
    "grace": (
        lambda c, grace: c.semaphore("a", limit=1).revoke(7, grace),
        [-1, float("nan"), float("inf"), "1", None, True, 10**400],
        ConfigError,
        "zero or more",
    ),
    "addition": (lambda c, delta: c.counter("a").add(delta), ["1", 1.0, True, None], ConfigError, "a whole number"),
    "sum": (lambda c, delta: c.counter("a").add(delta), [2**63, -(2**63), 10**400], LimitError, "64 bits"),
}


@pytest.mark.parametrize("what", BAD_NUMBERS)
async def test_a_number_that_is_none(world: World, what: str) -> None:
    call, numbers, error, says = BAD_NUMBERS[what]
    for number in numbers:
        await refused(world, call, number, error, says)


@pytest.mark.parametrize("token", ["7", 7.5, float("nan"), None, True, -1])
def test_a_token_that_is_none(token: object) -> None:
    """NaN is older than nothing: remembered, it would admit everybody from then on."""
    fence = Fence()
    for use in (lambda: fence.admit(token), lambda: Fence(token)):
        with pytest.raises(ConfigError, match="a token is a whole number"):
            use()
    fence.admit(5)
    with pytest.raises(StaleTokenError, match="4 is older than 5"):
        fence.admit(4)


# What is told of oneself

TOLD: dict[str, Call] = {
    "lock": lambda c, info: c.lock("a", info=info),
    "read": lambda c, info: c.rwlock("a").read(info=info),
    "write": lambda c, info: c.rwlock("a").write(info=info),
    "semaphore": lambda c, info: c.semaphore("a", limit=1, info=info),
    "multilock": lambda c, info: c.multilock(["a"], info=info),
    "election": lambda c, info: c.election("a", info=info),
    "member": lambda c, info: c.group("a").join("a", info=info),
}
BAD_INFOS: dict[str, object] = {
    "object": {"a": object()},
    "bytes": {"a": b"b"},
    "nan": {"a": float("nan")},
    "surrogate": {"a": "\ud800"},
    "too large": {"a": "x" * 65_536},
    "two keys that become one": {1: "a", "1": "b"},
    "list": ["a"],
    "text": "text",
    "number": 7,
}


@pytest.mark.parametrize("info", BAD_INFOS)
@pytest.mark.parametrize("recipe", TOLD)
async def test_info_that_is_no_json_no_mapping_or_too_large(world: World, recipe: str, info: str) -> None:
    await refused(world, TOLD[recipe], BAD_INFOS[info], RecordError, "JSON|mapping|bytes|Mapping|dict|twice")


async def test_info_that_is_too_large_only_for_a_leader(world: World) -> None:
    """Refused before it comes to that: what stands for the leader holds more than what stands for a candidate."""
    await refused(world, TOLD["election"], {"a": "x" * 65_440}, RecordError, "bytes")


async def test_info_that_is_told_later(world: World) -> None:
    coordination = CoordinationService(world.process())
    async with coordination.election("a").campaign() as term, coordination.group("a").join("a") as membership:
        for info in BAD_INFOS.values():
            with pytest.raises(RecordError):
                await term.proclaim(info)
            with pytest.raises(RecordError):
                await membership.update(info=info)
        for count in BAD_COUNTS:
            if count is not None:
                with pytest.raises(ConfigError, match="from 1 to 10000"):
                    await membership.update(weight=count)
        term.check()
        assert membership.member.info == {}


@pytest.mark.parametrize("value", [info for name, info in BAD_INFOS.items() if name not in ("list", "text", "number")])
async def test_a_shared_value_that_is_no_json(world: World, value: object) -> None:
    await refused(world, lambda c, v: c.shared_value("a", v), value, RecordError, "JSON|bytes|twice")
    await refused(world, lambda c, v: c.shared_value("a").set(v), value, RecordError, "JSON|bytes|twice")
    await refused(world, lambda c, v: c.shared_value("a").update(lambda _: v), value, RecordError, "JSON|bytes|twice")


@pytest.mark.parametrize("value", ["text", None, 7, {}])
async def test_a_proposal_that_is_no_bytes(world: World, value: object) -> None:
    await refused(world, lambda c, v: c.consensus("a").propose(v), value, ValueError, "a value is bytes")


NAMES_OF_A_MULTILOCK: list[tuple[object, str]] = [
    ([], "from 1 to 32"),
    ([f"{number}" for number in range(33)], "from 1 to 32"),
    (["a", "b", "a"], "twice"),
    ("ab", "a list of names"),
    (7, "a list of names"),
    (None, "a list of names"),
]


@pytest.mark.parametrize(("names", "says"), NAMES_OF_A_MULTILOCK)
async def test_names_of_a_multilock_that_are_no_list_of_them(world: World, names: object, says: str) -> None:
    await refused(world, lambda c, n: c.multilock(n), names, ConfigError, says)


@pytest.mark.parametrize("listener", [None, 7, "text", object(), LeadershipListener.on_leadership_acquired.__name__])
async def test_a_listener_that_cannot_be_told(world: World, listener: object) -> None:
    await refused(world, lambda c, one: c.election("a").add_listener(one), listener, ConfigError, "LeadershipListener")


# What does not fit to what others do


async def test_a_semaphore_that_was_opened_with_another_limit(world: World) -> None:
    a, b = CoordinationService(world.process()), CoordinationService(world.process())
    async with a.semaphore("a", limit=2) as permit:
        for use in (b.semaphore("a", limit=3).acquire(5), b.semaphore("a", limit=1).try_acquire()):
            with pytest.raises(ConfigError, match="a limit of 2, as"):
                await use
        await asyncio.sleep(0.1)
        assert [one.token for one in await b.semaphore("a", limit=3).contenders()] == [permit.token]
        async with b.semaphore("a", limit=2).acquire(1):
            pass


async def test_a_double_barrier_for_another_number_of_parties(world: World) -> None:
    a, b = CoordinationService(world.process()), CoordinationService(world.process())
    first = asyncio.ensure_future(a.double_barrier("a", parties=2).enter())
    await asyncio.sleep(1)
    for parties in (1, 3):
        with pytest.raises(ConfigError, match="for 2 parties"):
            await b.double_barrier("a", parties=parties).enter(5)
    second = await b.double_barrier("a", parties=2).enter(5)
    await asyncio.gather((await first).leave(), second.leave())


async def test_a_group_that_has_another_number_of_partitions(world: World) -> None:
    a, b = CoordinationService(world.process()), CoordinationService(world.process())
    async with a.group("a").join("a") as one, b.group("a").join("b") as other, one.partition(16) as owned:
        await owned.until(lambda mine: mine, 5)
        with pytest.raises(ConfigError, match="has 16 partitions"):
            await other.partition(15).__aenter__()


# The wrong moment


@pytest.fixture(params=RECIPES, ids=lambda recipe: recipe.name)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return request.param


async def test_giving_up_twice(world: World, recipe: Recipe) -> None:
    """The second time waits for the first, and says nothing; it does not take away what is held since."""
    client, other = world.process(), world.process()
    handle = await recipe.stand(client)
    await give_up(handle)
    async with recipe.stand(other, 1) as current:
        await give_up(handle)
        current.check()
    for use in (handle.check, handle.__aenter__, lambda: handle.commit([Put("a", b"")])):
        with pytest.raises(LostError, match=r"released|given up"):
            await settled(use())


async def test_use_after_loss(world: World, recipe: Recipe) -> None:
    client = world.process()
    handle = await recipe.stand(client)
    world.store.faults.end_lease(await lease_of(client))
    await handle.lost.wait()
    for use in (handle.check, handle.__aenter__, lambda: handle.commit([Put("a", b"")]), lambda: give_up(handle)):
        with pytest.raises(LostError, match=r"gone|lease"):
            await settled(use())


async def test_use_after_close(world: World, recipe: Recipe) -> None:
    client = world.process()
    thing = recipe.of(client)
    handle = await stand(thing)
    await client.aclose()
    for use in (handle.check, handle.__aenter__, lambda: handle.commit([Put("a", b"")]), lambda: give_up(handle)):
        with pytest.raises(LostError, match="closed"):
            await settled(use())
    uses = [lambda: stand(thing), lambda: recipe.attempt(client)]
    if hasattr(thing, "contenders"):
        uses += [thing.contenders, lambda: thing.revoke(handle.token)]
    for use in uses:
        with pytest.raises(ClosedError, match="closed"):
            await use()


AFTER_CLOSE: dict[str, Callable[[CoordinationService], Any]] = {
    "leader": lambda c: c.election("a").leader(),
    "participate": lambda c: c.election("a").participate(),
    "observe": lambda c: c.election("a").observe().__aenter__(),
    "barrier.hold": lambda c: c.barrier("a").hold(),
    "barrier.wait": lambda c: c.barrier("a").wait(),
    "barrier.release": lambda c: c.barrier("a").release(),
    "double barrier": lambda c: c.double_barrier("a", parties=1).enter(),
    "counter.add": lambda c: c.counter("a").add(),
    "counter.get": lambda c: c.counter("a").get(),
    "shared value.get": lambda c: c.shared_value("a").get(),
    "shared value.set": lambda c: c.shared_value("a").set(1),
    "shared value.update": lambda c: c.shared_value("a").update(lambda _: 1),
    "shared value.watch": lambda c: c.shared_value("a").watch().__aenter__(),
    "consensus.propose": lambda c: c.consensus("a").propose(b""),
    "consensus.decided": lambda c: c.consensus("a").decided(),
    "group.join": lambda c: c.group("a").join("a"),
    "group.members": lambda c: c.group("a").members(),
    "group.view": lambda c: c.group("a").view(),
    "group.events": lambda c: c.group("a").events().__aenter__(),
}


@pytest.mark.parametrize("use", AFTER_CLOSE)
async def test_the_others_after_close(world: World, use: str) -> None:
    client = world.process()
    await client.aclose()
    with pytest.raises(ClosedError, match="closed"):
        await AFTER_CLOSE[use](CoordinationService(client))


async def test_entering_twice(world: World, recipe: Recipe) -> None:
    """A handle is entered once, an acquisition awaited or entered once; the object behind them as often as you like."""
    client = world.process()
    thing = recipe.of(client)
    acquisition = stand(thing)
    async with acquisition as handle:
        with pytest.raises(CoordinationError, match="once"):
            await handle.__aenter__()
        with pytest.raises(CoordinationError, match="once"):
            await acquisition
        with pytest.raises(CoordinationError, match="once"):
            await acquisition.__aenter__()
        handle.check()
    async with stand(thing, 1) as another:
        assert another.token > handle.token


async def test_entering_a_double_barrier_twice(world: World) -> None:
    barrier = CoordinationService(world.process()).double_barrier("a", parties=1)
    async with barrier as stay:
        with pytest.raises(CoordinationError, match="once"):
            await stay.__aenter__()
    with pytest.raises(LostError, match="given up"):
        await stay.leave()
    async with barrier:
        pass


async def test_membership_and_partitions_the_second_time(world: World) -> None:
    coordination = CoordinationService(world.process())
    membership = coordination.group("a").join("a")
    with pytest.raises(ClosedError, match="join first"):
        await membership.update(weight=2)
    with pytest.raises(ClosedError, match="join first"):
        await membership.partition(1).__aenter__()
    async with membership:
        with pytest.raises(ClosedError, match="joined once"):
            await membership
        partitioning = membership.partition(1)
        async with partitioning:
            with pytest.raises(ClosedError, match="entered once"):
                await partitioning.__aenter__()
    await membership.leave()  # again: nothing
    for use in (lambda: membership.update(weight=2), membership.__aenter__, membership.wait_joined):
        with pytest.raises(ClosedError):
            await use()


async def test_resigning_without_leading(world: World) -> None:
    election = CoordinationService(world.process()).election("a")
    with pytest.raises(LostError, match="was not elected"):
        await election.resign()
