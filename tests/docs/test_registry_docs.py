"""The page on the service registry: nothing public lacks an example. The examples run with the others on discovery."""

from __future__ import annotations

from apis import without_example
from test_discovery_docs import DISCOVERY

import osdisco.registry


def test_every_public_name_has_an_example() -> None:
    """A new public method, property or field fails here until a page shows it."""
    classes = [getattr(osdisco.registry, name) for name in osdisco.registry.__all__]
    assert without_example(DISCOVERY, classes) == set()
