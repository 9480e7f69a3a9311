"""Traffic rules in the store: a document for each service, changed by compare-and-set, with a history to return to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from attrs import evolve

from osdisco._connection import PAUSE_MIN
from osdisco.backend import ABSENT, Condition, Delete, Op, Put
from osdisco.client import Client
from osdisco.coordination._calls import in_client
from osdisco.errors import ConfigError, ConflictError, InvalidNameError, RulesError
from osdisco.mesh import _canary as canaries
from osdisco.mesh._canary import CanaryPlan
from osdisco.mesh._chains import check_chains
from osdisco.mesh._documents import refuse, structure
from osdisco.mesh._rules_record import RulesVersion, Shelf, decode, encode, good, good_of
from osdisco.mesh._standing import Change, Standing
from osdisco.mesh.rules import ServiceRules
from osdisco.mesh.rules_view import RulesView

HISTORY_MAX: Final = 10
"""Versions that are kept of a service; the steps of a canary are none of them."""


@contextmanager
def _of(service: str) -> Generator[None, None, None]:
    """Let errors of rules name the service whose rules they are."""
    try:
        yield
    except RulesError as exc:
        exc.service = service
        raise


class TrafficRules:
    """The rules of a client's namespace."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._connection = client._connection
        self._shelf = Shelf(client._keys)

    def __repr__(self) -> str:
        return f"<TrafficRules of {self._client!r}>"

    def view(self) -> RulesView:
        """Return the live view of all rules, with the router that follows them; enter or await it."""
        return RulesView(self._client)

    async def get(self, service: str) -> RulesVersion | None:
        """Return what stands; None when there are no rules. Linearizable.

        Raises:
            RulesError: what stands is no rules; those who route by it go on with what was good last.
        """
        self._connection.check_open()
        item = await self._connection.get(self._shelf.document(service))
        with _of(service):
            return None if item is None else decode(item.value)

    async def history(self, service: str) -> list[RulesVersion]:
        """Return the versions that are kept, at most HISTORY_MAX, the newest first; it stands unless it was removed."""
        self._connection.check_open()
        return good_of((await self._connection.scan(self._shelf.history(service))).items.values())

    async def set(
        self, service: str, rules: ServiceRules | Mapping[str, Any], *, expect: int | None = None
    ) -> RulesVersion:
        """Let rules stand, and end a canary that is under way.

        Args:
            rules: also as JSON has them.
            expect: only if this version stands; 0: if none does.

        Raises:
            RulesError: naming the field that cannot be so. ConflictError: another version stands.
            ConfigError: `expect` is no version.
            IndeterminateError: unknown whether they were written; look before trying again.
        """
        _check_version("expect", expect, least=0)
        with _of(service):
            parsed = ServiceRules.parse(rules)

        def set_(standing: Standing) -> RulesVersion:
            standing.check_is(expect)
            self._check(standing, parsed)
            return standing.next(parsed, "set")

        return await self._change(service, set_)

    async def remove(self, service: str) -> bool:
        """Let there be no rules; returns whether there were. The history stays, and a rollback brings them back.

        Raises:
            RulesError: another service leads to a subset of it. ConflictError: another was faster.
        """
        self._connection.check_open()
        standing = await self._look(service)
        if standing.item is None:
            return False
        with _of(service):
            self._check(standing, ServiceRules())
        key = self._shelf.document(service)
        commit = self._connection.commit([Delete(key)], {key: standing.item.unchanged})
        await in_client(self._client, commit, f"remove the rules of {service}")
        return True

    async def rollback(self, service: str, to: int | None = None) -> RulesVersion:
        """Return to an earlier version; from a canary under way to all calls on the stable subset.

        Args:
            to: the version; the previous one of what stands when None. Twice goes two versions back.

        Raises:
            ConflictError: there is no such version. ConfigError: `to` is no version.
            RulesError: it does not fit the rules that other services have by now.
        """
        _check_version("to", to, least=1)

        def back(standing: Standing) -> RulesVersion:
            new = standing.back(to)
            if not standing.ends_canary(to):  # which leads nowhere else, and must not be kept from it
                self._check(standing, new.rules)
            return new

        return await self._change(service, back)

    async def canary(self, service: str, plan: CanaryPlan | Mapping[str, Any]) -> RulesVersion:
        """Begin a canary: the leader among the `CanaryController`s moves calls to it, step by step, or back.

        Args:
            plan: also as JSON has it.

        Raises:
            RulesError: a subset is unknown, or calls are split already.
            ConflictError: there are no rules, or another canary is under way.
        """

        with _of(service):
            planned = structure(CanaryPlan, plan, "plan")

        def begin(standing: Standing) -> RulesVersion:
            rules, state = canaries.begun(standing.settled.rules, planned)
            return standing.next(rules, f"canary {planned.canary!a}: {state.weight:g} %", state)

        return await self._change(service, begin)

    async def promote(self, service: str) -> RulesVersion:
        """Give all calls to the canary under way. Raises ConflictError when there is none."""

        def promote(standing: Standing) -> RulesVersion:
            rules, state = canaries.promoted(standing.there.rules, standing.under_way, "promoted by hand")
            return standing.next(rules, f"canary {state.plan.canary!a} promoted by hand", state)

        return await self._change(service, promote)

    async def blue_green(self, service: str, subset: str) -> RulesVersion:
        """Give all calls to a subset in one step; a rollback gives them back.

        Raises:
            RulesError: the subset is unknown. ConflictError: there are no rules, or a canary is under way.
        """

        def flip(standing: Standing) -> RulesVersion:
            rules = evolve(standing.settled.rules, splits=(), default_subset=subset)
            return standing.next(rules, f"all calls to {subset!a}")

        return await self._change(service, flip)

    async def _change(
        self, service: str, change: Change, also: Callable[[], Mapping[str, Condition]] = dict
    ) -> RulesVersion:
        """Compare-and-set: `change(what stands)` gives what is to stand, and is asked again when another was faster.

        Args:
            also: returns more conditions, on the store's own keys.

        Raises:
            ConflictError: others were faster at every attempt, or what is to hold `also` did not.
        """
        self._connection.check_open()
        now = self._client.runtime.clock.now
        deadline, pause = now() + self._client.options.timeout, PAUSE_MIN / 10
        while True:
            standing = await self._look(service)
            with _of(service):
                new = self._signed(change(standing))
                data = encode(new)
            try:
                write = self._write(standing, new, data, also())
                await in_client(self._client, write, f"write the rules of {service}")
                return new
            except ConflictError:
                if now() + pause >= deadline:
                    raise ConflictError(f"others changed the rules of {service!a} at every attempt") from None
            await asyncio.sleep(self._client.runtime.jittered(pause))
            pause = min(2 * pause, 1.0)

    async def _look(self, service: str) -> Standing:
        """Return what stands, of this service and the others."""
        key = self._shelf.document(service)
        items = dict((await self._connection.scan(self._shelf.target)).items)
        kept = tuple(await self.history(service))
        item = items.pop(key, None)
        named = ((self._shelf.service(key), good(item)) for key, item in items.items())
        others = {name: one.rules for name, one in named if name is not None and one is not None}
        return Standing(service, item, None if item is None else good(item), kept, others)

    def _check(self, standing: Standing, rules: ServiceRules) -> None:
        """Refuse rules that do not fit the other services'. Raises RulesError."""
        for path, name in rules.services():
            try:
                self._shelf.document(name)
            except InvalidNameError as exc:
                raise refuse(path, f"is no name of a service: {exc}") from None
        before = None if standing.now is None else standing.now.rules
        check_chains(standing.service, rules, standing.others, before)

    def _signed(self, new: RulesVersion) -> RulesVersion:
        runtime = self._client.runtime
        return evolve(new, by=runtime.name[:255], at=runtime.clock.wall())

    async def _write(self, standing: Standing, new: RulesVersion, data: bytes, also: Mapping[str, Condition]) -> None:
        service = standing.service
        key = self._shelf.document(service)
        ops: list[Op] = [Put(key, data)]
        if not new.is_step:
            ops.append(Put(self._shelf.past(service, new.version), data))
            ops += [
                Delete(self._shelf.past(service, one.version)) for one in standing.kept[HISTORY_MAX - 1 :][:HISTORY_MAX]
            ]
        expect: dict[str, Condition] = {key: standing.item.unchanged if standing.item else ABSENT, **also}
        await self._connection.commit(ops, expect)


def _check_version(name: str, value: object, *, least: int) -> None:
    """Refuse what is no version, which would only be said to be another one. Raises ConfigError."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        raise ConfigError(f"{name} is the number of a version, {least} or more, or None, not {value!a}")
