"""Telling what happens while it happens: to functions that are quick and do not block."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, TypeVar

from osdisco.errors import ConfigError

E = TypeVar("E")

log = logging.getLogger("osdisco")


class Listeners(Generic[E]):
    """Functions that are told of every event, in order. One that fails is logged, and harms nobody else."""

    def __init__(self) -> None:
        self._listeners: dict[object, Callable[[E], object]] = {}

    def add(self, listener: Callable[[E], object]) -> Callable[[], None]:
        """Tell a function from now on; returns a function that ends it. Raises ConfigError when it is none."""
        if not callable(listener):
            raise ConfigError(f"a listener is a function of one event, not {listener!r}")
        token = object()
        self._listeners[token] = listener
        return lambda: self._listeners.pop(token, None) and None

    def tell(self, event: E) -> None:
        """Tell all of an event."""
        for listener in list(self._listeners.values()):
            try:
                listener(event)
            except Exception:
                log.exception("the listener %r failed; it is told of the next event all the same", listener)
