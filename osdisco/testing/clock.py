"""The clock of virtual time: it follows the virtual loop, and jumps, drifts or is reset when a test says so."""

from __future__ import annotations

import asyncio

from osdisco.testing.loop import VirtualLoop

WALL = 1_700_000_000.0
"""Where wall clocks start, so that every run shows the same times."""

_ROUNDS = 1000  # a task that spins, or another `advance` that ends now, must not keep this one for ever


class VirtualClock:
    """An `osdisco.runtime.Clock` on the virtual loop that is running, or on `loop`.

    Several may exist, one for each simulated process. A clock survives its loop: in the next one it goes on from where
    it stood. Outside of a loop it stands still.
    """

    def __init__(self, loop: VirtualLoop | None = None) -> None:
        running = asyncio._get_running_loop()
        self._loop = loop or (running if isinstance(running, VirtualLoop) else None)
        self.rate = 1.0
        self._base = 0.0
        self._since = 0.0
        self._suspended = 0.0
        self._wall = WALL

    def now(self) -> float:
        """Return seconds that only rise, with those of every `jump`."""
        running = asyncio._get_running_loop()
        if running is not self._loop and isinstance(running, VirtualLoop):
            self.follow(running)
        return self.elapsed() + self._suspended

    def wall(self) -> float:
        """Return seconds since the epoch."""
        return self._wall + self.now()

    def jump(self, seconds: float) -> None:
        """Suspend the machine: `now` and `wall` go on, timers of the loop do not notice (as CLOCK_BOOTTIME)."""
        if seconds < 0:
            raise ValueError("a clock does not run backwards; jump_wall does")
        self._suspended += seconds

    def drift(self, rate: float) -> None:
        """Run `rate` seconds in each second of the loop from now on; 1.0 is right again.

        The loop's own timers keep to the loop, but for those of a simulated process whose clock this is.
        """
        if not rate > 0:
            raise ValueError("a clock does not run backwards, and does not stand still; pause its process instead")
        self._base, self.rate = self.elapsed(), rate
        self._since = 0.0 if self._loop is None else self._loop.elapsed()

    def set_wall(self, seconds: float) -> None:
        """Set the wall clock to seconds since the epoch. `now` does not notice."""
        self._wall += seconds - self.wall()

    def jump_wall(self, seconds: float) -> None:
        """Move the wall clock, also backwards. `now` does not notice."""
        self._wall += seconds

    async def advance(self, seconds: float) -> None:
        """Let virtual time pass. What falls due meanwhile has run when this returns, in its order.

        Raises:
            RuntimeError: the running loop is not a `VirtualLoop`.
        """
        loop = asyncio.get_running_loop()
        if not isinstance(loop, VirtualLoop):
            raise RuntimeError("VirtualClock.advance works on a VirtualLoop only; use osdisco.testing.run")
        await asyncio.sleep(seconds)
        for _ in range(_ROUNDS):
            if not loop.busy():
                break
            await asyncio.sleep(0)

    def follow(self, loop: VirtualLoop) -> None:
        """Take the time from `loop` from now on; the first loop's time is taken as it is."""
        if self._loop is not None:
            self._base, self._since = self.elapsed(), loop.elapsed()
        self._loop = loop

    def elapsed(self) -> float:
        """Return the seconds that passed without those of every `jump`, as this clock counts them."""
        if self._loop is None:
            return self._base
        return self._base + (self._loop.elapsed() - self._since) * self.rate
