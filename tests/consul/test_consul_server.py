"""What is special to a real Consul, without ACLs: sessions, limits, paths, endpoints that come and go."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from urllib.parse import quote

import pytest
from consul_fakes import Open

import osdisco
from osdisco.backend import ABSENT, Delete, HeldBy, Put, Revision
from osdisco.errors import (
    ConfigError,
    ConflictError,
    IndeterminateError,
    LeaseExpiredError,
    LimitError,
    UnavailableError,
)
from osdisco.testing.servers import ConsulServer, EtcdServer, Servers


async def test_a_session_is_what_the_contract_asks_for(consul: ConsulServer, open_backend: Open) -> None:
    backend = open_backend(consul.url, name="me:42")
    lease = await backend.grant(14.5, timeout=5)
    (found,) = consul.admin("GET", f"/v1/session/info/{lease.id}")
    assert lease.ttl == 15.0
    assert found["Name"] == "me:42"
    assert (found["TTL"], found["Behavior"], found["LockDelay"]) == ("15s", "delete", 0)
    assert not found["NodeChecks"], "with serfHealth it dies with its agent"
    assert await backend.renew(lease, timeout=5) == 15.0
    await backend.revoke(lease, timeout=5)
    await backend.revoke(lease, timeout=5)
    with pytest.raises(LeaseExpiredError):
        await backend.renew(lease, timeout=5)


async def test_a_ttl_that_is_too_short_is_raised_to_what_the_agent_says(
    consul: ConsulServer, open_backend: Open
) -> None:
    backend = open_backend(consul.url)
    assert (await backend.grant(3, timeout=5)).ttl == 10.0
    assert backend.limits.ttl_min == 10.0
    with pytest.raises(LimitError, match="86400"):
        await backend.grant(86401, timeout=5)
    assert (await backend.grant(86400, timeout=5)).ttl == 86400.0


async def test_an_agent_with_another_minimum_is_believed(osdisco_servers: Servers, open_backend: Open) -> None:
    with osdisco_servers.fresh_consul(config={"session_ttl_min": "2s"}) as server:
        backend = open_backend(server.url)
        assert (await backend.grant(3, timeout=5)).ttl == 3.0
        assert (await backend.grant(0.5, timeout=5)).ttl == 2.0
        assert backend.limits.ttl_min == 2.0


async def test_a_key_is_free_as_soon_as_its_lease_is_gone(consul: ConsulServer, open_backend: Open) -> None:
    backend = open_backend(consul.url)
    old, new = await backend.grant(15, timeout=5), await backend.grant(15, timeout=5)
    await backend.commit([Put("delay/k", b"old", old.id)], {"delay/k": ABSENT}, timeout=5)
    await backend.revoke(old, timeout=5)
    await backend.commit([Put("delay/k", b"new", new.id)], {"delay/k": ABSENT}, timeout=5)
    item = await backend.get("delay/k", timeout=5)
    assert item is not None
    assert item.lease == new.id
    with pytest.raises(LeaseExpiredError):
        await backend.commit([Put("delay/k", b"late", old.id)], {"delay/k": HeldBy(old.id)}, timeout=5)


async def test_with_a_lock_delay_it_would_not_be(consul: ConsulServer, open_backend: Open) -> None:
    """The test above proves something: a session with Consul's default of 15 s keeps its key from others."""
    backend = open_backend(consul.url)
    slow = consul.admin("PUT", "/v1/session/create", {"TTL": "15s", "Behavior": "delete", "NodeChecks": []})["ID"]
    await backend.commit([Put("delay/slow", b"", slow)], {"delay/slow": ABSENT}, timeout=5)
    consul.admin("PUT", f"/v1/session/destroy/{slow}")
    lease = await backend.grant(15, timeout=5)
    with pytest.raises(ConflictError, match="lock delay"):
        await backend.commit([Put("delay/slow", b"", lease.id)], {"delay/slow": ABSENT}, timeout=5)


async def test_sessions_on_a_node_of_their_own(consul: ConsulServer, open_backend: Open) -> None:
    backend = open_backend(f"{consul.url}?session_node=outside")
    for _ in range(2):
        lease = await backend.grant(15, timeout=5)
    (found,) = consul.admin("GET", f"/v1/session/info/{lease.id}")
    node = consul.admin("GET", "/v1/catalog/node/outside")["Node"]
    assert found["Node"] == "outside"
    assert (node["Address"], node["Meta"]) == ("127.0.0.1", {"external-node": "true"})
    await backend.commit([Put("outside/k", b"", lease.id)], {"outside/k": ABSENT}, timeout=5)


