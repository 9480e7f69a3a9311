"""The only server is killed and comes back, or stands still for a while: nothing is told that is not so, all go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from cases import undisturbed
from network import STORES, Fault, impatient, ways

from osdisco.testing import Servers


def killed(server: Any) -> Fault:
    """It is back at once."""

    def strike() -> None:
        server.kill()
        server.start()

    return Fault("killed", _blocking(strike), heal=lambda proxy: None, reachable=False)


def paused(server: Any) -> Fault:
    return Fault("paused", _blocking(server.pause), heal=_blocking(server.unpause), reachable=False, severs=True)


def _blocking(act: Callable[[], None]) -> Callable[[object], object]:
    return lambda proxy: asyncio.to_thread(act)


KINDS = [
    pytest.param(killed, marks=pytest.mark.fault("F1"), id="killed"),
    pytest.param(paused, marks=pytest.mark.fault("F2"), id="paused"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("store", STORES)
async def test_the_only_server(
    store: str, kind: Callable[[Any], Fault], osdisco_servers: Servers, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient(monkeypatch)
    with osdisco_servers.fresh_consul() if store == "consul" else osdisco_servers.fresh_etcd() as server:
        url = (server.gateway_url if store == "etcd+http" else server.url) + "/ns"
        async with ways(store, url, seed=seed, alone=True) as there:
            case = await undisturbed(there, kind(server), seed)
        assert not case.wrong, f"seed {seed}"
