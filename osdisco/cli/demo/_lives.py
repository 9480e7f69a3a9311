"""Who of the demo lives how."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from osdisco.cli.demo import _extension
from osdisco.cli.demo._cast import CAST
from osdisco.cli.demo._extension import Pause, Tell
from osdisco.url import StoreURL

Life = Callable[[StoreURL, str, "asyncio.Queue[str]", Tell, Pause], Coroutine[Any, Any, None]]


def life_of(id_: str) -> Life:
    """Return what somebody does from its start to its end."""
    if id_ in CAST:
        return _extension.live
    from osdisco.cli.demo import _service

    return _service.live
