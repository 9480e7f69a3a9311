"""The router: rules turned into the route of one call, without I/O and in a bounded number of steps.

A call with a key goes the same way as long as the weights stay, in every process: its place among 10,000 is a hash of
the service and the key. The splits of a service share those places out in the order of what they name. So when one
weight rises, and no other does, what it had before stays its own: no user leaves a canary that gets more.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from itertools import accumulate
from typing import Any, Final

from attrs import define, evolve, field, frozen

from osdisco.mesh._documents import hundredths
from osdisco.mesh.rate_limits import TokenBucket
from osdisco.mesh.route import Route, Subset, Target
from osdisco.mesh.rules import ANY, FaultRule, Match, MirrorRule, RateLimit, RetryRule, ServiceRules, Split
from osdisco.runtime import Runtime

PLACES: Final = 100_00
"""Among which keys are spread: a weight's steps of 0.01 per cent."""

DEPTH_MAX: Final = 8
"""Services whose splits a call goes through, as in Consul's chains; then it stays where it is."""

NO_RULES: Final = ServiceRules()


def place_of(service: str, key: str) -> int:
    """Return the place of a key among 10,000, the same in every process and for as long as there is osdisco."""
    digest = blake2b(f"{service}\0{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) % PLACES


@frozen
class _Way:
    """Where a call is to go next: a service, and one of its subsets if that is decided."""

    service: str
    subset: str | None = None
    note: str = ""


@frozen
class _Fork:
    """Splits, with the places up to which each has its share."""

    ends: tuple[int, ...]
    ways: tuple[_Way, ...]

    @classmethod
    def of(cls, splits: Iterable[Split], service: str) -> _Fork | None:
        ordered = sorted(splits, key=lambda split: (split.service or "", split.subset or ""))
        ends = tuple(accumulate(hundredths(split.weight) or 0 for split in ordered))
        ways = tuple(_Way(split.service or service, split.subset, f"{split.weight:g} %") for split in ordered)
        return cls(ends, ways) if ends else None

    def at(self, place: int) -> _Way:
        return self.ways[bisect_right(self.ends, place)]


@define(eq=False)
class _Treatment:
    """How calls are treated that a match fits, or none: where they begin, and what is said of them.

    `service` is the one whose rules say so, wherever the calls end up.
    """

    service: str
    reason: str
    begins: _Way
    fork: _Fork | None
    match: Match | None
    mirror: MirrorRule | None
    fault: FaultRule | None
    limit: TokenBucket | None
    retry: RetryRule | None
    timeout: float | None
    routes: dict[_Way, Route] = field(factory=dict)

    def fits(self, method: str, metadata: Mapping[str, str]) -> bool:
        if self.match is None:
            return True
        if self.match.method is not None and not self.match.method.meets(method):
            return False
        return all(one.meets(metadata.get(name.lower())) for name, one in self.match.metadata.items())


class Router:
    """Says where a call goes. Everything that can be known before a call is worked out when the rules change.

    Args:
        runtime: of the client; calls without a key are spread by its randomness.
        rules: by service, also as JSON has them. Services without any have all their endpoints called.

    Raises:
        RulesError: naming the field that cannot be so; also `update` raises it, and goes on as before then.
    """

    def __init__(self, runtime: Runtime, rules: Mapping[str, ServiceRules | Mapping[str, Any]] | None = None) -> None:
        self._random = runtime.random
        self._now = runtime.clock.now
        self._rules: Mapping[str, ServiceRules] = {}
        self._treatments: dict[str, tuple[_Treatment, ...]] = {}
        self._forks: dict[str, _Fork | None] = {}
        self._limits: dict[tuple[str, str], tuple[RateLimit, TokenBucket]] = {}
        self.update(rules or {})

    def update(self, rules: Mapping[str, ServiceRules | Mapping[str, Any]]) -> None:
        """Follow other rules from now on. Rate limits that stay as they are go on counting."""
        before, self._rules = self._rules, {service: ServiceRules.parse(one) for service, one in rules.items()}
        self._treatments.clear()
        self._forks = {  # of a thousand services one changes at a time
            service: self._forks[service] if before.get(service) is one else _Fork.of(one.splits, service)
            for service, one in self._rules.items()
        }
        self._limits = {key: kept for key, kept in self._limits.items() if key[0] in self._rules}

    def route(
        self, service: str, method: str = "", metadata: Mapping[str, str] | None = None, key: str | None = None
    ) -> Route:
        """Return where a call goes. Never fails: what rules lead nowhere is said in the route's `reason`.

        Args:
            method: of the call.
            metadata: what is sent with it.
            key: whatever has the same goes the same way, as long as the weights stay; by chance when None.
        """
        treatments = self._treatments.get(service)
        if treatments is None:
            treatments = self._treatments[service] = tuple(self._treat(service))
        treatment = treatments[0]
        if len(treatments) > 1:
            names = {name.lower(): value for name, value in (metadata or {}).items()}
            treatment = next(one for one in treatments if one.fits(method, names))
        way = self._walk(service, treatment, key)
        route = treatment.routes.get(way)
        if route is None:
            route = treatment.routes[way] = self._made(treatment, way)
        return self._drawn(treatment, route) if treatment.mirror or treatment.fault else route

    def _treat(self, service: str) -> Iterable[_Treatment]:
        """Yield how calls to a service are treated: of each match, and of those that none fits."""
        rules = self._rules.get(service, NO_RULES)
        for number, match in enumerate(rules.match):
            name = match.name or f"match[{number}]"
            fork = _Fork.of(match.splits, service)
            begins = _Way(match.service or service, match.subset)
            yield _Treatment(
                service,
                f"{name} of {service}",
                begins,
                fork,
                match,
                match.mirror or rules.mirror,
                match.fault or rules.fault,
                self._limit(service, name, match.rate_limit) or self._limit(service, "", rules.rate_limit),
                match.retry or rules.retry,
                rules.timeout if match.timeout is None else match.timeout,
            )
        reason = f"rules of {service}" if service in self._rules else "no rules"
        limit = self._limit(service, "", rules.rate_limit)
        yield _Treatment(
            service, reason, _Way(service), None, None, rules.mirror, rules.fault, limit, rules.retry, rules.timeout
        )

    def _limit(self, service: str, name: str, limit: RateLimit | None) -> TokenBucket | None:
        if limit is None:
            return None
        kept = self._limits.get((service, name))
        if kept is None or kept[0] != limit:
            burst = max(1.0, limit.per_second) if limit.burst is None else limit.burst
            kept = self._limits[service, name] = limit, TokenBucket(self._now, limit.per_second, burst)
        return kept[1]

    def _walk(self, service: str, treatment: _Treatment, key: str | None) -> _Way:
        """Return where a call ends up: through the splits and redirects of at most DEPTH_MAX services."""
        way = treatment.begins if treatment.fork is None else treatment.fork.at(self._place(service, key))
        if treatment.fork is not None and way.service == service:
            return way  # what splits a match has are instead of the service's own
        seen: set[str] = set()
        while way.subset is None:
            if way.service in seen or len(seen) == DEPTH_MAX:
                return _Way(way.service, None, f"the splits do not end: stopped at {way.service}")
            seen.add(way.service)
            onward = self._onward(way.service, key)
            if onward is None:
                break
            stays = onward.service == way.service
            way = onward
            if stays:
                break
        return way

    def _onward(self, service: str, key: str | None) -> _Way | None:
        """Return where calls go that have come to a service; None: nowhere else."""
        fork = self._forks.get(service)
        if fork is not None:
            return fork.at(self._place(service, key))
        redirect = self._rules.get(service, NO_RULES).redirect
        return None if redirect is None else _Way(redirect.service, redirect.subset, "redirected")

    def _place(self, service: str, key: str | None) -> int:
        return self._random.randrange(PLACES) if key is None else place_of(service, key)

    def _made(self, treatment: _Treatment, way: _Way) -> Route:
        subset = self._subset(way.service, way.subset)
        failover = self._failover(way.service, None if subset is None else subset.name)
        rules = self._rules.get(way.service, NO_RULES)
        reason = ", ".join(filter(None, (treatment.reason, way.note)))
        if subset is not None and not subset.known:
            reason += f": {way.service} has no subset {subset.name!a}"
        return Route(
            way.service,
            subset,
            reason,
            tuple(there for there in failover if there != Target(way.service, subset)),
            limit=treatment.limit,
            lb=None if rules.lb is None else rules.lb.policy,
            retry=treatment.retry,
            timeout=treatment.timeout,
        )

    def _failover(self, service: str, subset: str | None) -> Iterable[Target]:
        rules = self._rules.get(service, NO_RULES)
        listed = rules.failover.get(subset) if subset is not None else None
        for target in rules.failover.get(ANY, ()) if listed is None else listed:
            there = target.service or service
            same = subset if there == service else None
            yield Target(there, self._subset(there, target.subset or same, target.zone))

    def _subset(self, service: str, name: str | None, zone: str | None = None) -> Subset | None:
        """Return a subset of a service, the default one if none is named; None: all of its endpoints."""
        rules = self._rules.get(service, NO_RULES)
        name = rules.default_subset if name is None else name
        if name is not None:
            return Subset.of(name, rules.subsets.get(name), zone)
        return None if zone is None else Subset(f"zone {zone}", zone=zone)

    def _drawn(self, treatment: _Treatment, route: Route) -> Route:
        """Add what happens to a part of the calls only."""
        mirror, fault = treatment.mirror, treatment.fault
        if mirror is not None and self._chance(mirror.percent):
            there = mirror.service or treatment.service
            route = evolve(route, mirror=Target(there, self._subset(there, mirror.subset)))
        if fault is not None and self._chance(fault.percent):
            route = evolve(route, fault=fault)
        return route

    def _chance(self, percent: float) -> bool:
        return self._random.random() * 100 < percent
