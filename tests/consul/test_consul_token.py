"""The ACL token: where it comes from, that it is renewed when it is refused, and that nothing shows it."""

from __future__ import annotations

import asyncio
import logging
import traceback
from pathlib import Path

import pytest
from consul_fakes import TXN, Fake, Open, get, http, kv, put

from osdisco.errors import DeniedError, OsdiscoError, UnavailableError
from osdisco.runtime import Credentials


async def test_a_denied_write_is_sent_again_only_with_another_token(fake: Fake, open_backend: Open) -> None:
    tokens = iter(["old", "new", "new"])
    agent = await fake(
        lambda r: http(200, TXN) if r.headers["x-consul-token"] == "new" else http(403, "Permission denied")
    )
    backend = open_backend(agent.url, credentials=lambda: Credentials(token=next(tokens)))  # type: ignore[arg-type]
    await put(backend)
    assert [request.headers["x-consul-token"] for request in agent.requests] == ["old", "new"]


async def test_a_token_file_is_read_again_when_the_token_is_refused(
    fake: Fake, open_backend: Open, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("old\n")
    valid = "old"
    agent = await fake(lambda r: kv("ns/k") if r.headers["x-consul-token"] == valid else http(403, "ACL not found"))
    backend = open_backend(f"{agent.url}?token_file={file}")
    assert await get(backend) is not None
    valid = "new"
    with pytest.raises(DeniedError):
        await get(backend)
    file.write_text("new\n")
    assert await get(backend) is not None
    file.unlink()
    assert await get(backend) is not None, "a token that works is not asked for again"


async def test_credentials_may_be_slow_but_not_slower_than_the_timeout(fake: Fake, open_backend: Open) -> None:
    async def never() -> Credentials:
        await asyncio.Event().wait()
        raise AssertionError

    agent = await fake(lambda _: kv("ns/k"))
    with pytest.raises(UnavailableError, match="no token within"):
        await put(open_backend(agent.url, credentials=never), timeout=0.1)
    assert not agent.requests


async def test_credentials_that_fail_say_so_without_their_words(fake: Fake, open_backend: Open) -> None:
    def broken() -> Credentials:
        raise RuntimeError("hunter2 is wrong")

    agent = await fake(lambda _: kv("ns/k"))
    with pytest.raises(UnavailableError, match="RuntimeError") as caught:
        await get(open_backend(agent.url, credentials=broken))
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


async def test_calls_that_are_refused_together_renew_the_token_once(fake: Fake, open_backend: Open) -> None:
    asked = 0

    async def credentials() -> Credentials:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.01)
        return Credentials(token=f"hunter2-{asked}")  # type: ignore[arg-type]

    agent = await fake(
        lambda r: kv("ns/k") if r.headers["x-consul-token"] == "hunter2-2" else http(403, "ACL not found")
    )
    backend = open_backend(agent.url, credentials=credentials)
    await asyncio.gather(*(get(backend) for _ in range(8)))
    assert asked == 2


async def test_the_token_is_a_header_and_nothing_shows_it(
    fake: Fake, open_backend: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "hunter2")
    answers = iter([b"SSH-2.0\r\n", http(403, "Permission denied"), None, http(500, "no"), http(409, "{}")])
    agent = await fake(lambda _: next(answers))
    backend = open_backend(agent.url)
    shown = [repr(backend), repr(backend._wire.tokens.__dict__)]
    for call in (get, get, get, put, put):
        with pytest.raises(OsdiscoError) as caught:
            await call(backend)
        report = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        shown += ["".join(report.format()), repr(caught.value.__cause__), repr(caught.value.__context__)]
    assert "hunter2" not in "".join(shown) + caplog.text
    for request in agent.requests:
        assert request.headers["x-consul-token"] == "hunter2"
        assert "hunter2" not in request.path + str(request.query)
