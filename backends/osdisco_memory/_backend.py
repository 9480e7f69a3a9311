"""Memory: the adapter of a store in this process. Calls need neither a task nor a timer, unless a fault is set."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from typing import Any, Final, Self, TypeVar

from osdisco import __version__
from osdisco.backend import (
    WATCH_SILENCE,
    Backend,
    Batch,
    Condition,
    EndpointStatus,
    Item,
    Lease,
    LeaseStatus,
    Limits,
    Op,
    Snapshot,
)
from osdisco.errors import (
    ClosedError,
    ConfigError,
    OsdiscoError,
    UnavailableError,
)
from osdisco.runtime import Runtime
from osdisco.url import ClientOptions, StoreURL
from osdisco_memory._faults import Effect, Faults, Request, Rule, refuse, unanswered
from osdisco_memory._store import MemoryStore
from osdisco_memory._watching import Subscription

T = TypeVar("T")

Keys = Callable[[], Collection[str]]
"""The keys that a call names; only faults ask for them."""

_NONE: Final[Keys] = tuple

CONTACT: Final = 10.0
"""Seconds after which an idle watch says that the store is there."""


class MemoryBackend(Backend):
    """One client of a `MemoryStore`. `faults` is its own way to the store, `store.faults` is everybody's."""

    def __init__(self, store: MemoryStore, runtime: Runtime | None = None) -> None:
        self.store = store
        self.faults = Faults(store.wake)
        self._runtime = runtime or Runtime()
        self._closed = False
        self._waiting: dict[Request, str] = {}
        store.attach(self._runtime.clock)

    @classmethod
    def from_url(cls, url: StoreURL, runtime: Runtime) -> Self:
        """Open `memory://` (a store of its own) or `memory://NAME`."""
        url.structure(ClientOptions)
        if url.username or url.password:
            raise ConfigError("memory:// takes no user or password: nothing outside of this process can reach it")
        if len(url.hosts) > 1 or any(host.port for host in url.hosts):
            raise ConfigError("memory:// takes one name without a port, as in memory://NAME/NAMESPACE")
        return cls(MemoryStore.named(url.hosts[0].name) if url.hosts else MemoryStore(), runtime)

    @property
    def limits(self) -> Limits:  # type: ignore[override]
        """What the store takes."""
        return self.store.limits

    async def get(self, key: str, *, timeout: float) -> Item | None:
        """Read one key."""
        return await self._call("get", lambda: (key,), lambda: self.store.get(key), timeout)

    async def scan(self, prefix: str, *, timeout: float) -> Snapshot:
        """Read all under a prefix."""
        return await self._call("scan", lambda: (prefix,), lambda: self.store.scan(prefix), timeout)

    async def commit(self, ops: Sequence[Op], expect: Mapping[str, Condition], *, timeout: float) -> Mapping[str, int]:
        """Apply all or nothing."""
        return await self._call("commit", lambda: _named(ops, expect), lambda: self.store.commit(ops, expect), timeout)

    async def commit_and_scan(
        self, ops: Sequence[Op], expect: Mapping[str, Condition], prefix: str, *, timeout: float
    ) -> tuple[Mapping[str, int], Mapping[str, Item] | None]:
        """Apply all or nothing, and read."""
        return await self._call(
            "commit", lambda: _named(ops, expect), lambda: self.store.commit_and_scan(ops, expect, prefix), timeout
        )

    async def watch(self, target: str, *, after: int | None = None) -> AsyncGenerator[Snapshot | Batch, None]:
        """Follow a key or a prefix."""
        self._check_open()
        sub = Subscription(target)
        self._check_watch(target)
        self.store.subscribe(sub, after)
        try:
            last = self._now() if after is None else self._now() - CONTACT  # resumed: tells at once that it is
            while True:
                delay = self._check_watch(target)
                frame = None if self._frozen else self.store.frame(sub) or self._contact(sub, last)
                if frame is not None:
                    if delay:
                        await asyncio.sleep(delay)
                    yield frame
                    last = self._now()
                elif self._now() - last >= WATCH_SILENCE:
                    raise UnavailableError(f"the watch of {target!a} heard nothing for {WATCH_SILENCE:.0f} s")
                else:
                    silence = WATCH_SILENCE if self._frozen else CONTACT
                    await sub.wait(max(last + silence - self._now(), 0.001))
        finally:
            self.store.unsubscribe(sub)

    async def grant(self, ttl: float, *, timeout: float) -> Lease:
        """Open a lease."""
        lease_id = self._runtime.unique()
        return await self._call("grant", _NONE, lambda: self.store.grant(ttl, lease_id), timeout)

    async def renew(self, lease: Lease, *, timeout: float) -> float:
        """Renew a lease."""
        return await self._call("renew", _NONE, lambda: self.store.renew(lease.id), timeout, false=lease.ttl)

    async def revoke(self, lease: Lease, *, timeout: float) -> None:
        """End a lease with its keys."""
        await self._call("revoke", _NONE, lambda: self.store.revoke(lease.id), timeout)

    async def lease_status(self, lease: str, *, timeout: float) -> LeaseStatus | None:
        """Tell how long a lease lasts."""
        return await self._call("lease_status", _NONE, lambda: self.store.lease_status(lease), timeout)

    async def inspect(self, *, timeout: float) -> Sequence[EndpointStatus]:
        """Tell how the store is."""
        endpoint = f"memory://{self.store.name}"
        sent = self._now()
        try:
            await self.get("inspect", timeout=timeout)
        except OsdiscoError as exc:
            return [EndpointStatus(endpoint, error=str(exc))]
        return [
            EndpointStatus(
                endpoint, version=__version__, leader=True, latency=self._now() - sent, server_time=self.store.wall()
            )
        ]

    async def aclose(self) -> None:
        """End watches and whatever waits."""
        if self._closed:
            return
        self._closed = True
        for request, call in self._waiting.items():
            request.fail(unanswered(call, "the backend was closed before the answer came"))
        self.store.detach()
        self.store.wake()

    def _now(self) -> float:
        return self._runtime.clock.now()

    @property
    def _frozen(self) -> bool:
        return self.faults.frozen or self.store.faults.frozen

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this backend is closed")

    async def _call(
        self, call: str, keys: Keys, apply: Callable[[], T], timeout: float, *, false: T | None = None
    ) -> T:
        self._check_open()
        if self.faults.active or self.store.faults.active:
            return await self._troubled(call, keys(), apply, timeout, false)
        return await self._at_once(apply)

    async def _at_once(self, apply: Callable[[], T]) -> T:
        await asyncio.sleep(0)  # as with any store, others run while one waits
        self._check_open()
        return apply()

    async def _troubled(
        self, call: str, keys: Collection[str], apply: Callable[[], T], timeout: float, false: T | None
    ) -> T:
        rules = self.faults.meet(call, keys) + self.store.faults.meet(call, keys)
        decided = next((rule for rule in rules if rule.effect is not Effect.DELAY), None)
        match decided:
            case Rule(effect=Effect.OUTAGE | Effect.DENY | Effect.DROP):
                refuse(call, decided)
            case Rule(effect=Effect.LATE):
                request = Request(apply)
                request.answer.cancel()
                self.store.later(self.store.time() + decided.request, request.arrive)
                raise unanswered(call, "the answer was lost")
            case Rule(effect=Effect.FALSE_RENEW):
                assert false is not None
                answer, apply = false, lambda: answer
        deadline = asyncio.get_running_loop().time() + timeout
        result: T = await self._send(call, apply, sum(rule.request for rule in rules), deadline)
        await self._wait_back(call, sum(rule.answer for rule in rules), deadline)
        if decided is not None and decided.effect is Effect.DROP_ANSWER:
            raise unanswered(call, "the answer was lost")
        return result

    async def _send(self, call: str, apply: Callable[[], Any], seconds: float, deadline: float) -> Any:
        frozen = next((faults for faults in (self.faults, self.store.faults) if faults.frozen), None)
        if not seconds and frozen is None:
            return await self._at_once(apply)
        request = Request(apply)
        if frozen is not None:
            frozen.hold(request)
        else:
            self.store.later(self.store.time() + seconds, request.arrive)
        self._waiting[request] = call
        self.store.alarms.enter()
        try:
            async with asyncio.timeout_at(deadline):
                return await request.answer
        except TimeoutError:
            raise unanswered(call, "no answer came in time") from None
        finally:
            self.store.alarms.leave(asyncio.get_running_loop())
            del self._waiting[request]

    async def _wait_back(self, call: str, seconds: float, deadline: float) -> None:
        if not seconds:
            return
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.sleep(seconds)
        except TimeoutError:
            raise unanswered(call, "no answer came in time") from None

    def _check_watch(self, target: str) -> float:
        """Raise what ends a watch; return by how many seconds its frames are delayed."""
        self._check_open()
        if not (self.faults.active or self.store.faults.active):
            return 0.0
        rules = self.faults.meet("watch", (target,)) + self.store.faults.meet("watch", (target,))
        for rule in rules:
            if rule.effect is not Effect.DELAY:
                refuse("watch", rule)
        return sum(rule.answer for rule in rules)

    def _contact(self, sub: Subscription, last: float) -> Snapshot | Batch | None:
        return self.store.contact(sub) if self._now() - last >= CONTACT else None


def _named(ops: Sequence[Op], expect: Mapping[str, Condition]) -> Collection[str]:
    return {op.key for op in ops} | expect.keys()
