"""What stands of a service's rules when somebody wants to change them, and what may follow on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import evolve, frozen

from osdisco.backend import Item
from osdisco.errors import ConflictError
from osdisco.mesh import _canary as canaries
from osdisco.mesh._canary import CanaryState
from osdisco.mesh._rules_record import RulesVersion
from osdisco.mesh.rules import ServiceRules


@frozen
class Standing:
    """What was seen before a change.

    `now` is None when nothing stands, or nothing good. `kept` are the versions of the history, the newest first.
    """

    service: str
    item: Item | None
    now: RulesVersion | None
    kept: tuple[RulesVersion, ...]
    others: Mapping[str, ServiceRules]

    def check_is(self, version: int | None) -> None:
        """Raise ConflictError unless this version stands; 0 is none, None is any."""
        there = 0 if self.item is None else self.now.version if self.now else None
        if version is not None and version != there:
            stands = "none stands" if there == 0 else f"version {there or 'unknown'} stands"
            raise ConflictError(f"the rules of {self.service!a}: {stands}, not {version}; nothing was written")

    @property
    def there(self) -> RulesVersion:
        """What stands. Raises ConflictError when nothing does."""
        if self.now is None:
            raise ConflictError(f"{self.service!a} has no rules, or none that can be read; set some first")
        return self.now

    @property
    def settled(self) -> RulesVersion:
        """What stands, with no canary under way. Raises ConflictError."""
        now = self.there
        if now.canary is not None and now.canary.running:
            canary = now.canary.plan.canary
            raise ConflictError(
                f"the canary {canary!a} of {self.service!a} is under way; promote or roll it back first"
            )
        return now

    @property
    def under_way(self) -> CanaryState:
        """The canary under way. Raises ConflictError when there is none."""
        canary = self.there.canary
        if canary is None or not canary.running:
            raise ConflictError(f"no canary of {self.service!a} is under way; nothing was changed")
        return canary

    def next(self, rules: ServiceRules, why: str, canary: CanaryState | None = None) -> RulesVersion:
        """Return the version that follows; a rollback from it returns to what stands, or stood before a canary."""
        last = self.now or (self.kept[0] if self.kept else None)
        newest = max((one.version for one in (last, *self.kept) if one is not None), default=0)
        previous = 0 if last is None else _settled_version(last)
        return RulesVersion(newest + 1, rules, previous, why=why[:255], canary=canary)

    def back(self, to: int | None) -> RulesVersion:
        """Return what stands after a rollback. Raises ConflictError when there is nothing to return to."""
        if self.ends_canary(to):
            rules, state = canaries.rolled_back(self.there.rules, self.under_way, "rolled back by hand")
            return self.next(rules, f"canary {state.plan.canary!a} rolled back by hand", state)
        version = self._version_before() if to is None else to
        found = next((one for one in self.kept if one.version == version), None)
        if found is None:
            kept = ", ".join(str(one.version) for one in self.kept) or "none"
            wanted = f"version {version}" if version else "an earlier version"
            raise ConflictError(f"{wanted} of the rules of {self.service!a} is not kept; kept are {kept}")
        canary = found.canary and (None if found.canary.running else found.canary)
        return evolve(self.next(found.rules, f"back to version {version}", canary), previous=found.previous)

    def ends_canary(self, to: int | None) -> bool:
        """Return whether a rollback is that of a canary under way, and not to another version."""
        return to is None and self.now is not None and self.now.canary is not None and self.now.canary.running

    def _version_before(self) -> int:
        if self.now is not None:
            return self.now.previous
        return next((_settled_version(one) for one in self.kept), 0)


def _settled_version(version: RulesVersion) -> int:
    """Return its number, or that of what stood before its canary, which is under way and not to be taken up again."""
    under_way = version.canary is not None and version.canary.running
    return version.previous if under_way else version.version


Change = Callable[[Standing], RulesVersion]
"""Returns what is to stand, as `Standing.next` makes it. Raises what is told when it is not to be changed."""