async def test_a_node_that_is_in_the_catalog_stays_as_it_is(consul: ConsulServer, open_backend: Open) -> None:
    consul.admin("PUT", "/v1/catalog/register", {"Node": "theirs", "Address": "10.9.9.9", "NodeMeta": {"a": "b"}})
    await open_backend(f"{consul.url}?session_node=theirs").grant(15, timeout=5)
    node = consul.admin("GET", "/v1/catalog/node/theirs")["Node"]
    assert (node["Address"], node["Meta"]) == ("10.9.9.9", {"a": "b"})


async def test_a_put_of_the_same_bytes_answers_with_the_revision_that_stands(
    consul: ConsulServer, open_backend: Open
) -> None:
    backend = open_backend(consul.url)
    first = await backend.commit([Put("same/a", b"1"), Put("same/b", b"1")], {}, timeout=5)
    second = await backend.commit([Put("same/a", b"1"), Put("same/b", b"2")], {}, timeout=5)
    assert second["same/a"] == first["same/a"] < second["same/b"]
    again = await backend.commit([Put("same/a", b"3")], {"same/a": Revision(first["same/a"])}, timeout=5)
    assert again["same/a"] > second["same/b"], "the put's revision, not the one that its condition reports"


@pytest.mark.parametrize("guard", [Revision(3), HeldBy("00000000-0000-0000-0000-000000000000")])
async def test_a_missing_key_satisfies_no_condition(
    guard: Revision | HeldBy, consul: ConsulServer, open_backend: Open
) -> None:
    """Consul's own delete-cas succeeds on a missing key."""
    with pytest.raises(ConflictError):
        await open_backend(consul.url).commit([Delete("gone/k")], {"gone/k": guard}, timeout=5)


async def test_the_edge_of_a_prefix_belongs_to_nobody_else(consul: ConsulServer, open_backend: Open) -> None:
    backend = open_backend(consul.url)
    keys = ["edge/a", "edge/a/1", "edge/a.b", "edge/a=2F", "edge/ab", "edge/b"]
    await backend.commit([Put(key, b"") for key in keys], {}, timeout=5)
    assert list((await backend.scan("edge/a/", timeout=5)).items) == ["edge/a/1"]
    assert len((await backend.scan("edge/", timeout=5)).items) == len(keys)


async def test_the_largest_commit_that_is_allowed_fits(consul: ConsulServer, open_backend: Open) -> None:
    backend = open_backend(consul.url)
    ops, value = backend.limits.ops_max, b"\xff" * backend.limits.value_max
    await backend.commit([Put("large/value", value)], {}, timeout=5)
    item = await backend.get("large/value", timeout=5)
    assert item is not None
    assert item.value == value
    await backend.commit([Put(f"large/{n}", b"") for n in range(ops)], {}, timeout=5)
    with pytest.raises(LimitError):
        await backend.commit([Put(f"large/{n}", b"") for n in range(ops + 65)], {}, timeout=5)
    with pytest.raises(LimitError):
        await backend.commit([Put("large/value", value * 2)], {}, timeout=5)


HOSTILE = ["job/../../agent/leave", "a/../..", "a/%2F..%2F", "a b/é/x:y,a", "%2e%2e/agent/leave", "a?dc=x#y/z", "../kv"]


async def test_a_hostile_key_is_just_a_key(consul: ConsulServer) -> None:
    async with osdisco.connect(f"{consul.url}/hostile") as client:
        for key in HOSTILE:
            await client.put(key, key.encode())
        for key in HOSTILE:
            item = await client.get(key)
            assert item is not None
            assert item.value == key.encode()
        assert set((await client.scan("")).items) == set(HOSTILE)
        async with client.watch("job/") as changes:
            assert set((await anext(aiter(changes))).puts) == {HOSTILE[0]}
        for key in HOSTILE:
            await client.delete(key)
        assert not (await client.scan("")).items
    assert consul.admin("GET", "/v1/status/leader"), "the agent has left"


async def test_even_unescaped_it_is_not_followed_out_of_its_place(consul: ConsulServer, open_backend: Open) -> None:
    """Core escapes every key; this is what holds if something else hands one over. Consul answers with a redirect."""
    backend = open_backend(consul.url)
    for key in ("job/../../agent/leave", "a//b"):
        with pytest.raises(UnavailableError, match="redirect"):
            await backend.get(key, timeout=5)
    for key in (quote("job/../../agent/leave", safe=""), "a?dc=nowhere#x"):
        assert await backend.get(key, timeout=5) is None
    assert consul.admin("GET", "/v1/status/leader"), "the agent has left"


