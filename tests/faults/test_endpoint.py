"""Trouble with the endpoint in use, over every transport: requests, a watch and a session, each by its own client.

Either there is another endpoint, and all go on by that, or there is none, and nobody is told what is not so.
"""

from __future__ import annotations

import asyncio

import pytest
from cases import Case, undisturbed
from network import FAULTS, STORES, Fault, impatient, marked, ways


@pytest.mark.parametrize("fault", marked(FAULTS))
async def test_trouble_with_the_endpoint_in_use(
    fault: Fault, urls: dict[str, str], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All stores, with and without another endpoint, at the same time: all that any of them does is wait."""

    async def run(store: str, alone: bool) -> Case:
        async with ways(store, urls[store], seed=seed, alone=alone) as there:
            return await undisturbed(there, fault, seed)

    impatient(monkeypatch)
    kinds = [(store, alone) for store in STORES for alone in ((False,) if fault.harmless else (False, True))]
    cases = await asyncio.gather(*(run(*kind) for kind in kinds))
    wrong = {kind: case.wrong for kind, case in zip(kinds, cases, strict=True) if case.wrong}
    assert not wrong, f"seed {seed}: {wrong}"
