"""Endpoints that are gone, silent, slow or not etcd at all: the right outcome, in time, and the next one is used."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest
from etcd_rooms import Answer, Open, Reader, Serve, Writer, next_change, started

from osdisco.backend import WATCH_SILENCE, Batch, Delete, Lease, Put, Snapshot
from osdisco.errors import ClosedError, IndeterminateError, OsdiscoError, UnavailableError
from osdisco.testing._stores import EtcdServer
from osdisco.testing.servers import Servers


@pytest.fixture
def absent() -> str:
    """Return an address at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return "{}:{}".format(*probe.getsockname())


@pytest.fixture
def deaf() -> Iterator[str]:
    """Yield an address that does not finish a connection: its queue is full and nobody empties it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        yield "{}:{}".format(*address)
        for filler in fillers:
            filler.close()


@pytest.fixture(scope="module")
def victim(osdisco_servers: Servers) -> Iterator[EtcdServer]:
    """Yield an etcd that tests freeze and kill."""
    with started(osdisco_servers.fresh_etcd()) as server:
        yield server


@pytest.fixture
async def frozen(victim: EtcdServer) -> AsyncIterator[EtcdServer]:
    """Yield the victim; thawed at the end."""
    yield victim
    victim.unpause()


LEASE = Lease("0000000000000123", 10)


async def freeze(server: EtcdServer) -> None:
    """Stop a server where it stands; all of its threads take a moment."""
    server.pause()
    await asyncio.sleep(0.1)


async def test_nobody_there_is_unavailable_at_once_for_reads_and_writes(absent: str, open_backend: Open) -> None:
    backend = open_backend(absent)
    began = time.monotonic()
    with pytest.raises(UnavailableError, match="not applied"):
        await backend.commit([Put("k", b"")], {}, timeout=5)
    with pytest.raises(UnavailableError):
        await backend.get("k", timeout=5)
    with pytest.raises(UnavailableError):
        await anext(backend.watch("k/"))
    with pytest.raises(UnavailableError):
        await anext(backend.watch("k/", after=3))
    with pytest.raises(UnavailableError):
        await backend.grant(10, timeout=5)
    with pytest.raises(UnavailableError):
        await backend.renew(LEASE, timeout=5)
    assert time.monotonic() - began < 3


async def test_a_name_that_does_not_resolve_is_unavailable(open_backend: Open) -> None:
    with pytest.raises(UnavailableError):
        await open_backend("nowhere.invalid:2379").commit([Put("k", b"")], {}, timeout=5)


async def test_the_next_endpoint_is_used_after_a_failure(absent: str, etcd: EtcdServer, open_backend: Open) -> None:
    backend = open_backend(f"{absent},{etcd.address}")
    with pytest.raises(UnavailableError):
        await backend.commit([Put("next/k", b"1")], {}, timeout=5)
    assert await backend.commit([Put("next/k", b"1")], {}, timeout=5)
    watch = backend.watch("next/")
    assert isinstance(await anext(watch), Snapshot)
    await watch.aclose()


async def test_a_watch_turns_to_the_next_endpoint_too(absent: str, etcd: EtcdServer, open_backend: Open) -> None:
    backend = open_backend(f"{absent},{etcd.address}")
    with pytest.raises(UnavailableError):
        await anext(backend.watch("next/", after=1))
    watch = backend.watch("next/")
    assert isinstance(await anext(watch), Snapshot)
    assert isinstance(await anext(watch), Batch)
    await watch.aclose()


async def test_connecting_has_a_time_of_its_own(deaf: str, etcd: EtcdServer, open_backend: Open) -> None:
    backend = open_backend(f"{deaf},{etcd.address}", connect_timeout="400ms")
    began = time.monotonic()
    with pytest.raises(UnavailableError, match="not applied"):
        await backend.commit([Put("deaf/k", b"")], {}, timeout=5)
    assert 0.3 < time.monotonic() - began < 1.5
    assert await backend.commit([Put("deaf/k", b"")], {}, timeout=5)


@pytest.mark.fault("F2")
async def test_a_frozen_server(frozen: EtcdServer, etcd: EtcdServer, open_backend: Open) -> None:
    backend = open_backend(f"{frozen.address},{etcd.address}")
    for _ in range(2):
        await backend.commit([Put("frozen/k", b"")], {}, timeout=5)
    await freeze(frozen)
    began = time.monotonic()
    with pytest.raises(IndeterminateError, match="may have been applied"):
        await backend.commit([Put("frozen/k", b"")], {}, timeout=0.5)
    assert 0.4 < time.monotonic() - began < 1.5
    assert await backend.get("frozen/other", timeout=5) is None


@pytest.mark.fault("F2")
async def test_a_read_of_a_frozen_server_is_unavailable(frozen: EtcdServer, open_backend: Open) -> None:
    backend = open_backend(frozen.address)
    await backend.get("k", timeout=5)
    await freeze(frozen)
    with pytest.raises(UnavailableError):
        await backend.get("k", timeout=0.5)
    with pytest.raises(IndeterminateError):
        await backend.grant(10, timeout=0.5)
    frozen.unpause()
    assert await backend.get("k", timeout=5) is None


@pytest.mark.fault("F2")
async def test_a_watch_on_a_frozen_server_raises_in_time(
    frozen: EtcdServer, open_backend: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("osdisco_etcd._watch.PATIENCE", 1.0)
    monkeypatch.setattr("osdisco_etcd._watch.LAST_CALL", 0.5)
    backend = open_backend(frozen.address)
    watch = backend.watch("frozen/")
    await anext(watch)
    await anext(watch)
    await freeze(frozen)
    began = time.monotonic()
    with pytest.raises(UnavailableError):
        async with asyncio.timeout(2.5):
            await anext(watch)
    assert time.monotonic() - began > 1.4


async def test_an_idle_watch_hears_of_the_server_again_and_again(
    etcd: EtcdServer, open_backend: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("osdisco_etcd._watch.PATIENCE", 1.0)
    backend = open_backend(etcd)
    watch = backend.watch("idle/")
    await anext(watch)
    await anext(watch)
    for _ in range(3):
        began = time.monotonic()
        assert isinstance(frame := await anext(watch), Batch)
        assert not frame.puts
        assert 0.9 < time.monotonic() - began < 2
    await backend.commit([Put("idle/k", b"")], {}, timeout=5)
    assert (await next_change(watch)).puts
    await watch.aclose()


@pytest.mark.fault("F1")
async def test_a_server_that_is_killed_and_comes_back(victim: EtcdServer, open_backend: Open) -> None:
    backend = open_backend(victim.address)
    revision = (await backend.commit([Put("killed/a", b"1")], {}, timeout=5))["killed/a"]
    watch = backend.watch("killed/")
    await anext(watch)
    victim.kill()
    async with asyncio.timeout(WATCH_SILENCE):
        with pytest.raises(UnavailableError):
            _ = [frame async for frame in watch]
    with pytest.raises(OsdiscoError):
        await backend.commit([Put("killed/b", b"")], {}, timeout=2)
    victim.start()
    async with asyncio.timeout(10):
        while True:
            with suppress(UnavailableError, IndeterminateError):
                await backend.commit([Put("killed/c", b"")], {}, timeout=2)
                break
    async with asyncio.timeout(10):  # a watch has a channel of its own, which may notice later
        while True:
            again = backend.watch("killed/", after=revision)
            with suppress(UnavailableError):
                while "killed/c" not in [item.key for item in (await next_change(again)).puts]:
                    pass
                break
    await again.aclose()


async def html(reader: Reader, writer: Writer) -> None:
    """Answer as a web server does."""
    while await reader.readuntil(b"\r\n\r\n"):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 9\r\n\r\n<p>Hi</p>")


async def redirect(reader: Reader, writer: Writer) -> None:
    """Send the client elsewhere, to a place that would answer."""
    while await reader.readuntil(b"\r\n\r\n"):
        head = "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:{}/elsewhere\r\nContent-Length: 0\r\n\r\n"
        writer.write(head.format(writer.get_extra_info("sockname")[1]).encode())


async def half(reader: Reader, writer: Writer) -> None:
    """Break off in the middle of an answer."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"header":{"revi')
    await writer.drain()


