"""URLs of stores, and the options in them.

osdisco parses its own because a store has several hosts (`etcd://h1:2379,h2:2379/ns?ttl=15s`). No error or repr shows
a password, or the value of an option that might be one.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NewType, TypeVar
from urllib.parse import unquote

from attrs import field, fields, frozen

from osdisco.errors import ConfigError, InvalidNameError, nearest
from osdisco.names import escape
from osdisco.runtime import Secret

Duration = NewType("Duration", float)
"""Seconds; in text `1500ms`, `15s`, `2m`, `1h` or a number of seconds."""

DEFAULT_NAMESPACE = "osdisco"

T = TypeVar("T")

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*\Z")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"  # another one fails in the resolver, as no OSError
_HOSTNAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\Z")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)(ms|s|m|h|)\Z", re.ASCII)


@frozen
class Host:
    """A host name or address, without brackets, and its port if one was given."""

    name: str
    port: int | None = None

    def address(self, default_port: int) -> str:
        """Return `host:port`, an IPv6 address in brackets."""
        name = f"[{self.name}]" if ":" in self.name else self.name
        return f"{name}:{self.port or default_port}"

    @property
    def loopback(self) -> bool:
        """Whether traffic to it stays on this machine."""
        from ipaddress import ip_address

        if self.name == "localhost":
            return True
        try:
            return ip_address(self.name).is_loopback
        except ValueError:
            return False


@frozen(repr=False)
class StoreURL:
    """A parsed URL. `namespace` is escaped and without outer `/`; `options` are as written, decoded."""

    scheme: str
    hosts: tuple[Host, ...]
    namespace: str = DEFAULT_NAMESPACE
    username: str | None = None
    password: Secret | None = None
    options: Mapping[str, str] = field(factory=dict)

    def __str__(self) -> str:
        """Show where it leads: neither user nor password nor options."""
        hosts = ",".join(h.address(h.port) if h.port else h.address(0).removesuffix(":0") for h in self.hosts)
        return f"{self.scheme}://{hosts}/{self.namespace}"

    __repr__ = __str__

    @classmethod
    def parse(cls, text: str) -> StoreURL:
        """Parse a URL.

        Raises:
            ConfigError: naming the part that is wrong and what is allowed there.
        """
        scheme, rest = _split_scheme(text)
        rest, _, query = rest.partition("?")
        authority, _, path = rest.partition("/")
        if "@" in path or "@" in query:  # else half of a password would be taken for a host, and shown
            raise ConfigError("a '@' stands behind the host; write '/' as %2F, '?' as %3F, '@' as %40 in a password")
        userinfo, _, hosts = authority.rpartition("@")
        username, _, password = userinfo.partition(":")
        return cls(
            scheme=scheme,
            hosts=_parse_hosts(hosts),
            namespace=_parse_namespace(path),
            username=_decoded(username, "user name") or None,
            password=Secret(_decoded(password, "password")) if password else None,
            options=_parse_options(query),
        )

    def structure(self, cls: type[T], *, known: bool = True) -> T:
        """Build the attrs class of options `cls` from this URL's options.

        Args:
            cls: an attrs class; its fields are the options that are known.
            known: refuse options that the class does not have.

        Raises:
            ConfigError: an unknown option (with the known ones and the nearest match), or a value that does not fit.
        """
        names = [f.name for f in fields(cls)]  # type: ignore[arg-type]
        if known:
            for option in self.options:
                if option not in names:
                    raise ConfigError(
                        f"unknown option {option!a} for {self.scheme}://{nearest(option, names)}; "
                        f"known are {', '.join(sorted(names))}"
                    )
        given = {name: value for name, value in self.options.items() if name in names}
        return _structure(given, cls)


@frozen
class ClientOptions:
    """Options of all stores. Adapters' option classes inherit from this one."""

    ttl: Duration = Duration(15.0)
    strict_ttl: bool = False
    timeout: Duration = Duration(5.0)
    connect_timeout: Duration = Duration(2.0)


@frozen
class TlsOptions(ClientOptions):
    """Options of stores that are reached over a network."""

    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_server_name: str | None = None
    tls_verify: bool = True
    plaintext_credentials: bool = False


def check_transport(url: StoreURL, options: TlsOptions, *, tls: bool, credentials: bool) -> None:
    """Refuse what would be insecure or without effect.

    Raises:
        ConfigError: TLS options on a plain scheme, half a client certificate, a file that cannot be read, or
            credentials over plaintext to another host without `plaintext_credentials=true`.
    """
    given = [name for name in url.options if name.startswith("tls_")]
    if given and not tls:
        raise ConfigError(f"{given[0]} has no effect on the plain scheme {url.scheme}://; use its TLS scheme")
    if (options.tls_cert is None) != (options.tls_key is None):
        raise ConfigError("tls_cert and tls_key go together; one of them is missing")
    for name in ("tls_ca", "tls_cert", "tls_key"):
        path: Path | None = getattr(options, name)
        if path is not None and not (os.path.isfile(path) and os.access(path, os.R_OK)):
            raise ConfigError(f"{name}={path} is not a file that can be read")
    remote = [host.name for host in url.hosts if not host.loopback]
    if credentials and not tls and remote and not options.plaintext_credentials:
        raise ConfigError(
            f"credentials would cross the network to {remote[0]} in plain text; use TLS, "
            "or say plaintext_credentials=true if the network itself is protected"
        )


