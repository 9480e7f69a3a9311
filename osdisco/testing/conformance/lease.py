"""Leases: rules S7 to S10, S13 and S16."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from osdisco.backend import ABSENT, Batch, HeldBy, Lease
from osdisco.errors import ConflictError, LeaseExpiredError
from osdisco.testing.conformance._follow import Names
from osdisco.testing.conformance._harness import Harness, Peer

KEYS = ("a", "b/c", "d")


class LeaseRules:
    """Rules S7 to S10, S13 and S16."""

    async def test_s7_s8_a_lease_lives_for_its_ttl_and_ends_when_it_is_not_renewed(self, harness: Harness) -> None:
        async with harness:
            peer, other = await harness.peer(), await harness.peer()
            now = asyncio.get_running_loop().time
            sent = now()
            lease = await peer.grant()
            await peer.create(*KEYS, lease=lease)
            latest = now() + lease.ttl * peer.backend.limits.expiry_factor + harness.lateness
            async with other.follow() as follower:
                await follower.ready()
                while await peer.get("a") is not None:
                    assert now() < latest, f"S8: a lease of {lease.ttl} s is still there {now() - sent:.2f} s later"
                    await asyncio.sleep(0.05)
                assert now() - sent >= lease.ttl, f"S7: a lease of {lease.ttl} s ended after {now() - sent:.2f} s"
                await follower.until(lambda items: not items, "the end of the keys")
            _check_all_at_once(follower.states, KEYS)
            await _check_fenced(peer, lease)

    async def test_s7_a_renewed_lease_outlives_its_ttl(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            now = asyncio.get_running_loop().time
            lease = await peer.grant()
            created = await peer.create("a", lease=lease)
            end = now() + lease.ttl * (peer.backend.limits.expiry_factor + 0.5)
            while now() < end:
                await asyncio.sleep(lease.ttl / 3)
                assert await peer.renew(lease) == lease.ttl
                assert (await peer.item("a")).created == created
            await peer.revoke(lease)
            assert await peer.get("a") is None

    async def test_s9_revoke_deletes_all_keys_of_the_lease_in_one_revision(self, harness: Harness) -> None:
        async with harness:
            peer, other = await harness.peer(), await harness.peer()
            lease = await peer.grant(60)
            async with other.follow() as follower:
                await follower.ready()
                for name in KEYS:
                    await peer.create(name, lease=lease)
                await follower.until(lambda items: len(items) == len(KEYS), "all keys")
                await peer.revoke(lease)
                assert await other.scan() == {}
                await follower.until(lambda items: not items, "their end")
            _check_all_at_once(follower.states[-2:], KEYS)
            ends = [frame for frame in follower.frames if isinstance(frame, Batch) and frame.deletes]
            assert [sorted(map(peer.name, frame.deletes)) for frame in ends] in ([], [sorted(KEYS)])

    async def test_s9_no_write_under_an_ended_lease_succeeds(self, harness: Harness) -> None:
        async with harness:
            peer, other = await harness.peer(), await harness.peer()
            lease = await peer.grant(60)
            await peer.create("a", lease=lease)
            await other.revoke(lease)
            await _check_fenced(peer, lease)
            await _check_fenced(other, lease)
            with pytest.raises(LeaseExpiredError):
                await peer.create("b", lease=Lease("nonsense", 60))

    async def test_s9_the_end_of_a_lease_spares_what_is_not_its_own(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            first, second = await peer.grant(60), await peer.grant(60)
            await peer.put("plain")
            await peer.create("first", "taken", lease=first)
            await peer.create("second", lease=second)
            await peer.delete("taken")
            await peer.create("taken", lease=second)
            await peer.revoke(first)
            assert {name: item.lease for name, item in (await peer.scan()).items()} == {
                "plain": None,
                "second": second.id,
                "taken": second.id,
            }
            assert await peer.renew(second) == second.ttl

    async def test_s9_a_key_deleted_by_hand_leaves_its_lease_alive(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            lease = await peer.grant(60)
            await peer.create("a", lease=lease)
            await peer.delete("a")
            await peer.renew(lease)
            await peer.create("a", lease=lease)
            await peer.revoke(lease)
            assert await peer.scan() == {}

    async def test_s9_revoking_what_is_gone_is_no_error(self, harness: Harness) -> None:
        async with harness:
            peer, other = await harness.peer(), await harness.peer()
            lease = await peer.grant(60)
            await peer.revoke(lease)
            await peer.revoke(lease)
            await other.revoke(lease)

    async def test_s9_renewing_an_ended_lease_is_lease_expired(self, harness: Harness) -> None:
        async with harness:
            peer, other = await harness.peer(), await harness.peer()
            lease = await peer.grant(60)
            assert await other.renew(lease) == lease.ttl
            await other.revoke(lease)
            for asking in (peer, other):
                with pytest.raises(LeaseExpiredError):
                    await asking.renew(lease)

    async def test_s9_a_create_that_was_delayed_past_the_end_is_rejected(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            for n in range(10):
                lease = await peer.grant(60)
                late = asyncio.create_task(_create_late(peer, f"a{n}", lease, n * 0.0003))
                await peer.revoke(lease)
                await late
                assert await peer.get(f"a{n}") is None, "a key was left under a revoked lease"

    async def test_s10_a_session_sees_the_end_of_its_lease_by_a_key_of_its_own(self, harness: Harness) -> None:
        async with harness:
            peer, operator = await harness.peer(), await harness.peer()
            lease = await peer.grant(60)
            await peer.create("live", lease=lease)
            async with peer.follow("live") as follower:
                await follower.until(lambda items: "live" in items, "the key")
                await operator.revoke(lease)
                await follower.until(lambda items: not items, "the end of the key")

    async def test_s13_the_lease_of_a_key_is_visible_to_all_readers(self, harness: Harness) -> None:
        async with harness:
            peer, other = await harness.peer(), await harness.peer()
            lease = await peer.grant(60)
            async with other.follow() as follower:
                await follower.ready()
                await peer.put("plain")
                await peer.create("leased", lease=lease)
                expected = {"plain": None, "leased": lease.id}
                assert {name: item.lease for name, item in (await other.scan()).items()} == expected
                assert (await other.item("leased")).lease == lease.id
                await follower.until(
                    lambda items: {name: item.lease for name, item in items.items()} == expected, "both leases"
                )

    async def test_s13_leases_are_told_apart(self, harness: Harness) -> None:
        async with harness:
            peers = [await harness.peer(), await harness.peer()]
            leases = await asyncio.gather(*(peers[n % 2].grant(60) for n in range(10)))
            assert len({lease.id for lease in leases}) == 10

    async def test_s16_anybody_may_ask_how_long_a_lease_lasts(self, harness: Harness) -> None:
        async with harness:
            peer, other = await harness.peer(), await harness.peer()
            lease = await peer.grant(60)
            longest = lease.ttl * peer.backend.limits.expiry_factor
            for asking in (peer, other):
                status = await asking.lease_status(lease)
                assert status is not None
                assert status.ttl == lease.ttl
                assert status.left is None or longest / 2 < status.left <= longest

    async def test_s16_asking_renews_nothing(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            now = asyncio.get_running_loop().time
            lease = await peer.grant()
            latest = now() + lease.ttl * peer.backend.limits.expiry_factor + harness.lateness
            before = float("inf")
            while (status := await peer.lease_status(lease)) is not None:
                assert now() < latest, f"S16: a lease of {lease.ttl} s is still there"
                if status.left is not None:
                    assert status.left <= before, "S16: more is left than before"
                    before = status.left
                await asyncio.sleep(0.05)

    async def test_s16_what_has_ended_has_no_status(self, harness: Harness) -> None:
        async with harness:
            peer, other = await harness.peer(), await harness.peer()
            lease = await peer.grant(60)
            await peer.revoke(lease)
            for gone in (lease, Lease("nonsense", 60), Lease("a/../b c", 60)):
                assert await peer.lease_status(gone) is None
                assert await other.lease_status(gone) is None


def _check_all_at_once(states: list[Names], keys: tuple[str, ...]) -> None:
    for state in states:
        assert len([key for key in keys if key in state]) in (0, len(keys)), f"S9: keys went one by one: {state}"


async def _create_late(peer: Peer, name: str, lease: Lease, seconds: float) -> None:
    await asyncio.sleep(seconds)
    with suppress(LeaseExpiredError):
        await peer.create(name, lease=lease)


async def _check_fenced(peer: Peer, lease: Lease) -> None:
    with pytest.raises(LeaseExpiredError):
        await peer.create("late", lease=lease)
    with pytest.raises(LeaseExpiredError):
        await peer.commit({"late": b"", "plain": b""}, expect={"late": ABSENT, "plain": ABSENT}, lease=lease)
    with pytest.raises((LeaseExpiredError, ConflictError)):
        await peer.commit({"a": b"late"}, expect={"a": HeldBy(lease.id)}, lease=lease)
    with pytest.raises(LeaseExpiredError):
        await peer.renew(lease)
    assert await peer.scan() == {}
