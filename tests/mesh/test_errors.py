"""Errors of the mesh say where a call failed, whether it may have been done, and survive a pickle."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from osdisco import errors
from osdisco.errors import (
    CircuitOpenError,
    DeadlineExceededError,
    NoHealthyEndpointsError,
    OverloadedError,
    RemoteError,
    RulesError,
    ServiceMeshError,
)

PLACE: dict[str, Any] = {"service": "geo", "method": "search", "endpoint": "10.0.0.7:9700", "attempt": 2}
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ServiceMeshError)]


def made(kind: type[ServiceMeshError]) -> ServiceMeshError:
    words = ("type", "why") if kind in (RemoteError, RulesError) else ("why",)
    return kind(*words, **PLACE)


@pytest.mark.parametrize("kind", KINDS)
def test_each_says_where_it_happened_and_is_the_same_after_a_pickle(kind: type[ServiceMeshError]) -> None:
    error = made(kind)
    assert str(error).startswith("geo.search at 10.0.0.7:9700, attempt 2: ")
    assert str(error).endswith("why")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (kind, str(error), vars(error))


def test_without_a_place_it_says_only_what_happened() -> None:
    assert str(ServiceMeshError("cannot connect")) == "cannot connect"
    assert str(ServiceMeshError("cannot connect", service="geo", attempt=1)) == "geo: cannot connect"


def test_only_what_failed_there_may_have_been_done() -> None:
    assert made(RemoteError).sent
    assert [kind.__name__ for kind in KINDS if made(kind).sent] == ["RemoteError"]
    assert DeadlineExceededError("too late", sent=True).sent


def test_they_can_be_caught_as_pythons_own_and_as_each_other() -> None:
    assert issubclass(DeadlineExceededError, TimeoutError)
    assert issubclass(RulesError, ValueError)
    assert issubclass(CircuitOpenError, NoHealthyEndpointsError)
    assert not issubclass(OverloadedError, RemoteError)


def test_each_keeps_what_it_is_made_of() -> None:
    remote = RemoteError("NotFound", "no such index", 404)
    assert (remote.type, remote.message, remote.status, str(remote)) == (
        "NotFound",
        "no such index",
        404,
        "NotFound: no such index",
    )
    assert NoHealthyEndpointsError(reason := object()).reason is reason
    assert OverloadedError("too much", retry_after=2.0).retry_after == 2.0
    rules = RulesError("splits[1].weight", "is -1; from 0 to 100 is allowed")
    assert (rules.field, str(rules)) == ("splits[1].weight", "splits[1].weight is -1; from 0 to 100 is allowed")
