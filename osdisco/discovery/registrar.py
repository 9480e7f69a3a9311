"""Keeps this process's record in the store: the latest, and once, under whatever session lives.

Every version of the record is an entry of its own that removes the one before in the same commit. A commit whose answer
was lost can therefore never bring old data back: were they puts at one key, it could come over a later one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from itertools import count

from attrs import evolve

from osdisco._connection import backoff
from osdisco._entries import Entry
from osdisco._records import decode, encode
from osdisco._signal import Signal
from osdisco._tasks import cancel
from osdisco.client import Client
from osdisco.discovery.extension import ExtensionInfo, ExtensionStatus
from osdisco.discovery.table import PREFIX, Extensions, Registration
from osdisco.errors import DiscoveryError, OsdiscoError, RecordError
from osdisco.view import View

log = logging.getLogger("osdisco")


class Registrar:
    """One extension's registration.

    Args:
        view: of all records.
        changed: rung when something here may be different from before, and to be rung when the view changes.

    Raises:
        DiscoveryError: the extension holds what cannot be registered.
    """

    def __init__(self, client: Client, extension: ExtensionInfo, view: View, changed: Signal) -> None:
        self.superseded = False
        self.error: OsdiscoError | None = None
        self._client = client
        self._view = view
        self._changed = changed
        self._process = client.runtime.unique()
        self._numbers = count(1)
        self._incarnation = 0
        self._entry: Entry | None = None
        self._name = ""  # of the entry
        self._published: ExtensionInfo | None = None
        self._leaving = False
        self._task: asyncio.Task[None] | None = None
        self._forget: Callable[[], None] = lambda: None
        self.desire(extension)

    @property
    def registered(self) -> bool:
        """Whether the latest record stands in the store, as far as this process can know. No I/O."""
        return self._stands and self._published == self.desired

    @property
    def _stands(self) -> bool:
        return self._entry is not None and not self._entry.gone.is_set() and self._entry.session.valid

    @property
    def _over(self) -> bool:
        """Whether nothing is left to publish: somebody newer has the id, or we said that we go."""
        return self.superseded or (self._leaving and (self.registered or not self._stands))

    def desire(self, extension: ExtensionInfo) -> None:
        """Let `extension` be what stands in the store. Raises DiscoveryError, rather now than later to nobody."""
        if self.superseded:
            raise DiscoveryError(
                f"the extension {extension.id!a} was registered anew by another process; this one is out"
            )
        try:
            decode(encode(Registration(extension, 2**63)), Registration)  # what no reader would take is refused here
        except (RecordError, AttributeError) as exc:
            raise DiscoveryError(f"the extension {extension.id!a} cannot be registered: {exc}") from exc
        self.desired = extension
        self._changed.fire()

    def look(self, extensions: Extensions) -> None:
        """Find out whether another process has the id by now."""
        if 0 < self._incarnation < extensions.rival(self.desired.id, self._process):
            self.superseded = True

    def start(self) -> None:
        """Begin; does not wait for the store."""
        self._task = self._client._connection.supervisor.spawn(self._run(), f"register {self.desired.id}")

    async def leave(self) -> None:
        """Say STOPPING before going, so that nobody takes the end for a crash. Waits as long as one operation may."""
        assert self._task is not None
        self._leaving = True
        self.desired = evolve(self.desired, status=ExtensionStatus.STOPPING)
        self._changed.fire()
        try:
            if self._stands:
                await asyncio.wait([self._task], timeout=self._client.options.timeout)
        finally:
            if self._entry is not None:
                self._entry.abandon()
            self._forget()
            await cancel(self._task)

    async def _run(self) -> None:
        failures = 0
        while not self._over:
            try:
                await self._keep()
                failures = 0
            except OsdiscoError as exc:
                self.error = exc
                log.info("%s is not registered as it should be, trying again: %s", self.desired.id, exc)
                await asyncio.sleep(backoff(self._client.runtime, failures))
                failures += 1
        if self.superseded:
            log.warning("%s was registered anew by another process; this one withdraws", self.desired.id)
        if self._entry is not None:
            await self._entry.end()
        self._changed.fire()

    async def _keep(self) -> None:
        """Publish what is new, then wait until there is more to do."""
        if not self.registered:
            await self._publish()
        self.error = None
        self._changed.fire()
        await self._until_needed()

    async def _until_needed(self) -> None:
        """Wait until there is something to do, be it that somebody deleted the record.

        While the view does not show it the store is asked now and then: it may be gone before the view ever saw it.
        """

        def needed() -> bool:
            return self._over or not self.registered

        def shown() -> bool:
            return self._name in self._view

        asked = 2
        while self._entry is not None and not needed():
            with suppress(TimeoutError):
                await self._changed.wait_for(lambda: needed() or shown(), backoff(self._client.runtime, asked))
            if shown():
                await self._changed.wait_for(lambda: needed() or not shown())
            if not needed():
                await self._entry.stands()
            asked += 1

    async def _publish(self) -> None:
        session = await self._client.shared_session()
        old = self._entry
        if old is not None and (old.session is not session or old.gone.is_set()):
            await old.end()  # for good: no late create of it may come after the next one
            old = self._entry = None
        desired, keys = self.desired, self._client._keys
        segments = PREFIX, desired.id, f"{self._process}.{next(self._numbers)}"
        entry = Entry(self._client._connection, keys, session, *segments)
        await entry.create(encode(Registration(desired, self._incarnation)), instead_of=old)
        self._entry, self._name, self._published = entry, "/".join(segments), desired
        self._incarnation = self._incarnation or entry.created
        self._forget()
        self._forget = session.lost.call(lambda _: self._changed.fire())
