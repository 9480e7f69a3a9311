"""Probing others' endpoints: what is asked, what may be asked at all, and whose it is to ask.

Who probes what is told by rendezvous hashing over the probers that the store shows, so that nobody has to agree on it,
and one that comes or goes moves no more than its share.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from heapq import nlargest
from importlib.util import find_spec
from typing import Any, ClassVar, Final

from attrs import field, frozen

from osdisco.discovery._addresses import Gate
from osdisco.discovery._fields import context, seconds, share, statuses, text, times
from osdisco.discovery._target import PORTS, RefusedError, Resolve, Target, is_address
from osdisco.discovery.checks import CheckFailedError, PolledCheck
from osdisco.discovery.extension import ExtensionInfo
from osdisco.discovery.findings import ProberMember
from osdisco.errors import ConfigError

PROBERS: Final = 2
"""How many processes probe one endpoint at most."""

TIMEOUT_MAX: Final = 2.0
"""Seconds that one answer may take."""

DEFAULT_PORTS: Final = (80, 443, range(1024, 65536))


def _ports(values: Iterable[int | range]) -> tuple[range, ...]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ConfigError(f"Probing.ports must be a list of ports and ranges, not {values!a}")
    ports = tuple(range(one, one + 1) if isinstance(one, int) else one for one in values)
    for one in ports:
        if not isinstance(one, range) or not one or one[0] < 1 or one[-1] > 65535:
            raise ConfigError(f"Probing.ports: {one!a} is no port, nor a range of them, from 1 to 65535")
    return ports


def _gate(allow: Iterable[Any]) -> Gate:
    return Gate(allow)


@frozen
class Probing:
    """How this process probes others' extensions, or the endpoints of a service. Needs aiohttp.

    What is asked is `scheme://host:port/path`, host and port out of the extension's record, or out of the
    `health_check_url` of an endpoint, which is refused when scheme or path are others there. The address must lie in
    `allow`; link-local, metadata, multicast, unspecified and broadcast addresses, and IPv6 forms of IPv4 addresses, are
    refused even there. A name is resolved once, all its addresses must be allowed, and one of those is connected to.
    Redirects are not followed; 4 KiB of a body and `timeout` seconds in all are what an answer gets.

    Args:
        allow: networks, such as `10.0.0.0/8`; nothing else is probed, loopback neither.
        path: what is asked, the query included. The record has no say in it.
        scheme: http or https.
        endpoint: the name of the endpoint whose port is taken; extensions without it are not probed. When None, the
            extension's own port.
        ports: that may be probed, as numbers and ranges.
        expected: the status, or statuses, that pass; any 2xx when empty.
        interval: as that of checks.
        timeout: as that of checks, at most 2 s.
        jitter: as that of checks.
        rise: as that of checks.
        fall: as that of checks.
        tls: for https, instead of the system's trusted authorities.
        limit: how many endpoints this process probes at most.

    Raises:
        ConfigError: a field out of its range.
    """

    _gate: Gate = field(alias="allow", converter=_gate)
    path: str = field(default="/health", kw_only=True, validator=text)
    scheme: str = field(default="http", kw_only=True, validator=text)
    endpoint: str | None = field(default=None, kw_only=True)
    ports: tuple[range, ...] = field(default=DEFAULT_PORTS, kw_only=True, converter=_ports, repr=False)
    expected: tuple[int, ...] = field(default=(), kw_only=True, converter=statuses)
    interval: float = field(default=10.0, kw_only=True, validator=seconds)
    timeout: float = field(default=TIMEOUT_MAX, kw_only=True, validator=seconds)
    jitter: float = field(default=0.1, kw_only=True, validator=share)
    rise: int = field(default=2, kw_only=True, validator=times)
    fall: int = field(default=3, kw_only=True, validator=times)
    tls: ssl.SSLContext | None = field(default=None, kw_only=True, repr=False, validator=context)
    limit: int = field(default=1000, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.timeout > TIMEOUT_MAX:
            raise ConfigError(f"Probing.timeout must be at most {TIMEOUT_MAX:g} seconds, not {self.timeout!a}")
        if self.endpoint is not None and not isinstance(self.endpoint, str):
            raise ConfigError(f"Probing.endpoint must be the name of an endpoint or None, not {self.endpoint!a}")
        if isinstance(self.limit, bool) or not isinstance(self.limit, int) or self.limit < 1:
            raise ConfigError(f"Probing.limit must be a whole number from 1, not {self.limit!a}")
        try:
            Target(self.scheme, "localhost", PORTS.get(self.scheme, 1), self.path)
        except RefusedError as exc:
            raise ConfigError(f"Probing: {exc}") from None
        if find_spec("aiohttp") is None:
            raise ConfigError("probing needs aiohttp: pip install 'osdisco[health]'")


@frozen
class HttpProbe(PolledCheck):
    """Asks one target, if every address that its host has now is let through."""

    eager: ClassVar[bool] = False

    target: Target
    gate: Gate
    expected: tuple[int, ...]
    tls: ssl.SSLContext | None
    resolve: Resolve
    refused: list[bool] = field(factory=lambda: [False], init=False)

    def _described(self) -> str:
        return str(self.target)

    async def run(self) -> None:
        """Ask once."""
        from osdisco.discovery._http import Request, ask

        self.refused[0] = False
        try:
            await ask(
                Request(self.target, expected=self.expected, tls=self.tls), resolve=self.resolve, admit=self.gate.admit
            )
        except RefusedError as exc:
            self.refused[0] = True
            raise CheckFailedError(str(exc)) from exc


def target_of(extension: ExtensionInfo, probing: Probing) -> Target | None:
    """Return what is asked; None when the extension lacks the endpoint.

    Raises:
        RefusedError: what its record says may not be asked.
    """
    port = extension.port
    if probing.endpoint is not None:
        if probing.endpoint not in extension.endpoints:
            return None
        port = extension.endpoints[probing.endpoint].port
    return admitted(Target(probing.scheme, extension.host, port, probing.path), probing)


def admitted(target: Target, probing: Probing) -> Target:
    """Return a target. Raises RefusedError when its port, or its address, may not be asked."""
    if not any(target.port in ports for ports in probing.ports):
        raise RefusedError(f"port {target.port} is none of those that may be probed")
    if is_address(target.host):
        probing._gate.admit([target.host])
    return target


def probe_of(target: Target, probing: Probing, resolve: Resolve) -> HttpProbe:
    """Return the check of one target; `resolve` gives the addresses of its host."""
    grace = (probing.fall - 1) * probing.interval  # so that it takes several failures at first, too
    return HttpProbe(
        target,
        probing._gate,
        probing.expected,
        probing.tls,
        resolve,
        name=str(target),
        interval=probing.interval,
        timeout=probing.timeout,
        jitter=probing.jitter,
        rise=probing.rise,
        fall=probing.fall,
        startup_grace=grace,
    )


def chosen(extension_id: str, members: Mapping[str, ProberMember]) -> set[str]:
    """Return which probers an extension falls to: those who drew the highest for it. Nobody probes itself."""
    able = [id_ for id_, member in members.items() if member.extension_id != extension_id]
    return set(nlargest(PROBERS, able, key=lambda id_: (_draw(id_, extension_id), id_)))


def _draw(prober: str, extension_id: str) -> bytes:
    return blake2b(f"{prober}\0{extension_id}".encode(), digest_size=8).digest()
