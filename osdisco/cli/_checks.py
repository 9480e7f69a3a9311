"""What `osdisco doctor` looks at, one function a subject. Each yields findings and leaves nothing in the store."""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping, Sequence
from statistics import median
from typing import Any, Final

from attrs import field, frozen

from osdisco.backend import EndpointStatus
from osdisco.cli._advice import grant, outdated, tls_scheme
from osdisco.cli._text import seconds
from osdisco.client import Client
from osdisco.errors import DeniedError, OsdiscoError, UnavailableError
from osdisco.url import StoreURL

SAMPLES: Final = 15
SLOW: Final = 0.1
"""Seconds of a median write above which a store is called slow: many times what a healthy one needs in one site."""
CLOCK_SLACK: Final = 2.0
"""Seconds that clocks may differ unmentioned; Consul tells its time in whole seconds."""


class Level(enum.Enum):
    """How bad a finding is. DOWN: the store cannot be used at all."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    DOWN = "down"


@frozen
class Finding:
    """What was looked at, how it is, and what to do about it."""

    check: str
    level: Level
    said: str
    advice: str = ""
    measured: Mapping[str, Any] = field(factory=dict)


Check = Callable[[Client, str], Coroutine[Any, Any, Finding]]


async def examine(client: Client, url: StoreURL) -> AsyncGenerator[Finding, None]:
    """Yield all findings, in the order in which a person would look for the trouble."""
    for finding in _transport(url):
        yield finding
    before = client.runtime.clock.wall()
    statuses = await client.inspect()
    after = client.runtime.clock.wall()
    for status in statuses:
        yield _endpoint(url, status)
    if alive := [status for status in statuses if status.error is None]:
        yield _leader(alive)
        yield _clock(alive, before, after)
    usable = await _read(client, url)
    yield usable
    if usable.level is Level.DOWN:
        return
    place = f"doctor/{client.runtime.unique()}"
    for name, check in _IN_USE.items():
        finding = await _tried(name, check, client, place, url)
        yield finding
        if finding.level is Level.DOWN:
            return


async def _tried(name: str, check: Check, client: Client, place: str, url: StoreURL) -> Finding:
    try:
        return await check(client, place)
    except OsdiscoError as exc:
        return _failed(name, exc, url)


def _transport(url: StoreURL) -> Iterator[Finding]:
    remote = [host.name for host in url.hosts if not host.loopback]
    better = tls_scheme(url)
    if better and remote:
        said = f"what is sent to {remote[0]} crosses the network in plain text"
        yield Finding("transport", Level.WARN, said, f"use {better}:// with tls_ca=")
    else:
        yield Finding("transport", Level.OK, "stays on this machine" if better or not url.hosts else "encrypted by TLS")
    if url.options.get("tls_verify") in ("false", "0", "no", "off"):
        said = "the server's certificate is not verified: anybody can be the store"
        yield Finding("transport", Level.WARN, said, "remove tls_verify=, and name the authority with tls_ca=")
    if url.password:
        said = "the password stands in the URL, where process lists and shell histories show it"
        advice = "put it into a file (password_file=, token_file=) or the environment"
        yield Finding("credentials", Level.WARN, said, advice)


def _endpoint(url: StoreURL, status: EndpointStatus) -> Finding:
    measured: dict[str, Any] = {"endpoint": status.endpoint, "version": status.version, "leader": status.leader}
    measured |= {"latency": status.latency, "details": dict(status.details)}
    if status.error is not None:
        advice = "start it or correct its address; while it is down the URL's other endpoints must do"
        return Finding("endpoint", Level.FAIL, f"{status.endpoint}: {status.error}", advice, measured)
    about = [f"{status.endpoint}: {status.version or 'version not shown'}"]
    about += [{True: "leader", False: "follower"}[status.leader]] if status.leader is not None else []
    about += [f"answers in {seconds(status.latency)}"] if status.latency is not None else []
    if status.version is None:  # the reason is among them
        about += [f"{name}: {value}" for name, value in sorted(status.details.items())]
    update = outdated(url, status.version)
    return Finding("endpoint", Level.WARN if update else Level.OK, ", ".join(about), update or "", measured)


def _leader(statuses: Sequence[EndpointStatus]) -> Finding:
    leaders = [status.endpoint for status in statuses if status.leader]
    told = [status for status in statuses if status.leader is not None]
    if leaders:
        return Finding("leader", Level.OK, leaders[0])
    if told:
        return Finding("leader", Level.OK, "not among the URL's endpoints; they pass requests on to it")
    advice = "see the findings on endpoints; reads and writes below tell whether there is one"
    return Finding("leader", Level.WARN, "no endpoint says who leads", advice)


def _clock(statuses: Sequence[EndpointStatus], before: float, after: float) -> Finding:
    """A server's time between the moments before and after asking is no difference."""
    ahead = [max(s.server_time - after, 0.0) or min(s.server_time - before, 0.0) for s in statuses if s.server_time]
    if not ahead:
        return Finding("clock", Level.OK, "the store does not tell its time, and nothing depends on it")
    worst = max(ahead, key=abs)
    measured = {"difference": worst}
    if abs(worst) <= CLOCK_SLACK:
        return Finding("clock", Level.OK, f"within {CLOCK_SLACK:g} s of the server's", measured=measured)
    said = f"the server's is {abs(worst):.0f} s {'ahead' if worst > 0 else 'behind'}"
    advice = "correct it with NTP: certificates and shown times depend on it; leases and locks do not"
    return Finding("clock", Level.WARN, said, advice, measured)


