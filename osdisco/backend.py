"""The interface that a store's adapter implements, and the contract that every adapter keeps.

Four facets: **kv** (`get`, `scan`, `commit`), **watch**, **lease** (`grant`, `renew`, `revoke`) and **session** (one
implementation for all stores, on top of lease). The interface is cut below locks and elections on purpose: those are
written once, in core. An adapter retries and caches nothing, and keeps no task beyond the upkeep of its connections.

The contract. Each rule names the test that holds it, in `osdisco.testing.conformance.BackendSuite` unless another
file is named. "Conflict" is `ConflictError`, and so on.

Keys and values
    K1. Keys arrive escaped (`osdisco.names`), namespace included; an adapter neither escapes nor interprets them.
        Keys of foreign writers that are not UTF-8 come out with `surrogateescape`.
    K2. A target of `watch` is one key, or a prefix ending in `/`. `scan` takes a prefix.

S1  Versions
    1. A change gives its key a `revision` above every earlier one in the store; one commit gives all its keys one
       revision. `created` stays until deletion; recreation raises it.
    2. Not promised: density, a new revision for a byte-identical put, a revision of a delete, comparability across
       stores or restores.
S2  Reads
    1. `get` and `scan` are linearizable. A scan is one atomic snapshot.
    2. A snapshot's `revision` is a cursor that only resumes a watch of the same target on the same store.
S3  Commit
    1. If every condition of `expect` holds, all ops apply atomically; otherwise Conflict, and nothing applies.
    2. Deleting a missing key succeeds unless a condition says otherwise. `Revision(n)` on a missing key is a Conflict.
    3. Conditions plus ops stay within `limits.ops_max`, each key is written at most once (core refuses the rest).
    4. The answer maps each key put to its revision.
S4  Leased puts
    1. A put with a lease is guarded by `ABSENT` or `HeldBy(that lease)` on its key (core refuses the rest).
    2. A bare put over a leased key is not portable (etcd detaches the lease, Consul keeps it); no recipe does it.
S5  Outcomes
    1. A mutation returns, raises an error that proves that it was not applied, or raises Indeterminate.
    2. It is sent once: no layer under the adapter sends it again.
S6  Watch
    1. The first frame is a Snapshot, unless `after` is given and the store can resume there; then Batches follow from
       `after`. Later frames may be either. A Snapshot replaces all, a Batch removes its deletes, then sets its puts.
    2. When writes stop, folding the frames gives the store's content. Every frame moves between two real states of the
       store: no transaction is torn. Intermediate states may be missing where `limits.conflates`.
    3. Per key `revision` never decreases. Delete and recreate shows as a changed `created`.
    4. A frame, if need be an empty Batch, comes at least every WATCH_SILENCE seconds, and means that the server spoke.
       Otherwise the adapter raises within those seconds.
    5. It ends only by `aclose()` or an exception. It never makes up deletes: not from errors, lost permission,
       compaction or an index that went backwards.
S7  A lease does not expire before the server processed its last good renewal plus `ttl`, unless revoked or by an
    operator.
S8  There is no upper bound. `limits.expiry_factor` tells what is usual: Consul takes up to twice the ttl.
S9  Revoke and expiry delete all keys of the lease in one revision. Afterwards no write under it succeeds, however late
    it arrives: LeaseExpired.
S10 A good renewal is no proof that the lease still holds its keys; sessions therefore watch a key of their own.
S11 A session is valid until t_send + 0.99 ttl - min(1 s, ttl/10) of its last good renewal, t_send taken before sending,
    on a clock that counts suspend. An answer after the deadline does not count. `check()` reads the clock and nothing
    else. (tests/core/test_session.py)
S12 Loss is a one-way latch with a reason, set by the first of: deadline, lease not found, liveness key gone.
    (tests/core/test_session.py)
S13 Keys of a lease vanish with it; `lease` is visible to all readers.
S14 At most one lowest entry of a queue exists in the store at any time; effects elsewhere need a fencing token.
    (tests/core/test_lock.py)
S15 Limits are declared as numbers in `limits`, and what exceeds them is refused before it is sent: LimitError.
    A ttl below what the store grants is raised and told in `Lease.ttl`; one above is a LimitError.

Errors
    E1. Every failure is an `OsdiscoError` of the right outcome, raised `from` the driver's own; core never sees grpc or
        aiohttp. A redirect is never followed; an answer that is no answer of the store (HTML, half an answer, another
        kind of server) is Unavailable for reads and Indeterminate for what may have been applied.
    E2. Nothing waits longer than `timeout` for its answer. A read that timed out is Unavailable, a mutation
        Indeterminate. After a failure of the connection the next call uses the next endpoint.
    E3. `aclose()` may be called twice, leaves no task, socket or lease request behind, and what is used afterwards
        raises Closed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Self

from attrs import field, frozen

from osdisco.errors import InvalidCommitError, InvalidNameError, LimitError

if TYPE_CHECKING:
    from osdisco.runtime import Runtime
    from osdisco.session import Session
    from osdisco.url import StoreURL

WATCH_SILENCE: Final = 15.0
"""Seconds within which a watch yields a frame or raises (S6.4)."""


@frozen
class Item:
    """A key as the store has it. `lease` is the lease it hangs on, if any."""

    key: str
    value: bytes = field(repr=lambda value: f"<{len(value)} bytes>")  # values may be secrets; logs are not their place
    created: int
    revision: int
    lease: str | None = None

    @property
    def unchanged(self) -> Revision:
        """The condition that this item is still as read here."""
        return Revision(self.revision)


@frozen
class Put:
    """Write `value` at `key`; with a lease the key vanishes with it, and the commit needs a guard (S4)."""

    key: str
    value: bytes = field(repr=lambda value: f"<{len(value)} bytes>")
    lease: str | None = None


@frozen
class Delete:
    """Remove `key`; removing what is not there is no error."""

    key: str


Op = Put | Delete


@frozen
class Absent:
    """Condition: the key does not exist. Use the instance `ABSENT`."""


@frozen
class Revision:
    """Condition: the key exists and its `revision` is `number`."""

    number: int


@frozen
class HeldBy:
    """Condition: the key exists and hangs on `lease`."""

    lease: str


ABSENT: Final = Absent()
Condition = Absent | Revision | HeldBy


@frozen
class Lease:
    """A lease as granted. `ttl` in seconds can be more than was asked for."""

    id: str
    ttl: float


@frozen
class Snapshot:
    """Everything under a target at one moment; replaces all that was known of it."""

    items: Mapping[str, Item]
    revision: int


@frozen
class Batch:
    """What changed between two moments: first remove `deletes`, then set `puts`. Empty: the server spoke."""

    puts: tuple[Item, ...]
    deletes: tuple[str, ...]
    revision: int


@frozen
class Limits:
    """What a store takes. Seconds, bytes and counts."""

    ttl_min: float
    ttl_max: float
    expiry_factor: float
    ops_max: int = 64
    value_max: int = 256 * 1024
    key_max: int = 512
    watches_max: int = 10_000
    conflates: bool = False


@frozen
class EndpointStatus:
    """One endpoint as `inspect` found it; `error` is None when it works. `latency` in seconds."""

    endpoint: str
    error: str | None = None
    version: str | None = None
    leader: bool | None = None
    latency: float | None = None
    server_time: float | None = None
    details: Mapping[str, str] = field(factory=dict)


class Backend(ABC):
    """One store. See the module's text for the rules; docstrings here say only what each call is.

    `timeout` is always seconds for this one attempt, at most; core owns the deadline over all attempts.
    """

    limits: Limits

    @classmethod
    @abstractmethod
    def from_url(cls, url: StoreURL, runtime: Runtime) -> Self:
        """Build from a URL without any network I/O. Raises ConfigError for what it does not know."""

    @abstractmethod
    async def get(self, key: str, *, timeout: float) -> Item | None:
        """Read one key, linearizable."""

    @abstractmethod
    async def scan(self, prefix: str, *, timeout: float) -> Snapshot:
        """Read all keys under a prefix, linearizable, as one atomic snapshot."""

    @abstractmethod
    async def commit(self, ops: Sequence[Op], expect: Mapping[str, Condition], *, timeout: float) -> Mapping[str, int]:
        """Apply all ops if all conditions hold; the only write. Returns the revision of each key put."""

    @abstractmethod
    def watch(self, target: str, *, after: int | None = None) -> AsyncGenerator[Snapshot | Batch, None]:
        """Follow a key or a prefix (S6)."""

    @abstractmethod
    async def grant(self, ttl: float, *, timeout: float) -> Lease:
        """Open a lease. A lost answer leaves at most a lease without keys, which ends with its ttl."""

    @abstractmethod
    async def renew(self, lease: Lease, *, timeout: float) -> float:
        """Renew; returns the ttl now granted. Raises LeaseExpiredError when the store does not know the lease."""

    @abstractmethod
    async def revoke(self, lease: Lease, *, timeout: float) -> None:
        """End a lease and delete its keys. A lease that is already gone is no error."""

    @abstractmethod
    async def inspect(self, *, timeout: float) -> Sequence[EndpointStatus]:
        """Ask every endpoint how it is. Never raises for an endpoint that is not well: it says so."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close connections and end watches."""

    def session(self, ttl: float, runtime: Runtime, *, root: str = "", strict: bool = False) -> Session:
        """Return a session that is not open yet; see `osdisco.session`. `root` is the namespace, ending in `/`."""
        from osdisco.session import Session

        return Session.on(self, ttl, runtime, root=root, strict=strict)


