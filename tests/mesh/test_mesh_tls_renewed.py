"""Certificates are renewed while processes run: new connections go by the files as they are, without a restart."""

from __future__ import annotations

import logging
import shutil
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from raw_servers import endpoint
from worlds import World

from osdisco.errors import EndpointUnreachableError, ServiceMeshError
from osdisco.mesh._given import transport_of
from osdisco.mesh.http import HttpTransport
from osdisco.mesh.mesh import ExtensionServiceMesh
from osdisco.mesh.tls import LOOK, TlsFiles
from osdisco.mesh.transport import MeshRequest, MeshResponse
from osdisco.testing import VirtualClock
from osdisco.testing.certs import Certificates, make_certificates


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("old"))


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Of another authority, so that the two take each other for strangers."""
    return make_certificates(tmp_path_factory.mktemp("new"))


class Town:
    """Processes on one clock, each with certificates in a folder of its own that can be put over."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.clock = VirtualClock()
        self._folder = folder
        self._stack = stack

    def transport(self, name: str, certs: Certificates) -> HttpTransport:
        self.put(name, certs)
        at = self._folder / name
        files = TlsFiles(ca=at / "ca.pem", cert=at / "own.pem", key=at / "own-key.pem")
        transport = HttpTransport(tls=files, clock=self.clock)
        self._stack.push_async_callback(transport.aclose)
        return transport

    def put(self, name: str, certs: Certificates, *parts: str) -> None:
        """Put certificates over those that are there; all of them, or the named files."""
        at = self._folder / name
        at.mkdir(exist_ok=True)
        for part, source in (("ca.pem", certs.ca), ("own.pem", certs.server), ("own-key.pem", certs.server_key)):
            if not parts or part in parts:
                shutil.copy(source, at / part)

    def path(self, name: str, part: str) -> Path:
        return self._folder / name / part

    async def served(self, transport: HttpTransport) -> str:
        listener = await transport.listen(_echo, "127.0.0.1", 0)
        self._stack.push_async_callback(listener.aclose)
        return f"127.0.0.1:{listener.port}"


async def _echo(request: MeshRequest) -> MeshResponse:
    return MeshResponse(200, request.body)


@pytest.fixture
async def geo(tmp_path: Path) -> AsyncGenerator[Town, None]:
    async with AsyncExitStack() as stack:
        yield Town(tmp_path, stack)


async def ask(transport: HttpTransport, address: str) -> bool:
    """Return whether both believe each other."""
    try:
        return (await transport.send(endpoint(address), MeshRequest("geo", "echo", b"1"), 5)).body == b"1"
    except ServiceMeshError:
        return False


async def test_who_serves_shows_and_believes_what_the_files_hold_now(
    geo: Town, old: Certificates, new: Certificates
) -> None:
    address = await geo.served(geo.transport("server", old))
    assert await ask(geo.transport("a", old), address)
    assert not await ask(geo.transport("b", new), address)
    geo.put("server", new)
    assert await ask(geo.transport("c", old), address)
    geo.clock.jump(LOOK)
    assert await ask(geo.transport("d", new), address)
    assert not await ask(geo.transport("e", old), address)


async def test_who_calls_shows_and_believes_what_the_files_hold_now(
    geo: Town, old: Certificates, new: Certificates
) -> None:
    before, after = [await geo.served(geo.transport(name, certs)) for name, certs in (("a", old), ("b", new))]
    caller = geo.transport("caller", old)
    assert (await ask(caller, before), await ask(caller, after)) == (True, False)
    geo.put("caller", new)
    assert (await ask(caller, before), await ask(caller, after)) == (True, False)
    geo.clock.jump(LOOK)
    assert (await ask(caller, before), await ask(caller, after)) == (False, True)


async def test_what_was_good_last_is_used_on_when_the_files_are_not(
    geo: Town, old: Certificates, new: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "osdisco")
    address = await geo.served(geo.transport("server", old))
    geo.put("server", new, "own.pem")  # and its key comes a little later
    for _ in range(3):
        geo.clock.jump(LOOK)
        assert await ask(geo.transport("a", old), address)
    (told,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "are no pair" in told.getMessage()
    assert "those that were good last are used on" in told.getMessage()
    for part in ("own.pem", "ca.pem"):
        geo.path("server", part).unlink()
        geo.clock.jump(LOOK)
        assert await ask(geo.transport("b", old), address)
    caplog.clear()
    geo.put("server", new)
    geo.clock.jump(LOOK)
    assert await ask(geo.transport("c", new), address)
    (told,) = [record for record in caplog.records if "server" in record.getMessage()]
    assert "are used from now on" in told.getMessage()


async def test_a_link_to_another_folder_is_a_change(geo: Town, old: Certificates, new: Certificates) -> None:
    """As Kubernetes puts secrets over."""
    geo.put("1", old)
    geo.put("2", new)
    link = geo.path("1", "..").resolve() / "link"
    link.symlink_to(geo.path("1", ""))
    transport = HttpTransport(
        tls=TlsFiles(ca=link / "ca.pem", cert=link / "own.pem", key=link / "own-key.pem"), clock=geo.clock
    )
    address = await geo.served(transport)
    link.unlink()
    link.symlink_to(geo.path("2", ""))
    geo.clock.jump(LOOK)
    assert await ask(geo.transport("a", new), address)
    await transport.aclose()


async def test_the_files_are_looked_at_seldom(geo: Town, old: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    really = TlsFiles._stamp
    monkeypatch.setattr(TlsFiles, "_stamp", lambda files: (looked.append(1), really(files))[1])
    caller = geo.transport("caller", old)
    address = await geo.served(geo.transport("server", old))
    assert await ask(caller, address)
    looked.clear()
    for _ in range(100):
        geo.clock.jump(LOOK / 1000)
        assert await ask(caller, address)
    assert not looked
    geo.clock.jump(LOOK)
    assert [await ask(caller, address) for _ in range(3)] == [True] * 3
    assert len(looked) == 1, "one connection was kept, so that only the caller had to look"


@pytest.mark.parametrize(("days", "said"), [(-10, "has expired"), (10, "is not yet valid")])
async def test_whose_time_is_over_or_has_not_come_is_not_believed(
    days: int, said: str, geo: Town, old: Certificates, tmp_path: Path
) -> None:
    late = make_certificates(tmp_path / "late", start=datetime.now(UTC) + timedelta(days=days))
    address = await geo.served(geo.transport("server", late))
    caller = geo.transport("caller", late)
    with pytest.raises(EndpointUnreachableError, match=f"its certificate is not trusted: .*{said}"):
        await caller.send(endpoint(address), MeshRequest("geo", "echo", b"1"), 5)
    well = HttpTransport(tls=TlsFiles(ca=late.ca, cert=old.server, key=old.server_key))
    late_caller = HttpTransport(tls=TlsFiles(ca=old.ca, cert=late.client, key=late.client_key))
    assert not await ask(late_caller, await geo.served(well))
    await late_caller.aclose()


async def test_a_mesh_looks_by_the_clock_of_its_client(world: World, old: Certificates) -> None:
    """Else tests in virtual time, and simulations, would wait in vain."""
    clock = VirtualClock()
    transport = transport_of(None, TlsFiles(ca=old.ca), clock)
    assert isinstance(transport, HttpTransport)
    assert transport._tls is not None
    assert transport._tls._now == clock.now
    mesh = ExtensionServiceMesh(world.process(), tls=TlsFiles(ca=old.ca))
    assert isinstance(mesh._transport, HttpTransport)
    assert mesh._transport._tls is not None
    assert mesh._transport._tls._now == world.clock.now
    await mesh.aclose()
