"""Names of hosts looked up; for probes few at a time: records of the store say which, and DNS may never answer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Final

from osdisco._tasks import Supervisor
from osdisco.discovery._target import is_address

AT_ONCE: Final = 2
"""Of the loop's few threads, which look up names for the whole process, the store's among them."""


async def resolved(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host; an address is its own. Raises OSError."""
    if is_address(host):
        return [host]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[4][0]) for place in found))


class Lookups:
    """Gives the addresses of hosts, those of names through at most two threads.

    One that is given up still counts until its thread has ended: nothing can end a look-up of the system.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._free = asyncio.Semaphore(AT_ONCE)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses of a host. Raises OSError."""
        if is_address(host):
            return [host]
        await self._free.acquire()
        found = await asyncio.shield(self._supervisor.spawn(self._look_up(host, port), f"look up {host}"))
        if isinstance(found, Exception):
            raise found
        return found

    async def _look_up(self, host: str, port: int) -> Sequence[str] | Exception:
        """Return the failure, too: who waited for it may be gone."""
        try:
            return await resolved(host, port)
        except (OSError, UnicodeError) as exc:
            return exc
        finally:
            self._free.release()
