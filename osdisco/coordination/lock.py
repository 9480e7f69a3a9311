"""The mutex: a FIFO queue of entries under `lock/<name>/`, the lowest of which holds the lock.

Effects outside the store are safe only if the resource refuses older tokens (`Fence`): no lock can promise more.
`etcdctl lock <namespace>/lock/<name>` stands in the same queue.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final

from attrs import field, frozen

from osdisco._entries import TOMBSTONES, Entry
from osdisco._loss import Loss, Scope
from osdisco._records import decode, encode
from osdisco.backend import Condition, Item, Op, Revision
from osdisco.client import Client
from osdisco.coordination._contend import Queue, until_gone
from osdisco.errors import (
    ConflictError,
    DeniedError,
    IndeterminateError,
    LostError,
    OsdiscoError,
    RecordError,
    TimedOutError,
)
from osdisco.session import Session

log = logging.getLogger("osdisco")

Info = str | int | float | bool | None
EPOCH_SHIFT: Final = 48
WATCH_AFTER: Final = 1.0
"""Seconds that a lock is held before its own entry is watched: short holds pay nothing for the watch."""


@frozen
class Contender:
    """One place in the queue; the first holds the lock. `since` is seconds since the epoch, by the owner's clock."""

    owner: str
    info: Mapping[str, Any]
    token: int
    since: float | None = None


@frozen
class _Record:
    """What an entry holds. The epoch is its session's, so that others can tell its token."""

    owner: str
    since: float | None = None
    epoch: int = 0
    info: Mapping[str, Any] = field(factory=dict)


class DistributedLock:
    """A lock by name. `async with` it, or `acquire` it as often as you like: every time gives a fresh guard."""

    def __init__(
        self, client: Client, session: Session | None, name: str, *, info: Mapping[str, Info], timeout: float | None
    ) -> None:
        self.name: Final = name
        self._client = client
        self._session = session
        self._info = info
        self._timeout = timeout
        client._keys.join(TOMBSTONES, "lock", name, "0" * 32)  # refuses now the names that are too long for the keys
        self._queue = Queue(client, client._keys.join("lock", name) + "/")
        self._entered: dict[asyncio.Task[Any] | None, list[LockGuard]] = {}

    def acquire(self, timeout: float | None = None) -> Acquisition:
        """Wait for the lock; await it, or enter it with `async with`.

        Raises:
            TimedOutError: not acquired within `timeout` seconds.
            LostError: the session was lost while waiting.
            UnavailableError: the store could not be reached to begin with. Later outages are waited out.
        """
        return Acquisition(lambda: self._acquire(self._timeout if timeout is None else timeout))

    async def _acquire(self, timeout: float | None) -> LockGuard:
        try:
            async with asyncio.timeout(timeout):
                entry = await self._enqueue()
                try:
                    await self._queue.wait_for_turn(entry)
                    return LockGuard(self._client, entry, self.name)
                except BaseException:
                    entry.abandon()  # without an await: a second cancel cannot interrupt it
                    raise
        except TimeoutError as exc:
            if isinstance(exc, OsdiscoError):
                raise
            raise TimedOutError(f"the lock {self.name!a} was not acquired within {timeout} s") from None

    async def try_acquire(self) -> LockGuard | None:
        """Acquire the lock if it is free; None when somebody holds it or waits for it."""
        entry = await self._enqueue()
        try:
            if not await self._queue.ahead(entry):
                return LockGuard(self._client, entry, self.name)
        except BaseException:
            entry.abandon()
            raise
        await entry.leave()
        return None

    async def contenders(self) -> list[Contender]:
        """Return the queue in order, the holder first. Linearizable."""
        return [_contender(item) for item in await self._queue.entries()]

    async def _enqueue(self) -> Entry:
        client, runtime = self._client, self._client.runtime
        session = self._session or await client.shared_session()
        record = _Record(runtime.name, runtime.clock.wall(), session.epoch, dict(self._info))
        # An id of its own for every attempt, never the lease's: two locks on one session must exclude each other.
        entry = Entry(client._connection, client._keys, session, "lock", self.name, runtime.unique())
        await entry.create(encode(record), within=client.options.timeout)
        return entry

    async def __aenter__(self) -> LockGuard:
        guard = await (await self._acquire(self._timeout)).__aenter__()
        self._entered.setdefault(asyncio.current_task(), []).append(guard)
        return guard

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        task = asyncio.current_task()
        guard = self._entered[task].pop()
        if not self._entered[task]:
            del self._entered[task]
        await guard.__aexit__(kind, exc, trace)


