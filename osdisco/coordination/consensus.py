"""The consensus register: under `dec/<name>` the first proposal stands, everywhere and for good."""

from __future__ import annotations

import asyncio
from typing import Final

from osdisco._checks import check_commit
from osdisco._connection import backoff
from osdisco._keys import as_bytes
from osdisco.backend import ABSENT, Put
from osdisco.client import Client
from osdisco.coordination._calls import in_client
from osdisco.errors import ConflictError, IndeterminateError, UnavailableError


class ConsensusRegister:
    """A decision by name. It is made once; nothing in this library deletes it."""

    def __init__(self, client: Client, name: str) -> None:
        self.name: Final = name
        self._client = client
        self._connection = client._connection
        self._key = client._keys.join("dec", name)

    async def decided(self) -> bytes | None:
        """Return what was decided, None while nothing is. Linearizable."""
        self._connection.check_open()
        item = await self._connection.get(self._key)
        return None if item is None else item.value

    async def propose(self, value: bytes) -> bytes:
        """Propose a value; returns what is decided, be it this one or another's.

        Raises:
            UnavailableError: the store could not be reached; the proposal was not made.
            IndeterminateError: it may have been made, or may still be; ask `decided` later, or propose again.
            LimitError, InvalidCommitError: the value is too large, or not bytes.
        """
        self._connection.check_open()
        put = Put(self._key, as_bytes(value))
        check_commit([put], {self._key: ABSENT}, self._client.limits)
        return await in_client(self._client, self._propose(put), f"propose {self.name}")

    async def _propose(self, put: Put) -> bytes:
        now = self._client.runtime.clock.now
        deadline, failures, doubt = now() + self._client.options.timeout, 0, False
        while True:
            try:
                await self._connection.commit([put], {self._key: ABSENT}, deadline - now())
                return put.value
            except ConflictError:
                pass
            except IndeterminateError:
                doubt = True
            except UnavailableError as exc:
                if not doubt:
                    raise
                raise IndeterminateError(f"whether the proposal for {self.name!a} was made stayed unknown") from exc
            if (stands := await self._look(doubt)) is not None:
                return stands
            await asyncio.sleep(min(backoff(self._client.runtime, failures), max(0.0, deadline - now())))
            failures += 1

    async def _look(self, doubt: bool) -> bytes | None:
        """Return what stands. None: nothing does, but a proposal of ours may be under way, so it is made again."""
        try:
            return await self.decided()
        except UnavailableError as exc:
            if not doubt:  # ours was refused by what stands
                raise
            raise IndeterminateError(f"whether the proposal for {self.name!a} was made stayed unknown") from exc
