"""`osdisco barrier` and `osdisco counter`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cli_processes import Invoke, Running

REAL = pytest.mark.osdisco("etcd", "consul")


def test_a_barrier_is_held_waited_at_and_released(invoke: Invoke, memory_url: str) -> None:
    def barrier(*args: str) -> int:
        told = invoke("--url", memory_url, "barrier", *args)
        assert told.out == ""
        return told.code

    assert barrier("wait", "n") == 0
    assert barrier("hold", "n") == 0
    assert barrier("hold", "n") == 0
    assert barrier("wait", "n", "--timeout", "50ms") == 4
    assert barrier("wait", "other") == 0
    assert barrier("release", "n") == 0
    assert barrier("release", "n") == 0
    assert barrier("wait", "n") == 0


def test_a_barrier_says_what_happened_as_json(invoke: Invoke, memory_url: str) -> None:
    for command, event in (("hold", "held"), ("release", "released"), ("wait", "passed")):
        told = invoke("--url", memory_url, "--json", "barrier", command, "a/b c")
        assert told.documents == [{"event": event, "barrier": "a/b c"}]
    invoke("--url", memory_url, "barrier", "hold", "n")
    late = invoke("--url", memory_url, "--json", "barrier", "wait", "n", "--timeout", "10ms")
    assert (late.code, late.error["type"]) == (4, "TimedOutError")


@REAL
def test_who_waits_in_another_process_passes_when_it_is_released(
    osdisco_url: str, invoke: Invoke, start: Callable[..., Running]
) -> None:
    assert invoke("--url", osdisco_url, "barrier", "hold", "n").code == 0
    waiting = start("barrier", "wait", "n", "--json", url=osdisco_url)
    assert invoke("--url", osdisco_url, "barrier", "wait", "n", "--timeout", "500ms").code == 4
    assert waiting.process.poll() is None
    assert invoke("--url", osdisco_url, "barrier", "release", "n").code == 0
    assert waiting.end().code == 0


def test_a_counter_counts(invoke: Invoke, memory_url: str) -> None:
    def counter(*args: str) -> str:
        told = invoke("--url", memory_url, "counter", *args)
        assert (told.code, told.err) == (0, "")
        return told.out

    assert counter("get", "jobs") == "0\n"
    assert counter("add", "jobs") == "1\n"
    assert counter("add", "jobs", "10") == "11\n"
    assert counter("add", "jobs", "-20") == "-9\n"
    assert counter("add", "--exactly-once", "jobs", "-1") == "-10\n"
    assert counter("add", "--", "-5", "-2") == "-2\n"
    assert counter("get", "--", "-5") == "-2\n"
    assert counter("get", "jobs", "--json") == '{"counter": "jobs", "value": -10}\n'
    assert counter("add", "jobs", "-3", "--json") == '{"counter": "jobs", "value": -13}\n'


@REAL
def test_a_counter_counts_on_every_store(osdisco_url: str, invoke: Invoke) -> None:
    assert [invoke("--url", osdisco_url, "counter", "add", "n", "2").out for _ in range(3)] == ["2\n", "4\n", "6\n"]
    assert invoke("--url", osdisco_url, "counter", "add", "n", "--exactly-once").out == "7\n"


def test_what_is_no_counter_is_told(invoke: Invoke, memory_url: str) -> None:
    invoke("--url", memory_url, "kv", "put", "ctr/n", "many")
    for args in (("get", "n"), ("add", "n")):
        told = invoke("--url", memory_url, "counter", *args)
        assert (told.code, told.err.count("\n")) == (1, 1)
        assert "holds no number" in told.err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("counter", "add", "n", "1.5"), "not a valid integer"),
        (("counter", "add", "n", "many"), "not a valid integer"),
        (("counter", "add", "n", "1", "2"), "unexpected extra argument"),
        (("counter", "add", "n", "--twice"), "--twice"),
        (("counter", "add"), "Missing argument 'NAME'"),
        (("counter", "get", ""), "must not be empty"),
        (("counter", "n"), "'osdisco counter --help'"),
        (("barrier", "wait", "n", "--timeout", "-1s"), "not a duration"),
        (("barrier", "wait", "n", "--timeout", "0"), "above zero"),
        (("barrier", "hold", "x" * 256), "255 are allowed"),
        (("barrier", "hold"), "Missing argument 'NAME'"),
        (("barrier", "lift", "n"), "'osdisco barrier --help'"),
    ],
)
def test_a_mistake_of_usage_is_code_2_in_one_line(args: tuple[str, ...], said: str, invoke: Invoke) -> None:
    told = invoke("--url", "memory://", *args)
    assert (told.code, told.out) == (2, "")
    assert said in told.err
    assert told.err.count("\n") == 1
