"""Where the state of a search cluster comes from: the contract of every source.

Only the one elected mirror asks a source, so a source holds the credentials and nobody else needs them.
Bodies are handed on as the cluster sent them: taking them apart is the work of the mirror, a piece at a time.
"""

from __future__ import annotations

from typing import Final, Protocol

from attrs import frozen

from osdisco._records import decode
from osdisco.errors import ClusterDocumentError, ClusterUnavailableError, RecordError

_UNKNOWN: Final = "_na_"
"""What a node writes for a uuid while it has not learned of any state (`Metadata.UNKNOWN_CLUSTER_UUID`)."""


@frozen
class StateVersion:
    """Which state the cluster has: it changes with every state that is published.

    `version` only rises within one `cluster_uuid`, unless a lost majority was given up by hand.
    """

    cluster_name: str
    cluster_uuid: str
    version: int
    state_uuid: str


class ClusterStateSource(Protocol):
    """Answers the mirror's questions. Each call takes as long as the source itself allows, and is safe to cancel.

    Raises, from all calls:
        ClusterUnavailableError: nothing could be asked; with the seconds that the cluster wishes to be left alone.
        ClusterDeniedError: the credentials, or the privilege of this one question.
        ClusterDocumentError: the answer is not JSON of an object, too long or cut short.
        ClosedError: after `aclose`.
    """

    async def version(self) -> StateVersion:
        """Return which state the cluster has. Cheap for both: asked once a second."""

    async def state(self) -> bytes:
        """Return `GET /_cluster/state` with version, manager, nodes, metadata, routing table and blocks.

        Mappings and templates may be left out: they are most of the bytes, and nothing here reads them.
        """

    async def nodes(self) -> bytes:
        """Return `GET /_nodes/http`: roles, addresses and versions, of those nodes that answer."""

    async def settings(self) -> bytes:
        """Return `GET /_cluster/settings?flat_settings=true`: `{"persistent": {…}, "transient": {…}}`."""

    async def search_shards(self, index: str, routing: str | None = None) -> bytes:
        """Return `GET /{index}/_search_shards`: the copies that a search with this routing value goes to.

        Raises:
            ClusterError: there is no such index.
        """

    async def aclose(self) -> None:
        """Let go of all connections. Calling it again does nothing."""


def parse_version(body: bytes, asked: str) -> StateVersion:
    """Read the answer to `GET /_cluster/state/version`.

    Args:
        body: the answer.
        asked: what was asked of whom, for the error.

    Raises:
        ClusterDocumentError: a field is missing or of another type.
        ClusterUnavailableError: the node has not learned of any state yet.
    """
    try:
        version = decode(body, StateVersion)
    except RecordError as exc:
        raise ClusterDocumentError(f"{asked}: {exc}") from None
    if _UNKNOWN in (version.cluster_uuid, version.state_uuid):
        raise ClusterUnavailableError(f"{asked}: the node has not learned of any state yet")
    if version.version < 0 or not version.cluster_uuid or not version.state_uuid:
        raise ClusterDocumentError(f"{asked}: the version is below zero, or a uuid is empty")
    return version
