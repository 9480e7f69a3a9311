"""Watches that resume behind a revision: rules S2.2 and S6.1."""

from __future__ import annotations

from osdisco.backend import Batch
from osdisco.testing.conformance._harness import Harness


class ResumeRules:
    """Rules S2.2 and S6.1, where `after` is given."""

    async def test_s2_2_a_snapshots_revision_resumes_the_watch(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            await peer.commit({"a": b"1", "b": b"1", "c": b"1"})
            snapshot = await peer.backend.scan(harness.root, timeout=harness.timeout)
            known = {peer.name(key): item for key, item in snapshot.items.items()}
            await peer.delete("b")
            await peer.put("a", b"2")
            await peer.delete("c")
            await peer.put("c", b"2")
            async with peer.follow(after=snapshot.revision, known=known) as follower:
                await follower.until_same(await peer.scan())
            puts = [item for frame in follower.frames if isinstance(frame, Batch) for item in frame.puts]
            assert all(item.revision > snapshot.revision for item in puts), "what was known already came again"

    async def test_s6_1_a_watch_resumes_after_any_frame_of_another_one(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            async with peer.follow() as whole:
                await whole.ready()
                for n in range(12):
                    await (peer.delete("a") if n % 4 == 3 else peer.commit({"a": b"%d" % n, f"b{n % 5}": b"%d" % n}))
                expected = await peer.scan()
                await whole.until_same(expected)
            for frame, state in list(zip(whole.frames, whole.states, strict=True))[::3]:
                async with peer.follow(after=frame.revision, known=state) as follower:
                    await peer.put("end", b"%d" % frame.revision)
                    await follower.until_same(await peer.scan())

    async def test_s6_1_resuming_when_nothing_happened_shows_what_comes_next(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            await peer.put("a")
            known, revision = await peer.scan(), await peer.revision()
            async with peer.follow(after=revision, known=known) as follower:
                await peer.put("b")
                await follower.until_same(await peer.scan())
            assert all("a" in state for state in follower.states)

    async def test_s6_1_a_single_key_resumes_across_its_deletion(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            await peer.put("a")
            item, revision = await peer.item("a"), await peer.revision()
            await peer.delete("a")
            await peer.put("ab")
            async with peer.follow("a", after=revision, known={"a": item}) as follower:
                await follower.until(lambda items: not items, "its deletion")

    async def test_s6_1_a_backlog_of_megabytes_arrives_whole(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            size = peer.backend.limits.value_max
            revision = await peer.revision()
            for n in range(12):
                await peer.put(f"big{n}", b"%x" % n * size)
            expected = await peer.scan()
            async with peer.follow(after=revision) as follower, peer.follow() as fresh:
                await follower.until_same(expected)
                await fresh.until_same(expected)
