"""Several mutexes at once: taken in the order of their names, so that nobody waits in a circle, and all or none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from osdisco._entries import Entry
from osdisco._loss import Scope
from osdisco.client import Client
from osdisco.coordination._acquire import Acquirable
from osdisco.coordination._contend import Places, bridged
from osdisco.coordination._guard import WATCH_AFTER, LockGuard
from osdisco.coordination._handle import token_of
from osdisco.coordination.lock import DistributedLock
from osdisco.errors import ConfigError, LostError
from osdisco.session import Session

NAMES_MAX: Final = 32
"""A guarded commit names every entry, and needs room for what it is to write."""


class MultiLockGuard(LockGuard):
    """Several locks that are held together; lost as soon as one of them is.

    `tokens` are those of the locks by name. `token` is the highest: it rises with every holder of the same names.
    """

    def __init__(self, client: Client, what: str, entries: Mapping[str, Entry]) -> None:
        self.tokens: Final = MappingProxyType(
            {name: token_of(entry.session.epoch, entry.created) for name, entry in entries.items()}
        )
        super().__init__(client, ", ".join(entries), what, *entries.values())


class MultiLock(Acquirable[MultiLockGuard]):
    """Locks by their names, the same that `lock(name)` gives one by one. Entered or acquired for a fresh guard."""

    def __init__(
        self,
        client: Client,
        session: Session | None,
        names: Iterable[str],
        *,
        info: Mapping[str, Any],
        timeout: float | None,
    ) -> None:
        self.names: Final = _checked(names)
        super().__init__(f"the locks {', '.join(f'{name!a}' for name in self.names)}", timeout)
        self._client = client
        self._session = session
        self._info = info
        self._locks(None)  # refuses bad names now

    def _locks(self, session: Session | None) -> dict[str, DistributedLock]:
        return {
            name: DistributedLock(
                self._client, Places(self._client, session, "lock", name, info=self._info), self._what, timeout=None
            )
            for name in self.names
        }

    async def _wait(self) -> MultiLockGuard:
        guard = await self._all(wait=True)
        assert guard is not None
        return guard

    async def try_acquire(self) -> MultiLockGuard | None:
        """Acquire all that are meant if they are free; None when somebody holds one of them or waits for it."""
        return await self._all(wait=False)

    async def _all(self, *, wait: bool) -> MultiLockGuard | None:
        """Take one after the other, all on one session; what was taken before a failure is given back."""
        session = self._session or await self._client.shared_session()
        entries: dict[str, Entry] = {}
        began = self._client.runtime.clock.now()
        try:
            for name, lock in self._locks(session).items():
                if wait:
                    await self._hold(name, lock, entries)
                elif (entry := await lock.try_hold()) is not None:
                    entries[name] = entry
                else:
                    break
            else:
                if self._client.runtime.clock.now() - began > WATCH_AFTER:
                    await bridged(self._client, partial(_check_stand, entries.values()))
                session.check()  # after the wait, as for each of them
                return MultiLockGuard(self._client, self._what, entries)
        except BaseException:
            self._give_back(session, entries)
            raise
        await asyncio.wait([self._give_back(session, entries)], timeout=self._client.options.timeout)
        return None

    async def _hold(self, name: str, lock: DistributedLock, entries: dict[str, Entry]) -> None:
        """Wait for one more. Those that are held are followed meanwhile: who is behind them must not wait in vain."""
        if not entries:
            entries[name] = await lock.hold()
            return
        held = LockGuard(self._client, ", ".join(entries), self._what, *entries.values())
        try:
            async with Scope(held.lost, held.check):
                entries[name] = await lock.hold()
        finally:
            held._hand_on()

    def _give_back(self, session: Session, entries: Mapping[str, Entry]) -> asyncio.Task[None]:
        """Without an await: a second cancel cannot interrupt it."""
        return session.keep_until_ended(_end(list(entries.values())), f"give back {self._what}")


async def _end(entries: Sequence[Entry]) -> None:
    """Last first: who gets an earlier one finds the later ones free."""
    for entry in reversed(entries):
        await entry.end()


async def _check_stand(entries: Iterable[Entry]) -> None:
    """The first ones are followed by nobody while the others are waited for."""
    for entry in entries:
        if not await entry.stands():
            raise LostError("one of the locks was revoked, or removed by an operator, before all were held")


def _checked(names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise ConfigError("a multi-lock takes a list of names; for one name there is lock()")
    if not isinstance(names, Iterable):
        raise ConfigError(f"a multi-lock takes a list of names, not {type(names).__name__}")
    given = list(names)
    if not all(isinstance(name, str) for name in given):
        raise ConfigError("the names of a multi-lock are texts")
    if len(set(given)) != len(given):
        raise ConfigError("a multi-lock names each lock once; one of the names is given twice")
    if not 1 <= len(given) <= NAMES_MAX:
        raise ConfigError(f"a multi-lock takes from 1 to {NAMES_MAX} names, not {len(given)}")
    return tuple(sorted(given))
