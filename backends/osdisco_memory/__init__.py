"""The store in memory: for one process, for tests, and with a switch for every hard behaviour of real stores.

`memory://` is a store of its own; `memory://NAME` is the same store, for the life of the process, for the same NAME.
"""

from osdisco_memory._backend import MemoryBackend
from osdisco_memory._faults import Effect, Faults, Rule, StoreFaults, refuse, unanswered
from osdisco_memory._store import CONSUL, LIMITS, MemoryStore

__all__ = [
    "CONSUL",
    "LIMITS",
    "Effect",
    "Faults",
    "MemoryBackend",
    "MemoryStore",
    "Rule",
    "StoreFaults",
    "refuse",
    "unanswered",
]
