"""TLS between processes of a mesh, from files: who serves shows a certificate, and who calls does, too (mTLS)."""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path
from typing import Final

from attrs import field, frozen

from osdisco.errors import ConfigError
from osdisco.runtime import Clock

log = logging.getLogger("osdisco")

LOOK: Final = 10.0
"""Seconds after which files are looked at again, at the earliest."""


def _path(value: str | os.PathLike[str] | None) -> Path | None:
    return None if value is None else Path(value)


@frozen
class TlsFiles:
    """Certificates as PEM files, the same for calling and for serving. TLS 1.2 or later; names are verified.

    Files that change are read again, for the connections that are made from then on.

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

    def _stamp(self) -> tuple[object, ...]:
        """Return what is different when one of the files is; None for one that is not there."""
        return tuple(_stamp_of(path) for path in (self.ca, self.cert, self.key) if path is not None)

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


def _stamp_of(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev


class TlsContexts:
    """What connections are made with: read anew when the files have changed, so that none outlives its renewal.

    Nothing runs for it. Who makes or takes connections asks, and once in `LOOK` seconds it looks. Files that cannot be
    used are told in the log, once, and what was good last is used on: a certificate may be written before its key.

    Raises:
        ConfigError: files that cannot be used at the start.
    """

    def __init__(self, files: TlsFiles, clock: Clock) -> None:
        self._files = files
        self._now = clock.now
        self._stamp = files._stamp()
        self._client = files.client_context()
        self._server: ssl.SSLContext | None = None
        self._due = self._now() + LOOK

    def client(self) -> ssl.SSLContext:
        """Return what calls are made with now."""
        if self._now() >= self._due:
            self._look()
        return self._client

    def listening(self) -> ssl.SSLContext:
        """Return what is listened with: each connection gets what is good when it comes. Raises ConfigError."""
        context = self._files.server_context()
        self._server = self._files.server_context()
        context.sni_callback = self._serve  # called for each handshake, whether it names a server or not
        return context

    def _serve(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        if self._now() >= self._due:
            self._look()
        if self._server is not None:
            connection.context = self._server

    def _look(self) -> None:
        self._due = self._now() + LOOK
        stamp = self._files._stamp()  # before they are read: what is written meanwhile is read the next time
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            client = self._files.client_context()
            server = None if self._server is None else self._files.server_context()
        except ConfigError as exc:
            log.warning("the files of TLS have changed, and those that were good last are used on: %s", exc)
            return
        self._client, self._server = client, server
        log.info("the files of TLS have changed, and are used from now on: %s", self._files)


def _no_password() -> str:
    raise ssl.SSLError("the key is encrypted")  # instead of a prompt on the terminal
