"""Checks: what a process looks at to know how its own extension is."""

from __future__ import annotations

import asyncio
import inspect
import os
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from typing import Any, ClassVar, Final, TypeVar

from attrs import field, frozen

from osdisco._signal import Signal
from osdisco.discovery._fields import (
    context,
    flag,
    headers,
    method,
    seconds,
    seconds_from_zero,
    share,
    statuses,
    text,
    times,
)
from osdisco.discovery._target import RefusedError, Target, split_address
from osdisco.errors import ConfigError, OsdiscoError

T = TypeVar("T")

NO_ADDRESS: Final = "the host's name has no address"

REASON_MAX: Final = 200
"""Characters of a reason that are kept."""


def _clipped(reason: str) -> str:
    return str(reason)[:REASON_MAX]


class CheckFailedError(OsdiscoError):
    """What `run` of a check raises to say that it failed, and why."""


@frozen
class Verdict:
    """What one look gave."""

    ok: bool
    reason: str = field(converter=_clipped)


@frozen
class Check:
    """What all checks have.

    Args:
        name: what it is shown as; every kind has its own default. No two checks of one extension have the same.
        critical: whether its failing makes the extension UNHEALTHY; otherwise DEGRADED.
        rise: passes in a row after which one that failed counts as passing again.
        fall: failures in a row after which one that passed counts as failing.
        startup_grace: seconds from the start in which it may fail without counting; one pass ends them.

    Raises:
        ConfigError: a field out of its range.
    """

    name: str = field(default="", kw_only=True, validator=text)
    critical: bool = field(default=True, kw_only=True, validator=flag)
    rise: int = field(default=2, kw_only=True, validator=times)
    fall: int = field(default=3, kw_only=True, validator=times)
    startup_grace: float = field(default=30.0, kw_only=True, validator=seconds_from_zero)

    @property
    def label(self) -> str:
        """The name, or what stands for it."""
        return self.name or self._described()

    def _described(self) -> str:
        """Return what it is shown as when it has no name."""
        return type(self).__name__


@frozen
class PolledCheck(Check, ABC):
    """A check that is run again and again: derive from it and write `run` for one of your own.

    Args:
        interval: seconds between the end of one run and the next.
        timeout: seconds after which a run counts as failed and is cancelled.
        jitter: share of the interval by which it varies at random, so that many processes do not check in step.
    """

    eager: ClassVar[bool] = True
    """Whether it is run every second, if `interval` is longer, until it has passed for the first time."""

    interval: float = field(default=10.0, kw_only=True, validator=seconds)
    timeout: float = field(default=2.0, kw_only=True, validator=seconds)
    jitter: float = field(default=0.1, kw_only=True, validator=share)

    @abstractmethod
    async def run(self) -> None:
        """Look once. Raises CheckFailedError, or anything else, when it is not well."""


@frozen
class HttpCheck(PolledCheck):
    """Asks a URL, and passes when the answer has an expected status. Needs aiohttp.

    Redirects are not followed, no proxy is used, at most 4 KiB of the body are read, and the connection is closed.

    Args:
        url: http or https, without user or password.
        method: GET or HEAD.
        expected: the status, or statuses, that pass; any 2xx when empty.
        headers: to send along; no repr shows them.
        tls: for https, instead of the system's trusted authorities.
    """

    url: str = field(validator=text)
    method: str = field(default="GET", kw_only=True, validator=method)
    expected: tuple[int, ...] = field(default=(), kw_only=True, converter=statuses)
    headers: Mapping[str, str] = field(factory=dict, kw_only=True, repr=False, converter=headers)
    tls: ssl.SSLContext | None = field(default=None, kw_only=True, repr=False, validator=context)
    _target: Target = field(init=False, repr=False)

    @_target.default
    def _parsed(self) -> Target:
        return _located("HttpCheck.url", lambda: Target.parse(self.url))

    def __attrs_post_init__(self) -> None:
        if find_spec("aiohttp") is None:
            raise ConfigError("HttpCheck needs aiohttp: pip install 'osdisco[health]'")

    def _described(self) -> str:
        return str(self._target)

    async def run(self) -> None:
        """Ask once."""
        from osdisco.discovery._http import Request, ask

        await ask(Request(self._target, self.method, self.expected, self.headers, self.tls))


