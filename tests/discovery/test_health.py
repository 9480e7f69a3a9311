"""Health by its rules: how others see what checks make of an extension. Virtual time, store in memory."""

from __future__ import annotations

import asyncio

import pytest
from extensions import Diary, info, observer
from patients import Patient
from worlds import World, lease_of, until

from osdisco.discovery import (
    CheckState,
    DiscoveryService,
    ExtensionStatus,
    FunctionCheck,
    TtlCheck,
)
from osdisco.errors import ConfigError, DiscoveryError

STARTING, HEALTHY, DEGRADED = ExtensionStatus.STARTING, ExtensionStatus.HEALTHY, ExtensionStatus.DEGRADED
UNHEALTHY, STOPPING = ExtensionStatus.UNHEALTHY, ExtensionStatus.STOPPING


# Published


async def test_checks_drive_what_others_see(world: World) -> None:
    seer = await observer(world.process())
    diary = Diary(seer)
    patient = Patient(world)
    async with DiscoveryService(world.process(), info(), checks=[patient.check(rise=1, fall=1)]) as discovery:
        await discovery.wait_registered(5)
        for patient.well in (True, False, True):
            await patient.after(1)
        await asyncio.sleep(0.1)
        assert discovery.health["patient"].state is CheckState.PASSING
    await asyncio.sleep(0.1)
    assert diary.lines == [
        "+geo starting",
        "geo starting>healthy",
        "geo healthy>unhealthy",
        "geo unhealthy>healthy",
        "geo healthy>stopping",
        "-geo stopping",
    ]


async def test_a_status_costs_a_commit_only_when_it_changes(world: World) -> None:
    client = world.process()
    patient = Patient(world, well=True)
    async with DiscoveryService(client, info(), checks=[patient.check()]) as discovery:
        await discovery.wait_registered(5)
        await patient.after(1)
        client.backend.calls.clear()
        await patient.after(60)
        assert client.backend.calls["commit"] == 0


async def test_the_latest_status_is_what_comes_back_after_an_outage(world: World) -> None:
    """What was true before the outage is never published after it."""
    seer = await observer(world.process())
    client = world.process()
    patient = Patient(world, well=True)
    async with DiscoveryService(client, info(), checks=[patient.check(rise=1, fall=1)]) as discovery:
        await until(lambda: seer.extensions and seer.extensions["geo"].status is HEALTHY)
        client.backend.faults.outage()
        world.store.faults.end_lease(await lease_of(client))
        patient.well = False
        await patient.after(2)
        diary = Diary(seer)
        client.backend.faults.clear()
        await discovery.wait_registered(30)
        await asyncio.sleep(1)
        assert [line for line in diary.lines if line.startswith("+")][-1] == "+geo unhealthy"
        assert "+geo healthy" not in diary.lines[1:]


async def test_the_worse_of_what_is_said_and_what_is_checked_stands(world: World) -> None:
    patient = Patient(world, well=True)
    async with DiscoveryService(world.process(), info(), checks=[patient.check(rise=1, fall=1)]) as discovery:
        await patient.after(1)
        assert discovery.extension.status is HEALTHY
        await discovery.set_status(DEGRADED)
        await patient.after(2)
        assert discovery.extension.status is DEGRADED, "checks that pass do not take back what was said"
        patient.well = False
        await patient.after(1)
        assert discovery.extension.status is UNHEALTHY
        await discovery.set_status(HEALTHY)
        await discovery.update(metadata={"zone": "b"})
        assert discovery.extension.status is UNHEALTHY, "what was said does not hide a check that fails"
        patient.well = True
        await patient.after(1)
        assert discovery.extension.status is HEALTHY, "an update does not make the checks' word one's own"
        assert discovery.extension.metadata == {"zone": "b"}


async def test_with_checks_it_starts_as_starting_whatever_it_says(world: World) -> None:
    patient = Patient(world)
    async with DiscoveryService(world.process(), info(status=HEALTHY), checks=[patient.check()]) as discovery:
        await discovery.wait_registered(5)
        assert discovery.extension.status is STARTING


async def test_stopping_is_final(world: World) -> None:
    seer = await observer(world.process())
    patient = Patient(world, well=True)
    async with DiscoveryService(world.process(), info(), checks=[patient.check(rise=1, fall=1)]) as discovery:
        await patient.after(1)
        await discovery.set_status(STOPPING)
        for patient.well in (False, True):
            await patient.after(2)
        assert discovery.extension.status is STOPPING is seer.extensions["geo"].status
        assert discovery.health["patient"].state is CheckState.PASSING, "it is checked all the same"
        for change in (discovery.set_status(HEALTHY), discovery.update(status=UNHEALTHY)):
            with pytest.raises(DiscoveryError, match="STOPPING, and that is final"):
                await change
        await discovery.update(version="2.0.0")
        assert discovery.extension.status is STOPPING


async def test_checks_end_with_their_service(world: World) -> None:
    patient = Patient(world)
    async with DiscoveryService(world.process(), info(), checks=[patient.check()]):
        await patient.after(2)
    count = len(patient.runs)
    await asyncio.sleep(60)
    assert len(patient.runs) == count


async def test_a_superseded_extension_is_checked_without_harm(world: World) -> None:
    patient = Patient(world, well=True)
    async with DiscoveryService(world.process(), info(port=1), checks=[patient.check(rise=1, fall=1)]) as first:
        await first.wait_registered(5)
        async with DiscoveryService(world.process(), info(port=2)) as second:
            await until(lambda: first.superseded)
            patient.well = False
            await patient.after(2)
            assert first.health.status is UNHEALTHY
            assert second.extensions["geo"].status is STARTING


# Use and misuse


def nothing() -> None:
    pass


async def test_checks_that_do_not_fit_are_refused(world: World) -> None:
    client = world.process()
    for checks, message in [
        ([TtlCheck(1), TtlCheck(2)], "two checks are called 'ttl'; give each a name="),
        (["http://h/"], "a check is a HttpCheck, .*, not 'http://h/'"),
        (TtlCheck(1), "checks are a list"),
    ]:
        with pytest.raises(ConfigError, match=message):
            DiscoveryService(client, info(), checks=checks)
    with pytest.raises(DiscoveryError, match="checks are of the own extension"):
        DiscoveryService(client, checks=[FunctionCheck(nothing)])


async def test_without_checks_health_is_empty(world: World) -> None:
    async with DiscoveryService(world.process(), info()) as discovery:
        assert dict(discovery.health) == {}
        assert repr(discovery.health) == "<Health: no checks>"
