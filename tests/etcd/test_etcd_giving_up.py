"""Calls of gRPC that nobody waits for any more are freed. That is counted in bytes that malloc has given out."""

from __future__ import annotations

import asyncio
import ctypes
import gc
from collections.abc import Awaitable, Callable, Generator
from itertools import count, pairwise
from typing import Any

import pytest
from etcd_rooms import Open

from osdisco.runtime import Runtime
from osdisco.testing._stores import EtcdServer
from osdisco.url import StoreURL
from osdisco_etcd import EtcdBackend
from osdisco_etcd._giving_up import Answer, Exchange, ended, give_up

CUT, AT_ONCE = 160, 8
_NAMES = ("arena", "ordblks", "smblks", "hblks", "mapped", "usmblks", "fsmblks", "used", "free", "keep")
STEPS = count()


class MallInfo(ctypes.Structure):
    """What glibc calls `struct mallinfo2`."""

    _fields_ = [(name, ctypes.c_size_t) for name in _NAMES]


def given_out() -> int:
    """Return how many bytes malloc has given out, and not got back."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("only glibc (2.33) tells what it has given out")
    libc.mallinfo2.restype = MallInfo
    info = libc.mallinfo2()
    return int(info.used + info.mapped)


async def kept(cut: Callable[[], Awaitable[object]]) -> float:
    """Return how many bytes each of many calls leaves: the least of three rounds, for now and then a table grows."""

    async def some() -> None:
        for _ in range(CUT // AT_ONCE):
            await cut()

    async def many() -> int:
        await asyncio.gather(*(some() for _ in range(AT_ONCE)))
        await asyncio.sleep(0.3)
        gc.collect()
        return given_out()

    seen = [await many() for _ in range(4)]
    return min(after - before for before, after in pairwise(seen)) / CUT


async def cut_short(call: Awaitable[object]) -> None:
    """Cancel a call when it is on its way."""
    task = asyncio.ensure_future(call)
    for _ in range(2 + next(STEPS) % 3):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))


@pytest.fixture
async def backend(etcd: EtcdServer, open_backend: Open) -> EtcdBackend:
    backend = open_backend(etcd.address)
    await backend.get("k", timeout=5)
    return backend


@pytest.mark.parametrize("transport", ["grpc"], indirect=True)
async def test_of_a_request_that_is_given_up_nothing_is_kept(backend: EtcdBackend) -> None:
    """With its tasks cancelled 1 KiB would be."""
    assert await kept(lambda: cut_short(backend.get("k", timeout=5))) < 200


@pytest.mark.parametrize("transport", ["grpc"], indirect=True)
async def test_of_a_watch_that_is_closed_nothing_is_kept(backend: EtcdBackend) -> None:
    """With its read cancelled the read would be."""

    async def watched() -> None:
        watch = backend.watch("w/")
        await anext(watch)
        await anext(watch)
        await cut_short(anext(watch))

    assert await kept(watched) < 80


async def test_of_requests_under_way_when_the_backend_closes_nothing_is_kept(etcd: EtcdServer) -> None:
    """With their tasks cancelled 2 KiB of each would be."""

    async def closed() -> None:
        backend = EtcdBackend.from_url(StoreURL.parse(etcd.url), Runtime())
        await backend.get("k", timeout=5)
        requests = [asyncio.ensure_future(backend.get("k", timeout=5)) for _ in range(4)]
        for _ in range(3):
            await asyncio.sleep(0)
        await backend.aclose()
        await asyncio.gather(*requests, return_exceptions=True)

    assert await kept(closed) < 1000


class Call:
    """A call of gRPC's as far as giving up goes: ends when its core says so, or was cancelled."""

    def __init__(self) -> None:
        self.core: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.given_up = 0
        self._call_response = asyncio.create_task(self._invoke())

    async def _invoke(self) -> str:
        return await self.core

    def _cancel(self, why: str) -> None:
        self.given_up += 1

    def __await__(self) -> Generator[Any, None, str]:
        return self._call_response.__await__()

    async def write(self, request: object) -> None:
        await self.core

    async def read(self) -> str:
        return await self.core


async def answer_of(call: Any) -> object:
    return await Answer(call)


async def test_a_call_answers() -> None:
    call = Call()
    waiting = asyncio.create_task(answer_of(call))
    await asyncio.sleep(0)
    call.core.set_result("yes")
    assert await waiting == "yes"
    assert not call.given_up


async def test_a_caller_that_is_cancelled_stays_until_its_call_has_ended() -> None:
    call = Call()
    waiting = asyncio.create_task(answer_of(call))
    for _ in range(3):
        await asyncio.sleep(0)
    for given_up in (1, 2):
        waiting.cancel()
        await asyncio.sleep(0)
        assert call.given_up == given_up
        assert not waiting.done()
    assert not call._call_response.cancelling()
    call.core.set_result("too late")
    await asyncio.wait((waiting,))
    assert waiting.cancelled()
    assert call._call_response.result() == "too late"


async def test_a_call_that_fails_raises_and_holds_nothing() -> None:
    call = Call()
    answer = Answer(call)
    call.core.set_exception(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        await answer
    assert answer.task is None


async def test_what_closes_waits_until_all_that_is_awaited_has_ended() -> None:
    calls = [Call(), Call()]
    answers = [Answer(call) for call in calls]
    closing = asyncio.create_task(ended(answers))
    await asyncio.sleep(0)
    assert [call.given_up for call in calls] == [1, 1]
    calls[0].core.set_result("")
    await asyncio.sleep(0)
    assert not closing.done()
    calls[1].core.set_result("")
    await closing


async def test_an_exchange_is_given_up_by_its_stream() -> None:
    stream = Call()
    exchange = Exchange(stream, "request")
    waiting = asyncio.create_task(answer_of(exchange))
    for _ in range(3):
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    assert stream.given_up == 1
    stream.core.set_result("answer")
    await asyncio.wait((waiting,))
    assert waiting.cancelled()
    assert stream.given_up == 2, "when it is over it is given up in any case"


async def test_a_grpcio_with_other_names_is_cancelled_as_ever() -> None:
    class Foreign:
        cancelled = False

        def cancel(self) -> None:
            self.cancelled = True

        def __await__(self) -> Generator[Any, None, str]:
            yield from asyncio.sleep(0).__await__()
            return "answer"

    call = Foreign()
    give_up(call)
    assert call.cancelled
    assert await Answer(call) == "answer"
    await ended([Answer(call)])