def parse_duration(text: str | float) -> Duration:
    """Read `1500ms`, `15s`, `2m`, `1h` or seconds. Raises ConfigError unless it is above zero and finite."""
    seconds = text if isinstance(text, int | float) and not isinstance(text, bool) else _parse_seconds(text)
    if not 0 < seconds <= sys.float_info.max:
        raise ConfigError(f"the duration {text!a:.40} must be above zero and finite")
    return Duration(float(seconds))


def _parse_seconds(text: object) -> float:
    match = _DURATION.match(text) if isinstance(text, str) else None
    if match is None:
        raise ConfigError(f"{text!a} is not a duration; write 1500ms, 15s, 2m or a number of seconds")
    return float(match[1]) * _UNITS[match[2]]


def _split_scheme(text: str) -> tuple[str, str]:
    if not isinstance(text, str) or "://" not in text:
        raise ConfigError("a store URL looks like etcd://host:2379/namespace, consul://host:8500 or memory://")
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    if not _SCHEME.match(scheme):
        raise ConfigError("the scheme of the store URL holds characters that no scheme has")
    if "#" in rest:
        raise ConfigError("a store URL has no '#' part; write %23 for a '#' in a name or password")
    if any(ord(char) <= 0x20 or ord(char) == 0x7F for char in rest):
        raise ConfigError("a store URL holds no spaces or control characters; write them as %20 and so on")
    if any(0xD800 <= ord(char) <= 0xDFFF for char in rest):
        raise ConfigError("the store URL holds a lone surrogate: it was read from something that is not UTF-8")
    return scheme, rest


def _parse_hosts(text: str) -> tuple[Host, ...]:
    """Errors name a host by its place: what stands there could be a password with a '/' in it."""
    return tuple(_parse_host(part, f"host {n}") for n, part in enumerate(text.split(","), 1)) if text else ()


def _parse_host(text: str, which: str) -> Host:
    if text.startswith("["):
        name, closed, port = text[1:].partition("]")
        if not closed or (port and not port.startswith(":")):
            raise ConfigError(f"{which} of the store URL opens a bracket that it does not close well")
        return Host(_ipv6(name, which), _parse_port(port[1:], which) if port else None)
    name, colon, port = text.partition(":")
    if ":" in port:
        raise ConfigError(f"{which} of the store URL has several colons; write an IPv6 address in brackets")
    if not _HOSTNAME.match(name):
        raise ConfigError(f"{which} of the store URL is not a host name or address (hosts are separated by ',')")
    return Host(name, _parse_port(port, which) if colon else None)


def _ipv6(name: str, which: str) -> str:
    from ipaddress import IPv6Address

    try:
        IPv6Address(name)
    except ValueError:
        raise ConfigError(f"{which} of the store URL is in brackets but not an IPv6 address") from None
    return name


def _parse_port(text: str, which: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5) or not 1 <= int(text) <= 65535:
        raise ConfigError(f"the port of {which} of the store URL must be a number from 1 to 65535")
    return int(text)


def _parse_namespace(path: str) -> str:
    path = path.removesuffix("/")
    if not path:
        return DEFAULT_NAMESPACE
    try:
        return "/".join(escape(_decoded(segment, "namespace")) for segment in path.split("/"))
    except InvalidNameError as exc:
        raise ConfigError(f"the namespace in the store URL: {exc}") from None


def _decoded(text: str, what: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise ConfigError(f"the {what} in the store URL has a '%' that is not followed by two hex digits; write %25")
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ConfigError(f"the {what} in the store URL is not UTF-8 once decoded") from None


def _parse_options(query: str) -> Mapping[str, str]:
    """Not `parse_qsl`: it takes the '+' of a path for a space, and lets a broken '%' pass."""
    options: dict[str, str] = {}
    for pair in query.split("&") if query else ():
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise ConfigError("the options of the store URL are not name=value pairs joined by '&'")
        name = _decoded(name, "name of an option")
        if name in options:
            raise ConfigError(f"the option {name!a} is given twice")
        options[name] = _decoded(value, f"option {name!a}")
    return options


def _structure(given: Mapping[str, str], cls: type[T]) -> T:
    from cattrs import Converter
    from cattrs.errors import ClassValidationError

    converter = Converter()
    converter.register_structure_hook(Duration, lambda value, _: parse_duration(value))
    converter.register_structure_hook(bool, lambda value, _: _parse_bool(value))
    converter.register_structure_hook(Path, lambda value, _: _parse_path(value))
    try:
        return converter.structure(given, cls)
    except ClassValidationError as group:
        # cattrs' own message shows values; only our errors' words go on, with the option's name from its note
        cause = group.exceptions[0]
        option = next((note.name for note in getattr(cause, "__notes__", ()) if hasattr(note, "name")), "?")
        said = f": {cause}" if isinstance(cause, ConfigError) else " has a value that does not fit"
        raise ConfigError(f"the option {option}{said}") from None


def _parse_bool(text: str) -> bool:
    if text in ("true", "1", "yes", "on"):
        return True
    if text in ("false", "0", "no", "off"):
        return False
    raise ConfigError(f"{text!a} is neither true nor false")


def _parse_path(text: str) -> Path:
    if not text or "\0" in text:
        raise ConfigError("an empty path")
    return Path(text)
