"""What a suite's tests stand on: a store under test, and peers, which are its clients."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from osdisco._plugins import load_backend
from osdisco.backend import ABSENT, Backend, Condition, Delete, Item, Lease, LeaseStatus, Op, Put
from osdisco.runtime import Clock, Runtime
from osdisco.testing.conformance._follow import Follower
from osdisco.url import StoreURL

GRACE: Final = 0.25
"""Seconds within which tasks that were cancelled must have ended."""


class Harness(ABC):
    """One store, entered with `async with` by each test: a fresh `root` in it, and an end that leaves nothing behind.

    Attributes:
        root: the prefix, ending in `/`, under which the test writes; nobody else does.
        timeout: seconds for each call.
        settle: seconds within which what must come has come.
        lateness: seconds by which the store may be late to end a lease, besides `limits.expiry_factor`.
    """

    timeout = 5.0
    settle = 10.0
    lateness = 2.0

    def __init__(self, runtime: Runtime | None = None) -> None:
        self.runtime: Final = runtime or Runtime()
        self.root = ""
        self._opened: list[Backend] = []
        self._tasks: set[asyncio.Task[object]] = set()

    @abstractmethod
    def make_backend(self) -> Backend:
        """Return a new backend of the same store; no I/O."""

    def namespace(self) -> str:
        """Return the prefix, ending in `/`, in which roots are made."""
        return "conformance/"

    async def connect_backend(self) -> Backend:
        """Return a new backend of the same store, which is closed at the end."""
        backend = self.make_backend()
        self._opened.append(backend)
        return backend

    async def peer(self) -> Peer:
        """Return one more client of the store."""
        return Peer(await self.connect_backend(), self)

    async def __aenter__(self) -> Self:
        self.root = f"{self.namespace()}{self.runtime.unique()}/"
        self._opened = []
        self._tasks = asyncio.all_tasks()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if exc is None:
                await self._clear()
        finally:
            for backend in self._opened:
                await backend.aclose()
        if exc is None:
            await self.check_tasks()

    async def _clear(self) -> None:
        peer = await self.peer()
        ops: list[Op] = [Delete(key) for key in (await peer.backend.scan(self.root, timeout=self.timeout)).items]
        size = peer.backend.limits.ops_max
        for start in range(0, len(ops), size):
            await peer.backend.commit(ops[start : start + size], {}, timeout=self.timeout)

    async def check_tasks(self) -> None:
        """Fail when there are tasks that were not there when the test began."""
        left = asyncio.all_tasks() - self._tasks
        if left:
            _, left = await asyncio.wait(left, timeout=GRACE)
        assert not left, f"E3: tasks are left after aclose(): {left}"


class UrlHarness(Harness):
    """The store at a URL, by the backend that is installed for its scheme.

    Args:
        url: as for `osdisco.connect`. Tests write under its namespace only.
        clock: the clock of the test's virtual time, for a store that keeps to it.
    """

    def __init__(self, url: str, *, clock: Clock | None = None) -> None:
        super().__init__(Runtime() if clock is None else Runtime(clock=clock))
        self._url = StoreURL.parse(url)

    def make_backend(self) -> Backend:
        """Return a new backend of the URL."""
        return load_backend(self._url.scheme).from_url(self._url, self.runtime)

    def namespace(self) -> str:
        """Return the URL's namespace."""
        return f"{self._url.namespace}/"


