"""Where the demo's extensions live: in processes of their own, or, on memory, in threads of this one.

A thread has an event loop of its own. To crash it, the loop is stopped: from then on not one line of the extension
runs, as after SIGKILL. To pause it, the loop is blocked, as by SIGSTOP.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from abc import ABC, abstractmethod
from asyncio.subprocess import PIPE
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final, Self

from attrs import evolve, frozen

from osdisco._tasks import cancel
from osdisco.cli.demo._cast import Event
from osdisco.cli.demo._extension import Pause, Tell
from osdisco.cli.demo._facts import Facts
from osdisco.client import URL_VARIABLE, Client
from osdisco.runtime import SystemClock
from osdisco.url import StoreURL

SETTLE: Final = 0.02
"""Seconds for connections to be closed that nobody waits for."""
GOODBYE: Final = 8.0
"""Seconds that an extension gets to leave before it is killed."""

Life = Callable[["asyncio.Queue[str]", Tell, Pause], Coroutine[Any, Any, None]]
"""What is done: told what to do next, and to whom to tell, and how to pause."""


def in_scope(url: StoreURL, scope: str, ttl: float) -> StoreURL:
    """Return the URL of the demo's own namespace below the given one, with its ttl."""
    return evolve(url, namespace=f"{url.namespace}/{scope}", options={**url.options, "ttl": f"{ttl:g}s"})


@frozen
class Stage:
    """Where a demo plays: `client` is in the namespace `scope`, with leases of `ttl`, of which `asked` were asked for.

    `url` and `text` are as they were given.
    """

    client: Client
    url: StoreURL
    text: str
    scope: str
    asked: float
    ttl: float

    @property
    def local(self) -> bool:
        """Whether the store lives in this process."""
        return self.url.scheme == "memory"

    @property
    def scoped(self) -> StoreURL:
        """The URL of its own namespace."""
        return in_scope(self.url, self.scope, self.ttl)

    def facts(self) -> Facts:
        """Return the facts of a demo that begins now."""
        facts = Facts(self.client.runtime.clock.now())
        facts.ttl, facts.ttl_late = self.ttl, self.ttl * self.client.limits.expiry_factor
        return facts


class Actor(ABC):
    """One extension, as the director sees it. When it fails, the last event that it tells is `failed`."""

    def __init__(self, id_: str, events: asyncio.Queue[Event]) -> None:
        self.id: Final = id_
        self.crashed = False
        self._events = events

    @property
    @abstractmethod
    def place(self) -> str:
        """Where it lives, for people."""

    @abstractmethod
    def order(self, what: str) -> None:
        """Tell it what to do next."""

    @abstractmethod
    def crash(self) -> None:
        """End it without a goodbye."""

    @abstractmethod
    def resume(self) -> None:
        """Let it go on where it paused."""

    @abstractmethod
    async def aclose(self) -> None:
        """See to it that it ends, within about `GOODBYE` seconds."""

    def tell(self, event: Event) -> None:
        """Pass an event on, unless it should be dead."""
        if not self.crashed:
            self._events.put_nowait(event)

    def fail(self, why: str) -> None:
        """Tell that it failed."""
        self.tell(Event(SystemClock().now(), self.id, "failed", {"why": why}))


class ProcessActor(Actor):
    """A process. It leaves by itself when this one dies, because its stdin ends then."""

    def __init__(self, id_: str, events: asyncio.Queue[Event], process: asyncio.subprocess.Process) -> None:
        super().__init__(id_, events)
        self._process = process
        self._following = asyncio.get_running_loop().create_task(self._follow())

    @classmethod
    async def start(cls, id_: str, events: asyncio.Queue[Event], args: Sequence[str], url: str) -> Self:
        """Start a command of ours; the URL goes by the environment, which process lists do not show."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "osdisco.cli", *args),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env={**os.environ, URL_VARIABLE: url},
            # Ctrl-C is for the demo, which then ends its processes one by one. In its session all the same: the kernel
            # wakes what is stopped in a group whose session's last parent dies.
            process_group=0,
        )
        return cls(id_, events, process)

    @property
    def place(self) -> str:
        return f"process {self._process.pid}"

    def order(self, what: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n".encode())

    def crash(self) -> None:
        self.crashed = True
        self._process.kill()

    def resume(self) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGCONT)

    async def aclose(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self.resume()
        try:
            await asyncio.wait([self._following], timeout=GOODBYE)
        finally:
            if self._process.returncode is None:
                self._process.kill()
            await cancel(self._following)
            await self._process.wait()

    async def _follow(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        async for line in self._process.stdout:
            self.tell(self._heard(json.loads(line)))
        last_words = (await self._process.stderr.read()).decode(errors="replace").splitlines()[-1:]
        if code := await self._process.wait():
            why = "".join(last_words).removeprefix("osdisco: ")
            self.fail(f"it ended with code {code}: {why or 'without a word'}")

    def _heard(self, told: dict[str, Any]) -> Event:
        return Event(**told)


class ThreadActor(Actor):
    """A thread with an event loop of its own, for a store that lives in this process."""

    def __init__(self, id_: str, events: asyncio.Queue[Event], life: Life) -> None:
        super().__init__(id_, events)
        self._director = asyncio.get_running_loop()
        self._orders: asyncio.Queue[str] = asyncio.Queue()
        self._buried = threading.Event()
        self._resumed = threading.Event()
        self._done = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._life = self._loop.create_task(life(self._orders, self._tell_director, self._pause))
        threading.Thread(target=self._run, name=f"osdisco demo: {id_}", daemon=True).start()

    @property
    def place(self) -> str:
        return "a thread with its own event loop"

    def order(self, what: str) -> None:
        self._loop.call_soon_threadsafe(self._orders.put_nowait, what)

    def crash(self) -> None:
        self.crashed = True
        self._loop.call_soon_threadsafe(self._loop.stop)

    def resume(self) -> None:
        self._resumed.set()

    async def aclose(self) -> None:
        self._buried.set()
        self.resume()
        if not self.crashed and not self._done.is_set():
            self._loop.call_soon_threadsafe(self._life.cancel)
        async with asyncio.timeout(GOODBYE):
            await self._done.wait()

    def _pause(self) -> None:
        self._resumed.wait()
        self._resumed.clear()

    def _run(self) -> None:
        self._life.add_done_callback(self._stop)
        self._loop.run_forever()
        self._life.remove_done_callback(self._stop)
        if not self._life.done():  # crashed: nothing of it runs until all is over
            self._buried.wait()
            self._life.cancel()
        self._loop.run_until_complete(asyncio.wait([self._life]))
        self._loop.run_until_complete(asyncio.sleep(SETTLE))
        self._director.call_soon_threadsafe(self._end)

    def _stop(self, life: asyncio.Task[None]) -> None:
        self._loop.stop()

    def _end(self) -> None:
        self._loop.close()
        if not self._life.cancelled() and (exc := self._life.exception()) is not None:
            self.fail(str(exc))
        self._done.set()

    def _tell_director(self, event: Event) -> None:
        self._director.call_soon_threadsafe(self.tell, event)
