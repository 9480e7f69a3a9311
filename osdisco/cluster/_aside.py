"""Work on much text, which would hold the event loop for too long: the one place of the library that starts threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

ASIDE: Final = 1024 * 1024
"""Bytes of text from which on a thread does the work."""


async def aside(size: int, work: Callable[[], T]) -> T:
    """Do work on so many bytes of text, in a thread when they are many.

    Who is cancelled meanwhile goes at once; the thread comes to its end, and what it found is dropped.
    """
    return await asyncio.to_thread(work) if size > ASIDE else work()
