"""The error table: what etcd and the drivers say, and what it must become."""

from __future__ import annotations

import pytest

from osdisco.errors import (
    DeniedError,
    IndeterminateError,
    InvalidCommitError,
    LeaseExpiredError,
    LimitError,
    OsdiscoError,
    UnavailableError,
)
from osdisco_etcd._errors import Failure, LeaseExistsError, error_for

PROVEN = [
    # what was said, the gRPC code, the error
    ("etcdserver: requested lease not found", 5, LeaseExpiredError),
    ("etcdserver: lease already exists", 9, LeaseExistsError),
    ("etcdserver: request is too large", 3, LimitError),
    ("etcdserver: too many operations in txn request", 3, LimitError),
    ("etcdserver: too large lease TTL", 11, LimitError),
    ("grpc: received message larger than max (2097184 vs. 2097152)", 8, LimitError),
    ("etcdserver: duplicate key given in txn request", 3, InvalidCommitError),
    ("etcdserver: key is not provided", 3, InvalidCommitError),
    ("etcdserver: permission denied", 7, DeniedError),
    ("etcdserver: authentication failed, invalid user ID or password", 3, DeniedError),
    ("etcdserver: invalid auth token", 16, DeniedError),
    ("etcdserver: revision of auth store is old", 3, DeniedError),
    ("etcdserver: user name is empty", 3, DeniedError),
    ("etcdserver: mvcc: database space exceeded", 8, UnavailableError),
    ("etcdserver: too many requests", 8, UnavailableError),
    ("etcdserver: no leader", 14, UnavailableError),
    ("etcdserver: rpc not supported for learner", 14, UnavailableError),
]

UNPROVEN = [
    ("etcdserver: request timed out", 14),
    ("etcdserver: request timed out, possibly due to previous leader failure", 14),
    ("etcdserver: leader changed", 14),
    ("etcdserver: server stopped", 14),
    ("Stream removed (Socket closed)", 14),
    ("recvmsg:Connection reset by peer", 14),
    ("Deadline Exceeded", 4),
    ("Received http2 header with status: 502", 14),
    ("unknown service etcdserverpb.KV", 12),
    ("panic", 2),
    ("HTTP 200 with an answer that is not one of etcd", None),
]


def error(text: str, code: int | None, *, mutates: bool, sent: bool = True) -> OsdiscoError:
    return error_for(Failure(text, code, sent=sent), what="Put of 'k'", endpoint="host:2379", mutates=mutates)


@pytest.mark.parametrize("mutates", [False, True])
@pytest.mark.parametrize(("text", "code", "expected"), PROVEN)
def test_what_proves_the_outcome_is_the_same_for_reads_and_writes(
    text: str, code: int, expected: type[OsdiscoError], mutates: bool
) -> None:
    assert type(error(text, code, mutates=mutates)) is expected


@pytest.mark.parametrize(("text", "code"), UNPROVEN)
def test_what_proves_nothing_is_indeterminate_for_writes_and_unavailable_for_reads(text: str, code: int | None) -> None:
    assert type(error(text, code, mutates=True)) is IndeterminateError
    assert type(error(text, code, mutates=False)) is UnavailableError


@pytest.mark.parametrize("mutates", [False, True])
def test_what_was_never_sent_is_unavailable_whatever_it_says(mutates: bool) -> None:
    assert type(error("failed to connect to all addresses", 14, mutates=mutates, sent=False)) is UnavailableError


def test_the_message_says_where_what_and_what_to_do() -> None:
    said = str(error("etcdserver: mvcc: database space exceeded", 8, mutates=True))
    assert "host:2379" in said
    assert "Put of 'k'" in said
    assert "etcdctl alarm disarm" in said
