"""Where the rules of several services lead, taken together: what is refused when one of them is written."""

from __future__ import annotations

from collections.abc import Mapping

from osdisco.mesh._documents import refuse
from osdisco.mesh.router import DEPTH_MAX
from osdisco.mesh.rules import ServiceRules


def check_chains(service: str, rules: ServiceRules, others: Mapping[str, ServiceRules]) -> None:
    """Refuse rules of a service that do not fit those of the others.

    Raises:
        RulesError: splits that come back to a service, or go through too many; a subset that another one does not have.
    """
    together = {**others, service: rules}
    depths: dict[str, int] = {}
    for path, onward in rules.onward():
        _depth(onward, (service,), together, depths, path)
    for path, there, subset in rules.elsewhere():
        known = together.get(there)
        if known is None or subset not in known.subsets:
            raise refuse(path, f"is {subset!a}, which the rules of {there!a} do not have; add it there first")


def _depth(
    service: str, trail: tuple[str, ...], together: Mapping[str, ServiceRules], depths: dict[str, int], path: str
) -> int:
    """Return through how many services calls go that are split at one; each is looked at once."""
    shown = " → ".join((*trail, service))
    if service in trail:
        raise refuse(path, f"leads back to where it was: {shown}")
    if len(trail) + depths.get(service, 1) > DEPTH_MAX:
        raise refuse(path, f"leads through more than {DEPTH_MAX} services: {shown}")
    if service not in depths:
        rules = together.get(service, ServiceRules())
        below = [_depth(one, (*trail, service), together, depths, path) for _, one in rules.onward()]
        depths[service] = 1 + max(below, default=0)
    return depths[service]