def check_key(key: str, limits: Limits) -> None:
    """Raise InvalidNameError when an escaped key is too long for the store."""
    if len(key) > limits.key_max:
        raise InvalidNameError(
            f"the key {key[:40]!a}… has {len(key)} bytes with its namespace, escaped; {limits.key_max} are allowed"
        )


def check_commit(ops: Sequence[Op], expect: Mapping[str, Condition], limits: Limits) -> None:
    """Refuse before sending what no store could do, or what stores would do differently.

    Raises:
        InvalidCommitError: nothing to do, a key written twice, or a leased put without its guard.
        LimitError: more than `ops_max` ops and conditions, or more than `value_max` bytes.
        InvalidNameError: a key over `key_max` bytes.
    """
    if len(ops) == 1 and not expect and len(ops[0].key) <= limits.key_max:  # the plain put: nothing else can be wrong
        op = ops[0]
        if isinstance(op, Delete) or (op.lease is None and len(op.value) <= limits.value_max):
            return
    if not ops:
        raise InvalidCommitError("a commit needs at least one Put or Delete")
    if len(ops) + len(expect) > limits.ops_max:
        raise LimitError(
            f"{len(ops)} ops and {len(expect)} conditions in one commit; at most {limits.ops_max} together are allowed"
        )
    for key in {op.key for op in ops} | expect.keys():
        check_key(key, limits)
    _check_written_once(ops)
    _check_size(ops, limits)
    for op in ops:
        _check_guard(op, expect)


def _check_written_once(ops: Sequence[Op]) -> None:
    seen: set[str] = set()
    for op in ops:
        if op.key in seen:
            raise InvalidCommitError(f"the key {op.key!a} is written twice in one commit; once is allowed")
        seen.add(op.key)


def _check_size(ops: Sequence[Op], limits: Limits) -> None:
    size = sum(len(op.value) for op in ops if isinstance(op, Put))
    if size > limits.value_max:
        raise LimitError(f"{size} bytes of values in one commit; {limits.value_max} are allowed")


def _check_guard(op: Op, expect: Mapping[str, Condition]) -> None:
    if isinstance(op, Delete) or op.lease is None:
        return
    guard = expect.get(op.key)
    if guard == ABSENT or guard == HeldBy(op.lease):
        return
    raise InvalidCommitError(
        f"the leased put of {op.key!a} needs expect={{key: ABSENT}} or HeldBy of its own lease: "
        "stores differ in what an unguarded one does"
    )
