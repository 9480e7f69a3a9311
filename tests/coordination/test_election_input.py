"""Elections: what cannot be used, and what others wrote."""

from __future__ import annotations

import asyncio

import pytest
from elections import campaign, elected, election_of, standing
from worlds import NAMESPACE, World

from osdisco.backend import Delete, Put
from osdisco.coordination import LeaderElection, LeadershipListener
from osdisco.errors import (
    ClosedError,
    ConfigError,
    InvalidNameError,
    LostError,
    RecordError,
)
from osdisco.testing import run


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"candidate_id": ""}, InvalidNameError),
        ({"candidate_id": "x" * 300}, InvalidNameError),
        ({"candidate_id": "\ud800"}, InvalidNameError),
        ({"candidate_id": 7}, InvalidNameError),
        ({"priority": "high"}, ConfigError),
        ({"priority": 1.0}, ConfigError),
        ({"priority": True}, ConfigError),
        ({"priority": None}, ConfigError),
        ({"info": {"a": object()}}, RecordError),
        ({"info": {"a": float("nan")}}, RecordError),
        ({"info": {"a": "\ud800"}}, RecordError),
        ({"info": {"a": "x" * 65_536}}, RecordError),
        ({"info": {"a": "x" * 65_440}}, RecordError),
        ({"info": {1: "a", "1": "b"}}, RecordError),
        ({"info": ["a"]}, RecordError),
        ({"info": "text"}, RecordError),
    ],
)
def test_bad_options_are_refused_at_once(options: dict[str, object], error: type[Exception]) -> None:
    async def main() -> None:
        world = World()
        with pytest.raises(error):
            election_of(world.process(), **options)
        await world.aclose()

    run(main())


@pytest.mark.parametrize("name", ["", "x" * 300, "\ud800", "ä" * 120, 7])
async def test_bad_names_are_refused_at_once(world: World, name: str) -> None:
    with pytest.raises(InvalidNameError):
        election_of(world.process(), name)


@pytest.mark.parametrize("info", [{"a": object()}, {"a": "x" * 65_536}, ["a"], "text", None])
async def test_a_bad_proclamation_is_refused_and_the_term_goes_on(world: World, info: object) -> None:
    async with election_of(world.process()).campaign() as term:
        with pytest.raises(RecordError):
            await term.proclaim(info)
        term.check()


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "soon", True, []])
async def test_a_timeout_that_never_waits_is_refused(world: World, timeout: object) -> None:
    with pytest.raises(ConfigError):
        election_of(world.process()).campaign(timeout)


@pytest.mark.parametrize("listener", [None, 7, "text", object()])
async def test_what_cannot_listen_is_refused(world: World, listener: object) -> None:
    with pytest.raises(ConfigError):
        election_of(world.process()).add_listener(listener)


async def test_a_closed_client_stands_in_no_election(world: World) -> None:
    client = world.process()
    election = election_of(client)
    term = await election.campaign()
    await client.aclose()
    assert not election.is_leader
    for use in (lambda: campaign(election), election.participate, election.leader):
        with pytest.raises(ClosedError):
            await use()
    with pytest.raises(LostError):
        await term.commit([Put("a", b"")])
    with pytest.raises(ClosedError):
        async with election.observe():
            pass


async def test_what_others_wrote_among_the_keys_stops_nobody(world: World, caplog: pytest.LogCaptureFixture) -> None:
    client, other = world.process(), world.process()
    foreign = {
        "q/foreign": b"text",
        "q/bare": b'{"id":"bare","priority":99}',
        "q/a/b": b"{}",
        "heir": b"\xff",
    }
    for key, value in foreign.items():
        world.store.commit([Put(f"{NAMESPACE}/election/e/{key}", value)], {})
    async with election_of(client).campaign(1):
        task = standing(other, "other")
        await asyncio.sleep(1)
    await (await elected(task)).resign()
    for key in foreign:
        world.store.commit([Delete(f"{NAMESPACE}/election/e/{key}")], {})


async def test_a_leader_key_of_another_tool_is_respected_and_shown(world: World) -> None:
    client = world.process()
    leader = f"{NAMESPACE}/election/e/leader"
    world.store.commit([Put(leader, b"not ours")], {})
    task = standing(client, "me")
    await asyncio.sleep(20)
    assert not task.done()
    shown = await election_of(client).leader()
    assert (shown.candidate_id, shown.info) == ("", {})
    world.store.commit([Delete(leader)], {})
    await (await elected(task)).resign()


def test_the_names_of_the_specification_are_there() -> None:
    assert isinstance(LeaderElection.is_leader, property)
    assert {"participate", "campaign", "resign", "leader", "observe", "add_listener"} <= set(dir(LeaderElection))
    assert {"on_leadership_acquired", "on_leadership_lost"} <= set(dir(LeadershipListener))