class Acquisition:
    """An acquire that was not begun: await it for a guard that you release, or enter it."""

    def __init__(self, acquire: Callable[[], Awaitable[LockGuard]]) -> None:
        self._acquire = acquire
        self._guard: LockGuard | None = None

    def __await__(self) -> Generator[Any, None, LockGuard]:
        return self._acquire().__await__()

    async def __aenter__(self) -> LockGuard:
        self._guard = await self._acquire()
        return await self._guard.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._guard is not None
        await self._guard.__aexit__(kind, exc, trace)


class LockGuard:
    """A lock that is held. Entered with `async with`, the body is cancelled before the store can give it away."""

    def __init__(self, client: Client, entry: Entry, name: str) -> None:
        self.name: Final = name
        self.token: Final = _token(entry.session.epoch, entry.created)
        self.lost: Final = Loss()
        self._client = client
        self._entry = entry
        self._scope: Scope | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._releasing: asyncio.Task[None] | None = None
        self._alarm = asyncio.get_running_loop().call_later(WATCH_AFTER, self._watch)
        self._forget = entry.session.lost.call(self._lose)

    def __repr__(self) -> str:
        return f"<LockGuard of {self.name!a} token {self.token}{' lost' if self.lost.is_set() else ''}>"

    def check(self) -> None:
        """Raise LostError when the lock is no longer ours, as far as this process can know. No I/O."""
        if self._releasing is not None:
            raise LostError(self.lost.reason or "it was released")
        self._check_lost()

    def _check_lost(self) -> None:
        if self._releasing is None:
            self._entry.session.check()
        self.lost.raise_if_set()

    async def commit(self, ops: Sequence[Op], expect: Mapping[str, Condition] | None = None) -> Mapping[str, int]:
        """Commit only while the lock is held: the store itself checks it.

        Raises:
            LostError: the lock is not ours any more; nothing was applied.
            ConflictError: a condition of `expect` did not hold.
        """
        self.check()
        try:
            return await self._client._commit(ops, expect or {}, also={self._entry.key: Revision(self._entry.created)})
        except ConflictError:  # the lock is lost, or a condition of the caller's did not hold
            if not await self._entry.stands():
                self._lose("its entry in the store is gone")
                self.lost.raise_if_set()
            raise

    async def release(self) -> None:
        """Give the lock back; calling it again waits for the same.

        Raises:
            LostError: it was not ours any more.
            IndeterminateError: the store did not confirm it in time; it goes on in the background, and the lock ends
                with the session at the latest.
        """
        if not await self._released():
            raise IndeterminateError(f"the release of the lock {self.name!a} is not confirmed; it is tried on")
        self.lost.raise_if_set()

    async def _released(self) -> bool:
        """Release in a task of the session, which cancelling the caller does not end; wait for it one operation's time.

        Returns whether it is done.
        """
        if self._releasing is None:
            self._forget()
            self._alarm.cancel()
            if self._watcher is not None:
                self._watcher.cancel()
            self._releasing = self._entry.session.keep_until_ended(self._release(), f"release {self.name}")
        await asyncio.wait([self._releasing], timeout=self._client.options.timeout)
        return self._releasing.done()

    async def _release(self) -> None:
        if not await self._entry.end():
            self._lose(self._entry.session.lost.reason or "its entry in the store was gone when it was released")

    def _lose(self, reason: str) -> None:
        self.lost.set(reason)
        self._entry.depart()

    def _watch(self) -> None:
        if not self.lost.is_set():
            self._watcher = self._client._connection.supervisor.spawn(self._follow(), f"watch the lock {self.name}")

    async def _follow(self) -> None:
        try:
            await until_gone(self._client, self._entry.key, self._entry.created)
        except DeniedError as exc:
            log.warning("the lock %r is no longer watched, its session still is: %s", self.name, exc)
        else:
            self._lose("its entry in the store is gone: revoked, or removed by an operator")

    async def __aenter__(self) -> LockGuard:
        self._scope = Scope(self.lost, self._check_lost)
        try:
            self.check()
            self._scope.enter()
        except BaseException:
            await self._released()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._scope is not None
        try:
            self._scope.exit(kind, exc)
        finally:
            if not await self._released():
                log.warning("the release of the lock %r is not confirmed; it is tried on", self.name)
        if kind is None:
            self.lost.raise_if_set()


def _token(epoch: int, created: int) -> int:
    return (epoch << EPOCH_SHIFT) + created


def _contender(item: Item) -> Contender:
    """Read an entry; what another tool wrote there has no record of ours, and is shown by its key."""
    try:
        record = decode(item.value, _Record)
    except RecordError:
        record = _Record(item.key.rpartition("/")[2])
    return Contender(record.owner, record.info, _token(record.epoch, item.created), record.since)
