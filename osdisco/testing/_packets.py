"""Which packets a container loses: by nftables, in the network namespace of the container itself.

Docker can take a container off a network, and that is all. One direction, one neighbour, or some packets of a hundred
are a matter of a packet filter; the container needs none of it, and the machine's own rules stay as they are.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Collection, Sequence
from typing import Any, Final

_TABLE: Final = "inet osdisco_faults"
_CLEAN: Final = f"table {_TABLE}\ndelete table {_TABLE}\n"  # the first makes it if there is none
_COUNTED: Final = re.compile(r"counter packets (\d+)")
_CHAINS: Final = {"arriving": ("input", "saddr"), "leaving": ("output", "daddr")}


def packets_problem() -> str | None:
    """Return why packets cannot be filtered here, or None when they can."""
    for tool, package in ("nsenter", "util-linux"), ("nft", "nftables"):
        if shutil.which(tool) is None:
            return f"there is no {tool} (apt-get install {package})"
    if os.geteuid() != 0:
        return "entering a container's network needs root"
    return None


class PacketFilter:
    """What one container loses, until `clear`. A container that starts again has lost nothing."""

    def __init__(self, container: Any) -> None:
        self._container = container

    def drop(self, addresses: Collection[str], *, arriving: bool, leaving: bool, matching: str = "") -> None:
        """Lose packets from and to addresses.

        Args:
            addresses: of the others.
            arriving, leaving: which directions.
            matching: only packets that match this in nft's language.

        Raises:
            RuntimeError: the filter could not be set; nothing is lost.
        """
        chosen = [chain for chain, wanted in (("arriving", arriving), ("leaving", leaving)) if wanted]
        self._run([rule for chain in chosen for rule in _rules(chain, addresses, matching)])

    def clear(self) -> None:
        """Lose nothing any more."""
        if self._pid:
            self._run([_CLEAN])

    def dropped(self) -> int:
        """Return how many packets it has lost since `clear`."""
        self._run([f"table {_TABLE}"])  # there is none when nothing is to be lost
        return sum(map(int, _COUNTED.findall(self._run([f"list table {_TABLE}"]))))

    @property
    def _pid(self) -> int:
        self._container.reload()
        return int(self._container.attrs["State"]["Pid"])

    def _run(self, rules: Sequence[str]) -> str:
        if problem := packets_problem():
            raise RuntimeError(f"packets cannot be filtered: {problem}")
        command = ["nsenter", f"--target={self._pid}", "--net", "nft", "-f", "-"]
        done = subprocess.run(command, input="\n".join(rules), capture_output=True, text=True)  # nosec B603 # noqa: S603 - our own
        if done.returncode:
            raise RuntimeError(f"nft in the container's network says: {done.stderr.strip()}; is Docker elsewhere?")
        return done.stdout


def _rules(chain: str, addresses: Collection[str], matching: str) -> list[str]:
    hook, end = _CHAINS[chain]
    return [
        f"table {_TABLE} {{ chain {chain} {{ type filter hook {hook} priority 0; }}; }}",
        f"add rule {_TABLE} {chain} ip {end} {{ {', '.join(addresses)} }} {matching} counter drop",
    ]
