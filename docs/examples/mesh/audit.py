"""Notes who asked for what. A note that comes twice, because its sender could not know of the first, counts once."""

from collections.abc import Mapping
from typing import Any

import service
from attrs import frozen

from osdisco.mesh import ExtensionServiceMesh


@frozen
class Note:
    id: str
    user: str
    text: str


def handlers(mesh: ExtensionServiceMesh, version: str) -> Mapping[str, Any]:
    notes: dict[str, Note] = {}

    def record(note: Note) -> str:
        return notes.setdefault(note.id, note).id

    return {"record": record}


if __name__ == "__main__":
    service.main("audit", handlers)
