"""Locks: a FIFO queue of entries under `lock/<name>/`, the lowest of which holds, and the same shared with readers.

Effects outside the store are safe only if the resource refuses older tokens (`Fence`): no lock can promise more.
`etcdctl lock <namespace>/lock/<name>` stands in the same queue.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Final

from osdisco._entries import Entry
from osdisco.backend import Item
from osdisco.client import Client
from osdisco.coordination._acquire import Acquirable
from osdisco.coordination._contend import Contender, Places, Queue, contender
from osdisco.coordination._guard import LockGuard
from osdisco.coordination._revoke import checked_grace, revoke
from osdisco.errors import ConfigError


class Contended(Acquirable[LockGuard]):
    """What contenders queue for, so that they can be looked at, and asked to go."""

    def __init__(self, client: Client, places: Places, what: str, *, timeout: float | None) -> None:
        super().__init__(what, timeout)
        self.name: Final = places.name
        self._client = client
        self._places = places

    @abstractmethod
    async def _contenders(self) -> list[tuple[Item, Contender]]:
        """Return the entries in order, each as others see it."""

    async def contenders(self) -> list[Contender]:
        """Return who holds it, then who waits, in order. Linearizable."""
        self._client._connection.check_open()
        return [shown for _, shown in await self._contenders()]

    async def revoke(self, token: int, grace: float = 0) -> None:
        """Ask the contender with that token to go (`guard.revoked`), and remove it after `grace` seconds.

        It is gone when this returns; also if it was gone before. Its guarded commits fail from then on, but until its
        watch tells it, it may believe that it holds: what it does elsewhere only its older token gives away.

        Args:
            token: as `contenders` shows it.
            grace: seconds that it gets; 0 takes it away at once.

        Raises:
            ConfigError: a token that is no whole number, or a negative grace.
            UnavailableError, LostError: the store could not be reached, or our session was lost; it may still stand.
            IndeterminateError: unknown whether it was removed. Do it again.
        """
        if not isinstance(token, int) or isinstance(token, bool):
            raise ConfigError(f"a token is a whole number, as `contenders` shows it, not a {type(token).__name__}")
        grace = checked_grace(grace)
        self._client._connection.check_open()
        for item, shown in await self._contenders():
            if shown.token == token:
                await revoke(self._client, await self._places.session(), item, grace)

    def _guard(self, entry: Entry) -> LockGuard:
        return LockGuard(self._client, self.name, self._what, entry)


class DistributedLock(Contended):
    """A lock by name. `async with` it, or `acquire` it as often as you like: every time gives a fresh guard.

    Args:
        shared: which of the entries in the queue may hold together with others like it: the readers'.
        shares: whether ours is such a one.
    """

    def __init__(
        self,
        client: Client,
        places: Places,
        what: str,
        *,
        timeout: float | None,
        shared: Callable[[Item], bool] = lambda _: False,
        shares: bool = False,
    ) -> None:
        super().__init__(client, places, what, timeout=timeout)
        self._shared = shared
        self._queue = Queue(client, places.prefix, blocks=lambda item: not (shares and shared(item)))

    async def _wait(self) -> LockGuard:
        return self._guard(await self.hold())

    async def hold(self) -> Entry:
        """Wait for the lock, and return the entry that holds it. For what is built on locks; others `acquire`."""
        entry = await self._places.enqueue(self._queue)
        try:
            await self._queue.wait_for_turn(entry)
            return entry
        except BaseException:
            entry.abandon()  # without an await: a second cancel cannot interrupt it
            raise

    async def try_acquire(self) -> LockGuard | None:
        """Acquire the lock if it is free; None when somebody holds it or waits for it."""
        entry = await self.try_hold()
        return None if entry is None else self._guard(entry)

    async def try_hold(self) -> Entry | None:
        """Return the entry that holds the lock if it is free. For what is built on locks; others `try_acquire`."""
        entry = await self._places.enqueue(self._queue)
        try:
            if not await self._queue.ahead(entry):
                return entry
        except BaseException:
            entry.abandon()
            raise
        await entry.leave()
        return None

    async def _contenders(self) -> list[tuple[Item, Contender]]:
        return shown_queue(await self._queue.entries(), self._shared)


def shown_queue(queue: Sequence[Item], shared: Callable[[Item], bool]) -> list[tuple[Item, Contender]]:
    """The first one holds, and so do those that share with all before them."""
    shown, together = [], True
    for place, item in enumerate(queue):
        shares = shared(item)
        shown.append((item, contender(item, holds=place == 0 or (together and shares), shared=shares)))
        together = together and shares
    return shown
