"""The rules of all services, live, and the router that follows them.

What was good last stays when something stands that is none: a bad document must not let calls go where nobody wanted
them. A process that starts while it stands takes the newest good version of the history.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from types import MappingProxyType, TracebackType
from typing import Self

from osdisco._feed import Change
from osdisco._tasks import Supervisor
from osdisco.backend import Item
from osdisco.client import Client
from osdisco.errors import OsdiscoError, RulesError
from osdisco.mesh._rules_record import RulesVersion, Shelf, decode, good_of
from osdisco.mesh.router import Router

log = logging.getLogger("osdisco")


class RulesView(Mapping[str, RulesVersion]):
    """A live, read-only Mapping of services to the version of their rules that is followed. Enter or await it.

    Losing the store takes nothing away. `router` follows it.
    """

    def __init__(self, client: Client) -> None:
        self.router = Router(client.runtime)
        self._connection = client._connection
        self._shelf = Shelf(client._keys)
        self._follower = client._follow(self._shelf.target, self._take)
        self._good: dict[str, RulesVersion] = {}
        self._problems: dict[str, str] = {}
        self._looking = Supervisor()

    def __getitem__(self, service: str) -> RulesVersion:
        return self._good[service]

    def __iter__(self) -> Iterator[str]:
        return iter(self._good)

    def __len__(self) -> int:
        return len(self._good)

    def __repr__(self) -> str:
        return f"<RulesView of {len(self)} services, {'stale' if self.stale else 'fresh'}>"

    @property
    def problems(self) -> Mapping[str, str]:
        """The services whose document cannot be read now, and why; what was good last is followed."""
        return MappingProxyType(self._problems)

    @property
    def known(self) -> bool:
        """Whether the store was seen at all; before that there are no rules because nothing is known."""
        return self._follower.known

    @property
    def error(self) -> OsdiscoError | None:
        """What keeps it from being up to date; None when nothing does."""
        return self._follower.error

    @property
    def stale(self) -> bool:
        """Whether the store may know better by now."""
        return self._follower.stale

    @property
    def age(self) -> float:
        """Seconds since the store last spoke; infinite before it ever did."""
        return self._follower.age

    def start(self) -> None:
        """Begin without waiting for the store; until it was seen there are no rules."""
        self._connection.check_open()
        self._follower.start()

    def __await__(self) -> Generator[object, None, Self]:
        return self._open().__await__()

    async def __aenter__(self) -> Self:
        return await self._open()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _open(self) -> Self:
        """Start, and wait for the first state as long as one operation may take."""
        self._connection.check_open()
        await self._follower
        return self

    async def aclose(self) -> None:
        """Stop following. What was shown stays readable, and is routed by. May be called twice."""
        try:
            await self._follower.aclose()
        finally:
            await self._looking.aclose()

    async def until(
        self, predicate: Callable[[Mapping[str, RulesVersion]], object], timeout: float | None = None
    ) -> None:
        """Wait until `predicate(view)` is true; it is asked again at every change.

        Raises:
            TimedOutError: `timeout` seconds are over.
            ClosedError: the view was closed.
        """
        await self._follower._wait(lambda: predicate(self), timeout)

    def _take(self, change: Change, first: bool) -> None:
        there = {self._shelf.service(key): item for key, item in change.puts.items()}
        known = {*self._good, *self._problems}
        gone = known if first else known & {self._shelf.service(key) for key in change.deletes}
        for service in gone - there.keys():
            self._good.pop(service, None)
            self._problems.pop(service, None)
        for name, item in there.items():
            if name is not None:
                self._add(name, item)
        self._follow_rules()

    def _add(self, service: str, item: Item) -> None:
        try:
            self._good[service] = decode(item.value)
            self._problems.pop(service, None)
        except RulesError as exc:
            self._problems[service] = str(exc)
            log.warning("the rules of %r cannot be read, what was good last is followed: %s", service, exc)
            if service not in self._good:
                self._looking.spawn(self._recall(service), f"recall the rules of {service}")

    async def _recall(self, service: str) -> None:
        """Take what was good last from the history, unless something good came meanwhile."""
        while True:
            try:
                kept = good_of((await self._connection.scan(self._shelf.history(service))).items.values())
                break
            except OsdiscoError as exc:
                self._connection.check_open()
                log.debug("the history of the rules of %r cannot be read yet: %s", service, exc)
            await asyncio.sleep(self._connection.runtime.jittered(5.0))
        if kept and service in self._problems and service not in self._good:
            self._good[service] = kept[0]
            self._follow_rules()
            self._follower._signal.fire()

    def _follow_rules(self) -> None:
        self.router.update({service: one.rules for service, one in self._good.items()})
