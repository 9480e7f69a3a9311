"""Figures of a canary from a Prometheus: what is asked, and that nothing but a number passes for one."""

from __future__ import annotations

import json
import traceback
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from osdisco.errors import ConfigError, UnavailableError
from osdisco.mesh import PrometheusFigures, Sample

QUERIES = {"calls": 'a{s="$service"}', "success_rate": "b{s='$subset'}[$window]", "p99": "c"}


class Server:
    """Answers queries by what they begin with."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, Any] = {"a": vector("120"), "b": vector("99.5"), "c": vector("0.25")}
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        query = request.query["query"]
        self.asked.append(query)
        given = self.answers[query[0]]
        return web.Response(text=given if isinstance(given, str) else json.dumps(given))


def vector(*numbers: str) -> dict[str, Any]:
    result = [{"metric": {}, "value": [1700000000, number]} for number in numbers]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


@asynccontextmanager
async def prometheus() -> AsyncGenerator[Server, None]:
    server, app = Server(), web.Application()
    app.router.add_get("/api/v1/query", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    try:
        yield server
    finally:
        await runner.cleanup()


async def test_the_three_numbers_are_asked_for_with_names_filled_in_and_escaped() -> None:
    async with prometheus() as server:
        figures = PrometheusFigures(server.url, **QUERIES)
        assert await figures.sample('ge"o\\', "v'2", 60) == Sample(120, 99.5, 0.25)
        assert server.asked == ['a{s="ge\\"o\\\\"}', "b{s='v\\'2'}[60s]", "c"]


async def test_a_name_that_looks_like_one_of_ours_is_not_filled_in_again() -> None:
    async with prometheus() as server:
        await PrometheusFigures(server.url, **QUERIES).sample("$window", "v2", 60)
        assert server.asked[0] == 'a{s="$window"}'


@pytest.mark.parametrize(
    ("name", "answer", "want"),
    [
        ("a", vector(), None),
        ("b", vector("NaN"), None),
        ("c", vector("+Inf"), Sample(120, 99.5)),
        ("b", {"status": "success", "data": {"resultType": "scalar", "result": [1, "98"]}}, Sample(120, 98.0, 0.25)),
    ],
)
async def test_what_it_does_not_know_is_unknown(name: str, answer: Any, want: Sample | None) -> None:
    async with prometheus() as server:
        server.answers[name] = answer
        assert await PrometheusFigures(server.url, **QUERIES).sample("geo", "v2", 60) == want


BROKEN = ["", "[]", "{}", '{"status":"error","errorType":"bad_data"}', vector("1", "2"), vector("x"), "x" * (1 << 21)]


@pytest.mark.parametrize("answer", BROKEN, ids=range(len(BROKEN)))
async def test_an_answer_that_is_none_is_an_error(answer: Any) -> None:
    async with prometheus() as server:
        server.answers["b"] = answer
        with pytest.raises(UnavailableError, match="no figures from http://127"):
            await PrometheusFigures(server.url, **QUERIES).sample("geo", "v2", 60)


async def test_a_server_that_is_not_there_is_an_error() -> None:
    with pytest.raises(UnavailableError):
        await PrometheusFigures("http://127.0.0.1:1", **QUERIES).sample("geo", "v2", 60)


async def test_a_password_in_the_url_is_never_shown() -> None:
    figures = PrometheusFigures("http://ann:s3cr@t@127.0.0.1:1/x?token=s3cr", **QUERIES)
    with pytest.raises(UnavailableError, match=r"no figures from http://127\.0\.0\.1:1/x: ") as caught:
        await figures.sample("geo", "v2", 60)
    assert "s3cr" not in "".join(traceback.format_exception(caught.value))


def test_a_query_that_is_no_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="calls is a query in PromQL, as text, not int"):
        PrometheusFigures("http://127.0.0.1:1", **{**QUERIES, "calls": 5})


def test_a_url_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="http"):
        PrometheusFigures("file:///etc/passwd", **QUERIES)
