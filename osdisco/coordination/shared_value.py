"""The shared value: JSON under `val/<name>`, changed by compare-and-set and followed by whoever looks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Final

from osdisco._connection import PAUSE_MIN
from osdisco._feed import Change
from osdisco._records import encode, parse
from osdisco.backend import ABSENT, Condition, Item, Put
from osdisco.client import Client
from osdisco.coordination._calls import in_client
from osdisco.errors import ConflictError, RecordError
from osdisco.view import Watch

log = logging.getLogger("osdisco")


class SharedValue:
    """A JSON value by name that every process sees the same. `default` stands for it while it was not set."""

    def __init__(self, client: Client, name: str, default: Any) -> None:
        self.name: Final = name
        self._client = client
        self._connection = client._connection
        self._key = client._keys.join("val", name)
        self._default = _as_json(default)

    async def get(self) -> Any:
        """Return the value, yours to change. Linearizable. Raises RecordError when what stands there is no JSON."""
        self._connection.check_open()
        return self._read(await self._connection.get(self._key))

    async def set(self, value: Any) -> None:
        """Let `value` stand, whatever stood before.

        Raises:
            RecordError: it is not JSON, or takes more than 64 KiB.
            IndeterminateError: unknown whether it was written.
        """
        self._connection.check_open()
        await self._put(_as_json(value), {})

    async def update(self, change: Callable[[Any], Any]) -> Any:
        """Compare-and-set: `change(value)` gives the new value, and is asked again when another was faster.

        Returns the new value.

        Raises:
            RecordError: what stands there, or comes of it, is not JSON or takes more than 64 KiB.
            ConflictError: others were faster at every attempt within the time of one operation. Nothing was written.
            IndeterminateError: unknown whether it was written.
        """
        self._connection.check_open()
        now = self._client.runtime.clock.now
        deadline, pause = now() + self._client.options.timeout, PAUSE_MIN / 10
        while True:
            item = await self._connection.get(self._key, deadline - now())
            data = _as_json(change(self._read(item)))
            try:
                await self._put(data, {self._key: item.unchanged if item else ABSENT}, deadline - now())
                return parse(data)
            except ConflictError:
                if now() + pause >= deadline:
                    raise ConflictError(f"others changed {self.name!a} at every attempt; try again later") from None
            await asyncio.sleep(self._client.runtime.jittered(pause))
            pause = min(2 * pause, 1.0)

    def watch(self) -> ValueWatch:
        """Return `async with` around an iterator of values: the present one first, then each as it comes.

        Values that nobody could see between two looks at the store, and those that are not JSON, are left out.
        """
        watch = Watch(self._client._feeds, self._client._keys, self._key)
        return ValueWatch(watch, f"val/{self.name}", self._read)

    async def _put(self, data: bytes, expect: dict[str, Condition], timeout: float | None = None) -> None:
        commit = self._connection.commit([Put(self._key, data)], expect, timeout)
        await in_client(self._client, commit, f"set {self.name}")

    def _read(self, item: Item | None) -> Any:
        try:
            return parse(item.value if item else self._default)
        except RecordError as exc:
            raise RecordError(f"the shared value {self.name!a}: {exc}") from None


class ValueWatch(AsyncIterator[Any]):
    """`async with value.watch() as values`: an iterator, subscribed at entry, closed at exit."""

    def __init__(self, watch: Watch, name: str, read: Callable[[Item | None], Any]) -> None:
        self._watch = watch
        self._name = name
        self._read = read

    async def __aenter__(self) -> AsyncIterator[Any]:
        await self._watch.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._watch.__aexit__(kind, exc, trace)

    async def __anext__(self) -> Any:
        while True:
            change: Change = await anext(self._watch)
            try:
                return self._read(change.puts.get(self._name))
            except RecordError as exc:
                log.warning("skipped %s", exc)


def _as_json(value: Any) -> bytes:
    data = encode(value)
    parse(data)  # what no reader would take is refused here, as two keys that become one
    return data
