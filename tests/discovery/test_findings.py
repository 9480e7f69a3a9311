"""What probers find, as all see it, beside the extension's own record, and only when it changes."""

from __future__ import annotations

import asyncio

import pytest
from extensions import info, observer, registered
from probers import FAILING, PASSING, REFUSED, Net, extensions, prober, probing, states
from worlds import World, lease_of, until

from osdisco.backend import Delete, Put
from osdisco.discovery import (
    DiscoveryService,
    ExtensionStatus,
    Finding,
    Findings,
    _http,
    _lookups,
)
from osdisco.discovery._target import RefusedError
from osdisco.discovery.probing import target_of
from osdisco.errors import ClosedError, ConfigError, TimedOutError

# What is found


async def test_all_see_what_is_found_and_the_record_stays_as_it_is(world: World, net: Net) -> None:
    seer = await extensions(world, 2)
    await prober(world, "one"), await prober(world, "two")
    await asyncio.sleep(15)
    findings = await seer.findings()
    assert set(findings) == {"x1", "x2"}
    assert findings.probers == ("one", "two")
    assert [finding.prober for finding in findings["x1"]] == ["one", "two"]
    first = findings["x1"][0]
    assert (first.extension_id, first.url, first.reason) == ("x1", "http://10.0.0.1:9700/health", "passed")
    net.ill.add("10.0.0.1")
    await asyncio.sleep(45)
    assert await states(seer, "x1") == [FAILING, FAILING]
    assert await states(seer, "x2") == [PASSING, PASSING]
    assert (findings.failing("x1"), findings.failing("x2"), findings.failing("unknown")) == (True, False, False)
    assert findings["x1"][0].reason == "HTTP 503"
    assert findings["x1"][0].since > first.since
    assert seer.extensions["x1"].status is ExtensionStatus.STARTING
    assert [one.status for one in await seer.discover_extensions()] == [ExtensionStatus.STARTING] * 2
    net.ill.clear()
    await asyncio.sleep(30)
    assert await states(seer, "x1") == [PASSING, PASSING]


async def test_rise_and_fall_hold_for_probes_too(world: World, net: Net) -> None:
    seer = await extensions(world, 1)
    await prober(world, interval=1, jitter=0, rise=2, fall=3)
    await asyncio.sleep(5)
    begun = world.clock.now()
    for ill, state, least in ((True, FAILING, 2), (False, PASSING, 1)):
        net.ill = {"10.0.0.1"} if ill else set()
        begun = world.clock.now()
        while await states(seer, "x1") != [state]:
            await asyncio.sleep(0.05)
        assert least <= world.clock.now() - begun <= least + 1.2


async def test_at_first_it_takes_several_failures_too(world: World, net: Net) -> None:
    seer = await extensions(world, 1)
    net.ill.add("10.0.0.1")
    await prober(world, interval=1, jitter=0, fall=3)
    await until(lambda: len(net.asked["10.0.0.1"]) == 2)
    await asyncio.sleep(0.5)
    assert await states(seer, "x1") == []
    await asyncio.sleep(1)
    assert await states(seer, "x1") == [FAILING]
    assert len(net.asked["10.0.0.1"]) == 3


async def test_only_changes_are_published(world: World, net: Net) -> None:
    await extensions(world, 10)
    client = world.process()
    await DiscoveryService(client, probing=probing()).start()
    await asyncio.sleep(20)
    client.backend.calls.clear()
    await asyncio.sleep(300)
    assert client.backend.calls["commit"] == 0
    net.ill.add("10.0.0.1")
    await asyncio.sleep(60)
    assert client.backend.calls["commit"] == 1


