"""The conformance suite goes red for a store that breaks a rule, in the test that names the rule."""

from __future__ import annotations

from typing import Any

import broken_connections
import broken_data
import broken_leases
import broken_watches
import pytest

from osdisco.backend import Backend
from osdisco.errors import OsdiscoError
from osdisco.runtime import Runtime
from osdisco.testing import BackendSuite, Harness, VirtualClock, run
from osdisco_memory import MemoryBackend, MemoryStore

RED = (AssertionError, pytest.fail.Exception, OsdiscoError, LookupError, AttributeError, TimeoutError, ExceptionGroup)

BROKEN = [
    (broken_data.FoldsNames, "k1_hostile_names_stay_distinct_keys"),
    (broken_data.ScansBeyondThePrefix, "k2_a_scan_takes_what_is_under_its_prefix_and_nothing_beside"),
    (broken_watches.WatchesTooMuch, "k2_a_key_that_is_also_a_prefix_is_watched_alone"),
    (broken_data.KeepsRevisions, "s1_1_every_change_raises_the_revision_above_all_earlier_ones"),
    (broken_data.RevisesKeysApart, "s1_1_one_commit_gives_all_its_keys_one_revision"),
    (broken_data.ForgetsCreation, "s1_1_created_stays_until_deletion_and_recreation_raises_it"),
    (broken_data.TellsTheNextRevision, "s1_2_an_identical_put_succeeds_and_tells_the_revision_that_stands"),
    (broken_data.CutsValues, "s15_a_value_of_the_largest_size_is_kept"),
    (broken_data.ScansStale, "s2_1_a_read_sees_every_write_that_was_acknowledged_before"),
    (broken_data.GetsStale, "s2_1_a_read_sees_every_write_that_was_acknowledged_before"),
    (broken_data.ScansInTwoHalves, "s2_1_a_scan_never_shows_half_a_commit"),
    (broken_data.ScansOnePage, "s2_1_a_scan_is_whole_however_much_there_is"),
    (broken_watches.ResumesAtPresent, "s2_2_a_snapshots_revision_resumes_the_watch"),
    (broken_watches.ResumesOneLate, "s2_2_a_snapshots_revision_resumes_the_watch"),
    (broken_watches.ResumesOneLate, "s6_1_a_watch_resumes_after_any_frame_of_another_one"),
    (broken_watches.LosesDeletes, "s6_1_a_single_key_resumes_across_its_deletion"),
    (broken_data.IgnoresALastCondition, "s3_1_commit_applies_nothing_when_one_condition_fails"),
    (broken_data.AppliesBeforeChecking, "s3_1_commit_applies_nothing_when_one_condition_fails"),
    (broken_data.ChecksExistenceOnly, "s3_1_each_condition_that_does_not_hold_is_a_conflict"),
    (broken_data.ComparesInclusively, "s3_1_each_condition_that_does_not_hold_is_a_conflict"),
    (broken_data.ChecksThenActs, "s3_1_of_concurrent_creates_exactly_one_succeeds"),
    (broken_data.ChecksThenActs, "s3_1_concurrent_compare_and_set_loses_no_update"),
    (broken_data.RefusesToDeleteTwice, "s3_2_deleting_a_missing_key_succeeds"),
    (broken_data.PassesWhatIsMissing, "s3_2_a_revision_of_a_missing_key_is_a_conflict"),
    (broken_data.ComparesInclusively, "s3_2_a_revision_from_before_a_recreation_is_a_conflict"),
    (broken_data.AnswersDeletes, "s3_4_the_answer_maps_each_key_put_to_its_revision"),
    (broken_data.LooksBeforeItWrites, "s3_5_a_commit_that_scans_shows_what_stands_right_after_it"),
    (broken_data.ChecksExistenceOnly, "s4_1_an_owner_updates_what_its_lease_holds_and_nobody_else_does"),
    (broken_data.AppliesBeforeChecking, "s5_1_an_error_that_proves_not_applied_is_true"),
    (broken_watches.BeginsWithBatches, "s6_1_the_first_frame_is_a_snapshot_of_all_that_is_there"),
    (broken_watches.LosesAChange, "s6_2_when_writes_stop_the_frames_fold_to_what_the_store_holds"),
    (broken_watches.LosesDeletes, "s6_2_when_writes_stop_the_frames_fold_to_what_the_store_holds"),
    (broken_watches.LosesDeletes, "s6_2_a_put_and_delete_in_quick_succession_leave_nothing"),
    (broken_watches.LosesAChange, "s6_2_without_conflation_every_commit_is_seen_in_order"),
    (broken_watches.TearsBatches, "s6_2_no_frame_shows_half_a_commit"),
    (broken_watches.RunsAhead, "s6_3_a_frame_shows_no_state_older_than_its_revision"),
    (broken_watches.RepeatsChanges, "s6_3_revisions_of_a_key_never_decrease"),
    (broken_data.ForgetsCreation, "s1_1_created_stays_until_deletion_and_recreation_raises_it"),
    (broken_watches.FallsSilent, "s6_4_an_idle_watch_shows_only_that_the_server_spoke"),
    (broken_watches.MakesUpDeletes, "s6_5_a_refused_commit_shows_nothing"),
    (broken_leases.EndsEarly, "s7_s8_a_lease_lives_for_its_ttl_and_ends_when_it_is_not_renewed"),
    (broken_leases.NeverExpires, "s7_s8_a_lease_lives_for_its_ttl_and_ends_when_it_is_not_renewed"),
    (broken_leases.LeavesKeys, "s7_s8_a_lease_lives_for_its_ttl_and_ends_when_it_is_not_renewed"),
    (broken_leases.EndsKeyByKey, "s7_s8_a_lease_lives_for_its_ttl_and_ends_when_it_is_not_renewed"),
    (broken_leases.RenewsNothing, "s7_a_renewed_lease_outlives_its_ttl"),
    (broken_leases.LeavesKeys, "s9_revoke_deletes_all_keys_of_the_lease_in_one_revision"),
    (broken_leases.EndsKeyByKey, "s9_revoke_deletes_all_keys_of_the_lease_in_one_revision"),
    (broken_leases.AcceptsDeadLeases, "s9_no_write_under_an_ended_lease_succeeds"),
    (broken_leases.AcceptsDeadLeases, "s9_a_create_that_was_delayed_past_the_end_is_rejected"),
    (broken_leases.RenewsDeadLeases, "s9_renewing_an_ended_lease_is_lease_expired"),
    (broken_leases.EndsByName, "s9_the_end_of_a_lease_spares_what_is_not_its_own"),
    (broken_leases.RefusesGoneLeases, "s9_revoking_what_is_gone_is_no_error"),
    (broken_watches.LosesDeletes, "s10_a_session_sees_the_end_of_its_lease_by_a_key_of_its_own"),
    (broken_leases.HidesLeases, "s13_the_lease_of_a_key_is_visible_to_all_readers"),
    (broken_leases.GrantsInSilence, "s15_a_ttl_below_what_is_granted_is_raised_and_told"),
    (broken_leases.GrantsForEver, "s15_a_ttl_above_what_is_granted_is_refused"),
    (broken_data.TakesLess, "s15_a_commit_of_the_largest_size_applies"),
    (broken_connections.SaysNoAndAppliesIt, "e2_a_write_that_times_out_never_says_no_when_it_was_applied"),
    (broken_connections.StaysOpen, "e3_closing_twice_is_fine_and_what_comes_later_is_closed"),
    (broken_connections.WatchesOn, "e3_closing_ends_open_watches_and_leaves_no_task"),
    (broken_connections.LeavesATask, "s2_1_get_returns_the_bytes_that_were_put"),
    (broken_data.RemembersTheDead, "s2_1_what_is_not_there_is_none_and_an_empty_snapshot"),
    (broken_data.CountsSnapshotsBack, "s2_2_a_snapshots_revision_is_not_before_what_it_holds"),
    (broken_data.PutsOnly, "s3_1_all_ops_apply_when_all_conditions_hold"),
    (broken_data.CutsKeys, "s15_a_key_of_the_largest_size_is_kept_and_a_longer_one_refused"),
    (broken_data.DeclaresNonsense, "s15_limits_are_declared_as_numbers"),
    (broken_data.ShowsValues, "e1_no_repr_shows_a_value"),
    (broken_watches.DropsLargeEvents, "s6_1_a_backlog_of_megabytes_arrives_whole"),
    (broken_watches.DropsLargeEvents, "s6_2_a_value_of_the_largest_size_arrives_whole"),
    (broken_watches.ResumesWithNothing, "s6_1_resuming_when_nothing_happened_shows_what_comes_next"),
    (broken_watches.OverflowsInSilence, "s6_2_a_slow_consumer_arrives_at_the_latest_state"),
    (broken_watches.WakesTen, "s6_2_many_watches_of_one_backend_all_see_a_change"),
    (broken_watches.RemembersCreation, "s6_3_delete_and_recreate_shows_as_a_changed_created"),
    (broken_watches.ClosesTogether, "s6_5_closing_a_watch_ends_it_and_nothing_else"),
    (broken_leases.GrantsTheSame, "s13_leases_are_told_apart"),
    (broken_leases.EndsWithItsKey, "s9_a_key_deleted_by_hand_leaves_its_lease_alive"),
    (broken_leases.TellsTwiceTheTtl, "s16_anybody_may_ask_how_long_a_lease_lasts"),
    (broken_leases.RenewsWhatIsAskedFor, "s16_asking_renews_nothing"),
    (broken_leases.RemembersLeases, "s16_what_has_ended_has_no_status"),
    (broken_connections.TakesAnyOption, "e1_an_option_that_the_backend_does_not_know_is_a_config_error"),
    (broken_connections.RaisesItsOwnErrors, "e2_a_lease_call_that_times_out_is_unavailable_or_indeterminate"),
    (broken_connections.DoubtsItsReads, "e2_a_read_that_times_out_is_unavailable"),
    (broken_connections.TakesItsTime, "e2_a_read_that_times_out_is_unavailable"),
    (broken_connections.BreaksWhenCancelled, "e2_a_cancelled_call_leaves_the_backend_as_it_was"),
    (broken_connections.SwallowsCancellation, "e2_a_cancelled_watch_leaves_the_backend_as_it_was"),
    (broken_connections.ClosesWhatItOpened, "e3_a_backend_that_was_never_used_closes"),
    (broken_connections.TidiesUp, "e3_what_one_backend_wrote_stays_when_it_closes"),
    (broken_connections.SaysNothing, "e1_inspect_tells_that_a_good_store_is_well"),
]


