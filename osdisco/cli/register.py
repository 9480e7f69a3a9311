"""`osdisco register`: keep an extension registered while a command runs, or until interrupted."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from osdisco._tasks import Supervisor
from osdisco.cli._arguments import Duration, timeout_option
from osdisco.cli._child import Child
from osdisco.cli._extensions import extension_document, pair
from osdisco.cli._files import read
from osdisco.cli._hold import Job, held_for, job_options
from osdisco.cli._output import document, line, note, warn
from osdisco.cli._registration import Registration, assemble
from osdisco.cli._running import Interrupts, run_with_client
from osdisco.cli._settings import CommandBehindDashes, Settings
from osdisco.client import Client
from osdisco.discovery import DiscoveryService, Drain, EndpointInfo
from osdisco.discovery.checks import HttpCheck, PolledCheck, TcpCheck
from osdisco.errors import ClosedError, DiscoveryError, LostError, OsdiscoError, TimedOutError

log = logging.getLogger("osdisco")

AS_LONG_AS_IT_RUNS: Final = 1e9
"""Seconds of grace for a command that was told to end: what still runs is not forgotten."""
ENDING: Final = (signal.SIGTERM, signal.SIGINT)


@click.command(cls=CommandBehindDashes)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--id", metavar="ID", help="Unique among all extensions.")
@click.option("--name", help="What kind it is; else the ID.")
@click.option("--version", metavar="VERSION", help="Else 0.0.0.")
@click.option("--host", help="Where others reach it; else this host's name.")
@click.option("--port", type=int)
@click.option("--capability", "capabilities", multiple=True, metavar="NAME", help="What others find it by. Repeatable.")
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Repeatable.")
@click.option("--endpoint", "endpoints", multiple=True, metavar="NAME=PROTOCOL:PORT[/PATH]", help="Repeatable.")
@click.option("--http-check", multiple=True, metavar="URL", help="It is well while this answers 2xx. Repeatable.")
@click.option("--tcp-check", multiple=True, metavar="HOST:PORT", help="It is well while this can be connected to.")
@click.option("--interval", type=Duration(), metavar="10s", default="10s", show_default=True, help="Between checks.")
@click.option(
    "--propagation",
    type=Duration(zero=True),
    metavar="2s",
    default="2s",
    show_default=True,
    help="From STOPPING to the signal that ends CMD, or to the removal: others turn away meanwhile.",
)
@timeout_option("to be registered")
@job_options
@click.pass_obj
def register(
    settings: Settings,
    /,
    file: Path | None,
    command: tuple[str, ...],
    http_check: tuple[str, ...],
    tcp_check: tuple[str, ...],
    interval: float,
    propagation: float,
    timeout: float | None,
    shell: bool | None,
    pass_stdin: bool,
    grace: float,
    **given: Any,
) -> None:
    """Register an extension until interrupted, or while a command runs: osdisco register FILE -- CMD…

    FILE is JSON, TOML or YAML, by its ending, with the fields id, name, version, host, port, capabilities, endpoints,
    metadata and checks; options stand above it. Without any check it is HEALTHY at once, with checks once they pass.
    The registration returns by itself when the store was away, and CMD runs on.

    SIGTERM and SIGINT publish STOPPING, reach CMD after --propagation, and the registration goes when CMD has ended; a
    second one reaches CMD at once, as Ctrl-C does at a terminal. Other signals are passed on. When another process
    registers the same ID CMD is ended, with SIGTERM and then SIGKILL. CMD finds OSDISCO_EXTENSION_ID in its
    environment.

    The exit code is CMD's own; 124 when it was not registered within --timeout, 125 when another process registered the
    ID or on other trouble. Without CMD: 4 and 1.
    """
    job = Job(command, shell, pass_stdin, grace)
    what = _read(file, given, http_check, tcp_check, interval)
    drain = Drain(propagation, AS_LONG_AS_IT_RUNS)

    async def work(client: Client, interrupts: Interrupts) -> int:
        discovery = DiscoveryService(client, what.extension, checks=what.checks, drain=drain)
        if job:
            return await _Shift(discovery, job, propagation, timeout).run(interrupts)
        async with discovery:
            return await _stay(client, discovery, timeout, settings)

    with held_for(job, f"the registration of {what.extension.id!a}"):
        code = run_with_client(settings, work)
    click.get_current_context().exit(code)


def _read(
    file: Path | None, given: Mapping[str, Any], http: Sequence[str], tcp: Sequence[str], interval: float
) -> Registration:
    """Return what is registered. Raises UsageError for what no extension or no check can be."""
    try:
        checks: list[PolledCheck] = [HttpCheck(url, interval=interval) for url in http]
        checks += [TcpCheck(address, interval=interval) for address in tcp]
        return assemble(read(file) if file else None, _given(given), checks)
    except DiscoveryError as exc:
        raise click.UsageError(str(exc)) from None


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what options say of the extension."""
    given = {name: value for name, value in options.items() if value not in (None, ())}
    if "metadata" in given:
        given["metadata"] = dict(pair("--metadata", text) for text in given["metadata"])
    if "endpoints" in given:
        given["endpoints"] = {
            name: _endpoint(text) for name, text in (pair("--endpoint", t) for t in given["endpoints"])
        }
    if "capabilities" in given:
        given["capabilities"] = list(given["capabilities"])
    return given


