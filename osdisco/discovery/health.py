"""What several checks make of an extension, and who runs them.

What comes of it is published through the registrar: each version of the record is put in one commit with the removal of
the one before, provided that neither was touched (`osdisco._keeper`). That is the compare-and-set: a status that comes
late, from whatever process, never takes the place of a newer one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Final

from osdisco._tasks import Supervisor, cancel
from osdisco.discovery._watching import CheckState, CheckStatus, Watching
from osdisco.discovery.checks import Check, distinct
from osdisco.discovery.extension import ExtensionStatus
from osdisco.runtime import Runtime

_SEVERITY: Final = (
    ExtensionStatus.HEALTHY,
    ExtensionStatus.DEGRADED,
    ExtensionStatus.STARTING,
    ExtensionStatus.UNHEALTHY,
    ExtensionStatus.STOPPING,
)


def worse(one: ExtensionStatus, other: ExtensionStatus) -> ExtensionStatus:
    """Return the status that leaves less hope of an answer."""
    return max(one, other, key=_SEVERITY.index)


def combined(checks: Iterable[CheckStatus]) -> ExtensionStatus:
    """Return what checks make of their extension.

    A critical one that fails makes it UNHEALTHY; else one that has not passed yet leaves it STARTING; else any that
    fails makes it DEGRADED; else it is HEALTHY.
    """
    return max((_meaning(check) for check in checks), key=_SEVERITY.index, default=ExtensionStatus.HEALTHY)


def _meaning(check: CheckStatus) -> ExtensionStatus:
    if check.state is CheckState.FAILING:
        return ExtensionStatus.UNHEALTHY if check.critical else ExtensionStatus.DEGRADED
    return ExtensionStatus.STARTING if check.state is CheckState.STARTING else ExtensionStatus.HEALTHY


class Health(Mapping[str, CheckStatus]):
    """The checks of this process's extension, as they are now, by name."""

    def __init__(self, watched: Mapping[str, Watching]) -> None:
        self._watched = watched

    def __getitem__(self, name: str) -> CheckStatus:
        return self._watched[name].status

    def __iter__(self) -> Iterator[str]:
        return iter(self._watched)

    def __len__(self) -> int:
        return len(self._watched)

    def __repr__(self) -> str:
        return f"<Health: {', '.join(f'{name} {check.state.value}' for name, check in self.items()) or 'no checks'}>"

    @property
    def status(self) -> ExtensionStatus:
        """What the checks make of the extension; HEALTHY without any."""
        return combined(self.values())


class Monitor:
    """Runs checks, and tells what they make of their extension.

    Args:
        publish: called with each status that is another than the last, STARTING at first being known. Neither waits
            nor raises.

    Raises:
        ConfigError: two checks of one name, or something that is no check.
    """

    def __init__(
        self,
        checks: Iterable[Check],
        runtime: Runtime,
        supervisor: Supervisor,
        publish: Callable[[ExtensionStatus], None],
    ) -> None:
        self._publish = publish
        self._told = ExtensionStatus.STARTING
        self._watched = {check.label: Watching(check, runtime, supervisor, self._look) for check in distinct(checks)}
        self.health: Final = Health(self._watched)

    def start(self) -> None:
        """Begin to check."""
        for watched in self._watched.values():
            watched.start()

    async def aclose(self) -> None:
        """Check no more. All are ended at once: who is cancelled while one ends leaves none running."""
        await cancel(*chain.from_iterable(watched.tasks for watched in self._watched.values()))

    def _look(self) -> None:
        status = self.health.status
        if status is not self._told:
            self._told = status
            self._publish(status)
