"""What can be wrong with a call or with rules, over HTTP: where it happened, at which attempt, and what to do.

Each case stands in the table on the page of calls, which says no more and no less.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from attrs import frozen
from raw_servers import answer, nobody, raw_server
from real_town import AT_ONCE, Town

from osdisco.discovery import ExtensionStatus
from osdisco.errors import RulesError, ServiceMeshError
from osdisco.mesh import HttpTransport, TrafficRules
from osdisco.registry import ServiceDefinition

PAGE = Path(__file__).parents[2] / "docs" / "mesh.md"
LIMIT = 1000
"""Bytes of a request, and of an answer, that are allowed here."""


@frozen
class Query:
    q: str


@frozen
class Hits:
    total: int


def search(query: Query) -> dict[str, Any]:
    return {"total": query.q}


def broken() -> None:
    raise ValueError("no such index")


async def hang() -> None:
    await asyncio.Event().wait()


HANDLERS = {"search": search, "broken": broken, "hang": hang, "odd": object}
ASKED = {"method": "search", "request": {"q": "x"}}


@frozen
class Case:
    """What is wrong, and what the caller is told.

    Args:
        there: who is registered: our handlers with a status, who says some bytes, an address of nobody, or no one.
        sent: whether it may have been done.
        attempts: how many there were; with none it has no endpoint.
    """

    there: ExtensionStatus | bytes | str | None
    call: dict[str, Any]
    error: str
    says: str
    sent: bool = False
    attempts: int = 0


OURS = ExtensionStatus.HEALTHY

CASES = {
    "the service is unknown": Case(None, ASKED, "ServiceNotFoundError", "start an instance, or look with `osdisco ls`"),
    "no endpoint is healthy": Case(
        ExtensionStatus.STARTING, ASKED, "NoHealthyEndpointsError", "wait for one, or start another"
    ),
    "nobody listens there": Case(
        "nobody", ASKED, "EndpointUnreachableError", "refused; does it run, and is its address right?", False, 3
    ),
    "the deadline is spent": Case(
        OURS, {**ASKED, "timeout": -1}, "DeadlineExceededError", "its time was over before it was sent; give it more"
    ),
    "a handler hangs": Case(
        OURS, {"method": "hang", "timeout": 0.2}, "DeadlineExceededError",
        "it may have been done: look before calling again, or give it more time", True, 1,
    ),
    "a handler raises": Case(
        OURS, {"method": "broken"}, "RemoteError", "ValueError: no such index; look there for why", True, 1
    ),
    "a handler returns what JSON cannot hold": Case(
        OURS, {"method": "odd"}, "RemoteError", "neither JSON, an attrs class, a dataclass, an enum nor a set", True, 1
    ),
    "the method is unknown": Case(
        OURS, {"method": "serach"}, "RemoteError", "it has broken, hang, odd, search", False, 1
    ),
    "the request cannot be encoded": Case(
        OURS, {"method": "search", "request": object()}, "RequestError",
        "is neither JSON, an attrs class, a dataclass, an enum nor a set",
    ),
    "the request does not fit the handler": Case(
        OURS, {"method": "search", "request": {"q": 7}}, "RequestError", "must be a str, not int @ $.q", False, 1
    ),
    "the request is too large": Case(
        OURS, {"method": "search", "request": {"q": "x" * LIMIT}}, "RequestError",
        "1000 are allowed; send less, or raise `request_max` of both transports", False, 1,
    ),
    "an argument is of another type": Case(
        OURS, {**ASKED, "timeout": "2s"}, "RequestError", "timeout is a number of seconds, not '2s'"
    ),
    "the answer does not fit its type": Case(
        OURS, {**ASKED, "response_type": Hits}, "ResponseError",
        "@ $.total; is the address right, and `response_type` what that version returns?", True, 1,
    ),
    "the answer is garbage": Case(
        b"garbage\r\n\r\n", ASKED, "ResponseError", "not HTTP; is the address right?", True, 1
    ),
    "the answer is half of one": Case(
        answer(b'{"a":', length=100), ASKED, "ResponseError",
        "in its middle; it may have been done: look before calling again", True, 1,
    ),
    "the answer is too much": Case(
        answer(b"x" * 2 * LIMIT), ASKED, "ResponseError",
        "more than the 1000 bytes that are allowed; ask for less, or raise `response_max` of the transport", True, 1,
    ),
    "the connection ends": Case(
        b"", ASKED, "CallInterruptedError", "it may have been done: look before calling again", True, 1
    ),
    "something else answers": Case(
        answer(b"<html>", "500 Oops"), ASKED, "RemoteError", "of an osdisco endpoint; check the address", True, 1
    ),
}  # fmt: skip


@pytest.fixture
async def geo() -> AsyncGenerator[Town, None]:
    async with AsyncExitStack() as stack:
        yield Town(f"memory://{uuid4().hex}", stack)


async def registered(case: Case, geo: Town, stack: AsyncExitStack) -> str | None:
    """Register who is there; returns the address."""
    mesh = await geo.mesh(transport=HttpTransport(request_max=LIMIT))
    definition = ServiceDefinition("geo", "1")
    if isinstance(case.there, ExtensionStatus):
        serving = mesh.serve(definition, HANDLERS, status=case.there, drain=AT_ONCE)
        return (await stack.enter_async_context(serving)).address
    if case.there is None:
        return None
    raw = isinstance(case.there, bytes)
    address = (await stack.enter_async_context(raw_server(case.there, close=True))).address if raw else await nobody()
    await stack.enter_async_context(mesh.register_service(ServiceDefinition("geo", "1", address), drain=AT_ONCE))
    return address


@pytest.mark.parametrize("name", CASES)
async def test_a_call_that_cannot_be_says_where_and_what_to_do(name: str, geo: Town) -> None:
    case = CASES[name]
    async with AsyncExitStack() as stack:
        address = await registered(case, geo, stack)
        mesh = await geo.mesh(transport=HttpTransport(request_max=LIMIT, response_max=LIMIT))
        if case.there is OURS:
            await mesh.call("geo", **ASKED)
        with pytest.raises(ServiceMeshError) as caught:
            await mesh.call("geo", **case.call)
    error = caught.value
    assert type(error).__name__ == case.error
    assert (error.service, error.method) == ("geo", case.call["method"])
    assert error.endpoint == (address if case.attempts else None)
    assert (error.attempt, error.sent) == (case.attempts, case.sent)
    assert case.says in str(error)


SUBSETS = {"v1": {}, "v2": {}}


def split(first: float, second: float) -> dict[str, Any]:
    return {"subsets": SUBSETS, "splits": [{"weight": first, "subset": "v1"}, {"weight": second, "subset": "v2"}]}


RULES: dict[str, tuple[dict[str, Any], str, str]] = {
    "rules have an unknown field": ({"splitz": []}, "splitz", "is no field here; did you mean 'splits'?"),
    "weights do not add up": (split(60, 30), "splits", "have weights that add up to 90; they must add up to 100"),
    "splits go in a circle": (
        {"splits": [{"weight": 100, "service": "tiles"}]},
        "splits[0].service", "leads back to where it was: geo → tiles → geo",
    ),
    "a number is negative": (split(-1, 101), "splits[0].weight", "is -1; from 0 to 100 is allowed"),
    "a time is negative": ({"timeout": -5}, "timeout", "is -5; above 0, at most 3600 seconds is allowed"),
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
async def test_rules_that_cannot_be_say_of_which_service_which_field_and_what_is_allowed(name: str, geo: Town) -> None:
    document, field, says = RULES[name]
    rules = TrafficRules(await geo.client())
    await rules.set("tiles", {"splits": [{"weight": 100, "service": "geo"}]})
    with pytest.raises(RulesError) as caught:
        await rules.set("geo", document)
    assert (caught.value.service, caught.value.field) == ("geo", field)
    assert str(caught.value).startswith(f"geo: {field} ")
    assert says in str(caught.value)
    assert await rules.get("geo") is None


def rows() -> Iterator[tuple[str, ...]]:
    """Return the rows of the table: what is wrong, the error, at which attempt, whether it was sent, what is said."""
    for name, case in CASES.items():
        yield name, f"`{case.error}`", str(case.attempts or "none"), "yes" if case.sent else "no", case.says
    for name, (_, field, says) in RULES.items():
        yield name, "`RulesError`", "none", "no", f"{field} {says}"


def test_the_table_on_the_page_is_this_one() -> None:
    part = PAGE.read_text().partition("### What can be wrong")[2].partition("\n## ")[0]
    lines = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| ")][1:]
    assert [tuple(line) for line in lines] == list(rows())
