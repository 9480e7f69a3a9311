"""The interface that a store's adapter implements, and the contract that every adapter keeps.

Four facets: **kv** (`get`, `scan`, `commit`), **watch**, **lease** (`grant`, `renew`, `revoke`) and **session** (one
implementation for all stores, on top of lease). The interface is cut below locks and elections on purpose: those are
written once, in core. An adapter retries and caches nothing, and keeps no task beyond the upkeep of its connections.

The contract. In brackets behind each rule stand the tests that hold it: in `osdisco.testing.BackendSuite`, so on every
store, unless a file is named. "Conflict" is `ConflictError`, and so on.

Keys and values
    K1. Keys arrive escaped (`osdisco.names`), namespace included; an adapter neither escapes nor interprets them.
        [test_k1_hostile_names_stay_distinct_keys]
        Keys of foreign writers that are not UTF-8 come out with `surrogateescape`.
        [tests/etcd/test_etcd_store.py test_keys_and_values_of_other_writers_come_out_as_they_are]
    K2. A target of `watch` is one key, or a prefix ending in `/`. `scan` takes a prefix.
        [test_k2_a_scan_takes_what_is_under_its_prefix_and_nothing_beside,
        test_k2_a_key_that_is_also_a_prefix_is_watched_alone]

S1  Versions
    1. A change gives its key a `revision` above every earlier one in the store; one commit gives all its keys one
       revision. `created` stays until deletion; recreation raises it.
       [test_s1_1_every_change_raises_the_revision_above_all_earlier_ones,
       test_s1_1_one_commit_gives_all_its_keys_one_revision,
       test_s1_1_created_stays_until_deletion_and_recreation_raises_it]
    2. Not promised: density, a new revision for a byte-identical put, a revision of a delete, comparability across
       stores or restores. [test_s1_2_an_identical_put_succeeds_and_tells_the_revision_that_stands]
S2  Reads
    1. `get` and `scan` are linearizable. A scan is one atomic snapshot.
       [test_s2_1_a_read_sees_every_write_that_was_acknowledged_before, test_s2_1_a_scan_never_shows_half_a_commit,
       test_s2_1_a_scan_is_whole_however_much_there_is, test_s2_1_get_returns_the_bytes_that_were_put,
       test_s2_1_what_is_not_there_is_none_and_an_empty_snapshot]
    2. A snapshot's `revision` is a cursor that only resumes a watch of the same target on the same store.
       [test_s2_2_a_snapshots_revision_resumes_the_watch, test_s2_2_a_snapshots_revision_is_not_before_what_it_holds]
S3  Commit
    1. If every condition of `expect` holds, all ops apply atomically; otherwise Conflict, and nothing applies.
       [test_s3_1_all_ops_apply_when_all_conditions_hold, test_s3_1_commit_applies_nothing_when_one_condition_fails,
       test_s3_1_each_condition_that_does_not_hold_is_a_conflict,
       test_s3_1_of_concurrent_creates_exactly_one_succeeds, test_s3_1_concurrent_compare_and_set_loses_no_update]
    2. Deleting a missing key succeeds unless a condition says otherwise. `Revision(n)` on a missing key is a Conflict.
       [test_s3_2_deleting_a_missing_key_succeeds, test_s3_2_a_revision_of_a_missing_key_is_a_conflict,
       test_s3_2_a_revision_from_before_a_recreation_is_a_conflict]
    3. Conditions plus ops stay within `limits.ops_max`, each key is written at most once (core refuses the rest).
       [tests/core/test_commit_checks.py test_s3_3_a_commit_that_contradicts_itself_is_refused]
    4. The answer maps each key put to its revision. [test_s3_4_the_answer_maps_each_key_put_to_its_revision]
    5. `commit_and_scan` is a commit; what it shows of a prefix is what stands there right after it, in the same step,
       or None: then nothing was read. [test_s3_5_a_commit_that_scans_shows_what_stands_right_after_it]
S4  Leased puts
    1. A put with a lease is guarded by `ABSENT` or `HeldBy(that lease)` on its key (core refuses the rest).
       [test_s4_1_an_owner_updates_what_its_lease_holds_and_nobody_else_does]
       [tests/core/test_commit_checks.py test_s4_1_a_leased_put_without_its_guard_is_refused]
    2. A bare put over a leased key is not portable (etcd detaches the lease, Consul keeps it); no recipe does it.
       [tests/memory/test_memory_faults.py test_what_a_store_does_to_leases_can_be_chosen]
S5  Outcomes
    1. A mutation returns, raises an error that proves that it was not applied, or raises Indeterminate.
       [test_s5_1_an_error_that_proves_not_applied_is_true,
       test_e2_a_write_that_times_out_never_says_no_when_it_was_applied]
    2. It is sent once: no layer under the adapter sends it again.
       [tests/etcd/test_etcd_endpoints.py test_a_write_is_sent_once]
       [tests/consul/test_consul_wire.py test_a_write_is_not_sent_again_when_its_pooled_connection_is_cut]
S6  Watch
    1. The first frame is a Snapshot, unless `after` is given and the store can resume there; then Batches follow from
       `after`. Later frames may be either. A Snapshot replaces all, a Batch removes its deletes, then sets its puts.
       [test_s6_1_the_first_frame_is_a_snapshot_of_all_that_is_there,
       test_s6_1_a_watch_resumes_after_any_frame_of_another_one,
       test_s6_1_resuming_when_nothing_happened_shows_what_comes_next,
       test_s6_1_a_single_key_resumes_across_its_deletion, test_s6_1_a_backlog_of_megabytes_arrives_whole]
    2. When writes stop, folding the frames gives the store's content. Every frame moves between two real states of the
       store: no transaction is torn. Intermediate states may be missing where `limits.conflates`.
       [test_s6_2_when_writes_stop_the_frames_fold_to_what_the_store_holds, test_s6_2_no_frame_shows_half_a_commit,
       test_s6_2_without_conflation_every_commit_is_seen_in_order,
       test_s6_2_a_put_and_delete_in_quick_succession_leave_nothing,
       test_s6_2_a_slow_consumer_arrives_at_the_latest_state,
       test_s6_2_many_watches_of_one_backend_all_see_a_change, test_s6_2_a_value_of_the_largest_size_arrives_whole]
    3. Per key `revision` never decreases. Delete and recreate shows as a changed `created`. A frame whose `revision` is
       not below a key's `created` shows a state that is not older than that creation; the reverse is not promised.
       [test_s6_3_revisions_of_a_key_never_decrease, test_s6_3_delete_and_recreate_shows_as_a_changed_created,
       test_s6_3_a_frame_shows_no_state_older_than_its_revision]
    4. A frame, if need be an empty Batch, comes at least every WATCH_SILENCE seconds, and means that the server spoke.
       Otherwise the adapter raises within those seconds. [test_s6_4_an_idle_watch_shows_only_that_the_server_spoke]
       [tests/etcd/test_etcd_endpoints.py test_a_watch_on_a_frozen_server_raises_in_time]
       [tests/consul/test_consul_watch.py test_silence_ends_it_in_time]
    5. It ends only by `aclose()` or an exception. It never makes up deletes: not from errors, lost permission,
       compaction or an index that went backwards.
       [test_s6_5_closing_a_watch_ends_it_and_nothing_else, test_s6_5_a_refused_commit_shows_nothing]
       [tests/memory/test_memory_faults.py test_s6_5_trouble_ends_an_open_watch_and_makes_up_no_deletes]
       [tests/etcd/test_etcd_frames.py test_compaction_is_a_new_snapshot_and_never_an_error]
       [tests/consul/test_consul_watch.py test_losing_permission_is_no_delete,
       test_an_index_that_goes_backwards_starts_over_at_once]
S7  A lease does not expire before the server processed its last good renewal plus `ttl`, unless revoked or by an
    operator. [test_s7_s8_a_lease_lives_for_its_ttl_and_ends_when_it_is_not_renewed,
    test_s7_a_renewed_lease_outlives_its_ttl]
S8  There is no upper bound. `limits.expiry_factor` tells what is usual: Consul takes up to twice the ttl.
    [test_s7_s8_a_lease_lives_for_its_ttl_and_ends_when_it_is_not_renewed]
S9  Revoke and expiry delete all keys of the lease in one revision. Afterwards no write under it succeeds, however late
    it arrives: LeaseExpired.
    [test_s9_revoke_deletes_all_keys_of_the_lease_in_one_revision, test_s9_no_write_under_an_ended_lease_succeeds,
    test_s9_a_create_that_was_delayed_past_the_end_is_rejected, test_s9_renewing_an_ended_lease_is_lease_expired,
    test_s9_revoking_what_is_gone_is_no_error, test_s9_the_end_of_a_lease_spares_what_is_not_its_own,
    test_s9_a_key_deleted_by_hand_leaves_its_lease_alive]
S10 A good renewal is no proof that the lease still holds its keys; sessions therefore watch a key of their own.
    [test_s10_a_session_sees_the_end_of_its_lease_by_a_key_of_its_own]
    [tests/core/test_session.py
    test_a_lease_that_died_while_renewals_are_answered_well_is_noticed_by_the_liveness_key]
S11 A session is valid until t_send + 0.99 ttl - min(1 s, ttl/10) of its last good renewal, t_send taken before sending,
    on a clock that counts suspend. An answer after the deadline does not count. `check()` reads the clock and nothing
    else. [tests/core/test_session.py test_a_renewal_extends_from_its_sending_not_from_its_answer,
    test_an_answer_after_the_deadline_does_not_count, test_check_asks_nobody,
    test_a_suspended_machine_finds_its_session_lost_at_the_first_check_before_any_await]
S12 Loss is a one-way latch with a reason, set by the first of: deadline, lease not found, liveness key gone.
    [tests/core/test_session.py test_a_loss_stays_whatever_is_answered_later,
    test_a_loss_in_the_very_step_of_a_good_answer_is_a_loss]
S13 Keys of a lease vanish with it; `lease` is visible to all readers.
    [test_s13_the_lease_of_a_key_is_visible_to_all_readers, test_s13_leases_are_told_apart]
S14 At most one lowest entry of a queue exists in the store at any time; effects elsewhere need a fencing token.
    [tests/coordination/test_lock.py test_waiters_get_the_lock_in_the_order_in_which_they_came,
    test_an_old_holder_that_was_paused_cannot_write]
S15 Limits are declared as numbers in `limits`, and what exceeds them is refused before it is sent: LimitError.
    [test_s15_limits_are_declared_as_numbers, test_s15_a_commit_of_the_largest_size_applies,
    test_s15_a_value_of_the_largest_size_is_kept,
    test_s15_a_key_of_the_largest_size_is_kept_and_a_longer_one_refused]
    [tests/core/test_commit_checks.py test_s15_what_exceeds_the_limits_is_refused]
    A ttl below what the store grants is raised and told in `Lease.ttl`; one above is a LimitError.
    [test_s15_a_ttl_below_what_is_granted_is_raised_and_told, test_s15_a_ttl_above_what_is_granted_is_refused]
S16 `lease_status` tells of any lease, by its id, the ttl that was granted and, where the store knows it, the seconds
    that are left. None for one that has ended or never was. Asking renews nothing.
    [test_s16_anybody_may_ask_how_long_a_lease_lasts, test_s16_asking_renews_nothing,
    test_s16_what_has_ended_has_no_status]

Errors
    E1. Every failure is an `OsdiscoError` of the right outcome, raised `from` the driver's own; core never sees grpc or
        aiohttp. A redirect is never followed; an answer that is no answer of the store (HTML, half an answer, another
        kind of server) is Unavailable for reads and Indeterminate for what may have been applied.
        [test_e1_an_option_that_the_backend_does_not_know_is_a_config_error, test_e1_no_repr_shows_a_value,
        test_e1_inspect_tells_that_a_good_store_is_well]
        [tests/etcd/test_etcd_endpoints.py test_a_server_that_is_not_etcd]
        [tests/consul/test_consul_wire.py test_what_is_no_answer_of_consul_is_never_taken_for_one]
    E2. Nothing waits longer than `timeout` for its answer. A read that timed out is Unavailable, a mutation
        Indeterminate. After a failure of the connection the next call uses the next endpoint.
        [test_e2_a_read_that_times_out_is_unavailable, test_e2_a_write_that_times_out_never_says_no_when_it_was_applied,
        test_e2_a_lease_call_that_times_out_is_unavailable_or_indeterminate,
        test_e2_a_cancelled_call_leaves_the_backend_as_it_was, test_e2_a_cancelled_watch_leaves_the_backend_as_it_was]
        [tests/etcd/test_etcd_endpoints.py test_the_next_endpoint_is_used_after_a_failure]
        [tests/consul/test_consul_server.py test_a_dead_endpoint_costs_one_attempt]
    E3. `aclose()` may be called twice, leaves no task, socket or lease request behind, and what is used afterwards
        raises Closed. [test_e3_closing_twice_is_fine_and_what_comes_later_is_closed,
        test_e3_closing_ends_open_watches_and_leaves_no_task, test_e3_a_backend_that_was_never_used_closes,
        test_e3_what_one_backend_wrote_stays_when_it_closes]
        [tests/consul/test_consul_server.py test_closing_leaves_no_connection]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from attrs import field, frozen

if TYPE_CHECKING:
    from osdisco.runtime import Runtime
    from osdisco.session import Session
    from osdisco.url import StoreURL

WATCH_SILENCE: Final = 15.0
"""Seconds within which a watch yields a frame or raises (S6.4)."""


class Item(NamedTuple):
    """A key as the store has it. `lease` is the lease it hangs on, if any.

    A tuple, because a large view makes thousands of them at once, and that is the quickest kind.
    """

    key: str
    value: bytes
    created: int
    revision: int
    lease: str | None = None

    def __repr__(self) -> str:
        """Leave the value out: it may be a secret, and logs are not its place."""
        told = (
            f"key={self.key!r}, value=<{len(self.value)} bytes>, created={self.created!r}, revision={self.revision!r}"
        )
        return f"Item({told}, lease={self.lease!r})"

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
class LeaseStatus:
    """A lease as others see it: `ttl` and what is `left` of it, in seconds.

    `left` is None where the store does not tell it; `ttl` is None for a foreign one without any.
    """

    ttl: float | None
    left: float | None = None


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

    async def commit_and_scan(
        self, ops: Sequence[Op], expect: Mapping[str, Condition], prefix: str, *, timeout: float
    ) -> tuple[Mapping[str, int], Mapping[str, Item] | None]:
        """Commit, and tell what stands under a prefix then, in one request (S3.5). None where a store cannot."""
        return await self.commit(ops, expect, timeout=timeout), None

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
    async def lease_status(self, lease: str, *, timeout: float) -> LeaseStatus | None:
        """Tell how long a lease lasts, by its id (S16)."""

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
