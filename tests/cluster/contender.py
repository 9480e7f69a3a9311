"""A process that contends for the lock and the leadership of the cluster tests, and says in JSON lines what it does.

It is told what to do by lines on its standard input: `hold lock`, `hold term` (keep the next one), `stop`. Moments are
on the clock that all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import osdisco
from osdisco.backend import ABSENT, Put, Revision
from osdisco.client import Client
from osdisco.coordination import CoordinationService
from osdisco.errors import ConflictError, IndeterminateError, LostError, OsdiscoError, UnavailableError

TROUBLE = UnavailableError, IndeterminateError


class Contender:
    """One process, whose lock and leadership hang on one session."""

    def __init__(self, client: Client, chance: random.Random) -> None:
        self._client = client
        self._chance = chance
        self._coordination = CoordinationService(client)
        self._held: set[str] = set()
        self._kept: dict[str, tuple[Any, str]] = {}
        self._stopped = False

    def say(self, kind: str, what: str = "", token: int = 0, **more: Any) -> float:
        """Tell what happens, and return when."""
        at = self._client.runtime.clock.now()
        event = {"at": at, "who": self._client.runtime.name, "kind": kind, "what": what, "token": token, **more}
        print(json.dumps(event), flush=True)
        return at

    async def obey(self) -> None:
        """Do as told, until told to stop or nobody is there to tell."""
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        self.say("ready")
        async for line in reader:
            if line == b"stop\n":
                break
            self._held.add(line.decode().removeprefix("hold ").strip())
        self._stopped = True

    async def contend(self, what: str) -> None:
        """Take one turn after the other."""
        while not self._stopped:
            self.say("waits", what)
            try:
                async with self._turn(what) as handle:
                    await self._work(what, handle)
            except LostError as exc:
                self.say("lost", what, reason=str(exc))
                if what in self._kept:
                    await self._write_late(what, *self._kept.pop(what))
            except TROUBLE as exc:
                self.say("trouble", what, reason=str(exc))
            await asyncio.sleep(self._chance.uniform(0, 0.1))

    def _turn(self, what: str) -> AbstractAsyncContextManager[Any]:
        if what == "lock":
            return self._coordination.lock("job").acquire()
        return self._coordination.election("job").campaign()

    async def _work(self, what: str, handle: Any) -> None:
        believed = self.say("acquired", what, handle.token)
        turns, number = self._chance.randint(1, 3), 0
        keep = what in self._held
        if keep:
            self._held.discard(what)
            self._kept[what] = handle, await self._entry(what, handle.token)
        try:
            while number < turns or keep:
                handle.check()
                believed = self.say("writes", what, handle.token, number=number)
                await self._write(what, handle, number)
                if keep and number == 0:
                    self.say("holding", what, handle.token)
                number += 1
                await asyncio.sleep(self._chance.uniform(0.01, 0.05))
            handle.check()
            believed = self._client.runtime.clock.now()
        finally:
            self.say("ended", what, handle.token, believed=believed)

    async def _write(self, what: str, handle: Any, number: int) -> None:
        record, resource = f"log/{what}/{handle.token:020}/{number:06}", f"resource/{what}"
        who = self._client.runtime.name.encode()
        try:
            put = await handle.commit([Put(record, who), Put(resource, b"%d" % handle.token)], {record: ABSENT})
        except IndeterminateError:
            self.say("unknown", what, handle.token, number=number)
        else:
            self.say("wrote", what, handle.token, number=number, revision=put[record])

    async def _entry(self, what: str, token: int) -> str:
        """Return the key that the handle's commits are guarded by."""
        prefix = "lock/job/" if what == "lock" else "election/job/"
        items = (await self._client.scan(prefix)).items
        return next(key for key, item in items.items() if item.created == token)

    async def _write_late(self, what: str, handle: Any, entry: str) -> None:
        """Try what a write that was on its way all the time would do."""
        late = [Put(f"late/{what}", b"%d" % handle.token)]
        try:
            await handle.commit(late)
        except LostError:
            self.say("refused", what, handle.token, by="handle")
        while True:
            try:
                await self._client.commit(late, {entry: Revision(handle.token)})
            except ConflictError:
                self.say("refused", what, handle.token, by="store")
                return
            except TROUBLE:
                await asyncio.sleep(0.1)
            else:
                self.say("applied late", what, handle.token)
                return

    async def stay(self, what: str) -> None:
        """Hold something of one's own for as long as the process lives, and write all the time."""
        name = f"of {self._client.runtime.name}"
        lock, election = self._coordination.lock(name), self._coordination.election(name)
        async with lock.acquire() if what == "lock" else election.campaign() as handle:
            self.say("stays", what, handle.token)
            while not self._stopped:
                try:
                    await handle.commit([Put(f"steady/{self._client.runtime.name}/{what}", b"")])
                    self.say("steady", what, handle.token)
                except TROUBLE as exc:
                    self.say("trouble", what, reason=str(exc))
                await asyncio.sleep(0.1)


@asynccontextmanager
async def connected(url: str, name: str) -> AsyncIterator[Client]:
    async with osdisco.connect(url, name=name) as client:
        while True:
            try:
                await client.shared_session()
                break
            except OsdiscoError:
                await asyncio.sleep(0.1)
        yield client


async def main(url: str, name: str, seed: str) -> None:
    """Contend, or just stay when the name says so."""
    async with connected(url, name) as client:
        contender = Contender(client, random.Random(seed))
        life = contender.stay if name.startswith("steady") else contender.contend
        async with asyncio.TaskGroup() as group:
            group.create_task(contender.obey())
            for what in ("lock", "term"):
                group.create_task(life(what))
    contender.say("closed")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
