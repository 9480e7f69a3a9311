"""`osdisco demo`: the main job, done before one's eyes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import click
from attrs import evolve

import osdisco
from osdisco.cli._errors import FailedError
from osdisco.cli._output import warn
from osdisco.cli._running import run
from osdisco.cli._settings import Command, Settings
from osdisco.cli.demo._director import Director
from osdisco.cli.demo._documents import Documents
from osdisco.cli.demo._facts import Facts
from osdisco.cli.demo._lives import life_of
from osdisco.cli.demo._outage import ByCommands, Killed, Outage, SwitchedOff
from osdisco.cli.demo._stages import Actor, ProcessActor, Stage, ThreadActor, in_scope
from osdisco.client import Client
from osdisco.errors import ConfigError
from osdisco.url import Host, StoreURL

if TYPE_CHECKING:
    from osdisco.cli.demo._cluster_director import ClusterDirector
    from osdisco.cli.demo._timeline import Timeline

LIMIT: Final = 25.0
"""Seconds that each thing may take that the demo waits for, besides five times that the store needs to end a lease.

Not all of it together: on a busy machine a story goes on, and takes its time.
"""

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
@click.option("--cluster", is_flag=True, help="Another one: how a search cluster's state reaches its readers.")
@click.pass_obj
def demo(settings: Settings, own: str | None, outage: tuple[str, str] | None, cluster: bool) -> None:
    """Watch extensions register, find each other, take turns under a lock, elect a leader, and outlive its crash.

    One falls ill and recovers. The store is stopped for a while, and all return. The next leader is paused, and its
    write refused when it wakes up. Without --url all in this process, on memory (OSDISCO_URL is not used). With --url
    in processes of their own, on that store, in a namespace that is removed again; one of them is killed, one stopped
    for a while; the store is stopped only by --outage. With --start the same on a server that is its own.

    In the end extensions call each other: one that serves is killed, and a new version that is slow is taken back by
    itself; no call fails.

    With --cluster, on the same stores: a search cluster on paper, two candidates for its mirror, and three readers. A
    node joins, a shard moves, the mirror is killed and replaced, and no reader is harmed.
    """
    if cluster and outage:
        raise click.UsageError("--outage is for the demo of extensions, not for that of --cluster")
    if settings.url and own:
        raise click.UsageError("--start and --url exclude each other")
    if outage and not settings.url:
        raise click.UsageError("--outage is for the store of --url; others are stopped anyway")
    if outage and settings.url and settings.url.startswith("memory:"):
        raise click.UsageError("--outage: a store in memory is stopped anyway")
    by_commands = ByCommands(*outage) if outage else None
    if cluster:
        _check_aiohttp()
    if own is None:
        _run(settings, settings.url or MEMORY, by_commands, cluster=cluster)
        return
    with _server(own) as server:
        _run(settings, f"{server.url}?ttl=3s", Killed(server), cluster=cluster)


def _run(settings: Settings, url: str, outage: Outage | None, *, cluster: bool) -> None:
    run(lambda _: _play_cluster(url, settings) if cluster else _play(url, outage, settings))


def _check_aiohttp() -> None:
    """Raise ConfigError when what serves a cluster, and asks it, is not there."""
    if find_spec("aiohttp") is None:
        raise ConfigError("demo --cluster needs aiohttp: pip install 'osdisco[cli,opensearch]'")


def _can_call() -> bool:
    """Whether there is what a mesh needs. Says on stderr what is missing."""
    missing = [name for name in ("aiohttp", "tenacity") if find_spec(name) is None]
    if missing:
        are = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
        warn(f"calls between extensions are left out: {are}; pip install 'osdisco[cli,mesh]'")
    return not missing


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
    async with _stage(text) as stage:
        facts = stage.facts()
        show = _show(facts, as_json=settings.json)
        if stage.local:
            outage = SwitchedOff(stage.client.backend.store)  # type: ignore[attr-defined]
        how = "each in a thread of this process" if stage.local else "each a process of its own"
        show.opening(str(stage.url), how, stage.asked)
        director = Director(stage.client, show, facts, outage, calls=_can_call())
        await _within_limit(director, _starter(director, stage), facts)
        show.summary(facts.summary())


async def _play_cluster(text: str, settings: Settings) -> None:
    from osdisco.cli.demo._cluster import ClusterDirector, fake_cluster, show_for, starter

    async with _stage(text) as stage, fake_cluster() as cluster:
        facts = stage.facts()
        show = show_for(facts, as_json=settings.json)
        how = "each in a thread of this process" if stage.local else "each a command in a process of its own"
        show.opening(str(stage.url), how, stage.asked)
        director = ClusterDirector(stage.client, show, facts, cluster)
        await _within_limit(director, starter(director, stage, cluster), facts)
        show.summary({"ttl": facts.ttl} | director.figures)


@asynccontextmanager
async def _stage(text: str) -> AsyncIterator[Stage]:
    """Enter a namespace of the demo's own, on the store of a URL."""
    url = StoreURL.parse(text)
    if url.scheme == "memory" and not url.hosts:
        url = evolve(url, hosts=(Host("demo"),))  # a name, so that all mean the same store
    async with osdisco.connect(url, name="demo") as client:
        scope = f"demo-{client.runtime.unique()[:8]}"
        asked, granted = await _shortest_ttl(client)
    async with osdisco.connect(in_scope(url, scope, granted), name="demo") as client:
        yield Stage(client, url, text, scope, asked, granted)


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


def _starter(director: Director, stage: Stage) -> Callable[[str], Coroutine[Any, Any, Actor]]:
    async def start(id_: str) -> Actor:
        if stage.local:
            return ThreadActor(id_, director.events, partial(life_of(id_), stage.scoped, id_))
        args = ("demo-extension", id_, f"--scope={stage.scope}", f"--ttl={stage.ttl}")
        return await ProcessActor.start(id_, director.events, args, stage.text)

    return start


async def _within_limit(director: Director | ClusterDirector, start: Callable[[str], Any], facts: Facts) -> None:
    limit = LIMIT + 5 * facts.ttl_late
    try:
        async with asyncio.timeout(limit) as timer:
            director.on_wait = lambda: timer.reschedule(asyncio.get_running_loop().time() + limit)
            await director.play(start)
    except TimeoutError:
        if not timer.expired():
            raise
        raise FailedError(
            f"gave up after {limit:.0f} s, waiting for {director.waits_for}; 'osdisco doctor' looks at the store"
        ) from None
