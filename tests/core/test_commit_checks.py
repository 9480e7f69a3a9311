"""What core refuses of a commit before it reaches any store: rules S3.3, S4.1 and S15."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from osdisco._checks import check_commit
from osdisco.backend import ABSENT, Condition, Delete, HeldBy, Limits, Op, Put, Revision
from osdisco.errors import InvalidCommitError, InvalidNameError, LimitError

LIMITS = Limits(ttl_min=1, ttl_max=10, expiry_factor=1)


def test_s3_3_a_commit_of_the_declared_size_passes() -> None:
    check_commit([Put(f"k{n}", b"") for n in range(LIMITS.ops_max)], {}, LIMITS)
    check_commit([Put(f"k{n}", b"") for n in range(32)], {f"k{n}": ABSENT for n in range(32)}, LIMITS)
    check_commit([Put("a", b"x" * LIMITS.value_max)], {}, LIMITS)
    check_commit([Put("a", b"x" * LIMITS.value_max), Delete("b")], {"b": ABSENT}, LIMITS)
    check_commit([Delete("k" * LIMITS.key_max)], {}, LIMITS)


@pytest.mark.parametrize(
    ("ops", "expect"),
    [
        ([Put(f"k{n}", b"") for n in range(65)], {}),
        ([Put(f"k{n}", b"") for n in range(64)], {"k0": ABSENT}),
        ([Put("a", b"x" * (LIMITS.value_max + 1))], {}),
        ([Put("a", b"x" * LIMITS.value_max), Put("b", b"x")], {}),
        ([Put("a", b"x" * (LIMITS.value_max + 1), "mine")], {"a": ABSENT}),
    ],
    ids=["65 ops", "64 ops and a condition", "a value", "values together", "a leased value"],
)
def test_s15_what_exceeds_the_limits_is_refused(ops: Sequence[Op], expect: Mapping[str, Condition]) -> None:
    with pytest.raises(LimitError):
        check_commit(ops, expect, LIMITS)


@pytest.mark.parametrize(
    ("ops", "expect"),
    [([Put("k" * 513, b"")], {}), ([Delete("k" * 513)], {}), ([Put("a", b"")], {"k" * 513: ABSENT})],
    ids=["put", "delete", "condition"],
)
def test_s15_a_key_that_is_too_long_is_refused(ops: Sequence[Op], expect: Mapping[str, Condition]) -> None:
    with pytest.raises(InvalidNameError, match="513 bytes"):
        check_commit(ops, expect, LIMITS)


@pytest.mark.parametrize(
    "ops",
    [[], [Put("a", b""), Put("a", b"")], [Put("a", b""), Delete("a")], [Delete("a"), Delete("b"), Delete("a")]],
    ids=["nothing", "put twice", "put and deleted", "deleted twice"],
)
def test_s3_3_a_commit_that_contradicts_itself_is_refused(ops: Sequence[Op]) -> None:
    with pytest.raises(InvalidCommitError):
        check_commit(ops, {}, LIMITS)


@pytest.mark.parametrize(
    "expect",
    [{}, {"b": ABSENT}, {"a": Revision(1)}, {"a": HeldBy("another")}],
    ids=["none", "another key", "a revision", "another lease"],
)
def test_s4_1_a_leased_put_without_its_guard_is_refused(expect: Mapping[str, Condition]) -> None:
    with pytest.raises(InvalidCommitError, match="leased put"):
        check_commit([Put("b", b""), Put("a", b"", "mine")], expect, LIMITS)
    with pytest.raises(InvalidCommitError, match="leased put"):
        check_commit([Put("a", b"", "mine")], expect, LIMITS)


@pytest.mark.parametrize("guard", [ABSENT, HeldBy("mine")], ids=["absent", "held"])
def test_s4_1_a_guarded_leased_put_passes(guard: Condition) -> None:
    check_commit([Put("a", b"", "mine"), Put("b", b"")], {"a": guard}, LIMITS)
