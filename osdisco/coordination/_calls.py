"""What recipes share that write beside the queue: arguments checked, mutations that no cancelled caller cuts short."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from sys import float_info
from typing import Any, Final, TypeVar

from osdisco._connection import backoff
from osdisco.backend import ABSENT, Condition, Delete, Item, Op, Put
from osdisco.client import Client
from osdisco.errors import (
    ConfigError,
    ConflictError,
    IndeterminateError,
    LeaseExpiredError,
    LostError,
    OsdiscoError,
    RecordError,
    TimedOutError,
    UnavailableError,
)
from osdisco.session import Session

T = TypeVar("T")

ONCE: Final = "once"
NO_LEASE: Final = "the store no longer knows the session's lease"


def checked_timeout(timeout: float | None) -> float | None:
    """Return a timeout in seconds, or None for no limit. Raises ConfigError unless it is above zero and finite."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= float_info.max:
        raise ConfigError("a timeout is a number of seconds above zero, or None for no limit")
    return float(timeout)


def checked_count(number: int, what: str, most: int) -> int:
    """Return a count. Raises ConfigError unless it is a whole number from 1 to `most`."""
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= most:
        raise ConfigError(f"{what} must be a whole number from 1 to {most}")
    return number


def checked_info(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of what others are to see. Raises RecordError when it is no mapping."""
    if isinstance(info, Mapping):
        return dict(info)
    raise RecordError(f"info is a mapping, not {type(info).__name__}")


@asynccontextmanager
async def within(timeout: float | None, told: str) -> AsyncGenerator[None, None]:
    """Limit a block to `timeout` seconds. Raises TimedOutError, which begins with what is `told`."""
    try:
        async with asyncio.timeout(timeout):
            yield
    except TimeoutError as exc:
        if isinstance(exc, OsdiscoError):
            raise
        raise TimedOutError(f"{told} within {timeout} s") from None


async def in_client(client: Client, work: Coroutine[Any, Any, T], name: str) -> T:
    """Run a mutation in a task of the client: cancelling the caller never cuts it on the wire."""
    return await asyncio.shield(client._connection.finishing.spawn(work, name))


async def until_definite(client: Client, session: Session, ops: Sequence[Op], expect: Mapping[str, Condition]) -> bool:
    """Commit what may be repeated until its outcome is known, or the session is lost and with it the point of it.

    Returns whether it applied, as far as can be known.
    """
    failures, unknown = 0, False
    while True:
        try:
            await client._connection.attempt(ops, expect)
            return True
        except ConflictError:
            return unknown
        except LeaseExpiredError:
            session._lose(NO_LEASE)
        except IndeterminateError:
            unknown = True
        except OsdiscoError:
            pass  # not applied: the store is away
        if session.lost.is_set():
            return unknown
        await asyncio.sleep(backoff(client.runtime, failures))
        failures += 1


async def delete_as_it_is(client: Client, item: Item) -> None:
    """Delete a key unless it changed since; gone, or another's, when this returns.

    Raises:
        UnavailableError: the store could not be reached.
        IndeterminateError: unknown whether it was deleted, for as long as one operation may take.
    """
    now, failures, unknown = client.runtime.clock.now, 0, False
    deadline = now() + client.options.timeout
    while True:
        try:
            await client._connection.commit([Delete(item.key)], {item.key: item.unchanged}, deadline - now())
            return
        except ConflictError:
            return
        except IndeterminateError:
            unknown = True
            pause = backoff(client.runtime, failures)
            if now() + pause >= deadline:
                raise
        except UnavailableError as exc:
            if not unknown:
                raise
            raise IndeterminateError(f"whether {item.key!a} was deleted stayed unknown: {exc}") from exc
        await asyncio.sleep(pause)
        failures += 1


class Once:
    """A commit that applies at most once however often it is tried, and that can be asked whether it did.

    With it goes a mark, a leased key that must not be there before. After the end of the lease no late attempt applies.
    """

    def __init__(self, client: Client, session: Session, *segments: str) -> None:
        self.doubtful = False
        self._client = client
        self._connection = client._connection
        self._session = session
        self._mark: Final = client._keys.join(ONCE, *segments, client.runtime.unique())
        self._sent: asyncio.Task[bytes | None] | None = None

    async def commit(
        self, ops: Sequence[Op], expect: Mapping[str, Condition], outcome: bytes, timeout: float | None = None
    ) -> bytes | None:
        """Try it. Returns the outcome of the attempt that applied, this or an earlier one; None: decide anew.

        Raises:
            LostError: the session was lost; nothing can apply any more, what has applied is told by `doubtful` alone.
            UnavailableError: this attempt was not applied.
        """
        self._session.check()
        attempt = self._commit(ops, expect, outcome, timeout)
        self._sent = self._connection.finishing.spawn(attempt, f"commit once {self._mark}")
        return await asyncio.shield(self._sent)

    async def _commit(
        self, ops: Sequence[Op], expect: Mapping[str, Condition], outcome: bytes, timeout: float | None
    ) -> bytes | None:
        mark = Put(self._mark, outcome, self._session.id)
        try:
            await self._connection.commit([*ops, mark], {**expect, self._mark: ABSENT}, timeout)
            return outcome
        except ConflictError:  # a condition does not hold, or an attempt of before came through
            if not self.doubtful:
                return None
        except IndeterminateError:
            self.doubtful = True
        except LeaseExpiredError as exc:
            self._session._lose(NO_LEASE)
            raise LostError(NO_LEASE) from exc
        item = await self._connection.get(self._mark, timeout)
        return None if item is None else item.value

    def settle(self) -> None:
        """Take the mark away in the background. It stays until the end of the session while an attempt may be late."""
        self._session.keep_until_ended(self._settle(), f"settle {self._mark}")

    async def _settle(self) -> None:
        if self._sent is None:
            return
        await asyncio.wait([self._sent])
        if not self.doubtful:
            with suppress(OsdiscoError):  # it goes with the session
                await self._connection.commit([Delete(self._mark)], {})

    async def refuse(self) -> None:
        """Let no attempt apply from now on, however late it arrives. Whether one did can then be seen by its effect."""
        if self._sent is None:
            return
        await asyncio.wait([self._sent])
        if self.doubtful:
            await until_definite(
                self._client, self._session, [Put(self._mark, b"", self._session.id)], {self._mark: ABSENT}
            )
        await self._settle()
