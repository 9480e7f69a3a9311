"""The handle of locks and permits: it also follows its own entries, and hears when somebody asks for them back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, ClassVar, Final

from osdisco._connection import backoff
from osdisco._entries import Entry
from osdisco._loss import Revocation
from osdisco._tasks import Errand
from osdisco.client import Client
from osdisco.coordination._contend import until_gone
from osdisco.coordination._handle import Handle
from osdisco.coordination._revoke import Requests
from osdisco.errors import ClosedError, DeniedError, UnavailableError

log = logging.getLogger("osdisco")

WATCH_AFTER: Final = 1.0
"""Seconds that a lock is held before the store is watched for it: short holds pay nothing for that."""


class LockGuard(Handle):
    """A lock, or a permit of a semaphore, that is held.

    Entered with `async with`, the body is cancelled before the store can give it away. `token` rises with every holder,
    `lost` says whether and why it was lost.
    """

    _over: ClassVar[str] = "it was released"

    def __init__(self, client: Client, name: str, what: str, *entries: Entry) -> None:
        self.name: Final = name
        self._requests = Requests(client, entries)
        self._watchers: list[asyncio.Task[None]] = []
        self._alarm = asyncio.get_running_loop().call_later(WATCH_AFTER, self._watch)
        super().__init__(client, what, *entries)

    @property
    def revoked(self) -> Revocation:
        """Whether somebody has asked for it back: release it, because it is taken away when their grace is over."""
        if self._ending is None and not self.lost.is_set():
            self._requests.follow()
        return self._requests.revoked

    async def release(self) -> None:
        """Give it back; calling it again waits for the same.

        Raises:
            LostError: it was not ours any more.
            IndeterminateError: the store did not confirm it in time; it goes on in the background, and what is held
                ends with the session at the latest.
        """
        await self._give_up()

    def _watch(self) -> None:
        if self.lost.is_set():
            return
        self._requests.follow()
        spawn = self._client._connection.supervisor.spawn
        self._watchers = [spawn(self._follow(entry), f"watch {self._what}") for entry in self._entries]

    async def _follow(self, entry: Entry) -> None:
        with suppress(ClosedError):
            await self._until_gone(entry)
            self._lose("its entry in the store is gone: revoked, or removed by an operator")

    async def _until_gone(self, entry: Entry) -> None:
        """A watch that others share may show a state from before the entry was made: only the store is believed."""
        queue, failures = entry.key[: entry.key.rindex("/") + 1], 0
        denied = False
        while True:
            try:
                await until_gone(self._client, [entry.as_made()], within=queue)
                if not await entry.stands():
                    return
            except UnavailableError:
                pass
            except DeniedError as exc:
                if not denied:
                    log.warning("%s cannot be watched for now, its session still is: %s", self._what, exc)
                denied = True
            await asyncio.sleep(backoff(self._client.runtime, failures))
            failures += 1

    def _begin(self, ending: Coroutine[Any, Any, None]) -> Errand[None]:
        self._rest()
        return super()._begin(ending)

    def _lose(self, reason: str) -> None:
        super()._lose(reason)
        self._rest()

    def _hand_on(self) -> None:
        """Follow the entries no more and leave them as they are: another guard takes them over."""
        self._forget()
        self._rest()

    def _rest(self) -> None:
        """Follow nothing any more."""
        self._alarm.cancel()
        self._requests.forget()
        current = asyncio.current_task()
        for watcher in self._watchers:
            if watcher is not current:
                watcher.cancel()
