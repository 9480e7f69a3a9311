"""TLS between processes: from files, with names verified, and callers by certificate if that is wished."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from raw_servers import endpoint

from osdisco.errors import ConfigError, EndpointUnreachableError, ServiceMeshError
from osdisco.mesh.http import HttpTransport
from osdisco.mesh.tls import TlsFiles
from osdisco.mesh.transport import MeshRequest, MeshResponse
from osdisco.testing.certs import Certificates, make_certificates


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certs"), names=["geo.internal"])


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Of another authority."""
    return make_certificates(tmp_path_factory.mktemp("foreign"))


def server_files(certs: Certificates, **options: Any) -> TlsFiles:
    return TlsFiles(ca=certs.ca, cert=certs.server, key=certs.server_key, **options)


def client_files(certs: Certificates, **options: Any) -> TlsFiles:
    return TlsFiles(**{"ca": certs.ca, "cert": certs.client, "key": certs.client_key, **options})


async def echo(request: MeshRequest) -> MeshResponse:
    return MeshResponse(200, request.body)


@asynccontextmanager
async def served(tls: TlsFiles) -> AsyncGenerator[str, None]:
    transport = HttpTransport(tls=tls)
    listener = await transport.listen(echo, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{listener.port}"
    finally:
        await listener.aclose()
        await transport.aclose()


async def ask(address: str, tls: TlsFiles | None) -> bytes:
    transport = HttpTransport(tls=tls)
    try:
        return (await transport.send(endpoint(address), MeshRequest("geo", "echo", b"1"), 5)).body
    finally:
        await transport.aclose()


async def test_both_show_a_certificate_and_are_believed(certs: Certificates) -> None:
    async with served(server_files(certs)) as address:
        assert await ask(address, client_files(certs)) == b"1"
        assert await ask(address, client_files(certs, server_name="geo.internal")) == b"1"


async def test_who_is_not_believed_is_not_served_and_nothing_is_sent(
    certs: Certificates, foreign: Certificates
) -> None:
    async with served(server_files(certs)) as address:
        for tls, kind in (
            (client_files(foreign), EndpointUnreachableError),  # does not believe the server
            (client_files(certs, server_name="other.internal"), EndpointUnreachableError),
            (TlsFiles(ca=certs.ca), ServiceMeshError),  # shows nothing
            (client_files(certs, cert=foreign.client, key=foreign.client_key), ServiceMeshError),
            (None, ServiceMeshError),
        ):
            with pytest.raises(kind):
                await ask(address, tls)


async def test_callers_need_no_certificate_where_none_is_asked_for(certs: Certificates) -> None:
    async with served(server_files(certs, verify_clients=False)) as address:
        assert await ask(address, TlsFiles(ca=certs.ca)) == b"1"


def test_files_that_cannot_be_used_are_refused(certs: Certificates, tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    with pytest.raises(ConfigError, match="go together"):
        TlsFiles(ca=certs.ca, cert=certs.client)
    with pytest.raises(ConfigError, match="verify_clients=False"):
        TlsFiles(cert=certs.client, key=certs.client_key)
    with pytest.raises(ConfigError, match="holds no certificates"):
        TlsFiles(ca=empty).client_context()
    with pytest.raises(ConfigError, match="holds no certificates"):
        TlsFiles(ca=tmp_path / "missing.pem").client_context()
    with pytest.raises(ConfigError, match="are no pair"):
        TlsFiles(ca=certs.ca, cert=certs.client, key=certs.server_key).client_context()
    with pytest.raises(ConfigError, match="needs"):
        TlsFiles(ca=certs.ca).server_context()
