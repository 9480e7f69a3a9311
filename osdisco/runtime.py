"""What the library takes from outside instead of reaching for it: time, randomness, identity and credentials.

The core calls neither `time.*` nor `uuid4`: that is what lets all of it run in virtual time under a seed.
"""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn, Protocol

from attrs import Factory, field, frozen

from osdisco.metrics._hooks import NONE, Metrics


class Clock(Protocol):
    """A source of time. Timers belong to the event loop; a clock only tells."""

    def now(self) -> float:
        """Seconds that only rise and go on counting while the machine sleeps. Every deadline is measured on it."""

    def wall(self) -> float:
        """Seconds since the epoch, to show to people. No decision looks at it."""


class SystemClock:
    """CLOCK_BOOTTIME, because `monotonic` stops in suspend while the store's leases run out."""

    def now(self) -> float:
        """Return seconds since boot, suspend included; `time.monotonic` where the system has no such clock."""
        return time.clock_gettime(_CLOCK)

    def wall(self) -> float:
        """Return seconds since the epoch."""
        return time.time()


_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Secret:
    """Text that no repr, format, log or traceback shows. `reveal()` is the only way out."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the text itself. Pass it on at once; do not keep it in a variable that a traceback could show."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('***')"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(("osdisco.Secret", self._value))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled")


def secret(value: str | Secret | None) -> Secret | None:
    """Wrap text in a Secret; None stays None."""
    return value if value is None or isinstance(value, Secret) else Secret(value)


@frozen
class Credentials:
    """What a store asks for: user and password (etcd), or a token (Consul)."""

    username: str | None = None
    password: Secret | None = field(default=None, converter=secret)
    token: Secret | None = field(default=None, converter=secret)


CredentialProvider = Callable[[], "Credentials | Awaitable[Credentials]"]
"""Asked before the first request and whenever the store refuses what it gave last, so rotation needs no restart."""


def default_name() -> str:
    """Return `host:pid`, the identity that others are shown as the owner."""
    return f"{socket.gethostname()}:{os.getpid()}"


@frozen
class Runtime:
    """What `connect` hands to everything below it."""

    clock: Clock = Factory(SystemClock)
    random: random.Random = Factory(random.SystemRandom)
    name: str = Factory(default_name)
    credentials: CredentialProvider | None = None
    metrics: Metrics = NONE

    def unique(self) -> str:
        """Return 32 hex digits that nothing else has: the id of one attempt, entry or session."""
        return f"{self.random.getrandbits(128):032x}"

    def jittered(self, seconds: float) -> float:
        """Return between half and all of `seconds`, so that many clients do not come back at once."""
        return seconds * (0.5 + self.random.random() / 2)
