"""What a busy machine is an excuse for: to be slow, and for nothing else."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from cases import Case, by_now, undisturbed
from network import LATE, Fault

FAULT = Fault("none", lambda proxy: None)


@pytest.mark.parametrize(
    ("unsafe", "late", "runs"),
    [(True, LATE, 1), (False, LATE, 4), (False, 0.0, 1)],
    ids=["unsafe", "slow-as-the-machine-was", "slow-by-itself"],
)
async def test_only_what_is_slow_on_a_slow_machine_is_run_again(
    unsafe: bool, late: float, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Case] = []

    async def run(case: Case) -> None:
        ran.append(case)
        (case.unsafe if unsafe else case.slow).append("wrong")
        case.late = late

    monkeypatch.setattr(Case, "run", run)
    there: Any = SimpleNamespace(bad=SimpleNamespace(cut=lambda: None), good=None)
    case = await undisturbed(there, FAULT, 0)
    assert "wrong" in case.wrong
    assert len(ran) == runs


async def test_what_failed_while_it_was_waited_for_is_raised() -> None:
    async def fails() -> float:
        raise OSError("said so")

    task = asyncio.ensure_future(fails())
    await asyncio.sleep(0)
    with pytest.raises(OSError, match="said so"):
        await by_now(task)
    assert await by_now(asyncio.ensure_future(asyncio.sleep(9))) is None
