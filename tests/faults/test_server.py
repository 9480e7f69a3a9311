"""The only server is killed and comes back, or stands still for a while: nothing is told that is not so, all go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from network import STORES, Case, Fault, impatient, ways

from osdisco.testing import Servers


def killed(server: Any) -> None:
    server.kill()
    server.start()


def paused(server: Any) -> None:
    server.pause()


KINDS = [
    pytest.param(killed, marks=pytest.mark.fault("F1"), id="killed"),
    pytest.param(paused, marks=pytest.mark.fault("F2"), id="paused"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("store", STORES)
async def test_the_only_server(
    store: str, kind: Callable[[Any], None], osdisco_servers: Servers, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient(monkeypatch)
    loop = asyncio.get_running_loop()
    with osdisco_servers.fresh_consul() if store == "consul" else osdisco_servers.fresh_etcd() as server:
        url = (server.gateway_url if store == "etcd+http" else server.url) + "/ns"
        async with ways(store, url, seed=seed, alone=True) as there:
            case = Case(there, Fault(kind.__name__, lambda proxy: None, ()), seed)
            doing: list[asyncio.Future[None]] = []

            def strike() -> None:
                doing.append(loop.run_in_executor(None, kind, server))

            def heal() -> None:
                if kind is paused:
                    doing.append(loop.run_in_executor(None, server.unpause))

            wrong = await case.run(strike, heal, reachable=False)
            await asyncio.gather(*doing)
        assert not wrong, f"seed {seed}"
