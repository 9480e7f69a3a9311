"""What an etcd URL and the environment say: options, endpoints and where the password comes from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from attrs import frozen

from osdisco.errors import ConfigError
from osdisco.runtime import CredentialProvider, Credentials, Runtime, Secret
from osdisco.url import StoreURL, TlsOptions, check_transport

DEFAULT_PORT: Final = 2379


@frozen
class EtcdOptions(TlsOptions):
    """Options of etcd. `password_file` holds the password of the URL's user; it is read again at each login."""

    password_file: Path | None = None


@frozen
class Settings:
    """All that a connection needs to know."""

    endpoints: tuple[str, ...]
    tls: bool
    options: EtcdOptions
    credentials: CredentialProvider | None


def read_settings(url: StoreURL, runtime: Runtime, environ: Mapping[str, str] = os.environ) -> Settings:
    """Check a URL and collect its settings.

    Raises:
        ConfigError: no host, an unknown option, half a credential, or a transport that would be insecure.
    """
    if not url.hosts:
        raise ConfigError(f"{url.scheme}:// names no host; write {url.scheme}://host:{DEFAULT_PORT}")
    options = url.structure(EtcdOptions)
    credentials = _provider(url, options, runtime, environ)
    tls = url.scheme in ("etcds", "etcd+https")
    check_transport(url, options, tls=tls, credentials=credentials is not None)
    return Settings(tuple(host.address(DEFAULT_PORT) for host in url.hosts), tls, options, credentials)


def _provider(
    url: StoreURL, options: EtcdOptions, runtime: Runtime, environ: Mapping[str, str]
) -> CredentialProvider | None:
    if runtime.credentials is not None:
        return runtime.credentials
    from_environment = environ.get("OSDISCO_PASSWORD")
    username = url.username or environ.get("OSDISCO_USERNAME")
    if not username:
        if options.password_file or url.password or from_environment:
            raise ConfigError("a password is given but no user; write etcd://user@host or set OSDISCO_USERNAME")
        return None
    if url.password is None and options.password_file:
        return _FromFile(username, options.password_file)
    password = url.password or (Secret(from_environment) if from_environment else None)
    if password is None:
        raise ConfigError(f"the user {username!a} has no password; set OSDISCO_PASSWORD or password_file=")
    given = Credentials(username, password)
    return lambda: given


class _FromFile:
    """Reads the password at each login, so that a rotated one needs no restart."""

    def __init__(self, username: str, path: Path) -> None:
        self._username = username
        self._path = path
        self()

    def __call__(self) -> Credentials:
        try:
            password = self._path.read_text("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError(f"password_file={self._path} cannot be read: {type(exc).__name__}") from None
        if not password:
            raise ConfigError(f"password_file={self._path} is empty")
        return Credentials(self._username, Secret(password))
