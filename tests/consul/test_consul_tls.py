"""TLS: who the server is, who the client is, and what is said when either is not clear."""

from __future__ import annotations

import asyncio
import ssl

import pytest
from consul_fakes import SILENCE, Fake, FakeAgent, Open, http

from osdisco.backend import Put
from osdisco.errors import IndeterminateError, UnavailableError
from osdisco.testing.certs import Certificates, make_certificates
from osdisco.testing.servers import ConsulServer


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates that the real server knows nothing of."""
    return make_certificates(tmp_path_factory.mktemp("certs"))


async def tls_agent(fake: Fake, certs: Certificates, *, mtls: bool = False) -> FakeAgent:
    """Start a fake agent on https, with what to connect to it by."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certs.server, certs.server_key)
    if mtls:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certs.ca)
    agent = await fake(lambda _: http(404, X_Consul_Index=3))
    await agent.stop()
    await agent.start(context)
    return agent


def https(agent: FakeAgent, *options: str, host: str = "127.0.0.1") -> str:
    return f"consul+https://{host}:{agent.port}?{'&'.join(options)}".removesuffix("?")


async def test_all_of_it_works_over_tls(secured_consul_server: ConsulServer, open_backend: Open) -> None:
    backend = open_backend(secured_consul_server.url)
    lease = await backend.grant(15, timeout=5)
    await backend.commit([Put("osdisco/tls/k", b"1")], {}, timeout=5)
    frame = await anext(watch := backend.watch("osdisco/tls/"))
    assert set(frame.items) == {"osdisco/tls/k"}  # type: ignore[union-attr]
    await watch.aclose()
    await backend.revoke(lease, timeout=5)
    (status,) = await backend.inspect(timeout=5)
    assert status.error is None


@pytest.mark.parametrize("option", ["", "tls_ca={wrong}"])
async def test_a_certificate_of_somebody_else_is_not_trusted(
    option: str, secured_consul_server: ConsulServer, certs: Certificates, open_backend: Open
) -> None:
    backend = open_backend(
        f"consul+https://{secured_consul_server.address}?{option.format(wrong=certs.ca)}".rstrip("?")
    )
    with pytest.raises(UnavailableError, match="tls_ca="):
        await backend.get("tls/k", timeout=5)
    with pytest.raises(UnavailableError, match="tls_ca="):
        await backend.commit([Put("tls/k", b"1")], {}, timeout=5)


async def test_a_certificate_for_another_name(fake: Fake, certs: Certificates, open_backend: Open) -> None:
    agent = await tls_agent(fake, certs)
    with pytest.raises(UnavailableError, match="tls_server_name="):
        await open_backend(https(agent, f"tls_ca={certs.ca}", "tls_server_name=other")).get("k", timeout=5)
    assert (
        await open_backend(https(agent, f"tls_ca={certs.ca}", "tls_server_name=localhost")).get("k", timeout=5) is None
    )


async def test_not_verifying_is_possible(fake: Fake, certs: Certificates, open_backend: Open) -> None:
    agent = await tls_agent(fake, certs)
    assert await open_backend(https(agent, "tls_verify=false")).get("k", timeout=5) is None


async def test_a_client_certificate(fake: Fake, certs: Certificates, open_backend: Open) -> None:
    agent = await tls_agent(fake, certs, mtls=True)
    own = (f"tls_ca={certs.ca}", f"tls_cert={certs.client}", f"tls_key={certs.client_key}")
    assert await open_backend(https(agent, *own)).get("k", timeout=5) is None
    with pytest.raises(UnavailableError):
        await open_backend(https(agent, own[0])).get("k", timeout=5)


async def test_tls_to_a_plain_port_and_plain_to_a_tls_port(
    consul: ConsulServer, secured_consul_server: ConsulServer, open_backend: Open
) -> None:
    with pytest.raises(UnavailableError, match="plain port"):
        await open_backend(f"consul+https://{consul.address}").commit([Put("k", b"")], {}, timeout=5)
    plain = open_backend(f"consul://{secured_consul_server.address}")
    with pytest.raises(UnavailableError, match=r"consul\+https"):
        await plain.get("k", timeout=5)
    with pytest.raises((UnavailableError, IndeterminateError)):
        await plain.commit([Put("k", b"")], {}, timeout=5)


async def test_closing_ends_even_connections_that_were_cut_short(
    fake: Fake, certs: Certificates, open_backend: Open
) -> None:
    """asyncio would go on waiting for the other side's goodbye."""
    agent = await tls_agent(fake, certs)
    agent.script = lambda _: SILENCE
    backend = open_backend(https(agent, f"tls_ca={certs.ca}"))
    task = asyncio.ensure_future(backend.get("k", timeout=30))
    while not agent.requests:
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    transports = list(backend._wire._transports)
    assert len(transports) == 1
    await backend.aclose()
    assert all(transport._ssl_protocol._transport is None for transport in transports)  # type: ignore[attr-defined]
