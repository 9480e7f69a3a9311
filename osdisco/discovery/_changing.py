"""Changes of what is registered: what may be changed of it, and what is said to who asks for more."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from attrs import evolve, fields_dict

from osdisco.errors import DiscoveryError

R = TypeVar("R")


def changed(record: R, what: str, kept: Collection[str], changes: Mapping[str, Any]) -> R:
    """Return a record of attrs with fields changed; `metadata` is merged.

    Args:
        what: it is called in errors, such as `an extension`.
        kept: the fields that stay as they were registered.

    Raises:
        DiscoveryError: a field that it has not, or that stays, or, as its own class says, what cannot be in a field.
    """
    free = [name for name in fields_dict(type(record)) if name not in kept]  # type: ignore[arg-type]
    for name in changes:
        if name in kept:
            raise DiscoveryError(f"the {name} of {what} stays as it was registered; register another one instead")
        if name not in free:
            raise DiscoveryError(f"{what} has no field {name!a}; known are {', '.join(free)}")
    metadata = changes.get("metadata")
    if isinstance(metadata, Mapping):  # what is none is refused with the rest
        changes = {**changes, "metadata": {**record.metadata, **metadata}}  # type: ignore[attr-defined]
    return evolve(record, **changes)  # type: ignore[misc]
