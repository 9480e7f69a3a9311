"""One connection through `ChaosProxy`, and the troubles of one direction. On plain sockets: a stream of asyncio's would
hold bytes back in a buffer of its own, and could not be cut at a byte or closed by a reset.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Coroutine
from contextlib import suppress
from random import Random
from typing import Any, Final

from attrs import define, field, setters

from osdisco._signal import Signal
from osdisco._tasks import cancel

_CHUNK: Final = 2**16
_CHUNKS: Final = 16
"""Chunks that one direction of a connection holds back; then the sender is held up, as by a full buffer."""
_TICK: Final = 0.05
"""Seconds between two portions where `bandwidth` is limited."""
_RESET: Final = struct.pack("ii", 1, 0)


class CutError(Exception):
    """As many bytes have passed as may."""


def _positive(_: Any, attribute: Any, value: float | None) -> None:
    if value is not None and value < (1 if attribute.name == "slice_size" else 0):
        raise ValueError(f"{attribute.name} is {value}; it cannot be negative, and a slice has a byte at least")


def _share(_: Any, attribute: Any, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{attribute.name} is {value}; it is a share from 0 to 1")


def _changed(direction: Direction, _: Any, value: Any) -> Any:
    direction._changes += 1
    direction._signal.fire()
    return value


def _budget(direction: Direction, _: Any, value: Any) -> Any:
    direction._budgets += 1
    return value


@define(eq=False, on_setattr=[setters.validate, _changed])
class Direction:
    """What happens to bytes on their way in one direction; all of it may be changed while they are under way.

    Each setting is for every connection by itself: a slow connection does not hold up another one.
    """

    delay: float = field(default=0.0, validator=_positive)
    """Seconds that bytes take."""
    jitter: float = field(default=0.0, validator=_positive)
    """Seconds that they take longer at most, by chance. They stay in order, as TCP's do."""
    bandwidth: float | None = field(default=None, validator=_positive)
    """Bytes a second; None is no limit."""
    slice_size: int | None = field(default=None, validator=_positive)
    """Bytes that are sent at once at most; with 1 each byte is a packet of its own."""
    flip_rate: float = field(default=0.0, validator=_share)
    """The share of the pieces that are sent in which one bit is flipped."""
    cut_after: int | None = field(default=None, validator=_positive, on_setattr=[setters.validate, _budget, _changed])
    """Bytes after which a connection is ended, counted from here on; for new connections from their beginning."""
    passed: int = field(default=0, init=False, on_setattr=setters.NO_OP)
    """Bytes that have come through, on all connections."""
    _random: Random = field(factory=Random, repr=False, kw_only=True)
    _held: bool = field(default=False, init=False)
    _swallows: bool = field(default=False, init=False)
    _signal: Signal = field(factory=Signal, init=False, repr=False)
    _changes: int = field(default=0, init=False, repr=False, on_setattr=setters.NO_OP)
    _budgets: int = field(default=0, init=False, repr=False, on_setattr=setters.NO_OP)

    def hold(self) -> None:
        """Let nothing through for now: what is sent waits, as behind a network that loses everything for a while."""
        self._held = True

    def blackhole(self) -> None:
        """Swallow what is sent, and the end of connections too.

        A connection that has lost bytes carries nothing more in this direction, also after `heal`: what came behind the
        gap would be nonsense.
        """
        self._swallows = True

    def heal(self) -> None:
        """Undo all of it. What was held comes now; what was swallowed does not."""
        self._held = self._swallows = False
        self.delay = self.jitter = self.flip_rate = 0.0
        self.bandwidth = self.slice_size = self.cut_after = None

    @property
    def _piece(self) -> int:
        """How many bytes are sent at once."""
        slow = _CHUNK if self.bandwidth is None else max(int(self.bandwidth * _TICK), 1)
        return min(self.slice_size or _CHUNK, slow)

    async def _change(self, timeout: float | None) -> None:
        """Wait until a setting changes, but no longer than `timeout` seconds."""
        seen = self._changes
        with suppress(TimeoutError):
            await self._signal.wait_for(lambda: self._changes != seen, timeout)

    def _flipped(self, piece: bytes) -> bytes:
        if not (self.flip_rate and piece) or self._random.random() >= self.flip_rate:
            return piece
        bit = self._random.randrange(8 * len(piece))
        changed = bytearray(piece)
        changed[bit // 8] ^= 1 << bit % 8
        return bytes(changed)


class _Pump:
    """Carries the bytes of one connection in one direction, from one socket to the other."""

    def __init__(
        self, direction: Direction, source: socket.socket, target: socket.socket, struck: asyncio.Future[None]
    ) -> None:
        self._direction = direction
        self._struck = struck
        self._source = source
        self._target = target
        self._loop = asyncio.get_running_loop()
        self._chunks: asyncio.Queue[tuple[float, float, bytes]] = asyncio.Queue(_CHUNKS)
        self._carried = 0
        self._budget: tuple[int, int] = (0, 0)  # which setting of `cut_after`, and what was carried before it
        self._gap = False

    async def read(self) -> None:
        """Take in what is sent."""
        while True:
            data = await self._loop.sock_recv(self._source, _CHUNK)
            await self._chunks.put((self._loop.time(), self._direction._random.random(), data))
            if not data:
                return

    async def write(self) -> None:
        """Hand on what is due. Raises CutError when nothing more may pass."""
        while True:
            came, luck, data = await self._chunks.get()
            await self._wait_until_due(came, luck)
            await self._wait_while_held()
            if self._struck.done():  # in the very step in which it was let through, perhaps
                raise CutError
            self._gap = self._gap or self._direction._swallows
            if self._gap:
                continue
            if not data:
                self._target.shutdown(socket.SHUT_WR)
                return
            await self._send(data)

    async def _wait_until_due(self, came: float, luck: float) -> None:
        way = self._direction
        while (left := came + way.delay + luck * way.jitter - self._loop.time()) > 0:
            await way._change(left)

    async def _wait_while_held(self) -> None:
        while self._direction._held:
            await self._direction._change(None)

    async def _send(self, data: bytes) -> None:
        way = self._direction
        while data:
            size = min(way._piece, len(data), self._allowed())
            piece, data = way._flipped(data[:size]), data[size:]
            begun = self._loop.time()
            await self._loop.sock_sendall(self._target, piece)
            self._carried += size
            way.passed += size
            if self._allowed() == 0:
                raise CutError
            await self._pace(begun, size)
            await self._wait_while_held()
            if self._struck.done():
                raise CutError
            if way._swallows:
                self._gap = True
                return

    def _allowed(self) -> int:
        """Return how many bytes may pass before the connection is cut."""
        way = self._direction
        if way.cut_after is None:
            return _CHUNK
        if self._budget[0] != way._budgets:
            self._budget = (way._budgets, self._carried)
        return max(self._budget[1] + way.cut_after - self._carried, 0)

    async def _pace(self, begun: float, size: int) -> None:
        """Take the time that the bandwidth asks for; without one, let others run between two slices."""
        way = self._direction
        if way.bandwidth is None:
            await asyncio.sleep(0)
        while way.bandwidth is not None:
            left = begun + size / way.bandwidth - self._loop.time() if way.bandwidth else None
            if left is not None and left <= 0:
                return
            await way._change(left)


class Link:
    """One connection of a client, with the one to the server that belongs to it.

    It carries until both sides have said that they are through, until one breaks (the other is then reset as well), or
    until it is ended; or, with one side gone, swallows what the other one says. Nobody cancels its `run`: what happens
    to it is told by futures, so that its sockets are closed after whoever used them has ended.
    """

    def __init__(self, client: socket.socket, server: str, to_server: Direction, to_client: Direction) -> None:
        host, _, port = server.rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._client = client
        self._server = socket.socket(family, socket.SOCK_STREAM)
        self._there = (host.strip("[]"), int(port))
        self._directions = to_server, to_client
        self._reset = False
        self._gone: socket.socket | None = None
        loop = asyncio.get_running_loop()
        self._struck = loop.create_future()  # it carries no more
        self._over = loop.create_future()
        for side in (client, self._server):
            side.setblocking(False)

    def end(self, *, reset: bool) -> None:
        """End both sides, by a FIN or by a RST."""
        self._reset = self._reset or reset
        _happen(self._struck)
        _happen(self._over)

    def lose(self, side: str) -> None:
        """Let one side be gone, without a word to the other."""
        self._gone = self._gone or (self._client if side == "client" else self._server)
        _happen(self._struck)

    async def run(self) -> None:
        """Carry until it is over. `close` comes next."""
        carrying = await _until(self._struck, self._carry())
        error = None if carrying.cancelled() else carrying.exception()
        if isinstance(error, OSError):
            self._reset = True
        elif error is not None and not isinstance(error, CutError):
            raise error
        if self._gone is not None and not self._over.done():
            self._gone.close()
            other = self._server if self._gone is self._client else self._client
            await _until(self._over, _swallow(other))

    def close(self) -> None:
        """Close its sockets."""
        for side in (self._client, self._server):
            if side.fileno() < 0:
                continue
            with suppress(OSError):  # not connected, or no more
                if self._reset:
                    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                else:
                    side.shutdown(socket.SHUT_WR)  # `close` alone makes it a RST if anything is unread
            side.close()

    async def _carry(self) -> None:
        await asyncio.get_running_loop().sock_connect(self._server, self._there)
        for side in (self._client, self._server):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        there, back = self._directions
        pumps = (
            _Pump(there, self._client, self._server, self._struck),
            _Pump(back, self._server, self._client, self._struck),
        )
        work = [asyncio.create_task(half) for pump in pumps for half in (pump.read(), pump.write())]
        try:
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            await cancel(*work)
        for task in done:
            task.result()


async def _swallow(side: socket.socket) -> None:
    with suppress(OSError):
        while await asyncio.get_running_loop().sock_recv(side, _CHUNK):
            pass


async def _until(event: asyncio.Future[None], work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Do some work until it is done or something has happened; returns its task, which has ended."""
    task = asyncio.create_task(work)
    try:
        await asyncio.wait([task, event], return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel(task)
    return task


def _happen(event: asyncio.Future[None]) -> None:
    if not event.done():
        event.set_result(None)
