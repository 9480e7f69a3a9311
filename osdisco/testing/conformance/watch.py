"""Watches of a store that works: rule S6, without resuming."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise

from osdisco.backend import ABSENT, WATCH_SILENCE, Batch, Snapshot
from osdisco.errors import ConflictError
from osdisco.testing.conformance._follow import Follower
from osdisco.testing.conformance._harness import Harness, Peer

STEPS = 60


class WatchRules:
    """Rule S6."""

    async def test_s6_1_the_first_frame_is_a_snapshot_of_all_that_is_there(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            async with peer.follow() as empty, peer.follow("a") as nothing:
                await empty.ready()
                await nothing.ready()
                assert (empty.states[0], nothing.states[0]) == ({}, {})
            await peer.commit({"a": b"1", "b/c": b"2"})
            await peer.put("a", b"3")
            found = await peer.scan()
            async with peer.follow() as prefix, peer.follow("a") as key:
                await prefix.ready()
                await key.ready()
                assert (prefix.states[0], key.states[0]) == (found, {"a": found["a"]})
                assert isinstance(prefix.frames[0], Snapshot)
                assert prefix.frames[0].revision >= found["a"].revision

    async def test_s6_2_when_writes_stop_the_frames_fold_to_what_the_store_holds(self, harness: Harness) -> None:
        async with harness:
            writers = [await harness.peer(), await harness.peer()]
            reader = await harness.peer()
            async with reader.follow() as whole, reader.follow("p/") as part, reader.follow("p/1") as key:
                async with asyncio.TaskGroup() as group:
                    for n, writer in enumerate(writers):
                        group.create_task(_write_wildly(writer, random.Random(n)))  # nosec B311 # noqa: S311
                found = await reader.scan()
                await whole.until_same(found)
                await part.until_same({name: item for name, item in found.items() if name.startswith("p/")})
                await key.until_same({name: item for name, item in found.items() if name == "p/1"})

    async def test_s6_2_no_frame_shows_half_a_commit(self, harness: Harness) -> None:
        async with harness:
            writer, reader = await harness.peer(), await harness.peer()
            async with reader.follow() as follower:
                await follower.ready()
                for n in range(STEPS):
                    if n % 7 == 6:
                        await writer.delete("x", "y", "z/z")
                    else:
                        await writer.commit({"x": b"%d" % n, "y": b"%d" % n, "z/z": b"%d" % n})
                    await asyncio.sleep(0)
                await follower.until_same(await reader.scan())
            for state in follower.states:
                values = {item.value for item in state.values()}
                assert len(state) in (0, 3), f"half a commit: {state}"
                assert len(values) <= 1, f"half a commit: {state}"

    async def test_s6_2_without_conflation_every_commit_is_seen_in_order(self, harness: Harness) -> None:
        async with harness:
            writer, reader = await harness.peer(), await harness.peer()
            async with reader.follow() as follower:
                await follower.ready()
                written = [await writer.commit({"a": b"%d" % n, f"b{n}": b""}) for n in range(20)]
                await follower.until_same(await reader.scan())
            batches = [frame for frame in follower.frames if isinstance(frame, Batch) and frame.puts]
            if not reader.backend.limits.conflates:
                assert [{reader.name(item.key): item.revision for item in batch.puts} for batch in batches] == written
            seen = [state["a"].revision for state in follower.states if "a" in state]
            assert seen == sorted(seen)
            assert set(seen) <= {answer["a"] for answer in written}

    async def test_s6_2_a_put_and_delete_in_quick_succession_leave_nothing(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            async with peer.follow() as follower:
                await follower.ready()
                for n in range(20):
                    await peer.put(f"a{n}")
                    await peer.delete(f"a{n}")
                await peer.put("end")
                await follower.until(lambda items: list(items) == ["end"], "nothing but the last key")

    async def test_s6_2_a_slow_consumer_arrives_at_the_latest_state(self, harness: Harness) -> None:
        async with harness:
            writer, reader = await harness.peer(), await harness.peer()
            async with reader.follow() as follower:
                await follower.ready()
                follower.pause()
                for n in range(300):
                    await writer.put(f"a{n % 3}", b"%d" % n * 100)
                follower.resume()
                await follower.until_same(await reader.scan())

    async def test_s6_2_many_watches_of_one_backend_all_see_a_change(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            count = min(20, peer.backend.limits.watches_max)
            followers = [peer.follow(f"p{n}/" if n % 2 else f"p{n}/a") for n in range(count)]
            async with asyncio.TaskGroup() as group:
                for n, follower in enumerate(followers):
                    group.create_task(_sees(peer, follower, f"p{n}/a"))

    async def test_s6_2_a_value_of_the_largest_size_arrives_whole(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            async with peer.follow() as follower:
                await follower.ready()
                for letter in (b"a", b"b"):
                    await peer.put("big", letter * peer.backend.limits.value_max)
                    await follower.until_same(await peer.scan())

    async def test_s6_3_delete_and_recreate_shows_as_a_changed_created(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            await peer.put("a", b"same")
            async with peer.follow("a") as key, peer.follow() as prefix:
                await key.ready()
                await prefix.ready()
                before = prefix.items["a"]
                await peer.delete("a")
                revision = await peer.put("a", b"same")
                for follower in (key, prefix):
                    await follower.until(lambda items: "a" in items and items["a"].revision == revision, "the new one")
                    assert follower.items["a"].created == revision > before.created

    async def test_s6_3_a_frame_shows_no_state_older_than_its_revision(self, harness: Harness) -> None:
        async with harness:
            writer, reader = await harness.peer(), await harness.peer()
            async with reader.follow() as follower:
                await follower.ready()
                made = {f"a{n}": await writer.put(f"a{n}") for n in range(STEPS)}
                await follower.until_same(await reader.scan())
            for frame, state in zip(follower.frames, follower.states, strict=True):
                missing = {name for name, created in made.items() if created <= frame.revision} - state.keys()
                assert not missing, f"revision {frame.revision}, and without {missing}"

    async def test_s6_3_revisions_of_a_key_never_decrease(self, harness: Harness) -> None:
        async with harness:
            writer, reader = await harness.peer(), await harness.peer()
            async with reader.follow("a") as follower:
                for n in range(STEPS):
                    await (writer.delete("a") if n % 4 == 3 else writer.put("a", b"%d" % (n % 3)))
                await follower.until_same(await reader.scan())
            revisions = [state["a"].revision for state in follower.states if "a" in state]
            assert revisions == sorted(revisions)

    async def test_s6_4_an_idle_watch_shows_only_that_the_server_spoke(self, harness: Harness) -> None:
        async with harness:
            writer, reader = await harness.peer(), await harness.peer()
            await writer.put("a/x")
            now = asyncio.get_running_loop().time
            async with reader.follow("a/") as full, reader.follow("b/") as empty:
                await full.ready()
                await empty.ready()
                begun = now() + 1  # some stores say twice that a watch is open
                while now() < begun + WATCH_SILENCE and min(full.times[-1], empty.times[-1]) < begun:
                    await writer.put("c")
                    await asyncio.sleep(0.25)
            for follower in (full, empty):
                gaps = [later - earlier for earlier, later in pairwise([*follower.times, now()])]
                assert max(gaps) <= WATCH_SILENCE, f"S6.4: silent for {max(gaps):.1f} s"
                assert all(state == follower.states[0] for state in follower.states)

    async def test_s6_5_a_refused_commit_shows_nothing(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            await peer.put("a", b"1")
            async with peer.follow() as follower:
                await follower.ready()
                for deletes in ((), ("a",)):
                    try:
                        await peer.commit({"b": b"x"}, deletes, {"a": ABSENT})
                    except ConflictError:
                        continue
                    raise AssertionError("the commit was not refused")
                await peer.put("end")
                await follower.until(lambda items: "end" in items, "the last key")
            assert all(set(state) <= {"a", "end"} and "a" in state for state in follower.states), follower.states

    async def test_s6_5_closing_a_watch_ends_it_and_nothing_else(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            async with peer.follow() as other:
                frames = peer.backend.watch(harness.root)
                assert isinstance(await anext(frames), Snapshot)
                await frames.aclose()
                assert await anext(frames, None) is None
                await peer.backend.watch(harness.root).aclose()
                await peer.put("a")
                await other.until(lambda items: "a" in items, "a change after another watch was closed")


async def _sees(peer: Peer, follower: Follower, name: str) -> None:
    async with follower:
        await follower.ready()
        await peer.put(name)
        await follower.until(lambda items: name in items, name)


async def _write_wildly(peer: Peer, chance: random.Random) -> None:
    lease = await peer.grant(60)
    for n in range(STEPS):
        names = chance.sample(["p/1", "p/2", "p/3/4", "q", "r/s"], k=chance.randint(1, 3))
        puts = dict.fromkeys(names[1:], b"%d" % n)
        await peer.commit(puts, (names[0],))
        if n % 10 == 5:
            await peer.create(f"p/{lease.id}", lease=lease)
        if n % 10 == 9:
            await peer.revoke(lease)
            lease = await peer.grant(60)
