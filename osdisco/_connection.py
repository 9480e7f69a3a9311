"""A backend with what core adds to every call: one deadline over all attempts, and retries where nothing was applied.

One connection serves a client, all its scoped clients and everything built on them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

from osdisco._tasks import Supervisor
from osdisco.errors import ClosedError, UnavailableError
from osdisco.runtime import Runtime
from osdisco.url import ClientOptions

if TYPE_CHECKING:
    from osdisco.backend import Backend, Condition, Item, Op, Snapshot

T = TypeVar("T")
C = TypeVar("C")

PAUSE_MIN = 0.05
PAUSE_MAX = 1.0
LASTING = 5.0
"""Seconds after which a watch that breaks is no failure of its opening: the pauses between openings begin anew."""


class Connection:
    """Calls of a backend under a deadline. `timeout` is seconds for one operation, all attempts."""

    def __init__(self, backend: Backend, runtime: Runtime, options: ClientOptions | None = None) -> None:
        self.backend = backend
        self.runtime = runtime
        self.options = options or ClientOptions()
        self.supervisor = Supervisor()  # what runs until it is cancelled: watches, renewals
        self.finishing = Supervisor()  # what must come to its end: mutations of recipes, removals, revokes
        self.closed = False
        self._companions: dict[type[object], object] = {}

    def companion(self, kind: type[C], make: Callable[[], C]) -> C:
        """Return what is kept for this connection, one of each kind; `make` makes the first.

        It may refer to the connection. In a weak dictionary of connections it would then keep its own key alive.
        """
        if kind not in self._companions:
            self._companions[kind] = make()
        return cast(C, self._companions[kind])

    def check_open(self) -> None:
        """Raise ClosedError when the client was closed."""
        if self.closed:
            raise ClosedError("the client is closed; connect again")

    async def get(self, key: str, timeout: float | None = None) -> Item | None:
        """Read one key; tries again while the store is unavailable."""
        timeout = self.options.timeout if timeout is None else _some(timeout)
        deadline = self.runtime.clock.now() + timeout
        try:
            return await self.backend.get(key, timeout=_share(timeout))
        except UnavailableError as exc:
            self.check_open()
            return await self._again(lambda left: self.backend.get(key, timeout=_share(left)), deadline, exc)

    async def scan(self, prefix: str, timeout: float | None = None) -> Snapshot:
        """Read a prefix; tries again while the store is unavailable."""
        timeout = self.options.timeout if timeout is None else _some(timeout)
        deadline = self.runtime.clock.now() + timeout
        try:
            return await self.backend.scan(prefix, timeout=_share(timeout))
        except UnavailableError as exc:
            self.check_open()
            return await self._again(lambda left: self.backend.scan(prefix, timeout=_share(left)), deadline, exc)

    async def commit(
        self, ops: Sequence[Op], expect: Mapping[str, Condition], timeout: float | None = None
    ) -> Mapping[str, int]:
        """Commit; tries again only after an error that proves that nothing was applied."""
        timeout = self.options.timeout if timeout is None else _some(timeout)
        deadline = self.runtime.clock.now() + timeout
        try:
            return await self.backend.commit(ops, expect, timeout=timeout)
        except UnavailableError as exc:
            self.check_open()
            return await self._again(lambda left: self.backend.commit(ops, expect, timeout=left), deadline, exc)

    async def attempt_and_look(
        self, ops: Sequence[Op], expect: Mapping[str, Condition], prefix: str
    ) -> tuple[Mapping[str, int], Mapping[str, Item] | None]:
        """Attempt a commit, and tell what stands under a prefix right after it, if there is one and the store can."""
        if not prefix:
            return await self.attempt(ops, expect), None
        return await self.patiently(
            lambda left: self.backend.commit_and_scan(ops, expect, prefix, timeout=left), _share(self.options.timeout)
        )

    async def patiently(self, call: Callable[[float], Awaitable[T]], timeout: float | None = None) -> T:
        """Run any call that may be repeated, with what is left of the deadline, until it is answered."""
        timeout = self.options.timeout if timeout is None else _some(timeout)
        deadline = self.runtime.clock.now() + timeout
        try:
            return await call(timeout)
        except UnavailableError as exc:
            self.check_open()
            return await self._again(call, deadline, exc)

    async def attempt(self, ops: Sequence[Op], expect: Mapping[str, Condition]) -> Mapping[str, int]:
        """Commit what its caller can try again when the outcome is unknown, for at most half of an operation's time.

        A silent endpoint then leaves time for the next one.
        """
        return await self.commit(ops, expect, _share(self.options.timeout))

    async def _again(self, call: Callable[[float], Awaitable[T]], deadline: float, last: UnavailableError) -> T:
        now = self.runtime.clock.now
        pause, attempts = 0.0, 1  # the first repeat goes to the next endpoint at once
        while (left := deadline - now() - pause) > 0:
            await asyncio.sleep(pause)
            attempts += 1
            try:
                return await call(left)
            except UnavailableError as exc:
                last = exc
            self.check_open()
            pause = self.runtime.jittered(min(max(PAUSE_MIN, 2 * pause), PAUSE_MAX))
        raise UnavailableError(f"{last} (gave up after {attempts} attempts)") from last


def _some(timeout: float) -> float:
    """Refuse to send what could not be answered in time: a mutation would be of unknown outcome for nothing."""
    if timeout <= 0:
        raise UnavailableError("no time is left to ask the store; nothing was sent")
    return timeout


def _share(timeout: float) -> float:
    """Let one silent endpoint use up only half of a read's time; the next attempt asks another one."""
    return max(timeout / 2, min(timeout, 1.0))


def backoff(runtime: Runtime, failures: int) -> float:
    """Return the seconds to wait before trying again, jittered: 50 ms doubling up to 5 s."""
    return runtime.jittered(min(PAUSE_MIN * 2.0 ** min(failures, 10), 5.0))
