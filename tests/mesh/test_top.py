"""Figures of all calls in a namespace: counted and reported only while somebody asks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Any

import pytest
from attrs import evolve
from mesh_town import INTERRUPTED, NOT_JUDGED, Town, town
from worlds import World, lease_of, until

from osdisco._records import encode
from osdisco.backend import Delete
from osdisco.errors import ServiceMeshError, ServiceNotFoundError
from osdisco.mesh import (
    BreakerSettings,
    CircuitBreakerRegistry,
    ExtensionServiceMesh,
    MeshWatch,
    RetryPolicy,
    ServiceFigures,
    _services,
)
from osdisco.mesh._histogram import BOUNDS, SIZE
from osdisco.mesh._reports import SERVICES_MAX, CallerReport, ServiceReport
from osdisco.mesh.top import document_of, figures_of

NONE = ServiceReport(0, 0, 0, 0, (0,) * SIZE, 0, 3, 0, 0, False, 100.0)


@pytest.fixture
async def geo(world: World) -> AsyncGenerator[Town, None]:
    async with town(world) as place:
        yield place


def who() -> str:
    return "me"


async def traffic(mesh: ExtensionServiceMesh, pause: float, seconds: float) -> None:
    for _ in range(int(seconds / pause)):
        await mesh.call("geo", "who")
        await asyncio.sleep(pause)


def reports(world: World) -> list[str]:
    return world.keys("mesh/seen/")


# from calls to figures


async def test_calls_of_all_processes_are_shown_in_a_second(geo: Town) -> None:
    servers = [await geo.serve({"who": who}) for _ in range(2)]
    for server in servers:
        geo.network.places[server.address].delay = 0.04
    callers = [geo.mesh() for _ in range(3)]
    async with MeshWatch(geo.world.process()) as watch:
        assert list(await anext(watch)) == []
        following = asyncio.create_task(anext_times(watch, 5))
        await asyncio.gather(*(traffic(mesh, 0.06, 10) for mesh in callers))
        (one,) = (await following)[-1]
    assert (one.service, one.callers, one.endpoints) == ("geo", 3, 2)
    assert one.calls == pytest.approx(30, rel=0.1)
    assert (one.ok, one.retries, one.refused) == (1.0, 0.0, 0.0)
    assert one.p50 is not None
    assert 0.03 <= one.p50 <= 0.05
    assert (one.ejected, one.open, one.panic, one.in_flight) == (0, 0, False, 0)


async def test_an_open_breaker_of_the_whole_service_shows(geo: Town) -> None:
    geo.network.fail((await geo.serve({"who": who})).address, INTERRUPTED)
    whole = BreakerSettings(window=3, minimum=3, open_for=60)
    mesh = geo.mesh(circuit_breakers=CircuitBreakerRegistry(whole=whole, clock=geo.world.clock))
    async with MeshWatch(geo.world.process()) as watch:
        following = asyncio.create_task(anext_times(watch, 4))
        for _ in range(20):
            with suppress(ServiceMeshError):
                await mesh.call("geo", "who")
            await asyncio.sleep(0.5)
        (one,) = (await following)[-1]
    assert (one.whole_open, one.open) == (True, 0)


async def test_failures_retries_and_ejections_show(geo: Town) -> None:
    servers = [await geo.serve({"who": who}) for _ in range(4)]
    geo.network.fail(servers[0].address, INTERRUPTED)
    mesh = geo.mesh(retry_policies=RetryPolicy(idempotent=["who"]))
    async with MeshWatch(geo.world.process()) as watch:
        following = asyncio.create_task(anext_times(watch, 6))
        await traffic(mesh, 0.1, 12)
        found = await following
    (one,) = found[-1]
    assert (one.ejected, one.ok) == (1, 1.0)
    assert one.budget == pytest.approx(mesh.services["geo"].balance.left(geo.world.clock.now()), abs=20)
    assert any(figures.retries for figures, *_ in filter(None, found))


async def test_calls_that_fail_and_picks_that_are_refused_show(geo: Town) -> None:
    mesh = geo.mesh()
    async with MeshWatch(geo.world.process()) as watch:
        following = asyncio.create_task(anext_times(watch, 4))
        for _ in range(60):
            with pytest.raises(ServiceNotFoundError):
                await mesh.call("geo", "who")
            await asyncio.sleep(0.1)
        (one,) = (await following)[-1]
    assert (one.ok, one.endpoints) == (0.0, 0)
    assert one.refused == pytest.approx(10, rel=0.1)
    assert one.calls == pytest.approx(10, rel=0.1)


async def test_an_error_that_is_the_callers_is_an_answer_and_who_gave_up_is_not_counted(geo: Town) -> None:
    server = await geo.serve({"who": who, "hang": asyncio.Event().wait})
    mesh = geo.mesh(**NOT_JUDGED)
    async with MeshWatch(geo.world.process()) as watch:
        await mesh.call("geo", "who")
        await until(lambda: mesh._seeing.active)
        with pytest.raises(ServiceMeshError):
            await mesh.call("geo", "nothing")
        hanging = asyncio.create_task(mesh.call("geo", "hang"))
        await asyncio.sleep(2)
        (one,) = watch.figures()
        assert one.in_flight == 1
        hanging.cancel()
        await asyncio.wait([hanging])
        assert mesh._reports is not None
        assert mesh._reports._tally is not None
        sums = mesh._reports._tally.sums["geo"]
        assert (sums.calls, sums.failed) == (1, 0)
    assert server.in_flight == 0


# only while somebody asks


async def test_nothing_is_counted_or_written_unless_somebody_asks(geo: Town) -> None:
    await geo.serve({"who": who})
    client = geo.world.process()
    mesh = geo.mesh(client)
    await traffic(mesh, 0.1, 3)
    assert not mesh._seeing.active
    before = client.backend.calls["commit"]  # type: ignore[attr-defined]
    await traffic(mesh, 0.1, 20)
    assert client.backend.calls["commit"] == before  # type: ignore[attr-defined]
    async with MeshWatch(geo.world.process()):
        await traffic(mesh, 0.1, 5)
        assert mesh._seeing.active
        assert len(reports(geo.world)) == 1
    await traffic(mesh, 0.1, 5)
    assert not mesh._seeing.active
    assert reports(geo.world) == []
    assert geo.world.keys("mesh/") == []


async def test_who_asks_and_dies_is_not_answered_for_ever(geo: Town) -> None:
    await geo.serve({"who": who})
    mesh, asking = geo.mesh(), geo.world.process()
    watch = MeshWatch(asking)
    await watch.__aenter__()
    await traffic(mesh, 0.1, 3)
    assert mesh._seeing.active
    geo.world.kill(asking)
    await traffic(mesh, 0.5, 3 * geo.world.ttl)
    assert not mesh._seeing.active
    assert reports(geo.world) == []
    await watch.__aexit__(None, None, None)


async def test_who_reports_and_dies_is_shown_no_more(geo: Town) -> None:
    await geo.serve({"who": who})
    dying = geo.world.process()
    mesh = geo.mesh(dying)
    async with MeshWatch(geo.world.process()) as watch:
        await traffic(mesh, 0.1, 5)
        assert len(watch.figures()) == 1
        geo.world.kill(dying)
        await asyncio.sleep(3 * geo.world.ttl)
        assert watch.figures() == []


async def test_reports_go_on_after_a_session_was_lost(geo: Town) -> None:
    await geo.serve({"who": who})
    client, asking = geo.world.process(), geo.world.process()
    mesh = geo.mesh(client)
    async with MeshWatch(asking) as watch:
        await traffic(mesh, 0.1, 5)
        for lost in (client, asking):
            geo.world.store.faults.end_lease(await lease_of(lost))
        following = asyncio.create_task(anext_times(watch, 6))
        await traffic(mesh, 0.1, 12)
        (one,) = (await following)[-1]
        assert one.calls is not None
        assert one.calls > 5


async def anext_times(watch: MeshWatch, times: int) -> list[Sequence[ServiceFigures]]:
    return [await anext(watch) for _ in range(times)]


async def test_a_mesh_that_is_not_to_report_does_not_even_look(geo: Town) -> None:
    await geo.serve({"who": who})
    client = geo.world.process()
    mesh = geo.mesh(client, reports=False)
    async with MeshWatch(geo.world.process()) as watch:
        await traffic(mesh, 0.1, 5)
        assert watch.figures() == []
    assert not [target for target in client.backend.watching if "mesh/" in target]  # type: ignore[attr-defined]


async def test_a_mesh_that_closes_takes_its_report_away(geo: Town) -> None:
    await geo.serve({"who": who})
    mesh = geo.mesh()
    async with MeshWatch(geo.world.process()):
        await traffic(mesh, 0.1, 5)
        await mesh.aclose()
        assert reports(geo.world) == []


# reports of others


def pair(before: dict[str, Any] | None, now: dict[str, Any], seconds: float = 2.0, caller: str = "a") -> Any:
    reports = [
        None if fields is None else CallerReport(caller, at, {"geo": evolve(NONE, **fields)})
        for at, fields in ((10.0, before), (10.0 + seconds, now))
    ]
    return tuple(reports)


def test_figures_of_callers_are_put_together() -> None:
    quick, slow = [0] * SIZE, [0] * SIZE
    quick[1], slow[-1] = 10, 10
    (one,) = figures_of(
        [
            pair({}, {"calls": 10, "took": tuple(quick), "in_flight": 1, "ejected": 1, "budget": 5.0}),
            pair({}, {"calls": 10, "failed": 5, "took": tuple(slow), "in_flight": 2, "open": 1, "panic": True}),
        ]
    )
    assert (one.callers, one.calls, one.ok, one.in_flight) == (2, 10.0, 0.75, 3)
    assert (one.ejected, one.open, one.panic, one.budget) == (1, 1, True, 5.0)
    assert one.p50 == pytest.approx(BOUNDS[1])
    assert one.p99 == float("inf")
    assert document_of(one)["p99"] is None


def test_what_was_begun_anew_is_not_taken_from_what_was_before() -> None:
    (one,) = figures_of([pair({"calls": 1000, "failed": 3}, {"calls": 4})])
    assert (one.calls, one.ok) == (2.0, 1.0)
    (first,) = figures_of([pair(None, {"calls": 4})])
    assert (first.calls, first.ok, first.p50, first.retries) == (None, None, None, None)


def test_who_claims_to_report_all_the_time_has_no_infinite_rates() -> None:
    (one,) = figures_of([pair({}, {"calls": 4}, seconds=1e-9)])
    assert one.calls == 8.0


BAD = [
    encode(CallerReport("x", -1.0, {})),
    encode(CallerReport("x", 1e300, {})),
    b"no record",
    b"{}",
    encode(CallerReport("x", 1.0, {"geo": evolve(NONE, calls=-1)})),
    encode(CallerReport("x", 1.0, {"geo": evolve(NONE, calls=2**60)})),
    encode(CallerReport("x", 1.0, {"geo": evolve(NONE, took=(1, 2))})),
    encode(CallerReport("x", 1.0, {"geo": evolve(NONE, took=(-1,) * SIZE)})),
]


@pytest.mark.parametrize("value", BAD, ids=range(len(BAD)))
async def test_what_others_wrote_there_is_skipped_and_told_of(
    geo: Town, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    await geo.serve({"who": who})
    mesh = geo.mesh()
    async with MeshWatch(geo.world.process()) as watch:
        await geo.world.process().put("mesh/seen/bad", value)
        await traffic(mesh, 0.1, 5)
        with caplog.at_level(logging.WARNING, "osdisco"):
            (one,) = watch.figures()
        assert one.callers == 1
        assert "'mesh/seen/bad'" in caplog.text
    geo.world.store.commit([Delete("ns/mesh/seen/bad")], {})


async def test_a_report_holds_the_services_that_are_called_most(geo: Town) -> None:
    mesh = geo.mesh()
    async with MeshWatch(geo.world.process()) as watch:
        for number in range(SERVICES_MAX + 20):
            mesh._services.open(f"s{number}")
        await geo.serve({"who": who}, "zoo")
        await mesh.call("zoo", "who")
        await until(lambda: mesh._seeing.active)
        await mesh.call("zoo", "who")
        await asyncio.sleep(4)
        found = watch.figures()
    assert len(found) == SERVICES_MAX
    assert found[-1].service == "zoo"


async def test_a_report_that_would_be_too_large_tells_of_fewer_services(geo: Town) -> None:
    mesh = geo.mesh()
    async with MeshWatch(geo.world.process()) as watch:
        await geo.serve({"who": who})
        await mesh.call("geo", "who")
        await until(lambda: mesh._seeing.active)
        for number in range(SERVICES_MAX):
            mesh._services.open(f"{number:03}" + "s" * 250)
        assert mesh._reports is not None
        tally = mesh._reports._tally
        assert tally is not None
        for name in mesh.services:
            tally._of(name).took = [10**12] * SIZE
        await mesh.call("geo", "who")
        await asyncio.sleep(4)
        found = watch.figures()
    assert "geo" in [one.service for one in found]
    assert SERVICES_MAX // 4 <= len(found) < SERVICES_MAX


async def test_names_that_strangers_choose_do_not_fill_the_tally(geo: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_services, "KEPT_MAX", 5)
    await geo.serve({"who": who})
    mesh = geo.mesh()
    async with MeshWatch(geo.world.process()):
        await mesh.call("geo", "who")
        await until(lambda: mesh._seeing.active)
        for number in range(50):
            with pytest.raises(ServiceNotFoundError):
                await mesh.call(f"s{number}", "who")
        await asyncio.sleep(4)
        assert mesh._reports is not None
        assert mesh._reports._tally is not None
        assert len(mesh._reports._tally.sums) <= 6
