"""History that is gone: what a watch has missed was compacted (etcd), or the whole store went back (Consul)."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from urllib.request import Request, urlopen

import pytest
from network import ways

from osdisco.testing import Servers
from osdisco.testing.processes import EtcdProcess, find_binary
from osdisco.testing.servers import missing
from osdisco.view import View


@pytest.mark.fault("F19")
@pytest.mark.parametrize("store", ["etcd", "etcd+http"])
async def test_what_was_compacted_meanwhile_is_still_seen_to_come_and_go(
    store: str, osdisco_servers: Servers, seed: int
) -> None:
    server = osdisco_servers.etcd()
    async with ways(store, osdisco_servers.url(store), seed=seed, alone=True) as there:
        clean, client = there.clean, await there.client()
        for name in ("stays", "goes", "changes"):
            await clean.put(f"c/{name}", b"1")
        async with client.watch("c/") as changes:
            first = await anext(changes)
            assert set(first.puts) == {"c/stays", "c/goes", "c/changes"}
            there.bad.hold()
            await clean.delete("c/goes")
            await clean.put("c/changes", b"2")
            await clean.put("c/comes", b"1")
            revision = await clean.put("other", b"")
            await asyncio.to_thread(server.admin, "POST", "/v3/kv/compaction", {"revision": revision, "physical": True})
            there.bad.cut()
            there.bad.heal()
            async with asyncio.timeout(10):
                missed = await anext(changes)
            assert missed.resync, f"seed {seed}"
            assert (set(missed.puts), set(missed.deletes)) == ({"c/changes", "c/comes"}, {"c/goes"})
            await clean.put("c/stays", b"2")
            async with asyncio.timeout(10):
                assert set((await anext(changes)).puts) == {"c/stays"}


@pytest.mark.fault("F19")
@pytest.mark.parametrize("store", ["etcd", "etcd+http"])
async def test_a_backup_that_replaced_the_data_is_followed_from_there(store: str, seed: int) -> None:
    """Given an etcd that comes back with yesterday's files, its revisions go back, and so does all that is there."""
    if find_binary("etcd") is None:
        missing("etcd", "the files of a container are not at hand")
    with EtcdProcess() as server:
        url = server.url if store == "etcd" else server.gateway_url
        async with ways(store, f"{url}/ns", seed=seed, alone=True) as there:
            clean, client = there.clean, await there.client()
            await clean.put("i/old", b"1")
            await asyncio.to_thread(_standing_still, server, _save)
            for number in range(30):
                await clean.put(f"i/new-{number}", b"1")
            await clean.delete("i/old")
            async with client.view("i/") as view:
                await _until(view, {f"i/new-{number}" for number in range(30)})
                before = view.revision
                await asyncio.to_thread(_standing_still, server, _restore)
                await _until(view, {"i/old"})
                assert view.revision < before, f"seed {seed}: the revision did not go back"
                await clean.put("i/next", b"1")
                await _until(view, {"i/old", "i/next"})


def _standing_still(server: EtcdProcess, work: Callable[[EtcdProcess], object]) -> None:
    server.kill()
    work(server)
    server.start()


def _save(server: EtcdProcess) -> None:
    shutil.copytree(server.access.folder / "data", server.access.folder / "backup")


def _restore(server: EtcdProcess) -> None:
    shutil.rmtree(server.access.folder / "data")
    shutil.copytree(server.access.folder / "backup", server.access.folder / "data")


@pytest.mark.fault("F19", on="consul")
async def test_a_store_that_was_set_back_is_followed_from_there(osdisco_servers: Servers, seed: int) -> None:
    """Given a snapshot that the operator restored, the index goes back, and so does all that is there."""
    with osdisco_servers.fresh_consul() as server:
        async with ways("consul", f"{server.url}/ns", seed=seed, alone=True) as there:
            clean, client = there.clean, await there.client()
            await clean.put("i/old", b"1")
            saved = await asyncio.to_thread(_snapshot, server.address)
            for number in range(30):
                await clean.put(f"i/new-{number}", b"1")
            await clean.delete("i/old")
            async with client.view("i/") as view:
                await _until(view, {f"i/new-{number}" for number in range(30)})
                before = view.revision
                await asyncio.to_thread(_snapshot, server.address, saved)
                await _until(view, {"i/old"})
                assert before is not None
                assert view.revision is not None
                assert view.revision < before, f"seed {seed}: the index did not go back"
                await clean.put("i/next", b"1")
                await _until(view, {"i/old", "i/next"})


async def _until(view: View, names: set[str]) -> None:
    await view.until(lambda items: set(items) == names, timeout=12)


def _snapshot(address: str, restored: bytes | None = None) -> bytes:
    """Save all of a Consul, or restore it."""
    method = "GET" if restored is None else "PUT"
    with urlopen(Request(f"http://{address}/v1/snapshot", data=restored, method=method), timeout=10) as answer:
        return bytes(answer.read())
