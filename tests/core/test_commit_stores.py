"""What a commit tells besides its outcome, on every store that osdisco brings."""

from __future__ import annotations

import pytest
from worlds import connect

from osdisco.backend import ABSENT, Put


@pytest.mark.osdisco("memory", "etcd", "etcd+http", "consul")
async def test_a_commit_shows_what_stands_beside_it(osdisco_url: str) -> None:
    """None would be allowed (S3.5), and would cost each lock another round trip."""
    async with connect(osdisco_url) as client:
        key = client._keys.join("beside", "a")
        prefix = key.removesuffix("a")
        _, seen = await client.backend.commit_and_scan([Put(key, b"1")], {key: ABSENT}, prefix, timeout=5)
        assert seen is not None
        assert [item.value for item in seen.values()] == [b"1"]
