"""What core refuses before anything is sent: rules S3.3, S4.1 and S15 of `osdisco.backend`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from osdisco.backend import ABSENT, Condition, Delete, HeldBy, Limits, Op, Put
from osdisco.errors import InvalidCommitError, InvalidNameError, LimitError


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
