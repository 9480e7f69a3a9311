"""The watch: a row of blocking reads, and the rules of their index. Numbers are the cases of the semantic contract."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

import pytest
from consul_fakes import SILENCE, Fake, FakeAgent, Open, Request, http, kv

from osdisco.backend import WATCH_SILENCE, Batch, Snapshot
from osdisco.errors import DeniedError, UnavailableError
from osdisco_consul import _backend, _wire

DENIED = http(403, "Permission denied")


def missing(index: int) -> bytes:
    return http(404, X_Consul_Index=index)


async def scripted(fake: Fake, *answers: bytes | None, probe: bytes | None = None) -> FakeAgent:
    """Start an agent that gives these answers to polls, then falls silent."""
    left: Iterator[bytes | None] = iter(answers)
    return await fake(lambda r: (probe or missing(1)) if r.path.endswith("_probe") else next(left, SILENCE))


def polls(agent: FakeAgent) -> list[str | None]:
    """Return the index that each poll asked with."""
    return [request.query.get("index") for request in agent.requests if not request.path.endswith("_probe")]


async def frames(watch: AsyncGenerator[Snapshot | Batch, None], count: int) -> list[tuple[list[str], int]]:
    """Return keys and revision of the next frames, all of which must be snapshots."""
    seen = []
    for _ in range(count):
        frame = await anext(watch)
        assert isinstance(frame, Snapshot)
        seen.append((sorted(frame.items), frame.revision))
    return seen


async def test_the_first_poll_is_linearizable_and_the_others_wait(fake: Fake, open_backend: Open) -> None:
    agent = await scripted(fake, kv("ns/a", index=5), kv("ns/a", index=5), kv("ns/a", "ns/b", index=9))
    async with aclosing(open_backend(agent.url).watch("ns/")) as watch:
        # an unchanged index gives a frame too: it says that the server spoke
        assert await frames(watch, 3) == [(["ns/a"], 5), (["ns/a"], 5), (["ns/a", "ns/b"], 9)]
    first, second, third = (request.query for request in agent.requests)
    assert first == {"recurse": "1", "consistent": "1"}
    assert second == {"recurse": "1", "index": "5", "wait": "10s"}
    assert third["index"] == "5"


async def test_a_watch_of_one_key_reads_that_key_only(fake: Fake, open_backend: Open) -> None:
    agent = await scripted(fake, missing(3), kv("ns/a", index=5))
    async with aclosing(open_backend(agent.url).watch("ns/a")) as watch:
        assert await frames(watch, 2) == [([], 3), (["ns/a"], 5)]
    assert [(request.path, "recurse" in request.query) for request in agent.requests] == [("/v1/kv/ns/a", False)] * 2


async def test_it_cannot_resume_and_does_not_pretend_to(fake: Fake, open_backend: Open) -> None:
    """Case 16: with an old index, a delete whose tombstone is reaped would stay unseen."""
    agent = await scripted(fake, missing(166), missing(166))
    async with aclosing(open_backend(agent.url).watch("ns/", after=168)) as watch:
        assert await frames(watch, 1) == [([], 166)]
    assert polls(agent) == [None, None], "an empty list is read twice"


async def test_an_index_that_goes_backwards_starts_over_at_once(fake: Fake, open_backend: Open) -> None:
    """Case 15. What came with the lower index is not believed: it may be from an agent that lags."""
    agent = await scripted(
        fake,
        kv("ns/a", index=170),
        missing(166),
        missing(166),
        kv("ns/a", "ns/b", index=166),
        kv("ns/a", "ns/b", index=167),
    )
    async with aclosing(open_backend(agent.url).watch("ns/")) as watch:
        assert await frames(watch, 3) == [(["ns/a"], 170), (["ns/a", "ns/b"], 166), (["ns/a", "ns/b"], 167)]
    assert polls(agent) == [None, "170", None, None, "166"]
    assert all("consistent" in agent.requests[number].query for number in (3, 4))


@pytest.mark.parametrize("header", [{"X_Consul_Index": 0}, {}])
async def test_index_0_or_none_counts_as_1(header: dict[str, object], fake: Fake, open_backend: Open) -> None:
    """Case 18: `index=0` would not wait, and the watch would spin."""
    body = kv("ns/a", index=1).partition(b"\r\n\r\n")[2]
    agent = await scripted(fake, http(200, body, **header), http(200, body, **header))
    async with aclosing(open_backend(agent.url).watch("ns/")) as watch:
        assert await frames(watch, 2) == [(["ns/a"], 1), (["ns/a"], 1)]
    assert polls(agent) == [None, "1"]


async def test_polls_of_a_missing_prefix_are_bounded(fake: Fake, open_backend: Open) -> None:
    """Case 17: a missing prefix wakes with every write to the store."""
    index = iter(range(10, 1000))
    agent = await fake(lambda _: missing(next(index)))
    loop = asyncio.get_running_loop()
    async with aclosing(open_backend(agent.url).watch("ns/")) as watch:
        started = loop.time()
        await frames(watch, 5)
        assert loop.time() - started < 0.3, "five at once"
        await frames(watch, 10)
    assert 0.95 <= loop.time() - started < 1.6, "then ten a second"
    assert len(agent.requests) == 17, "one probe and one more look, at the first frame: later ones cannot lose anything"


async def test_losing_permission_is_no_delete(fake: Fake, open_backend: Open) -> None:
    """Case 19: a list that is denied looks empty."""
    agent = await scripted(fake, kv("ns/a", index=5), missing(6), probe=DENIED)
    async with aclosing(open_backend(agent.url).watch("ns/")) as watch:
        assert await frames(watch, 1) == [(["ns/a"], 5)]
        with pytest.raises(DeniedError):
            await anext(watch)


async def test_starting_without_permission_is_no_empty_prefix(fake: Fake, open_backend: Open) -> None:
    agent = await scripted(fake, missing(6), missing(6), probe=DENIED)
    backend = open_backend(agent.url)
    with pytest.raises(DeniedError):
        await anext(backend.watch("ns/"))
    with pytest.raises(DeniedError):
        await backend.scan("ns/", timeout=2)


async def test_a_prefix_that_became_empty_is(fake: Fake, open_backend: Open) -> None:
    agent = await scripted(fake, kv("ns/a", index=5), missing(6), missing(6), missing(7))
    async with aclosing(open_backend(agent.url).watch("ns/")) as watch:
        assert await frames(watch, 3) == [(["ns/a"], 5), ([], 6), ([], 7)]
    assert [request.path for request in agent.requests].count("/v1/kv/ns/_probe") == 1


async def test_rights_that_come_back_before_the_probe_are_no_delete(fake: Fake, open_backend: Open) -> None:
    """The list was denied, the probe no more: only a list that was read after it tells what is there."""
    polls_of_watch = kv("ns/a", index=5), missing(6), kv("ns/a", index=6), kv("ns/a", index=7)
    agent = await scripted(fake, *polls_of_watch, missing(8), kv("ns/a", index=8))
    backend = open_backend(agent.url)
    async with aclosing(backend.watch("ns/")) as watch:
        assert await frames(watch, 3) == [(["ns/a"], 5), (["ns/a"], 6), (["ns/a"], 7)]
    assert sorted((await backend.scan("ns/", timeout=2)).items) == ["ns/a"]


async def test_with_a_new_token_the_list_is_read_again(fake: Fake, open_backend: Open) -> None:
    """The list was denied, the probe found out, the token was renewed: what the list showed meant nothing."""
    from osdisco.runtime import Credentials

    tokens = iter(["old", "new", "new"])

    def script(request: Request) -> bytes:
        if request.headers["x-consul-token"] == "new":
            return kv("ns/a", index=5)
        return DENIED if request.path.endswith("_probe") else missing(5)

    backend = open_backend(
        (await fake(script)).url,
        credentials=lambda: Credentials(token=next(tokens)),  # type: ignore[arg-type]
    )
    assert sorted((await backend.scan("ns/", timeout=2)).items) == ["ns/a"]


@pytest.mark.parametrize("trouble", [None, http(500, "rpc error: EOF"), http(200, "<html>"), http(301)])
async def test_trouble_ends_it_and_the_next_one_begins_on_another_endpoint(
    trouble: bytes | None, fake: Fake, open_backend: Open
) -> None:
    bad = await scripted(fake, kv("ns/a", index=50), trouble)
    good = await scripted(fake, kv("ns/a", index=40))
    backend = open_backend(f"{bad.url},127.0.0.1:{good.port}")
    watch = backend.watch("ns/")
    assert await frames(watch, 1) == [(["ns/a"], 50)]
    with pytest.raises(UnavailableError):
        await anext(watch)
    async with aclosing(backend.watch("ns/", after=50)) as again:
        assert await frames(again, 1) == [(["ns/a"], 40)]
    assert polls(good) == [None]


async def test_silence_ends_it_in_time(fake: Fake, open_backend: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _backend.WAIT * 17 / 16 < _backend.SILENCE - 1, "an agent holds a poll a sixteenth longer than asked"
    assert _backend.SILENCE < WATCH_SILENCE
    monkeypatch.setattr(_backend, "SILENCE", 0.4)
    loop = asyncio.get_running_loop()
    watch = open_backend((await scripted(fake, kv("ns/a", index=5))).url).watch("ns/")
    await anext(watch)
    started = loop.time()
    with pytest.raises(UnavailableError):
        await anext(watch)
    assert 0.35 < loop.time() - started < 1.0


async def test_a_poll_leaves_a_silent_agent_when_another_call_does(
    fake: Fake, open_backend: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not before it had its time: where no agent is well the calls move on all the time."""
    monkeypatch.setattr(_wire, "POLL_MIN", 0.6)
    bad, good = await scripted(fake, kv("ns/a", index=5)), await scripted(fake, kv("ns/a", index=6))
    backend = open_backend(f"{bad.url},127.0.0.1:{good.port}")
    loop = asyncio.get_running_loop()
    watch = backend.watch("ns/")
    await anext(watch)
    started = loop.time()
    poll = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0.1)
    with pytest.raises(UnavailableError):
        await backend.get("ns/other", timeout=0.2)
    with pytest.raises(UnavailableError, match="another call"):
        await poll
    assert 0.55 < loop.time() - started < 1.5
    async with aclosing(backend.watch("ns/")) as again:
        assert await frames(again, 1) == [(["ns/a"], 6)]


async def test_going_backwards_for_ever_is_silence_too(
    fake: Fake, open_backend: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_backend, "SILENCE", 0.6)
    agent = await fake(lambda r: SILENCE if r.query.get("index") is None and len(agent.requests) > 2 else answers[0])
    answers = [kv("ns/a", index=5)]
    watch = open_backend(agent.url).watch("ns/")
    await anext(watch)
    answers[0] = kv("ns/a", index=4)
    started = asyncio.get_running_loop().time()
    with pytest.raises(UnavailableError):
        await anext(watch)
    assert asyncio.get_running_loop().time() - started < 1.2


async def test_a_first_poll_waits_no_longer_than_any_read(fake: Fake, open_backend: Open) -> None:
    watch = open_backend(f"{(await scripted(fake)).url}?timeout=300ms").watch("ns/")
    started = asyncio.get_running_loop().time()
    with pytest.raises(UnavailableError):
        await anext(watch)
    assert asyncio.get_running_loop().time() - started < 1.0
