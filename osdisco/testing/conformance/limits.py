"""Limits are declared, and what they declare works: rule S15."""

from __future__ import annotations

import pytest

from osdisco._checks import check_key
from osdisco.backend import ABSENT, Condition
from osdisco.errors import InvalidNameError, LimitError
from osdisco.testing.conformance._harness import Harness


class LimitRules:
    """Rule S15."""

    async def test_s15_limits_are_declared_as_numbers(self, harness: Harness) -> None:
        async with harness:
            limits = (await harness.peer()).backend.limits
            assert 0 < limits.ttl_min <= limits.ttl_max
            assert limits.expiry_factor >= 1
            assert min(limits.ops_max, limits.value_max, limits.key_max, limits.watches_max) > 0

    async def test_s15_a_commit_of_the_largest_size_applies(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            limits = peer.backend.limits
            half, size = limits.ops_max // 2, limits.value_max // (limits.ops_max // 2)
            names = [f"{n:03}".ljust(limits.key_max - len(harness.root), "k") for n in range(limits.ops_max - half)]
            puts = dict.fromkeys(names[:half], b"\xff" * size)
            conditions: dict[str, Condition] = dict.fromkeys(names, ABSENT)
            await peer.commit(puts, expect=conditions)
            assert {name: item.value for name, item in (await peer.scan()).items()} == puts

    async def test_s15_a_value_of_the_largest_size_is_kept(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            value = bytes(range(256)) * (peer.backend.limits.value_max // 256)
            await peer.put("a", value)
            assert (await peer.item("a")).value == value

    async def test_s15_a_key_of_the_largest_size_is_kept_and_a_longer_one_refused(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            limits = peer.backend.limits
            name = "k" * (limits.key_max - len(harness.root))
            check_key(peer.key(name), limits)
            await peer.create(name, lease=await peer.grant(60))
            assert (await peer.item(name)).value == name.encode()
            with pytest.raises(InvalidNameError):
                check_key(peer.key(name) + "k", limits)

    async def test_s15_a_ttl_below_what_is_granted_is_raised_and_told(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            shortest = await peer.grant(0.1)
            assert shortest.ttl >= 0.1
            assert await peer.renew(shortest) == shortest.ttl
            assert peer.backend.limits.ttl_min <= shortest.ttl
            longer = await peer.grant(shortest.ttl + 0.5)
            assert longer.ttl >= shortest.ttl + 0.5
            assert (await peer.grant(longer.ttl)).ttl == longer.ttl

    async def test_s15_a_ttl_above_what_is_granted_is_refused(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            longest = await peer.grant(peer.backend.limits.ttl_max)
            assert longest.ttl == peer.backend.limits.ttl_max
            await peer.revoke(longest)
            for ttl in (longest.ttl + 1, longest.ttl * 1000, float("inf")):
                with pytest.raises(LimitError):
                    await peer.grant(ttl)
