"""The counter: a number under `ctr/<name>`, changed by compare-and-set.

A lost answer leaves open whether an addition counted. `exactly_once` finds out: a mark is written with the sum.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

from osdisco._connection import PAUSE_MIN
from osdisco.backend import ABSENT, Item, Put
from osdisco.client import Client
from osdisco.coordination._calls import ONCE, Once, in_client
from osdisco.errors import (
    ConfigError,
    ConflictError,
    IndeterminateError,
    LimitError,
    LostError,
    RecordError,
    UnavailableError,
)
from osdisco.session import Session

NUMBER_MAX: Final = 2**63 - 1

_NUMBER: Final = re.compile(rb"-?[0-9]{1,19}\Z")


class DistributedCounter:
    """A whole number by name, 0 at first, that many processes add to. 64 bits with its sign."""

    def __init__(self, client: Client, session: Session | None, name: str) -> None:
        self.name: Final = name
        self._client = client
        self._connection = client._connection
        self._session = session
        self._key = client._keys.join("ctr", name)
        client._keys.join(ONCE, "ctr", name, "0" * 32)  # refuses now the names that are too long for the mark

    async def get(self) -> int:
        """Return the number. Linearizable. Raises RecordError when something else stands there."""
        self._connection.check_open()
        return self._number(await self._connection.get(self._key))

    async def add(self, delta: int = 1, *, exactly_once: bool = False) -> int:
        """Add `delta`, which may be negative; returns the sum.

        Args:
            delta: what to add.
            exactly_once: find out what became of an addition whose answer was lost, and repeat it only when it did not
                count. Costs a write more, in the background.

        Raises:
            IndeterminateError: unknown whether it counted; with `exactly_once` only if the store, or the session,
                stayed away for longer than one operation may take.
            ConflictError: others won every attempt within that time. Not counted.
            LostError: `exactly_once`, and the session was lost. Not counted.
            LimitError: the sum takes more than 64 bits. Not counted.
            RecordError: what stands there is no number. Not counted.
        """
        if not isinstance(delta, int) or isinstance(delta, bool):
            raise ConfigError(f"what is added to a counter is a whole number, not a {type(delta).__name__}")
        self._connection.check_open()
        if delta == 0:  # writing the same again is no change in every store
            return await self.get()
        if not exactly_once:
            return await self._add(delta, None)
        once = Once(self._client, self._session or await self._client.shared_session(), "ctr", self.name)
        try:
            return await self._add(delta, once)
        except (UnavailableError, ConflictError, LostError) as exc:
            if once.doubtful:
                raise IndeterminateError(f"whether the addition to {self.name!a} counted stayed unknown") from exc
            raise
        finally:
            once.settle()

    async def _add(self, delta: int, once: Once | None) -> int:
        now = self._client.runtime.clock.now
        deadline, pause = now() + self._client.options.timeout, PAUSE_MIN / 10
        while True:
            item = await self._connection.get(self._key, deadline - now())
            total = await self._try(item, self._number(item) + delta, once, deadline - now())
            if total is not None:
                return total
            if now() + pause >= deadline:
                raise ConflictError(f"others changed the counter {self.name!a} at every attempt; try again later")
            await asyncio.sleep(self._client.runtime.jittered(pause))
            pause = min(2 * pause, 1.0)

    async def _try(self, item: Item | None, total: int, once: Once | None, timeout: float) -> int | None:
        if abs(total) > NUMBER_MAX:
            raise LimitError(f"the counter {self.name!a} would leave the range of 64 bits with a sign")
        value = b"%d" % total
        ops, expect = (Put(self._key, value),), {self._key: item.unchanged if item else ABSENT}
        if once is not None:
            counted = await once.commit(ops, expect, value, timeout)
            return None if counted is None else int(counted)
        try:
            await in_client(self._client, self._connection.commit(ops, expect, timeout), f"add to {self.name}")
        except ConflictError:
            return None
        return total

    def _number(self, item: Item | None) -> int:
        if item is None:
            return 0
        if not _NUMBER.match(item.value) or abs(number := int(item.value)) > NUMBER_MAX:
            raise RecordError(f"the counter {self.name!a} holds no number; something else wrote to its key")
        return number