async def other_json(reader: Reader, writer: Writer) -> None:
    """Answer in JSON, but as no etcd would."""
    while await reader.readuntil(b"\r\n\r\n"):
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{"status":"up"}')


async def wrong_types(reader: Reader, writer: Writer) -> None:
    """Answer with fields of etcd and values of nobody."""
    body = b'{"header":{"revision":{}},"kvs":[7],"result":{"header":{"revision":[]},"events":[{"kv":null}]}}\n'
    while await reader.readuntil(b"\r\n\r\n"):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


async def hang_up(reader: Reader, writer: Writer) -> None:
    """Take the request and close."""
    await reader.read(10)


async def http2_then_nothing(reader: Reader, writer: Writer) -> None:
    """Greet as HTTP/2 does, take the request and close."""
    writer.write(b"\0\0\0\4\0\0\0\0\0")
    await reader.readuntil(b"etcdserverpb")
    await asyncio.sleep(0.05)


async def http2_then_garbage(reader: Reader, writer: Writer) -> None:
    """Greet as HTTP/2 does, take the request and answer nonsense."""
    writer.write(b"\0\0\0\4\0\0\0\0\0")
    await reader.readuntil(b"etcdserverpb")
    writer.write(b"\xff" * 100)
    await asyncio.sleep(0.5)


