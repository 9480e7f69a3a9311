"""What a search cluster is asked, the same by every source: paths, parameters, and what an answer must look like."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import quote

from attrs import field, frozen

from osdisco._records import RECORD_MAX
from osdisco.errors import ClusterDocumentError, ClusterError

METRICS: Final = "version,cluster_manager_node,master_node,nodes,metadata,routing_table,blocks"
"""`master_node` is for 1.x, which does not know the other name; a name that a version does not know, it leaves out."""

LEFT_OUT: Final = ("metadata.indices.*.mappings", "metadata.templates")
"""Most of the bytes of a state, which nothing here reads."""

_BEGINS: Final = re.compile(rb"\s*(.?)", re.DOTALL)
_TAIL: Final = 64
"""Bytes at the end of a body among which its last one that is no space is looked for."""


@frozen
class Question:
    """One GET. `whole` is of the whole state: it may take longer, and its answer may be large."""

    path: str
    params: Mapping[str, str] = field(factory=dict)
    whole: bool = False
    body_max: int | None = None
    index: str | None = None

    def check(self, body: bytes, asked: str) -> None:
        """Refuse at once what cannot be a JSON object, without reading all of it.

        Raises:
            ClusterDocumentError: empty, a web page, something else, or cut short.
        """
        first = _BEGINS.match(body)
        assert first is not None
        if first[1] != b"{":
            raise ClusterDocumentError(f"{asked}: {_KINDS.get(first[1], 'an answer that is no JSON object')}")
        if not body[-_TAIL:].rstrip().endswith(b"}"):
            raise ClusterDocumentError(f"{asked}: the answer ends before its JSON does")


_KINDS: Final = {
    b"": "an empty answer",
    b"<": "a web page instead of JSON; is there a proxy or a log-in page in between?",
}

VERSION: Final = Question("/_cluster/state/version", body_max=RECORD_MAX)
SETTINGS: Final = Question("/_cluster/settings", {"flat_settings": "true"})


def state(left_out: Sequence[str]) -> Question:
    """Ask for the state, without the fields of `left_out` (patterns of `filter_path`, without the minus)."""
    params = {"filter_path": ",".join(f"-{one}" for one in left_out)} if left_out else {}
    return Question(f"/_cluster/state/{METRICS}", params, whole=True)


def nodes(timeout: float) -> Question:
    """Ask for the nodes; those that do not answer each other in half of `timeout` seconds are left out of the answer.

    Without that a single frozen node would hold the answer up until its connections break.
    """
    return Question("/_nodes/http", {"timeout": f"{max(int(timeout * 500), 1)}ms"})


def search_shards(index: str, routing: str | None) -> Question:
    """Ask where a search goes.

    Raises:
        ClusterError: `index` names none.
    """
    if not isinstance(index, str) or not index or index.startswith(("_", "-", "+")):
        raise ClusterError(f"{index!a} is no name of an index: it is not empty, and begins with none of '_', '-', '+'")
    params = {} if routing is None else {"routing": routing}
    return Question(f"/{quote(index, safe='')}/_search_shards", params, index=index)


def no_such_index(question: Question, asked: str) -> ClusterError:
    """Return the error for an answer that there is no such index."""
    return ClusterError(f"{asked}: the cluster has no index or alias {question.index!a}")
