"""How a process of the benchmarks talks with its parent: a line of JSON each time, and a line for each step."""

from __future__ import annotations

import asyncio
import json
import sys


def say(**what: object) -> None:
    """Tell the parent."""
    print(json.dumps(what), flush=True)


async def told_by_parent() -> asyncio.StreamReader:
    """Return our input, on which the parent sends a line for each step."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader
