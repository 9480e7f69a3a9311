"""`osdisco doctor`: finds what is wrong, says what to do, and leaves nothing behind."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from cli_processes import Invoke, Ran

from osdisco.cli._advice import grant, outdated
from osdisco.cli._checks import _transport
from osdisco.url import StoreURL
from osdisco_memory import CONSUL, MemoryStore

CHECKS = ["transport", "endpoint", "leader", "clock", "read", "write", "watch", "session", "ttl range", "latency"]


@pytest.fixture
def store(memory_url: str) -> Iterator[MemoryStore]:
    """The memory store that the doctor looks at."""
    store = MemoryStore.named(StoreURL.parse(memory_url).hosts[0].name)
    yield store
    assert store.scan("").items == {}


def examined(invoke: Invoke, url: str) -> tuple[int, dict[str, dict[str, object]]]:
    told = invoke("--url", url, "--json", "doctor")
    return told.code, {document["check"]: document for document in told.documents}


def test_a_healthy_store(invoke: Invoke, memory_url: str, store: MemoryStore) -> None:
    code, found = examined(invoke, memory_url)
    assert code == 0
    assert list(found) == CHECKS
    assert {document["level"] for document in found.values()} == {"ok"}
    assert found["session"]["asked"] == found["session"]["granted"] == 15.0
    assert found["ttl range"]["min"] == 1.0
    for time_ in ("put", "get"):
        assert 0 < float(str(found["latency"][time_])) < 0.1


def test_a_missing_permission_to_write(invoke: Invoke, memory_url: str, store: MemoryStore) -> None:
    store.faults.deny("commit")
    code, found = examined(invoke, memory_url)
    assert code == 1
    assert found["read"]["level"] == "ok"
    assert found["write"]["level"] == "fail"
    assert "osdisco/" in str(found["write"]["advice"])


def test_a_missing_permission_to_hold_leases(invoke: Invoke, memory_url: str, store: MemoryStore) -> None:
    store.faults.deny("grant")
    code, found = examined(invoke, memory_url)
    assert code == 1
    assert [check for check in CHECKS if found[check]["level"] == "fail"] == ["session", "ttl range"]


def test_a_missing_permission_to_watch(invoke: Invoke, memory_url: str, store: MemoryStore) -> None:
    store.faults.deny("watch", key="/doctor/")
    code, found = examined(invoke, memory_url)
    assert code == 1
    assert [check for check in CHECKS if found[check]["level"] == "fail"] == ["watch"]


def test_a_store_that_is_down(invoke: Invoke, memory_url: str, store: MemoryStore) -> None:
    store.faults.outage()
    code, found = examined(invoke, f"{memory_url}?timeout=300ms")
    assert code == 5
    assert list(found)[-1] == "read"
    assert found["endpoint"]["level"] == "fail"
    assert found["read"]["level"] == "down"


def test_a_ttl_that_the_store_raises(invoke: Invoke, memory_url: str, store: MemoryStore) -> None:
    store.limits = CONSUL
    code, found = examined(invoke, f"{memory_url}?ttl=4s")
    session = found["session"]
    assert (code, session["level"], session["advice"]) == (0, "warn", "say ttl=10s")
    assert (session["asked"], session["granted"], session["crash_seen_after_max"]) == (4.0, 10.0, 20.0)
    assert found["ttl range"]["min"] == 10.0


def test_a_slow_store(invoke: Invoke, memory_url: str, store: MemoryStore) -> None:
    store.faults.delay("commit", request=0.12)
    code, found = examined(invoke, memory_url)
    assert (code, found["latency"]["level"]) == (0, "warn")
    assert float(str(found["latency"]["put"])) >= 0.12


@pytest.mark.parametrize(("ahead", "told"), [(90, "90 s ahead"), (-90, "90 s behind")])
def test_a_wrong_clock(
    ahead: float, told: str, invoke: Invoke, memory_url: str, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "wall", lambda: time.time() + ahead)
    code, found = examined(invoke, memory_url)
    assert (code, found["clock"]["level"]) == (0, "warn")
    assert told in str(found["clock"]["said"])


def test_the_report_for_people_has_all_of_it(invoke: Invoke, memory_url: str, store: MemoryStore) -> None:
    store.faults.deny("commit")
    told: Ran = invoke("--url", memory_url, "doctor")
    lines = told.out.splitlines()
    assert lines[0] == f"osdisco doctor: {memory_url}/osdisco"
    (at,) = [number for number, line in enumerate(lines) if line.startswith("fail write ")]
    assert lines[at + 1].strip().startswith("grant: ")


@pytest.mark.parametrize(
    ("url", "level", "word"),
    [
        ("etcd://10.0.0.1", "warn", "use etcds://"),
        ("consul://10.0.0.1", "warn", "use consul+https://"),
        ("etcd://127.0.0.1,localhost,[::1]", "ok", ""),
        ("etcds://10.0.0.1", "ok", ""),
        ("etcds://10.0.0.1?tls_verify=false", "warn", "tls_ca="),
        ("etcds://u:hunter2@10.0.0.1", "warn", "password_file="),
    ],
)
def test_the_way_to_the_store(url: str, level: str, word: str) -> None:
    last = list(_transport(StoreURL.parse(url)))[-1]
    assert last.level.value == level
    assert word in last.advice


def test_permissions_are_told_in_the_stores_own_words() -> None:
    assert "--prefix=true readwrite a/b/" in grant(StoreURL.parse("etcd+https://h/a/b"))
    assert 'key_prefix "a/b/" { policy = "write" }' in grant(StoreURL.parse("consul://h/a/b"))


@pytest.mark.parametrize(
    ("url", "version", "old"),
    [
        ("etcd://h", "3.5.22", True),
        ("etcds://h", "3.4.0", True),
        ("etcd+http://h", "3.5.23", False),
        ("etcd://h", "3.6.0-rc.1", False),
        ("etcd://h", None, False),
        ("consul://h", "1.8.7", False),
    ],
)
def test_old_servers_that_are_known_to_be_wrong(url: str, version: str | None, old: bool) -> None:
    assert bool(outdated(StoreURL.parse(url), version)) is old


@pytest.mark.osdisco("etcd", "etcd+http", "etcds", "etcd+https", "consul", "consul+https")
def test_real_stores(osdisco_url: str, invoke: Invoke) -> None:
    code, found = examined(invoke, osdisco_url)
    assert code == 0, found
    assert set(CHECKS) <= set(found)
    assert all(document["level"] in ("ok", "warn") for document in found.values())
    assert invoke("--url", osdisco_url, "kv", "ls").out == ""
