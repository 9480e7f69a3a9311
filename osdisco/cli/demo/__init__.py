"""`osdisco demo`: the main job, done before one's eyes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

import click
from attrs import evolve

import osdisco
from osdisco.cli._errors import FailedError
from osdisco.cli._running import run
from osdisco.cli._settings import Command, Settings
from osdisco.cli.demo._director import Director
from osdisco.cli.demo._documents import Documents
from osdisco.cli.demo._facts import Facts
from osdisco.cli.demo._outage import ByCommands, Killed, Outage, SwitchedOff
from osdisco.cli.demo._stages import Actor, ProcessActor, ThreadActor, in_scope
from osdisco.client import Client
from osdisco.errors import ConfigError
from osdisco.url import Host, StoreURL

if TYPE_CHECKING:
    from osdisco.cli.demo._timeline import Timeline

LIMIT: Final = 40.0
"""Seconds that the demo may take, besides four times that the store needs to end a lease: three, and one to spare."""

MEMORY: Final = "memory://demo"


@click.command(cls=Command)
@click.option(
    "--start", "own", type=click.Choice(["etcd", "consul"]), help="Start such a server, of the PATH or in Docker."
)
@click.option(
    "--outage",
    nargs=2,
    metavar="STOP START",
    help="With --url: two lines for the shell that stop the store, and start it again.",
)
@click.pass_obj
def demo(settings: Settings, own: str | None, outage: tuple[str, str] | None) -> None:
    """Watch extensions register, find each other, take turns under a lock, elect a leader, and outlive its crash.

    One falls ill and recovers. The store is stopped for a while, and all return. The next leader is paused, and its
    write refused when it wakes up. Without --url all in this process, on memory (OSDISCO_URL is not used). With --url
    in processes of their own, on that store, in a namespace that is removed again; one of them is killed, one stopped
    for a while; the store is stopped only by --outage. With --start the same on a server that is its own.
    """
    if settings.url and own:
        raise click.UsageError("--start and --url exclude each other")
    if outage and not settings.url:
        raise click.UsageError("--outage is for the store of --url; others are stopped anyway")
    if outage and settings.url and settings.url.startswith("memory:"):
        raise click.UsageError("--outage: a store in memory is stopped anyway")
    by_commands = ByCommands(*outage) if outage else None
    if own is None:
        run(lambda _: _play(settings.url or MEMORY, by_commands, settings))
        return
    with _server(own) as server:
        url = f"{server.url}?ttl=3s"
        run(lambda _: _play(url, Killed(server), settings))


def _server(kind: str) -> Any:
    """Return a server, unstarted. Raises ConfigError when there is none."""
    try:
        from osdisco.testing.processes import ConsulProcess, EtcdProcess, find_binary
        from osdisco.testing.servers import docker_problem
    except ModuleNotFoundError as exc:
        raise ConfigError(f"--start needs {exc.name}: pip install 'osdisco[testing]'") from None
    if find_binary(kind) is not None:
        return EtcdProcess() if kind == "etcd" else ConsulProcess()
    if problem := docker_problem(kind.upper()):
        raise ConfigError(f"--start: there is no {kind} on PATH; {problem}")
    from osdisco.testing.containers import ConsulContainer, EtcdContainer

    return EtcdContainer() if kind == "etcd" else ConsulContainer()


async def _play(text: str, outage: Outage | None, settings: Settings) -> None:
    url = StoreURL.parse(text)
    if url.scheme == "memory" and not url.hosts:
        url = evolve(url, hosts=(Host("demo"),))  # a name, so that all extensions mean the same store
    async with osdisco.connect(url, name="demo") as client:
        scope = f"demo-{client.runtime.unique()[:8]}"
        asked, granted = await _shortest_ttl(client)
    async with osdisco.connect(in_scope(url, scope, granted), name="demo") as client:
        facts = Facts(client.runtime.clock.now())
        facts.ttl, facts.ttl_late = granted, granted * client.limits.expiry_factor
        show = _show(facts, as_json=settings.json)
        local = url.scheme == "memory"
        if local:
            outage = SwitchedOff(client.backend.store)  # type: ignore[attr-defined]
        show.opening(str(url), "each in a thread of this process" if local else "each a process of its own", asked)
        director = Director(client, show, facts, outage)
        await _within_limit(director, _starter(director, client.url, text, scope, granted, local=local), facts)
        show.summary(facts.summary())


async def _shortest_ttl(client: Client) -> tuple[float, float]:
    """Return what is asked for (the URL's ttl, else the shortest there is) and what the store grants."""
    assert client.url is not None
    given = "ttl" in client.url.options
    asked = client.options.ttl if given else client.limits.ttl_min
    async with client.session(ttl=asked, strict=False) as session:
        return asked, session.ttl


def _show(facts: Facts, *, as_json: bool) -> Documents | Timeline:
    if as_json:
        return Documents(facts)
    from osdisco.cli.demo._timeline import Timeline

    return Timeline(facts)


def _starter(
    director: Director, url: StoreURL | None, text: str, scope: str, ttl: float, *, local: bool
) -> Callable[[str], Coroutine[Any, Any, Actor]]:
    async def start(id_: str) -> Actor:
        if local:
            assert url is not None
            return ThreadActor(id_, director.events, url)
        return await ProcessActor.start(id_, director.events, text, scope, ttl)

    return start


async def _within_limit(director: Director, start: Callable[[str], Any], facts: Facts) -> None:
    limit = LIMIT + 4 * facts.ttl_late
    try:
        async with asyncio.timeout(limit) as timer:
            await director.play(start)
    except TimeoutError:
        if not timer.expired():
            raise
        raise FailedError(
            f"gave up after {limit:.0f} s, waiting for {director.waits_for}; 'osdisco doctor' looks at the store"
        ) from None