class Broken(Harness):
    def __init__(self, kind: type[MemoryStore] | type[MemoryBackend]) -> None:
        super().__init__(Runtime(clock=VirtualClock()))
        self._backend = kind if issubclass(kind, MemoryBackend) else MemoryBackend
        self._store = kind() if issubclass(kind, MemoryStore) else MemoryStore()

    def make_backend(self) -> Backend:
        return self._backend(self._store, self.runtime)


@pytest.mark.parametrize(
    ("kind", "rule"), BROKEN, ids=lambda value: value if isinstance(value, str) else value.__name__
)
def test_the_suite_tells_a_broken_store(kind: type[Any], rule: str) -> None:
    _call(MemoryStore, rule)
    red = _failure(kind, rule)
    assert red is not None, "it is not told"
    if isinstance(red, ExceptionGroup):
        assert red.subgroup(RED[:-1]) is not None, red


def test_every_test_of_the_suite_was_seen_red() -> None:
    tests = {name for name in dir(BackendSuite) if name.startswith("test_")}
    assert tests == {f"test_{rule}" for _, rule in BROKEN}


def _failure(kind: type[Any], rule: str) -> BaseException | None:
    """Return how a test of the suite fails. What `pytest.raises` catches must show no secret, as one of these does."""
    try:
        _call(kind, rule)
    except RED as exc:
        return exc
    return None


def _call(kind: type[Any], rule: str) -> None:
    """Run one test of the suite; one with parameters, with each of them until it fails."""
    test = getattr(BackendSuite, f"test_{rule}")
    marks = [mark.args[1] for mark in getattr(test, "pytestmark", ())]
    for argument in marks[0] if marks else ():
        run(test(BackendSuite(), Broken(kind), argument))
    if not marks:
        run(test(BackendSuite(), Broken(kind)))
