"""One question on its way to one node."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from urllib.parse import urlencode

from attrs import frozen

from osdisco.cluster._questions import Question
from osdisco.cluster._ring import Node
from osdisco.errors import ClusterDocumentError


class OverlongError(ClusterDocumentError):
    """More than may be read. Another node would send as much."""


@frozen
class Sending:
    """A question with all that it takes to send it; `body_max` is of the answer's bytes."""

    question: Question
    node: Node
    headers: Mapping[str, str]
    tls: ssl.SSLContext | None
    body_max: int

    def __str__(self) -> str:
        """Name what is asked of whom; a routing value is somebody's, and not shown."""
        return f"GET {self.question.path} at {self.node.name}"

    @property
    def url(self) -> str:
        """Where it goes, with its parameters."""
        query = urlencode(self.question.params)
        return self.node.url(self.question.path) + (f"?{query}" if query else "")

    def too_long(self, reason: str) -> ClusterDocumentError:
        """Return the error for an answer that has too many bytes: what is small with every node is nonsense then."""
        if self.question.body_max is not None:
            return ClusterDocumentError(f"{self}: {reason}")
        return OverlongError(f"{self}: {reason}; allow more by body_max=")
