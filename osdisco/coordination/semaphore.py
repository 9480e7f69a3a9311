"""The semaphore: waiters under `sem/<name>/q/`, holders under `sem/<name>/h/`, and how many may hold in `limit`.

Only the head of the queue moves from `q/` to `h/`, in one commit that its own place guards: whoever stalled until its
lease was over comes too late. So there are never more holders than the limit, whatever the clocks say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from math import inf
from typing import Any, Final

from osdisco._connection import backoff
from osdisco._entries import Entry, in_order
from osdisco.backend import ABSENT, Condition, Item, Op, Put, Revision
from osdisco.client import Client
from osdisco.coordination._calls import NO_LEASE, checked_count, in_client
from osdisco.coordination._contend import Contender, Places, Waits, before, bridged, contender
from osdisco.coordination._guard import LockGuard
from osdisco.coordination.lock import Contended
from osdisco.errors import (
    ConfigError,
    ConflictError,
    CoordinationError,
    IndeterminateError,
    LeaseExpiredError,
    LostError,
    OsdiscoError,
    UnavailableError,
)
from osdisco.session import Session

LIMIT_MAX: Final = 10_000


class SemaphoreState:
    """What stands under the prefix at one moment. Waiters and holders in one snapshot: in two, both could be missed."""

    def __init__(self, items: Mapping[str, Item], prefix: str) -> None:
        self.limit: Final = items.get(f"{prefix}limit")
        self.queue: Final = in_order({key: item for key, item in items.items() if key.startswith(f"{prefix}q/")})
        self.holders: Final = in_order({key: item for key, item in items.items() if key.startswith(f"{prefix}h/")})

    @property
    def stored_limit(self) -> int | None:
        """The limit; None when there is none, or what stands there is no number."""
        value = self.limit.value if self.limit else b""
        return int(value) if value.isdigit() and len(value) <= len(str(LIMIT_MAX)) else None

    @property
    def shown(self) -> list[tuple[Item, Contender]]:
        """The entries as others see them, the holders first."""
        return [(item, contender(item, holds=True)) for item in self.holders] + [
            (item, contender(item)) for item in self.queue
        ]


class DistributedSemaphore(Contended):
    """A semaphore by name: at most `limit` permits are held at a time. Entered or acquired for a fresh one each time.

    The limit is stored by whoever comes first, and stays; who brings another one is refused. To change it, delete
    `sem/<name>/limit` while nobody uses the semaphore.
    """

    def __init__(
        self,
        client: Client,
        session: Session | None,
        name: str,
        *,
        limit: int,
        info: Mapping[str, Any],
        timeout: float | None,
    ) -> None:
        self.limit: Final = checked_count(limit, "the limit of a semaphore", LIMIT_MAX)
        places = Places(client, session, "sem", name, "q", info=info)
        super().__init__(client, places, f"a permit of the semaphore {name!a}", timeout=timeout)

    async def _wait(self) -> LockGuard:
        place = _Place(self._client, self._places, await self._places.enqueue(), self.limit)
        try:
            held = await place.promoted()
            assert held is not None
            return self._guard(held)
        except BaseException:
            place.withdraw()  # without an await: a second cancel cannot interrupt it
            raise

    async def try_acquire(self) -> LockGuard | None:
        """Acquire a permit if one is free; None when all are held, or somebody waits for one."""
        place = _Place(self._client, self._places, await self._places.enqueue(), self.limit)
        try:
            if (held := await place.promoted(wait=False)) is not None:
                return self._guard(held)
        except BaseException:
            place.withdraw()
            raise
        await asyncio.wait([place.withdraw()], timeout=self._client.options.timeout)
        return None

    async def _contenders(self) -> list[tuple[Item, Contender]]:
        prefix = self._places.prefix
        return SemaphoreState((await self._client._connection.scan(prefix)).items, prefix).shown


class _Place:
    """One attempt: from its entry in `q/` to the one in `h/`, or away without a trace."""

    def __init__(self, client: Client, places: Places, entry: Entry, limit: int) -> None:
        self._client = client
        self._connection = client._connection
        self._places = places
        self._entry = entry
        self._session = entry.session
        self._limit = limit
        number = entry.key.rpartition("/")[2]
        self._held = Entry(client._connection, client._keys, entry.session, "sem", places.name, "h", number)

    async def promoted(self, *, wait: bool = True) -> Entry | None:
        """Wait for a permit; without `wait`, return None where one would have to.

        Raises:
            LostError: the session, or the place in the queue, was lost.
            ConfigError: the semaphore has another limit.
            DeniedError: the store no longer lets us look.
            IndeterminateError: without `wait`, the store did not confirm a permit in time.
        """
        waits, failures, prefix = Waits(self._client, f"{self._places.prefix}q/"), 0, self._places.prefix
        now = self._client.runtime.clock.now
        deadline = inf if wait else now() + self._client.options.timeout
        async with self._session.scope():
            while True:
                state = await (bridged(self._client, self._look) if wait else self._look())
                if held := next((item for item in state.holders if item.key == self._held.key), None):
                    return self._hold(held.created)
                ahead, full = before(self._entry, state.queue), len(state.holders) >= self._limit
                if not wait and (ahead or full):
                    return None
                if ahead:
                    await waits.until_one_is_gone(ahead)
                elif full:
                    await waits.until_any_is_gone(state.holders, f"{prefix}h/")
                elif created := await self._try(self._promotion(state)):
                    return self._hold(created)
                elif now() >= deadline:
                    raise IndeterminateError("whether a permit was got stayed unknown; it is being given back")
                else:  # unknown, or somebody was faster: what came of it is seen next
                    await asyncio.sleep(backoff(self._client.runtime, failures))
                    failures += 1

    def _hold(self, created: int) -> Entry:
        self._held.created = created
        self._entry.depart()
        return self._held

    async def _look(self) -> SemaphoreState:
        failures = 0
        while True:
            state = SemaphoreState((await self._connection.scan(self._places.prefix)).items, self._places.prefix)
            self._session.check()  # after the wait: what Jepsen found missing in etcd's own lock
            if state.limit is not None:
                self._check_limit(state.limit.key, state.stored_limit)
                return state
            limit = Put(f"{self._places.prefix}limit", b"%d" % self._limit)
            if not await self._try(([limit], {limit.key: ABSENT})):
                await asyncio.sleep(backoff(self._client.runtime, failures))
                failures += 1

    def _check_limit(self, key: str, limit: int | None) -> None:
        if limit is None:
            raise CoordinationError(f"{key!a} holds no limit of a semaphore; something else wrote it")
        if limit != self._limit:
            name = self._places.name
            raise ConfigError(
                f"the semaphore {name!a} has a limit of {limit}, as it was first opened, not {self._limit}"
            )

    def _promotion(self, state: SemaphoreState) -> tuple[list[Op], dict[str, Condition]]:
        """Move from the queue to the holders; also the limit must still be the one that was looked at."""
        self._session.check()
        assert state.limit is not None
        last, expect = self._entry._last_words()
        ops: list[Op] = [Put(self._held.key, self._places.record(self._session), self._session.id), *last]
        own: dict[str, Condition] = {self._entry.key: Revision(self._entry.created), self._held.key: ABSENT}
        return ops, {**expect, **own, state.limit.key: state.limit.unchanged}

    async def _try(self, commit: tuple[list[Op], dict[str, Condition]]) -> int | None:
        """Commit in a task of the client. Returns the revision; None when it was not applied, or that is unknown."""
        return await in_client(self._client, self._commit(*commit), f"move {self._entry.key}")

    async def _commit(self, ops: list[Op], expect: dict[str, Condition]) -> int | None:
        try:
            return (await self._connection.attempt(ops, expect))[ops[0].key]
        except LeaseExpiredError as exc:
            self._session._lose(NO_LEASE)
            raise LostError(NO_LEASE) from exc
        except (ConflictError, IndeterminateError, UnavailableError):
            return None

    def withdraw(self) -> asyncio.Task[None]:
        """Give up without waiting: what a promotion under way may still make of the place is undone, too."""
        self._entry.abandon()
        return self._session.keep_until_ended(self._withdraw(), f"withdraw {self._entry.key}")

    async def _withdraw(self) -> None:
        await self._entry.gone.wait()  # only now can no promotion apply any more
        failures = 0
        while not self._session.lost.is_set():
            try:
                held = await self._connection.get(self._held.key)
                break
            except OsdiscoError:
                await asyncio.sleep(backoff(self._client.runtime, failures))
                failures += 1
        else:
            return
        if held is not None:
            self._held.created = held.created
            await self._held.end()
