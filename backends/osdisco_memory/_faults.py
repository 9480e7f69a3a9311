"""Switches for what real stores and networks do to their clients.

`store.faults` holds for everybody, `backend.faults` for one client: its way to the store. Calls are named `get`,
`scan`, `commit`, `watch`, `grant`, `renew` and `revoke`. Every method that breaks calls returns a `Rule`: it counts its
`hits`, ends after `times` calls, by `end()`, or at the end of a `with` block.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

from attrs import define, field

from osdisco.errors import DeniedError, IndeterminateError, OsdiscoError, UnavailableError

if TYPE_CHECKING:
    from osdisco_memory._store import MemoryStore

CALLS: Final = ("get", "scan", "commit", "watch", "grant", "renew", "revoke", "lease_status")


class Effect(enum.Enum):
    """What a rule does to a call."""

    OUTAGE = "outage"
    DENY = "deny"
    DROP = "drop"
    DROP_ANSWER = "drop_answer"
    LATE = "late"
    FALSE_RENEW = "false_renew"
    DELAY = "delay"


@define(eq=False)
class Rule:
    """One fault. `hits` counts the calls that met it."""

    effect: Effect
    calls: frozenset[str]
    times: int | None
    key: str
    request: float
    answer: float
    _faults: Faults
    hits: int = field(default=0, init=False)

    def meets(self, call: str, keys: Iterable[str]) -> bool:
        """Return whether the call is one of those meant."""
        return call in self.calls and (not self.key or any(self.key in key for key in keys))

    def end(self) -> None:
        """Take the fault away. May be called twice."""
        self._faults.end(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


class Faults:
    """Faults of calls. Arguments of all: the `calls` that are meant (none: all of them), how many `times` (None: until
    it is ended), and a text that one `key` of the call must contain.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self.frozen = False
        self._changed = changed
        self._rules: list[Rule] = []
        self._held: list[Request] = []

    @property
    def active(self) -> bool:
        """Whether any call can meet a fault."""
        return self.frozen or bool(self._rules)

    def outage(self, *calls: str, times: int | None = None, key: str = "") -> Rule:
        """Refuse: UnavailableError, nothing applied. Ends open watches."""
        return self._add(Effect.OUTAGE, calls, times, key)

    def deny(self, *calls: str, times: int | None = None, key: str = "") -> Rule:
        """Refuse the permission: DeniedError, nothing applied. Ends open watches."""
        return self._add(Effect.DENY, calls, times, key)

    def drop(self, *calls: str, times: int | None = None, key: str = "") -> Rule:
        """Lose the request: never applied, but a mutation cannot know that: IndeterminateError."""
        return self._add(Effect.DROP, calls, times, key)

    def drop_answer(self, *calls: str, times: int | None = None, key: str = "") -> Rule:
        """Apply, then lose the answer: IndeterminateError."""
        return self._add(Effect.DROP_ANSWER, calls, times, key)

    def late(self, *calls: str, after: float, times: int | None = None, key: str = "") -> Rule:
        """Raise IndeterminateError at once, and apply `after` seconds later, whatever happened meanwhile."""
        return self._add(Effect.LATE, calls, times, key, after)

    def false_renew(self, times: int | None = None) -> Rule:
        """Answer renewals as good, for living and dead leases, and renew nothing (Consul; older etcd)."""
        return self._add(Effect.FALSE_RENEW, ("renew",), times, "")

    def delay(
        self, *calls: str, request: float = 0.0, answer: float = 0.0, times: int | None = None, key: str = ""
    ) -> Rule:
        """Take `request` seconds until it is applied and `answer` seconds back; frames of watches take `answer`.

        A mutation that takes longer than its timeout is Indeterminate, and still applied when it arrives.
        """
        return self._add(Effect.DELAY, calls, times, key, request, answer)

    def freeze(self) -> None:
        """Answer nothing, as behind SIGSTOP or a silent partition. What was sent meanwhile applies at `thaw`."""
        self.frozen = True
        self._changed()

    def thaw(self) -> None:
        """End `freeze`: whatever was sent arrives now, in its order, also from callers that gave up."""
        self.frozen = False
        held, self._held = self._held, []
        for request in held:
            request.arrive()
        self._changed()

    def clear(self) -> None:
        """End all rules, and thaw."""
        self._rules.clear()
        self.thaw()

    def hold(self, request: Request) -> None:
        """Keep a request until `thaw`."""
        self._held.append(request)

    def meet(self, call: str, keys: Iterable[str]) -> list[Rule]:
        """Return what the call meets, counting it: all delays that come before the first rule that decides it."""
        met: list[Rule] = []
        for rule in [rule for rule in self._rules if rule.meets(call, keys)]:
            rule.hits += 1
            if rule.hits == rule.times:
                self.end(rule)
            met.append(rule)
            if rule.effect is not Effect.DELAY:
                break
        return met

    def end(self, rule: Rule) -> None:
        """Take one rule away."""
        if rule in self._rules:
            self._rules.remove(rule)

    def _add(
        self, effect: Effect, calls: tuple[str, ...], times: int | None, key: str, request: float = 0, answer: float = 0
    ) -> Rule:
        unknown = set(calls) - set(CALLS)
        if unknown:
            raise ValueError(f"no such call: {', '.join(sorted(unknown))}; known are {', '.join(CALLS)}")
        rule = Rule(effect, frozenset(calls or CALLS), times, key, request, answer, self)
        self._rules.append(rule)
        self._changed()
        return rule


