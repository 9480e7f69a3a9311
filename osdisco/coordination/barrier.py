"""The barrier: while `barrier/<name>` stands, whoever comes waits. It belongs to nobody and outlives who held it."""

from __future__ import annotations

import asyncio
from typing import Final

from attrs import frozen

from osdisco._connection import backoff
from osdisco._records import encode
from osdisco.backend import ABSENT, Delete, Item, Put
from osdisco.client import Client
from osdisco.coordination._calls import ONCE, Once, checked_timeout, delete_as_it_is, in_client, until_definite, within
from osdisco.coordination._contend import bridged, until_gone
from osdisco.errors import IndeterminateError, LostError, UnavailableError
from osdisco.session import Session


@frozen
class BarrierRecord:
    """What stands in the store: for people to see, and the number of the attempt for who made it to know it again."""

    owner: str
    since: float
    attempt: str


class DistributedBarrier:
    """A barrier by name, down at first. Anybody may hold it, anybody may release it."""

    def __init__(self, client: Client, session: Session | None, name: str) -> None:
        self.name: Final = name
        self._client = client
        self._connection = client._connection
        self._session = session
        self._key = client._keys.join("barrier", name)
        client._keys.join(ONCE, "barrier", name, "0" * 32)  # refuses now the names that are too long for the mark

    async def hold(self) -> None:
        """Let everybody wait who comes from now on, until `release`. A barrier that is held already stays so.

        When this fails or is cancelled, the barrier that it may have set up is taken down again in the background.

        Raises:
            UnavailableError, LostError: the store could not be reached, or the session was lost.
            IndeterminateError: unknown whether it was held for a moment.
        """
        self._connection.check_open()
        client, runtime = self._client, self._client.runtime
        session = self._session or await client.shared_session()
        once = Once(client, session, "barrier", self.name)
        put = Put(self._key, encode(BarrierRecord(runtime.name, runtime.clock.wall(), runtime.unique())))
        try:
            await self._hold(once, put)
        except BaseException:
            session.keep_until_ended(self._undo(once, put, session), f"take down {self.name}")
            raise
        once.settle()

    async def _hold(self, once: Once, put: Put) -> None:
        """One that stands is written anew: neither a late release of it nor the end of a failed hold takes this one."""
        now, failures = self._client.runtime.clock.now, 0
        deadline = now() + self._client.options.timeout
        item: Item | None = None
        while True:
            try:
                expect = {self._key: item.unchanged if item else ABSENT}
                if await once.commit([put], expect, b"held", deadline - now()):
                    return
                item = await self._connection.get(self._key, deadline - now())
            except (UnavailableError, LostError) as exc:
                if not once.doubtful:
                    raise
                raise IndeterminateError(f"whether the barrier {self.name!a} was held stayed unknown") from exc
            await asyncio.sleep(backoff(self._client.runtime, failures))
            failures += 1

    async def _undo(self, once: Once, put: Put, session: Session) -> None:
        await once.refuse()
        item = await self._look()
        if item is not None and item.value == put.value and item.created == item.revision:  # else it stood before
            await until_definite(self._client, session, [Delete(self._key)], {self._key: item.unchanged})

    async def wait(self, timeout: float | None = None) -> None:
        """Return once nobody holds the barrier, at once if nobody does. An outage of the store is waited out.

        Raises:
            TimedOutError: it was still held, or the store away, after `timeout` seconds.
            DeniedError: the store does not let us look.
        """
        self._connection.check_open()
        timeout = checked_timeout(timeout)
        async with within(timeout, f"the barrier {self.name!a} was not released"):
            await self._wait()

    async def _wait(self) -> None:
        first, again = None, 0
        while (item := await self._look()) is not None:
            first = first or item
            if item.created != first.created:  # released, and held anew since
                return
            if again:  # the watch is behind what we looked at
                await asyncio.sleep(backoff(self._client.runtime, again))
            await until_gone(self._client, [first])
            again += 1

    async def _look(self) -> Item | None:
        return await bridged(self._client, lambda: self._connection.get(self._key))

    async def held(self) -> bool:
        """Return whether somebody holds it. Linearizable."""
        self._connection.check_open()
        return await self._connection.get(self._key) is not None

    async def release(self) -> None:
        """Let everybody pass; whoever held it. Not held: no error.

        Raises:
            UnavailableError: the store could not be reached.
            IndeterminateError: unknown whether it was released. Do it again.
        """
        self._connection.check_open()
        await in_client(self._client, self._release(), f"release {self.name}")

    async def _release(self) -> None:
        """One that is held anew since we looked stays."""
        item = await self._connection.get(self._key)
        if item is not None:
            await delete_as_it_is(self._client, item)


class DistributedBarrierManager:
    """Barriers by name in one call, as in the specification."""

    def __init__(self, client: Client, session: Session | None) -> None:
        self._client = client
        self._session = session

    def _barrier(self, name: str) -> DistributedBarrier:
        return DistributedBarrier(self._client, self._session, name)

    async def hold(self, name: str) -> None:
        """Hold the barrier called `name`."""
        await self._barrier(name).hold()

    async def wait(self, name: str, *, timeout: float | None = None) -> None:
        """Wait at the barrier called `name`. Raises TimedOutError after `timeout` seconds."""
        await self._barrier(name).wait(timeout)

    async def release(self, name: str) -> None:
        """Release the barrier called `name`."""
        await self._barrier(name).release()
