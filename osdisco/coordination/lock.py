"""The mutex: a FIFO queue of entries under `lock/<name>/`, the lowest of which holds the lock.

Effects outside the store are safe only if the resource refuses older tokens (`Fence`): no lock can promise more.
`etcdctl lock <namespace>/lock/<name>` stands in the same queue.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final

from attrs import frozen

from osdisco._loss import Loss, Scope
from osdisco._tasks import cancel
from osdisco.backend import Condition, Item, Op, Revision
from osdisco.client import Client
from osdisco.coordination._entries import Entry, in_order
from osdisco.errors import ConflictError, LostError, OsdiscoError, TimedOutError
from osdisco.session import Session

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
        self._prefix = client._keys.join("lock", name) + "/"
        self._entered: dict[asyncio.Task[Any] | None, list[LockGuard]] = {}

    def acquire(self, timeout: float | None = None) -> Acquisition:
        """Wait for the lock; await it, or enter it with `async with`.

        Raises:
            TimedOutError: not acquired within `timeout` seconds.
            LostError: the session was lost while waiting.
        """
        return Acquisition(lambda: self._acquire(self._timeout if timeout is None else timeout))

    async def _acquire(self, timeout: float | None) -> LockGuard:
        try:
            async with asyncio.timeout(timeout):
                session, entry = await self._enqueue()
                try:
                    await self._wait_for_turn(entry)
                    return LockGuard(self._client, session, entry, self.name)
                except BaseException:
                    entry.abandon()  # without an await: a second cancel cannot interrupt it
                    raise
        except TimeoutError as exc:
            if isinstance(exc, OsdiscoError):
                raise
            raise TimedOutError(f"the lock {self.name!a} was not acquired within {timeout} s") from None

    async def try_acquire(self) -> LockGuard | None:
        """Acquire the lock if it is free; None when somebody holds it or waits for it."""
        session, entry = await self._enqueue()
        try:
            if (await self._place(entry)) is None:
                return LockGuard(self._client, session, entry, self.name)
        except BaseException:
            entry.abandon()
            raise
        await asyncio.shield(session.keep_until_ended(_end(entry), f"leave {entry.key}"))
        return None

    async def contenders(self) -> list[Contender]:
        """Return the queue in order, the holder first. Linearizable."""
        snapshot = await self._client._connection.scan(self._prefix)
        return [_contender(item) for item in in_order(snapshot.items)]

    async def _enqueue(self) -> tuple[Session, Entry]:
        session = self._session or await self._client.shared_session()
        # An id of its own for every attempt, never the lease's: two locks on one session must exclude each other.
        entry = Entry(
            self._client._connection, self._client._keys, session, "lock", self.name, self._client.runtime.unique()
        )
        runtime = self._client.runtime
        info = {"owner": runtime.name, "since": runtime.clock.wall(), "info": dict(self._info)}
        await entry.create(json.dumps(info).encode())
        return session, entry

    async def _wait_for_turn(self, entry: Entry) -> None:
        """Follow only the entry before ours; when it is gone look again, for it may merely have given up."""
        while (before := await self._place(entry)) is not None:
            view = self._client._view_of(before.key)
            view.start()
            try:
                await view.wait_unless(entry.session.lost, _gone(before))
            finally:
                await view.aclose()
        entry.session.check()  # after the wait: what Jepsen found missing in etcd's own lock

    async def _place(self, entry: Entry) -> Item | None:
        """Return the entry before ours; None when ours is the first. Raises LostError when ours is gone."""
        queue = in_order((await self._client._connection.scan(self._prefix)).items)
        for place, item in enumerate(queue):
            if item.key == entry.key and item.created == entry.created:
                return queue[place - 1] if place else None
        entry.session.check()
        raise LostError(f"the place in the queue of {self.name!a} is gone: somebody removed it")

    async def __aenter__(self) -> LockGuard:
        guard = await self._acquire(self._timeout)
        self._entered.setdefault(asyncio.current_task(), []).append(guard)
        return await guard.__aenter__()

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

    def __init__(self, acquire: Callable[[], Any]) -> None:
        self._acquire = acquire
        self._guard: LockGuard | None = None

    def __await__(self) -> Generator[Any, None, LockGuard]:
        return self._acquire().__await__()  # type: ignore[no-any-return]

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

    def __init__(self, client: Client, session: Session, entry: Entry, name: str) -> None:
        self.name: Final = name
        self.token: Final = (session.epoch << EPOCH_SHIFT) + entry.created
        self.lost: Final = Loss()
        self._client = client
        self._session = session
        self._entry = entry
        self._released = False
        self._forget = session.lost.call(self._lose)
        self._scope: Scope | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._alarm = asyncio.get_running_loop().call_later(WATCH_AFTER, self._watch)

    def __repr__(self) -> str:
        return f"<LockGuard of {self.name!a} token {self.token}{' lost' if self.lost.is_set() else ''}>"

    def check(self) -> None:
        """Raise LostError when the lock is no longer ours, as far as this process can know. No I/O."""
        self._session.check()
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
        except ConflictError:
            await self._confirm()
            raise

    async def _confirm(self) -> None:
        """Tell a lost lock from a condition of the caller's."""
        item = await self._client._connection.get(self._entry.key)
        if item is None or item.created != self._entry.created:
            self.lost.set("its entry in the store is gone")
            self.lost.raise_if_set()

    async def release(self) -> None:
        """Give the lock back; a second call does nothing.

        Raises:
            LostError: it was not ours any more.
        """
        if not self._released:
            await self._give_back()
            self.lost.raise_if_set()

    async def _give_back(self) -> None:
        if not self._released:
            self._released = True
            # A task of the session: cancelling the caller never leaves the lock behind.
            await asyncio.shield(self._session.keep_until_ended(self._release(), f"release {self.name}"))

    async def _release(self) -> None:
        self._forget()
        self._alarm.cancel()
        if self._watcher is not None:
            await cancel(self._watcher)
        if not await self._entry.end():
            self.lost.set(self._session.lost.reason or "its entry in the store was gone when it was released")

    def _lose(self, reason: str) -> None:
        self.lost.set(reason)

    def _watch(self) -> None:
        if not self._released and not self.lost.is_set():
            supervisor = self._client._connection.supervisor
            self._watcher = supervisor.spawn(self._follow(), f"watch the lock {self.name}")

    async def _follow(self) -> None:
        view = self._client._view_of(self._entry.key)
        view.start()
        try:
            created = self._entry.created
            await view.wait_unless(self.lost, lambda items: all(item.created != created for item in items.values()))
            self.lost.set("its entry in the store is gone: revoked, or removed by an operator")
        except LostError:
            pass
        finally:
            await view.aclose()

    async def __aenter__(self) -> LockGuard:
        try:
            self._scope = Scope(self.lost, self.check)
            self._scope.enter()
        except BaseException:
            self._entry.abandon()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._scope is not None
        try:
            self._scope.exit(kind, exc)
        finally:
            await self._give_back()
        if kind is None:
            self.lost.raise_if_set()


async def _end(entry: Entry) -> None:
    await entry.end()


def _gone(before: Item) -> Callable[[Mapping[str, Item]], bool]:
    """An entry is gone when it is absent, or was made anew."""
    return lambda items: all(item.created != before.created for item in items.values())


def _contender(item: Item) -> Contender:
    """Read an entry; what another tool wrote there has no record of ours, and is shown by its key."""
    try:
        record = json.loads(item.value)
        owner, since, info = record["owner"], record.get("since"), record.get("info", {})
    except (ValueError, TypeError, KeyError, RecursionError):
        owner, since, info = item.key.rpartition("/")[2], None, {}
    return Contender(str(owner), info if isinstance(info, dict) else {}, item.created, since)
