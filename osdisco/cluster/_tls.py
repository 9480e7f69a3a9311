"""TLS to the search cluster: verified, 1.2 or later, and made anew when a certificate is rotated."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from attrs import evolve, frozen

from osdisco.cluster._files import Reread
from osdisco.errors import ConfigError

log = logging.getLogger("osdisco")

AUTHORITY: Final = "OSDISCO_OPENSEARCH_TLS_CA"
CERTIFICATE: Final = "OSDISCO_OPENSEARCH_TLS_CERT"
KEY: Final = "OSDISCO_OPENSEARCH_TLS_KEY"


@frozen
class Tls:
    """The options."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    verify: bool = True

    def __attrs_post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ConfigError("tls_cert and tls_key go together; one of them is missing")
        if not isinstance(self.verify, bool):
            raise ConfigError("tls_verify is True or False")

    @property
    def given(self) -> str | None:
        """The name of an option that is set, if one is."""
        set_ = {"tls_ca": self.ca, "tls_cert": self.cert, "tls_verify": None if self.verify else self.verify}
        return next((name for name, value in set_.items() if value is not None), None)

    def or_from(self, environ: Mapping[str, str]) -> Tls:
        """Return it with the files that the environment names in the place of those that are not given."""
        ca = self.ca or _file(environ, AUTHORITY)
        if self.cert is not None:
            return evolve(self, ca=ca)
        return evolve(self, ca=ca, cert=_file(environ, CERTIFICATE), key=_file(environ, KEY))

    def context(self) -> Reread[ssl.SSLContext]:
        """Return the context, made anew whenever one of its files changes.

        Raises:
            ConfigError: a file that cannot be used; it names the option.
        """
        if not self.verify:
            log.warning("tls_verify=False: the search cluster's certificate is not checked, anybody can pose as it")
        return Reread([path for path in (self.ca, self.cert, self.key) if path], self._make)

    def _make(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except OSError as exc:  # SSLError is one
            raise ConfigError(f"tls_ca={self.ca} holds no certificates in PEM form: {exc}") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # some builds of Python leave that to the system's OpenSSL
        if self.cert is not None:
            self._show_certificate(context)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _show_certificate(self, context: ssl.SSLContext) -> None:
        assert self.cert is not None
        try:
            context.load_cert_chain(self.cert, self.key, password=lambda: "")  # never ask on a terminal
        except OSError as exc:
            raise ConfigError(f"tls_cert={self.cert} and tls_key={self.key} are no pair in PEM form: {exc}") from None


def _file(environ: Mapping[str, str], name: str) -> Path | None:
    return Path(environ[name]) if environ.get(name) else None
