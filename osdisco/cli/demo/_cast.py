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


STORE: Final = "store"
"""Who stops and starts again; no extension."""


@frozen
class Event:
    """Something happened: `what` to `who`, `at` seconds on the clock that all processes of a machine share."""

    at: float
    who: str
    what: str
    data: Mapping[str, Any] = field(factory=dict)
