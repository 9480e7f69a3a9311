"""etcd: leases keep their ttl to within a second, and every change is seen, in order, one Batch a transaction."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from typing import Final, Self

from osdisco.backend import (
    Absent,
    Backend,
    Batch,
    Condition,
    EndpointStatus,
    Item,
    Lease,
    LeaseStatus,
    Limits,
    Op,
    Put,
    Revision,
    Snapshot,
)
from osdisco.errors import ConfigError, ConflictError, LeaseExpiredError, LimitError
from osdisco.runtime import Runtime
from osdisco.url import StoreURL
from osdisco_etcd._errors import LeaseExistsError
from osdisco_etcd._options import Settings, read_settings
from osdisco_etcd._watch import Watch
from osdisco_etcd._wire import CREATED, LEASE, MODIFIED, Compare, Wire, Write, raw

_LIMITS: Final = Limits(ttl_min=1.0, ttl_max=86_400.0, expiry_factor=1.0)
_LEASE_ID: Final = re.compile(r"[0-9a-f]{16}\Z")
_INT64: Final = 2**63 - 1


class EtcdBackend(Backend):
    """etcd over gRPC: `etcd://` and, with TLS, `etcds://`."""

    limits: Limits = _LIMITS

    def __init__(self, wire: Wire, runtime: Runtime, timeout: float) -> None:
        self._wire = wire
        self._runtime = runtime
        self._timeout = timeout

    @classmethod
    def from_url(cls, url: StoreURL, runtime: Runtime) -> Self:
        settings = read_settings(url, runtime)
        return cls(cls._connect(settings, runtime), runtime, settings.options.timeout)

    @classmethod
    def _connect(cls, settings: Settings, runtime: Runtime) -> Wire:
        try:
            from osdisco_etcd._grpc import GrpcWire
        except ImportError as exc:
            raise ConfigError(f"etcd over gRPC needs a driver ({exc.name}): pip install 'osdisco[etcd]'") from exc
        return GrpcWire(settings, runtime.clock)

    async def get(self, key: str, *, timeout: float) -> Item | None:
        return await self._wire.get(key, timeout)

    async def scan(self, prefix: str, *, timeout: float) -> Snapshot:
        items, revision = await self._wire.range(*_span(prefix), timeout)
        return Snapshot({item.key: item for item in items}, revision)

    async def commit(self, ops: Sequence[Op], expect: Mapping[str, Condition], *, timeout: float) -> Mapping[str, int]:
        if len(ops) == 1 and not expect:
            op = ops[0]
            if isinstance(op, Put) and op.lease is None:
                return {op.key: await self._wire.put(op.key, op.value, timeout)}
        revision = await self._wire.txn(_compares(expect), [_write(op) for op in ops], timeout)
        return _revisions(ops, expect, revision)

    async def commit_and_scan(
        self, ops: Sequence[Op], expect: Mapping[str, Condition], prefix: str, *, timeout: float
    ) -> tuple[Mapping[str, int], Mapping[str, Item] | None]:
        writes = [_write(op) for op in ops]
        found = await self._wire.txn_and_range(_compares(expect), writes, *_span(prefix), timeout)
        items, revision = found or ([], None)
        return _revisions(ops, expect, revision), {item.key: item for item in items}

    def watch(self, target: str, *, after: int | None = None) -> AsyncGenerator[Snapshot | Batch, None]:
        key, end = _span(target) if target.endswith("/") or not target else (raw(target), b"")
        return Watch(self._wire, key, end, self._timeout).frames(after)

    async def grant(self, ttl: float, *, timeout: float) -> Lease:
        if ttl > self.limits.ttl_max:
            raise LimitError(f"a lease of {ttl:g} s is longer than the {self.limits.ttl_max:g} s that are allowed")
        seconds = max(1, math.ceil(ttl))
        number = self._runtime.random.getrandbits(63) or 1
        granted = seconds
        with suppress(LeaseExistsError):
            granted = await self._wire.grant(number, seconds, timeout)
        return Lease(f"{number:016x}", float(granted))

    async def renew(self, lease: Lease, *, timeout: float) -> float:
        number = _lease_number(lease.id)
        ttl = await self._wire.renew(number, timeout) if number else 0
        if not ttl:
            raise LeaseExpiredError(f"etcd does not know the lease {lease.id} any more; open a new one")
        return float(ttl)

    async def revoke(self, lease: Lease, *, timeout: float) -> None:
        number = _lease_number(lease.id)
        if number:
            with suppress(LeaseExpiredError):
                await self._wire.revoke(number, timeout)

    async def lease_status(self, lease: str, *, timeout: float) -> LeaseStatus | None:
        number = _lease_number(lease)
        found = await self._wire.lease_status(number, timeout) if number else None
        return found and LeaseStatus(float(found[0]), float(found[1]))

    async def inspect(self, *, timeout: float) -> Sequence[EndpointStatus]:
        return await self._wire.inspect(timeout)

    async def aclose(self) -> None:
        await self._wire.aclose()


class EtcdGatewayBackend(EtcdBackend):
    """etcd over its JSON gateway: `etcd+http://` and `etcd+https://`, for where only HTTP/1.1 passes."""

    @classmethod
    def _connect(cls, settings: Settings, runtime: Runtime) -> Wire:
        try:
            from osdisco_etcd._gateway import GatewayWire
        except ImportError as exc:
            hint = "pip install 'osdisco[etcd-gateway]'"
            raise ConfigError(f"etcd's JSON gateway needs a driver ({exc.name}): {hint}") from exc
        return GatewayWire(settings, runtime.clock)


def _compares(expect: Mapping[str, Condition]) -> list[Compare]:
    return [_compare(key, condition) for key, condition in expect.items()]


def _revisions(ops: Sequence[Op], expect: Mapping[str, Condition], revision: int | None) -> Mapping[str, int]:
    if revision is None:
        raise ConflictError(f"one of the conditions on {', '.join(map(ascii, expect))} does not hold; read again")
    return {op.key: revision for op in ops if isinstance(op, Put)}


def _span(prefix: str) -> tuple[bytes, bytes]:
    """Return the range of a prefix; `0` is the byte after `/`."""
    return (raw(prefix), raw(prefix[:-1] + "0")) if prefix else (b"\0", b"\0")


def _lease_number(lease: str) -> int:
    """Return the lease's number; 0, which is no lease, for what etcd cannot have given."""
    number = int(lease, 16) if _LEASE_ID.match(lease) else 0
    return number if number <= _INT64 else 0


def _compare(key: str, condition: Condition) -> Compare:
    """Zero is what a missing key has in every field, so a condition on zero must not reach the server."""
    if isinstance(condition, Absent):
        return Compare(raw(key), CREATED, 0)
    if isinstance(condition, Revision):
        field, number = MODIFIED, condition.number
    else:
        field, number = LEASE, _lease_number(condition.lease)
    if not 0 < number <= _INT64:
        raise ConflictError(f"the condition on {key!a} can never hold on etcd; nothing was sent")
    return Compare(raw(key), field, number)


def _write(op: Op) -> Write:
    if not isinstance(op, Put):
        return Write(raw(op.key), None, 0)
    lease = 0 if op.lease is None else _lease_number(op.lease)
    if op.lease is not None and not lease:
        raise LeaseExpiredError(f"{op.lease!a} is no lease of etcd; nothing was sent")
    return Write(raw(op.key), op.value, lease)
