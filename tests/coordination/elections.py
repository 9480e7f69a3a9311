"""What tests of elections share."""

from __future__ import annotations

import asyncio
from typing import Any

from worlds import World

from osdisco.client import Client
from osdisco.coordination import CoordinationService, LeaderElection, Term
from osdisco.session import Session


def election_of(client: Client, name: str = "e", session: Session | None = None, **options: Any) -> LeaderElection:
    return CoordinationService(client, session=session).election(name, **options)


def standing(
    client: Client, candidate_id: str = "", session: Session | None = None, **options: Any
) -> asyncio.Task[Term]:
    """Begin to campaign in a task."""
    election = election_of(client, session=session, candidate_id=candidate_id or None, **options)
    return asyncio.ensure_future(campaign(election))


async def campaign(election: LeaderElection, timeout: float | None = None) -> Term:
    return await election.campaign(timeout)


async def queued(world: World, count: int) -> None:
    """Return once so many candidates wait."""
    while len(world.keys("election/e/q/")) != count:
        await asyncio.sleep(0.05)


async def elected(*campaigns: asyncio.Task[Term], within: float = 1.0) -> Term:
    """Return the term of the only one of them that is elected in time."""
    await asyncio.wait(campaigns, timeout=within, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(0.2)
    (only,) = [one for one in campaigns if one.done()]
    return only.result()


async def lead(election: LeaderElection, body: list[str] | None = None) -> None:
    async with election.campaign(5) as term:
        await term.proclaim({"a": 1})
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            if body is not None:
                body.append("cancelled")
            raise


class Told:
    """A listener that keeps what it was told."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_leadership_acquired(self) -> None:
        self.heard.append("acquired")

    def on_leadership_lost(self) -> None:
        self.heard.append("lost")
