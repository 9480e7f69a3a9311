"""Sources as the tests here make them, and what they need."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from osdisco.cluster import OpenSearchHttpSource
from osdisco.runtime import Runtime

PASSWORD = "hunter2-öß"
TOKEN = "hunter2.token"


class Lowest(Random):
    """Chance that always begins with the first node, and makes pauses half of what they may be."""

    def randrange(self, *args: Any, **kwargs: Any) -> int:
        return 0

    def random(self) -> float:
        return 0.0


def source_of(urls: str | Sequence[str], **options: Any) -> OpenSearchHttpSource:
    """Return a source that begins with the first URL, and takes no credentials from the environment of the tests."""
    options.setdefault("runtime", Runtime(random=Lowest()))
    return OpenSearchHttpSource(urls, **{"environ": {}, **options})
