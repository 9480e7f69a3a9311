"""Whether anybody still reads what a command that goes on writes."""

from __future__ import annotations

import asyncio
import select
import sys
from collections.abc import Coroutine
from typing import Any, Final

from osdisco._tasks import cancel

LOOK: Final = 0.5
"""Seconds between looks. Only the next write would tell otherwise, and that may be hours away."""


async def while_read(work: Coroutine[Any, Any, None]) -> None:
    """Do work until it ends. Raises BrokenPipeError when whoever read stdout has gone."""
    working = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait([working], timeout=LOOK))[0]:
            if _reader_is_gone():
                raise BrokenPipeError
        await working
    finally:
        await cancel(working)


def _reader_is_gone() -> bool:
    try:
        fileno = sys.stdout.fileno()
    except (OSError, ValueError):  # no file: somebody captures it
        return False
    poll = select.poll()
    poll.register(fileno, 0)
    return any(event & (select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))
