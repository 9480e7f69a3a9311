"""Checks by their rules: when each is run, what its results make of it, and several of their extension."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from patients import Patient, monitored
from worlds import World, until

from osdisco.discovery import (
    Check,
    CheckState,
    ExtensionStatus,
    FunctionCheck,
    HttpCheck,
    PolledCheck,
    Probing,
    TcpCheck,
    TtlCheck,
)
from osdisco.discovery._watching import _MOVES, EAGER_INTERVAL, CheckStatus
from osdisco.discovery.health import combined
from osdisco.errors import ConfigError

STARTING, HEALTHY, DEGRADED = ExtensionStatus.STARTING, ExtensionStatus.HEALTHY, ExtensionStatus.DEGRADED
UNHEALTHY, STOPPING = ExtensionStatus.UNHEALTHY, ExtensionStatus.STOPPING


# One check


async def test_one_pass_ends_the_start_however_many_failed_before(world: World) -> None:
    patient = Patient(world)
    monitor, told = await monitored(world, patient.check(rise=5))
    await asyncio.sleep(20)
    assert monitor.health["patient"].state is CheckState.STARTING
    assert monitor.health["patient"].reason == "it is ill"
    patient.well = True
    await patient.after(1)
    assert monitor.health["patient"].state is CheckState.PASSING
    assert told == [HEALTHY]


async def test_when_the_grace_is_over_without_a_pass_it_fails_to_the_second(world: World) -> None:
    patient = Patient(world)
    begun = world.clock.now()
    monitor, told = await monitored(world, patient.check(startup_grace=25.5))
    await asyncio.sleep(25.4)
    assert told == []
    await asyncio.sleep(0.2)
    assert told == [UNHEALTHY]
    assert patient.runs[-1] - begun == pytest.approx(25.5, abs=0.01)
    assert monitor.health["patient"].reason == "it is ill"


async def test_without_grace_the_first_failure_counts(world: World) -> None:
    _, told = await monitored(world, Patient(world).check(startup_grace=0))
    await asyncio.sleep(0.1)
    assert told == [UNHEALTHY]


async def test_it_falls_after_so_many_failures_in_a_row_and_rises_after_so_many_passes(world: World) -> None:
    patient = Patient(world, well=True)
    monitor, told = await monitored(world, patient.check(rise=2, fall=3))

    async def looks(*results: bool) -> CheckState:
        for patient.well in results:
            await patient.after(1)
        return monitor.health["patient"].state

    assert await looks(True) is CheckState.PASSING
    assert await looks(False, False) is CheckState.PASSING
    assert await looks(True, False, False) is CheckState.PASSING, "the row was broken by a pass"
    assert await looks(False) is CheckState.FAILING
    assert await looks(True, False, True) is CheckState.FAILING, "the row was broken by a failure"
    assert await looks(True) is CheckState.PASSING
    assert told == [HEALTHY, UNHEALTHY, HEALTHY]


@pytest.mark.parametrize("seed", range(20))
async def test_its_states_are_what_the_rows_of_its_results_say(world: World, seed: int) -> None:
    """Against a model that looks back over all results, for random rows, rises and falls."""
    chance = random.Random(seed)
    rise, fall = chance.randint(1, 4), chance.randint(1, 4)
    patient = Patient(world)
    monitor, _ = await monitored(world, patient.check(rise=rise, fall=fall, startup_grace=0, interval=1))
    await patient.after(1)
    results, state = [False], CheckState.FAILING
    for _ in range(60):
        patient.well = chance.random() < 0.6
        await patient.after(1)
        results.append(patient.well)
        if len(results) >= rise and all(results[-rise:]):
            state = CheckState.PASSING
        if len(results) >= fall and not any(results[-fall:]):
            state = CheckState.FAILING
        assert monitor.health["patient"].state is state, f"{results=} {rise=} {fall=}"


def test_no_way_leads_back_to_starting_and_every_other_move_is_in_the_table() -> None:
    assert CheckState.STARTING not in _MOVES.values()
    assert {state for state, _ in _MOVES} == set(CheckState)


async def test_reason_and_since_tell_of_the_last_change(world: World) -> None:
    patient = Patient(world, well=True)
    monitor, _ = await monitored(world, patient.check(fall=2))
    await patient.after(1)
    first = monitor.health["patient"]
    assert (first.name, first.critical, first.reason) == ("patient", True, "passed")
    await patient.after(3)
    assert monitor.health["patient"].since == first.since
    patient.well = False
    await patient.after(1)
    assert monitor.health["patient"] == first, "one failure of two changes nothing"
    await patient.after(1)
    assert monitor.health["patient"].reason == "it is ill"
    assert monitor.health["patient"].since == pytest.approx(world.clock.wall(), abs=0.1)


async def test_runs_are_eager_until_the_first_pass_then_jittered(world: World) -> None:
    patient = Patient(world)
    await monitored(world, patient.check(interval=10, jitter=0.1))
    await patient.after(5)
    assert gaps(patient) == pytest.approx([EAGER_INTERVAL] * len(gaps(patient)), abs=0.01)
    patient.well = True
    await patient.after(1)
    patient.runs.clear()
    await patient.after(50)
    assert all(9 <= gap <= 11.01 for gap in gaps(patient))
    assert len({round(gap, 3) for gap in gaps(patient)}) > 40
    assert max(gaps(patient)) - min(gaps(patient)) > 1


def gaps(patient: Patient) -> list[float]:
    return [later - earlier for earlier, later in zip(patient.runs, patient.runs[1:], strict=False)]


async def test_a_run_that_takes_too_long_has_failed_and_is_cancelled(world: World) -> None:
    ended: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("cancelled")

    monitor, told = await monitored(world, FunctionCheck(slow, timeout=2, startup_grace=0))
    await asyncio.sleep(1.9)
    assert told == []
    await asyncio.sleep(0.2)
    assert (told, ended) == ([UNHEALTHY], ["cancelled"])
    assert monitor.health["slow"].reason == "no answer within 2 s"


async def test_a_run_that_does_not_end_when_cancelled_is_not_joined_by_others_and_holds_up_nothing(
    world: World,
) -> None:
    running = 0

    async def stubborn() -> None:
        nonlocal running
        running += 1
        for _ in range(5):
            try:
                await asyncio.sleep(20)
            except asyncio.CancelledError:
                continue
        running -= 1

    monitor, told = await monitored(world, FunctionCheck(stubborn, startup_grace=0, timeout=2, interval=1))
    await asyncio.sleep(30)
    assert running == 1
    assert told == [UNHEALTHY]
    assert monitor.health["stubborn"].reason == "its last run does not end"
    await asyncio.sleep(100)
    assert running == 1


def raises() -> None:
    raise RuntimeError("boom")


async def cancels() -> None:
    raise asyncio.CancelledError


FAILING: list[tuple[Callable[[], Any], str]] = [
    (raises, "RuntimeError: boom"),
    (lambda: False, "<lambda> returned False"),
    (cancels, "it was cancelled"),
    (lambda: asyncio.sleep(0, False), "<lambda> returned False"),
]


@pytest.mark.parametrize(("function", "reason"), FAILING)
async def test_a_function_fails_by_what_it_raises_or_by_false(
    world: World, function: Callable[[], Any], reason: str
) -> None:
    monitor, told = await monitored(world, FunctionCheck(function, name="f", startup_grace=0))
    await asyncio.sleep(0.1)
    assert (told, monitor.health["f"].reason.replace("f returned", "<lambda> returned")) == ([UNHEALTHY], reason)


@pytest.mark.parametrize("function", [lambda: None, lambda: True, lambda: 0, lambda: asyncio.sleep(0, "fine")])
async def test_a_function_passes_otherwise(world: World, function: Callable[[], Any]) -> None:
    _, told = await monitored(world, FunctionCheck(function, startup_grace=0))
    await asyncio.sleep(0.1)
    assert told == [HEALTHY]


async def test_a_check_of_ones_own(world: World) -> None:
    class Sluggish(PolledCheck):
        async def run(self) -> None:
            await asyncio.sleep(1)

    monitor, told = await monitored(world, Sluggish(interval=5))
    await asyncio.sleep(2)
    assert told == [HEALTHY]
    assert list(monitor.health) == ["Sluggish"]


# Reports of the process itself


async def test_silence_for_the_ttl_is_a_failure_and_a_report_ends_it(world: World) -> None:
    check = TtlCheck(15)
    monitor, told = await monitored(world, check)
    check.ok()
    await asyncio.sleep(0.01)
    assert told == [HEALTHY]
    for _ in range(5):
        await asyncio.sleep(14)
        check.ok()
    await asyncio.sleep(14.9)
    assert told == [HEALTHY]
    await asyncio.sleep(0.2)
    assert told == [HEALTHY, UNHEALTHY]
    assert monitor.health["ttl"].reason == "nothing was reported for 15 s"
    check.ok()
    await asyncio.sleep(0.01)
    assert told[-1] is HEALTHY


async def test_a_process_reports_that_it_is_ill(world: World) -> None:
    check = TtlCheck(15)
    monitor, told = await monitored(world, check)
    check.ok()
    await asyncio.sleep(1)
    check.fail("the index is being rebuilt")
    await asyncio.sleep(0.01)
    assert told == [HEALTHY, UNHEALTHY]
    assert monitor.health["ttl"].reason == "the index is being rebuilt"


async def test_a_process_that_never_reports_fails_when_its_grace_and_one_ttl_are_over(world: World) -> None:
    for ttl, grace, expected in ((20, 30, 30), (15, 0, 15), (60, 30, 60)):
        begun = world.clock.now()
        _, told = await monitored(world, TtlCheck(ttl, startup_grace=grace))
        await until(lambda: told, 100)  # noqa: B023
        assert (told, world.clock.now() - begun) == ([UNHEALTHY], pytest.approx(expected, abs=0.1))


async def test_one_report_reaches_every_monitor_of_the_check(world: World) -> None:
    check = TtlCheck(15)
    _, first = await monitored(world, check)
    _, second = await monitored(world, check)
    check.ok()
    await asyncio.sleep(0.01)
    assert first == second == [HEALTHY]


# Several checks


S, P, F = CheckState.STARTING, CheckState.PASSING, CheckState.FAILING
COMBINED = [
    ([], HEALTHY),
    ([(S, True)], STARTING),
    ([(P, True)], HEALTHY),
    ([(F, True)], UNHEALTHY),
    ([(F, False)], DEGRADED),
    ([(P, True), (S, True)], STARTING),
    ([(P, True), (S, False)], STARTING),
    ([(F, False), (S, True)], STARTING),
    ([(F, True), (S, True)], UNHEALTHY),
    ([(F, False), (P, True)], DEGRADED),
    ([(F, False), (F, False)], DEGRADED),
    ([(F, False), (F, True)], UNHEALTHY),
    ([(P, False), (P, True)], HEALTHY),
]


@pytest.mark.parametrize(("checks", "expected"), COMBINED)
def test_what_several_make_of_their_extension(checks: list[tuple[CheckState, bool]], expected: ExtensionStatus) -> None:
    assert combined(CheckStatus("", critical, state, "", 0.0) for state, critical in checks) is expected


async def test_all_must_pass_once_and_each_failing_and_rising_shows(world: World) -> None:
    needed, nice = Patient(world), Patient(world, well=True)
    monitor, told = await monitored(
        world, needed.check("needed", rise=1, fall=1), nice.check("nice", critical=False, rise=1, fall=1)
    )
    await asyncio.sleep(5)
    assert told == []
    for patient, well, status in [
        (needed, True, HEALTHY),
        (nice, False, DEGRADED),
        (needed, False, UNHEALTHY),
        (needed, True, DEGRADED),
        (nice, True, HEALTHY),
    ]:
        patient.well = well
        await patient.after(1)
        assert told[-1] is status is monitor.health.status
    assert told == [HEALTHY, DEGRADED, UNHEALTHY, DEGRADED, HEALTHY]
    assert repr(monitor.health) == "<Health: needed passing, nice passing>"


# Misuse


def nothing() -> None:
    pass


BAD = [
    (lambda: HttpCheck("ftp://h/"), "HttpCheck.url: the scheme is http or https, not 'ftp'"),
    (lambda: HttpCheck("http://u:geheim@h/"), "HttpCheck.url: .* neither user nor password"),
    (lambda: HttpCheck("http://h:0/"), "HttpCheck.url: '0' is no port: a number from 1 to 65535"),
    (lambda: HttpCheck("http://h:65536/"), "HttpCheck.url: 65536 is no port"),
    (lambda: HttpCheck("/health"), "HttpCheck.url: .* no URL such as"),
    (lambda: HttpCheck(None), "HttpCheck.url: None is no URL"),
    (lambda: HttpCheck("http://h/", interval=0), "HttpCheck.interval must be seconds from 0.01 to 86400, not 0"),
    (lambda: HttpCheck("http://h/", interval=float("nan")), "HttpCheck.interval must be .*, not nan"),
    (lambda: HttpCheck("http://h/", timeout="2s"), "HttpCheck.timeout must be .*, not '2s'"),
    (lambda: HttpCheck("http://h/", timeout=float("inf")), "HttpCheck.timeout"),
    (lambda: HttpCheck("http://h/", jitter=0.6), "HttpCheck.jitter must be a share from 0 to 0.5, not 0.6"),
    (lambda: HttpCheck("http://h/", rise=0), "HttpCheck.rise must be a whole number from 1 to 1000, not 0"),
    (lambda: HttpCheck("http://h/", fall=1.5), "HttpCheck.fall must be a whole number"),
    (lambda: HttpCheck("http://h/", fall=True), "HttpCheck.fall must be a whole number"),
    (lambda: HttpCheck("http://h/", startup_grace=-1), "HttpCheck.startup_grace must be seconds from 0 to 86400"),
    (lambda: HttpCheck("http://h/", critical="no"), "HttpCheck.critical must be True or False, not 'no'"),
    (lambda: HttpCheck("http://h/", method="DELETE"), "HttpCheck.method must be GET or HEAD, not 'DELETE'"),
    (lambda: HttpCheck("http://h/", expected=99), "expected must be statuses from 100 to 599, not 99"),
    (lambda: HttpCheck("http://h/", expected="200"), "expected must be statuses"),
    (lambda: HttpCheck("http://h/", headers={"a b": "c"}), "HttpCheck.headers: 'a b' is no name of a header"),
    (lambda: HttpCheck("http://h/", headers={"a": "b\r\nc"}), "HttpCheck.headers: a must be text on one line"),
    (lambda: HttpCheck("http://h/", headers=["a"]), "HttpCheck.headers must be text by name, not list"),
    (lambda: HttpCheck("http://h/", name=7), "HttpCheck.name must be text, not 7"),
    (lambda: TcpCheck("h"), "TcpCheck.address must be host:port; 'h' has no port"),
    (lambda: TcpCheck("::1:80"), "TcpCheck.address: .* in brackets"),
    (lambda: TcpCheck("h:http"), "TcpCheck.address: 'http' is no port"),
    (lambda: TcpCheck(("h", 80)), "TcpCheck.address: .* is no address: text such as"),
    (lambda: TtlCheck(0), "TtlCheck.ttl must be seconds from 0.01 to 86400, not 0"),
    (lambda: FunctionCheck("f"), "FunctionCheck.function must be a function without arguments, not 'f'"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_bad_input_is_refused_and_named(make: Callable[[], Check], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as failure:
        make()
    assert "geheim" not in str(failure.value)


@pytest.mark.parametrize("make", [lambda: HttpCheck("http://h/"), lambda: Probing(allow=["10.0.0.0/8"])])
def test_without_aiohttp_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, make: Callable[[], object]) -> None:
    for module in ("checks", "probing"):
        monkeypatch.setattr(f"osdisco.discovery.{module}.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs aiohttp: pip install 'osdisco\[health\]'"):
        make()


def test_what_a_check_is_called() -> None:
    assert HttpCheck("http://H:80/x?y=1").label == "http://h:80/x?y=1"
    assert HttpCheck("https://[::1]").label == "https://[::1]:443/"
    assert TcpCheck("[::1]:9700").label == "tcp [::1]:9700"
    assert (TtlCheck(1).label, FunctionCheck(nothing).label, TtlCheck(1, name="own").label) == ("ttl", "nothing", "own")


def test_headers_are_shown_nowhere() -> None:
    assert "geheim" not in repr(HttpCheck("http://h/", headers={"Authorization": "Bearer geheim"}))
