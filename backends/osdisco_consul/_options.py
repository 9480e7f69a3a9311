"""What a Consul URL can say. No driver is needed to read it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from osdisco.errors import ConfigError
from osdisco.runtime import Runtime, Secret
from osdisco.url import Host, StoreURL, TlsOptions, check_transport

TLS_SCHEME = "consul+https"
SCHEMES = ("consul", TLS_SCHEME)
TOKEN_VARIABLE = "CONSUL_HTTP_TOKEN"  # a name, not a token # nosec B105 # noqa: S105

_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}\Z")


@frozen
class ConsulOptions(TlsOptions):
    """Options of `consul://` URLs. `session_node`: a node of the catalog that sessions hang on, not the agent's."""

    token_file: Path | None = None
    dc: str | None = None
    ns: str | None = None
    partition: str | None = None
    session_node: str | None = None

    @property
    def place(self) -> Mapping[str, str]:
        """The query that goes with every call."""
        given = {"dc": self.dc, "ns": self.ns, "partition": self.partition}
        return {name: value for name, value in given.items() if value}


def parse_options(url: StoreURL, runtime: Runtime) -> ConsulOptions:
    """Read and check a URL's options.

    Raises:
        ConfigError: a user or password in the URL, an unknown or empty option, a token file that is not there, or
            what `check_transport` refuses.
    """
    if url.username is not None or url.password is not None:
        raise ConfigError("Consul knows no users: remove what stands before '@' and give the token by token_file=")
    options = url.structure(ConsulOptions)
    for name in ("dc", "ns", "partition", "session_node"):
        if getattr(options, name) == "":
            raise ConfigError(f"the option {name} is empty; leave it out or give it a value")
    if options.token_file is not None and not options.token_file.is_file():
        raise ConfigError(f"token_file={options.token_file} is not a file that can be read")
    credentials = bool(runtime.credentials or options.token_file or os.environ.get(TOKEN_VARIABLE))
    check_transport(url, options, tls=url.scheme == TLS_SCHEME, credentials=credentials)
    return options


def addresses(url: StoreURL) -> tuple[str, ...]:
    """Return `host:port` of every endpoint; Consul's customary ports are 8500, and 8501 for TLS."""
    port = 8501 if url.scheme == TLS_SCHEME else 8500
    return tuple(host.address(port) for host in url.hosts or (Host("127.0.0.1"),))


def read_token(text: str, source: str) -> Secret | None:
    """Check a token that is going to be a header. Raises ConfigError, which does not show it."""
    text = text.strip()
    if text and not _TOKEN.match(text):
        raise ConfigError(f"the token from {source} holds characters that no Consul token has")
    return Secret(text) if text else None
