"""Who plays in the demo, and what they tell of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attrs import field, frozen

from osdisco.discovery import ExtensionInfo

LOCK: Final = "reindex"
ROUNDS: Final = 2
BATCH: Final = "batch"
"""The key that is written under the lock."""

ELECTION: Final = "planner"
LEADER: Final = f"election/{ELECTION}/leader"
"""The key that says who leads."""
PLAN: Final = "plan"
"""The key that is written by who leads."""


@frozen
class Role:
    """One extension of the demo."""

    id: str
    capability: str
    colour: str

    def info(self, port: int) -> ExtensionInfo:
        """Its registration, where it listens. How it is, its check decides."""
        return ExtensionInfo(
            id=self.id,
            name=self.id,
            version="1.0.0",
            host="127.0.0.1",
            port=port,
            capabilities=(self.capability,),
        )


CAST: Final = {
    role.id: role
    for role in (
        Role("geo", "geo.search", "cyan"),
        Role("knn", "vector.search", "magenta"),
        Role("sql", "sql.query", "green"),
    )
}


SERVICE: Final = "geo"
CALLER: Final = "search"
"""Who calls it."""


@frozen
class Instance:
    """One endpoint of the service that is called in the last chapters, or who calls it."""

    id: str
    version: str
    colour: str


STABLE: Final = tuple(
    Instance(f"{SERVICE}-{number}", "1.0.0", colour) for number, colour in enumerate(("cyan", "magenta", "green"), 1)
)
CANARY: Final = Instance(f"{SERVICE}-4", "2.0.0", "yellow")
"""The new version, which is too slow."""
INSTANCES: Final = {one.id: one for one in (*STABLE, CANARY)}
CALLING: Final = {CALLER: Instance(CALLER, "1.0.0", "blue")} | INSTANCES
"""All who play there."""


STORE: Final = "store"
"""Who stops and starts again; no extension."""


@frozen
class Event:
    """Something happened: `what` to `who`, `at` seconds on the clock that all processes of a machine share."""

    at: float
    who: str
    what: str
    data: Mapping[str, Any] = field(factory=dict)
