"""Signals: the first begins leaving, the second ends the wait, and what was there before comes after it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

import osdisco
from osdisco.discovery import DiscoveryService, ExtensionInfo
from osdisco.errors import ConfigError
from osdisco.integrations import leave_on_signals, run_until_terminated
from osdisco.registry import ServiceDefinition, ServiceRegistry

PAGE = Path(__file__).parents[2] / "docs" / "discovery" / "leaving.md"
USR1, USR2 = signal.SIGUSR1, signal.SIGUSR2


class Service:
    """Leaves as a DiscoveryService does, and keeps what happened in order."""

    def __init__(self, story: list[str], *, fails: bool = False) -> None:
        self._story = story
        self._fails = fails
        self._hurried = asyncio.Event()

    async def stop(self, *, now: bool = False) -> None:
        self._story.append("stop now" if now else "stop")
        if now:
            self._hurried.set()
            return
        try:
            async with asyncio.timeout(0.05 if "short" in self._story else 20):
                await self._hurried.wait()
        except TimeoutError:
            self._story.append("drained")
        if self._fails:
            raise ZeroDivisionError


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (USR1, USR2)}
    yield
    now = {number: signal.getsignal(number) for number in before}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert now == before, "the handlers are not as they were"


def play(work: Callable[[list[str]], Coroutine[Any, Any, object]], *first: str) -> list[str]:
    story = list(first)
    asyncio.run(asyncio.wait_for(work(story), 30))
    return story[len(first) :]


def test_it_returns_when_all_have_left() -> None:
    async def work(story: list[str]) -> None:
        asyncio.get_running_loop().call_later(0.01, signal.raise_signal, USR1)
        assert await run_until_terminated(Service(story), Service(story), signals=(USR1, USR2)) is USR1
        story.append("returned")

    assert play(work, "short") == ["stop", "stop", "drained", "drained", "returned"]


def test_extensions_and_services_leave_together() -> None:
    async def work(story: list[str]) -> None:
        me = ExtensionInfo(id="geo", name="geo", version="1", host="h", port=1)
        definition = ServiceDefinition(name="geo", version="1", address="10.0.0.7:9700")
        async with osdisco.connect("memory://") as client, DiscoveryService(client, me) as discovery:
            await discovery.wait_registered(5)
            registration = await ServiceRegistry(client).register(definition)
            assert await ServiceRegistry(client).get_endpoints("geo")
            asyncio.get_running_loop().call_later(0.01, signal.raise_signal, USR1)
            await run_until_terminated(discovery, registration, signals=(USR1,))
            assert await ServiceRegistry(client).get_endpoints("geo") == []
            assert (await client.scan("ext/")).items == {}

    play(work)


def test_a_second_signal_ends_the_wait() -> None:
    async def work(story: list[str]) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(0.01, signal.raise_signal, USR1)
        loop.call_later(0.05, signal.raise_signal, USR2)
        assert await run_until_terminated(Service(story), signals=(USR1, USR2)) is USR1

    assert play(work) == ["stop", "stop now"]


def test_who_handled_it_before_is_told_once_all_have_left() -> None:
    async def work(story: list[str]) -> None:
        told = asyncio.Event()
        loop = asyncio.get_running_loop()

        def handler(number: int, frame: object) -> None:
            story.append("told")
            loop.call_soon_threadsafe(told.set)

        before = signal.signal(USR1, handler)
        try:
            async with leave_on_signals(Service(story), signals=(USR1,)):
                signal.raise_signal(USR1)
                await told.wait()
            assert signal.getsignal(USR1) is handler
        finally:
            signal.signal(USR1, before)

    assert play(work, "short") == ["stop", "drained", "told"]


def test_one_that_fails_to_leave_keeps_nobody() -> None:
    async def work(story: list[str]) -> None:
        asyncio.get_running_loop().call_later(0.01, signal.raise_signal, USR1)
        await run_until_terminated(Service(story, fails=True), signals=(USR1,))

    assert play(work, "short") == ["stop", "drained"]


def test_a_block_that_ends_waits_for_those_who_leave_and_is_not_told() -> None:
    async def work(story: list[str]) -> None:
        async with leave_on_signals(Service(story), then=lambda _: story.append("then"), signals=(USR1,)):
            signal.raise_signal(USR1)
            while not story[1:]:
                await asyncio.sleep(0)
        story.append("after")
        await asyncio.sleep(0)

    assert play(work, "short") == ["stop", "drained", "after"]


def test_a_block_without_a_signal_costs_nothing() -> None:
    async def work(story: list[str]) -> None:
        async with leave_on_signals(Service(story), signals=(USR1,)):
            pass

    assert play(work) == []


def test_a_handler_of_the_loop_needs_then() -> None:
    async def work(story: list[str]) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(USR2, lambda: None)
        with pytest.raises(ConfigError, match="SIGUSR2 has a handler of the event loop: give `then`"):
            async with leave_on_signals(Service(story), signals=(USR1, USR2)):
                pass
        loop.remove_signal_handler(USR2)

    assert play(work) == []


def test_outside_of_the_main_thread_it_is_refused() -> None:
    failures: list[BaseException] = []

    def run() -> None:
        with pytest.raises(ConfigError, match="only an event loop in the main thread") as caught:
            asyncio.run(run_until_terminated(signals=(USR1,)))
        failures.append(caught.value)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert failures


PROCESS = """
import asyncio, sys, osdisco
from osdisco.discovery import DiscoveryService, Drain, ExtensionInfo
from osdisco.integrations import run_until_terminated

async def main():
    me = ExtensionInfo(id="geo", name="geo", version="1", host="h", port=1)
    async with osdisco.connect("memory://") as client, DiscoveryService(client, me, drain=Drain(0.2, 60)) as discovery:
        await discovery.wait_registered(5)
        discovery.add_listener(lambda event: print(event.extension.status.value, event.new is None, flush=True))
        async with discovery.in_flight() if "busy" in sys.argv else asyncio.timeout(None):
            print((await run_until_terminated(discovery)).name, flush=True)

asyncio.run(main())
"""


def until_caught(pid: int, number: signal.Signals) -> None:
    """Wait until a process has a handler for a signal."""
    deadline = time.monotonic() + 20
    while True:
        (mask,) = re.findall(r"^SigCgt:\s+(\w+)", Path(f"/proc/{pid}/status").read_text(), re.M)
        if int(mask, 16) >> (number - 1) & 1:
            return
        assert time.monotonic() < deadline


def test_the_program_on_the_page_runs_as_printed() -> None:
    (program,) = re.findall(r"```py\n(.*?)```", PAGE.read_text(), re.S)
    environment = {**os.environ, "OSDISCO_URL": "memory://"}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"serving\n"
            until_caught(process.pid, signal.SIGTERM)
            process.terminate()
            assert (process.wait(20), process.stdout.read()) == (0, b"left on SIGTERM\n")
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("busy", [False, True])
def test_a_process_drains_and_ends_with_0(number: signal.Signals, busy: bool) -> None:
    """Busy for ever, it ends at a second signal."""
    with subprocess.Popen(
        [sys.executable, "-c", PROCESS, *(["busy"] if busy else [])], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"starting False\n"
            process.send_signal(number)
            assert process.stdout.readline() == b"stopping False\n"
            if busy:
                process.send_signal(number)
            assert process.wait(20) == 0
        finally:
            process.kill()
        assert process.stdout.read().endswith(f"{number.name}\n".encode())
