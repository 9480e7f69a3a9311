"""Knows where places are. Version 2.0.0 was built on a broken index: python geo.py 2.0.0"""

from collections.abc import Mapping
from typing import Any

import service
from attrs import frozen

from osdisco.errors import RemoteError
from osdisco.mesh import ExtensionServiceMesh

PLACES = {
    "Oslo": (59.91, 10.75),
    "Osaka": (34.69, 135.5),
    "Ottawa": (45.42, -75.7),
    "Quebec": (46.81, -71.21),
    "Quito": (-0.18, -78.47),
}
BROKEN = "2.0.0"


@frozen
class Names:
    names: list[str]


@frozen
class Located:
    places: Mapping[str, tuple[float, float]]
    by: str


def handlers(mesh: ExtensionServiceMesh, version: str) -> Mapping[str, Any]:
    def locate(asked: Names) -> Located:
        if version == BROKEN:
            raise RemoteError("BrokenIndex", "no place is in this index")
        return Located({name: PLACES[name] for name in asked.names}, by=version)

    return {"locate": locate}


if __name__ == "__main__":
    service.main("geo", handlers)
