"""Mirroring: copies of calls, sent in the background. What comes of them is counted and forgotten.

No call waits for its copy, and copies never pile up: a few run at a time, a bounded number of a bounded size waits, the
rest is dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from typing import Any, Final

from attrs import frozen

from osdisco._tasks import Supervisor

log = logging.getLogger("osdisco")

AT_ONCE: Final = 10
QUEUE_MAX: Final = 100
TIMEOUT: Final = 10.0
"""Seconds that a copy may take: what hangs must not keep the others back."""

BYTES_MAX: Final = 16 * 1024 * 1024
"""Bytes that copies may hold that wait or are sent: a hundred large ones would be too much, too."""

Send = Callable[[], Awaitable[Any]]


def _nobody(result: str) -> None:
    pass


@frozen
class _Copy:
    send: Send
    size: int
    told: Callable[[str], object]
    context: Context


class Mirroring:
    """Sends copies; `sent`, `failed` and `dropped` count them. Close it at the end."""

    def __init__(self) -> None:
        self.sent = 0
        self.failed = 0
        self.dropped = 0
        self._waiting: deque[_Copy] = deque()
        self._running = 0
        self._held = 0
        self._supervisor = Supervisor()
        self._closed = False

    def offer(self, send: Send, *, size: int = 0, told: Callable[[str], object] = _nobody) -> bool:
        """Send a copy as soon as it is its turn; returns False when too many wait, or it was closed.

        Args:
            size: bytes that it holds until then; together at most `BYTES_MAX`, but one of any size.
            told: learns what becomes of it: `sent`, `failed` or `dropped`; nothing of what the end cuts off. It must
                not raise.
        """
        many = self._running >= AT_ONCE and len(self._waiting) >= QUEUE_MAX
        if self._closed or many or (self._held and self._held + size > BYTES_MAX):
            self._drop(told)
            return False
        self._held += size
        self._waiting.append(_Copy(send, size, told, copy_context()))
        self._begin()
        return True

    def _drop(self, told: Callable[[str], object]) -> None:
        self.dropped += 1
        told("dropped")

    def _begin(self) -> None:
        """Send what waits, as far as there is room: each in the context of its call, which has its span."""
        while self._waiting and self._running < AT_ONCE:
            copy = self._waiting.popleft()
            self._running += 1
            copy.context.run(self._supervisor.spawn, self._run(copy), "mirror a call")

    async def _run(self, copy: _Copy) -> None:
        try:
            await self._send(copy)
        finally:
            self._running -= 1
            self._held -= copy.size
            self._begin()

    async def _send(self, copy: _Copy) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                await copy.send()
        except Exception as exc:
            self.failed += 1
            copy.told("failed")
            log.debug("the copy of a call failed: %r", exc)
        else:
            self.sent += 1
            copy.told("sent")

    async def aclose(self) -> None:
        """End the copies under way, of which nothing is told, and drop those that wait."""
        self._closed = True
        while self._waiting:
            self._drop(self._waiting.popleft().told)
        await self._supervisor.aclose()
