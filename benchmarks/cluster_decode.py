"""The state of a search cluster as readers decode and keep it: 1,000 indices with 10,000 shards, without any store."""

from __future__ import annotations

import gc
import json
import statistics
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence

from attrs import frozen

from benchmarks.figures import Figure
from osdisco.cluster._build import StateBuilder
from osdisco.cluster._cut import cut_state
from osdisco.cluster._join import join_nodes
from osdisco.cluster._pack import compress, expand, pack
from osdisco.cluster._questions import LEFT_OUT, state
from osdisco.cluster.components import StateComponent
from osdisco.cluster.state import ClusterState, StateHeader
from osdisco.testing import FakeCluster

GROUP = "The state of a search cluster, decoded"
INDICES, SHARDS, REPLICAS, NODES = 1_000, 5, 1, 20
MEMORY_MOST, CHANGED_MOST = 0.5, 0.2


@frozen
class Blob:
    """A pack as it comes from the store."""

    sha: str
    size: int
    data: bytes


Blobs = Mapping[StateComponent, Sequence[Blob]]


def measure(rounds: int, indices: int = INDICES) -> list[Figure]:
    """Return the figures; times are medians of `rounds`."""
    cluster = FakeCluster.large(indices, SHARDS, nodes=NODES, replicas=REPLICAS)
    body = _answer(cluster)
    header, blobs = mirrored(body)
    cluster.move_shard(f"logs-{indices // 2:06}", 0, "n9")
    _, moved = mirrored(_answer(cluster))
    shards = f"{indices * SHARDS * (1 + REPLICAS):,} shards"
    return [
        _memory(shards, body, header, blobs),
        _changed(indices, header, blobs, moved, rounds),
        _beside_json(shards, body, header, blobs, rounds),
    ]


def _answer(cluster: FakeCluster) -> bytes:
    """Return what a source gets, so that what nobody reads is in neither side."""
    question = state(LEFT_OUT)
    return cluster.answer(question.path, question.params).body


def mirrored(body: bytes) -> tuple[StateHeader, Blobs]:
    """Return what the mirror makes of an answer of the cluster."""
    cut = cut_state(body)
    cut.parts[StateComponent.NODES].update(join_nodes(cut, None, {}))
    return cut.header, {
        component: [Blob(one.sha, len(one.text), compress(one.text)) for one in pack(parts).packs]
        for component, parts in cut.parts.items()
    }


def decoded(builder: StateBuilder, header: StateHeader, blobs: Blobs) -> ClusterState:
    """Return what a reader makes of the blobs, of which it expands those that it lacks."""
    packs = {}
    for component, some in blobs.items():
        needed = set(builder.needs(component, [blob.sha for blob in some]))
        packs[component] = [
            (blob.sha, expand(blob.data, blob.size, blob.sha) if blob.sha in needed else None) for blob in some
        ]
    return builder.build(header, packs)


def _memory(shards: str, body: bytes, header: StateHeader, blobs: Blobs) -> Figure:
    builder = StateBuilder()
    ours = _kept(lambda: (builder, decoded(builder, header, blobs)))
    theirs = _kept(lambda: json.loads(body))
    detail: dict[str, object] = {"ours MB": ours / 1e6, "dicts MB": theirs / 1e6}
    name = f"memory of a state of {shards}, with what its reader keeps to build the next one"
    return Figure(GROUP, name, ours / theirs, "x as much", "the parsed JSON as dicts", most=MEMORY_MOST, detail=detail)


def _kept(make: Callable[[], object]) -> int:
    """Return how many bytes what is made takes."""
    gc.collect()
    tracemalloc.start()
    made = make()
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del made
    return size


def _changed(indices: int, header: StateHeader, blobs: Blobs, moved: Blobs, rounds: int) -> Figure:
    builder = StateBuilder()
    decoded(builder, header, blobs)
    ours, theirs = [], []
    for number in range(2 * rounds):
        ours.append(_seconds(lambda now=(blobs if number % 2 else moved): decoded(builder, header, now)))
        theirs.append(_seconds(lambda: decoded(StateBuilder(), header, blobs)))
    name, against = f"decoding a state in which 1 of {indices:,} indices changed", "decoding all of it"
    return _figure(name, against, ours, theirs, CHANGED_MOST)


def _beside_json(shards: str, body: bytes, header: StateHeader, blobs: Blobs, rounds: int) -> Figure:
    ours = [_seconds(lambda: decoded(StateBuilder(), header, blobs)) for _ in range(rounds)]
    theirs = [_seconds(lambda: json.loads(body)) for _ in range(rounds)]
    return _figure(f"decoding a state of {shards}", "json.loads of what the cluster sent", ours, theirs, None)


def _figure(name: str, against: str, ours: list[float], theirs: list[float], most: float | None) -> Figure:
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    detail: dict[str, object] = {
        "min": min(ratios),
        "max": max(ratios),
        "ours ms": statistics.median(ours) * 1e3,
        "theirs ms": statistics.median(theirs) * 1e3,
    }
    return Figure(GROUP, name, statistics.median(ratios), "x as long", against, most=most, detail=detail)


def _seconds(call: Callable[[], object]) -> float:
    gc.collect()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
