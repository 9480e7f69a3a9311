"""The conformance suite goes red for a store that breaks a rule, in the test that names the rule."""

from __future__ import annotations

from typing import Any

import broken_stores as broken
import pytest

from osdisco.backend import Backend
from osdisco.errors import OsdiscoError
from osdisco.runtime import Runtime
from osdisco.testing import BackendSuite, Harness, VirtualClock, run
from osdisco_memory import MemoryBackend, MemoryStore

RED = (AssertionError, pytest.fail.Exception, OsdiscoError, ExceptionGroup)

BROKEN = [
    (broken.FoldsNames, "k1_hostile_names_stay_distinct_keys"),
    (broken.ScansBeyondThePrefix, "k2_a_scan_takes_what_is_under_its_prefix_and_nothing_beside"),
    (broken.WatchesTooMuch, "k2_a_key_that_is_also_a_prefix_is_watched_alone"),
    (broken.KeepsRevisions, "s1_1_every_change_raises_the_revision_above_all_earlier_ones"),
    (broken.RevisesKeysApart, "s1_1_one_commit_gives_all_its_keys_one_revision"),
    (broken.ForgetsCreation, "s1_1_created_stays_until_deletion_and_recreation_raises_it"),
    (broken.TellsTheNextRevision, "s1_2_an_identical_put_succeeds_and_tells_the_revision_that_stands"),
    (broken.CutsValues, "s15_a_value_of_the_largest_size_is_kept"),
    (broken.ScansStale, "s2_1_a_read_sees_every_write_that_was_acknowledged_before"),
    (broken.GetsStale, "s2_1_a_read_sees_every_write_that_was_acknowledged_before"),
    (broken.ScansInTwoHalves, "s2_1_a_scan_never_shows_half_a_commit"),
    (broken.ScansOnePage, "s2_1_a_scan_is_whole_however_much_there_is"),
    (broken.ResumesAtPresent, "s2_2_a_snapshots_revision_resumes_the_watch"),
    (broken.ResumesOneLate, "s2_2_a_snapshots_revision_resumes_the_watch"),
    (broken.ResumesOneLate, "s6_1_a_watch_resumes_after_any_frame_of_another_one"),
    (broken.LosesDeletes, "s6_1_a_single_key_resumes_across_its_deletion"),
    (broken.IgnoresALastCondition, "s3_1_commit_applies_nothing_when_one_condition_fails"),
    (broken.AppliesBeforeChecking, "s3_1_commit_applies_nothing_when_one_condition_fails"),
    (broken.ChecksExistenceOnly, "s3_1_each_condition_that_does_not_hold_is_a_conflict"),
    (broken.ComparesInclusively, "s3_1_each_condition_that_does_not_hold_is_a_conflict"),
    (broken.ChecksThenActs, "s3_1_of_concurrent_creates_exactly_one_succeeds"),
    (broken.ChecksThenActs, "s3_1_concurrent_compare_and_set_loses_no_update"),
    (broken.RefusesToDeleteTwice, "s3_2_deleting_a_missing_key_succeeds"),
    (broken.PassesWhatIsMissing, "s3_2_a_revision_of_a_missing_key_is_a_conflict"),
    (broken.ComparesInclusively, "s3_2_a_revision_from_before_a_recreation_is_a_conflict"),
    (broken.AnswersDeletes, "s3_4_the_answer_maps_each_key_put_to_its_revision"),
    (broken.ChecksExistenceOnly, "s4_1_an_owner_updates_what_its_lease_holds_and_nobody_else_does"),
    (broken.AppliesBeforeChecking, "s5_1_an_error_that_proves_not_applied_is_true"),
    (broken.BeginsWithBatches, "s6_1_the_first_frame_is_a_snapshot_of_all_that_is_there"),
    (broken.LosesAChange, "s6_2_when_writes_stop_the_frames_fold_to_what_the_store_holds"),
    (broken.LosesDeletes, "s6_2_when_writes_stop_the_frames_fold_to_what_the_store_holds"),
    (broken.LosesDeletes, "s6_2_a_put_and_delete_in_quick_succession_leave_nothing"),
    (broken.LosesAChange, "s6_2_without_conflation_every_commit_is_seen_in_order"),
    (broken.TearsBatches, "s6_2_no_frame_shows_half_a_commit"),
    (broken.RepeatsChanges, "s6_3_revisions_of_a_key_never_decrease"),
    (broken.ForgetsCreation, "s1_1_created_stays_until_deletion_and_recreation_raises_it"),
    (broken.FallsSilent, "s6_4_an_idle_watch_shows_only_that_the_server_spoke"),
    (broken.MakesUpDeletes, "s6_5_a_refused_commit_shows_nothing"),
    (broken.EndsEarly, "s7_s8_a_lease_lives_for_its_ttl_and_ends_when_it_is_not_renewed"),
    (broken.NeverExpires, "s7_s8_a_lease_lives_for_its_ttl_and_ends_when_it_is_not_renewed"),
    (broken.LeavesKeys, "s7_s8_a_lease_lives_for_its_ttl_and_ends_when_it_is_not_renewed"),
    (broken.EndsKeyByKey, "s7_s8_a_lease_lives_for_its_ttl_and_ends_when_it_is_not_renewed"),
    (broken.RenewsNothing, "s7_a_renewed_lease_outlives_its_ttl"),
    (broken.LeavesKeys, "s9_revoke_deletes_all_keys_of_the_lease_in_one_revision"),
    (broken.EndsKeyByKey, "s9_revoke_deletes_all_keys_of_the_lease_in_one_revision"),
    (broken.AcceptsDeadLeases, "s9_no_write_under_an_ended_lease_succeeds"),
    (broken.AcceptsDeadLeases, "s9_a_create_that_was_delayed_past_the_end_is_rejected"),
    (broken.RenewsDeadLeases, "s9_renewing_an_ended_lease_is_lease_expired"),
    (broken.EndsByName, "s9_the_end_of_a_lease_spares_what_is_not_its_own"),
    (broken.RefusesGoneLeases, "s9_revoking_what_is_gone_is_no_error"),
    (broken.LosesDeletes, "s10_a_session_sees_the_end_of_its_lease_by_a_key_of_its_own"),
    (broken.HidesLeases, "s13_the_lease_of_a_key_is_visible_to_all_readers"),
    (broken.GrantsInSilence, "s15_a_ttl_below_what_is_granted_is_raised_and_told"),
    (broken.GrantsForEver, "s15_a_ttl_above_what_is_granted_is_refused"),
    (broken.TakesLess, "s15_a_commit_of_the_largest_size_applies"),
    (broken.SaysNoAndAppliesIt, "e2_a_write_that_times_out_never_says_no_when_it_was_applied"),
    (broken.StaysOpen, "e3_closing_twice_is_fine_and_what_comes_later_is_closed"),
    (broken.WatchesOn, "e3_closing_ends_open_watches_and_leaves_no_task"),
    (broken.LeavesATask, "s2_1_get_returns_the_bytes_that_were_put"),
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
    with pytest.raises(RED) as red:
        _call(kind, rule)
    if isinstance(red.value, ExceptionGroup):
        assert red.value.subgroup(RED[:3]) is not None, red.value


def _call(kind: type[Any], rule: str) -> None:
    """Run one test of the suite; one with parameters, with each of them until it fails."""
    test = getattr(BackendSuite, f"test_{rule}")
    marks = [mark.args[1] for mark in getattr(test, "pytestmark", ())]
    for argument in marks[0] if marks else ():
        run(test(BackendSuite(), Broken(kind), argument))
    if not marks:
        run(test(BackendSuite(), Broken(kind)))
