"""Showing this process's extension in another catalog too, such as Consul's own. The store remains the truth."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol

from osdisco._connection import Connection, backoff
from osdisco._signal import Signal
from osdisco._tasks import cancel
from osdisco.discovery.extension import ExtensionInfo
from osdisco.errors import DiscoveryError
from osdisco.metrics._catalog import PUBLICATION_FAILURES, PUBLISHED
from osdisco.metrics._hooks import Sample

log = logging.getLogger("osdisco")


class Publication(Protocol):
    """Another catalog. Its methods are called by one task, never two at once, and may be cancelled.

    Whatever they raise is logged, counted and tried again for ever; the registration in the store never waits for it.
    """

    @property
    def name(self) -> str:
        """What it is called in logs and metrics."""

    @property
    def heartbeat(self) -> float:
        """Seconds after which `publish` is called again though nothing changed."""

    async def publish(self, extension: ExtensionInfo) -> None:
        """Let the catalog show the extension as it is now, and know that this process lives. Safe to repeat."""

    async def withdraw(self, extension: ExtensionInfo) -> None:
        """Take away what this object published, and nothing that another process put there."""

    async def aclose(self) -> None:
        """Give back what it holds; it is not called again."""


class Published(Protocol):
    """What is published: a registration that is kept in the store."""

    desired: ExtensionInfo
    incarnation: int
    superseded: bool


class Publisher:
    """Keeps one publication as the registration is: from when that first stands until it is given up or superseded."""

    def __init__(
        self, connection: Connection, publication: Publication, registration: Published, changed: Signal
    ) -> None:
        self.current = False
        self._connection = connection
        self._publication = publication
        self._registration = registration
        self._changed = changed
        self._shown: ExtensionInfo | None = None  # perhaps; that it was tried is enough
        self._failures = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """What the publication is called."""
        return self._publication.name

    def start(self) -> None:
        """Begin; waits for nothing."""
        self._task = self._connection.supervisor.spawn(self._run(), f"publish to {self.name}")

    async def stop(self) -> None:
        """Withdraw, and end."""
        if self._task is not None:
            await cancel(self._task)
        await self._withdraw()
        await self._attempt(self._publication.aclose)

    async def _run(self) -> None:
        await self._changed.wait_for(lambda: self._registration.incarnation or self._registration.superseded)
        while not self._registration.superseded:
            self._shown = extension = self._registration.desired
            self.current = await self._attempt(partial(self._publication.publish, extension))
            await self._pause(extension)
        await self._withdraw()

    async def _pause(self, extension: ExtensionInfo) -> None:
        """Wait until there is something to publish, or to try again."""
        if not self.current:
            await asyncio.sleep(backoff(self._connection.runtime, self._failures))
            return
        with suppress(TimeoutError):
            await self._changed.wait_for(
                lambda: self._registration.superseded or self._registration.desired is not extension,
                self._connection.runtime.jittered(self._publication.heartbeat),
            )

    async def _withdraw(self) -> None:
        self.current = False
        if self._shown is not None:
            await self._attempt(partial(self._publication.withdraw, self._shown))
            self._shown = None  # only now: who is cancelled in here has not withdrawn

    async def _attempt(self, call: Callable[[], Awaitable[None]]) -> bool:
        """Run what somebody else wrote, for the time of one operation; returns whether it went well."""
        task = asyncio.current_task()
        try:
            async with asyncio.timeout(self._connection.options.timeout):
                await call()
        except (Exception, asyncio.CancelledError) as exc:
            if isinstance(exc, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            self._failures += 1
            self._connection.runtime.metrics.count(PUBLICATION_FAILURES, self.name)
            log.log(
                logging.WARNING if self._failures == 1 else logging.INFO,
                "publishing to %s failed, the registration is not touched by it: %r",
                self.name,
                exc,
            )
            return False
        self._failures = 0
        return True


class Publishers:
    """All publications of one registration.

    Raises:
        DiscoveryError: there is no registration to publish.
    """

    def __init__(
        self,
        connection: Connection,
        publications: Sequence[Publication],
        registration: Published | None,
        changed: Signal,
    ) -> None:
        if publications and registration is None:
            raise DiscoveryError("this DiscoveryService only observes; give it an ExtensionInfo to publish")
        self._connection = connection
        self._all = (
            [] if registration is None else [Publisher(connection, one, registration, changed) for one in publications]
        )

    def start(self) -> None:
        """Begin; waits for nothing."""
        for publisher in self._all:
            publisher.start()

    async def stop(self) -> None:
        """Withdraw everywhere, also when this call is cancelled."""
        if self._all:
            await asyncio.shield(self._connection.finishing.spawn(self._stop(), "withdraw publications"))

    async def _stop(self) -> None:
        await asyncio.gather(*(publisher.stop() for publisher in self._all))

    def gauges(self, namespace: str) -> Iterator[Sample]:
        """Yield whether each catalog shows what it should."""
        for publisher in self._all:
            yield Sample(PUBLISHED, publisher.current, (namespace, publisher.name))
