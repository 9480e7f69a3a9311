"""Work on much text, which would hold the event loop for too long: the one place of the library that starts threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

ASIDE: Final = 128 * 1024
"""Bytes of text from which on a thread does the work: to take apart and build so many takes some 10 ms."""


async def aside(size: int, work: Callable[[], T]) -> T:
    """Do work on so many bytes of text, in a thread when they are many.

    Who is cancelled meanwhile goes at once; the thread comes to its end, and what it found is dropped. A loop in
    virtual time (its attribute `virtual`) knows nothing of threads: there work takes no time, and is done at once.
    """
    if size <= ASIDE or getattr(asyncio.get_running_loop(), "virtual", False):
        return work()
    return await asyncio.to_thread(work)
