"""TLS 1.2 is the least that is spoken, and certificates are verified unless told otherwise, on each real transport."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import osdisco
from osdisco.errors import OsdiscoError, UnavailableError
from osdisco.testing.certs import Certificates, make_certificates
from osdisco.url import StoreURL
from osdisco_consul._options import ConsulOptions
from osdisco_consul._wire import ssl_context
from osdisco_etcd._options import EtcdOptions
from osdisco_etcd._tls import context_of

TRANSPORTS = ("etcds", "etcd+https", "consul+https")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


def only(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    """Let a context speak one version, whatever this machine's policy is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that it is old is the point
        context.minimum_version = context.maximum_version = version
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context


class Server:
    """Speaks one version of TLS. Counts who said anything after the handshake, and hangs up.

    (gRPC looks at the name in the certificate when the handshake is over, before it says anything.)
    """

    def __init__(self, certificates: Certificates, version: ssl.TLSVersion) -> None:
        self.served = 0
        self.certificates = certificates
        self.context = only(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), version)
        self.context.load_cert_chain(certificates.server, certificates.server_key)
        self.context.set_alpn_protocols(["h2", "http/1.1"])  # gRPC says nothing without it
        self.address = ""

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Server, None]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                self.served += bool(await reader.read(1))
            writer.transport.abort()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=self.context)
        self.address = "{}:{}".format(*server.sockets[0].getsockname())
        async with server:
            yield self

    async def takes(self, client: ssl.SSLContext) -> bool:
        """Return whether a client comes through the handshake."""
        host, port = self.address.split(":")
        before = self.served
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(host, int(port), ssl=client, server_hostname="localhost")
            writer.write(b"x")
            await reader.read()
            writer.transport.abort()
        return self.served > before


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1], ids=["1.0", "1.1"])
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_old_version_is_refused(transport: str, version: ssl.TLSVersion, certificates: Certificates) -> None:
    async with Server(certificates, version).running() as server:
        old = only(ssl.create_default_context(cafile=certificates.ca), version)
        assert await server.takes(old), "the server does not even speak with those who want the old version"
        served = server.served
        for verify in ("", "&tls_verify=false"):
            with pytest.raises(UnavailableError):
                await asked(server, transport, verify)
        assert server.served == served


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_present_version_is_spoken(transport: str, version: ssl.TLSVersion, certificates: Certificates) -> None:
    async with Server(certificates, version).running() as server:
        with pytest.raises(OsdiscoError):  # it hangs up, but after the handshake
            await asked(server, transport)
        assert server.served > 0


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_without_a_word_about_it_certificates_are_verified(
    transport: str, certificates: Certificates, tmp_path: Path
) -> None:
    """Those of another authority are not; nor are names that do not fit."""
    async with Server(certificates, ssl.TLSVersion.TLSv1_3).running() as server:
        other = make_certificates(tmp_path).ca
        for options in ("", f"tls_ca={other}", f"tls_ca={certificates.ca}&tls_server_name=elsewhere.example"):
            with pytest.raises(UnavailableError):
                await asked(server, transport, options, ca="")
        assert server.served == 0


async def asked(server: Server, transport: str, options: str = "", *, ca: str = "tls_ca={}") -> None:
    query = f"{ca.format(server.certificates.ca)}{options}"
    async with osdisco.connect(f"{transport}://{server.address}?{query}".rstrip("?")) as client:
        await client.backend.get("osdisco/k", timeout=5)


def options_of(cls: type[Any], query: str = "") -> Any:
    return StoreURL.parse(f"etcds://h{query}").structure(cls)


@pytest.mark.parametrize(("make", "options"), [(context_of, EtcdOptions), (ssl_context, ConsulOptions)])
@pytest.mark.parametrize("query", ["", "?tls_verify=false"])
def test_contexts_ask_for_it_whatever_the_machine_does(
    make: Callable[[Any], ssl.SSLContext], options: type[Any], query: str
) -> None:
    context = make(options_of(options, query))
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is (ssl.CERT_NONE if query else ssl.CERT_REQUIRED)
    assert context.check_hostname is not bool(query)
