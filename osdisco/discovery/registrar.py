"""What this process registers: a record as it should stand in the store, and what may."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol, TypeVar

from attrs import evolve

from osdisco._keeper import Keeper
from osdisco._records import encode
from osdisco._signal import Signal
from osdisco.client import Client
from osdisco.discovery._roster import Roster
from osdisco.discovery.extension import ExtensionInfo, ExtensionStatus
from osdisco.discovery.health import worse
from osdisco.discovery.registration import PREFIX, Registration, read
from osdisco.errors import DiscoveryError, RecordError, TimedOutError

HEALTHY, STOPPING = ExtensionStatus.HEALTHY, ExtensionStatus.STOPPING


class Stated(Protocol):
    """A record that says how it is. It is of attrs."""

    @property
    def status(self) -> ExtensionStatus:
        """How it is."""


R = TypeVar("R", bound=Stated)


class Registrar(Keeper[R]):
    """One registration: its status is the worse of what it says itself and what its checks say.

    Args:
        what: it is called in errors.
        said: what it says of itself.
        place: its segments, the id last.
        checked: whether there are checks, which say STARTING at first.

    Raises:
        DiscoveryError: it holds what cannot be registered.
    """

    def __init__(
        self, client: Client, roster: Roster[R], changed: Signal, what: str, said: R, *place: str, checked: bool = False
    ) -> None:
        self._check(said)
        super().__init__(client, roster, changed, *place)
        self.said = said
        self._what: Final = what
        self._roster: Final = roster
        self._health = ExtensionStatus.STARTING if checked else HEALTHY
        self.desired = self._settled()
        self._ending = False

    @abstractmethod
    def _check(self, said: R) -> None:
        """Refuse now what no reader would take. Raises DiscoveryError."""

    def desire(self, said: R) -> None:
        """Take what it says of itself. Raises DiscoveryError, rather now than later to nobody."""
        self._check_not_superseded()
        if self._ending:
            raise DiscoveryError(f"{self._what} is leaving: it stays as it is, STOPPING")
        if self.said.status is STOPPING is not said.status:
            raise DiscoveryError(f"{self._what} is STOPPING, and that is final; register it anew")
        self._check(said)
        self.said = said
        self._settle()

    def assess(self, health: ExtensionStatus) -> None:
        """Take what the checks say. It hides nothing worse that was said."""
        self._health = health
        self._settle()

    def _settle(self) -> None:
        self.desired = self._settled()
        self._changed.fire()

    def _settled(self) -> R:
        return _as(self.said, worse(self.said.status, self._health))

    def look(self) -> None:
        """Find out whether another process has the id by now."""
        self.meet(self._roster.table.rivals(self._place[-1], self.process))
        self._changed.fire()

    def _check_not_superseded(self) -> None:
        if self.superseded:
            raise DiscoveryError(f"{self._what} was registered anew by another process; this one is out")

    async def wait_registered(self, timeout: float | None, check: Callable[[], None]) -> None:
        """Wait until the latest record stands in the store.

        Args:
            check: raises when it is not to be waited for any more.

        Raises:
            TimedOutError: after `timeout` seconds, saying why.
            DiscoveryError: another process registered the id later.
            ClosedError: the client was closed.
        """

        def done() -> bool:
            check()
            self._client._connection.check_open()
            self._check_not_superseded()
            return self.registered

        try:
            await self._changed.wait_for(done, timeout)
        except TimeoutError:
            raise TimedOutError(f"not registered within {timeout} s: {self.error or 'the store is slow'}") from None

    async def wait_published(self, check: Callable[[], None]) -> None:
        """Wait until what was desired last stands, at most as long as one operation may take.

        While it is not registered nobody could say for how long, and it is not waited for.
        """
        if self.session is not None:
            with suppress(TimedOutError):
                await self.wait_registered(self._client.options.timeout, check)

    def announce_end(self) -> None:
        """Let it be STOPPING from now on, whatever others want it to be."""
        self._ending = True
        self.said = _as(self.said, STOPPING)
        self._settle()

    async def leave(self) -> None:
        """Say STOPPING before going, so that nobody takes the end for a crash. Waits as long as one operation may."""
        self.announce_end()
        await super().leave()


def _as(record: R, status: ExtensionStatus) -> R:
    return evolve(record, status=status)  # type: ignore[misc]


class ExtensionRegistrar(Registrar[ExtensionInfo]):
    """One extension's registration. With checks, STARTING from itself only means that it has said nothing yet."""

    def __init__(
        self,
        client: Client,
        roster: Roster[ExtensionInfo],
        changed: Signal,
        extension: ExtensionInfo,
        *,
        checked: bool = False,
    ) -> None:
        silent = checked and extension.status is ExtensionStatus.STARTING
        said = evolve(extension, status=HEALTHY) if silent else extension
        what = f"the extension {extension.id!a}"
        super().__init__(client, roster, changed, what, said, PREFIX, extension.id, checked=checked)

    def _check(self, said: ExtensionInfo) -> None:
        try:
            read(encode(Registration(said, 2**63)))
        except (RecordError, AttributeError) as exc:
            raise DiscoveryError(f"the extension {said.id!a} cannot be registered: {exc}") from exc

    def _record(self, desired: ExtensionInfo) -> bytes:
        return encode(Registration(desired, self.mark))