async def test_what_may_not_be_asked_is_told_and_is_no_failure(world: World, net: Net) -> None:
    seer = await extensions(world, 1)
    await registered(world.process(), "evil", host="169.254.169.254")
    await registered(world.process(), "named", host="evil.example")
    await registered(world.process(), "mail", host="10.0.0.1", port=25)
    net.refused.add("evil.example")
    await prober(world)
    await asyncio.sleep(40)
    findings = await seer.findings()
    assert {id_: [one.state for one in found] for id_, found in findings.items()} == {
        "x1": [PASSING],
        "evil": [REFUSED],
        "named": [REFUSED],
        "mail": [REFUSED],
    }
    assert findings["evil"][0].reason == "169.254.169.254 is link-local, where clouds keep their metadata"
    assert not findings.failing("evil")
    assert set(net.asked) == {"10.0.0.1", "evil.example"}


async def test_findings_come_back_after_the_loss_of_the_lease_and_go_with_their_prober(world: World, net: Net) -> None:
    seer = await extensions(world, 3)
    client = world.process()
    service = await DiscoveryService(client, probing=probing()).start()
    await asyncio.sleep(15)
    assert len(world.keys("probe/")) == 4
    world.store.faults.end_lease(await lease_of(client))
    await asyncio.sleep(0)
    assert world.keys("probe/") == []
    await asyncio.sleep(15)
    assert len(world.keys("probe/")) == 4
    assert len(await seer.findings()) == 3
    await service.stop()
    await asyncio.sleep(0.1)
    assert world.keys("probe/") == []
    assert len(await seer.findings()) == 0


async def test_a_finding_and_a_prober_that_an_operator_deletes_come_back(world: World, net: Net) -> None:
    seer = await extensions(world, 1)
    await prober(world)
    await asyncio.sleep(15)
    findings = await seer.findings()
    for prefix, left in (("probe/found/", findings), ("probe/member/", findings.probers)):
        (key,) = world.keys(prefix)
        world.store.commit([Delete(f"ns/{key}")], {})
        await asyncio.sleep(15)
        assert (len(world.keys(prefix)), len(left)) == (1, 1)


async def test_findings_of_an_extension_that_has_gone_go_too(world: World, net: Net) -> None:
    seer = await extensions(world, 1)
    extra = await registered(world.process(), "extra", host="10.0.0.9")
    await prober(world)
    await asyncio.sleep(15)
    assert set(await seer.findings()) == {"x1", "extra"}
    await extra.stop()
    await asyncio.sleep(1)
    assert set(await seer.findings()) == {"x1"}


async def test_hostile_ids_are_only_text(world: World, net: Net) -> None:
    client = world.process()
    ids = ["..", "a/b", "é", "member", "found/x", "%2F"]
    for id_ in ids:
        await registered(client, id_, host="10.0.0.1")
    await prober(world)
    seer = await observer(world.process())
    await asyncio.sleep(15)
    assert sorted(await seer.findings()) == sorted(ids)


BAD_RECORDS = {
    "probe/found/x1/p.1": b"{",
    "probe/found/x1/p.2": b'{"extension_id":"x2","prober":"p","url":"","state":"passing","reason":"","since":1}',
    "probe/found/x1/p.3": b'{"extension_id":"x1","prober":"p","url":"","state":"fine","reason":"","since":1}',
    "probe/found/x1/p.4": b'{"extension_id":"x1","prober":"p","url":"","state":"passing","reason":"","since":"1"}',
    "probe/found/p.5": b'{"extension_id":"","prober":"p","url":"","state":"passing","reason":"","since":1}',
    "probe/member/p.6": b'{"id":7}',
    "probe/other/p.7": b"{}",
    "probe/p.8": b"{}",
}


async def test_bad_records_of_others_are_skipped_and_told(world: World, net: Net) -> None:
    seer = await extensions(world, 1)
    world.store.commit([Put(f"ns/{key}", value) for key, value in BAD_RECORDS.items()], {})
    await prober(world)
    await asyncio.sleep(15)
    findings = await seer.findings()
    assert set(findings) == {"x1"}
    assert set(findings.skipped) == set(BAD_RECORDS)
    assert "state" in findings.skipped["probe/found/x1/p.3"]
    world.store.commit([Delete(f"ns/{key}") for key in BAD_RECORDS], {})
    await asyncio.sleep(0.1)
    assert findings.skipped == {}


