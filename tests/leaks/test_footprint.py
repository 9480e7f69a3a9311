"""The verdict on what grows, by samples that are made up."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from footprint import GROWTH_MOST, Sample, growth, verdict

MIB = 2**20
SECONDS = 600.0


def samples(
    mib: Callable[[float], float], count: int = 60, tasks: Callable[[float], int] = lambda at: 37
) -> list[Sample]:
    """Return samples of ten minutes whose memory and tasks are functions of the second."""
    moments = [SECONDS * (number + 1) / count for number in range(count)]
    return [Sample(at, round(mib(at) * MIB), tasks(at), 41, 51, 8) for at in moments]


def noisy(slope: float) -> Callable[[float], float]:
    """Return memory that grows by `slope` MiB in the ten minutes under noise of a quarter of a MiB."""
    chance = random.Random(1)
    return lambda at: 110 + slope * at / SECONDS + chance.uniform(-0.25, 0.25)


def grown(seen: Sequence[Sample]) -> float:
    return growth(seen, SECONDS) / MIB


@pytest.mark.parametrize("count", [10, 13, 60, 601])
def test_what_is_flat_has_not_grown(count: int) -> None:
    flat = samples(lambda at: 110, count)
    assert grown(flat) == 0
    assert verdict(flat, SECONDS) == []


@pytest.mark.parametrize("slope", [0.0, 1.0, 1.6])
def test_noise_is_no_growth(slope: float) -> None:
    seen = samples(noisy(slope))
    assert grown(seen) == pytest.approx(slope, abs=0.3)
    assert verdict(seen, SECONDS) == []


@pytest.mark.parametrize("slope", [2.4, 3.0, 20.0])
@pytest.mark.parametrize("count", [10, 60])
def test_growth_is_that_of_all_of_the_time(slope: float, count: int) -> None:
    seen = samples(noisy(slope), count)
    assert grown(seen) == pytest.approx(slope, abs=0.6)
    [said] = verdict(seen, SECONDS)
    assert said.startswith("memory grew by ")


def test_growth_in_a_part_of_the_time_is_scaled_to_all_of_it() -> None:
    """The case that was once taken for 1.36 MiB: 112.89 after 199 s, and 115.01 after 590 s."""
    slope = (115.01 - 112.89) / (590 - 199)
    part = [one for one in samples(lambda at: 112.89 + slope * (at - 199)) if 199 <= one.at <= 590]
    assert grown(part) == pytest.approx(slope * SECONDS, rel=0.001)
    assert growth(part, SECONDS) > GROWTH_MOST
    assert verdict(part, SECONDS)


def test_one_peak_is_no_growth() -> None:
    seen = samples(lambda at: 110.0)
    seen[0].resident -= 50 * MIB
    seen[-2].resident += 50 * MIB
    assert grown(seen) == 0


def test_a_step_counts_wherever_it_is() -> None:
    for step in (90, 300, 510):
        assert grown(samples(lambda at, step=step: 110 + 3 * (at > step))) >= 3


def test_tasks_that_come_and_go_are_none_that_stay() -> None:
    assert verdict(samples(lambda at: 110, tasks=lambda at: 37 + round(at / 10) % 2), SECONDS) == []
    [said] = verdict(samples(lambda at: 110, tasks=lambda at: 37 + round(at / 100)), SECONDS)
    assert "tasks" in said


def test_too_few_samples_tell_nothing() -> None:
    assert verdict(samples(lambda at: 110, 9), SECONDS) == ["9 samples are too few to tell anything"]
