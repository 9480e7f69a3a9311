"""Traffic that ends on a store which is slow to be well again can still be judged."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from worlds import World

from osdisco.errors import IndeterminateError, UnavailableError
from osdisco.testing.histories import KEY_MAX
from osdisco.testing.traffic import Traffic

TRIES = KEY_MAX + 10


def failing(call: Callable[..., Awaitable[Any]], error: Exception, *, applied: bool) -> Callable[..., Awaitable[Any]]:
    """Return a call that fails, and at last does not; whether it is done all the same."""
    left = iter(range(TRIES))

    async def fails(*arguments: Any) -> Any:
        if next(left, None) is None:
            return await call(*arguments)
        if applied:
            await call(*arguments)
        raise error

    return fails


@pytest.mark.parametrize("applied", [True, False])
async def test_a_store_that_is_long_unwell_leaves_what_can_be_searched(world: World, applied: bool) -> None:
    client = world.process()
    traffic = Traffic(random.Random(1), keys=1)
    client.put = failing(client.put, IndeterminateError("maybe"), applied=applied)  # type: ignore[method-assign]
    client.get = failing(client.get, UnavailableError("no"), applied=False)  # type: ignore[method-assign]
    await traffic.settle(client, seconds=TRIES)
    counts = traffic.history.counts()
    assert (counts["unknown"], counts["failed"], counts["done"]) == (TRIES, TRIES, 2)
    assert traffic.problems() == []
