"""`osdisco serve`, as a process."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from http.client import HTTPConnection

import pytest
from cli_processes import Invoke, Running

from osdisco.cli.serve import _metrics

Start = Callable[..., Running]


def ask(url: str, path: str) -> tuple[int, str]:
    connection = HTTPConnection(url.removeprefix("http://"), timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


def test_it_serves_until_it_is_interrupted(start: Start) -> None:
    running = start("serve", "--listen", "127.0.0.1:0", url="memory://")
    url = running.line().removeprefix("serving ")
    assert ask(url, "/healthz") == (200, '{"status": "ok"}')
    assert ask(url, "/readyz")[0] == 200
    assert ask(url, "/sd") == (200, "[]")
    assert 'osdisco_extensions{namespace="osdisco",status="healthy"} 0.0' in ask(url, "/metrics")[1]
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(10) == 128 + signal.SIGTERM
    assert running.process.stderr is not None
    assert running.process.stderr.read() == ""


def test_it_starts_without_the_store_and_says_what_all_can_see(start: Start) -> None:
    running = start("--json", "serve", "--listen", "0.0.0.0:0", url="etcd://127.0.0.1:1/ns?timeout=1s")
    port = json.loads(running.line())["url"].rpartition(":")[2]
    assert ask(f"http://127.0.0.1:{port}", "/healthz")[0] == 200
    assert ask(f"http://127.0.0.1:{port}", "/sd")[0] == 503
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(10) == 130
    assert running.process.stderr is not None
    assert "there is no password" in running.process.stderr.read()


def test_without_prometheus_it_serves_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert _metrics() is None
    assert "pip install 'osdisco[prometheus]'" in capsys.readouterr().err


@pytest.mark.parametrize("listen", ["nowhere", ":80", "h:99999"])
def test_a_place_that_is_none_is_a_mistake_of_usage(invoke: Invoke, memory_url: str, listen: str) -> None:
    done = invoke("--url", memory_url, "serve", "--listen", listen)
    assert (done.code, "HOST:PORT" in done.err) == (2, True)
