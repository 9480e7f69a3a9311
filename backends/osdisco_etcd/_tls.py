"""TLS of both transports: one checked SSLContext, and what gRPC needs besides because it takes none."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from pathlib import Path
from typing import Final

from osdisco.errors import ConfigError
from osdisco_etcd._options import EtcdOptions

logger = logging.getLogger("osdisco.etcd")

_BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # macOS, BSD
)


def context_of(options: EtcdOptions) -> ssl.SSLContext:
    """Build the context that the TLS options describe: TLS 1.2 or later, verified unless told otherwise.

    Raises:
        ConfigError: a file that does not hold what it should.
    """
    try:
        context = ssl.create_default_context(cafile=options.tls_ca)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(f"tls_ca={options.tls_ca} holds no certificates in PEM form: {exc}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # some builds of Python leave that to the system's OpenSSL
    _load_client_certificate(context, options)
    if not options.tls_verify:
        logger.warning("tls_verify=false: the etcd server's identity is not checked; anyone in between can read all")
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _load_client_certificate(context: ssl.SSLContext, options: EtcdOptions) -> None:
    if options.tls_cert is None or options.tls_key is None:
        return
    try:
        context.load_cert_chain(options.tls_cert, options.tls_key, password=_no_password)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(
            f"tls_cert={options.tls_cert} and tls_key={options.tls_key} are no pair in PEM form: {exc}"
        ) from None


def _no_password() -> str:
    raise ssl.SSLError("the key is encrypted")  # instead of a prompt on the terminal


def system_roots() -> bytes | None:
    """Return the machine's roots in PEM form; gRPC would use a list of its own. None when there is no such file."""
    paths = ssl.get_default_verify_paths()
    for path in (os.environ.get("SSL_CERT_FILE"), paths.cafile, *_BUNDLES):
        if path and Path(path).is_file():
            return Path(path).read_bytes()
    return None


async def pin(endpoint: str, unverified: ssl.SSLContext, timeout: float) -> tuple[bytes, str]:
    """Fetch a server's certificate, to trust just that one: gRPC cannot leave out the check.

    Returns:
        The certificate in PEM form, and a name in it to expect.

    Raises:
        OSError, TimeoutError: no TLS server there within `timeout` seconds.
    """
    async with asyncio.timeout(timeout):
        der = await _certificate(endpoint, unverified)
        pem = ssl.DER_cert_to_PEM_cert(der)
        named = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        named.check_hostname = False
        named.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        named.load_verify_locations(cadata=pem)
        return pem.encode(), await _name(endpoint, named)


async def _certificate(endpoint: str, context: ssl.SSLContext) -> bytes:
    tls = await _handshake(endpoint, context)
    der = tls.getpeercert(binary_form=True)
    if not der:
        raise ssl.SSLError("the server shows no certificate")
    return der


async def _name(endpoint: str, context: ssl.SSLContext) -> str:
    shown = (await _handshake(endpoint, context)).getpeercert() or {}
    names = [str(entry[1]) for entry in shown.get("subjectAltName", ())]
    return names[0].replace("*", "any") if names else endpoint.rpartition(":")[0].strip("[]")


async def _handshake(endpoint: str, context: ssl.SSLContext) -> ssl.SSLObject:
    host, _, port = endpoint.rpartition(":")
    _, writer = await asyncio.open_connection(host.strip("[]"), int(port), ssl=context)
    try:
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        return tls
    finally:
        writer.transport.abort()
