"""TLS between processes of a mesh, from files: who serves shows a certificate, and who calls does, too (mTLS)."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from attrs import field, frozen

from osdisco.errors import ConfigError


def _path(value: str | os.PathLike[str] | None) -> Path | None:
    return None if value is None else Path(value)


@frozen
class TlsFiles:
    """Certificates as PEM files, the same for calling and for serving. TLS 1.2 or later; names are verified.

    Args:
        ca: whom to trust; the system's authorities when None.
        cert: the file of what this process shows of itself. Needed to serve.
        key: the file of its key.
        server_name: the name that certificates of endpoints are good for, when their addresses are not in them.
        verify_clients: whether who serves takes only callers with a certificate of `ca`; needs `ca`.

    Raises:
        ConfigError: half a pair, or clients are to be verified by nobody.
    """

    ca: Path | None = field(default=None, converter=_path)
    cert: Path | None = field(default=None, converter=_path)
    key: Path | None = field(default=None, converter=_path)
    server_name: str | None = None
    verify_clients: bool = True

    def __attrs_post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ConfigError("TlsFiles.cert and TlsFiles.key go together; one of them is missing")
        if self.verify_clients and self.ca is None:
            raise ConfigError("TlsFiles.ca is missing, by which callers are verified; or say verify_clients=False")

    def client_context(self) -> ssl.SSLContext:
        """Return what calls are made with. Raises ConfigError for a file that does not hold what it should."""
        return self._context(ssl.Purpose.SERVER_AUTH)

    def server_context(self) -> ssl.SSLContext:
        """Return what is served with. Raises ConfigError, also without a certificate."""
        if self.cert is None:
            raise ConfigError("who serves by TLS needs TlsFiles.cert and TlsFiles.key")
        context = self._context(ssl.Purpose.CLIENT_AUTH)
        if self.verify_clients:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _context(self, purpose: ssl.Purpose) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(purpose, cafile=self.ca)
        except (OSError, ssl.SSLError) as exc:
            raise ConfigError(f"TlsFiles.ca={self.ca} holds no certificates in PEM form: {exc}") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # some builds of Python leave that to the system's OpenSSL
        if self.cert is not None:
            try:
                context.load_cert_chain(self.cert, self.key, password=_no_password)
            except (OSError, ssl.SSLError) as exc:
                raise ConfigError(
                    f"TlsFiles.cert={self.cert} and key={self.key} are no pair in PEM form: {exc}"
                ) from None
        return context


def _no_password() -> str:
    raise ssl.SSLError("the key is encrypted")  # instead of a prompt on the terminal
