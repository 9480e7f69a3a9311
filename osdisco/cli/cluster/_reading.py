"""Reading the mirror for one command: what is there, how true it is, and what it means that there is nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from math import isfinite
from typing import Any, Final, TypeVar

import click

from osdisco.cli._arguments import timeout_option
from osdisco.cli._errors import FailedError, NotFoundError
from osdisco.cli._output import warn
from osdisco.cli._settings import Settings
from osdisco.cli._text import rough
from osdisco.client import Client
from osdisco.cluster import ClusterState, ClusterStateService, StateComponent
from osdisco.cluster._places import Places
from osdisco.errors import TimedOutError

F = TypeVar("F", bound=Callable[..., Any])

LIMIT: Final = 5.0
"""Seconds in which a state that is in the store is read, unless --timeout says otherwise."""

EVERYTHING: Final = tuple(StateComponent)
NOBODY: Final = "nobody mirrors the cluster"


def name_option(function: F) -> F:
    """Add `--cluster`: which mirror is meant."""
    return click.option(
        "--cluster", "name", default="default", metavar="NAME", help="The mirror's name, where there are several."
    )(function)


def reading_options(function: F) -> F:
    """Add the options that `read` takes."""
    return name_option(timeout_option("for a first state")(function))


@asynccontextmanager
async def read(
    client: Client, name: str, timeout: float | None, components: Iterable[StateComponent], *, raw: bool = False
) -> AsyncIterator[ClusterStateService]:
    """Enter a service that shows these components, and knows who mirrors.

    Raises:
        NotFoundError: no mirror has ever shown a state, nor did one in the time that was given.
        FailedError: there is a state, and it cannot be shown.
        UnavailableError: the store could not be asked.
    """
    there = await published(client, name)
    if not there and timeout is None:
        raise _nothing(name)
    async with ClusterStateService(client, cluster=name, raw=raw) as service:
        try:
            await service.subscribe(components, LIMIT if timeout is None else timeout)
        except TimedOutError as exc:
            if not there and not await published(client, name):
                raise _nothing(name) from exc
            raise FailedError(str(exc)) from exc
        await service._lead.follower.wait_known()
        yield service


async def published(client: Client, name: str) -> bool:
    """Ask the store whether a mirror has shown anything. Raises UnavailableError."""
    return await client._connection.get(Places(client._keys, name).head) is not None


def _nothing(name: str) -> NotFoundError:
    called = "" if name == "default" else f" --cluster {name}"
    return NotFoundError(
        f"no mirror has shown the state of the cluster {name!a}; "
        f"'osdisco cluster mirror{called} --source URL' is one, until it is interrupted"
    )


def doubt(service: ClusterStateService) -> str | None:
    """Return why what is shown may be old; None when it is not.

    A service waits a while before it says that nobody mirrors: another one may be about to. Who looks once cannot.
    """
    return service.stale_reason or (None if service.mirror.name is not None else NOBODY)


def warn_of_doubt(settings: Settings, service: ClusterStateService, state: ClusterState) -> None:
    """Tell a person why what is shown may be old. A program has it in each document."""
    if (reason := doubt(service)) is not None and not settings.json:
        warn(f"not up to date: {reason}; read from the cluster {read_ago(service, state)}")


def read_ago(service: ClusterStateService, state: ClusterState) -> str:
    """Return when a state was read, by the clocks of the mirror and of this machine."""
    return f"{rough(service._client.runtime.clock.wall() - state.observed_at)} ago"


def age(service: ClusterStateService) -> float | None:
    """Return the seconds since what is shown was known to be true; None when that was before anybody looked."""
    unseen = service.stale_reason is None and service.mirror.name is None
    return service.age if isfinite(service.age) and not unseen else None
