"""The rules for the traffic of one service, as people write them: router, then splitter, then resolver, as Consul's.

A call is matched first (`match`), then split by weight (`splits`), and then goes to a subset of the endpoints
(`subsets`, `default_subset`), or where `failover` says when that has none. Everything is optional: without rules calls
go to all endpoints of the service. Whoever makes or reads one of these gets a RulesError that names the field.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Self

from attrs import frozen

from osdisco.discovery.extension import METADATA_MAX, VALUE_MAX
from osdisco.discovery.versions import specifier
from osdisco.errors import DiscoveryError, RulesError
from osdisco.mesh import _documents as doc
from osdisco.mesh._documents import refuse, structure
from osdisco.mesh._matching import Text, read_text

SPLITS_MAX: Final = 64
MATCHES_MAX: Final = 128
SUBSETS_MAX: Final = 64
FAILOVER_MAX: Final = 16
CONDITIONS_MAX: Final = 32
SECONDS_MAX: Final = 3600.0

ANY: Final = "*"
"""The entry of `failover` for subsets that have none of their own."""

POLICIES: Final = (
    "least_request",
    "peak_ewma",
    "random",
    "rendezvous",
    "round_robin",
    "weighted_round_robin",
)


def _wrong_specifier(value: object) -> str | None:
    if not isinstance(value, str):
        return f"must be text, not {doc.kind(value)}"
    try:
        specifier(value)
    except DiscoveryError as exc:
        return f"is none: {exc}"
    return None


def _wrong_policy(value: object) -> str | None:
    if isinstance(value, str) and value in POLICIES:
        return None
    return f"must be one of {', '.join(POLICIES)}, not {value!a}"


def _metadata_value(value: Any, path: str) -> Any:
    if not isinstance(value, str) or len(value) > VALUE_MAX:
        raise refuse(path, f"must be text of at most {VALUE_MAX} characters")
    return value


@frozen
class SubsetRule:
    """Which endpoints of the service belong to a subset: those that are all of what is asked for.

    Args:
        version: a specifier such as `>=2,<3`, as `ServiceView.find` takes it.
        metadata: entries that an endpoint must have.
        only_passing: leave DEGRADED endpoints out, as Consul's OnlyPassing does.
    """

    version: str | None = doc.checked(_wrong_specifier, default=None)
    zone: str | None = doc.label(default=None)
    metadata: Mapping[str, str] = doc.named(_metadata_value, METADATA_MAX, "metadata", names=doc.wrong_text)
    only_passing: bool = doc.flag()


@frozen
class Split:
    """A part of the calls, in per cent in steps of 0.01, and where it goes: a subset, another service, or both.

    Another service without a subset may split again, up to eight services deep.
    """

    weight: float = doc.percent()
    subset: str | None = doc.name(default=None)
    service: str | None = doc.name(default=None)


@frozen
class FailoverTarget:
    """Where calls go whose subset has no endpoint that takes them: in the same service unless another one is named."""

    subset: str | None = doc.name(default=None)
    service: str | None = doc.name(default=None)
    zone: str | None = doc.label(default=None)

    def __attrs_post_init__(self) -> None:
        if self.subset is None and self.service is None and self.zone is None:
            raise refuse("", "names nowhere to go: a subset, a service or a zone")


_TARGET: Final = doc.reader(FailoverTarget)


@frozen
class Redirect:
    """All calls go to another service, as if they had been made to it."""

    service: str = doc.name()
    subset: str | None = doc.name(default=None)


@frozen
class MirrorRule:
    """A copy of a part of the calls goes to a subset or another service; its answer is dropped."""

    percent: float = doc.percent(default=100.0)
    subset: str | None = doc.name(default=None)
    service: str | None = doc.name(default=None)

    def __attrs_post_init__(self) -> None:
        if self.subset is None and self.service is None:
            raise refuse("", "names nowhere to send the copy: a subset or a service")


@frozen
class FaultRule:
    """What goes wrong with a part of the calls, on purpose: they are late, or fail with a status, or both.

    Args:
        percent: of the calls.
        delay: seconds before anything is sent.
        status: of the failure, 400 to 599; nothing is sent then.
    """

    percent: float = doc.percent(default=100.0)
    delay: float = doc.number(0, SECONDS_MAX, what="seconds", default=0.0)
    status: int | None = doc.whole(400, 599, default=None)

    def __attrs_post_init__(self) -> None:
        if not self.delay and self.status is None:
            raise refuse("", "does nothing: give a delay, a status or both")


@frozen
class RateLimit:
    """At most so many calls from each process that calls: a token bucket.

    Args:
        per_second: how many tokens come in a second.
        burst: how many there are at most; a second's when None, but at least 1.
    """

    per_second: float = doc.number(0, 1e6, what="calls a second", above=True)
    burst: int | None = doc.whole(1, 1_000_000, default=None)


@frozen
class RetryRule:
    """How often a call is tried, the first time included, and how long one attempt may take, in seconds."""

    attempts: int = doc.whole(1, 10)
    timeout: float | None = doc.number(0, SECONDS_MAX, what="seconds", above=True, default=None)


@frozen
class LoadBalancing:
    """How the endpoint of a call is picked: see `POLICIES`."""

    policy: str = doc.checked(_wrong_policy)


@frozen
class Match:
    """Calls that meet all conditions go where this says: a subset, another service, or `splits` of their own.

    The first that fits counts. Without any of the three they go the usual way, but with what else is said here.

    Args:
        name: shown as the reason of a route; its number when None.
        method: of the call.
        metadata: what is sent with the call, as headers: by name, in any case.
    """

    name: str | None = doc.text(default=None)
    method: Text | None = doc.checked(lambda _: None, read=read_text, default=None)
    metadata: Mapping[str, Text] = doc.named(read_text, CONDITIONS_MAX, "conditions", names=doc.wrong_text)
    subset: str | None = doc.name(default=None)
    service: str | None = doc.name(default=None)
    splits: tuple[Split, ...] = doc.many(doc.reader(Split), SPLITS_MAX, "splits")
    mirror: MirrorRule | None = doc.one(MirrorRule)
    fault: FaultRule | None = doc.one(FaultRule)
    rate_limit: RateLimit | None = doc.one(RateLimit)
    retry: RetryRule | None = doc.one(RetryRule)
    timeout: float | None = doc.number(0, SECONDS_MAX, what="seconds", above=True, default=None)

    def __attrs_post_init__(self) -> None:
        _check_splits(self.splits)
        if self.splits and (self.subset is not None or self.service is not None):
            raise refuse("splits", "cannot be there beside a subset or a service: each says where the calls go")


@frozen
class ServiceRules:
    """All rules of one service.

    Args:
        match: conditions, of which the first that fits counts.
        splits: where all other calls go, by weight; the weights add up to 100.
        default_subset: where they go that no split and no match send to another.
        subsets: by name.
        failover: by subset, or `*`: where calls go, in order, when it has no endpoint that takes them.
        redirect: all calls go to another service; it excludes everything else.
        mirror: of calls to this service, unless their match has its own.
        fault: of calls to this service, unless their match has its own.
        rate_limit: of calls to this service, unless their match has its own.
        retry: of calls to this service, unless their match has its own.
        timeout: of calls to this service, unless their match has its own.
        lb: how endpoints are picked of this service, whichever way a call came to it.
    """

    match: tuple[Match, ...] = doc.many(doc.reader(Match), MATCHES_MAX, "matches")
    splits: tuple[Split, ...] = doc.many(doc.reader(Split), SPLITS_MAX, "splits")
    default_subset: str | None = doc.name(default=None)
    subsets: Mapping[str, SubsetRule] = doc.named(doc.reader(SubsetRule), SUBSETS_MAX, "subsets")
    failover: Mapping[str, tuple[FailoverTarget, ...]] = doc.named(
        lambda value, path: doc.several(_TARGET, value, path, FAILOVER_MAX, "targets"), SUBSETS_MAX + 1, "entries"
    )
    redirect: Redirect | None = doc.one(Redirect)
    mirror: MirrorRule | None = doc.one(MirrorRule)
    fault: FaultRule | None = doc.one(FaultRule)
    rate_limit: RateLimit | None = doc.one(RateLimit)
    lb: LoadBalancing | None = doc.one(LoadBalancing)
    retry: RetryRule | None = doc.one(RetryRule)
    timeout: float | None = doc.number(0, SECONDS_MAX, what="seconds", above=True, default=None)

    @classmethod
    def parse(cls, document: object) -> Self:
        """Read a document as JSON has it. Raises RulesError that names the field, what is wrong and what is allowed."""
        try:
            return structure(cls, document)
        except RulesError as exc:
            raise exc if exc.field else refuse("the document", exc.message) from None

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it, without what it says nothing of."""
        written: dict[str, Any] = doc.plain(self)
        return written

    def __attrs_post_init__(self) -> None:
        _check_splits(self.splits)
        _check_names(self.match)
        if self.redirect is not None and (others := sorted(self.document().keys() - {"redirect"})):
            raise refuse("redirect", f"excludes everything else, and there is {', '.join(others)}")
        for path, subset in self._subsets_named():
            if subset is not None and subset not in self.subsets:
                raise refuse(path, f"is {subset!a}, which is no subset here; {_there_are(self.subsets)}")
        self.check_failover(None)

    def _subsets_named(self) -> Iterator[tuple[str, str | None]]:
        """Yield the names of subsets of this service, with where they stand."""
        yield "default_subset", self.default_subset
        for path, one in self._places():
            if one.service is None:
                yield f"{path}.subset", one.subset
        for key in self.failover:
            yield "failover", None if key == ANY else key

    def _places(self) -> Iterator[tuple[str, Match | Split | FailoverTarget | MirrorRule]]:
        for number, one in enumerate(self.match):
            yield f"match[{number}]", one
            yield from ((f"match[{number}].splits[{place}]", split) for place, split in enumerate(one.splits))
            if one.mirror is not None:
                yield f"match[{number}].mirror", one.mirror
        yield from ((f"splits[{place}]", split) for place, split in enumerate(self.splits))
        if self.mirror is not None:
            yield "mirror", self.mirror
        for key, targets in self.failover.items():
            yield from ((f"failover[{key!a}][{place}]", target) for place, target in enumerate(targets))

    def check_failover(self, name: str | None) -> None:
        """Refuse failover to where the calls come from. Raises RulesError.

        Args:
            name: of the service; None while nobody knows it, and it can only be meant by not being named.
        """
        for key, targets in self.failover.items():
            for place, target in enumerate(targets):
                same = (key, None) if target.service is not None else (key,)
                if target.service in (None, name) and target.zone is None and target.subset in same:
                    raise refuse(f"failover[{key!a}][{place}]", "goes where the calls come from, which has nobody then")

    def services(self) -> Iterator[tuple[str, str]]:
        """Yield all services that are named, with where they are."""
        if self.redirect is not None:
            yield "redirect.service", self.redirect.service
        for path, one in self._places():
            if one.service is not None:
                yield f"{path}.service", one.service

    def elsewhere(self) -> Iterator[tuple[str, str, str]]:
        """Yield the subsets of other services that are named, as where, the service and the subset."""
        if self.redirect is not None and self.redirect.subset is not None:
            yield "redirect.subset", self.redirect.service, self.redirect.subset
        for path, one in self._places():
            if one.service is not None and one.subset is not None:
                yield f"{path}.subset", one.service, one.subset

    def onward(self) -> Iterator[tuple[str, str]]:
        """Yield the services at which calls are split again, with where they are named."""
        if self.redirect is not None and self.redirect.subset is None:
            yield "redirect.service", self.redirect.service
        for path, one in self._places():
            if isinstance(one, Match | Split) and one.service is not None and one.subset is None:
                yield f"{path}.service", one.service


def _check_splits(splits: Iterable[Split]) -> None:
    splits = tuple(splits)
    steps = [doc.hundredths(split.weight) or 0 for split in splits]
    if splits and sum(steps) != 100_00:
        raise refuse("splits", f"have weights that add up to {sum(steps) / 100:g}; they must add up to 100")
    places: dict[object, int] = {}
    for number, split in enumerate(splits):
        first = places.setdefault((split.service, split.subset), number)
        if first != number:
            raise refuse(f"splits[{number}]", f"goes where splits[{first}] goes; add their weights up in one")


def _check_names(matches: Iterable[Match]) -> None:
    seen: set[str] = set()
    for number, match in enumerate(matches):
        if match.name is not None and match.name in seen:
            raise refuse(f"match[{number}].name", f"is {match.name!a}, which an earlier match has already")
        seen.add(match.name or "")


def _there_are(subsets: Mapping[str, object]) -> str:
    return f"there are {', '.join(map(ascii, subsets))}" if subsets else "there are none"
