"""What tests of osdisco, of backends and of users' own projects stand on. Public; loads each part when it is asked for.

* virtual time: `VirtualClock`, `VirtualLoop`, `run`
* the conformance suite of backends: `BackendSuite`, `Harness`, `UrlHarness`
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from osdisco.testing.clock import VirtualClock
    from osdisco.testing.conformance import BackendSuite, Harness, UrlHarness
    from osdisco.testing.loop import HangError, VirtualLoop, run

__all__ = ["BackendSuite", "HangError", "Harness", "UrlHarness", "VirtualClock", "VirtualLoop", "run"]

_HOMES = {
    "BackendSuite": "conformance",
    "HangError": "loop",
    "Harness": "conformance",
    "UrlHarness": "conformance",
    "VirtualClock": "clock",
    "VirtualLoop": "loop",
    "run": "loop",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
