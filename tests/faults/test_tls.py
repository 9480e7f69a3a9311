"""Bits that flip on the way: plain TCP does not notice, TLS ends the connection, and nothing false is believed."""

from __future__ import annotations

import pytest
from cases import undisturbed
from network import STORES, Fault, impatient, ways

from osdisco.testing import ChaosProxy, Servers
from osdisco.testing._stores import in_namespace


def _flips(proxy: ChaosProxy) -> None:
    proxy.to_server.flip_rate = proxy.to_client.flip_rate = 0.2


@pytest.mark.fault  # of no class: it is run by `make faults`
@pytest.mark.parametrize("store", STORES)
async def test_flipped_bits_behind_tls_are_broken_connections(
    store: str, osdisco_servers: Servers, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient(monkeypatch)
    server = osdisco_servers.consul(secured=True) if store == "consul" else osdisco_servers.etcd(secured=True)
    gateway = {"gateway": True} if store == "etcd+http" else {}

    def url_of(addresses: list[str]) -> str:
        return in_namespace(server.access.url(addresses, **gateway), f"flips-{seed}")  # type: ignore[call-arg]

    async with ways(store, (server.address, url_of), seed=seed, alone=True) as there:
        case = await undisturbed(there, Fault("flips", _flips), seed)
        assert there.bad.accepted > 5, "no connection was broken"
    assert not case.wrong, f"seed {seed}"
