"""The simulation: processes that can be paused, suspended and killed, each by its own clock, and one digest a seed."""

from __future__ import annotations

import asyncio
import math
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from osdisco.coordination import CoordinationService, LockGuard
from osdisco.errors import OsdiscoError
from osdisco.testing import HangError, Scenario, SimulatedProcess, Simulation, run_seed, scenario
from osdisco.testing.simulate import load, simulate
from osdisco.testing.simulation import outcome_of

HERE = Path(__file__)
RECIPES = HERE.parents[1] / "coordination"


@scenario(often={"entered": 3})
async def one_at_a_time(simulation: Simulation) -> None:
    """Whoever is inside is alone there, for all that clocks can tell."""
    inside: list[str] = []

    async def work(process: SimulatedProcess) -> None:
        while not simulation.over:
            try:
                async with CoordinationService(process.client).lock("job"):
                    inside.append(process.name)
                    simulation.seen["entered"] += 1
                    await asyncio.sleep(simulation.random.uniform(0, 1))
            except OsdiscoError as exc:
                simulation.seen[type(exc).__name__] += 1
                await asyncio.sleep(0.1)

    for name in "abc":
        process = simulation.process(name)
        process.start(work(process))
    await simulation.trouble(5)
    await asyncio.sleep(20)
    assert await simulation.close() == []


@scenario()
async def fails(simulation: Simulation) -> None:
    await asyncio.sleep(1)
    assert simulation.seed % 5, "not this one"


def played(play: Callable[[Simulation], Awaitable[None]], seed: int = 1) -> None:
    """Run a scenario that is written in the test."""
    run_seed(play, seed)


async def acquire(process: SimulatedProcess) -> LockGuard:
    return await CoordinationService(process.client).lock("job").acquire()


