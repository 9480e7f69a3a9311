"""Where to listen."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import Final

from osdisco.errors import ConfigError
from osdisco.url import Host

_ADDRESS: Final = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9_.-]+)):(?P<port>\d{1,5})\Z", re.ASCII)

_LABEL: Final = re.compile(r"[A-Za-z0-9_-]{1,63}\Z", re.ASCII)


def parse_listen(text: str) -> Host:
    """Read `HOST:PORT`; port 0 is one that is free.

    Raises:
        ConfigError: it is none. A host must be named: none at all would mean every address of the machine.
    """
    found = _ADDRESS.match(text)
    if found is None or int(found["port"]) > 65535:
        raise ConfigError(f"{text!a} is no HOST:PORT to listen on, such as 127.0.0.1:9717 or [::1]:9717")
    if found["six"] is None:
        return Host(found["name"], int(found["port"]))
    try:
        return Host(str(IPv6Address(found["six"])), int(found["port"]))
    except ValueError:
        raise ConfigError(f"{text!a} has no IPv6 address in its brackets") from None


def names_loopback(header: str) -> bool:
    """Return whether a Host header names this machine by loopback.

    A web page elsewhere can have its own name resolve to 127.0.0.1, and would read what is served here.
    """
    name = header[1:].partition("]")[0] if header.startswith("[") else header.partition(":")[0]
    return Host(name.lower()).loopback


def one_label(header: str) -> bool:
    """Return whether a Host header is one word, as Envoy sends it: the name that it has for this server.

    The name of a web page elsewhere has a dot.
    """
    return _LABEL.match(header) is not None
