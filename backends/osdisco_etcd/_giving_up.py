"""Giving up calls of grpc.aio, so that they are freed.

grpcio (1.85, its issue 43360) keeps the operations of a batch, and all that they have received, when the task that
awaits the batch is cancelled: 1 to 6 KiB a call. So a call is cancelled in gRPC's core only, and its tasks end by that,
a moment later. No public name leads there: with a grpcio that has other names calls are cancelled as they always were.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Generator
from typing import Any

import grpc.aio


def give_up(call: Any) -> None:
    """Cancel a call, but none of the tasks that await its batches; they end all the same."""
    cancel = getattr(call, "_cancel", None)  # what `cancel` begins with
    if cancel is None:
        call.cancel()
    else:
        cancel("given up by its caller")


class Answer:
    """Awaits what a call returns. Who is cancelled meanwhile gives it up, and is cancelled as soon as it has ended.

    What a task waits for may be anything that behaves as a future (`asyncio.isfuture`). This does, on behalf of the
    call's own task: another future or task would make every call dearer, for the sake of those that are given up.
    """

    __slots__ = ("_asyncio_future_blocking", "_call", "add_done_callback", "get_loop")

    add_done_callback: Callable[..., object]
    get_loop: Callable[[], asyncio.AbstractEventLoop]

    def __init__(self, call: Any) -> None:
        self._call = call

    def __await__(self) -> Generator[Any, None, Any]:
        task = self.task
        if task is None:
            return (yield from self._call.__await__())
        self.add_done_callback, self.get_loop = task.add_done_callback, task.get_loop
        self._asyncio_future_blocking = True
        del task
        try:
            yield self
            return (yield from self._call.__await__())
        finally:  # else the task and the traceback of its error hold each other, and the call its connection
            self._call = None
            del self.add_done_callback, self.get_loop

    def cancel(self, msg: object = None) -> bool:
        """Give the call up. Returns False: the task that waits is to be cancelled when it goes on."""
        give_up(self._call)
        return False

    @property
    def task(self) -> asyncio.Task[Any] | None:
        """The call's own, until it has ended."""
        return getattr(self._call, "_call_response", None)


async def ended(answers: Collection[Answer]) -> None:
    """Give up the calls that are awaited, and wait until they have ended."""
    tasks = [task for answer in answers if (task := answer.task) is not None]
    for answer in answers:
        answer.cancel()
    if tasks:
        await asyncio.wait(tasks)


class Exchange:
    """A stream for one request and its answer, awaited like a call that has one of each."""

    def __init__(self, call: Any, request: Any) -> None:
        self._call = call
        self._call_response = asyncio.get_running_loop().create_task(_exchange(call, request))

    def __await__(self) -> Generator[Any, None, Any]:
        return self._call_response.__await__()

    def cancel(self) -> None:
        """Give it up."""
        give_up(self._call)


async def _exchange(call: Any, request: Any) -> Any:
    try:
        await call.write(request)
        answer = await call.read()
    finally:
        give_up(call)
    return None if answer is grpc.aio.EOF else answer
