"""`etcdctl lock <namespace>/lock/<name>` and `osdisco lock <name>` stand in the same queue."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cli_processes import Etcdctl, Invoke, Running, eventually

from osdisco.testing._stores import in_namespace
from osdisco.testing.servers import EtcdServer

Start = Callable[..., Running]
Foreign = Callable[[], Etcdctl]


@pytest.fixture
def namespace() -> str:
    """A namespace that nothing else uses."""
    return f"test-{secrets.token_hex(8)}"


@pytest.fixture
def url(etcd_server: EtcdServer, namespace: str) -> str:
    """The URL of that namespace."""
    return in_namespace(etcd_server.url, namespace)


@pytest.fixture
def etcdctl(etcd_server: EtcdServer, namespace: str) -> Iterator[Foreign]:
    """Start `etcdctl lock` on the lock `n`."""
    started: list[Etcdctl] = []

    def lock() -> Etcdctl:
        started.append(Etcdctl(etcd_server, f"{namespace}/lock/n"))
        return started[-1]

    yield lock
    for one in started:
        one.close()


def test_they_exclude_each_other_and_keep_their_order(url: str, start: Start, invoke: Invoke, etcdctl: Foreign) -> None:
    def queue(length: int) -> list[dict[str, Any]]:
        places: list[dict[str, Any]] = []

        def look() -> bool:
            locks = [one for one in invoke("--url", url, "status", "--json").documents if one["kind"] == "lock"]
            places[:] = [place for one in locks for place in one["holders"] + one["waiting"]]
            return len(places) == length

        eventually(look, f"{length} in the queue")
        return places

    first = start("lock", "n", url=url)
    token = int(first.line())
    theirs = etcdctl()
    queue(2)
    second = start("lock", "n", "--", "echo $OSDISCO_FENCE", url=url)
    ours, foreign, last = queue(3)
    assert [place["foreign"] for place in (ours, foreign, last)] == [False, True, False]
    assert [place["token"] for place in (ours, foreign, last)] == sorted(
        {ours["token"], foreign["token"], last["token"]}
    )
    first.send(2)
    assert first.end().code == 130
    theirs.wait_held()
    holder, waiting = queue(2)
    assert (holder["foreign"], waiting["foreign"]) == (True, False)
    assert second.process.poll() is None
    theirs.interrupt()
    assert int(second.line()) == waiting["token"] > foreign["token"] > token
    assert second.end().code == 0
    queue(0)


def test_what_etcdctl_holds_is_not_free(url: str, start: Start, invoke: Invoke, etcdctl: Foreign) -> None:
    theirs = etcdctl()
    theirs.wait_held()
    tried = invoke("--url", url, "lock", "n", "--try")
    assert (tried.code, "is not free: held by " in tried.err) == (4, True)
    assert invoke("--url", url, "lock", "n", "--timeout", "300ms", "--", "true").code == 124
    (line,) = invoke("--url", url, "status").out.splitlines()
    kind, name, state, _, since, _, more = line.split("\t")
    assert (kind, name, state, since, more) == ("lock", "n", "holds", "-", "not osdisco's")
    waiting = start("lock", "n", "--", "echo ours", url=url)
    eventually(lambda: invoke("--url", url, "status").out.count("waits") == 1, "ours to wait")
    again = etcdctl()
    eventually(lambda: invoke("--url", url, "status").out.count("waits") == 2, "both to wait")
    theirs.interrupt()
    assert waiting.end().out == "ours\n"
    again.wait_held()
