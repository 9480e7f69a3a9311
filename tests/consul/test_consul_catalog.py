"""An extension in Consul's own catalog, on real agents: its checks, its end, and what else happens to agents."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

import osdisco
from osdisco.discovery import DiscoveryService, ExtensionInfo, ExtensionStatus
from osdisco.errors import ConfigError, ConflictError, UnavailableError
from osdisco.testing.servers import ConsulServer
from osdisco_consul import ConsulCatalog

DEGRADED, HEALTHY, STARTING = ExtensionStatus.DEGRADED, ExtensionStatus.HEALTHY, ExtensionStatus.STARTING
STOPPING, UNHEALTHY = ExtensionStatus.STOPPING, ExtensionStatus.UNHEALTHY
TTL = 6.0


def info(name: str, **changes: Any) -> ExtensionInfo:
    """Return an extension of a service that no other test has."""
    given = {"id": f"{name}-1", "name": name, "version": "1.4.0", "host": "10.0.0.7", "port": 9700, "status": HEALTHY}
    return ExtensionInfo(**(given | changes))


def health(server: ConsulServer, name: str) -> list[tuple[str, str]]:
    """Return the services of a name by id, with the worst that their checks say."""
    order = ["passing", "warning", "critical"]
    found = server.admin("GET", f"/v1/health/service/{name}")
    worst = [max((c["Status"] for c in one["Checks"] if c["ServiceID"]), key=order.index) for one in found]
    return [(one["Service"]["ID"], status) for one, status in zip(found, worst, strict=True)]


async def eventually(condition: Callable[[], object], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.05)


@asynccontextmanager
async def published(server: ConsulServer, extension: ExtensionInfo) -> AsyncIterator[DiscoveryService]:
    """Register in the store in memory, and publish to the server."""
    catalog = ConsulCatalog(f"{server.url}/search", ttl=TTL)
    async with (
        osdisco.connect("memory://") as client,
        DiscoveryService(client, extension, publish=[catalog]) as discovery,
    ):
        yield discovery


async def test_consul_shows_what_is_registered_until_it_leaves(consul: ConsulServer) -> None:
    me = info(
        "whole", capabilities=["geo.search", "geo"], metadata={"zone": "a", "opensearch.version": "3.0"}, host="::1"
    )
    async with osdisco.connect(f"{consul.url}/search") as client:
        async with DiscoveryService(client, me, publish=[ConsulCatalog.of(client, weights=(7, 2))]) as discovery:
            await discovery.wait_registered(5)
            await eventually(lambda: health(consul, "whole") == [("search:whole-1", "passing")])
            ((service,),) = [[one["Service"] for one in consul.admin("GET", "/v1/health/service/whole?passing")]]
            assert (service["Address"], service["Port"]) == ("::1", 9700)
            assert service["Tags"] == ["geo.search", "geo"]
            assert service["Weights"] == {"Passing": 7, "Warning": 2}
            meta = service["Meta"]
            assert len(meta.pop("osdisco_process")) == 32
            assert meta == {"id": "whole-1", "version": "1.4.0", "zone": "a", "opensearch_version": "3.0"}
        assert health(consul, "whole") == []


@pytest.mark.parametrize(
    ("status", "check"),
    [(HEALTHY, "passing"), (STARTING, "warning"), (DEGRADED, "warning"), (UNHEALTHY, "critical")],
)
async def test_a_status_is_one_of_consuls(consul: ConsulServer, status: ExtensionStatus, check: str) -> None:
    name = f"status-{status.value}"
    async with published(consul, info(name, status=STARTING if status is HEALTHY else HEALTHY)) as discovery:
        await discovery.set_status(status)
        await eventually(lambda: health(consul, name) == [(f"search:{name}-1", check)])
        (one,) = consul.admin("GET", f"/v1/health/service/{name}")
        outputs = {check["CheckID"]: check["Output"] for check in one["Checks"] if check["ServiceID"]}
        assert set(outputs.values()) <= {"", status.value}


async def test_without_heartbeats_it_is_critical_and_with_them_it_is_not(consul: ConsulServer) -> None:
    """A process that dies stops beating; the agent takes its service away a minute later."""
    catalog = ConsulCatalog(f"{consul.url}/search", ttl=1)
    me = info("beating")
    for _ in range(5):
        await catalog.publish(me)
        await asyncio.sleep(catalog.heartbeat)
    async with asyncio.timeout(10):
        while health(consul, "beating") != [("search:beating-1", "passing")]:  # this machine may be slow
            await catalog.publish(me)
    await eventually(lambda: health(consul, "beating") == [("search:beating-1", "critical")])
    await catalog.withdraw(me)
    await catalog.aclose()


async def test_a_service_that_is_gone_or_changed_is_put_right_at_the_next_heartbeat(consul: ConsulServer) -> None:
    async with published(consul, info("tampered")) as discovery:
        await discovery.wait_registered(5)
        await eventually(lambda: health(consul, "tampered") == [("search:tampered-1", "passing")])
        consul.admin("PUT", "/v1/agent/service/deregister/search:tampered-1")
        await eventually(lambda: health(consul, "tampered") == [("search:tampered-1", "passing")])
        consul.admin("PUT", "/v1/agent/check/deregister/osdisco:search:tampered-1:heartbeat")
        await eventually(lambda: len(checks(consul, "tampered")) == 2)
        changed = consul.admin("GET", "/v1/agent/service/search:tampered-1")
        changed = {key: changed[key] for key in ("ID", "Address", "Meta")} | {"Name": "tampered", "Port": 1}
        consul.admin("PUT", "/v1/agent/service/register", changed)
        await eventually(lambda: consul.admin("GET", "/v1/agent/service/search:tampered-1")["Port"] == 9700)


async def test_a_service_may_change_its_name_and_address(consul: ConsulServer) -> None:
    async with published(consul, info("before")) as discovery:
        await discovery.wait_registered(5)
        await eventually(lambda: health(consul, "before") == [("search:before-1", "passing")])
        await discovery.update(name="after", port=9800)
        await eventually(lambda: health(consul, "after") == [("search:before-1", "passing")])
        assert health(consul, "before") == []
        assert consul.admin("GET", "/v1/agent/service/search:before-1")["Port"] == 9800


def checks(server: ConsulServer, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.admin("GET", f"/v1/health/checks/{name}")
    return found


async def test_it_comes_back_after_the_agent_was_away(consul: ConsulServer) -> None:
    async with published(consul, info("restarted")) as discovery:
        await discovery.wait_registered(5)
        await eventually(lambda: health(consul, "restarted") == [("search:restarted-1", "passing")])
        await asyncio.to_thread(consul.kill)
        await asyncio.sleep(TTL)
        assert discovery.registered, "the registration does not depend on it"
        await asyncio.to_thread(consul.start)
        await eventually(lambda: health(consul, "restarted") == [("search:restarted-1", "passing")])


async def test_a_restarted_process_takes_over_and_the_old_one_keeps_off(consul: ConsulServer) -> None:
    old, new = (ConsulCatalog(f"{consul.url}/search", ttl=30) for _ in range(2))
    await old.publish(info("twice", port=1))
    await new.publish(info("twice", port=2))
    with pytest.raises(ConflictError, match="another process"):
        await old.publish(info("twice", port=1))
    await old.withdraw(info("twice", port=1))
    assert consul.admin("GET", "/v1/agent/service/search:twice-1")["Port"] == 2
    await new.withdraw(info("twice", port=2))
    assert health(consul, "twice") == []
    await old.publish(info("twice", port=1))
    await old.withdraw(info("twice", port=1))
    for catalog in (old, new):
        await catalog.aclose()


async def test_an_agent_that_is_away_at_first_is_no_reason_to_take_a_predecessor_for_a_successor(
    consul: ConsulServer,
) -> None:
    before, after = (ConsulCatalog(f"{consul.url}/search", ttl=30) for _ in range(2))
    await before.publish(info("late"))
    send = after._agent._wire.send

    async def unavailable(*_: Any, **__: Any) -> None:
        raise UnavailableError("away")

    after._agent._wire.send = unavailable
    with pytest.raises(UnavailableError):
        await after.publish(info("late"))
    after._agent._wire.send = send
    await after.publish(info("late"))
    await after.withdraw(info("late"))
    for catalog in (before, after):
        await catalog.aclose()


async def test_only_the_dead_are_taken_away() -> None:
    """Seen once on a real agent: the dead one was gone after 89 s, the ill one stayed."""
    catalog = ConsulCatalog("consul://127.0.0.1/search", ttl=30, removed_after=120)
    heartbeat, status = catalog._definition(info("ill", status=UNHEALTHY))["Checks"]
    assert (heartbeat["DeregisterCriticalServiceAfter"], heartbeat["Status"]) == ("120s", "passing")
    assert ("DeregisterCriticalServiceAfter" in status, status["Status"]) == (False, "critical")
    await catalog.aclose()


async def test_consuls_dns_answers_with_those_that_are_not_critical(consul: ConsulServer) -> None:
    me, ill = info("dns", host="10.0.0.7"), info("dns", id="dns-2", host="10.0.0.8", status=UNHEALTHY)
    catalog = ConsulCatalog(f"{consul.url}/search", ttl=30)
    await catalog.publish(me)
    await catalog.publish(ill)
    await eventually(lambda: len(health(consul, "dns")) == 2)
    answer = await asyncio.to_thread(ask, consul.dns_address, "dns.service.consul")
    assert addresses(answer) == ["10.0.0.7"]
    for one in (me, ill):
        await catalog.withdraw(one)
    await catalog.aclose()


def ask(server: str, name: str) -> bytes:
    """Ask a DNS server for A records, over TCP; returns the answer."""
    question = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    query = b"\0\1\1\0\0\1\0\0\0\0\0\0" + question + b"\0\1\0\1"
    host, _, port = server.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(len(query).to_bytes(2, "big") + query)
        stream = connection.makefile("rb")
        return stream.read(int.from_bytes(stream.read(2), "big"))


def addresses(answer: bytes) -> list[str]:
    """Return the addresses in an answer: 4 bytes each, behind type A, class IN and a time to live."""
    found = re.finditer(rb"\x00\x01\x00\x01.{4}\x00\x04(.{4})", answer[12:], re.DOTALL)
    return [".".join(map(str, match[1])) for match in found]


HOSTILE = {
    "consul-wan": "reserved",
    "long": "x" * 513,
    "wide": "é" * 257,
    "k" * 129: "v",
    "a.b": "1",
    "a/b": "2",
    "emoji 🙂": "🙂",
    "osdisco_process": "forged",
    "id": "forged",
}


async def test_metadata_that_consul_refuses_is_left_out(consul: ConsulServer) -> None:
    catalog = ConsulCatalog(f"{consul.url}/search", ttl=30)
    me = info("hostile", id="../a b/é", metadata=HOSTILE | {f"z{number}": "" for number in range(100)})
    await catalog.publish(me)
    (service,) = (one["Service"] for one in consul.admin("GET", "/v1/health/service/hostile"))
    meta = service["Meta"]
    assert service["ID"] == "search:..=2Fa=20b=2F=C3=A9"
    assert (meta["id"], meta["a_b"], meta["emoji__"]) == ("../a b/é", "1", "🙂")
    assert len(meta) == 64
    assert meta["osdisco_process"] != "forged"
    assert not {"consul-wan", "long", "wide", "k" * 129} & set(meta)
    await catalog.publish(me)
    await catalog.withdraw(me)
    await catalog.aclose()
    assert health(consul, "hostile") == []


@pytest.mark.parametrize(
    ("url", "options", "said"),
    [
        ("etcd://127.0.0.1", {}, "not etcd://"),
        ("consul://a,b", {}, "name that one alone"),
        ("consul://a?session_node=osdisco", {}, "no agent on this machine"),
        ("consul://a", {"ttl": 0.5}, "from 1 s"),
        ("consul://a", {"ttl": float("nan")}, "from 1 s"),
        ("consul://a", {"removed_after": 59}, "from 60 s"),
        ("consul://a", {"weights": (0, 1)}, "from 1 to 65535"),
        ("consul://a", {"weights": (1,)}, "two numbers"),
    ],
)
def test_bad_options_are_refused(url: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ConsulCatalog(url, **options)


async def test_another_stores_client_is_told_to_name_the_agent() -> None:
    async with osdisco.connect("memory://") as client:
        with pytest.raises(ConfigError, match=r"ConsulCatalog\('consul://127.0.0.1'\)"):
            ConsulCatalog.of(client)
