"""What watches showed, and whether it was ordered, each change once, complete, and never behind a bookmark.

    log = Log(frames_of_a_watch_of_all)          # etcd: every change
    problems = watch_problems(frames, log=log)   # the frames of any other watch, over all its resumptions

Frames are those of `Backend.watch`, and a watch that was opened again `after` the revision of its last frame simply
goes on: that it can is one of the things that are looked at. Stores that conflate (Consul) show no states in between;
there the frames must end at what the store holds (`final`).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from osdisco.backend import Batch, Item, Snapshot

Frame = Snapshot | Batch


class Log:
    """All changes of a prefix, from an empty beginning on, in their order.

    Args:
        frames: of a watch that began when nothing was there, and saw every change: batches, and at first a Snapshot.

    Raises:
        ValueError: these are no such frames.
    """

    def __init__(self, frames: Iterable[Frame]) -> None:
        self.batches: list[Batch] = []
        self.deletes: Counter[str] = Counter()
        self._versions: dict[str, list[tuple[int, Item | None]]] = defaultdict(list)
        for number, frame in enumerate(frames):
            if isinstance(frame, Batch):
                self._add(frame)
            elif number or frame.items:
                raise ValueError("a snapshot within a log, or one that is not empty: what came before is not known")
        self.revisions = [batch.revision for batch in self.batches]

    def _add(self, batch: Batch) -> None:
        if not (batch.puts or batch.deletes):
            return
        if self.batches and batch.revision <= self.batches[-1].revision:
            raise ValueError(f"the log shows revision {batch.revision} after {self.batches[-1].revision}")
        self.batches.append(batch)
        self.deletes.update(batch.deletes)
        for key in batch.deletes:
            self._versions[key].append((batch.revision, None))
        for item in batch.puts:
            self._versions[item.key].append((batch.revision, item))

    @property
    def puts(self) -> Iterator[Item]:
        """All that was ever put."""
        return (item for batch in self.batches for item in batch.puts)

    def before(self, key: str, revision: int) -> Item | None:
        """Return what a key held right before a revision."""
        versions = self._versions.get(key, [])
        place = bisect_left(versions, revision, key=lambda version: version[0])
        return versions[place - 1][1] if place else None

    def state(self, revision: int) -> dict[str, Item]:
        """Return what was there at a revision."""
        found = {key: self.before(key, revision + 1) for key in self._versions}
        return {key: item for key, item in found.items() if item is not None}

    def place(self, revision: int) -> int:
        """Return how many batches are not above a revision."""
        return bisect_right(self.revisions, revision)


def watch_problems(
    frames: Sequence[Frame], *, log: Log | None = None, final: Mapping[str, Item] | None = None
) -> list[str]:
    """Return what a watch must not have shown, or not have left out; nothing when all is well.

    Args:
        frames: all that one watch showed, over all its resumptions, until everything was there.
        log: all changes, which it must have shown, each once; what it has skipped by a Snapshot need only be in that.
        final: what the store held at the end.
    """
    if not frames or not isinstance(frames[0], Snapshot):
        return ["a watch begins with a snapshot"]
    found = [*_ordered(frames)]
    if log is not None:
        found += _complete(frames, log)
    if final is not None and (folded := fold(frames)) != final:
        wrong = {key for key in folded.keys() | final.keys() if folded.get(key) != final.get(key)}
        found.append(f"it ends with {len(wrong)} other keys than the store: {sorted(wrong)[:5]}")
    return found


def fold(frames: Iterable[Frame]) -> dict[str, Item]:
    """Return what the frames lead to."""
    items: dict[str, Item] = {}
    for frame in frames:
        _apply(frame, items)
    return items


def items_of(frames: Iterable[Frame]) -> list[Item]:
    """Return all that was shown, each version of each key once."""
    shown = (frame.items.values() if isinstance(frame, Snapshot) else frame.puts for frame in frames)
    return list({(item.key, item.revision): item for items in shown for item in items}.values())


def unprefixed(frames: Iterable[Frame], prefix: str) -> list[Frame]:
    """Return the frames with keys from which a prefix, such as a namespace, is taken away."""
    return [_unprefixed(frame, prefix) for frame in frames]


def _unprefixed(frame: Frame, prefix: str) -> Frame:
    def named(item: Item) -> Item:
        return item._replace(key=item.key.removeprefix(prefix))

    if isinstance(frame, Snapshot):
        return Snapshot({key.removeprefix(prefix): named(item) for key, item in frame.items.items()}, frame.revision)
    deletes = tuple(key.removeprefix(prefix) for key in frame.deletes)
    return Batch(tuple(map(named, frame.puts)), deletes, frame.revision)


def _apply(frame: Frame, items: dict[str, Item]) -> None:
    if isinstance(frame, Snapshot):
        items.clear()
        items.update(frame.items)
        return
    for key in frame.deletes:
        items.pop(key, None)
    items.update({item.key: item for item in frame.puts})


def _ordered(frames: Iterable[Frame]) -> Iterator[str]:
    """Neither the watch nor a key goes back, and a frame's revision is a bookmark: what is not above it was shown."""
    mark = 0
    items: dict[str, Item] = {}
    newest: dict[str, int] = {}
    for frame in frames:
        if frame.revision < mark:
            yield f"{_named(frame)} after {mark}"
        for item in frame.items.values() if isinstance(frame, Snapshot) else frame.puts:
            known = items.get(item.key) if isinstance(frame, Snapshot) else None
            if item != known and item.revision <= mark:
                yield f"{_named(frame)} shows {item} behind the bookmark {mark}, or again"
            if item.revision < newest.get(item.key, 0):
                yield f"{_named(frame)} shows {item} after {newest[item.key]}"
            if item.revision > frame.revision:
                yield f"{_named(frame)} shows {item} before its time"
            newest[item.key] = max(item.revision, newest.get(item.key, 0))
        _apply(frame, items)
        mark = max(mark, frame.revision)


def _complete(frames: Sequence[Frame], log: Log) -> Iterator[str]:
    """Each batch is the next one of the log, and each snapshot what was there."""
    place = 0
    for frame in frames:
        if isinstance(frame, Snapshot):
            place = log.place(frame.revision)
            if dict(frame.items) != log.state(frame.revision):
                yield f"{_named(frame)} is not what was there"
        elif frame.puts or frame.deletes:
            if place == len(log.batches):
                yield f"{_named(frame)} is not in the log"
                continue
            if not _same(frame, log.batches[place]):
                yield f"{_named(frame)} where {_named(log.batches[place])} comes next"
                place = max(0, log.place(frame.revision) - 1)
            place += 1
        elif log.place(frame.revision) > place:
            yield f"a bookmark of {frame.revision} before {_named(log.batches[place])} was shown"
            place = log.place(frame.revision)
    if place < len(log.batches):
        yield f"{len(log.batches) - place} changes were not shown, first {_named(log.batches[place])}"


def _same(one: Batch, two: Batch) -> bool:
    return (one.revision, set(one.deletes), set(one.puts)) == (two.revision, set(two.deletes), set(two.puts))


def _named(frame: Frame) -> str:
    what = f"{len(frame.items)} items" if isinstance(frame, Snapshot) else f"{[*frame.puts, *frame.deletes]}"
    return f"the {type(frame).__name__.lower()} at {frame.revision} of {what}"