@pytest.mark.parametrize("kind", [html, redirect, half, other_json, wrong_types, hang_up], ids=lambda k: k.__name__)
async def test_a_server_that_is_not_etcd(kind: Answer, transport: str, serve: Serve, open_backend: Open) -> None:
    """gRPC notices while it connects, before anything is sent; over HTTP the request is out by then."""
    backend = open_backend(await serve(kind))
    expected = UnavailableError if transport == "grpc" else IndeterminateError
    began = time.monotonic()
    with pytest.raises(expected):
        await backend.commit([Put("k", b"")], {}, timeout=3)
    with pytest.raises(expected):
        await backend.commit([Delete("k")], {}, timeout=3)
    with pytest.raises(expected):
        await backend.grant(10, timeout=3)
    with pytest.raises(expected):
        await backend.renew(LEASE, timeout=3)
    for read in (backend.get("k", timeout=3), backend.scan("k/", timeout=3)):
        with pytest.raises(UnavailableError):
            await read
    with pytest.raises(UnavailableError):
        await anext(backend.watch("k/", after=5))
    assert (await backend.inspect(timeout=3))[0].error
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("transport", ["gateway"], indirect=True)
async def test_a_redirect_to_a_place_that_would_do_it_is_not_followed(
    etcd: EtcdServer, serve: Serve, open_backend: Open
) -> None:
    async def elsewhere(reader: Reader, writer: Writer) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            head = "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://{}/v3/kv/put\r\nContent-Length: 0\r\n\r\n"
            writer.write(head.format(etcd.address).encode())

    with pytest.raises(IndeterminateError):
        await open_backend(await serve(elsewhere)).commit([Put("redirected/k", b"")], {}, timeout=3)
    assert await open_backend(etcd).get("redirected/k", timeout=5) is None


@pytest.mark.parametrize("kind", [http2_then_nothing, http2_then_garbage], ids=lambda k: k.__name__)
@pytest.mark.parametrize("transport", ["grpc"], indirect=True)
async def test_a_connection_that_breaks_after_the_request(kind: Answer, serve: Serve, open_backend: Open) -> None:
    backend = open_backend(await serve(kind))
    with pytest.raises(IndeterminateError):
        await backend.commit([Put("k", b"")], {}, timeout=3)
    with pytest.raises(IndeterminateError):
        await backend.renew(LEASE, timeout=3)
    with pytest.raises(UnavailableError):
        await backend.get("k", timeout=3)


