"""The small parts of the core: owners of tasks, signals, what is injected, how backends are found, the error tree."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
from importlib.metadata import EntryPoint
from random import Random
from typing import Any

import pytest

import osdisco
from osdisco import errors
from osdisco._plugins import load_backend
from osdisco._signal import Signal
from osdisco._tasks import Errand, Supervisor, cancel
from osdisco.errors import ConfigError, LostError, OsdiscoError, TimedOutError, UnavailableError, nearest
from osdisco.runtime import Runtime, SystemClock
from osdisco.testing import VirtualClock

# owners of tasks


async def test_a_supervisor_runs_what_it_is_given_and_hands_out_the_result(clock: VirtualClock) -> None:
    supervisor = Supervisor()
    assert await supervisor.spawn(asyncio.sleep(1, "done"), "something") == "done"
    await supervisor.aclose()


async def test_a_failing_task_harms_neither_its_siblings_nor_who_started_it(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(error: Exception) -> None:
        raise error

    supervisor = Supervisor()
    with caplog.at_level(logging.DEBUG):
        sibling = supervisor.spawn(asyncio.sleep(5, "well"), "sibling")
        supervisor.spawn(fail(UnavailableError("expected")), "expected")
        supervisor.spawn(fail(KeyError("strange")), "strange")
        assert await sibling == "well"
    told = {record.getMessage(): record.levelname for record in caplog.records if record.name == "osdisco"}
    assert told == {"osdisco: expected: expected": "DEBUG", "osdisco: strange failed": "ERROR"}


async def test_closing_a_supervisor_cancels_and_waits(clock: VirtualClock) -> None:
    ended: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(1)
            ended.append("slow")

    supervisor = Supervisor()
    supervisor.spawn(slow(), "slow")
    await asyncio.sleep(0.1)
    await supervisor.aclose()
    assert ended == ["slow"]


async def test_draining_lets_what_runs_end_and_what_it_starts_too(clock: VirtualClock) -> None:
    ended: list[str] = []
    supervisor = Supervisor()

    async def last() -> None:
        await asyncio.sleep(1)
        ended.append("last")

    async def first() -> None:
        await asyncio.sleep(1)
        ended.append("first")
        supervisor.spawn(last(), "last")

    supervisor.spawn(first(), "first")
    await supervisor.drain(5)
    assert ended == ["first", "last"]
    assert clock.now() == pytest.approx(2)


async def test_draining_cancels_what_takes_too_long(clock: VirtualClock) -> None:
    supervisor = Supervisor()
    task = supervisor.spawn(asyncio.sleep(60), "long")
    await supervisor.drain(5)
    assert task.cancelled()
    assert clock.now() == pytest.approx(5)
    await supervisor.drain(5)
    assert clock.now() == pytest.approx(5)


async def test_cancelling_leaves_out_the_one_who_cancels(clock: VirtualClock) -> None:
    task = asyncio.current_task()
    assert task is not None
    other = asyncio.create_task(asyncio.sleep(60))
    await cancel(task, other)
    await cancel()
    assert other.cancelled()
    assert task.cancelling() == 0


async def test_an_errand_goes_on_when_who_waits_for_it_is_cancelled(clock: VirtualClock) -> None:
    supervisor = Supervisor()
    errand = Errand(asyncio.sleep(5, "done"), supervisor.spawn, "errand")
    waiters = [asyncio.create_task(errand.wait()) for _ in range(3)]
    await asyncio.sleep(1)
    waiters[0].cancel()
    assert await errand.wait(timeout=1) is False
    assert await waiters[1] is await waiters[2] is True
    assert (waiters[0].cancelled(), errand.task.result(), await errand.wait()) == (True, "done", True)


async def test_who_waits_for_an_errand_is_woken_also_when_it_fails_or_never_begins(clock: VirtualClock) -> None:
    async def fail() -> None:
        await asyncio.sleep(1)
        raise UnavailableError("expected")

    supervisor = Supervisor()
    failing = Errand(fail(), supervisor.spawn, "failing")
    assert await failing.wait()
    with pytest.raises(UnavailableError, match="expected"):
        failing.task.result()
    work = asyncio.sleep(1)
    unbegun = Errand(work, supervisor.spawn, "unbegun")
    unbegun.task.cancel()
    assert await asyncio.wait_for(unbegun.wait(), 1) is True
    assert unbegun.task.cancelled()
    work.close()


# signals


async def test_a_signal_wakes_all_and_each_looks_for_itself(clock: VirtualClock) -> None:
    signal, state = Signal(), {"n": 0}
    conditions = (lambda: state["n"] >= 1, lambda: state["n"] >= 2)
    waiting = [asyncio.create_task(signal.wait_for(condition)) for condition in conditions]
    await asyncio.sleep(1)
    state["n"] = 1
    signal.fire()
    await asyncio.sleep(1)
    assert [task.done() for task in waiting] == [True, False]
    state["n"] = 2
    signal.fire()
    signal.fire()
    await asyncio.gather(*waiting)


async def test_a_signal_does_not_wait_for_what_is_true_already(clock: VirtualClock) -> None:
    for timeout in (None, 1, 0, -1):
        await Signal().wait_for(lambda: True, timeout)
    assert clock.now() == 0


async def test_who_waits_too_long_or_is_cancelled_is_forgotten(clock: VirtualClock) -> None:
    signal = Signal()
    with pytest.raises(TimeoutError):
        await signal.wait_for(lambda: False, 2)
    assert clock.now() == pytest.approx(2)
    waiting = asyncio.create_task(signal.wait_for(lambda: False))
    await asyncio.sleep(1)
    await cancel(waiting)
    assert not signal._waiters


# what is injected


def test_deadlines_are_measured_on_a_clock_that_counts_suspend() -> None:
    boottime = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    before = time.clock_gettime(boottime)
    assert before <= SystemClock().now() <= time.clock_gettime(boottime)
    assert abs(SystemClock().wall() - time.time()) < 60


def test_randomness_and_ids_come_from_the_source_that_was_given() -> None:
    one, same, other = (Runtime(random=Random(seed)) for seed in (1, 1, 2))
    ids = [one.unique() for _ in range(100)]
    assert len(set(ids)) == 100
    assert all(len(id_) == 32 and int(id_, 16) >= 0 for id_ in ids)
    assert [same.unique() for _ in range(100)] == ids
    assert other.unique() not in ids
    assert all(0.5 <= one.jittered(1) <= 1 for _ in range(100))


def test_a_process_is_called_by_its_host_and_pid_unless_it_has_a_name() -> None:
    assert Runtime().name == f"{socket.gethostname()}:{os.getpid()}"
    client = osdisco.connect("memory://", name="geo-1", clock=VirtualClock(), random=Random(7))
    assert client.runtime.name == "geo-1"
    assert client.runtime.unique() == Runtime(random=Random(7)).unique()


# how backends are found


def entry_points(monkeypatch: pytest.MonkeyPatch, **targets: str) -> None:
    points = [EntryPoint(name, target, "osdisco.backends") for name, target in targets.items()]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points if group == "osdisco.backends" else [])


def test_a_backend_of_a_third_party_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    entry_points(monkeypatch, mystore="core_fakes:Scripted")
    from core_fakes import Scripted

    assert load_backend("mystore") is Scripted


@pytest.mark.parametrize("target", ["nowhere_at_all:Backend", "core_fakes:NotThere"])
def test_a_backend_that_cannot_be_loaded_is_a_config_error_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    entry_points(monkeypatch, mystore=target)
    with pytest.raises(ConfigError, match=r"mystore:// cannot be imported: .*(nowhere_at_all|NotThere)"):
        load_backend("mystore")


def test_without_any_backend_none_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    entry_points(monkeypatch)
    with pytest.raises(ConfigError, match="no backend is installed for 'etcd' URLs; known are none"):
        load_backend("etcd")


def test_importing_the_library_loads_no_driver_and_not_what_few_need() -> None:
    import subprocess

    heavy = [
        "osdisco_memory",
        "osdisco_etcd",
        "osdisco_consul",
        "grpc",
        "aiohttp",
        "cattrs",
        "click",
        "rich",
        "difflib",
    ]
    code = f"import osdisco, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# errors


def all_errors() -> list[type[OsdiscoError]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, OsdiscoError)]


def test_every_error_is_an_osdisco_error_with_a_docstring() -> None:
    assert len(all_errors()) >= 15
    assert all(kind.__doc__ for kind in all_errors())


def test_nothing_that_handles_not_applied_catches_unknown() -> None:
    for kind in all_errors():
        assert kind is errors.IndeterminateError or not issubclass(kind, errors.IndeterminateError)
    assert errors.IndeterminateError.__bases__ == (OsdiscoError,)


def test_errors_can_be_caught_as_pythons_own() -> None:
    for kind in (ConfigError, errors.InvalidNameError, errors.InvalidCommitError):
        assert issubclass(kind, ValueError)
    assert issubclass(TimedOutError, TimeoutError)
    assert not issubclass(UnavailableError, TimeoutError)


def test_a_lost_error_keeps_its_reason() -> None:
    import pickle

    error = LostError("revoked")
    assert (error.reason, str(error)) == ("revoked", "revoked")
    assert pickle.loads(pickle.dumps(error)).reason == "revoked"


@pytest.mark.parametrize(
    ("word", "said"), [("timeot", "; did you mean 'timeout'?"), ("xyz", ""), ("", ""), ("ttl", "; did you mean 'ttl'?")]
)
def test_the_nearest_word_is_suggested_when_it_is_near(word: str, said: str) -> None:
    assert nearest(word, ["timeout", "ttl"]) == said


def test_all_public_names_are_there() -> None:
    namespace: dict[str, Any] = {}
    exec("from osdisco import *", namespace)
    assert set(osdisco.__all__) <= namespace.keys()
