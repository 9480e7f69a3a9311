"""The one write: rules S3, S4 and S5."""

from __future__ import annotations

import asyncio

import pytest

from osdisco.backend import ABSENT, Condition, HeldBy, Lease, Revision
from osdisco.errors import ConflictError, LeaseExpiredError
from osdisco.testing.conformance._follow import differences
from osdisco.testing.conformance._harness import Harness, Peer


class CommitRules:
    """Rules S3, S4 and S5."""

    async def test_s3_1_all_ops_apply_when_all_conditions_hold(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            lease = await peer.grant()
            await peer.put("old")
            revision = await peer.put("seen", b"1")
            await peer.create("held", lease=lease)
            expect: dict[str, Condition] = {
                "new": ABSENT,
                "never": ABSENT,
                "seen": Revision(revision),
                "held": HeldBy(lease.id),
            }
            answer = await peer.commit({"new": b"n", "seen": b"2"}, ("old", "held"), expect)
            found = await peer.scan()
            assert {name: item.value for name, item in found.items()} == {"new": b"n", "seen": b"2"}
            assert {item.revision for item in found.values()} == set(answer.values())

    async def test_s3_1_commit_applies_nothing_when_one_condition_fails(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            size = peer.backend.limits.ops_max // 2
            await peer.commit({f"k{n:03}": b"before" for n in range(size)})
            before = await peer.scan()
            good: dict[str, Condition] = {name: Revision(item.revision) for name, item in before.items()}
            puts = {f"new{n:03}": b"after" for n in range(size - 1)}
            for broken in ("k000", f"k{size // 2:03}", f"k{size - 1:03}"):
                with pytest.raises(ConflictError):
                    await peer.commit(puts, ("k000",), {**good, broken: Revision(good_number(good, broken) - 1)})
                after = await peer.scan()
                assert after == before, f"applied although {broken} did not hold:\n{differences(before, after)}"
            await peer.commit(puts, ("k000",), good)

    @pytest.mark.parametrize("condition", ["absent", "stale", "ahead", "held", "held by another"])
    async def test_s3_1_each_condition_that_does_not_hold_is_a_conflict(self, harness: Harness, condition: str) -> None:
        async with harness:
            peer = await harness.peer()
            mine, foreign = await peer.grant(), await peer.grant()
            await peer.put("plain", b"1")
            revision = await peer.put("plain", b"2")
            await peer.create("leased", lease=foreign)
            failures: dict[str, tuple[str, Condition]] = {
                "absent": ("plain", ABSENT),
                "stale": ("plain", Revision((await peer.item("plain")).created)),
                "ahead": ("plain", Revision(revision + 1)),
                "held": ("plain", HeldBy(mine.id)),
                "held by another": ("leased", HeldBy(mine.id)),
            }
            name, failing = failures[condition]
            before = await peer.scan()
            for puts, deletes in (({name: b"x"}, ()), ({}, (name,)), ({"other": b"x"}, ()), ({"other": b"x"}, (name,))):
                with pytest.raises(ConflictError):
                    await peer.commit(puts, deletes, {name: failing})
                after = await peer.scan()
                assert after == before, differences(before, after)

    async def test_s3_1_of_concurrent_creates_exactly_one_succeeds(self, harness: Harness) -> None:
        async with harness:
            peers = [await harness.peer(), await harness.peer()]
            for round_ in range(5):
                outcomes = await asyncio.gather(*(_created(peers[n % 2], f"a{round_}", n) for n in range(8)))
                winners = [n for n, won in enumerate(outcomes) if won]
                assert len(winners) == 1
                assert (await peers[0].item(f"a{round_}")).value == b"%d" % winners[0]

    async def test_s3_1_concurrent_compare_and_set_loses_no_update(self, harness: Harness) -> None:
        async with harness:
            peers = [await harness.peer(), await harness.peer()]
            await peers[0].put("n", b"0")
            async with asyncio.TaskGroup() as group:
                for n in range(4):
                    group.create_task(_add(peers[n % 2], "n", 5))
            assert (await peers[0].item("n")).value == b"20"

    async def test_s3_2_deleting_a_missing_key_succeeds(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            await peer.delete("a")
            await peer.put("b")
            assert (await peer.commit({"c": b""}, ("a", "b"))).keys() == {"c"}
            await peer.commit(deletes=("b",), expect={"b": ABSENT})
            assert (await peer.scan()).keys() == {"c"}

    async def test_s3_2_a_revision_of_a_missing_key_is_a_conflict(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            gone = await peer.put("a")
            await peer.delete("a")
            impossible = (Revision(0), Revision(-1), Revision(2**70), HeldBy("nonsense"))
            for condition in (Revision(gone), Revision(1), HeldBy((await peer.grant()).id), *impossible):
                with pytest.raises(ConflictError):
                    await peer.commit(deletes=("a",), expect={"a": condition})
                with pytest.raises(ConflictError):
                    await peer.put("a", b"x", condition)
                with pytest.raises(ConflictError):
                    await peer.commit({"b": b"x"}, expect={"a": condition})
            assert await peer.scan() == {}

    async def test_s3_2_a_revision_from_before_a_recreation_is_a_conflict(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            first = await peer.put("a", b"same")
            await peer.delete("a")
            second = await peer.put("a", b"same")
            with pytest.raises(ConflictError):
                await peer.commit(deletes=("a",), expect={"a": Revision(first)})
            await peer.commit(deletes=("a",), expect={"a": Revision(second)})
            assert await peer.get("a") is None

    async def test_s3_4_the_answer_maps_each_key_put_to_its_revision(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            await peer.put("c")
            answer = await peer.commit({"a": b"1", "b": b"2"}, ("c", "d"))
            found = await peer.scan()
            assert answer == {"a": found["a"].revision, "b": found["b"].revision}
            assert await peer.commit(deletes=("a", "b")) == {}

    async def test_s3_5_a_commit_that_scans_shows_what_stands_right_after_it(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            lease = await peer.grant()
            revision = await peer.put("q/seen", b"1")
            await peer.create("q/held", lease=lease)
            await peer.commit({"q/gone": b"", "q/other": b"o", "qq": b"", "r/far": b""})
            expect: dict[str, Condition] = {
                "q/new": ABSENT,
                "r/never": ABSENT,
                "q/seen": Revision(revision),
                "q/held": HeldBy(lease.id),
            }
            answer, seen = await peer.commit_and_scan(
                "q/", {"q/new": b"n", "q/held": b"h"}, ("q/seen", "q/gone"), expect, lease
            )
            found = {name: item for name, item in (await peer.scan()).items() if name.startswith("q/")}
            assert answer == {name: found[name].revision for name in ("q/new", "q/held")}
            assert seen is None or seen == found
            assert found.keys() == {"q/new", "q/held", "q/other"}
            with pytest.raises(ConflictError):
                await peer.commit_and_scan("q/", {"q/other": b"2"}, (), {"q/other": ABSENT})
            assert (await peer.scan())["q/other"].value == b"o"
            _, seen = await peer.commit_and_scan("nothing/", {"r/far": b"2"})
            assert not seen
            puts = {f"q/k{number:03}": b"" for number in range(peer.backend.limits.ops_max // 2)}
            answer, seen = await peer.commit_and_scan("q/", puts, (), dict.fromkeys(puts, ABSENT))
            assert answer.keys() == puts.keys()
            assert seen is None or seen.keys() == puts.keys() | found.keys()

    async def test_s4_1_an_owner_updates_what_its_lease_holds_and_nobody_else_does(self, harness: Harness) -> None:
        async with harness:
            peer, other = await harness.peer(), await harness.peer()
            mine, foreign = await peer.grant(), await other.grant()
            created = await peer.create("a", lease=mine)
            with pytest.raises(ConflictError):
                await other.create("a", lease=foreign)
            with pytest.raises((ConflictError, LeaseExpiredError)):
                await other.commit({"a": b"x"}, expect={"a": HeldBy(foreign.id)}, lease=foreign)
            answer = await peer.commit({"a": b"2"}, expect={"a": HeldBy(mine.id)}, lease=mine)
            item = await other.item("a")
            assert (item.value, item.created, item.revision, item.lease) == (b"2", created, answer["a"], mine.id)

    async def test_s5_1_an_error_that_proves_not_applied_is_true(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            lease = await peer.grant()
            await peer.revoke(lease)
            await peer.put("a", b"1")
            before = await peer.scan()
            refusals: tuple[tuple[dict[str, bytes], dict[str, Condition], Lease | None], ...] = (
                ({"a": b"2", "b": b"2"}, {"b": Revision(7), "a": ABSENT}, None),
                ({"b": b"2", "c": b"2"}, {"b": ABSENT, "c": ABSENT}, lease),
            )
            for puts, expect, held in refusals:
                with pytest.raises((ConflictError, LeaseExpiredError)):
                    await peer.commit(puts, expect=expect, lease=held)
                assert await peer.scan() == before


def good_number(conditions: dict[str, Condition], name: str) -> int:
    """Return the revision that a condition names."""
    condition = conditions[name]
    assert isinstance(condition, Revision)
    return condition.number


async def _created(peer: Peer, name: str, n: int) -> bool:
    try:
        await peer.put(name, b"%d" % n, ABSENT)
    except ConflictError:
        return False
    return True


async def _add(peer: Peer, name: str, times: int) -> None:
    for _ in range(times):
        while True:
            item = await peer.item(name)
            try:
                await peer.put(name, b"%d" % (int(item.value) + 1), item.unchanged)
                break
            except ConflictError:
                continue
