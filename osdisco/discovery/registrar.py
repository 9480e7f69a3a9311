"""This process's extension, as it should stand in the store, and what may."""

from __future__ import annotations

from attrs import evolve

from osdisco._follower import Follower
from osdisco._keeper import Keeper
from osdisco._records import decode, encode
from osdisco._signal import Signal
from osdisco.client import Client
from osdisco.discovery.extension import ExtensionInfo, ExtensionStatus
from osdisco.discovery.table import PREFIX, Folded, Registration
from osdisco.errors import DiscoveryError, RecordError


class Registrar(Keeper[ExtensionInfo]):
    """One extension's registration.

    Raises:
        DiscoveryError: the extension holds what cannot be registered.
    """

    def __init__(self, client: Client, extension: ExtensionInfo, view: Follower, changed: Signal) -> None:
        _check(extension)
        super().__init__(client, view, changed, PREFIX, extension.id)
        self.desired = extension
        self._ending = False

    def desire(self, extension: ExtensionInfo) -> None:
        """Let `extension` be what stands in the store. Raises DiscoveryError, rather now than later to nobody."""
        if self.superseded:
            raise DiscoveryError(
                f"the extension {extension.id!a} was registered anew by another process; this one is out"
            )
        if self._ending:
            raise DiscoveryError(f"the extension {extension.id!a} is leaving: it stays as it is, STOPPING")
        _check(extension)
        self.desired = extension
        self._changed.fire()

    def look(self, table: Folded[ExtensionInfo]) -> None:
        """Find out whether another process has the id by now."""
        self.yield_to(table.rival(self.desired.id, self.ours))

    def announce_end(self) -> None:
        """Let it be STOPPING from now on, whatever others want it to be."""
        self._ending = True
        self.desired = evolve(self.desired, status=ExtensionStatus.STOPPING)
        self._changed.fire()

    async def leave(self) -> None:
        """Say STOPPING before going, so that nobody takes the end for a crash. Waits as long as one operation may."""
        self.announce_end()
        await super().leave()

    def _record(self, desired: ExtensionInfo) -> bytes:
        return encode(Registration(desired, self.incarnation))


def _check(extension: ExtensionInfo) -> None:
    """Refuse now what no reader would take."""
    try:
        decode(encode(Registration(extension, 2**63)), Registration)
    except (RecordError, AttributeError) as exc:
        raise DiscoveryError(f"the extension {extension.id!a} cannot be registered: {exc}") from exc
