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
from osdisco.cli.demo._stages import Actor, ProcessActor, ThreadActor, in_scope
from osdisco.client import Client
from osdisco.url import Host, StoreURL

if TYPE_CHECKING:
    from osdisco.cli.demo._timeline import Timeline

LIMIT: Final = 30.0
"""Seconds that the demo may take, besides three times that the store needs to end a lease: two, and one to spare."""

MEMORY: Final = "memory://demo"


@click.command(cls=Command)
@click.pass_obj
def demo(settings: Settings) -> None:
    """Watch extensions register, find each other, take turns under a lock, elect a leader, and outlive its crash.

    The next leader is paused, and its write refused when it wakes up. Without --url all in this process, on memory
    (OSDISCO_URL is not used). With --url in processes of their own, on that store, in a namespace that is removed
    again; one of them is killed, one stopped for a while.
    """
    text = settings.url or MEMORY
    url = StoreURL.parse(text)
    if url.scheme == "memory" and not url.hosts:
        url = evolve(url, hosts=(Host("demo"),))  # a name, so that all extensions mean the same store
    run(lambda _: _play(url, text, settings))


async def _play(url: StoreURL, text: str, settings: Settings) -> None:
    async with osdisco.connect(url, name="demo") as client:
        scope = f"demo-{client.runtime.unique()[:8]}"
        asked, granted = await _shortest_ttl(client)
    async with osdisco.connect(in_scope(url, scope, granted), name="demo") as client:
        facts = Facts(client.runtime.clock.now())
        facts.ttl, facts.ttl_late = granted, granted * client.limits.expiry_factor
        show = _show(facts, as_json=settings.json)
        local = url.scheme == "memory"
        show.opening(str(url), "each in a thread of this process" if local else "each a process of its own", asked)
        director = Director(client, show, facts)
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
    limit = LIMIT + 3 * facts.ttl_late
    try:
        async with asyncio.timeout(limit) as timer:
            await director.play(start)
    except TimeoutError:
        if not timer.expired():
            raise
        raise FailedError(
            f"gave up after {limit:.0f} s, waiting for {director.waits_for}; 'osdisco doctor' looks at the store"
        ) from None
