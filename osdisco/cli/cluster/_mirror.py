"""`osdisco cluster mirror`: who mirrors the cluster; with a source, one that does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, TypeVar

import click

from osdisco.cli._arguments import Duration
from osdisco.cli._errors import NotFoundError
from osdisco.cli._output import document, line, note, table
from osdisco.cli._running import Interrupts, run_with_client
from osdisco.cli._settings import Command, Settings
from osdisco.cli._stdout import while_read
from osdisco.cli._text import rough
from osdisco.cli.cluster._documents import Document, mirror_document
from osdisco.cli.cluster._following import stand
from osdisco.cli.cluster._reading import LIMIT, age, doubt, name_option, published
from osdisco.client import Client
from osdisco.cluster import ClusterStateService, OpenSearchHttpSource
from osdisco.cluster._places import Places
from osdisco.errors import TimedOutError

F = TypeVar("F", bound=Callable[..., Any])

_OF_THE_SOURCE: Final = ("username", "password_file", "token_file", "tls_ca", "tls_cert", "tls_key")

_SOURCE: Final = (
    click.option("--source", metavar="URL[,URL…]", help="Nodes of the search cluster: be a candidate for its mirror."),
    click.option("--username", metavar="NAME", help="Goes with --password-file."),
    click.option("--password-file", metavar="FILE", help="Holds the password; read again when it changes, as all are."),
    click.option("--token-file", metavar="FILE", help="Holds a bearer token."),
    click.option("--tls-ca", metavar="FILE", help="Authorities that are trusted instead of the machine's."),
    click.option("--tls-cert", metavar="FILE", help="The certificate that is shown; goes with --tls-key."),
    click.option("--tls-key", metavar="FILE", help="Its key."),
    click.option("--tls-no-verify", is_flag=True, help="Believe every server; logged."),
    click.option("--plaintext-credentials", is_flag=True, help="Send them over plain http to another machine, too."),
    click.option("--poll", type=Duration(), metavar="1s", help="Between two questions to the cluster."),
)


def _source_options(function: F) -> F:
    for option in reversed(_SOURCE):
        function = option(function)
    return function


@click.command(cls=Command)
@name_option
@_source_options
@click.pass_obj
def mirror(settings: Settings, /, name: str, source: str | None, poll: float | None, **given: Any) -> None:
    """Show who mirrors the cluster, since when, how old that is and how large.

    With --source: be a candidate for the mirror in the foreground, until interrupted. One of all candidates is elected
    and asks the cluster for everybody; another takes over when it ends, or cannot reach the cluster. Credentials come
    from files, or from OSDISCO_OPENSEARCH_USERNAME and …_PASSWORD, or …_TOKEN.
    """
    if source is None:
        if unused := [option for option, value in given.items() if value] + (["poll"] if poll else []):
            raise click.UsageError(f"--{unused[0].replace('_', '-')} is for a candidate: give --source, too")
        run_with_client(settings, lambda client, _: _show(client, name, settings))
        return
    asked = {option: given[option] for option in _OF_THE_SOURCE}

    async def work(client: Client, _: Interrupts) -> None:
        made = OpenSearchHttpSource(
            source,
            tls_verify=not given["tls_no_verify"],
            plaintext_credentials=given["plaintext_credentials"],
            runtime=client.runtime,
            **asked,
        )
        async with made:
            await published(client, name)  # says when the store cannot be reached
            note(f"a candidate for the mirror of {source} in {client.url}; Ctrl-C ends")
            await while_read(stand(client, name, made, poll or 1.0, document if settings.json else _line))

    run_with_client(settings, work)


def _line(told: Document) -> None:
    event, error = told["event"], told.get("error")
    text = {
        "standing": "stands for the mirror",
        "leading": f"mirrors the cluster, token {told.get('token')}",
        "away": f"cannot mirror the cluster for now: {error}",
        "resting": f"lets another one try: {error}" if error else "lets another one try",
        "stopped": "stopped",
        "published": f"published version {told.get('version')} of {told.get('cluster_name')}, {told.get('size')} bytes",
    }[event]
    line(f"{datetime.fromtimestamp(told['time']).astimezone():%H:%M:%S}  {text}")


async def _show(client: Client, name: str, settings: Settings) -> None:
    """Show what is known. Raises NotFoundError where there neither is a mirror nor ever was one."""
    there = await published(client, name)
    async with ClusterStateService(client, cluster=name) as service:
        await service._lead.follower.wait_known()
        if there:
            with suppress(TimedOutError):  # the reason is shown
                await service.wait_for(lambda state: True, LIMIT)
        elif service.mirror.name is None:
            raise NotFoundError(f"nobody mirrors the cluster {name!a}, nor did anybody; --source URL does")
        waiting = await _waiting(client, name)
        if settings.json:
            about = {"cluster": name} | mirror_document(service.mirror) | {"candidates": waiting}
            document(about | {"age": age(service), "stale": doubt(service)})
        else:
            table(("", name), _rows(service, waiting, client.runtime.clock.wall()), styles={"up to date": "green"})


async def _waiting(client: Client, name: str) -> list[str]:
    """Return who would mirror next, in this order."""
    board = Places(client._keys, name).board
    found = (await client._connection.scan(board.queue)).items
    candidates = map(board.candidacy, board.in_order(found))
    return [one.id for one in candidates if one is not None]


def _rows(service: ClusterStateService, waiting: Sequence[str], wall: float) -> Iterator[Sequence[str]]:
    status, reason, known_for = service.mirror, doubt(service), age(service)
    since = "" if status.since is None else f", for {rough(wall - status.since)}"
    token = "" if status.token is None else f", token {status.token}"
    yield "mirror", "nobody" if status.name is None else f"{status.name}{since}{token}"
    yield "next", ", ".join(waiting) or "nobody"
    if (header := status.header) is not None:
        yield "shows", f"{header.cluster_name} ({header.cluster_uuid})"
        yield "version", f"{header.version}, in term {header.term}; read {rough(wall - header.observed_at)} ago"
    yield "state", "up to date" if reason is None else f"not up to date: {reason}"
    if reason is not None and known_for is not None:
        yield "age", rough(known_for)
    if status.nodes is not None:
        yield "roles", f"not known: {status.nodes}"
    for component, size in status.sizes.items():
        yield component, f"{size.blobs} blobs, {_bytes(size.size)} packed, {_bytes(size.raw)} of text"


def _bytes(size: int) -> str:
    """Return a size as people read it."""
    if size < 10_000:
        return f"{size} B"
    return f"{size / 1024:.0f} KiB" if size < 10 * 2**20 else f"{size / 2**20:.0f} MiB"
