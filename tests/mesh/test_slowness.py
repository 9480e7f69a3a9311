"""Slowness: who takes much longer than usual is picked as if it had more calls under way, until that has faded."""

from __future__ import annotations

import pytest
from fleets import Fleet

from osdisco.mesh import Outcome, PoolSettings


def fleet_with(seconds: float, rounds: int = 20) -> Fleet:
    """Five endpoints of which the first has taken so long, and the others 0.1 s."""
    fleet = Fleet(5, PoolSettings(outliers=None))
    for _ in range(rounds):
        for number in (1, 2, 3, 4, 0):
            fleet.call(number, Outcome.OK, seconds if number == 0 else 0.1)
    return fleet


def test_who_is_much_slower_is_not_picked_while_the_others_have_little_to_do() -> None:
    assert "e0" not in fleet_with(2.0).picked(500)


def test_less_than_three_times_as_long_is_noise() -> None:
    assert "e0" in fleet_with(0.25).picked(500)


def test_it_is_picked_when_the_others_have_as_much_to_do_as_it_is_slower() -> None:
    fleet = fleet_with(0.8)
    slow = fleet.state(0)
    assert 3 < slow.slowness < 8
    for number in range(1, 5):
        for _ in range(8):
            fleet.pool.begin(fleet.state(number))
    assert "e0" in fleet.picked(200)
    for _ in range(2):
        fleet.pool.begin(slow)
    assert "e0" not in fleet.picked(200)


def test_it_is_never_held_for_more_than_ten_times_as_slow() -> None:
    assert 3 < fleet_with(1.5, 60).state(0).slowness <= 10


def test_what_was_found_fades_and_comes_back_with_the_next_slow_answers() -> None:
    fleet = fleet_with(2.0)
    for _ in range(4):
        fleet.time.at += 10.5
        fleet.picked(10)
    assert "e0" in fleet.picked(200)
    fleet.call(0, Outcome.OK, 2.0, times=5)
    assert "e0" not in fleet.picked(500)


def test_one_answer_that_was_late_is_not_yet_slow() -> None:
    fleet = fleet_with(0.1)
    fleet.call(0, Outcome.OK, 60.0)
    assert "e0" in fleet.picked(200)


@pytest.mark.parametrize(("outcome", "slow"), [(Outcome.TIMEOUT, True), (Outcome.CANCELLED, False)])
def test_a_call_that_ran_out_of_time_took_at_least_that_long(outcome: Outcome, slow: bool) -> None:
    fleet = fleet_with(0.1)
    fleet.call(0, outcome, 4.0, times=6)
    assert (fleet.state(0).slowness > 3) is slow
    assert ("e0" not in fleet.picked(500)) is slow


def test_callers_who_wait_for_a_moment_only_do_not_make_a_slow_one_look_quick() -> None:
    fleet = fleet_with(2.0)
    usual = fleet.pool._pace.usual
    fleet.call(0, Outcome.TIMEOUT, 0.02, times=40)
    assert fleet.pool._pace.usual == usual
    fleet.state(0).ejected_until = None
    assert "e0" not in fleet.picked(500)


def test_who_fails_at_once_does_not_look_quick_by_it() -> None:
    fleet = fleet_with(2.0)
    fleet.call(0, Outcome.FAILED, 0.001, times=9)
    assert "e0" not in fleet.picked(500)
