"""Health on every store, over real sockets: few tests, for what only a real server can get wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from extensions import Diary, info, observer
from sockets import OK, serving
from worlds import connect, until

from osdisco.discovery import DiscoveryService, ExtensionStatus, FindingState, HttpCheck, Probing, TtlCheck, _http
from osdisco.testing import VirtualLoop

ALL = pytest.mark.osdisco("memory", "etcd", "etcd+http", "consul")

PATIENCE = 30.0
"""Seconds; it takes one or two where nothing else runs."""

HEALTHY, UNHEALTHY = ExtensionStatus.HEALTHY, ExtensionStatus.UNHEALTHY
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"


class Patient:
    """An HTTP server that is well or not."""

    def __init__(self) -> None:
        self.well = True

    async def __call__(self, writer: asyncio.StreamWriter) -> None:
        writer.write(OK if self.well else BUSY)
        await writer.drain()

    async def status(self, *_: object) -> int:
        return 200 if self.well else 503


@asynccontextmanager
async def practising(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[int, None]:
    """Serve on a port of loopback, which it yields; in virtual time without sockets."""
    if isinstance(asyncio.get_running_loop(), VirtualLoop):
        monkeypatch.setattr(_http, "_status", patient.status)
        yield 9700
    else:
        async with serving(patient) as server:
            yield server.port


@ALL
async def test_a_failing_check_is_seen_by_another_process_and_so_is_its_rise(
    osdisco_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient, heart = Patient(), TtlCheck(60, critical=False)
    async with practising(patient, monkeypatch) as port, connect(osdisco_url) as client, connect(osdisco_url) as other:
        seer = await observer(other)
        diary = Diary(seer)
        check = HttpCheck(f"http://127.0.0.1:{port}/health", interval=0.05, rise=2, fall=2)

        async def seen_as(status: ExtensionStatus) -> None:
            await until(lambda: "geo" in seer.extensions and seer.extensions["geo"].status is status, PATIENCE)

        async with DiscoveryService(client, info(), checks=[check, heart]) as discovery:
            await seen_as(ExtensionStatus.STARTING)
            heart.ok()
            await seen_as(HEALTHY)
            patient.well = False
            await seen_as(UNHEALTHY)
            assert discovery.health[check.label].reason == "HTTP 503"
            assert [one.status for one in await seer.discover_extensions()] == [UNHEALTHY]
            patient.well = True
            await seen_as(HEALTHY)
            heart.fail("cache")
            await seen_as(ExtensionStatus.DEGRADED)
            await discovery.set_status(ExtensionStatus.STOPPING)
            patient.well = False
            await until(lambda: discovery.health.status is UNHEALTHY, PATIENCE)
            assert [one.status for one in await seer.discover_extensions()] == [ExtensionStatus.STOPPING]
        await until(lambda: not seer.extensions, PATIENCE)
        assert diary.lines[:4] == [
            "+geo starting",
            "geo starting>healthy",
            "geo healthy>unhealthy",
            "geo unhealthy>healthy",
        ]
        await seer.stop()


@ALL
async def test_what_two_probers_find_is_seen_by_a_third_process(
    osdisco_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = Patient()
    probing = Probing(allow=["127.0.0.0/8"], interval=0.05, rise=1, fall=2)
    async with (
        practising(patient, monkeypatch) as port,
        connect(osdisco_url) as first,
        connect(osdisco_url) as second,
        connect(osdisco_url) as other,
        DiscoveryService(first, info(host="127.0.0.1", port=port), probing=probing) as probed,
        DiscoveryService(second, info("spy"), probing=probing),
        DiscoveryService(second, probing=probing),
        DiscoveryService(other) as seer,
    ):
        findings = await seer.findings()

        async def found(state: FindingState) -> None:
            await until(lambda: [finding.state for finding in findings.get("geo", ())] == [state, state], PATIENCE)

        await found(FindingState.PASSING)
        patient.well = False
        await found(FindingState.FAILING)
        assert findings.failing("geo")
        assert [finding.reason for finding in findings["geo"]] == ["HTTP 503"] * 2
        assert seer.extensions["geo"].status is ExtensionStatus.STARTING
        patient.well = True
        await found(FindingState.PASSING)
        await until(
            lambda: [finding.state for finding in findings.get("spy", ())] == [FindingState.REFUSED] * 2, PATIENCE
        )
        await probed.stop()
        await until(lambda: "geo" not in findings, PATIENCE)
