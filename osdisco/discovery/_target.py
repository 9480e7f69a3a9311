"""Where a check goes: URLs and addresses, read so strictly that every reader means the same by them."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from attrs import field, frozen

from osdisco.errors import OsdiscoError

PORTS: Final = {"http": 80, "https": 443}
"""The schemes, and the port of each when none is given."""

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port to addresses. Raises OSError."""

_PRINTABLE = re.compile(r"[!-~]+\Z")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?]*)(.*)\Z")
_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/?%-]*\Z")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)*(?P<last>{_LABEL})\Z", re.ASCII)
_NUMERIC = re.compile(r"(?:\d+|0[xX][0-9A-Fa-f]*)\Z", re.ASCII)
_PORT = re.compile(r"[1-9][0-9]{0,4}\Z")


class RefusedError(OsdiscoError):
    """An address or a URL that is not asked: what stands there is nothing that a check goes to."""


def parsed_host(text: str) -> str:
    """Return an address in its one form, or a name in lower case.

    What a resolver might take for an address without looking like one (`2130706433`, `0x7f.1`, `127.1`) is refused, and
    so are zones, dots at the end and letters beyond ASCII.

    Raises:
        RefusedError: it is neither.
    """
    if not isinstance(text, str) or not _PRINTABLE.match(text):
        raise RefusedError(f"{text!a} is no host: printable ASCII, and not empty")
    if address := _address(text):
        return str(address)
    name = _NAME.match(text)
    if name is None:
        raise RefusedError(f"{text!a} is neither a host name nor an address")
    if _NUMERIC.match(name["last"]):
        raise RefusedError(f"{text!a} ends in a number and is no address; write it as four numbers from 0 to 255")
    return text.lower()


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.scope_id:
        raise RefusedError(f"{text!a} has a zone; an address without one is needed")
    return address


def is_address(host: str) -> bool:
    """Whether a host that was parsed is an address, and no name."""
    return _address(host) is not None


def checked_port(port: int) -> int:
    """Return a port. Raises RefusedError when it is not a number from 1 to 65535."""
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        raise RefusedError(f"{port!a} is no port: a number from 1 to 65535")
    return port


def split_address(text: str) -> tuple[str, int | None]:
    """Return host and port of `host`, `host:port`, `[v6]` or `[v6]:port`. Raises RefusedError."""
    if not isinstance(text, str):
        raise RefusedError(f"{text!a} is no address: text such as 127.0.0.1:9700")
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    host = host if colon else text
    if colon and not _PORT.match(port):
        raise RefusedError(f"{port!a} is no port: a number from 1 to 65535")
    if host.startswith("[") != host.endswith("]") or (":" in host and not host.startswith("[")):
        raise RefusedError(f"{text!a} is no address: an IPv6 address stands in brackets, as in [::1]:9700")
    bare = host[1:-1] if host.startswith("[") else host
    if host.startswith("[") and ":" not in bare:
        raise RefusedError(f"{text!a} has no IPv6 address in its brackets")
    return parsed_host(bare), checked_port(int(port)) if colon else None


def _path(instance: object, attribute: object, value: str) -> None:
    if not isinstance(value, str) or not _PATH.match(value):
        raise RefusedError(f"{value!a} is no path: it begins with '/', everything special is written as %XX")


def _scheme(instance: object, attribute: object, value: str) -> None:
    if value not in PORTS:
        raise RefusedError(f"the scheme is http or https, not {value!a}")


@frozen
class Target:
    """One resource: `host` is a name in lower case or an address without brackets, `path` holds the query, too.

    Raises:
        RefusedError: saying which part cannot be.
    """

    scheme: str = field(validator=_scheme)
    host: str = field(converter=parsed_host)
    port: int = field(converter=checked_port)
    path: str = field(default="/", validator=_path)

    @classmethod
    def parse(cls, url: str) -> Target:
        """Read a URL. Users, passwords, fragments and everything unusual are refused."""
        if not isinstance(url, str) or not _PRINTABLE.match(url):
            raise RefusedError(f"{url!a} is no URL: printable ASCII without spaces; write other letters as %XX")
        parts = _URL.match(url)
        if parts is None:
            raise RefusedError(f"{_shown(url)} is no URL such as http://127.0.0.1:9700/health")
        scheme, authority, path = parts[1].lower(), parts[2], parts[3]
        if scheme not in PORTS:
            raise RefusedError(f"the scheme is http or https, not {scheme!a}")
        if "@" in authority:
            raise RefusedError("a URL of a check holds neither user nor password; give headers instead")
        host, port = split_address(authority)
        return cls(scheme, host, port or PORTS[scheme], path if path.startswith("/") else f"/{path}")

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def authority(self) -> str:
        """`host:port`, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _shown(url: str) -> str:
    """Return a URL for a message, without what might be a password."""
    return ascii(url if "@" not in url else f"…@{url.rpartition('@')[2]}")
