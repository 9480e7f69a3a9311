"""Three services under load: one instance of each is killed, a bad version is rolled back, a good one takes its place.

python run.py [URL]        on a store, each instance in a process of its own; without a URL all in this one, on memory

It says what happens, and ends with 1 when something that the mesh promises did not.
"""

import asyncio
import itertools
import logging
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from instances import Process, Task
from service import RETRIES
from suggest import NAMES, Suggestions, Typed

import osdisco
from osdisco.errors import RemoteError, ServiceMeshError
from osdisco.mesh import CanaryController, CanaryPhase, CanaryPlan, CanaryState, ExtensionServiceMesh, TrafficRules

INSTANCES = [
    ("audit", "1.0.0", 2),
    ("geo", "1.0.0", 3),
    ("geo", "2.0.0", 1),
    ("geo", "2.1.0", 2),
    ("suggest", "1.0.0", 2),
]
USERS = 8
PAUSE = 0.03  # seconds between two calls of a user
PATIENCE = 60.0  # seconds for anything
SUBSETS = {"v1": {"version": "<2"}, "bad": {"version": "==2.0.0"}, "good": {"version": "==2.1.0"}}
RULES = {"subsets": SUBSETS, "default_subset": "v1", "failover": {"bad": [{"subset": "v1"}]}}
STEPS = {"interval": 1, "step": 25, "max_weight": 50, "threshold": 3}  # a canary in seconds; the default is minutes

started = time.monotonic()


class BrokenPromiseError(Exception):
    """Something that should not have happened."""


def say(text: str) -> None:
    print(f"{time.monotonic() - started:6.2f} s  {text}", flush=True)


def promise(kept: object, what: str) -> None:
    if not kept:
        raise BrokenPromiseError(what)


@asynccontextmanager
async def waiting_for(what: str) -> AsyncGenerator[None, None]:
    try:
        async with asyncio.timeout(PATIENCE):
            yield
    except TimeoutError:
        raise BrokenPromiseError(f"{what}: not within {PATIENCE:g} s") from None


class Users:
    """Callers of `suggest`, all the time; `results` is what came back, in order."""

    def __init__(self, mesh: ExtensionServiceMesh) -> None:
        self.results: list[Suggestions | ServiceMeshError] = []
        self._mesh = mesh
        self._more = asyncio.Event()

    async def call(self, user: str) -> None:
        for name in itertools.cycle(NAMES):
            try:
                typed, sender = Typed(name[:2]), {"user": user}
                found = await self._mesh.call(
                    "suggest", "complete", typed, response_type=Suggestions, timeout=4, metadata=sender
                )
                promise(name in found.places and found.audit, f"{user} typed {typed.text} and got {found}")
                self.results.append(found)
            except ServiceMeshError as exc:
                self.results.append(exc)
            self._more.set()
            await asyncio.sleep(PAUSE)

    async def until(self, done: Callable[[], object], what: str) -> None:
        async with waiting_for(what):
            while not done():
                self._more.clear()
                await self._more.wait()

    async def all_well(self, number: int, what: str) -> None:
        """Wait for so many more answers. No error may be among them."""
        begin = len(self.results)
        await self.until(lambda: len(self.results) >= begin + number, what)
        failed = self.failed_since(begin)
        promise(not failed, f"{what}: {len(failed)} calls failed, with {failed[:1]}")

    def failed_since(self, begin: int) -> list[ServiceMeshError]:
        return [one for one in self.results[begin:] if isinstance(one, ServiceMeshError)]

    def versions_of_last(self, number: int) -> set[str]:
        return {one.geo if isinstance(one, Suggestions) else type(one).__name__ for one in self.results[-number:]}