def _endpoint(text: str) -> EndpointInfo:
    protocol, _, rest = text.partition(":")
    port, slash, path = rest.partition("/")
    if not port.isdecimal():
        raise click.UsageError(f"the endpoint {text!a} is not PROTOCOL:PORT or PROTOCOL:PORT/PATH, as http:9700/geo")
    return EndpointInfo(protocol, int(port), f"/{path}" if slash else "/")


async def _stay(client: Client, discovery: DiscoveryService, timeout: float | None, settings: Settings) -> int:
    """Without a command: say when it is registered, and wait for an interruption."""
    try:
        await discovery.wait_registered(client.options.timeout if timeout is None else timeout)
    except TimedOutError as exc:
        if timeout is not None:
            raise
        warn(f"{exc}; trying on")
        await discovery.wait_registered()
    if settings.json:
        document({"event": "registered", "extension": extension_document(discovery.extension)})
    else:
        line(discovery.extension.id)
        note(f"registered in {client.url} until you press Ctrl-C")
    await _superseded(discovery)
    raise LostError("another process registered it")


async def _superseded(discovery: DiscoveryService) -> None:
    await discovery._changed.wait_for(lambda: discovery.superseded)


class _Shift:
    """A command, and the registration that stands while it runs: for that it is work in flight."""

    def __init__(self, discovery: DiscoveryService, job: Job, propagation: float, timeout: float | None) -> None:
        self._discovery = discovery
        self._job = job
        self._propagation = propagation
        self._timeout = timeout
        environment = {"OSDISCO_EXTENSION_ID": discovery.extension.id}
        self._child = Child(job.arguments, environment, pass_stdin=job.pass_stdin)
        self._supervisor = Supervisor()
        self._failure: OsdiscoError | None = None

    async def run(self, interrupts: Interrupts) -> int:
        """Return the command's code. Raises what ended the command before its time."""
        try:
            async with self._discovery.in_flight():
                try:
                    code = await self._child.run(interrupts, started=self._start, receiver=self._on_signal)
                finally:
                    await self._child.end(self._job.grace)
        finally:
            await self._discovery.stop(now=True)
            await self._supervisor.aclose()
        if self._failure is not None:
            raise self._failure
        return code

    async def _start(self) -> None:
        """Register only what runs."""
        await self._discovery.start()
        self._supervisor.spawn(self._watch(), "watch the registration")

    def _on_signal(self, number: signal.Signals) -> None:
        if number in ENDING and not self._discovery.draining and self._discovery.registered:
            self._supervisor.spawn(self._discovery.stop(), "leave")
            self._supervisor.spawn(self._pass_on_later(number), "pass the signal on")
        else:
            self._child.pass_on(number)

    async def _pass_on_later(self, number: signal.Signals) -> None:
        await asyncio.sleep(self._propagation)
        self._child.pass_on(number)

    async def _watch(self) -> None:
        """End the command when it is not registered in time, or by another process."""
        try:
            await self._discovery.wait_registered(self._timeout)
            log.info("%s is registered", self._discovery.extension.id)
            await _superseded(self._discovery)
            raise LostError("another process registered it")
        except ClosedError:
            return  # it leaves
        except OsdiscoError as exc:
            self._failure = exc
            warn(f"{exc}: ending the command")
            self._child.ask_to_end(self._job.grace)
