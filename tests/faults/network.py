"""What goes wrong between a client and an endpoint, and the ways by which tests reach a store through it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import pytest
from attrs import define, field, frozen

import osdisco
from osdisco.client import Client
from osdisco.runtime import Clock, CredentialProvider
from osdisco.testing import ChaosProxy

STORES = ("etcd", "etcd+http", "consul")

TTL: Final = 3.0
TIMEOUT: Final = 1.0
OWN_DEADLINE: Final = 0.99 * TTL - min(1.0, TTL / 10)
"""Seconds from the sending of the last good renewal on, after which a session is lost."""
TROUBLE: Final = OWN_DEADLINE + 0.5
"""Seconds that trouble lasts: who has not found another way by then has lost its session."""
LATE: Final = 0.4
"""Seconds by which a busy machine may be late."""
SILENCE: Final = 1.5
"""Seconds after which watches of these tests take silence for trouble, instead of 12 to 15."""


@frozen(kw_only=True)
class Fault:
    """One kind of trouble with the way by the bad proxy.

    Attributes:
        strike, heal: begin and end it; what they return is awaited if it can be.
        harmless: it takes its time and the machine's, and no more: tried with another way only.
        goes_on: everything does, also when there is no other way.
        severs: no renewal comes through; without another way the session must be lost.
        trickles: it is no silence, so that a watch may stay with it.
        reachable: the store itself stays well, so that the clean client can look all the time.
        pause: seconds between two requests of a worker.
    """

    name: str = field(kw_only=False)
    strike: Callable[[ChaosProxy], object] = field(kw_only=False)
    classes: tuple[str, ...] = field(kw_only=False, default=())
    heal: Callable[[ChaosProxy], object] = ChaosProxy.heal
    harmless: bool = False
    goes_on: bool = False
    severs: bool = False
    trickles: bool = False
    reachable: bool = True
    pause: float = 0.03


def _gone(proxy: ChaosProxy) -> None:
    proxy.refuse()
    proxy.reset()


def _hung(proxy: ChaosProxy) -> None:
    proxy.hang()
    proxy.cut()


def _slow(proxy: ChaosProxy) -> None:
    proxy.to_client.bandwidth = 100


def _late(proxy: ChaosProxy) -> None:
    proxy.to_client.delay = 1.5 * TIMEOUT


def _unsteady(proxy: ChaosProxy) -> None:
    proxy.to_server.jitter = proxy.to_client.jitter = 0.05


def _bytes(proxy: ChaosProxy) -> None:
    proxy.to_server.slice_size = proxy.to_client.slice_size = 1


def _answers_break_off(proxy: ChaosProxy) -> None:
    proxy.to_client.cut_after = 60


def _requests_break_off(proxy: ChaosProxy) -> None:
    proxy.to_server.cut_after = 120


FAULTS = [
    Fault("gone", _gone, ("F17",), severs=True),
    Fault("held", ChaosProxy.hold, ("F14",), severs=True),
    Fault("swallowed", ChaosProxy.blackhole, ("F14",), severs=True),
    Fault("answers swallowed", lambda proxy: proxy.to_client.blackhole(), ("F16",), severs=True),
    Fault("answers held", lambda proxy: proxy.to_client.hold(), ("F16",), severs=True),
    Fault("requests held", lambda proxy: proxy.to_server.hold(), ("F14",), severs=True),
    Fault("cut", ChaosProxy.cut, ("F17",), goes_on=True),
    Fault("reset", ChaosProxy.reset, ("F17",), goes_on=True),
    Fault("server gone unheard", lambda proxy: proxy.half_open("server"), ("F17",), goes_on=True),
    Fault("client gone unheard", lambda proxy: proxy.half_open("client"), ("F17",), goes_on=True),
    Fault("hung", _hung, ("F14",), severs=True),
    Fault("answers break off", _answers_break_off, ("F16", "F17")),
    Fault("requests break off", _requests_break_off, ("F17",)),
    Fault("slow", _slow, ("F10", "F18"), trickles=True),
    Fault("late", _late, ("F18",), severs=True),
    Fault("unsteady", _unsteady, ("F18",), harmless=True),
    Fault("byte by byte", _bytes, ("F18",), harmless=True, trickles=True, pause=0.3),
]


def marked(faults: Iterator[Fault] | list[Fault]) -> list[object]:
    """Return faults as parameters of tests that hold them on every store."""
    return [
        pytest.param(fault, id=fault.name.replace(" ", "-"), marks=pytest.mark.fault(*fault.classes, on=STORES))
        for fault in faults
    ]


def impatient(patch: pytest.MonkeyPatch) -> None:
    """Let watches take silence for trouble sooner; how long they really wait is seen in test_silence.py."""
    patch.setattr("osdisco_etcd._watch.PATIENCE", 2 / 3 * SILENCE)
    patch.setattr("osdisco_etcd._watch.LAST_CALL", 1 / 3 * SILENCE)
    patch.setattr("osdisco_consul._backend.SILENCE", SILENCE)
    patch.setattr("osdisco_consul._backend.WAIT", SILENCE / 2)


@define
class Ways:
    """Ways to one store: by the `bad` proxy first, then by the `good` one, if there is one; and a clean one."""

    store: str
    bad: ChaosProxy
    good: ChaosProxy | None
    clean: Client
    _url: Callable[[list[str]], str]
    _credentials: CredentialProvider | None
    _stack: AsyncExitStack

    async def client(self, clock: Clock | None = None) -> Client:
        """Return a client of its own, by the system's clock or another, used once so that it has found its way."""
        addresses = [self.bad.address] + ([self.good.address] if self.good else [])
        url = with_options(self._url(addresses), ttl=TTL, timeout=TIMEOUT)
        client = await self._stack.enter_async_context(osdisco.connect(url, credentials=self._credentials, clock=clock))
        await client.get("warm", timeout=10)
        return client


@asynccontextmanager
async def ways(
    store: str,
    url: str | tuple[str, Callable[[list[str]], str]],
    *,
    seed: int,
    alone: bool,
    credentials: CredentialProvider | None = None,
) -> AsyncIterator[Ways]:
    """Open the ways to a store.

    Args:
        store: its scheme.
        url: its URL, or its address and what makes URLs of addresses.
        seed: of the proxies.
        alone: whether there is no second endpoint.
        credentials: of all clients but the clean one.
    """
    if isinstance(url, str):
        address, _, rest = url.partition("://")[2].partition("/")
        there = address, lambda addresses: f"{store}://{','.join(addresses)}/{rest}"
    else:
        there = url
    address, url_of = there
    async with AsyncExitStack() as stack:
        bad = await stack.enter_async_context(ChaosProxy(address, seed=seed))
        good = None if alone else await stack.enter_async_context(ChaosProxy(address, seed=seed))
        clean = await stack.enter_async_context(osdisco.connect(with_options(url_of([address]), timeout=5)))
        yield Ways(store, bad, good, clean, url_of, credentials, stack)


def with_options(url: str, **seconds: float) -> str:
    """Return a URL with more options."""
    return url + ("&" if "?" in url else "?") + "&".join(f"{name}={value:g}s" for name, value in seconds.items())