class Play:
    """All of it, in order."""

    def __init__(self, url: str, client: osdisco.Client, mesh: ExtensionServiceMesh) -> None:
        self._kind = Task if url.startswith("memory:") else Process
        self._url = url
        self._rules = TrafficRules(client)
        self._running: list[Process | Task] = []
        self._users = Users(mesh)

    async def play(self) -> None:
        await self._start()
        async with asyncio.TaskGroup() as group:
            calling = [group.create_task(self._users.call(f"user-{number}")) for number in range(USERS)]
            await self._users.all_well(200, "all well")
            promise(self._users.versions_of_last(200) == {"1.0.0"}, "a version was called that the rules do not name")
            say("200 calls from users to suggest, and from there to geo 1.0.0 and audit: no error")
            await self.fail_over()
            await self.bad_canary()
            await self.good_canary()
            for task in calling:
                task.cancel()
        counted = Counter(type(one).__name__ for one in self._users.results)
        say(f"all in all: {dict(counted)}")

    async def _start(self) -> None:
        await self._rules.set("geo", RULES)  # first of all: a new version gets no call before somebody says so
        for name, version, number in INSTANCES:
            self._running += [await self._kind.start(self._url, name, version) for _ in range(number)]
        async with waiting_for("all instances to serve"):
            await asyncio.gather(*(one.ready() for one in self._running))
        say(", ".join(f"{number} x {name} {version}" for name, version, number in INSTANCES))

    async def fail_over(self) -> None:
        for name in ("audit", "geo", "suggest"):
            victim = next(one for one in self._running if one.name == name)
            await victim.kill()
            await self._users.all_well(200, f"one {name} was killed")
            say(f"one {name} killed ({victim.kill_is}): no error in the next 200 calls")

    async def bad_canary(self) -> None:
        begin = len(self._users.results)
        state = await self._canary("bad")
        promise(state.phase is CanaryPhase.ROLLED_BACK, f"the bad version is {state.phase.value}: {state.last}")
        await self._users.until(lambda: self._users.versions_of_last(100) == {"1.0.0"}, "all calls are back at 1.0.0")
        failed, made = self._users.failed_since(begin), len(self._users.results) - begin
        others = [one for one in failed if not (isinstance(one, RemoteError) and one.type == "BrokenIndex")]
        promise(not others, f"calls failed for another reason than the bad version: {others[:1]}")
        promise(len(failed) <= made * STEPS["max_weight"] / 100, f"{len(failed)} of {made} calls failed")
        say(f"geo 2.0.0 rolled back by itself: {state.last}")
        say(f"it cost {len(failed)} of {made} calls; the last 100 were answered by 1.0.0")
        await self._users.all_well(100, "after the bad version")

    async def good_canary(self) -> None:
        begin = len(self._users.results)
        state = await self._canary("good")
        promise(state.phase is CanaryPhase.PROMOTED, f"the good version is {state.phase.value}: {state.last}")
        await self._users.until(lambda: self._users.versions_of_last(100) == {"2.1.0"}, "all calls are at 2.1.0")
        failed = self._users.failed_since(begin)
        promise(not failed, f"the good version cost {len(failed)} calls, with {failed[:1]}")
        say(f"geo 2.1.0 promoted by itself: {state.last}; no error, the last 100 calls were answered by it")

    async def _canary(self, subset: str) -> CanaryState:
        """Begin a canary; returns it when it is over."""
        plan = CanaryPlan("v1", subset, **STEPS)
        weight = 0.0
        async with waiting_for(f"the end of the canary {subset!r}"), self._rules.view() as view:
            begun = await self._rules.canary("geo", plan)
            while True:
                await view.until(lambda rules: rules["geo"].version >= begun.version and rules["geo"].canary)
                state = view["geo"].canary
                if not state.running:
                    return state
                if state.weight != weight:
                    weight = state.weight
                    say(f"the canary {subset!r} gets {weight:g} % of the calls")
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        left = []
        for name in ("suggest", "geo", "audit"):  # who calls leaves before whom it calls
            left += await asyncio.gather(*(one.stop() for one in self._running if one.name == name))
        await self._rules.remove("geo")
        promise(all(left), "an instance ended otherwise than it should")


async def main(url: str) -> None:
    async with osdisco.connect(url) as client, ExtensionServiceMesh(client, retry_policies=RETRIES) as mesh:
        play = Play(url, client, mesh)
        async with CanaryController(client):
            try:
                await play.play()
            finally:
                await play.stop()
    say("done: every promise was kept")


if __name__ == "__main__":
    logging.getLogger("osdisco").setLevel(logging.CRITICAL)
    try:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "memory://example"))
    except* BrokenPromiseError as group:
        sys.exit(f"broken: {group.exceptions[0]}")
