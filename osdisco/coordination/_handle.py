"""What every handle has: a token, guarded commits, the knowledge of its loss, and a body that is cancelled by it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, ClassVar, Final, Self

from osdisco._checks import check_commit
from osdisco._entries import Entry
from osdisco._epoch import EPOCH_SHIFT
from osdisco._loss import Loss, Scope
from osdisco._tasks import Errand
from osdisco.backend import Condition, Op, Revision
from osdisco.client import Client
from osdisco.errors import ConflictError, CoordinationError, IndeterminateError, LostError

log = logging.getLogger("osdisco")


def token_of(epoch: int, created: int) -> int:
    """Return the fencing token of what was made at `created`: it goes on rising after a restore that raised `epoch`."""
    return (epoch << EPOCH_SHIFT) + created


class Handle:
    """Entries of one session that are owned together, mostly one.

    Entered with `async with`, the body is cancelled before the store can give it away. `token` is that of the entry
    that was made last: it rises with every owner of the same.
    """

    _over: ClassVar[str] = "it was given up"

    def __init__(self, client: Client, what: str, *entries: Entry) -> None:
        self._entry = entries[-1]
        self.token: Final = token_of(self._entry.session.epoch, self._entry.created)
        self.lost: Final = Loss()
        self._client = client
        self._what = what
        self._entries = entries
        self._scope: Scope | None = None
        self._ending: Errand[None] | None = None
        self._forget = self._entry.session.lost.call(self._lose)
        self._entry.session.look_in_time()  # whoever was suspended just before it got this must be told in time

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._what}, token {self.token}{', lost' if self.lost.is_set() else ''}>"

    def check(self) -> None:
        """Raise LostError when it is no longer ours, as far as this process can know. No I/O."""
        if self._ending is not None:
            raise LostError(self.lost.reason or self._over)
        self._check_lost()

    def _check_lost(self) -> None:
        if self._ending is None:
            self._entry.session.check()
        self.lost.raise_if_set()

    async def commit(self, ops: Sequence[Op], expect: Mapping[str, Condition] | None = None) -> Mapping[str, int]:
        """Commit only while it is ours: the store itself checks it.

        Raises:
            LostError: it is not ours any more; nothing was applied.
            ConflictError: a condition of `expect` did not hold.
        """
        return await self._while_held(lambda: self._client._commit(ops, expect or {}, also=self._held()))

    async def _commit_keys(self, ops: Sequence[Op], expect: Mapping[str, Condition]) -> Mapping[str, int]:
        """Do the same with the store's own keys."""
        conditions = {**expect, **self._held()}
        check_commit(ops, conditions, self._client.limits)
        return await self._while_held(lambda: self._client._connection.commit(ops, conditions))

    async def _while_held(self, commit: Callable[[], Awaitable[Mapping[str, int]]]) -> Mapping[str, int]:
        self.check()
        try:
            return await commit()
        except ConflictError:  # it is lost, or a condition of the caller's did not hold
            await self._raise_if_gone()
            raise

    def _held(self) -> dict[str, Condition]:
        return {entry.key: Revision(entry.created) for entry in self._entries}

    async def _raise_if_gone(self) -> None:
        for entry in self._entries:
            if not await entry.stands():
                if self._ending is None:
                    self._lose("its entry in the store is gone")
                self.check()

    async def _give_up(self) -> None:
        """Give it back and wait for that; calling it again waits for the same. Raises LostError, IndeterminateError."""
        if not await self._given_up():
            raise IndeterminateError(f"giving up {self._what} is not confirmed; it is tried on")
        self.lost.raise_if_set()

    async def _given_up(self) -> bool:
        """Give it back, and wait for that as long as one operation may take; returns whether it is done."""
        ending = self._ending or self._begin(self._end())
        done = await ending.wait(self._client.options.timeout)
        return done and (self._ending is ending or await self._given_up())

    def _begin(self, ending: Coroutine[Any, Any, None]) -> Errand[None]:
        """Run the end in a task of the session, which cancelling the caller does not stop."""
        self._forget()
        self._ending = Errand(ending, self._entry.session.keep_until_ended, f"give up {self._what}")
        return self._ending

    async def _end(self) -> None:
        stood = [await entry.end() for entry in reversed(self._entries)]
        if not all(stood):
            self._lose(self._entry.session.lost.reason or "its entry in the store was gone when it was given up")

    def _lose(self, reason: str) -> None:
        self.lost.set(reason)
        for entry in self._entries:
            entry.depart()

    async def __aenter__(self) -> Self:
        if self._scope is not None:
            raise CoordinationError(f"{self._what} is entered once for each handle; acquire it again")
        self._scope = Scope(self.lost, self._check_lost)
        try:
            self.check()
            self._scope.enter()
        except BaseException:
            await self._given_up()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._scope is not None
        try:
            self._scope.exit(kind, exc)
        finally:
            if not await self._given_up():
                log.warning("giving up %s is not confirmed; it is tried on", self._what)
        if kind is None:
            self.lost.raise_if_set()
