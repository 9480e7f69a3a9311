"""Talks to servers for tests as their operator does: HTTP with nothing but the standard library, ports, waiting."""

from __future__ import annotations

import json
import os
import random
import socket
import ssl
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Final, TypeVar

from attrs import define, field

T = TypeVar("T")

_PORTS: Final = "20000-31999"  # below what systems hand out by themselves, so that a killed server finds its port free


class ApiError(Exception):
    """The server answered, and it was no yes."""


@define
class Api:
    """A server's HTTP API as its operator uses it. `timeout` is seconds for each call."""

    address: str
    timeout: float
    context: ssl.SSLContext | None = None
    headers: dict[str, str] = field(factory=dict, repr=False)

    def __call__(self, method: str, path: str, body: object = None) -> Any:
        """Call and return the JSON of the answer. Raises ApiError for other answers, OSError when there is none."""
        text = self.text(method, path, body)
        return json.loads(text) if text.strip() else None

    def text(self, method: str, path: str, body: object = None) -> str:
        """Call and return the answer as it is."""
        connection = self._connection()
        try:
            connection.request(method, path, None if body is None else json.dumps(body), self.headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        except HTTPException as exc:
            raise OSError(f"no answer from {self.address}: {exc!r}") from exc
        finally:
            connection.close()
        if answer.status != 200:
            raise ApiError(f"{method} {path}: {answer.status} {text[:500]}")
        return text

    def _connection(self) -> HTTPConnection:
        if self.context is None:
            return HTTPConnection(self.address, timeout=self.timeout)
        return HTTPSConnection(self.address, timeout=self.timeout, context=self.context)


def free_port() -> int:
    """Return a free port of this machine's loopback, from `OSDISCO_TEST_PORTS` (`low-high`)."""
    low, _, high = os.environ.get("OSDISCO_TEST_PORTS", _PORTS).partition("-")
    ports = list(range(int(low), int(high) + 1))
    random.shuffle(ports)
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no port from {low} to {high} is free")


def wait_for(attempt: Callable[[], T], *, seconds: float, death: Callable[[], str | None] = lambda: None) -> T:
    """Repeat what raises ApiError or OSError until it does not.

    Raises:
        TimeoutError: from the last failure.
        RuntimeError: with what `death` says, as soon as it says something.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except (ApiError, OSError) as exc:
            if said := death():
                raise RuntimeError(f"the server died: {said}") from exc
            if time.monotonic() > deadline:
                raise TimeoutError(f"not ready after {seconds:.0f} s: {exc}") from exc
        time.sleep(0.05)
