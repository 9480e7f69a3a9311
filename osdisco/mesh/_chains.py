"""Where the rules of several services lead, taken together: what is refused when one of them is written."""

from __future__ import annotations

from collections.abc import Mapping

from osdisco.mesh._documents import refuse
from osdisco.mesh.router import DEPTH_MAX
from osdisco.mesh.rules import ServiceRules


def check_chains(
    service: str, rules: ServiceRules, others: Mapping[str, ServiceRules], before: ServiceRules | None = None
) -> None:
    """Refuse rules of a service that do not fit those of the others.

    Args:
        before: what stands; of what others lead to, no more is refused than what that has.

    Raises:
        RulesError: splits that come back to a service, or go through too many; a subset that another one does not have,
            or that is taken away while another one leads to it; failover to where the calls come from.
    """
    rules.check_failover(service)
    _check_kept(service, rules, others, before)
    together = {**others, service: rules}
    depths: dict[str, int] = {}
    for path, onward in rules.onward():
        _depth(onward, (service,), together, depths, path)
    for path, there, subset in rules.elsewhere():
        known = together.get(there)
        if known is None or subset not in known.subsets:
            raise refuse(path, f"is {subset!a}, which the rules of {there!a} do not have; add it there first")


def _check_kept(
    service: str, rules: ServiceRules, others: Mapping[str, ServiceRules], before: ServiceRules | None
) -> None:
    taken = set() if before is None else before.subsets.keys() - rules.subsets.keys()
    if not taken:
        return
    for other in sorted(others):
        for path, there, subset in others[other].elsewhere():
            if there == service and subset in taken:
                why = f"lack {subset!a}, to which the rules of {other!a} lead in {path}; change those first"
                raise refuse("subsets", why)


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
