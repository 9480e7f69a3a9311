"""Draws each `*.dot` here as an SVG beside it, with the source's hash in it, by which a test knows an outdated one."""

from __future__ import annotations

import subprocess
import sys
from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).resolve().parent


def seal(source: Path) -> str:
    """Return the line that a picture of this source ends with."""
    return f"<!-- drawn from {source.name}, sha256 {sha256(source.read_bytes()).hexdigest()} -->\n"


def draw(source: Path) -> None:
    """Write the picture of one source."""
    drawn = subprocess.run(["dot", "-Tsvg", source], check=True, capture_output=True, text=True).stdout
    source.with_suffix(".svg").write_text(drawn + seal(source))


if __name__ == "__main__":
    try:
        for found in sorted(HERE.glob("*.dot")):
            draw(found)
    except FileNotFoundError:
        sys.exit("the pictures are drawn by `dot`, of Graphviz: apt-get install graphviz")
