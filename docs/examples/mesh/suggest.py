"""What users talk to: suggests places while they type, asks geo where these are, and has audit note who asked."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import service
from attrs import frozen
from audit import Note
from geo import Located, Names

from osdisco.mesh import ExtensionServiceMesh, incoming

NAMES = ["Oslo", "Osaka", "Ottawa", "Quito", "Quebec"]


@frozen
class Typed:
    text: str


@frozen
class Suggestions:
    places: Mapping[str, tuple[float, float]]
    geo: str  # which version said so
    audit: str  # the id of the note


def handlers(mesh: ExtensionServiceMesh, version: str) -> Mapping[str, Any]:
    async def complete(typed: Typed) -> Suggestions:
        names = [name for name in NAMES if name.lower().startswith(typed.text.lower())]
        located = await mesh.call("geo", "locate", Names(names), response_type=Located)  # in the time of our caller
        user = incoming().metadata.get("user", "nobody")
        noted = await mesh.call("audit", "record", Note(uuid4().hex, user, typed.text), response_type=str)
        return Suggestions(located.places, located.by, noted)

    return {"complete": complete}


if __name__ == "__main__":
    service.main("suggest", handlers)
