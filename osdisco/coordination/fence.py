"""The resource's side of a lock: it admits only tokens that are not older than what it has seen."""

from __future__ import annotations

from osdisco.errors import ConfigError, StaleTokenError


class Fence:
    """Remembers the highest token. Put one in front of each resource that lock holders write to."""

    def __init__(self, newest: int = 0) -> None:
        self.newest = checked_token(newest)

    def admit(self, token: int) -> None:
        """Let `token` pass and remember it.

        Raises:
            ConfigError: it is no whole number, zero or more.
            StaleTokenError: a newer token was admitted before; its owner has lost the lock.
        """
        if checked_token(token) < self.newest:
            raise StaleTokenError(
                f"token {token} is older than {self.newest}, which was admitted before; its lock is lost"
            )
        self.newest = token


def checked_token(token: int) -> int:
    """Return a token. Raises ConfigError unless it is a whole number: NaN, older than none, would let all pass."""
    if not isinstance(token, int) or isinstance(token, bool) or token < 0:
        raise ConfigError("a token is a whole number, zero or more, as a guard has it")
    return token