def refuse(call: str, rule: Rule) -> NoReturn:
    """Raise what a call gets that met a rule which keeps it from the store."""
    if rule.effect is Effect.DENY:
        raise DeniedError(f"{call} is denied")
    if rule.effect is Effect.OUTAGE:
        raise UnavailableError(f"{call}: the store is not available")
    raise unanswered(call, "the request was lost")


def unanswered(call: str, why: str) -> OsdiscoError:
    """Return what a call gets that has no answer."""
    if call in ("get", "scan", "watch", "lease_status"):
        return UnavailableError(f"{call}: {why}")
    return IndeterminateError(f"{call}: {why}; it may apply, now or later")


class StoreFaults(Faults):
    """Faults of calls for everybody, and how the store itself behaves.

    Attributes:
        noop_identical: a put of what is there already writes nothing and keeps its revision (Consul).
        bare_put_keeps_lease: a put without a lease leaves a leased key leased (Consul); else detached (etcd).
        conflate: watches get Snapshots of the latest state only (Consul). `limits.conflates` does it, too, and says so.
        expiry_factor: leases end this many ttls after their last renewal; None: as `limits` say.
    """

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store.wake)
        self.noop_identical = False
        self.bare_put_keeps_lease = False
        self.conflate = False
        self.expiry_factor: float | None = None
        self._store = store

    def clear(self) -> None:
        """End all rules, thaw, and behave as at first."""
        self.noop_identical = self.bare_put_keeps_lease = self.conflate = False
        self.expiry_factor = None
        super().clear()

    def imitate_consul(self) -> None:
        """Switch on what Consul does by nature; `MemoryStore(limits=CONSUL)` declares the rest."""
        self.noop_identical = self.bare_put_keeps_lease = self.conflate = True
        self.expiry_factor = 2.0

    def end_lease(self, lease_id: str) -> bool:
        """End a lease now, as an operator's revocation or an early expiry. False when there is none."""
        return self._store.revoke(lease_id)

    def compact(self) -> None:
        """Forget the history: a watch that resumes before this moment starts with a Snapshot."""
        self._store.compact()

    def resync(self) -> None:
        """Send every open watch a Snapshot next, as after a reconnect."""
        self._store.resync()


class Request:
    """One call on its way. It arrives once, and applies then, whether or not anybody still waits for its answer."""

    def __init__(self, apply: Callable[[], Any]) -> None:
        self._apply = apply
        self._loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[Any] = self._loop.create_future()

    def arrive(self) -> None:
        """Apply, and send the answer to whoever waits, in whatever loop."""
        try:
            value, error = self._apply(), None
        except Exception as exc:
            value, error = None, exc
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver, value, error)

    def fail(self, error: Exception) -> None:
        """Tell the waiting caller that there will be no answer."""
        self._deliver(None, error)

    def _deliver(self, value: Any, error: Exception | None) -> None:
        if self.answer.done():
            return
        if error is None:
            self.answer.set_result(value)
        else:
            self.answer.set_exception(error)
