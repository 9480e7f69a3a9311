"""The resource's side of a lock: it admits only tokens that are not older than what it has seen."""

from __future__ import annotations

from osdisco.errors import StaleTokenError


class Fence:
    """Remembers the highest token. Put one in front of each resource that lock holders write to."""

    def __init__(self, newest: int = 0) -> None:
        self.newest = newest

    def admit(self, token: int) -> None:
        """Let `token` pass and remember it.

        Raises:
            StaleTokenError: a newer token was admitted before; its owner has lost the lock.
        """
        if token < self.newest:
            raise StaleTokenError(
                f"token {token} is older than {self.newest}, which was admitted before; its lock is lost"
            )
        self.newest = token
