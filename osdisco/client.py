"""The client: what users hold. Names and values over one connection to a store, chosen by a URL."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Generator, Mapping, Sequence
from types import TracebackType
from typing import Self

from osdisco._checks import check_commit
from osdisco._connection import PAUSE_MIN, Connection
from osdisco._feed import Feeds
from osdisco._follower import Follower, Take
from osdisco._keys import Keyspace, as_bytes
from osdisco._plugins import load_backend
from osdisco._tasks import Supervisor
from osdisco.backend import (
    ABSENT,
    Backend,
    Condition,
    Delete,
    EndpointStatus,
    Item,
    Limits,
    Op,
    Put,
    Snapshot,
)
from osdisco.errors import ConfigError, ConflictError, InvalidCommitError, OsdiscoError
from osdisco.metrics._hooks import Metrics
from osdisco.runtime import Clock, CredentialProvider, Runtime, default_name
from osdisco.session import Session
from osdisco.url import ClientOptions, StoreURL
from osdisco.view import View, Watch

URL_VARIABLE = "OSDISCO_URL"


def connect(
    url: str | StoreURL | None = None,
    *,
    name: str | None = None,
    clock: Clock | None = None,
    random: random.Random | None = None,
    credentials: CredentialProvider | None = None,
    metrics: Metrics | None = None,
) -> Client:
    """Return a client of the store at `url`. Does no network I/O; the first operation does.

    Args:
        url: `memory://`, `etcd://…`, `etcd+http://…`, `consul://…` and so on; `OSDISCO_URL` when None.
        name: the identity that others are shown as the owner of locks; `host:pid` when None.
        clock: the source of time, for tests.
        random: the source of randomness, for tests.
        credentials: called whenever the store wants credentials, so that they can be rotated.
        metrics: who counts what happens, such as `PrometheusMetrics()`; nobody when None.

    Raises:
        ConfigError: no URL at all, an unknown scheme or option, or a driver that is not installed.
    """
    parsed = url if isinstance(url, StoreURL) else StoreURL.parse(_url_or_environment(url))
    options = parsed.structure(ClientOptions, known=False)
    given = {"clock": clock, "random": random, "credentials": credentials, "metrics": metrics}
    runtime = Runtime(name=name or default_name(), **{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]
    backend = load_backend(parsed.scheme).from_url(parsed, runtime)
    return Client(backend, runtime, options=options, namespace=parsed.namespace, url=parsed)


def _url_or_environment(url: str | None) -> str:
    url = url or os.environ.get(URL_VARIABLE)
    if not url:
        raise ConfigError(
            f"no store: pass a URL or set {URL_VARIABLE} (etcd://host:2379/namespace, consul://host:8500, or memory:// "
            "for this process alone)"
        )
    return url


class Client:
    """Keys and values, views, watches and sessions of one namespace.

    Every operation ends within the URL's `timeout`, all attempts included, and raises `UnavailableError` (not applied),
    `IndeterminateError` (unknown), `DeniedError`, `LimitError` or `InvalidNameError`.
    """

    def __init__(
        self,
        backend: Backend,
        runtime: Runtime | None = None,
        *,
        options: ClientOptions | None = None,
        namespace: str = "",
        url: StoreURL | None = None,
    ) -> None:
        self.url = url
        self.runtime = runtime or Runtime()
        self.options = options or ClientOptions()
        self._connection = Connection(backend, self.runtime, self.options)
        self._feeds = Feeds(self._connection)
        self._keys = Keyspace(f"{namespace}/" if namespace else "", backend.limits)
        self._sessions = _Sessions(self._connection, self._keys.root)
        self._parent: Client | None = None
        self._closing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Client of {self.url or self._connection.backend!r} at {self._keys.root!a}>"

    @property
    def backend(self) -> Backend:
        """The store's adapter."""
        return self._connection.backend

    @property
    def limits(self) -> Limits:
        """What the store takes."""
        return self._connection.backend.limits

    def scoped(self, name: str) -> Client:
        """Return a client of a deeper namespace on the same connection; closing it closes nothing."""
        child = object.__new__(Client)
        child.__dict__.update(self.__dict__)
        child._keys = self._keys.deeper(name)
        child._parent = self._parent or self
        return child

    async def get(self, name: str, *, timeout: float | None = None) -> Item | None:
        """Read one key; None when it does not exist. Linearizable."""
        self._connection.check_open()
        item = await self._connection.get(self._keys.key(name), timeout)
        return item and Item(name, item.value, item.created, item.revision, item.lease)

    async def scan(self, prefix: str = "", *, timeout: float | None = None) -> Snapshot:
        """Read all keys under a prefix that ends in `/` or is empty, as one atomic snapshot. Linearizable."""
        self._connection.check_open()
        snapshot = await self._connection.scan(self._keys.prefix(prefix), timeout)
        return Snapshot(self._keys.items(snapshot.items.values()), snapshot.revision)

    async def put(self, name: str, value: bytes, *, timeout: float | None = None) -> int:
        """Write a key, whatever it holds; returns its revision."""
        return await self._put(name, value, {}, timeout)

    async def create(self, name: str, value: bytes, *, timeout: float | None = None) -> int:
        """Write a key that must not exist; returns its revision. Raises ConflictError when it does."""
        try:
            return await self._put(name, value, {self._keys.key(name): ABSENT}, timeout)
        except ConflictError:
            raise ConflictError(f"the key {name!a} exists already") from None

    async def _put(self, name: str, value: bytes, expect: Mapping[str, Condition], timeout: float | None) -> int:
        self._connection.check_open()
        key = self._keys.key(name)
        ops = (Put(key, as_bytes(value)),)
        check_commit(ops, expect, self._keys.limits)
        return (await self._connection.commit(ops, expect, timeout))[key]

    async def update(self, name: str, change: Callable[[bytes | None], bytes], *, timeout: float | None = None) -> int:
        """Compare-and-set loop: `change(old value or None)` gives the new value; returns its revision.

        Raises:
            ConflictError: others won every attempt within the deadline.
        """
        now = self.runtime.clock.now
        deadline = now() + (self.options.timeout if timeout is None else timeout)
        pause = PAUSE_MIN / 10
        while True:
            item = await self.get(name, timeout=deadline - now())
            expect = {self._keys.key(name): item.unchanged if item else ABSENT}
            try:
                return await self._put(name, change(item.value if item else None), expect, deadline - now())
            except ConflictError:
                if now() + pause >= deadline:
                    raise ConflictError(f"others changed {name!a} at every attempt; try again later") from None
            await asyncio.sleep(self.runtime.jittered(pause))
            pause = min(2 * pause, 1.0)

    async def delete(self, name: str, *, expect: Item | Condition | None = None, timeout: float | None = None) -> None:
        """Delete a key. With `expect`, an item read before, raises ConflictError when it changed or went."""
        self._connection.check_open()
        key = self._keys.key(name)
        condition = expect.unchanged if isinstance(expect, Item) else expect
        await self._connection.commit((Delete(key),), {} if condition is None else {key: _known(condition)}, timeout)

    async def commit(
        self, ops: Sequence[Op], expect: Mapping[str, Condition] | None = None, *, timeout: float | None = None
    ) -> Mapping[str, int]:
        """Apply all ops if all conditions of `expect` hold, or nothing; returns the revision of each key put.

        Raises:
            ConflictError: a condition did not hold.
            InvalidCommitError, LimitError: nothing was sent; see `osdisco._checks.check_commit`.
        """
        return await self._commit(ops, expect or {}, timeout=timeout)

    async def _commit(
        self,
        ops: Sequence[Op],
        expect: Mapping[str, Condition],
        *,
        also: Mapping[str, Condition] | None = None,
        timeout: float | None = None,
    ) -> Mapping[str, int]:
        """Commit by names; `also` are conditions on the store's own keys, as guards of locks are."""
        self._connection.check_open()
        full = [self._full(op) for op in ops]
        conditions = {self._keys.key(name): _known(condition) for name, condition in expect.items()} | dict(also or {})
        check_commit(full, conditions, self._keys.limits)
        revisions = await self._connection.commit(full, conditions, timeout)
        return {op.key: revisions[put.key] for op, put in zip(ops, full, strict=True) if isinstance(put, Put)}

    def _full(self, op: Op) -> Op:
        if isinstance(op, Put):
            return Put(self._keys.key(op.key), as_bytes(op.value), op.lease)
        if isinstance(op, Delete):
            return Delete(self._keys.key(op.key))
        raise InvalidCommitError(f"an op is a Put or a Delete, not {type(op).__name__}")

    def view(self, prefix: str = "") -> View:
        """Return a live Mapping of what is under a prefix; enter or await it."""
        return self._view_of(self._keys.prefix(prefix))

    def _view_of(self, target: str) -> View:
        """Return a view of one of the store's own keys, or of a prefix of them."""
        return View(self._feeds, self._connection, self._keys, target)

    def _follow(
        self, target: str, take: Take, trouble: Callable[[OsdiscoError], None] = lambda error: None
    ) -> Follower:
        """Return what hands on the changes of one of the store's own prefixes, and keeps no items of its own."""
        return Follower(self._feeds, self._connection, target, take, trouble)

    def watch(self, prefix: str = "") -> Watch:
        """Return `async with` around an iterator of Change; the first holds what is there."""
        return Watch(self._feeds, self._keys, self._keys.prefix(prefix))

    def session(self, ttl: float | None = None, *, strict: bool | None = None) -> Session:
        """Return a session of your own; enter or await it. `ttl` in seconds, the URL's when None."""
        self._connection.check_open()
        strict = self.options.strict_ttl if strict is None else strict
        return self._sessions.new(self.options.ttl if ttl is None else ttl, strict, self._keys.root)

    async def shared_session(self) -> Session:
        """Return the session that all recipes of this client share; a new one when the last was lost.

        Raises:
            UnavailableError: the store could not be reached within `timeout`.
        """
        self._connection.check_open()
        return await self._sessions.shared()

    async def inspect(self, *, timeout: float | None = None) -> Sequence[EndpointStatus]:
        """Ask every endpoint of the store how it is."""
        self._connection.check_open()
        return await self.backend.inspect(timeout=timeout or self.options.timeout)

    def __await__(self) -> Generator[object, None, Self]:
        return self._itself().__await__()

    async def _itself(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End sessions, watches and connections; leaves no task, socket, lease or key. May be called twice."""
        if self._parent is not None:
            return
        if self._closing is None:
            self._connection.closed = True
            self._closing = Supervisor().spawn(self._close(), "close the client")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            await self._sessions.aclose()
            await self._connection.finishing.drain(self.options.timeout)
            await self._connection.supervisor.aclose()
        finally:
            await self._connection.backend.aclose()


class _Sessions:
    """The sessions of one connection, so that closing it can end them, and the one that all recipes share."""

    def __init__(self, connection: Connection, root: str) -> None:
        self._connection = connection
        self._root = root
        self._open: set[Session] = set()
        self._shared: Session | None = None
        self._opening: asyncio.Task[Session] | None = None

    def new(self, ttl: float, strict: bool, root: str) -> Session:
        session = Session(self._connection, ttl=ttl, root=root, strict=strict)
        self._open.add(session)
        session.lost.call(lambda _: self._open.discard(session))
        return session

    async def shared(self) -> Session:
        """Callers that come while it opens wait for the same one; none of them can cancel it for the others."""
        if self._shared is not None and self._shared.valid:
            return self._shared
        if self._opening is None or self._opening.done():
            self._opening = self._connection.finishing.spawn(self._open_shared(), "open the shared session")
        return await asyncio.shield(self._opening)

    async def _open_shared(self) -> Session:
        options = self._connection.options
        self._shared = await self.new(options.ttl, options.strict_ttl, self._root)
        return self._shared

    async def aclose(self) -> None:
        await asyncio.gather(*(session.aclose() for session in list(self._open)), return_exceptions=True)


def _known(condition: Condition) -> Condition:
    if isinstance(condition, Condition):
        return condition
    raise InvalidCommitError(
        f"a condition is ABSENT, Revision(…), HeldBy(…) or an item's `unchanged`, not {type(condition).__name__}"
    )
