"""What is special to etcd as a store: compaction, zeros that mean "missing", ids of leases, keys of other writers."""

from __future__ import annotations

import asyncio
import random
from base64 import b64encode

import pytest
from etcd_rooms import Open, next_change

from osdisco.backend import ABSENT, Batch, Condition, Delete, HeldBy, Lease, Put, Revision, Snapshot
from osdisco.errors import ConflictError, LeaseExpiredError, LimitError
from osdisco.runtime import Runtime
from osdisco.testing._stores import EtcdServer


async def test_resuming_behind_a_compaction_gives_a_snapshot(etcd: EtcdServer, open_backend: Open) -> None:
    backend = open_backend(etcd)
    await backend.commit([Delete("compact/k"), Delete("compact/gone")], {}, timeout=5)
    old = (await backend.commit([Put("compact/k", b"1"), Put("compact/gone", b"1")], {}, timeout=5))["compact/k"]
    await backend.commit([Delete("compact/gone")], {}, timeout=5)
    new = (await backend.commit([Put("compact/k", b"2")], {}, timeout=5))["compact/k"]
    etcd.admin("POST", "/v3/kv/compaction", {"revision": new})
    watch = backend.watch("compact/", after=old)
    async with asyncio.timeout(10):
        while isinstance(frame := await anext(watch), Batch):
            assert not frame.puts
    assert {key: item.value for key, item in frame.items.items()} == {"compact/k": b"2"}
    await backend.commit([Put("compact/k", b"3")], {}, timeout=5)
    assert (await next_change(watch)).puts[0].value == b"3"
    await watch.aclose()


async def test_a_cursor_of_another_store_gives_a_snapshot(etcd: EtcdServer, open_backend: Open) -> None:
    """Given a revision far above the store's, as after a restore from a backup."""
    backend = open_backend(etcd)
    await backend.commit([Put("restored/k", b"1")], {}, timeout=5)
    watch = backend.watch("restored/", after=10**12)
    async with asyncio.timeout(10):
        frame = await anext(watch)
    assert isinstance(frame, Snapshot)
    assert "restored/k" in frame.items
    await watch.aclose()


@pytest.mark.parametrize(
    "condition",
    [
        Revision(0),
        Revision(-1),
        Revision(2**63),
        HeldBy("0000000000000000"),
        HeldBy(""),
        HeldBy("nonsense"),
        HeldBy("f" * 16),
    ],
)
async def test_a_condition_that_etcd_would_find_true_of_a_missing_key_is_a_conflict(
    condition: Condition, etcd: EtcdServer, open_backend: Open
) -> None:
    backend = open_backend(etcd)
    with pytest.raises(ConflictError):
        await backend.commit([Put("zero/k", b"1")], {"zero/missing": condition}, timeout=5)
    assert await backend.get("zero/k", timeout=5) is None


@pytest.mark.parametrize("lease", ["0000000000000000", "", "nonsense", "1" * 16, "-000000000000001"])
async def test_a_lease_that_etcd_never_gave_is_expired(lease: str, etcd: EtcdServer, open_backend: Open) -> None:
    backend = open_backend(etcd)
    with pytest.raises(LeaseExpiredError):
        await backend.commit([Put("zero/k", b"1", lease)], {"zero/k": ABSENT}, timeout=5)
    with pytest.raises(LeaseExpiredError):
        await backend.renew(Lease(lease, 10), timeout=5)
    await backend.revoke(Lease(lease, 10), timeout=5)


async def test_a_lease_has_the_id_that_etcdctl_shows(etcd: EtcdServer, open_backend: Open) -> None:
    backend = open_backend(etcd)
    lease = await backend.grant(30.2, timeout=5)
    assert lease.ttl == 31
    known = [f"{int(entry['ID']):016x}" for entry in etcd.admin("POST", "/v3/lease/leases", {})["leases"]]
    assert lease.id in known
    await backend.revoke(lease, timeout=5)


class Always(random.Random):
    """Dice that show what they are told to."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def getrandbits(self, k: int, /) -> int:
        return self._number


async def test_a_grant_that_was_delivered_twice_is_granted(etcd: EtcdServer, open_backend: Open) -> None:
    first = open_backend(etcd)
    lease = await first.grant(30, timeout=5)
    second = open_backend(etcd, runtime=Runtime(random=Always(int(lease.id, 16))))
    assert await second.grant(30, timeout=5) == lease
    await first.revoke(lease, timeout=5)


async def test_a_request_beyond_the_servers_size_is_a_limit(etcd: EtcdServer, open_backend: Open) -> None:
    with pytest.raises(LimitError):
        await open_backend(etcd).commit([Put("big/k", b"x" * 1_600_000)], {}, timeout=5)


async def test_keys_and_values_of_other_writers_come_out_as_they_are(etcd: EtcdServer, open_backend: Open) -> None:
    backend = open_backend(etcd)
    raw = b"foreign/\xff\xc3\x28"
    watch = backend.watch("foreign/")
    await anext(watch)
    etcd.admin("POST", "/v3/kv/put", {"key": b64encode(raw).decode(), "value": b64encode(b"\0\xff").decode()})
    (item,) = (await next_change(watch)).puts
    assert (item.key.encode("utf-8", "surrogateescape"), item.value) == (raw, b"\0\xff")
    assert await backend.get(item.key, timeout=5) == item
    await backend.commit([Delete(item.key)], {item.key: item.unchanged}, timeout=5)
    assert (await backend.scan("foreign/", timeout=5)).items == {}
    await watch.aclose()


async def test_six_megabytes_of_backlog_and_large_events(etcd: EtcdServer, open_backend: Open) -> None:
    """More than a message of grpc may hold by default, in fragments; among it transactions of over a megabyte."""
    backend = open_backend(etcd)
    start = (await backend.commit([Put("backlog/k0", b"")], {}, timeout=5))["backlog/k0"]
    written = []
    for n in range(6):
        ops = [Put(f"backlog/k{i}", b"%d" % n * 100_000) for i in range(10)]
        written.append((await backend.commit(ops, {"backlog/none": ABSENT}, timeout=5))["backlog/k0"])
    watch = backend.watch("backlog/", after=start)
    seen: list[tuple[int, int]] = []
    async with asyncio.timeout(20):
        while len(seen) < len(written):
            frame = await anext(watch)
            assert isinstance(frame, Batch)
            if frame.puts:
                seen.append((frame.revision, len(frame.puts)))
    assert seen == [(revision, 10) for revision in written]
    await watch.aclose()
    await backend.commit([Delete(f"backlog/k{i}") for i in range(10)], {}, timeout=5)