async def test_a_dead_endpoint_costs_one_attempt(consul: ConsulServer, open_backend: Open) -> None:
    url = f"consul://127.0.0.1:1,{consul.address}"
    backend = open_backend(url)
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
        await backend.commit([Put("failover/k", b"1")], {}, timeout=5)
    await backend.commit([Put("failover/k", b"1")], {}, timeout=5)
    async with aclosing(open_backend(url).watch("failover/")) as watch:
        with pytest.raises(UnavailableError):
            await anext(watch)
    async with osdisco.connect(f"{url}/failover") as client:
        assert await client.get("k") is not None, "the client asks the next one by itself"


async def test_a_server_that_is_killed_and_comes_back(osdisco_servers: Servers, open_backend: Open) -> None:
    with osdisco_servers.fresh_consul() as server:
        backend = open_backend(server.url)
        put = Put("back/k", b"1")
        before = await backend.commit([put], {}, timeout=5)
        watch = backend.watch("back/")
        await anext(watch)
        server.kill()
        with pytest.raises(UnavailableError):
            await anext(watch)
        with pytest.raises((UnavailableError, IndeterminateError)):
            await backend.commit([put], {}, timeout=2)
        server.start()
        async with aclosing(backend.watch("back/")) as again:
            frame = await anext(again)
        assert {key: item.revision for key, item in frame.items.items()} == before  # type: ignore[union-attr]


async def test_inspect_tells_what_it_finds(consul: ConsulServer, open_backend: Open) -> None:
    good, dead = await open_backend(f"consul://{consul.address},127.0.0.1:1").inspect(timeout=5)
    assert (good.endpoint, good.error, good.leader) == (consul.address, None, True)
    assert good.version
    assert good.version[0].isdigit()
    assert good.latency is not None
    assert 0 < good.latency < 5
    assert good.server_time is not None
    assert abs(good.server_time - time.time()) < 5
    assert good.details["datacenter"] == "dc1"
    assert dead.endpoint == "127.0.0.1:1"
    assert dead.error is not None
    assert "cannot connect" in dead.error


@pytest.mark.parametrize(("query", "error"), [("dc=nowhere", UnavailableError), ("ns=team", ConfigError)])
async def test_a_place_that_is_not_there(
    query: str, error: type[Exception], consul: ConsulServer, open_backend: Open
) -> None:
    with pytest.raises(error):
        await open_backend(f"{consul.url}?{query}").get("k", timeout=5)


async def test_a_write_to_a_namespace_that_is_not_there_writes_nothing_elsewhere(
    consul: ConsulServer, open_backend: Open
) -> None:
    plain = open_backend(consul.url)
    await plain.commit([Put("mine/k", b"1")], {}, timeout=5)
    for _ in range(2):
        with pytest.raises(ConfigError, match="Enterprise"):
            await open_backend(f"{consul.url}?ns=team").commit([Put("mine/k", b"2")], {}, timeout=5)
    item = await plain.get("mine/k", timeout=5)
    assert item is not None
    assert item.value == b"1"


async def test_an_etcd_is_no_consul(etcd_server: EtcdServer, open_backend: Open) -> None:
    backend = open_backend(f"consul://{etcd_server.address}")
    with pytest.raises(UnavailableError, match="is it a Consul agent"):
        await backend.get("k", timeout=5)
    with pytest.raises(UnavailableError):
        await backend.scan("k/", timeout=5)
    with pytest.raises(UnavailableError):
        await anext(backend.watch("k/"))
    with pytest.raises(IndeterminateError):
        await backend.commit([Put("k", b"")], {}, timeout=5)
    (status,) = await backend.inspect(timeout=5)
    assert status.error


async def test_closing_leaves_no_connection(consul: ConsulServer, open_backend: Open) -> None:
    import gc
    from pathlib import Path

    def sockets() -> int:
        return sum("socket" in str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())

    gc.collect()
    before = sockets()
    backend = open_backend(consul.url)
    await asyncio.gather(*(backend.get(f"close/{n}", timeout=5) for n in range(10)))
    watch = backend.watch("close/")
    await anext(watch)
    lease = await backend.grant(15, timeout=5)
    await backend.revoke(lease, timeout=5)
    assert sockets() > before
    await backend.aclose()
    await watch.aclose()
    await asyncio.sleep(0)
    assert sockets() == before
