"""The processes of a run: started, listened to, told what to do, killed and stopped."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from attrs import define, field
from chronicle import Chronicle, Event

from osdisco.runtime import SystemClock

CONTENDER = Path(__file__).with_name("contender.py")


@define(eq=False)
class Member:
    """One process."""

    name: str
    process: asyncio.subprocess.Process
    listening: asyncio.Task[None] = field(repr=False)

    def tell(self, command: str) -> None:
        """Tell it to do something."""
        assert self.process.stdin is not None
        self.process.stdin.write(command.encode() + b"\n")


class Fleet:
    """Processes on `urls`, by the prefix of their names. `async with` ends those that are left, by SIGKILL."""

    def __init__(self, chance: random.Random, urls: Callable[[str], str]) -> None:
        self.chance = chance
        self.chronicle = Chronicle()
        self.members: dict[str, Member] = {}
        self.now = SystemClock().now
        self._urls = urls
        self._heard = asyncio.Condition()
        self._number = 0

    async def start(self, *kinds: str) -> None:
        """Start processes; returns when all are there."""
        names = [await self._launch(kind) for kind in kinds]
        for name in names:
            await self.heard("ready", who=name, within=30)

    async def _launch(self, kind: str) -> str:
        self._number += 1
        name = f"{kind}-{self._number}"
        arguments = str(CONTENDER), self._urls(kind), name, str(self.chance.random())
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        self.members[name] = Member(name, process, asyncio.ensure_future(self._listen(process)))
        return name

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            with suppress(ValueError):  # the last words of one that was killed
                await self._add(Event(**json.loads(line)))

    async def _add(self, event: Event) -> None:
        self.chronicle.events.append(event)
        async with self._heard:
            self._heard.notify_all()

    async def heard(
        self, *kinds: str, what: str = "", who: str = "", since: float = 0.0, times: int = 1, within: float
    ) -> Event:
        """Wait until such an event was heard so many times; returns the last of them."""

        def found() -> list[Event]:
            return list(self.chronicle.of(*kinds, what=what, who=who, since=since))[:times]

        async with self._heard:
            try:
                async with asyncio.timeout(within):
                    await self._heard.wait_for(lambda: len(found()) >= times or self._deaths())
            except TimeoutError:
                what_was_awaited = f"{kinds} of {what or 'all'} by {who or 'anybody'}, {times} times"
                raise AssertionError(f"waited {within} s in vain for {what_was_awaited}: {found()}") from None
        assert not self._deaths(), f"{self._deaths()} ended by themselves"
        return found()[-1]

    def _deaths(self) -> list[str]:
        return [name for name, member in self.members.items() if member.process.returncode is not None]

    @property
    def contenders(self) -> list[str]:
        """The names of those that take turns."""
        return [name for name in self.members if not name.startswith("steady")]

    async def holding(self, what: str) -> Event:
        """Let one process hold what it gets next, until the end of its days or its lease."""
        name = self.chance.choice(self.contenders)
        since = self.now()
        self.members[name].tell(f"hold {what}")
        return await self.heard("holding", what=what, who=name, since=since, within=20)

    async def kill(self, holding: Event) -> None:
        """Kill a holder, and start another process in its place."""
        member = self.members.pop(holding.who)
        member.process.kill()
        await self._add(Event(at=self.now(), who=member.name, kind="killed", what=holding.what, token=holding.token))
        await self._end(member)
        await self._launch(member.name.partition("-")[0])

    async def stop(self, holding: Event) -> None:
        """Let a holder stand still, if it still is one."""
        self.members[holding.who].process.send_signal(signal.SIGSTOP)
        at = self.now()
        await asyncio.sleep(0.2)  # until what it has said is heard
        lost = self._has_ended(holding)
        what, token = ("", 0) if lost else (holding.what, holding.token)
        await self._add(Event(at=at, who=holding.who, kind="stopped", what=what, token=token))

    def _has_ended(self, holding: Event) -> bool:
        return any(event.token == holding.token for event in self.chronicle.of("ended", what=holding.what))

    async def go_on(self, holding: Event) -> None:
        """Let it go on; returns when it was told by handle and store that it holds nothing any more."""
        since, lost = self.now(), self._has_ended(holding)
        await self._add(Event(at=since, who=holding.who, kind="continued"))
        self.members[holding.who].process.send_signal(signal.SIGCONT)
        if not lost:
            await self.heard("refused", who=holding.who, since=since, times=2, within=15)

    async def finish(self, within: float) -> None:
        """Tell all to stop; each must end well."""
        members, self.members = list(self.members.values()), {}
        for member in members:
            member.tell("stop")
        async with asyncio.timeout(within):
            codes = {member.name: await member.process.wait() for member in members}
            for member in members:
                await member.listening
        assert set(codes.values()) == {0}, codes

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end(*self.members.values())

    async def _end(self, *members: Member) -> None:
        for member in members:
            with suppress(ProcessLookupError):
                member.process.kill()
        for member in members:
            await member.process.wait()
            await member.listening
