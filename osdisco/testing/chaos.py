"""A TCP proxy that makes trouble: between a client and any server, for tests of what happens when the network fails.

    async with ChaosProxy("127.0.0.1:2379") as proxy:
        client = osdisco.connect(f"etcd://{proxy.address}")
        ...
        proxy.to_client.hold()                              # requests arrive, and nobody hears of it

It knows nothing of what it carries, so it works for every server, also with TLS. `docs/chaos-proxy.md` has an
example of each trouble.
"""

from __future__ import annotations

import asyncio
import random
import socket
from contextlib import suppress
from typing import Literal, Self

from osdisco.testing._links import Direction as Direction, Link


class ChaosProxy:
    """Forwards connections to a server, well or badly. `async with` opens and closes it.

    Whatever was done to it and to its connections, closing leaves no task and no socket behind. Runs in one event loop;
    POSIX only.

    Args:
        server: `host:port` to forward to.
        port: to listen on, on loopback; 0 takes a free one.
        seed: of jitter and flipped bits; another one each time when None, kept in `seed`.
    """

    def __init__(self, server: str, *, port: int = 0, seed: int | None = None) -> None:
        self.server = server
        self.seed = random.randrange(2**32) if seed is None else seed  # nosec B311 # noqa: S311 - trouble, not secrets
        self.to_server = Direction(random=random.Random(f"{self.seed} to server"))  # nosec B311 # noqa: S311
        self.to_client = Direction(random=random.Random(f"{self.seed} to client"))  # nosec B311 # noqa: S311
        self.accepted = 0
        self._port = port
        self._listener: socket.socket | None = None
        self._accepting = False
        self._links: dict[asyncio.Task[None], Link] = {}

    def __repr__(self) -> str:
        return f"<ChaosProxy {self.address} -> {self.server}, {self.connections} connections, seed={self.seed}>"

    @property
    def address(self) -> str:
        """`host:port` for clients. Stays the same while the proxy is open."""
        return f"127.0.0.1:{self._port}"

    @property
    def connections(self) -> int:
        """How many connections are open; `accepted` is how many there were in all."""
        return len(self._links)

    def hold(self) -> None:
        """Let nothing through for now, in neither direction; connections stay open, and what is sent waits."""
        self.to_server.hold()
        self.to_client.hold()

    def blackhole(self) -> None:
        """Swallow everything, in both directions; see `Direction.blackhole`."""
        self.to_server.blackhole()
        self.to_client.blackhole()

    def cut(self) -> None:
        """End all connections by a FIN; what waits on them is lost. New ones work."""
        self._end(reset=False)

    def reset(self) -> None:
        """End all connections by a RST, as a server does that has restarted. New ones work."""
        self._end(reset=True)

    def half_open(self, gone: Literal["client", "server"] = "server") -> None:
        """Let one side of all connections be gone, and the other believe that they are open, and be heard by nobody.

        Args:
            gone: whose side is closed. New connections work.
        """
        if gone not in ("client", "server"):
            raise ValueError(f"gone is {gone!r}; the side that is gone is 'client' or 'server'")
        for link in self._links.values():
            link.lose(gone)

    def refuse(self) -> None:
        """Refuse new connections, as if no server were there. Those that are open stay: `cut` ends them."""
        self.hang()
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def hang(self) -> None:
        """Leave new connections alone: the system completes them, and nobody answers; `accept` takes them up."""
        if self._accepting and self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
        self._accepting = False

    def accept(self) -> None:
        """Take new connections (again), on the port of before.

        Raises:
            OSError: the port was taken by somebody else meanwhile.
        """
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self._port), backlog=128)
            self._listener.setblocking(False)
            self._port = self._listener.getsockname()[1]
        if not self._accepting:
            asyncio.get_running_loop().add_reader(self._listener, self._take)
        self._accepting = True

    def heal(self) -> None:
        """Make no more trouble. What was held comes through; half-open connections and such as lost bytes stay so."""
        self.to_server.heal()
        self.to_client.heal()
        self.accept()

    async def aclose(self) -> None:
        """Refuse new connections, end all others, and return when all of it is gone."""
        self.refuse()
        self.cut()
        try:
            await self._until_over()
        except asyncio.CancelledError:
            await self._until_over()  # it takes a few steps of the loop, whatever hangs
            raise

    async def _until_over(self) -> None:
        while self._links:
            await asyncio.wait(self._links)

    async def __aenter__(self) -> Self:
        self.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _end(self, *, reset: bool) -> None:
        for link in self._links.values():
            link.end(reset=reset)

    def _take(self) -> None:
        assert self._listener is not None
        with suppress(BlockingIOError, ConnectionAbortedError):  # it has gone away again
            client, _ = self._listener.accept()
            self.accepted += 1
            link = Link(client, self.server, self.to_server, self.to_client)
            task = asyncio.get_running_loop().create_task(link.run(), name="osdisco: a connection of a ChaosProxy")
            self._links[task] = link
            task.add_done_callback(self._closed)

    def _closed(self, task: asyncio.Task[None]) -> None:
        self._links.pop(task).close()
