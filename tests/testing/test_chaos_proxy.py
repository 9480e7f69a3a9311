"""`ChaosProxy` in front of an echo server: what each trouble looks like from both sides, and that it leaves nothing."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise

import pytest
from attrs import define, field

from osdisco.testing import ChaosProxy

Side = tuple[asyncio.StreamReader, asyncio.StreamWriter]

SOON = 0.15
"""Seconds in which something would have come that must not come."""


@define
class Echo:
    """Sends back what it gets, and keeps it: `heard` of each connection, with how that `ended`."""

    heard: list[bytearray] = field(factory=list)
    ended: list[str] = field(factory=list)
    sides: list[Side] = field(factory=list)
    address: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sides.append((reader, writer))
        heard = bytearray()
        self.heard.append(heard)
        try:
            while data := await reader.read(65536):
                heard += data
                writer.write(data)
                await writer.drain()
            self.ended.append("FIN")
        except ConnectionResetError:
            self.ended.append("RST")
        finally:
            writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    echo.address = "{}:{}".format(*server.sockets[0].getsockname())
    yield echo
    server.close()
    for _, writer in echo.sides:
        writer.transport.abort()
    await server.wait_closed()


@pytest.fixture
async def proxy(echo: Echo) -> AsyncIterator[ChaosProxy]:
    async with ChaosProxy(echo.address, seed=7) as proxy:
        yield proxy


@pytest.fixture
async def connect(proxy: ChaosProxy) -> AsyncIterator[Connect]:
    opened: list[Side] = []

    async def one() -> Side:
        host, _, port = proxy.address.partition(":")
        opened.append(await asyncio.open_connection(host, int(port)))
        return opened[-1]

    yield Connect(one)
    for _, writer in opened:
        writer.transport.abort()


@define
class Connect:
    """Opens connections through the proxy."""

    one: Callable[[], Awaitable[Side]]

    async def __call__(self) -> Side:
        return await self.one()

    async def used(self) -> Side:
        """Open one, and use it once."""
        side = await self()
        assert await said(side, b"hello") == b"hello"
        return side


async def said(side: Side, data: bytes) -> bytes:
    """Say something and return as much of the answer."""
    side[1].write(data)
    async with asyncio.timeout(5):
        return await side[0].readexactly(len(data))


async def is_silent(side: Side) -> bool:
    """Return whether nothing comes, not even an end."""
    try:
        async with asyncio.timeout(SOON):
            await side[0].read(1)
    except TimeoutError:
        return True
    return False


async def end_of(side: Side) -> str:
    """Return how a connection ends."""
    try:
        async with asyncio.timeout(5):
            while await side[0].read(65536):
                pass
        return "FIN"
    except ConnectionResetError:
        return "RST"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def test_bytes_pass_whole_and_in_order_and_are_counted(connect: Connect, proxy: ChaosProxy, echo: Echo) -> None:
    side, data = await connect(), os.urandom(3_000_000)
    side[1].write(data)
    assert await side[0].readexactly(len(data)) == data
    assert echo.heard == [data]
    assert (proxy.to_server.passed, proxy.to_client.passed) == (len(data), len(data))
    assert (proxy.connections, proxy.accepted) == (1, 1)


async def test_an_end_is_handed_on_while_the_answer_still_comes(
    connect: Connect, proxy: ChaosProxy, echo: Echo
) -> None:
    side = await connect()
    proxy.to_client.hold()
    side[1].write(b"last words")
    side[1].write_eof()
    await until(lambda: echo.ended == ["FIN"])
    proxy.heal()
    assert await side[0].read() == b"last words"
    await until(lambda: proxy.connections == 0)


@pytest.mark.parametrize("way", ["to_server", "to_client"])
async def test_delay_is_of_one_direction_and_may_change_while_bytes_are_under_way(
    way: str, connect: Connect, proxy: ChaosProxy, echo: Echo
) -> None:
    side = await connect.used()
    getattr(proxy, way).delay = 0.3
    begun = time.monotonic()
    side[1].write(b"slow")
    await until(lambda: echo.heard[0].endswith(b"slow"))
    there = time.monotonic() - begun
    assert await side[0].readexactly(4) == b"slow"
    assert time.monotonic() - begun >= 0.3
    assert (there >= 0.3) == (way == "to_server")
    getattr(proxy, way).delay = 3600
    side[1].write(b"and then")
    assert await is_silent(side)
    getattr(proxy, way).delay = 0
    assert await side[0].readexactly(8) == b"and then"


async def test_delay_holds_up_no_throughput(connect: Connect, proxy: ChaosProxy) -> None:
    """What follows does not wait until what went before has arrived, as on a long line."""
    side = await connect.used()
    proxy.to_server.delay = proxy.to_client.delay = 0.2
    begun = time.monotonic()
    for _ in range(20):
        side[1].write(b"x" * 1000)
        await asyncio.sleep(0.005)
    await side[0].readexactly(20_000)
    assert time.monotonic() - begun < 0.4 + 20 * 0.2 / 2


async def test_jitter_keeps_the_order_and_is_the_same_for_a_seed(echo: Echo) -> None:
    async def moments(seed: int) -> list[float]:
        async with ChaosProxy(echo.address, seed=seed) as proxy:
            proxy.to_server.jitter = 0.2
            host, _, port = proxy.address.partition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            took = []
            for number in range(4):
                begun = time.monotonic()
                assert await said((reader, writer), bytes([number])) == bytes([number])
                took.append(time.monotonic() - begun)
            assert proxy.seed == seed
            assert f"seed={seed}" in repr(proxy)
            writer.transport.abort()
            return took

    first, again = await asyncio.gather(moments(3), moments(3))
    assert all(abs(a - b) < 0.1 for a, b in zip(first, again, strict=True))
    assert max(first) - min(first) > 0.03


async def test_hold_keeps_what_is_sent_until_it_is_healed(connect: Connect, proxy: ChaosProxy, echo: Echo) -> None:
    side = await connect.used()
    proxy.hold()
    side[1].write(b"later")
    assert await is_silent(side)
    assert echo.heard == [b"hello"]
    proxy.heal()
    assert await side[0].readexactly(5) == b"later"


async def test_answers_alone_can_be_held(connect: Connect, proxy: ChaosProxy, echo: Echo) -> None:
    side = await connect.used()
    proxy.to_client.hold()
    side[1].write(b"done")
    await until(lambda: echo.heard == [b"hellodone"])
    assert await is_silent(side)


async def test_a_sender_is_held_up_when_nothing_gets_through_for_long(connect: Connect, proxy: ChaosProxy) -> None:
    side = await connect.used()
    proxy.to_server.hold()
    side[1].write(bytes(30_000_000))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(SOON):
            await side[1].drain()


async def test_a_blackhole_swallows_also_ends_and_the_connection_stays_lost(
    connect: Connect, proxy: ChaosProxy, echo: Echo
) -> None:
    side, ending = await connect.used(), await connect.used()
    proxy.to_server.blackhole()
    side[1].write(b"nobody hears this")
    ending[1].close()
    assert await is_silent(side)
    proxy.heal()
    side[1].write(b"nor what comes behind the gap")
    assert await is_silent(side)
    assert (echo.heard, echo.ended) == ([b"hello", b"hello"], [])
    await connect.used()


async def test_cut_ends_all_connections_and_new_ones_work(connect: Connect, proxy: ChaosProxy, echo: Echo) -> None:
    sides = [await connect.used() for _ in range(3)]
    proxy.hold()
    sides[0][1].write(b"lost")
    await asyncio.sleep(0.02)
    proxy.cut()
    assert [await end_of(side) for side in sides] == ["FIN"] * 3
    await until(lambda: echo.ended == ["FIN"] * 3)
    proxy.heal()
    await connect.used()
    assert echo.heard == [b"hello"] * 4
    assert (proxy.connections, proxy.accepted) == (1, 4)


@pytest.mark.parametrize("strike", [ChaosProxy.cut, ChaosProxy.reset, ChaosProxy.half_open])
async def test_what_was_held_is_lost_with_its_connection_even_if_all_is_healed_in_the_same_step(
    strike: Callable[[ChaosProxy], None], connect: Connect, proxy: ChaosProxy, echo: Echo
) -> None:
    waiting, slow = await connect.used(), await connect.used()
    proxy.to_server.bandwidth = 200
    slow[1].write(bytes(1000))
    await asyncio.sleep(0.02)
    proxy.hold()
    waiting[1].write(b"lost")
    await asyncio.sleep(0.06)
    strike(proxy)
    proxy.heal()
    await until(lambda: len(echo.ended) == 2)
    assert echo.heard[0] == b"hello"
    assert len(echo.heard[1]) < 100


async def test_reset_is_seen_as_a_reset_at_both_sides(connect: Connect, proxy: ChaosProxy, echo: Echo) -> None:
    sides = [await connect.used() for _ in range(2)]
    proxy.reset()
    assert [await end_of(side) for side in sides] == ["RST"] * 2
    await until(lambda: echo.ended == ["RST"] * 2)
    await connect.used()


async def test_a_side_that_resets_has_the_other_one_reset(connect: Connect, proxy: ChaosProxy, echo: Echo) -> None:
    side = await connect.used()
    echo.sides[0][1].transport.get_extra_info("socket").setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER 0
    echo.sides[0][1].transport.abort()
    assert await end_of(side) == "RST"


async def test_half_open_the_server_is_gone_and_the_client_believes_it_is_there(
    connect: Connect, proxy: ChaosProxy, echo: Echo
) -> None:
    side = await connect.used()
    proxy.half_open(gone="server")
    await until(lambda: len(echo.ended) == 1)
    side[1].write(b"are you there?")
    assert await is_silent(side)
    assert proxy.connections == 1
    assert echo.heard == [b"hello"]
    await connect.used()
    proxy.reset()
    assert await end_of(side) == "RST"


async def test_half_open_the_client_is_gone_and_the_server_believes_it_is_there(
    connect: Connect, proxy: ChaosProxy, echo: Echo
) -> None:
    side = await connect.used()
    proxy.half_open(gone="client")
    assert await end_of(side) in ("FIN", "RST")
    echo.sides[0][1].write(b"are you there?")
    await asyncio.sleep(SOON)
    assert echo.ended == []
    proxy.cut()
    await until(lambda: len(echo.ended) == 1)
    with pytest.raises(ValueError, match="'client' or 'server'"):
        proxy.half_open(gone="both")  # type: ignore[arg-type]


async def test_refuse_is_for_new_connections_until_it_accepts_on_the_same_port(
    connect: Connect, proxy: ChaosProxy
) -> None:
    side, address = await connect.used(), proxy.address
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await connect()
    assert await said(side, b"still here") == b"still here"
    proxy.accept()
    await connect.used()
    assert proxy.address == address


async def test_hang_completes_connections_and_answers_nobody_until_it_accepts(
    connect: Connect, proxy: ChaosProxy, echo: Echo
) -> None:
    proxy.hang()
    side = await connect()
    side[1].write(b"hello?")
    assert await is_silent(side)
    assert (proxy.accepted, echo.heard) == (0, [])
    proxy.accept()
    assert await side[0].readexactly(6) == b"hello?"


async def test_a_server_that_is_not_there_resets_the_client(proxy: ChaosProxy, connect: Connect) -> None:
    proxy.server = "127.0.0.1:1"
    assert await end_of(await connect()) == "RST"


async def test_bandwidth_is_for_each_connection_and_may_change_while_bytes_are_under_way(
    connect: Connect, proxy: ChaosProxy
) -> None:
    one, other = await connect.used(), await connect.used()
    proxy.to_client.bandwidth = 20_000
    begun = time.monotonic()
    await asyncio.gather(said(one, bytes(6_000)), said(other, bytes(6_000)))
    assert 0.25 < time.monotonic() - begun < 0.55, "both in the time of one"
    proxy.to_client.bandwidth = 0
    slow = asyncio.create_task(said(one, bytes(50_000)))
    await asyncio.sleep(SOON)
    assert not slow.done()
    proxy.to_client.bandwidth = None
    await slow


async def test_slices_come_one_by_one(connect: Connect, proxy: ChaosProxy) -> None:
    side = await connect.used()
    proxy.to_client.slice_size = 1
    side[1].write(b"0123456789")
    pieces: list[bytes] = []
    while len(b"".join(pieces)) < 10:
        pieces.append(await side[0].read(100))
    assert b"".join(pieces) == b"0123456789"
    assert len(pieces) > 3


@pytest.mark.parametrize("way", ["to_server", "to_client"])
async def test_cut_after_a_number_of_bytes_is_exact_for_each_connection(
    way: str, connect: Connect, proxy: ChaosProxy, echo: Echo
) -> None:
    old = await connect.used()
    getattr(proxy, way).cut_after = 7
    new = await connect()
    for side in (old, new):
        side[1].write(b"0123456789")
    got = [await side[0].read() for side in (old, new)]
    await until(lambda: proxy.connections == 0)
    if way == "to_client":
        assert got == [b"0123456"] * 2
    else:
        assert echo.heard == [b"hello0123456", b"0123456"]
    getattr(proxy, way).cut_after = None
    await connect.used()


async def test_nothing_may_pass(connect: Connect, proxy: ChaosProxy, echo: Echo) -> None:
    side = await connect.used()
    proxy.to_client.cut_after = 0
    side[1].write(b"x")
    assert await end_of(side) == "FIN"
    assert echo.heard == [b"hellox"]


async def test_flipped_bits_change_one_bit_of_a_piece(connect: Connect, proxy: ChaosProxy) -> None:
    side = await connect.used()
    proxy.to_client.flip_rate = 1
    changed = await said(side, bytes(16))
    assert sum(byte.bit_count() for byte in changed) == 1
    proxy.to_client.flip_rate = 0
    assert await said(side, bytes(16)) == bytes(16)


async def test_settings_that_make_no_sense_are_refused(proxy: ChaosProxy) -> None:
    for name, value in {"delay": -1, "jitter": -1, "bandwidth": -1, "slice_size": 0, "cut_after": -1}.items():
        with pytest.raises(ValueError, match=f"{name} is {value}"):
            setattr(proxy.to_client, name, value)
    with pytest.raises(ValueError, match="from 0 to 1"):
        proxy.to_server.flip_rate = 2


TROUBLES = {
    "none": lambda proxy: None,
    "held": lambda proxy: proxy.hold(),
    "swallowed": lambda proxy: proxy.blackhole(),
    "client gone": lambda proxy: proxy.half_open("client"),
    "server gone": lambda proxy: proxy.half_open("server"),
    "hung": lambda proxy: proxy.hang(),
    "refused": lambda proxy: proxy.refuse(),
    "slow": lambda proxy: setattr(proxy.to_client, "bandwidth", 1),
    "late": lambda proxy: setattr(proxy.to_server, "delay", 3600),
    "cut": lambda proxy: proxy.cut(),
    "reset": lambda proxy: proxy.reset(),
    "one after the other": lambda proxy: (proxy.half_open("server"), proxy.cut(), proxy.reset()),
}


def sockets() -> int:
    """Return how many sockets are open."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found += stat.S_ISSOCK(os.stat(f"/proc/self/fd/{name}").st_mode)
        except FileNotFoundError:  # the listing's own
            continue
    return found


