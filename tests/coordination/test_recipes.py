"""One suite of all recipes: on all four transports, and on memory under every switch for what real stores do."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest
from scenarios import SCENARIOS
from worlds import World, connect

from osdisco_memory import CONSUL, MemoryStore


@pytest.mark.osdisco("memory", "etcd", "etcd+http", "consul")
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_on_every_store(scenario: str, osdisco_url: str) -> None:
    await SCENARIOS[scenario](lambda: connect(osdisco_url))
    await _leaves_nothing(osdisco_url)


async def _leaves_nothing(url: str) -> None:
    async with connect(url) as client:
        keys = (await client.scan()).items
        left = {key for key in keys if key.startswith(("lock/", "rw/", "revoke/", "election/", "db/", "grp/", "part/"))}
        assert not left | {key for key in keys if key.startswith("sem/") and not key.endswith("/limit")}


def repeatedly(*act: Callable[[MemoryStore], None]) -> Callable[[MemoryStore], None]:
    """Do it three times a second."""

    def start(store: MemoryStore) -> None:
        def again() -> None:
            for one in act:
                one(store)
            asyncio.get_running_loop().call_later(0.3, again)

        again()

    return start


def like_consul(store: MemoryStore) -> None:
    store.limits = CONSUL
    store.faults.imitate_consul()


def stuttering(store: MemoryStore) -> None:
    """Freeze and thaw, too shortly for anybody to give up."""
    chance = random.Random(1)

    def freeze() -> None:
        store.faults.freeze()
        asyncio.get_running_loop().call_later(chance.uniform(0, 0.5), thaw)

    def thaw() -> None:
        store.faults.thaw()
        asyncio.get_running_loop().call_later(chance.uniform(0, 0.5), freeze)

    freeze()


SWITCHES: dict[str, Callable[[MemoryStore], None]] = {
    "equal puts write nothing": lambda store: setattr(store.faults, "noop_identical", True),
    "bare puts keep leases": lambda store: setattr(store.faults, "bare_put_keeps_lease", True),
    "watches conflate": lambda store: setattr(store.faults, "conflate", True),
    "leases end late": lambda store: setattr(store.faults, "expiry_factor", 2.0),
    "like Consul": like_consul,
    "one watch at most": lambda store: setattr(store, "limits", _with_watches(store, 0)),
    "forced resync": repeatedly(lambda store: store.faults.resync()),
    "compaction": repeatedly(lambda store: store.faults.compact()),
    "slow there": lambda store: store.faults.delay(request=0.3) and None,
    "slow back": lambda store: store.faults.delay(answer=0.3) and None,
    "renewals renew nothing once": lambda store: store.faults.false_renew(times=1) and None,
    "answers of creations are lost": lambda store: _lose(store, "drop_answer"),
    "creations are lost": lambda store: _lose(store, "drop"),
    "silent for moments": stuttering,
    "commits show nothing": lambda store: setattr(store, "commit_and_scan", lambda *a: (store.commit(*a[:2]), None)),
}


def _with_watches(store: MemoryStore, most: int) -> object:
    from attrs import evolve

    return evolve(store.limits, watches_max=most)


def _lose(store: MemoryStore, what: str) -> None:
    """Only of what recipes repeat by themselves: a write of the user's is the user's to repeat."""
    for key in ("/lock/", "/q/", "/rw/", "/h/", "/db/", "/part/", "/once/"):
        getattr(store.faults, what)("commit", times=1, key=key)


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_on_memory_with_each_switch(scenario: str, switch: str, world: World) -> None:
    SWITCHES[switch](world.store)
    await SCENARIOS[scenario](world.process)