async def test_of_one_prober_the_newest_finding_counts(world: World) -> None:
    old = b'{"extension_id":"x1","prober":"p","url":"","state":"passing","reason":"old","since":1,"prober_id":"1"}'
    seer = await observer(world.process())
    for number, value in enumerate((old, old.replace(b"old", b"new"))):
        world.store.commit([Put(f"ns/probe/found/x1/p.{number}", value)], {})
    (finding,) = (await seer.findings())["x1"]
    assert finding == Finding("x1", "p", "", PASSING, "new", 1, "1")
    world.store.commit([Delete(f"ns/probe/found/x1/p.{number}") for number in range(2)], {})


async def test_names_that_dns_never_answers_hold_up_few_threads_and_no_other_probe(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that looks up a name works on when nobody waits for it any more."""
    seer = await extensions(world, 3)
    client = world.process()
    for number in range(10):
        await registered(client, f"slow{number}", host=f"slow{number}.example")
    looking: list[str] = []
    most = 0

    async def thread(host: str) -> None:
        nonlocal most
        looking.append(host)
        most = max(most, len(looking))
        await asyncio.sleep(60)
        looking.remove(host)

    async def resolved(host: str, port: int) -> list[str]:
        await asyncio.shield(asyncio.ensure_future(thread(host)))
        raise OSError("no answer")

    async def status(*_: object) -> int:
        return 200

    monkeypatch.setattr(_lookups, "resolved", resolved)
    monkeypatch.setattr(_http, "_status", status)
    service = await prober(world)
    await asyncio.sleep(90)
    assert most == 2
    findings = await seer.findings()
    assert [findings[f"x{n}"][0].state for n in (1, 2, 3)] == [PASSING] * 3
    assert {findings[f"slow{n}"][0].reason for n in range(10)} <= {"no answer within 2 s", "its last run does not end"}
    await service.stop()
    await asyncio.sleep(61)


async def test_waiting_for_what_is_found(world: World, net: Net) -> None:
    seer = await extensions(world, 1)
    findings = await seer.findings()
    with pytest.raises(TimedOutError):
        await findings.until(lambda findings: "x1" in findings, timeout=5)
    await prober(world)
    await findings.until(lambda findings: "x1" in findings, timeout=15)
    with pytest.raises(ClosedError):
        await asyncio.gather(findings.until(lambda _: False), seer.stop())


# Use and misuse


async def test_findings_are_shown_between_start_and_stop(world: World) -> None:
    service = DiscoveryService(world.process())
    with pytest.raises(ClosedError):
        await service.findings()
    async with service:
        findings = await service.findings()
        assert isinstance(findings, Findings)
        assert (len(findings), findings.probers, findings.stale) == (0, (), False)
        assert findings.age < 1
        assert repr(findings) == "<Findings of 0 probers on 0 extensions>"
    with pytest.raises(ClosedError):
        await service.findings()
    assert findings.stale


async def test_findings_need_the_store_once(world: World) -> None:
    client = world.process(timeout=1)
    client.backend.faults.outage()
    async with DiscoveryService(client) as service:
        with pytest.raises(TimedOutError):
            await service.findings()
        client.backend.faults.clear()
        assert len(await service.findings()) == 0


async def test_something_else_than_a_probing_is_refused(world: World) -> None:
    with pytest.raises(ConfigError, match="probing must be a Probing"):
        DiscoveryService(world.process(), probing=["10.0.0.0/8"])


def test_the_address_of_an_allowed_name_is_looked_at_when_it_is_asked() -> None:
    assert target_of(info(host="geo.example"), probing()) is not None
    with pytest.raises(RefusedError):
        target_of(info(host="11.0.0.1"), probing())