@pytest.mark.parametrize("cancelled", [False, True], ids=["closed", "cancelled"])
@pytest.mark.parametrize("trouble", TROUBLES)
async def test_closing_leaves_no_task_and_no_socket(trouble: str, cancelled: bool, echo: Echo) -> None:
    """With connections that are full, that just come, and whose other end does nothing."""
    before, sockets_before = asyncio.all_tasks(), sockets()
    proxy = ChaosProxy(echo.address)
    await proxy.__aenter__()
    host, _, port = proxy.address.partition(":")
    sides = [await asyncio.open_connection(host, int(port)) for _ in range(4)]
    for side in sides[:3]:
        await said(side, b"hello")
    sides[0][0]._transport.pause_reading()  # type: ignore[attr-defined]
    sides[0][1].write(bytes(20_000_000))
    sides[1][1].write(b"x")
    TROUBLES[trouble](proxy)
    await asyncio.sleep(0.03)
    if cancelled:
        closing = asyncio.create_task(proxy.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        assert closing.cancelled() or closing.result() is None  # nothing was open any more
    else:
        await proxy.aclose()
    assert proxy.connections == 0
    for side in sides:
        side[1].transport.abort()
    for _, writer in echo.sides:
        writer.transport.abort()
    await until(lambda: (asyncio.all_tasks() - before, sockets()) == (set(), sockets_before))
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, int(port))


async def test_a_thousand_connections_leave_no_file_descriptor(connect: Connect, proxy: ChaosProxy) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    before, counts = count(), []
    for number in range(20):
        sides = [await connect() for _ in range(50)]
        await asyncio.gather(*(said(side, b"x") for side in sides))
        [proxy.cut, proxy.reset, proxy.half_open, lambda: None][number % 4]()
        for side in sides:
            side[1].transport.abort()
        proxy.cut()
        await until(lambda: proxy.connections == 0)
        counts.append(count())
    assert proxy.accepted == 1000
    assert max(after - before for before, after in pairwise([before, *counts])) < 60
    await until(lambda: count() <= before + 2)