async def test_a_write_is_sent_once(
    transport: str, serve: Serve, open_backend: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a connection that worked before, the case in which HTTP clients like to send again, and aiohttp willing."""
    monkeypatch.setattr("aiohttp.client.IDEMPOTENT_METHODS", frozenset({"POST"}))
    taken: list[bytes] = []

    async def answer_then_hang_up(reader: Reader, writer: Writer) -> None:
        body = b'{"header":{"revision":"7"}}'
        for reply in (True, False):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            taken.append(await reader.readexactly(length))
            if reply:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    if transport == "grpc":
        taken.append(b"greeting")

        async def answer_then_hang_up(reader: Reader, writer: Writer) -> None:
            writer.write(b"\0\0\0\4\0\0\0\0\0")
            taken.append(await reader.readuntil(b"etcdserverpb"))

    backend = open_backend(await serve(answer_then_hang_up))
    if transport != "grpc":
        await backend.commit([Put("k", b"1")], {}, timeout=3)
    with pytest.raises(IndeterminateError):
        await backend.commit([Put("k", b"2")], {}, timeout=3)
    await asyncio.sleep(0.3)
    assert len(taken) == 2


async def test_inspect_tells_of_every_endpoint(absent: str, etcd: EtcdServer, open_backend: Open) -> None:
    dead, alive = await open_backend(f"{absent},{etcd.address}").inspect(timeout=3)
    assert dead.endpoint == absent
    assert dead.error
    assert alive.error is None
    assert alive.leader is True
    assert alive.version
    assert alive.latency is not None
    assert int(alive.details["db_size"]) > 0


@pytest.mark.parametrize("transport", ["grpc"], indirect=True)
async def test_a_watch_that_ends_while_it_connects_has_made_no_call(serve: Serve, open_backend: Open) -> None:
    """gRPC would keep it for ever: 8 kB each."""

    async def say_nothing(reader: Reader, writer: Writer) -> None:
        await reader.read()

    backend = open_backend(await serve(say_nothing))
    line = (await backend._wire.node(0)).lines["Watch"]
    calls: list[object] = []
    line.methods = {"Watch": lambda **options: calls.append(options)}
    opening = asyncio.ensure_future(anext(backend.watch("k", after=1)))
    await asyncio.sleep(0.2)
    opening.cancel()
    await asyncio.wait([opening])
    await backend.aclose()
    assert not calls
    assert not line.users


async def test_what_is_under_way_when_the_backend_closes(frozen: EtcdServer, open_backend: Open) -> None:
    backend = open_backend(frozen.address)
    await backend.get("k", timeout=5)
    watch = backend.watch("closing/")
    await anext(watch)
    await anext(watch)
    await freeze(frozen)
    read = asyncio.create_task(backend.get("k", timeout=20))
    write = asyncio.create_task(backend.commit([Put("k", b"")], {}, timeout=20))
    renewal = asyncio.create_task(backend.renew(LEASE, timeout=20))
    frame = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0.2)
    await backend.aclose()
    async with asyncio.timeout(2):
        results = await asyncio.gather(read, write, renewal, frame, return_exceptions=True)
    expected = [ClosedError, IndeterminateError, IndeterminateError, ClosedError]
    assert [type(result) for result in results] == expected
    await backend.aclose()
    for used in (backend.get("k", timeout=1), backend.inspect(timeout=1)):
        with pytest.raises(ClosedError):
            await used
    with pytest.raises(ClosedError):
        await anext(backend.watch("k/"))


async def test_a_cancelled_caller_is_cancelled_and_nobody_else(frozen: EtcdServer, open_backend: Open) -> None:
    backend = open_backend(frozen.address)
    await backend.get("k", timeout=5)
    await freeze(frozen)
    first = asyncio.create_task(backend.get("k", timeout=20))
    second = asyncio.create_task(backend.get("k", timeout=20))
    await asyncio.sleep(0.1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    frozen.unpause()
    await second


async def test_a_renewal_cancelled_at_any_step_leaves_no_task(frozen: EtcdServer, open_backend: Open) -> None:
    backend = open_backend(frozen.address)
    lease = await backend.grant(60, timeout=5)
    await freeze(frozen)
    before = asyncio.all_tasks()
    for steps in range(12):
        renewal = asyncio.create_task(backend.renew(lease, timeout=30))
        for _ in range(steps):
            await asyncio.sleep(0)
        renewal.cancel()
        await asyncio.wait((renewal,))
        assert renewal.cancelled()
    await asyncio.sleep(0.3)
    assert asyncio.all_tasks() == before


async def test_closing_leaves_no_connection(
    etcd: EtcdServer, serve: Serve, open_backend: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also not until the garbage collector comes by, and also not that of a watch that was opened anew."""
    monkeypatch.setattr("osdisco_etcd._watch.PATIENCE", 0.2)
    open_now: set[Writer] = set()

    async def pump(reader: Reader, writer: Writer) -> None:
        while chunk := await reader.read(65536):
            writer.write(chunk)
        writer.close()

    async def forward(reader: Reader, writer: Writer) -> None:
        host, _, port = etcd.address.rpartition(":")
        server_reader, server_writer = await asyncio.open_connection(host, int(port))
        open_now.add(writer)
        try:
            await asyncio.gather(pump(reader, server_writer), pump(server_reader, writer))
        finally:
            open_now.discard(writer)

    gc.disable()
    try:
        backend = open_backend(await serve(forward))
        await backend.renew(await backend.grant(10, timeout=5), timeout=5)
        watch = backend.watch("quiet/")
        for _ in range(5):
            await anext(watch)
        assert len(open_now) >= 2
        await backend.aclose()
        await watch.aclose()
        async with asyncio.timeout(3):
            while open_now:
                await asyncio.sleep(0.02)
    finally:
        gc.enable()
