"""Work on much text: off the event loop, wherever there are threads."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from mirrors import EVERYTHING, Mirrored
from worlds import World

import osdisco
from osdisco.cluster import ClusterStateService, _fetch, _intake, _publisher, _reader
from osdisco.cluster._aside import ASIDE, aside
from osdisco.testing import FakeCluster

HERE = threading.main_thread()


async def test_little_is_done_at_once_and_much_in_a_thread() -> None:
    assert await aside(ASIDE, threading.current_thread) is HERE
    assert await aside(ASIDE + 1, threading.current_thread) is not HERE


async def test_in_virtual_time_all_is_done_at_once(world: World) -> None:
    assert await aside(10 * ASIDE, threading.current_thread) is HERE


async def test_a_large_cluster_is_mirrored_in_virtual_time(world: World) -> None:
    mirrored = Mirrored(world, FakeCluster.large(300), audited=False)
    mirror = await mirrored.mirror(*EVERYTHING)
    await mirrored.seen(mirror)


async def test_the_loop_takes_no_large_answer_apart_and_builds_no_large_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 20 ms for 200 KiB, a loop that did it itself would be late for all else."""
    done: dict[str, bool] = {}

    def noted(module: Any, name: str, large: Callable[..., bool]) -> None:
        work = getattr(module, name)

        def noting(*given: Any, **more: Any) -> Any:
            if large(*given):
                done[name] = done.get(name, True) and threading.current_thread() is not HERE
            return work(*given, **more)

        monkeypatch.setattr(module, name, noting)

    for name in ("cut_state", "cut_nodes", "cut_settings"):
        noted(_intake, name, lambda body: len(body) > ASIDE)
    noted(_intake, "membership", lambda cut: True)
    noted(_intake, "join_nodes", lambda *_: True)
    noted(_publisher, "compress", lambda text: True)
    noted(_fetch, "expand", lambda data, size, sha: size > ASIDE)
    noted(_reader.StateBuilder, "build", lambda builder, header, packs: True)
    cluster = FakeCluster.large(150, nodes=400)
    cluster.settings.update({f"some.setting.{number}": "x" * 100 for number in range(2000)})
    source = cluster.source()
    async with osdisco.connect("memory://aside") as client, ClusterStateService(client, source) as service:
        await service.subscribe(EVERYTHING, timeout=30)
        assert len(await source.nodes()) > ASIDE
        assert len(json.dumps(cluster.settings)) > ASIDE
    assert done == dict.fromkeys(done, True)
    assert done.keys() >= {"cut_state", "cut_nodes", "cut_settings", "membership", "join_nodes", "compress", "build"}