@frozen
class TcpCheck(PolledCheck):
    """Connects to an address, and passes when it is accepted. Nothing is sent.

    Args:
        address: `host:port`, an IPv6 address in brackets.
    """

    address: str = field(validator=text)
    _place: tuple[str, int] = field(init=False, repr=False)

    @_place.default
    def _parsed(self) -> tuple[str, int]:
        host, port = _located("TcpCheck.address", lambda: split_address(self.address))
        if port is None:
            raise ConfigError(f"TcpCheck.address must be host:port; {self.address!a} has no port")
        return host, port

    def _described(self) -> str:
        return f"tcp {self.address}"

    async def run(self) -> None:
        """Connect once."""
        try:
            _, writer = await asyncio.open_connection(*self._place)
        except OSError as exc:
            raise CheckFailedError(cannot_connect(exc)) from exc
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


@frozen
class FunctionCheck(PolledCheck):
    """Calls a function of yours, or awaits it: it fails when that raises, or returns False.

    It runs on the event loop: one that blocks belongs into `asyncio.to_thread`.
    """

    function: Callable[[], Any] = field()

    @function.validator
    def _callable(self, attribute: object, value: object) -> None:
        if not callable(value):
            raise ConfigError(f"FunctionCheck.function must be a function without arguments, not {value!a}")

    def _described(self) -> str:
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    async def run(self) -> None:
        """Call it once."""
        result = self.function()
        if inspect.isawaitable(result):
            result = await result
        if result is False:
            raise CheckFailedError(f"{self.label} returned False")


class _Reports:
    """What a process said of itself last, and how often it has."""

    def __init__(self) -> None:
        self.count = 0
        self.last = Verdict(ok=False, reason="")
        self.said = Signal()

    def put(self, verdict: Verdict) -> None:
        self.count += 1
        self.last = verdict
        self.said.fire()


@frozen
class TtlCheck(Check):
    """The process reports itself, by `ok()` and `fail()`; silence for `ttl` seconds is a failure, too.

    Report on the event loop, more often than every `ttl` seconds.
    """

    rise: int = field(default=1, kw_only=True, validator=times)
    fall: int = field(default=1, kw_only=True, validator=times)
    ttl: float = field(validator=seconds)
    _reports: _Reports = field(factory=_Reports, init=False, repr=False, eq=False)

    def ok(self) -> None:
        """Say that all is well."""
        self._reports.put(Verdict(ok=True, reason="reported to be well"))

    def fail(self, reason: str) -> None:
        """Say that something is wrong."""
        self._reports.put(Verdict(ok=False, reason=reason))

    async def next_report(self, seen: int, patience: float) -> tuple[Verdict, int]:
        """Wait `patience` seconds for a report after the one with number `seen`; returns the last and its number."""
        try:
            await self._reports.said.wait_for(lambda: self._reports.count != seen, patience)
        except TimeoutError:
            return Verdict(ok=False, reason=f"nothing was reported for {patience:g} s"), seen
        return self._reports.last, self._reports.count

    def _described(self) -> str:
        return "ttl"


def cannot_connect(exc: OSError) -> str:
    """Return the reason, without the address, which asyncio puts into its own."""
    if isinstance(exc, socket.gaierror):
        return NO_ADDRESS
    number = exc.errno or 0
    return f"cannot connect: {os.strerror(number) if number > 0 else type(exc).__name__}"


def _located(where: str, parse: Callable[[], T]) -> T:
    try:
        return parse()
    except RefusedError as exc:
        raise ConfigError(f"{where}: {exc}") from None


def distinct(checks: Iterable[Check]) -> tuple[Check, ...]:
    """Return checks of one extension. Raises ConfigError when one is none, or two have one name."""
    if isinstance(checks, Check) or not isinstance(checks, Iterable):
        raise ConfigError(f"checks are a list of HttpCheck, TcpCheck, TtlCheck or FunctionCheck, not {checks!a}")
    found = tuple(checks)
    for check in found:
        if not isinstance(check, PolledCheck | TtlCheck):
            raise ConfigError(f"a check is a HttpCheck, TcpCheck, TtlCheck or FunctionCheck, not {check!a}")
    labels = [check.label for check in found]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ConfigError(f"two checks are called {twice[0]!a}; give each a name= of its own")
    return found
