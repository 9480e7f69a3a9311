"""Keys, values, changes and extensions at the command line."""

from __future__ import annotations

import asyncio
import base64
import signal
from collections.abc import Callable

import pytest
from cli_processes import Invoke, Ran, Running

import osdisco


def test_get_prints_the_bytes_as_they_are(invoke: Invoke, memory_url: str) -> None:
    value = b"\x00\xff\n no newline at the end"
    put = invoke("--url", memory_url, "kv", "put", "bin", "-", stdin=value)
    assert put.code == 0
    assert invoke("--url", memory_url, "kv", "get", "bin").raw == value
    (document,) = invoke("--url", memory_url, "kv", "get", "bin", "--json").documents
    assert base64.b64decode(document["base64"]) == value
    assert "value" not in document
    assert document["revision"] == int(put.out)


def test_get_and_rm_of_what_is_not_there_is_code_3(invoke: Invoke, memory_url: str) -> None:
    for command in ("get", "rm"):
        told = invoke("--url", memory_url, "kv", command, "nothing")
        assert told.code == 3
        assert "'nothing'" in told.err


def test_a_key_that_looks_like_a_path_is_just_a_key(invoke: Invoke, memory_url: str) -> None:
    key = "job/../../agent/leave/é %2F"
    assert invoke("--url", memory_url, "kv", "put", key, "v").code == 0
    assert invoke("--url", memory_url, "kv", "get", key).raw == b"v"
    assert [d["key"] for d in invoke("--url", memory_url, "kv", "ls", "--json").documents] == [key]


def test_put_with_conditions(invoke: Invoke, memory_url: str) -> None:
    def put(*args: str) -> int:
        told: Ran = invoke("--url", memory_url, "kv", "put", "k", *args)
        return told.code

    first = invoke("--url", memory_url, "kv", "put", "k", "1", "--create")
    assert first.code == 0
    assert put("2", "--create") == 4
    assert put("2", "--expect", first.out.strip()) == 0
    assert put("3", "--expect", first.out.strip()) == 4
    assert invoke("--url", memory_url, "kv", "get", "k").raw == b"2"
    assert put("4") == 0


def test_rm_with_a_condition(invoke: Invoke, memory_url: str) -> None:
    revision = invoke("--url", memory_url, "kv", "put", "k", "1").out.strip()
    assert invoke("--url", memory_url, "kv", "rm", "k", "--expect", "999999").code == 4
    assert invoke("--url", memory_url, "kv", "get", "k").raw == b"1"
    assert invoke("--url", memory_url, "kv", "rm", "k", "--expect", revision).code == 0
    assert invoke("--url", memory_url, "kv", "get", "k").code == 3


def test_ls_lists_a_prefix_and_obeys_no_terminal_codes(invoke: Invoke, memory_url: str) -> None:
    for key, value in (("a/1", "x"), ("a/2", "\x1b[31mred\ttab\nline"), ("ab", "y")):
        assert invoke("--url", memory_url, "kv", "put", key, value).code == 0
    for prefix in ("a", "a/"):
        lines = invoke("--url", memory_url, "kv", "ls", prefix).out.splitlines()
        assert [line.split("\t")[0] for line in lines] == ["a/1", "a/2"]
        assert lines[1].split("\t")[4] == "\\x1b[31mred\\ttab\\nline"
    assert [d["key"] for d in invoke("--url", memory_url, "kv", "ls", "--json").documents] == ["a/1", "a/2", "ab"]
    assert invoke("--url", memory_url, "kv", "ls", "none").out == ""


def test_a_value_over_the_limit_is_refused(invoke: Invoke, memory_url: str) -> None:
    told = invoke("--url", memory_url, "kv", "put", "k", "-", stdin=b"x" * (256 * 1024 + 1))
    assert told.code == 1
    assert "262144" in told.err


@pytest.mark.osdisco("etcd", "consul")
def test_watch_shows_what_is_there_and_what_changes(
    osdisco_url: str, invoke: Invoke, start: Callable[..., Running]
) -> None:
    def do(*args: str) -> None:
        assert invoke("--url", osdisco_url, "kv", *args).code == 0

    do("put", "a/1", "one")
    do("put", "b/1", "other")
    watching = start("--url", osdisco_url, "watch", "a")
    assert watching.line().startswith("+ a/1 = one  (revision ")
    do("put", "a/1", "two")
    assert watching.line().startswith("~ a/1 = two  (revision ")
    do("rm", "a/1")
    assert watching.line() == "- a/1"
    watching.send(signal.SIGINT)
    ended = watching.end()
    assert (ended.code, ended.out, ended.err) == (130, "", "")


@pytest.mark.osdisco("etcd", "consul")
def test_watch_as_json_keeps_transactions_together(osdisco_url: str, start: Callable[..., Running]) -> None:
    watching = start("watch", "--json", url=osdisco_url)
    first = watching.line()
    asyncio.run(_commit_two(osdisco_url))
    second = watching.line()
    watching.send(signal.SIGTERM)
    assert watching.end().code == 143
    assert '"puts": []' in first
    assert '"key": "x"' in second
    assert '"key": "y"' in second


async def _commit_two(url: str) -> None:
    async with osdisco.connect(url) as client:
        await client.commit([osdisco.Put("x", b"1"), osdisco.Put("y", b"2")])


@pytest.mark.parametrize(
    "command",
    [
        ("kv", "get", "k"),
        ("watch",),
        ("ls",),
        ("kv", "ls"),
        ("lock", "x"),
        ("lock", "-n", "2", "x"),
        ("elect", "x"),
        ("elect", "-l", "x"),
        ("barrier", "hold", "x"),
        ("barrier", "wait", "x"),
        ("barrier", "release", "x"),
        ("counter", "get", "x"),
        ("counter", "add", "x", "--exactly-once"),
        ("status",),
        ("routes", "show", "x"),
        ("routes", "history", "x"),
        ("routes", "rollback", "x"),
    ],
)
@pytest.mark.parametrize("scheme", ["etcd", "consul"])
def test_a_store_that_is_not_there_is_code_5(scheme: str, command: tuple[str, ...], invoke: Invoke) -> None:
    told = invoke("--url", f"{scheme}://127.0.0.1:1?timeout=500ms", *command)
    assert told.code == 5
    assert "127.0.0.1:1" in told.err
    assert told.err.count("\n") == 1
