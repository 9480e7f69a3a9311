"""What others wrote among the keys of recipes: skipped and reported, respected and shown, or told by a typed error."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest
from recipes import settled
from worlds import NAMESPACE, World

from osdisco.backend import ABSENT, Delete, Put
from osdisco.coordination import CoordinationService
from osdisco.coordination.lock import Contended
from osdisco.errors import ConfigError, CoordinationError, LimitError, OsdiscoError, RecordError, TimedOutError

SKIPPED: dict[str, tuple[bytes, str | None]] = {
    "election/job/q/foreign": (b"text", "no candidacy of osdisco"),
    "election/job/q/wrong": (b'{"id": 7, "priority": 99}', "must be a str"),
    "election/job/heir": (b"\xff", None),
    "election/job/said/x": (b"[]", None),
    "election/job/other": (b"", None),
    "db/job/ready": (b"{", "skipped the roster"),
    "db/job/m/foreign": (b"\xff", "skipped the member"),
    "db/job/m/wrong": (b'{"owner": "x", "parties": "2"}', "skipped the member"),
    "db/job/m/a/b": (b"", "skipped the member"),
    "db/job/done/7/x": (b"", None),
    "db/job/ready/x": (b"", None),
    "db/job/other": (b"", None),
    "grp/job/x": (b'{"member": {"id": "x"}}', "skipped the member"),
    "grp/job/x/y/z": (b"", "skipped the member"),
    "grp/job/x/1": (b"nonsense", "skipped the member"),
    "grp/job/x/2": (b'{"member": {"id": "y"}}', "skipped the member.*not the one in its key"),
    "grp/job/x/3": (b'{"member": {"id": "x", "weight": 0}}', "skipped the member.*from 1 to 10000"),
    "grp/job/x/4": (b'{"member": {"id": "x", "weight": "1"}}', "skipped the member.*must be a int"),
    "part/job/0": (b"nonsense", "skipped the owner"),
    "part/job/other": (b"", "skipped the owner"),
    "revoke/foreign": (b"", None),
    "revoke/lock/job/foreign/x": (b"[]", None),
    "sess/foreign/live": (b"", None),
    "x/lock/job/foreign": (b"", None),
}


async def use_all(coordination: CoordinationService, name: str) -> None:
    """Use every recipe whose keys are in the table, together with another process that does the same."""
    async with coordination.lock("job").acquire(10) as guard:
        await asyncio.sleep(1.5)  # until it listens for revocations
        assert not guard.revoked.is_set()
    async with coordination.election("job", candidate_id=name).campaign(10) as term:
        await term.proclaim({"led by": name})
        assert (await coordination.election("job").leader()).info == {"led by": name}
    async with coordination.double_barrier("job", parties=2, timeout=10):
        pass
    async with coordination.group("job").join(name) as membership, membership.partition(8) as owned:
        await membership.members.until(lambda members: set(members) == {"a", "b"}, 5)
        assert [member.id for member in await coordination.group("job").members()] == ["a", "b"]
        await owned.until(lambda mine: mine, 10)
        await asyncio.sleep(1)


@pytest.mark.parametrize("leased", [False, True])
@pytest.mark.parametrize("key", SKIPPED)
async def test_a_foreign_key_is_skipped_and_reported_and_stops_nobody(
    world: World, caplog: pytest.LogCaptureFixture, key: str, leased: bool
) -> None:
    value, says = SKIPPED[key]
    session = await world.process().session(600)
    world.store.commit(
        [Put(f"{NAMESPACE}/{key}", value, session.id if leased else None)], {f"{NAMESPACE}/{key}": ABSENT}
    )
    coordinations = [CoordinationService(world.process()) for _ in range(2)]
    await asyncio.wait_for(asyncio.gather(*map(use_all, coordinations, ["a", "b"])), 60)
    if says is not None and (leased or "/q/" not in key):  # what is in `q/` without a lease can never lead
        assert re.search(says, caplog.text)
    world.store.commit([Delete(f"{NAMESPACE}/{key}")], {})


@pytest.mark.parametrize("value", [b"", b"[]", b'{"grace": "soon"}', b"\xff"])
async def test_a_request_for_revocation_that_cannot_be_read_is_one_all_the_same(world: World, value: bytes) -> None:
    client = world.process()
    async with CoordinationService(client).lock("job").acquire() as guard:
        assert not guard.revoked.is_set()
        await client.put(f"revoke/{world.keys('lock/')[0]}/x", value)
        assert await asyncio.wait_for(guard.revoked.wait(), 1) == "somebody wants it back"
        guard.check()
    await client.delete(world.keys("revoke/")[0])


RESPECTED = {
    "lock/job/foreign": lambda c: c.lock("job"),
    "lock/job/deeper/foreign": lambda c: c.lock("job"),
    "rw/job/foreign": lambda c: c.rwlock("job").read(),
    "rw/job/w-foreign": lambda c: c.rwlock("job").read(),
    "rw/job/r-foreign": lambda c: c.rwlock("job").write(),
    "sem/job/q/foreign": lambda c: c.semaphore("job", limit=1),
    "sem/job/h/foreign": lambda c: c.semaphore("job", limit=1),
}


@pytest.mark.parametrize("value", [b"", b"[]", b'{"owner": 5}', b'{"owner": "x", "info": [1]}', b"[" * 5000])
@pytest.mark.parametrize("key", RESPECTED)
async def test_a_foreign_place_in_a_queue_is_kept_shown_and_revoked(
    world: World, caplog: pytest.LogCaptureFixture, key: str, value: bytes
) -> None:
    """To go past it could make two holders, as with `etcdctl lock`. The log says so when it hangs on no lease."""
    client = world.process()
    thing: Contended = RESPECTED[key](CoordinationService(client))
    world.store.commit([Put(f"{NAMESPACE}/{key}", value)], {})
    assert await thing.try_acquire() is None
    task = asyncio.ensure_future(settled(thing.acquire()))
    await asyncio.sleep(30)
    assert not task.done()
    assert client.backend.calls["scan"] <= 4  # it waits by a watch, and does not spin
    assert caplog.text.count("hangs on no lease") == 1
    foreign = (await thing.contenders())[0]
    assert (foreign.owner, foreign.info, foreign.since) == (key.rpartition("/")[2], {}, None)
    await thing.revoke(foreign.token, grace=1)
    await (await asyncio.wait_for(task, 1)).release()


async def test_a_candidate_without_a_lease_is_none(world: World) -> None:
    """It could never lead, whatever its priority: nobody would keep the lease of its leadership."""
    election = CoordinationService(world.process()).election("job")
    world.store.commit([Put(f"{NAMESPACE}/election/job/q/bare", b'{"id": "bare", "priority": 99}')], {})
    async with election.campaign(1) as term:
        with pytest.raises(CoordinationError, match="no candidate 'bare' waits"):
            await term.transfer("bare")
    world.store.commit([Delete(f"{NAMESPACE}/election/job/q/bare")], {})


async def test_a_leader_key_of_another_tool_is_respected_and_shown(world: World) -> None:
    election = CoordinationService(world.process()).election("job")
    world.store.commit([Put(f"{NAMESPACE}/election/job/leader", b"not ours")], {})
    with pytest.raises(TimedOutError):
        await election.campaign(20)
    shown = await election.leader()
    assert (shown.candidate_id, shown.info) == ("", {})
    world.store.commit([Delete(f"{NAMESPACE}/election/job/leader")], {})
    async with election.campaign(1):
        pass


UNUSABLE: list[tuple[str, list[bytes], Callable[[CoordinationService], Any], type[OsdiscoError], str]] = [
    (
        "sem/job/limit",
        [b"", b"x", b"-1", b"1.0", "\u0663".encode(), b"9" * 40],
        lambda c: c.semaphore("job", limit=1).acquire(),
        CoordinationError,
        "holds no limit",
    ),
    ("sem/job/limit", [b"0", b"2"], lambda c: c.semaphore("job", limit=1).acquire(), ConfigError, "a limit of"),
    (
        "ctr/job",
        [b"", b"1.0", b" 1", b"1\n", "٣".encode(), b"9" * 19, b"1" * 5000, b"{}"],
        lambda c: c.counter("job").add(),
        RecordError,
        "no number",
    ),
    ("ctr/job", [b"", b"x"], lambda c: c.counter("job").get(), RecordError, "no number"),
    ("val/job", [b"", b"{", b"NaN"], lambda c: c.shared_value("job").get(), RecordError, "JSON"),
    ("val/job", [b'{"a":1,"a":2}'], lambda c: c.shared_value("job").update(lambda v: v), RecordError, "twice"),
    ("epoch", [b"", b"x", b"-1", b"40000"], lambda c: c.lock("job").acquire(), LimitError, "from 0 to 32767"),
    ("epoch", [b"x"], lambda c: c.election("job").campaign(), LimitError, "from 0 to 32767"),
]


@pytest.mark.parametrize(("key", "values", "use", "error", "says"), UNUSABLE)
async def test_a_key_that_cannot_be_used_is_told(
    world: World, key: str, values: list[bytes], use: Callable[..., Any], error: type[OsdiscoError], says: str
) -> None:
    for value in values:
        client = world.process()
        await client.put(key, value)
        with pytest.raises(error, match=says):
            await asyncio.wait_for(settled(use(CoordinationService(client))), 10)
        assert (await client.get(key)).value == value
    await client.delete(key)
