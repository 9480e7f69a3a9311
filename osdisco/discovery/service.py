"""The discovery service: keeps this process's extension in the store, and shows all others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from attrs import evolve

from osdisco._connection import backoff
from osdisco._feed import Change
from osdisco._records import encode
from osdisco._signal import Signal
from osdisco._tasks import cancel
from osdisco.backend import ABSENT, Condition, Delete, HeldBy, Put
from osdisco.client import Client
from osdisco.discovery.extension import ExtensionInfo, ExtensionStatus
from osdisco.discovery.listeners import Dispatcher, ExtensionEvent, Listener
from osdisco.discovery.table import Extensions, Registration, fold
from osdisco.errors import (
    ConflictError,
    DiscoveryError,
    OsdiscoError,
    TimedOutError,
)
from osdisco.session import Session

log = logging.getLogger("osdisco")

PREFIX: Final = "ext"


class DiscoveryService:
    """`async with` it. Without an extension of its own it only observes.

    The store is not needed to start: the latest record is put into it as soon, and again as often, as it can be.
    """

    def __init__(self, client: Client, extension: ExtensionInfo | None = None) -> None:
        self._client = client
        self._connection = client._connection
        self._desired = extension
        self._incarnation = 0
        self._session: Session | None = None  # under which the record stands; None when it does not
        self._key = ""
        self._dirty = asyncio.Event()
        self._changed = Signal()
        self._view = client._view_of(client._keys.join(PREFIX) + "/")
        self._extensions = Extensions(self._view)
        self._dispatcher = Dispatcher(self._connection.supervisor)
        self._reconciler: asyncio.Task[None] | None = None

    @property
    def extension(self) -> ExtensionInfo:
        """This process's own extension, as it should stand in the store. DiscoveryError when it only observes."""
        if self._desired is None:
            raise DiscoveryError("this DiscoveryService only observes; give it an ExtensionInfo to register")
        return self._desired

    @property
    def extensions(self) -> Extensions:
        """The live local view, by id."""
        return self._extensions

    @property
    def registered(self) -> bool:
        """Whether the latest record stands in the store, as far as this process can know. No I/O."""
        return self._session is not None and self._session.valid and not self._dirty.is_set()

    async def start(self) -> Self:
        """Begin to observe and to register; does not wait for the store."""
        if self._reconciler is None:
            self._view.add_listener(self._on_change)
            self._view.start()
            self._dirty.set()
            run = self._reconcile() if self._desired is not None else self._observe()
            self._reconciler = self._connection.supervisor.spawn(run, "keep the registration")
        return self

    async def stop(self) -> None:
        """Publish STOPPING, deregister, and stop observing."""
        reconciler, self._reconciler = self._reconciler, None
        if reconciler is None:
            return
        await cancel(reconciler)
        if self._session is not None and self._session.valid:
            await asyncio.shield(self._session.keep_until_ended(self._leave(self._session), "deregister"))
        self._session = None
        await self._dispatcher.aclose()
        await self._view.aclose()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def wait_registered(self, timeout: float | None = None) -> None:
        """Wait until the record stands in the store. Raises TimedOutError after `timeout` seconds."""
        await self._wait(lambda: self.registered, timeout, "not registered")

    async def wait_known(self, timeout: float | None = None) -> None:
        """Wait until the store was seen once. Raises TimedOutError after `timeout` seconds."""
        await self._wait(lambda: self._view.known, timeout, "the store was not reached")

    async def _wait(self, done: Callable[[], bool], timeout: float | None, what: str) -> None:
        try:
            await self._changed.wait_for(done, timeout)
        except TimeoutError:
            raise TimedOutError(f"{what} within {timeout} s: {self._view.error or 'the store is slow'}") from None

    async def set_status(self, status: ExtensionStatus) -> None:
        """Change the own status; published as soon as the store can be reached."""
        self._desire(evolve(self.extension, status=status))

    async def update(self, **changes: Any) -> None:
        """Change fields of the own extension; `metadata` is merged. The id stays. Published as soon as possible."""
        if "id" in changes:
            raise DiscoveryError("an extension keeps its id; register another one instead")
        if "metadata" in changes:
            changes["metadata"] = {**self.extension.metadata, **changes["metadata"]}
        self._desire(evolve(self.extension, **changes))

    def _desire(self, extension: ExtensionInfo) -> None:
        encode(Registration(extension, self._incarnation))  # raises now, to the caller, rather than later to nobody
        self._desired = extension
        self._dirty.set()

    async def discover_extensions(self) -> list[ExtensionInfo]:
        """Ask the store which extensions there are. Linearizable."""
        return list(fold((await self._client.scan(f"{PREFIX}/")).items).values())

    def find_by_capability(self, capability: str) -> list[ExtensionInfo]:
        """Return the extensions of the local view that have a capability."""
        return [extension for extension in self._extensions.values() if capability in extension.capabilities]

    def add_listener(self, listener: Listener) -> Callable[[], None]:
        """Tell a listener (methods of DiscoveryListener, or a function of ExtensionEvent) what is there and changes.

        It runs on a task of its own, in order; when it fails this is logged. Returns a function that removes it.
        """
        present = [ExtensionEvent(old=None, new=extension) for extension in self._extensions.values()]
        return self._dispatcher.add(listener, present)

    def _on_change(self, change: Change) -> None:
        if events := self._extensions.apply(change):
            self._dispatcher.tell(events)
        if any(self._client._keys.key(name) == self._key for name in change.deletes.keys() - change.puts.keys()):
            self._dirty.set()  # deleted by somebody: it comes back
        self._changed.fire()

    async def _observe(self) -> None:
        self._dirty.clear()
        await asyncio.Event().wait()

    async def _reconcile(self) -> None:
        """Keep the latest desired record in the store, for ever."""
        failures = 0
        while True:
            try:
                session = await self._client.shared_session()
                await self._publish(session)
                failures = 0
                self._changed.fire()
                await self._until_dirty_or_lost(session)
            except OsdiscoError as exc:
                log.info("not registered for now, trying again: %s", exc)
                await asyncio.sleep(backoff(self._client.runtime, failures))
                failures += 1

    async def _until_dirty_or_lost(self, session: Session) -> None:
        forget = session.lost.call(lambda _: self._dirty.set())
        try:
            await self._dirty.wait()
        finally:
            forget()

    async def _publish(self, session: Session) -> None:
        """Put the latest record under this session: where it stands already, or at a new place of its own."""
        session.check()
        self._dirty.clear()
        standing = self._session is session
        if not standing:
            self._session = None
            self._key = self._client._keys.join(PREFIX, self.extension.id, self._client.runtime.unique())
        try:
            await self._put(session, standing)
        except BaseException:
            self._dirty.set()
            raise
        self._session = session

    async def _put(self, session: Session, standing: bool) -> None:
        put = Put(self._key, encode(Registration(self.extension, self._incarnation)), session.id)
        guards: list[Condition] = [HeldBy(session.id), ABSENT]
        first, second = guards if standing else reversed(guards)
        try:
            revisions = await self._connection.commit([put], {self._key: first})
        except ConflictError:  # deleted by somebody, or an attempt whose answer was lost came through
            revisions = await self._connection.commit([put], {self._key: second})
            first = second
        if not self._incarnation:
            item = None if first is ABSENT else await self._connection.get(self._key)
            self._incarnation = item.created if item else revisions[self._key]

    async def _leave(self, session: Session) -> None:
        """Say STOPPING before going, so that nobody takes the end for a crash."""
        held = {self._key: HeldBy(session.id)}
        stopping = Registration(evolve(self.extension, status=ExtensionStatus.STOPPING), self._incarnation)
        try:
            await self._connection.commit([Put(self._key, encode(stopping), session.id)], held)
            await self._connection.commit([Delete(self._key)], held)
        except OsdiscoError as exc:
            log.info("the registration of %s goes with its lease: %s", self.extension.id, exc)