async def _read(client: Client, url: StoreURL) -> Finding:
    try:
        await client.scan("doctor/")
    except UnavailableError as exc:
        return Finding("read", Level.DOWN, str(exc), "make an endpoint reachable first; nothing else was looked at")
    except OsdiscoError as exc:
        return _failed("read", exc, url)
    return Finding("read", Level.OK, f"allowed in {url.namespace}/")


def _failed(check: str, exc: OsdiscoError, url: StoreURL) -> Finding:
    """A failure of the store is DOWN, everything else a FAIL."""
    level = Level.DOWN if isinstance(exc, UnavailableError) else Level.FAIL
    return Finding(check, level, str(exc), grant(url) if isinstance(exc, DeniedError) else "")


async def _write(client: Client, place: str) -> Finding:
    revision = await client.put(f"{place}/written", b"by osdisco doctor")
    await client.delete(f"{place}/written")
    return Finding("write", Level.OK, "allowed", measured={"revision": revision})


async def _watch(client: Client, place: str) -> Finding:
    now = client.runtime.clock.now
    async with client.view(f"{place}/") as view:
        sent = now()
        await client.put(f"{place}/watched", b"by osdisco doctor")
        try:
            await view.until(lambda items: f"{place}/watched" in items, timeout=client.options.timeout)
        finally:
            seen = now()
            await client.delete(f"{place}/watched")
    return Finding("watch", Level.OK, f"a change is seen after {seconds(seen - sent)}", measured={"delay": seen - sent})


async def _session(client: Client, place: str) -> Finding:
    asked = client.options.ttl
    async with client.session(strict=False) as session:
        await session.put(f"{place}/leased", b"by osdisco doctor")
        granted = session.ttl
    if await client.get(f"{place}/leased") is not None:
        said = "a lease was ended, and its key is still there"
        return Finding("session", Level.FAIL, said, "this is no store that osdisco knows; report it")
    measured = {"asked": asked, "granted": granted, "crash_seen_after_max": granted * client.limits.expiry_factor}
    said = f"ttl {granted:g} s, a crash is seen within about {measured['crash_seen_after_max']:g} s"
    if granted == asked:
        return Finding("session", Level.OK, said, measured=measured)
    return Finding("session", Level.WARN, f"{said}; {asked:g} s were asked for", f"say ttl={granted:g}s", measured)


async def _ttl_range(client: Client, place: str) -> Finding:
    async with client.session(ttl=1.0, strict=False) as session:
        granted = session.ttl
    said = f"the store grants {granted:g} s to {client.limits.ttl_max:g} s"
    return Finding("ttl range", Level.OK, said, measured={"min": granted, "max": client.limits.ttl_max})


async def _latency(client: Client, place: str) -> Finding:
    now = client.runtime.clock.now
    puts, gets = [], []
    try:
        for number in range(SAMPLES):
            started = now()
            await client.put(f"{place}/timed", b"%d" % number)
            written = now()
            await client.get(f"{place}/timed")
            puts.append(written - started)
            gets.append(now() - written)
    finally:
        await client.delete(f"{place}/timed")
    measured = {"put": median(puts), "put_max": max(puts), "get": median(gets), "get_max": max(gets)}
    said = f"a write takes {seconds(measured['put'])}, a read {seconds(measured['get'])} (medians of {SAMPLES})"
    if measured["put"] <= SLOW:
        return Finding("latency", Level.OK, said, measured=measured)
    advice = "look at the disk of the store's leader and at the way to it; give sessions a longer ttl meanwhile"
    return Finding("latency", Level.WARN, said, advice, measured)


_IN_USE: Final[Mapping[str, Check]] = {
    "write": _write,
    "watch": _watch,
    "session": _session,
    "ttl range": _ttl_range,
    "latency": _latency,
}
