"""Faults on purpose: what a rule lets go wrong with a call, to see whether its callers stand it."""

from __future__ import annotations

import asyncio
from typing import Final

from osdisco.errors import RemoteError
from osdisco.mesh.rules import FaultRule

TYPE: Final = "InjectedFault"
"""The `type` of the RemoteError that a rule raises."""


async def inject(fault: FaultRule, *, service: str, method: str) -> None:
    """Let a call be late, and then fail if the rule says so. Nothing is sent by it.

    Raises:
        RemoteError: of the type InjectedFault, with the status of the rule.
    """
    if fault.delay:
        await asyncio.sleep(fault.delay)
    if fault.status is not None:
        raise RemoteError(
            TYPE, "failed on purpose, by a rule for traffic", fault.status, service=service, method=method, sent=False
        )
