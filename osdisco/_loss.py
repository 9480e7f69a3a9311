"""Latches with a reason, such as the loss of ownership, and the scope that cancels its body when it is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import TracebackType

from osdisco.errors import LostError

log = logging.getLogger("osdisco")


class Latch:
    """Whether something has happened, and why. Never unset."""

    _happened = "set"

    def __init__(self) -> None:
        self._set = False
        self._event: asyncio.Event | None = None  # made for the first who waits: most latches are never waited for
        self._reason = ""
        self._callbacks: dict[object, Callable[[str], None]] = {}

    def __repr__(self) -> str:
        return f"<{self._happened}: {self._reason}>" if self.is_set() else f"<not {self._happened}>"

    @property
    def reason(self) -> str | None:
        """Why it is set; None as long as it is not."""
        return self._reason if self.is_set() else None

    def is_set(self) -> bool:
        """Whether it has happened."""
        return self._set

    async def wait(self) -> str:
        """Wait until it has happened; returns the reason."""
        if not self._set:
            self._event = self._event or asyncio.Event()
            await self._event.wait()
        return self._reason

    def set(self, reason: str) -> bool:
        """Latch it and tell everybody, once. Returns whether this call was the one."""
        if self._set:
            return False
        self._reason = reason
        self._set = True
        if self._event is not None:
            self._event.set()
        callbacks, self._callbacks = self._callbacks, {}
        for callback in callbacks.values():
            try:
                callback(reason)
            except Exception:  # a loss that does not reach the others' scopes would let their bodies run on
                log.exception("who was told that something is %s failed; the others are told", self._happened)
        return True

    def call(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call `callback(reason)` when it happens, or now if it has. Returns a function that takes the wish back."""
        if self.is_set():
            callback(self._reason)
            return lambda: None
        token = object()
        self._callbacks[token] = callback
        return lambda: self._callbacks.pop(token, None) and None


class Loss(Latch):
    """Whether something that was owned is lost, and why."""

    _happened = "lost"

    def raise_if_set(self) -> None:
        """Raise LostError when it is lost."""
        if self.is_set():
            raise LostError(self._reason)


class Revocation(Latch):
    """Whether somebody asked for what is held to be given back, and who. It is taken away when their grace is over."""

    _happened = "revoked"


class Scope:
    """`async with`: the body is cancelled when ownership is lost, and then ends in LostError.

    Unless its task was also cancelled from outside: then it stays a cancellation, counted as `asyncio.timeout` does.
    """

    def __init__(self, lost: Loss, check: Callable[[], None]) -> None:
        self._lost = lost
        self._check = check
        self._task: asyncio.Task[object] | None = None
        self._fired = False
        self._done = False

    async def __aenter__(self) -> None:
        self.enter()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.exit(kind, exc)

    def enter(self) -> None:
        """Begin; raises LostError when it is lost already."""
        if self._task is not None:
            raise RuntimeError("a scope is entered once; ask for a new one")
        self._check()
        self._task = asyncio.current_task()
        if self._task is None:
            raise RuntimeError("a scope needs a task whose body it can cancel")
        self._cancelling = self._task.cancelling()
        self._forget = self._lost.call(self._on_lost)

    def _on_lost(self, reason: str) -> None:
        # Not at once: the task that found out by itself (`check()`) is about to get LostError, not a cancellation.
        asyncio.get_running_loop().call_soon(self._cancel)

    def _cancel(self) -> None:
        if not self._done and self._task is not None:
            self._fired = True
            self._task.cancel("ownership is lost")

    def exit(self, kind: type[BaseException] | None, exc: BaseException | None) -> None:
        """End; raises LostError when the body was cut short by the loss, or ended without knowing of it."""
        assert self._task is not None
        self._done = True
        self._forget()
        outside = self._fired and self._task.uncancel() > self._cancelling
        if outside:
            return
        if kind is None:
            self._check()  # the clock, too: after a suspend nobody may have noticed yet
        elif self._fired and kind is asyncio.CancelledError:
            raise LostError(self._lost.reason or "") from exc
