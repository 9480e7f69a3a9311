"""Who plays in the demo of the cluster: two candidates for its mirror, and three who read it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

import osdisco
from osdisco.cli.cluster._following import follow, stand
from osdisco.cli.demo._cast import Event
from osdisco.cli.demo._extension import Pause, Tell
from osdisco.cli.demo._stages import Life, ProcessActor
from osdisco.cluster import OpenSearchHttpSource, StateComponent
from osdisco.runtime import Clock, SystemClock
from osdisco.url import DEFAULT_NAMESPACE, StoreURL

MIRRORS: Final = ("m1", "m2")
READERS: Final[Mapping[str, tuple[StateComponent, ...]]] = {
    "geo": tuple(StateComponent),
    "knn": (StateComponent.NODES, StateComponent.ROUTING_TABLE),
    "sql": (StateComponent.NODES,),
}
"""What each of them asks for."""
POLL: Final = 0.5
"""Seconds between two questions of the mirror, so that one need not wait long."""
MIRROR: Final = "default"

_COLOURS: Final = {"geo": "cyan", "knn": "magenta", "sql": "green", "m1": "yellow", "m2": "blue"}


def colour(who: str) -> str:
    """Return the colour of somebody; the cluster itself is white."""
    return _COLOURS.get(who, "white")


def command(who: str, source: str) -> Sequence[str]:
    """Return the command line that is one of them, as anybody would start it."""
    if who in MIRRORS:
        return ("cluster", "mirror", "--json", "--source", source, "--poll", f"{POLL:g}s")
    return ("cluster", "watch", "--json", *(f"--only={one.value}" for one in READERS[who]))


def life(who: str, source: str, url: StoreURL) -> Life:
    """Return what that command does, for a thread of this process."""

    def begun(orders: object, tell: Tell, pause: Pause) -> Coroutine[Any, Any, None]:
        return _live(who, source, url, lambda told: tell(heard(who, told, SystemClock())))

    return begun


async def _live(who: str, source: str, url: StoreURL, tell: Callable[[dict[str, Any]], None]) -> None:
    async with osdisco.connect(url, name=who) as client:
        if who in READERS:
            await follow(client, MIRROR, READERS[who], tell)
            return
        async with OpenSearchHttpSource(source, environ={}) as asked:
            await stand(client, MIRROR, asked, POLL, tell)


def heard(who: str, told: Mapping[str, Any], clock: Clock) -> Event:
    """Return a document as an event, at the time of the clock that all processes of a machine share."""
    content = {name: value for name, value in told.items() if name not in ("event", "time")}
    return Event(clock.now() - (clock.wall() - told["time"]), who, told["event"], content)


class CommandActor(ProcessActor):
    """A command of ours in a process of its own, which a signal ends."""

    async def aclose(self) -> None:
        if self._process.returncode is None:
            self._process.terminate()
        await super().aclose()

    def _heard(self, told: dict[str, Any]) -> Event:
        return heard(self.id, told, SystemClock())


def in_scope_text(text: str, scope: str, ttl: float) -> str:
    """Return what `in_scope` does of the same URL as text for another process, with its secrets."""
    address, _, query = text.partition("?")
    scheme, _, rest = address.partition("://")
    hosts, _, path = rest.partition("/")
    options = [option for option in query.split("&") if option and not option.startswith("ttl=")]
    namespace = path.removesuffix("/") or DEFAULT_NAMESPACE
    return f"{scheme}://{hosts}/{namespace}/{scope}?{'&'.join([*options, f'ttl={ttl:g}s'])}"
