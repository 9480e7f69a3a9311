"""The epoch of a namespace: raised by the operator after a restore from a backup, so that tokens go on rising."""

from __future__ import annotations

from typing import Final

from osdisco.errors import LimitError

EPOCH_KEY: Final = "epoch"
EPOCH_SHIFT: Final = 48
"""Bits of a token below the epoch, which are the store's own revision."""

EPOCH_MAX: Final = 2**15 - 1


def parse_epoch(value: bytes) -> int:
    """Return the epoch that its key holds. Raises LimitError when it is none."""
    try:
        epoch = int(value)
    except ValueError:
        epoch = -1
    if not 0 <= epoch <= EPOCH_MAX:
        raise LimitError(
            f"the key {EPOCH_KEY!r} must hold a number from 0 to {EPOCH_MAX}; it was not written by osdisco"
        )
    return epoch
