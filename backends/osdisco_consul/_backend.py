"""Consul: a lease is a session with Behavior=delete; it may outlive its ttl by one more ttl.

What differs from other stores: a watch is a row of blocking reads, each of which yields a whole Snapshot, so it
conflates and cannot resume; a put of the same bytes writes nothing. Keys of foreign writers that are not UTF-8 come out
with replacement characters, because Consul's JSON cannot hold them.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from attrs import evolve

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
from osdisco.errors import ClosedError, ConfigError, DeniedError, LimitError, OsdiscoError, UnavailableError
from osdisco.runtime import Runtime
from osdisco.url import StoreURL
from osdisco_consul._options import ConsulOptions, parse_options

if TYPE_CHECKING:
    from osdisco_consul._calls import Api
    from osdisco_consul._wire import Wire

WAIT = 10.0
"""Seconds that a poll asks the agent to wait for news; it adds up to a sixteenth."""
SILENCE = WATCH_SILENCE - 0.5
POLLS_PER_SECOND = 10
POLLS_AT_ONCE = 5

_SESSION_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


class ConsulBackend(Backend):
    """`consul://` and `consul+https://`."""

    def __init__(self, url: StoreURL, options: ConsulOptions, runtime: Runtime, api: Api, wire: Wire) -> None:
        self.limits = Limits(ttl_min=10.0, ttl_max=86400.0, expiry_factor=2.0, watches_max=100, conflates=True)
        self._url = url
        self._options = options
        self._runtime = runtime
        self._api = api
        self._wire = wire
        self._namespaced = options.ns is None  # or proven: Consul without Enterprise ignores `ns` in transactions

    def __repr__(self) -> str:
        return f"<ConsulBackend {self._url}>"

    @classmethod
    def from_url(cls, url: StoreURL, runtime: Runtime) -> Self:
        """Build from a URL. Raises ConfigError, also when the driver is not installed."""
        options = parse_options(url, runtime)
        try:
            from osdisco_consul._calls import Api
            from osdisco_consul._wire import Wire
        except ImportError as exc:
            raise ConfigError(f"{url.scheme}:// needs a driver ({exc}): pip install 'osdisco[consul]'") from exc
        return cls(url, options, runtime, Api(options.place, options.session_node), Wire(url, options, runtime))

    async def get(self, key: str, *, timeout: float) -> Item | None:
        """Read one key. A key that may not be read is a 403, so what is missing really is."""
        _, items = await self._wire.send(self._api.read(key), timeout=timeout)
        return items[0] if items else None

    async def scan(self, prefix: str, *, timeout: float) -> Snapshot:
        """Read a prefix. An empty one costs two more requests: a denied list looks empty."""
        index, items = await self._wire.send(self._api.read(prefix), timeout=timeout)
        return _snapshot(index, items)

    async def commit(self, ops: Sequence[Op], expect: Mapping[str, Condition], *, timeout: float) -> Mapping[str, int]:
        """Write in one transaction. For a put of the same bytes the revision is that of the earlier one."""
        if not self._namespaced:
            timeout = await self._prove_namespace(timeout)
        revisions: Mapping[str, int] = await self._wire.send(self._api.commit(ops, expect), timeout=timeout)
        return revisions

    async def commit_and_scan(
        self, ops: Sequence[Op], expect: Mapping[str, Condition], prefix: str, *, timeout: float
    ) -> tuple[Mapping[str, int], Mapping[str, Item] | None]:
        """Write and read in one transaction, unless the read would be one operation too many."""
        if len(ops) + len(expect) >= self.limits.ops_max:
            return await self.commit(ops, expect, timeout=timeout), None
        if not self._namespaced:
            timeout = await self._prove_namespace(timeout)
        found: tuple[Mapping[str, int], Mapping[str, Item]] = await self._wire.send(
            self._api.commit_and_scan(ops, expect, prefix), timeout=timeout
        )
        return found

    async def _prove_namespace(self, timeout: float) -> float:
        """Raise ConfigError where there are no namespaces; returns the seconds left.

        Consul without Enterprise refuses to read in a namespace, but a transaction lands in the only one there is.
        """
        deadline = self._runtime.clock.now() + timeout
        with suppress(DeniedError):  # a server that asks for permission in a namespace knows it
            await self._wire.send(self._api.probe(), timeout=timeout)
        self._namespaced = True
        return deadline - self._runtime.clock.now()

    async def watch(self, target: str, *, after: int | None = None) -> AsyncGenerator[Snapshot | Batch, None]:
        """Follow a target by blocking reads. Consul cannot resume: `after` is of no use, a Snapshot comes first."""
        now = asyncio.get_running_loop().time
        pace = _Pace()
        index, empty = 0, False
        deadline = now() + SILENCE
        while True:
            await pace.wait()
            call = self._api.poll(target, index, WAIT, probe=not empty)
            left = deadline - now()
            limit = left if index else min(left, self._options.timeout)
            found, items = await self._wire.send(call, timeout=limit)
            if found < index:  # restored, reaped or an agent that lags: nothing of this answer is believed
                index = 0
                continue
            index, empty = found, not items
            yield _snapshot(index, items)
            deadline = now() + SILENCE

    async def grant(self, ttl: float, *, timeout: float) -> Lease:
        """Create a session; in whole seconds, and at least what the agent says is its minimum."""
        if ttl > self.limits.ttl_max:
            raise LimitError(f"a ttl of {ttl:g} s; Consul grants at most {self.limits.ttl_max:g} s")
        deadline = self._runtime.clock.now() + timeout
        if self._options.session_node is not None:
            await self._wire.send(self._api.register_node(), timeout=timeout)
        seconds = math.ceil(ttl)
        try:
            return await self._create(seconds, deadline)
        except LimitError as exc:
            shortest = self._learn(exc)
            if shortest is None or shortest <= seconds:
                raise
        return await self._create(math.ceil(shortest), deadline)

    async def _create(self, seconds: int, deadline: float) -> Lease:
        left = deadline - self._runtime.clock.now()
        lease = Lease(
            await self._wire.send(self._api.create_session(self._runtime.name, seconds), timeout=left), float(seconds)
        )
        if seconds < self.limits.ttl_min:
            self.limits = evolve(self.limits, ttl_min=lease.ttl)
        return lease

    def _learn(self, refused: LimitError) -> float | None:
        from osdisco_consul._errors import ttl_range

        if (found := ttl_range(refused)) is None:
            return None
        self.limits = evolve(self.limits, ttl_min=found[0], ttl_max=found[1])
        return found[0]

    async def renew(self, lease: Lease, *, timeout: float) -> float:
        """Renew. A good answer is no proof that the session still holds its keys."""
        ttl: float = await self._wire.send(self._api.renew_session(lease.id), timeout=timeout)
        return ttl

    async def revoke(self, lease: Lease, *, timeout: float) -> None:
        """Destroy the session, which deletes its keys; they can be taken again at once."""
        await self._wire.send(self._api.destroy_session(lease.id), timeout=timeout)

    async def lease_status(self, lease: str, *, timeout: float) -> LeaseStatus | None:
        """Read a session; Consul does not tell what is left of it. A denied one looks gone."""
        if not _SESSION_ID.match(lease):  # Consul says 500
            return None
        found: LeaseStatus | None = await self._wire.send(self._api.session_info(lease), timeout=timeout)
        return found

    async def inspect(self, *, timeout: float) -> Sequence[EndpointStatus]:
        """Ask every endpoint for its leader and, where the token may read it, about itself."""
        return await asyncio.gather(*(self._inspect(n, timeout) for n in range(len(self._wire.endpoints))))

    async def _inspect(self, endpoint: int, timeout: float) -> EndpointStatus:
        name, now = self._wire.endpoints[endpoint], self._runtime.clock.now
        started = now()
        try:
            leader, server_time = await self._wire.send(self._api.leader(), timeout=timeout, endpoint=endpoint)
        except ClosedError:
            raise
        except OsdiscoError as exc:
            return EndpointStatus(name, error=str(exc))
        latency = now() - started
        details = await self._about(endpoint, timeout - latency)
        return EndpointStatus(
            name,
            error=None if leader else "no cluster leader",
            version=details.pop("version", None),
            leader={"true": True, "false": False}.get(details.pop("leader", "")),
            latency=latency,
            server_time=server_time,
            details={"leader address": leader, **details},
        )

    async def _about(self, endpoint: int, timeout: float) -> dict[str, str]:
        try:
            facts: dict[str, str] = await self._wire.send(self._api.agent_self(), timeout=timeout, endpoint=endpoint)
        except DeniedError:
            return {"agent": "version and role not shown: the token lacks agent:read"}
        except UnavailableError as exc:
            return {"agent": f"version and role not known: {exc}"}
        return facts

    async def aclose(self) -> None:
        """Close connections and end watches."""
        await self._wire.aclose()


class _Pace:
    """At most ten polls a second, five at once: a missing key wakes its poll with every write to the store."""

    def __init__(self) -> None:
        self._now = asyncio.get_running_loop().time
        self._next = 0.0

    async def wait(self) -> None:
        now = self._now()
        self._next = max(self._next, now - (POLLS_AT_ONCE - 1) / POLLS_PER_SECOND)
        ahead = self._next - now
        self._next += 1 / POLLS_PER_SECOND
        if ahead > 0:
            await asyncio.sleep(ahead)


def _snapshot(index: int, items: Sequence[Item]) -> Snapshot:
    return Snapshot({item.key: item for item in items}, index)
