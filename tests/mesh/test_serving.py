"""Where a service listens, under which address others find it, and what is left when its start comes to nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from typing import Any
from uuid import uuid4

import pytest
from mesh_town import AT_ONCE, Town, town
from worlds import World, until

import osdisco
from osdisco.discovery import Drain
from osdisco.errors import ClosedError, ConfigError
from osdisco.mesh import ExtensionServiceMesh
from osdisco.mesh._own_address import reachable
from osdisco.registry import ServiceDefinition, ServiceRegistry
from osdisco.url import StoreURL

GEO = ServiceDefinition("geo", "1")


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")


@pytest.fixture
async def geo(world: World) -> AsyncGenerator[Town, None]:
    async with town(world) as place:
        yield place


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "localhost"),
        ("0.0.0.0", "127.0.0.1"),
        ("", "127.0.0.1"),
        pytest.param("::1", "[::1]", marks=ipv6),
        pytest.param("::", "[::1]", marks=ipv6),
    ],
)
async def test_others_find_it_wherever_it_listens(host: str, address: str) -> None:
    async with (
        osdisco.connect(f"memory://{uuid4().hex}") as client,
        ExtensionServiceMesh(client) as mesh,
        mesh.serve(GEO, {"who": lambda: "me"}, host=host, drain=AT_ONCE) as server,
    ):
        assert server.address == f"{address}:{server.port}"
        assert await mesh.call("geo", "who", timeout=5) == "me"


@ipv6
async def test_on_all_addresses_it_has_one_port() -> None:
    async with (
        osdisco.connect(f"memory://{uuid4().hex}") as client,
        ExtensionServiceMesh(client) as mesh,
        mesh.serve(GEO, {"who": lambda: "me"}, host="", drain=AT_ONCE) as server,
    ):
        for host in ("127.0.0.1", "::1"):
            _, writer = await asyncio.open_connection(host, server.port)
            writer.close()
            await writer.wait_closed()


@pytest.mark.parametrize(
    ("host", "store", "address"),
    [
        ("10.0.0.7", "etcd://127.0.0.1", "10.0.0.7:9700"),
        ("fe80::7", "etcd://127.0.0.1", "[fe80::7]:9700"),
        ("0.0.0.0", "etcd://localhost", "127.0.0.1:9700"),
        ("", "consul://[::1]", "127.0.0.1:9700"),
        ("::", "consul://localhost", "[::1]:9700"),
        ("0.0.0.0", "etcd://127.0.0.2", "127.0.0.1:9700"),
    ],
)
async def test_the_address_is_of_the_kind_that_is_listened_on(host: str, store: str, address: str) -> None:
    assert await reachable(host, 9700, StoreURL.parse(store)) == address


@pytest.mark.parametrize(("host", "store"), [("::", "etcd://192.0.2.1"), ("0.0.0.0", "etcd://[2001:db8::1]")])
async def test_without_a_way_to_the_store_of_that_kind_it_must_be_said(host: str, store: str) -> None:
    with pytest.raises(ConfigError, match="give the definition one"):
        await reachable(host, 9700, StoreURL.parse(store))


# a start that comes to nothing


async def standing(geo: Town) -> list[Any]:
    return await ServiceRegistry(geo.world.process()).get_endpoints("geo")


async def test_a_start_that_is_cancelled_leaves_no_record_of_who_does_not_listen(
    geo: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh = geo.mesh()
    server = mesh.serve(GEO, {"who": lambda: 1}, host="10.0.0.7", drain=AT_ONCE)
    seen = asyncio.Event()

    async def never(_: Any) -> None:
        seen.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(server, "_seen", never)

    async def start() -> None:
        await server

    task = asyncio.get_running_loop().create_task(start())
    await seen.wait()
    assert len(await standing(geo)) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await standing(geo) == []
    assert not mesh._servers


async def test_a_start_where_nobody_can_listen_leaves_nothing(geo: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = geo.mesh()

    async def taken(*_: Any) -> None:
        raise ConfigError("cannot listen")

    monkeypatch.setattr(mesh._transport, "listen", taken)
    for _ in range(3):
        with pytest.raises(ConfigError, match="cannot listen"):
            await mesh.serve(GEO, {"who": lambda: 1})
    assert not mesh._servers


async def test_a_mesh_that_is_closed_while_something_starts_leaves_no_record_of_it(
    geo: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh = geo.mesh()
    gate, asked = asyncio.Event(), asyncio.Event()

    async def slowly(host: str, port: int, _: Any) -> str:
        asked.set()
        await gate.wait()
        return f"{host}:{port}"

    monkeypatch.setattr("osdisco.mesh.serving.reachable", slowly)

    async def start() -> None:
        await mesh.serve(GEO, {"who": lambda: 1}, host="10.0.0.7", drain=AT_ONCE)

    task = asyncio.get_running_loop().create_task(start())
    await asked.wait()
    await mesh.aclose()
    gate.set()
    with pytest.raises(ClosedError, match="closed while it was starting"):
        await task
    await until(lambda: not mesh._servers)
    assert await standing(geo) == []


async def test_who_was_closed_is_not_started(geo: Town) -> None:
    server = geo.mesh().serve(GEO, {"who": lambda: 1})
    await server.aclose()
    with pytest.raises(ClosedError, match="once"):
        await server


async def test_a_mesh_that_is_about_to_close_serves_nothing_new(geo: Town) -> None:
    """What is served at that moment may take its time to end; nobody would end what came after it."""
    mesh = geo.mesh()
    await geo.serve({"who": lambda: 1}, mesh=mesh, drain=Drain(propagation=1, grace=5))
    closing = asyncio.get_running_loop().create_task(mesh.aclose())
    await asyncio.sleep(0.1)
    with pytest.raises(ClosedError, match="about to be"):
        mesh.serve(GEO, {"who": lambda: 1})
    await closing
