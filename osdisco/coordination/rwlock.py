"""The read/write lock: one FIFO queue under `rw/<name>/`, in which neighbouring readers hold together.

A writer waits for whatever is before it, a reader only for the writers before it. So nobody starves: a reader that
comes after a waiting writer waits for it. There is no way from reading to writing: two readers that tried would wait
for each other for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from osdisco.backend import Item
from osdisco.client import Client
from osdisco.coordination._contend import Places
from osdisco.coordination.lock import DistributedLock
from osdisco.session import Session

READER: Final = "r-"
WRITER: Final = "w-"


class DistributedReadWriteLock:
    """A read/write lock by name: `read()` and `write()` are locks."""

    def __init__(self, client: Client, session: Session | None, name: str) -> None:
        self.name: Final = name
        self._client = client
        self._session = session
        self._lock(WRITER, {}, None)  # refuses a bad name now

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.name!a}>"

    def read(self, *, info: Mapping[str, Any] | None = None, timeout: float | None = None) -> DistributedLock:
        """Return the lock that is held together with other readers. Arguments are those of a lock."""
        return self._lock(READER, {} if info is None else info, timeout)

    def write(self, *, info: Mapping[str, Any] | None = None, timeout: float | None = None) -> DistributedLock:
        """Return the lock that is held alone. Arguments are those of a lock."""
        return self._lock(WRITER, {} if info is None else info, timeout)

    def _lock(self, mark: str, info: Mapping[str, Any], timeout: float | None) -> DistributedLock:
        places = Places(self._client, self._session, "rw", self.name, mark=mark, info=info)
        what = f"the {'read' if mark == READER else 'write'} lock {self.name!a}"
        return DistributedLock(self._client, places, what, timeout=timeout, shared=is_reader, shares=mark == READER)


def is_reader(item: Item) -> bool:
    """What is not osdisco's is taken for a writer: to wait for it can do no harm."""
    return item.key.rpartition("/")[2].startswith(READER)
