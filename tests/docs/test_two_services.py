"""The example of two services: they find each other, and one that leaves costs no request."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from osdisco.testing._api import free_port

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "two_services"


@asynccontextmanager
async def service(name: str, port: int, url: str) -> AsyncGenerator[asyncio.subprocess.Process, None]:
    command = (sys.executable, str(EXAMPLE / f"{name}.py"), str(port))
    process = await asyncio.create_subprocess_exec(*command, env={**os.environ, "OSDISCO_URL": url})
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.osdisco("etcd", "consul")
async def test_they_find_each_other_and_one_that_leaves_costs_no_request(osdisco_url: str) -> None:
    first, second, front = free_port(), free_port(), free_port()

    async def where(**query: str) -> tuple[int, int | None]:
        """Return the status and who answered."""
        async with session.get(f"http://127.0.0.1:{front}/where", params=query) as answer:
            return answer.status, (await answer.json())["by"] if answer.status == 200 else None

    async def until(status: int, by: int | None) -> None:
        while True:
            try:
                if await where(place="Oslo") == (status, by):
                    return
            except aiohttp.ClientConnectorError:  # it does not listen yet
                pass
            await asyncio.sleep(0.02)

    async with (
        asyncio.timeout(60),
        aiohttp.ClientSession() as session,
        service("front", front, osdisco_url),
        service("geo", first, osdisco_url) as leaving,
    ):
        await until(200, first)
        assert await where(place="Nowhere") == (404, None)
        slow = asyncio.ensure_future(where(place="Quito", takes="1.5"))
        async with service("geo", second, osdisco_url):
            await until(200, second)
            leaving.terminate()
            while leaving.returncode is None:
                assert (await where(place="Oslo"))[0] == 200
            assert (await slow, leaving.returncode) == ((200, first), 0)
            assert await where(place="Oslo") == (200, second)
        await until(503, None)