async def ticking(process: SimulatedProcess, ticks: list[float]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(1)
        ticks.append(loop.time())


def test_the_same_seed_gives_the_same_digest_in_two_processes() -> None:
    here = outcome_of(one_at_a_time, 11)
    assert here.digest
    address = f"{HERE}:one_at_a_time"
    first, second = digests_of(address, seed=11, hash_seed=1), digests_of(address, seed=11, hash_seed=2)
    assert first == second == [here.digest]


def test_every_recipe_does_the_same_in_two_processes() -> None:
    files = [str(file) for file in RECIPES.glob("test_*.py") if "\n@scenario(" in file.read_text()]
    first, second = (digests_of(*files, seed=12, hash_seed=hash_seed) for hash_seed in (1, 2))
    assert len(first) >= 12
    assert first == second


def digests_of(*addresses: str, seed: int, hash_seed: int) -> list[str]:
    """Run a seed of each scenario in a process of its own."""
    command = [sys.executable, "-m", "osdisco.testing.simulate", *addresses, "--seed", str(seed)]
    environ = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    return re.findall(r"digest (\w+)", done.stdout)


def test_another_seed_gives_another_digest() -> None:
    assert len({outcome_of(one_at_a_time, seed).digest for seed in range(5)}) == 5


def test_nothing_of_a_paused_process_runs_and_its_clock_goes_on() -> None:
    async def play(simulation: Simulation) -> None:
        paused, other = simulation.process("a"), simulation.process("b")
        mine: list[float] = []
        its: list[float] = []
        tasks = [paused.start(ticking(paused, mine)), other.start(ticking(other, its))]
        await asyncio.sleep(2.5)
        paused.pause(5)
        before = paused.clock.now()
        await asyncio.sleep(4.9)
        assert [round(tick) for tick in mine] == [1, 2]
        assert [round(tick) for tick in its] == [1, 2, 3, 4, 5, 6, 7]
        assert paused.clock.now() - before == pytest.approx(4.9)
        assert paused.disturbed_since(2)
        assert not other.disturbed_since(0)
        await asyncio.sleep(0.2)
        assert mine[2:] == [pytest.approx(7.5, abs=0.01)]  # late, at once
        for task in tasks:
            task.cancel()

    played(play, seed=2)  # clocks of even seeds are right


def test_timers_of_a_suspended_process_do_not_see_the_time_that_its_clock_sees() -> None:
    async def play(simulation: Simulation) -> None:
        process = simulation.process()
        ticks: list[float] = []
        task = process.start(ticking(process, ticks))
        await asyncio.sleep(2.5)
        process.suspend(5)
        await asyncio.sleep(5.2)
        assert [round(tick) for tick in ticks] == [1, 2]
        await asyncio.sleep(0.4)
        assert ticks[2:] == [pytest.approx(3)]
        assert process.clock.now() == pytest.approx(8.1)
        task.cancel()

    played(play, seed=2)


def test_a_clock_drifts_with_the_timers_of_its_process_and_jumps_without() -> None:
    async def play(simulation: Simulation) -> None:
        process = simulation.process()
        process.clock.drift(2.0)
        ticks: list[float] = []
        task = process.start(ticking(process, ticks))
        await asyncio.sleep(3.1)
        assert len(ticks) == 6
        process.clock.drift(0.5)
        await asyncio.sleep(3)
        assert len(ticks) == 7
        process.jump(60)
        assert process.clock.now() == pytest.approx(6.2 + 1.5 + 60)
        await asyncio.sleep(1)
        assert len(ticks) == 8
        task.cancel()

    played(play, seed=2)


def test_who_waits_for_what_rounding_left_over_gets_there() -> None:
    async def play(simulation: Simulation) -> None:
        process = simulation.process()
        process.clock.drift(1.0 + 1 / 3)

        async def wait() -> None:
            deadline, now = process.clock.now() + 1 / 7, process.clock.now
            while now() < deadline:
                await asyncio.sleep(min(deadline - now(), 1e-17))

        process.start(wait())
        await simulation.finish(5)

    played(play, seed=2)


def test_a_moment_that_rounding_lets_be_now_is_waited_for() -> None:
    async def play(simulation: Simulation) -> None:
        process = simulation.process()
        process.clock.drift(0.001)
        await asyncio.sleep(1000)  # so that what its clock still counts is less than the loop's time can tell
        process.clock.drift(1.0)

        async def wait() -> None:
            moment = math.nextafter(process.clock.now(), math.inf)
            while process.clock.now() < moment:
                with suppress(TimeoutError):
                    async with asyncio.timeout(moment - process.clock.now()):
                        await asyncio.Event().wait()

        process.start(wait())
        await simulation.finish(5)

    played(play, seed=2)


def test_what_a_killed_process_sent_still_arrives_and_nothing_else_of_it_happens() -> None:
    async def play(simulation: Simulation) -> None:
        process = simulation.process("a")
        ended: list[str] = []

        async def work() -> None:
            try:
                await process.client.put("k", b"v")
            finally:
                ended.append("ended")

        process.faults.delay("commit", request=1)
        process.start(work())
        await asyncio.sleep(0.5)
        process.kill()
        await asyncio.sleep(5)
        assert simulation.keys() == ["k"]
        assert ended == []
        assert simulation.living == []

    played(play)


def test_a_session_of_a_paused_process_is_over_before_the_store_gives_its_keys_away() -> None:
    async def play(simulation: Simulation) -> None:
        a, b = simulation.process("a"), simulation.process("b")
        guard = await a.call(acquire(a))
        a.pause(60)
        other = await b.call(acquire(b))
        assert not guard._entry.session.valid
        assert not guard.lost.is_set()  # nothing of it ran
        assert other.token > guard.token
        await b.call(other.release())

    played(play)


def test_a_failure_tells_the_line_that_runs_it_again_and_the_line_does() -> None:
    with pytest.raises(AssertionError, match="not this one") as failed:
        run_seed(fails, 10)
    line, digest = failed.value.__notes__
    assert line.startswith("run it again: python -m osdisco.testing.simulate ")
    assert digest.startswith("digest ")
    command = [sys.executable, *line.removeprefix("run it again: python ").split()]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    again = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert again.returncode == 1
    assert "AssertionError: not this one" in again.stderr
    assert digest.split(",")[0] in again.stdout + again.stderr


def test_what_a_function_makes_is_run_again_by_that_function() -> None:
    async def play(_: Simulation) -> None:
        raise AssertionError("not this one")

    with pytest.raises(AssertionError, match="not this one") as failed:
        run_seed(play, 10)
    file = Path(__file__).name
    assert re.fullmatch(rf"run it again: run_seed\(play, 10\), where \S*{file} makes play", failed.value.__notes__[0])


def test_many_seeds_stop_at_the_first_that_fails() -> None:
    report = simulate(fails, range(1, 1000), jobs=2)
    assert report.failures
    assert report.first_failure is not None
    assert report.first_failure.seed % 5 == 0
    assert report.seeds < 500
    assert simulate(fails, range(1, 5), jobs=2).failures == []


def test_a_scenario_is_loaded_from_its_file_by_its_name() -> None:
    (found,) = load(f"{HERE}:one_at_a_time")
    assert isinstance(found, Scenario)
    assert found.often == {"entered": 3}
    with pytest.raises(SystemExit, match="no scenario 'gone'"):
        load(f"{HERE}:gone")
    with pytest.raises(SystemExit, match="no such file"):
        load("gone.py:gone")


async def failing() -> None:
    raise ValueError("wrong")


async def spinning() -> None:
    while True:
        await asyncio.sleep(0)


def in_a_task(process: SimulatedProcess) -> None:
    process.start(failing())


def in_the_library(process: SimulatedProcess) -> None:
    process.ask(process.client._connection.finishing.spawn, failing(), "wrong")


def in_a_callback(_: SimulatedProcess) -> None:
    asyncio.get_running_loop().call_soon(lambda: [][1])


def by_spinning(process: SimulatedProcess) -> None:
    process.start(spinning())


def by_what_is_left(process: SimulatedProcess) -> None:
    process.start(asyncio.sleep(100))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (in_a_task, "wrong"),
        (in_the_library, "wrong"),
        (in_a_callback, "out of range"),
        (by_spinning, "it spins"),
        (by_what_is_left, "left behind"),
    ],
)
def test_whatever_fails_fails_the_run(how: Callable[[SimulatedProcess], None], said: str) -> None:
    async def play(simulation: Simulation) -> None:
        how(simulation.process("a"))
        await asyncio.sleep(1)

    with pytest.raises(Exception, match=said):
        played(play)


def test_a_hang_fails_the_run() -> None:
    async def play(simulation: Simulation) -> None:
        await simulation.process("a").call(asyncio.Event().wait())

    with pytest.raises(HangError, match="nothing is scheduled"):
        played(play)


def test_the_fixture_refuses_seeds_in_which_nothing_happened(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from osdisco.testing import scenario

        @scenario(often={"entered": 2})
        async def idle(simulation):
            simulation.seen["entered"] += 1

        @scenario()
        async def fails(simulation):
            assert simulation.seed % 7

        def test_idle(osdisco_simulate):
            osdisco_simulate(idle)

        def test_fails(osdisco_simulate):
            osdisco_simulate(fails)
        """
    )
    many = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    many.assert_outcomes(failed=2)
    many.stdout.fnmatch_lines(
        ["*too rare to mean something: {'entered': 2}*", "run it again: pytest *--osdisco-seed=*"]
    )
    many.stdout.fnmatch_lines(["*= simulated =*", "idle: seeds * to *"])
    seed = next(line for line in many.outlines if line.startswith("run it again")).rpartition("=")[2]
    again = pytester.runpytest_subprocess("-p", "no:cacheprovider", f"--osdisco-seed={seed}")
    again.assert_outcomes(passed=1, failed=1)
