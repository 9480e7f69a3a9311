"""TLS on real servers: who is believed, and what a wrong certificate says."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from etcd_rooms import Open, started

from osdisco.backend import Put, Snapshot
from osdisco.errors import OsdiscoError, UnavailableError
from osdisco.testing._stores import EtcdServer
from osdisco.testing.certs import make_certificates
from osdisco.testing.servers import Servers


@pytest.fixture(scope="module")
def tls(osdisco_servers: Servers) -> Iterator[EtcdServer]:
    """Yield an etcd that talks TLS."""
    with started(osdisco_servers.fresh_etcd(tls=True)) as server:
        yield server


@pytest.fixture(scope="module")
def mtls(osdisco_servers: Servers) -> Iterator[EtcdServer]:
    """Yield an etcd that asks clients for a certificate."""
    with started(osdisco_servers.fresh_etcd(mtls=True)) as server:
        yield server


def bare(server: EtcdServer, transport: str, *options: str) -> str:
    """Return the TLS URL of a server with options of our own."""
    scheme = "etcds" if transport == "grpc" else "etcd+https"
    return f"{scheme}://{server.address}" + "?" * bool(options) + "&".join(options)


async def test_mutual_tls_with_everything_verified(mtls: EtcdServer, open_backend: Open) -> None:
    backend = open_backend(mtls)
    assert await backend.commit([Put("tls/k", b"1")], {}, timeout=5)
    watch = backend.watch("tls/")
    frame = await anext(watch)
    assert isinstance(frame, Snapshot)
    assert "tls/k" in frame.items
    await watch.aclose()


async def test_a_client_without_certificate_is_turned_away(
    mtls: EtcdServer, transport: str, open_backend: Open
) -> None:
    assert mtls.access.certificates
    backend = open_backend(bare(mtls, transport, f"tls_ca={mtls.access.certificates.ca}"))
    with pytest.raises(OsdiscoError):
        await backend.commit([Put("tls/no", b"1")], {}, timeout=3)
    with pytest.raises(UnavailableError):
        await backend.get("tls/no", timeout=3)


async def test_a_server_of_another_authority_is_not_believed(
    tls: EtcdServer, transport: str, open_backend: Open, tmp_path: Path
) -> None:
    other = make_certificates(tmp_path / "other").ca
    for options in ([f"tls_ca={other}"], []):  # and the roots of this machine do not know it either
        with pytest.raises(UnavailableError, match=r"(?i)certificate") as caught:
            await open_backend(bare(tls, transport, *options)).commit([Put("tls/k", b"1")], {}, timeout=3)
        assert "TLS options" in str(caught.value)


async def test_the_name_must_fit_and_can_be_given(tls: EtcdServer, transport: str, open_backend: Open) -> None:
    assert tls.access.certificates
    ca = f"tls_ca={tls.access.certificates.ca}"
    with pytest.raises(UnavailableError):
        await open_backend(bare(tls, transport, ca, "tls_server_name=elsewhere.example")).get("k", timeout=3)
    await open_backend(bare(tls, transport, ca, "tls_server_name=localhost")).get("k", timeout=5)


async def test_verification_can_be_left_out_and_is_logged(
    tls: EtcdServer, transport: str, open_backend: Open, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "osdisco"):
        backend = open_backend(bare(tls, transport, "tls_verify=false"))
    assert "tls_verify=false" in caplog.text
    assert await backend.commit([Put("tls/unverified", b"1")], {}, timeout=5)


async def test_left_out_verification_survives_a_new_certificate(
    osdisco_servers: Servers, transport: str, open_backend: Open
) -> None:
    with started(osdisco_servers.fresh_etcd(tls=True)) as server:
        backend = open_backend(bare(server, transport, "tls_verify=false"))
        await backend.get("k", timeout=5)
        server.kill()
        make_certificates(server.access.folder / "tls")
        server.start()
        for _ in range(20):
            try:
                await backend.get("k", timeout=2)
                break
            except UnavailableError:
                continue
        else:
            pytest.fail("the backend never came back")


async def test_plain_text_to_a_tls_port_fails_in_time(tls: EtcdServer, open_backend: Open) -> None:
    with pytest.raises(OsdiscoError):
        await open_backend(tls.address).commit([Put("k", b"")], {}, timeout=3)
    with pytest.raises(UnavailableError):
        await open_backend(tls.address).get("k", timeout=3)


async def test_tls_to_a_plain_port_fails_in_time(etcd: EtcdServer, transport: str, open_backend: Open) -> None:
    with pytest.raises(UnavailableError):
        await open_backend(bare(etcd, transport)).commit([Put("k", b"")], {}, timeout=3)
    with pytest.raises(UnavailableError):
        await open_backend(bare(etcd, transport, "tls_verify=false")).commit([Put("k", b"")], {}, timeout=3)
