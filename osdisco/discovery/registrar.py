"""This process's extension, as it should stand in the store, and what may."""

from __future__ import annotations

from attrs import evolve

from osdisco._follower import Follower
from osdisco._keeper import Keeper
from osdisco._records import decode, encode
from osdisco._signal import Signal
from osdisco.client import Client
from osdisco.discovery.extension import ExtensionInfo, ExtensionStatus
from osdisco.discovery.health import worse
from osdisco.discovery.registration import PREFIX, Registration
from osdisco.discovery.table import Folded
from osdisco.errors import DiscoveryError, RecordError

HEALTHY, STOPPING = ExtensionStatus.HEALTHY, ExtensionStatus.STOPPING


class Registrar(Keeper[ExtensionInfo]):
    """One extension's registration: its status is the worse of what it says itself and what its checks say.

    Args:
        checked: whether there are checks, which say STARTING at first. STARTING from the extension itself then only
            means that it has said nothing yet.

    Raises:
        DiscoveryError: the extension holds what cannot be registered.
    """

    def __init__(
        self, client: Client, extension: ExtensionInfo, view: Follower, changed: Signal, *, checked: bool = False
    ) -> None:
        _check(extension)
        super().__init__(client, view, changed, PREFIX, extension.id)
        self.said = extension
        self._health = HEALTHY
        if checked:
            self._health = ExtensionStatus.STARTING
            self.said = evolve(extension, status=HEALTHY) if extension.status is self._health else extension
        self.desired = self._settled()
        self._ending = False

    def desire(self, extension: ExtensionInfo) -> None:
        """Take what the extension says of itself. Raises DiscoveryError, rather now than later to nobody."""
        if self.superseded:
            raise DiscoveryError(
                f"the extension {extension.id!a} was registered anew by another process; this one is out"
            )
        if self._ending:
            raise DiscoveryError(f"the extension {extension.id!a} is leaving: it stays as it is, STOPPING")
        if self.said.status is STOPPING is not extension.status:
            raise DiscoveryError(f"the extension {extension.id!a} is STOPPING, and that is final; register it anew")
        _check(extension)
        self.said = extension
        self._settle()

    def assess(self, health: ExtensionStatus) -> None:
        """Take what the checks say. It hides nothing worse that the extension said itself."""
        self._health = health
        self._settle()

    def _settle(self) -> None:
        self.desired = self._settled()
        self._changed.fire()

    def _settled(self) -> ExtensionInfo:
        return evolve(self.said, status=worse(self.said.status, self._health))

    def look(self, table: Folded[ExtensionInfo]) -> None:
        """Find out whether another process has the id by now."""
        self.yield_to(table.rival(self.desired.id, self.ours))

    def announce_end(self) -> None:
        """Let it be STOPPING from now on, whatever others want it to be."""
        self._ending = True
        self.said = evolve(self.said, status=STOPPING)
        self._settle()

    async def leave(self) -> None:
        """Say STOPPING before going, so that nobody takes the end for a crash. Waits as long as one operation may."""
        self.announce_end()
        await super().leave()

    def _record(self, desired: ExtensionInfo) -> bytes:
        return encode(Registration(desired, self.mark))


def _check(extension: ExtensionInfo) -> None:
    """Refuse now what no reader would take."""
    try:
        decode(encode(Registration(extension, 2**63)), Registration)
    except (RecordError, AttributeError) as exc:
        raise DiscoveryError(f"the extension {extension.id!a} cannot be registered: {exc}") from exc
