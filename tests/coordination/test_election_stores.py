"""The same election on every store: few tests, for what only a real server can get wrong."""

from __future__ import annotations

import asyncio

import pytest
from elections import election_of, standing
from worlds import connect, process_of

from osdisco.backend import ABSENT, Lease, Put
from osdisco.client import Client
from osdisco.errors import LostError

ALL = pytest.mark.osdisco("memory", "etcd", "etcd+http", "consul")
REAL = pytest.mark.osdisco("etcd", "etcd+http", "consul")


@ALL
async def test_five_clients_lead_in_turn_and_tokens_rise(osdisco_url: str) -> None:
    led: list[int] = []

    async def work(client: Client, number: int) -> None:
        election = election_of(client, candidate_id=f"c{number}", priority=number % 2)
        for _ in range(3):
            async with election.campaign(60) as term:
                before = await client.get("counter")
                count = int(before.value) + 1 if before else 1
                await term.commit([Put("counter", b"%d" % count)], {"counter": before.unchanged if before else ABSENT})
                led.append(term.token)

    clients = [connect(osdisco_url) for _ in range(5)]
    await asyncio.gather(*(work(client, number) for number, client in enumerate(clients)))
    counter = await clients[0].get("counter")
    left = (await clients[0].scan("election/")).items
    for client in clients:
        await client.aclose()
    assert led == sorted(set(led))
    assert (len(led), counter and counter.value, left) == (15, b"15", {})


@ALL
async def test_a_leader_proclaims_and_hands_over_and_observers_see_it(osdisco_url: str) -> None:
    async with (
        connect(osdisco_url) as client,
        connect(osdisco_url) as other,
        asyncio.timeout(30),
        election_of(other).observe() as leaders,
    ):
        assert await anext(leaders) is None
        async with election_of(client, candidate_id="first", info={"n": 0}).campaign() as term:
            seen = await anext(leaders)
            assert (seen.candidate_id, seen.info, seen.token) == ("first", {"n": 0}, term.token)
            await term.proclaim({"n": 1})
            assert (await anext(leaders)).info == {"n": 1}
            assert await election_of(other).leader() == await election_of(client).leader()
            better, heir = standing(other, "better", priority=9), standing(client, "heir")
            await _queued(client, 2)
            await term.transfer("heir")
        next_term = await heir
        assert not better.done()
        while (seen := await anext(leaders)) is None:
            pass
        assert (seen.candidate_id, seen.token) == ("heir", next_term.token)
        assert next_term.token > term.token
        await next_term.resign()
        await (await better).resign()
        assert (await client.scan("election/")).items == {}


@ALL
async def test_a_revoked_leader_is_told_and_the_next_one_leads(osdisco_url: str) -> None:
    async with connect(osdisco_url) as client, connect(osdisco_url) as other, asyncio.timeout(30):
        election = election_of(client)
        term = await election.campaign()
        waiting = standing(other, "next")
        await _queued(other, 1)
        session = await client.shared_session()
        await other.backend.revoke(Lease(session.id, session.ttl), timeout=5)
        next_term = await asyncio.wait_for(waiting, 3)
        await asyncio.wait_for(term.lost.wait(), 3)
        assert next_term.token > term.token
        assert not election.is_leader
        with pytest.raises(LostError):
            await term.commit([Put("written", b"")])
        await next_term.commit([Put("written", b"")])
        await next_term.resign()


@ALL
async def test_an_operator_may_take_the_leadership_or_a_place_away(osdisco_url: str) -> None:
    async with connect(osdisco_url) as client, connect(osdisco_url) as other, asyncio.timeout(30):
        term = await election_of(client).campaign()
        waiting = standing(other, "next")
        (entry,) = await _queued(other, 1)
        await client.delete(entry)
        while entry in await _queued(other, 1):
            await asyncio.sleep(0.02)
        await other.delete("election/e/leader")
        assert (await asyncio.wait_for(waiting, 5)).token > term.token
        await asyncio.wait_for(term.lost.wait(), 5)
        await waiting.result().resign()


@ALL
async def test_who_gives_up_leaves_nothing(osdisco_url: str) -> None:
    async with connect(osdisco_url) as client, connect(osdisco_url) as other, asyncio.timeout(30):
        async with election_of(client).campaign():
            with pytest.raises(TimeoutError):
                await election_of(other).campaign(0.5)
            cancelled = standing(other, "cancelled")
            await _queued(other, 1)
            cancelled.cancel()
            await asyncio.wait([cancelled])
            await _queued(other, 0)
        task = asyncio.ensure_future(election_of(other).participate())
        while await election_of(client).leader() is None:
            await asyncio.sleep(0.02)
        task.cancel()  # perhaps before it knows itself that it leads: what it made is then undone in the background
        await asyncio.wait([task])
        while (await client.scan("election/")).items:
            await asyncio.sleep(0.02)


async def _queued(client: Client, count: int) -> list[str]:
    """Return the entries once there are so many of them."""
    async with asyncio.timeout(10):
        while len(entries := list((await client.scan("election/e/q/")).items)) != count:
            await asyncio.sleep(0.02)
    return entries


LEAD = """
import asyncio, sys, osdisco
from osdisco.coordination import CoordinationService

async def main():
    async with osdisco.connect(sys.argv[1], name="victim") as client:
        async with CoordinationService(client).election("e").campaign() as term:
            await term.proclaim({"alive": True})
            print(term.token, flush=True)
            await asyncio.sleep(3600)

asyncio.run(main())
"""


@REAL
async def test_a_killed_leader_is_followed_after_its_ttl(osdisco_url: str) -> None:
    ttl = 3
    async with connect(osdisco_url) as client:
        url = f"{osdisco_url}{'&' if '?' in osdisco_url else '?'}ttl={ttl}s"
        async with process_of(LEAD, url) as victim:
            leader = await election_of(client).leader()
            assert (leader.candidate_id, leader.info) == ("victim", {"alive": True})
            waiting = standing(client, "next")
            await asyncio.sleep(1.5)
            assert not waiting.done()
            killed = client.runtime.clock.now()
            victim.kill()
            term = await asyncio.wait_for(waiting, ttl * client.limits.expiry_factor + 3)
            assert client.runtime.clock.now() - killed > ttl / 2
            assert term.token > leader.token
            await term.resign()
            assert (await client.scan("election/")).items == {}
