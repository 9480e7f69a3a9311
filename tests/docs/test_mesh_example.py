"""The example of three services keeps every promise on each store, and says so when one is broken."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "mesh"


@asynccontextmanager
async def running(*command: str) -> AsyncGenerator[asyncio.subprocess.Process, None]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def told(*command: str) -> tuple[int | None, list[str], str]:
    """Run to the end; returns the exit code, what was said, and what of errors."""
    async with asyncio.timeout(110), running(*command) as process:
        out, err = await process.communicate()
        return process.returncode, out.decode().splitlines(), err.decode()


def check(said: list[str], killed: str) -> None:
    text = "\n".join(said)
    assert text.count(f"killed ({killed}): no error in the next 200 calls") == 3
    assert "geo 2.0.0 rolled back by itself: 3 checks failed" in text
    assert "geo 2.1.0 promoted by itself" in text
    assert said[-1].endswith("done: every promise was kept")


async def test_in_one_process_on_memory() -> None:
    code, said, err = await told(str(EXAMPLE / "run.py"))
    assert (code, err) == (0, "")
    check(said, "its port is closed, and nobody is told")


@pytest.mark.osdisco("etcd", "etcd+http", "consul")
async def test_in_processes_on_a_store(osdisco_url: str) -> None:
    code, said, err = await told(str(EXAMPLE / "run.py"), osdisco_url)
    assert (code, err) == (0, "")
    check(said, "SIGKILL")


BREAK = """
import asyncio, sys
sys.path.insert(0, {example!r})
import geo, instances, run, osdisco.mesh
{broken}
try:
    asyncio.run(run.main("memory://broken"))
except* run.BrokenPromiseError as group:
    sys.exit(str(group.exceptions[0]))
"""

NO_RETRIES = "run.RETRIES = instances.RETRIES = osdisco.mesh.RetryPolicy(attempts=1)"
NO_CONTROL = "osdisco.mesh.CanaryController._check = lambda *_: asyncio.sleep(1)"


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (NO_RETRIES, "one audit was killed: [0-9]+ calls failed"),
        ("geo.BROKEN = '9'", "the bad version is promoted: good: 100.00 % of"),
        ("run.SUBSETS['good'] = run.SUBSETS['bad']", "the good version is rolled_back: 3 checks failed"),
        (f"{NO_CONTROL}; run.PATIENCE = 4", "the end of the canary 'bad': not within 4 s"),
        ("geo.BROKEN = '1.0.0'", "all well: [0-9]+ calls failed, with .RemoteError"),
    ],
)
async def test_a_promise_that_is_not_kept_ends_it(broken: str, words: str) -> None:
    code, said, err = await told("-c", BREAK.format(example=str(EXAMPLE), broken=broken))
    assert code == 1
    assert re.match(words, err.splitlines()[-1])
    assert not said[-1:] or not said[-1].endswith("every promise was kept")