class Peer:
    """A backend with names below the root in place of keys, and the harness's timeout."""

    def __init__(self, backend: Backend, harness: Harness) -> None:
        self.backend: Final = backend
        self.harness: Final = harness
        self._timeout = harness.timeout

    def key(self, name: str) -> str:
        """Return the key of a name."""
        return self.harness.root + name

    def name(self, key: str) -> str:
        """Return the name of a key."""
        assert key.startswith(self.harness.root), f"{key!a} is not under {self.harness.root!a}"
        return key[len(self.harness.root) :]

    async def get(self, name: str) -> Item | None:
        """Read one name."""
        return await self.backend.get(self.key(name), timeout=self._timeout)

    async def item(self, name: str) -> Item:
        """Read a name that is there."""
        item = await self.get(name)
        assert item is not None, f"{name!a} is missing"
        return item

    async def scan(self, prefix: str = "") -> dict[str, Item]:
        """Read all under a prefix, by name."""
        snapshot = await self.backend.scan(self.key(prefix), timeout=self._timeout)
        return {self.name(key): item for key, item in snapshot.items.items()}

    async def revision(self) -> int:
        """Return the cursor of the whole root."""
        return (await self.backend.scan(self.harness.root, timeout=self._timeout)).revision

    async def commit(
        self,
        puts: Mapping[str, bytes] | None = None,
        deletes: tuple[str, ...] = (),
        expect: Mapping[str, Condition] | None = None,
        lease: Lease | None = None,
    ) -> dict[str, int]:
        """Commit by name; the lease is that of all puts."""
        ops, conditions = self._written(puts or {}, deletes, expect or {}, lease)
        revisions = await self.backend.commit(ops, conditions, timeout=self._timeout)
        return {self.name(key): revision for key, revision in revisions.items()}

    async def commit_and_scan(
        self,
        prefix: str,
        puts: Mapping[str, bytes],
        deletes: tuple[str, ...] = (),
        expect: Mapping[str, Condition] | None = None,
        lease: Lease | None = None,
    ) -> tuple[dict[str, int], dict[str, Item] | None]:
        """Commit by name, and tell what stands under a prefix then, by name."""
        ops, conditions = self._written(puts, deletes, expect or {}, lease)
        revisions, seen = await self.backend.commit_and_scan(ops, conditions, self.key(prefix), timeout=self._timeout)
        items = None if seen is None else {self.name(key): item for key, item in seen.items()}
        return {self.name(key): revision for key, revision in revisions.items()}, items

    def _written(
        self,
        puts: Mapping[str, bytes],
        deletes: tuple[str, ...],
        expect: Mapping[str, Condition],
        lease: Lease | None,
    ) -> tuple[list[Op], dict[str, Condition]]:
        lease_id = lease.id if lease else None
        ops: list[Op] = [Put(self.key(name), value, lease_id) for name, value in puts.items()]
        ops += [Delete(self.key(name)) for name in deletes]
        return ops, {self.key(name): condition for name, condition in expect.items()}

    async def put(self, name: str, value: bytes = b"", expect: Condition | None = None) -> int:
        """Write one name; returns its revision."""
        return (await self.commit({name: value}, expect=None if expect is None else {name: expect}))[name]

    async def create(self, *names: str, lease: Lease | None = None) -> int:
        """Write names that are not there yet, in one commit; returns their revision."""
        puts = {name: name.encode() for name in names}
        revisions = await self.commit(puts, expect=dict.fromkeys(names, ABSENT), lease=lease)
        return revisions[names[0]]

    async def delete(self, *names: str) -> None:
        """Delete names."""
        await self.commit(deletes=names)

    async def grant(self, ttl: float = 1.0) -> Lease:
        """Open a lease, by default the shortest that the store grants."""
        return await self.backend.grant(ttl, timeout=self._timeout)

    async def renew(self, lease: Lease) -> float:
        """Renew a lease."""
        return await self.backend.renew(lease, timeout=self._timeout)

    async def revoke(self, lease: Lease) -> None:
        """End a lease."""
        await self.backend.revoke(lease, timeout=self._timeout)

    async def lease_status(self, lease: Lease) -> LeaseStatus | None:
        """Ask how long a lease lasts."""
        return await self.backend.lease_status(lease.id, timeout=self._timeout)

    def follow(
        self, target: str = "", *, after: int | None = None, known: Mapping[str, Item] | None = None
    ) -> Follower:
        """Return a follower of a name, or of a prefix ending in `/` (empty: all); enter it with `async with`.

        Args:
            target: relative to the root.
            after: resume there, from the state `known` (by name).
        """
        keys = {self.key(name): item for name, item in (known or {}).items()}
        return Follower(self.backend, self.key(target), self.harness.root, self.harness.settle, after, keys)
