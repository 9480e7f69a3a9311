"""Mirroring: copies of calls, sent in the background. What comes of them is counted and forgotten.

No call waits for its copy, and copies never pile up: a few run at a time, a bounded number waits, the rest is dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from typing import Any, Final

from osdisco._tasks import Supervisor

log = logging.getLogger("osdisco")

AT_ONCE: Final = 10
QUEUE_MAX: Final = 100
TIMEOUT: Final = 10.0
"""Seconds that a copy may take: what hangs must not keep the others back."""

Send = Callable[[], Awaitable[Any]]


class Mirroring:
    """Sends copies; `sent`, `failed` and `dropped` count them. Close it at the end."""

    def __init__(self) -> None:
        self.sent = 0
        self.failed = 0
        self.dropped = 0
        self._waiting: deque[tuple[Send, Context]] = deque()
        self._running = 0
        self._supervisor = Supervisor()
        self._closed = False

    def offer(self, send: Send) -> bool:
        """Send a copy as soon as it is its turn; returns False when too many wait, or it was closed."""
        if self._closed or (self._running >= AT_ONCE and len(self._waiting) >= QUEUE_MAX):
            self.dropped += 1
            return False
        self._waiting.append((send, copy_context()))
        self._begin()
        return True

    def _begin(self) -> None:
        """Send what waits, as far as there is room: each in the context of its call, which has its span."""
        while self._waiting and self._running < AT_ONCE:
            send, context = self._waiting.popleft()
            self._running += 1
            context.run(self._supervisor.spawn, self._run(send), "mirror a call")

    async def _run(self, send: Send) -> None:
        try:
            await self._send(send)
        finally:
            self._running -= 1
            self._begin()

    async def _send(self, send: Send) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                await send()
            self.sent += 1
        except Exception as exc:
            self.failed += 1
            log.debug("the copy of a call failed: %r", exc)

    async def aclose(self) -> None:
        """End the copies under way, and send no more."""
        self._closed = True
        self._waiting.clear()
        await self._supervisor.aclose()
