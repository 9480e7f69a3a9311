"""`osdisco register`: what is registered, for how long, in what order it goes, and whose exit code it is."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_processes import PATIENCE, Invoke, Running, alive, eventually, everything

import osdisco
from osdisco.cli._files import read
from osdisco.cli._registration import assemble
from osdisco.discovery import DiscoveryService, EndpointInfo, ExtensionInfo
from osdisco.discovery.checks import HttpCheck, TcpCheck
from osdisco.errors import ConfigError
from osdisco.testing._api import free_port

Start = Callable[..., Running]
REAL = pytest.mark.osdisco("etcd", "consul")
ID = ("--id", "geo", "--port", "9700", "--propagation")
QUICK = (*ID, "300ms")
SLOW = (*ID, "2s")  # to see what happens meanwhile
ON_TERM = "trap 'echo ended; exit 9' TERM; echo $$ $OSDISCO_EXTENSION_ID; while :; do sleep 0.05; done"


def registered(url: str) -> dict[str, str]:
    """Return who is registered, and how it is."""

    async def ask() -> dict[str, str]:
        async with osdisco.connect(url) as client:
            return {one.id: one.status.value for one in await DiscoveryService(client).discover_extensions()}

    return asyncio.run(ask())


# While a command runs


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("true",), 0),
        (("sh", "-c", "exit 7"), 7),
        (("sh", "-c", "exit 124"), 124),
        (("sh", "-c", "kill -KILL $$"), 137),
        (("no-such-command-at-all",), 127),
        (("/dev/null",), 126),
    ],
)
def test_a_command_that_exits_at_once_passes_its_code_on_and_leaves_nothing(
    command: tuple[str, ...], code: int, memory_url: str, invoke: Invoke
) -> None:
    """And at once: nobody needs to see STOPPING of what has ended."""
    options = ("--id=geo", "--port=1", "--propagation=1h", "--no-shell")
    told = invoke("--url", memory_url, "register", *options, "--", *command)
    assert told.code == code
    assert told.err.count("\n") == (1 if code in (126, 127) else 0)
    assert everything(memory_url) == []


@REAL
def test_sigterm_publishes_stopping_then_reaches_the_command_and_then_the_registration_goes(
    osdisco_url: str, start: Start
) -> None:
    events = start("watch-events", "--json", url=osdisco_url)
    running = start("register", "-v", *SLOW, "--", "sh", "-c", ON_TERM, url=osdisco_url)
    pid, id_ = running.line().split()
    assert id_ == "geo"
    until_registered(running)
    assert seen(events) == ("discovered", "healthy")
    sent = time.monotonic()
    running.send(signal.SIGTERM)
    assert seen(events) == ("changed", "stopping")
    assert alive(int(pid))
    assert running.line() == "ended"
    assert time.monotonic() - sent > 2
    assert running.end().code == 9
    assert seen(events) == ("removed", "stopping")
    assert everything(osdisco_url) == []


def until_registered(running: Running) -> None:
    """Read its log until it knows: others may see it a moment sooner."""
    assert running.process.stderr is not None
    while not running.process.stderr.readline().endswith("geo is registered\n"):
        pass


def seen(events: Running) -> tuple[str, str]:
    told = json.loads(events.line())
    return told["event"], told["extension"]["status"]


@pytest.mark.osdisco("consul")
def test_a_second_signal_and_those_of_the_command_alone_reach_it_at_once(osdisco_url: str, start: Start) -> None:
    script = "trap 'echo used' USR1; " + ON_TERM
    running = start("register", "-v", *ID, "1h", "--", "sh", "-c", script, url=osdisco_url)
    running.line()
    running.send(signal.SIGUSR1)
    assert running.line() == "used"
    until_registered(running)
    running.send(signal.SIGTERM)
    eventually(lambda: registered(osdisco_url) == {"geo": "stopping"}, "STOPPING")
    running.send(signal.SIGTERM)
    assert running.end().code == 9
    assert everything(osdisco_url) == []


def test_a_signal_before_it_is_registered_reaches_the_command_at_once(start: Start) -> None:
    running = start(
        "--url", "etcd://127.0.0.1:1", "register", *QUICK[:4], "--propagation=1h", "--", "sh", "-c", ON_TERM
    )
    running.line()
    running.send(signal.SIGTERM)
    assert running.end().code == 9


@pytest.mark.osdisco("etcd")
def test_a_command_is_ended_when_another_process_registers_its_id(osdisco_url: str, start: Start) -> None:
    old = start("register", *QUICK, "--", "sh", "-c", ON_TERM, url=osdisco_url)
    old.line()
    eventually(lambda: registered(osdisco_url), "it to be registered")
    new = start("register", *QUICK, "--metadata", "which=new", url=osdisco_url)
    assert new.line() == "geo"
    told = old.end()
    assert (told.code, told.out) == (125, "ended\n")
    assert "another process registered it" in told.err
    assert registered(osdisco_url) == {"geo": "healthy"}
    new.send(signal.SIGINT)
    assert new.end().code == 130
    assert everything(osdisco_url) == []


def test_who_is_not_registered_in_time_ends_its_command(start: Start, invoke: Invoke) -> None:
    nowhere = ("--url", "etcd://127.0.0.1:1?timeout=300ms", "register", *QUICK, "--timeout", "500ms")
    assert invoke(*nowhere).code == 4
    told = start(*nowhere, "--", "sh", "-c", ON_TERM).end()
    assert told.code == 124
    assert "not registered within 0.5 s" in told.err


@pytest.mark.osdisco("etcd")
def test_it_is_healthy_while_its_check_passes(osdisco_url: str, start: Start) -> None:
    port = free_port()
    options = ("--tcp-check", f"127.0.0.1:{port}", "--interval", "100ms")
    serve = "import http.server,sys; http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), None).serve_forever()"
    events = start("watch-events", "--json", url=osdisco_url)
    start("register", "--id", "other", "--port", "1", url=osdisco_url)
    assert seen(events) == ("discovered", "healthy")  # so it follows by now
    running = start("register", *QUICK, *options, "--", sys.executable, "-c", serve, str(port), url=osdisco_url)
    assert seen(events) == ("discovered", "starting")
    assert seen(events) == ("changed", "healthy")
    running.send(signal.SIGTERM)
    assert running.end().code == 143


# Without a command


@pytest.mark.osdisco("consul")
def test_registered_until_interrupted(osdisco_url: str, start: Start) -> None:
    running = start("register", *SLOW, "--json", url=osdisco_url)
    told = json.loads(running.line())
    assert (told["event"], told["extension"]["id"]) == ("registered", "geo")
    assert registered(osdisco_url) == {"geo": "healthy"}
    running.send(signal.SIGTERM)
    eventually(lambda: registered(osdisco_url) == {"geo": "stopping"}, "STOPPING")
    assert running.end().code == 143
    assert everything(osdisco_url) == []


# Files


WHOLE = ExtensionInfo(
    id="geo-1",
    name="geo",
    version="1.4.0",
    host="10.0.0.7",
    port=9700,
    capabilities=["geo.search"],
    endpoints={"rest": EndpointInfo("http", 9700, "/geo")},
    metadata={"zone": "a"},
)
JSON = """{
  "id": "geo-1", "name": "geo", "version": "1.4.0", "host": "10.0.0.7", "port": 9700,
  "capabilities": ["geo.search"],
  "endpoints": {"rest": {"protocol": "http", "port": 9700, "path": "/geo"}},
  "metadata": {"zone": "a"},
  "checks": [{"http": "http://127.0.0.1:9700/health", "interval": "5s"}, {"tcp": "127.0.0.1:9700"}]
}"""
TOML = """
id = "geo-1"
name = "geo"
version = "1.4.0"
host = "10.0.0.7"
port = 9700
capabilities = ["geo.search"]
endpoints.rest = {protocol = "http", port = 9700, path = "/geo"}
metadata.zone = "a"
[[checks]]
http = "http://127.0.0.1:9700/health"
interval = "5s"
[[checks]]
tcp = "127.0.0.1:9700"
"""
YAML = """
id: geo-1
name: geo
version: 1.4.0
host: 10.0.0.7
port: 9700
capabilities: [geo.search]
endpoints:
  rest: {protocol: http, port: 9700, path: /geo}
metadata:
  zone: a
checks:
  - http: http://127.0.0.1:9700/health
    interval: 5s
  - tcp: 127.0.0.1:9700
"""


@pytest.mark.parametrize(("ending", "text"), [("json", JSON), ("toml", TOML), ("yaml", YAML), ("YML", YAML)])
def test_a_file_of_each_kind(ending: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / f"geo.{ending}"
    file.write_text(text)
    found = assemble(read(file), {}, [])
    assert found.extension == WHOLE
    assert found.checks == [HttpCheck("http://127.0.0.1:9700/health", interval=5), TcpCheck("127.0.0.1:9700")]
    given = {"port": 1, "capabilities": ["b"], "metadata": {"zone": "b", "rack": "1"}}
    changed = assemble(read(file), given, []).extension
    assert (changed.port, changed.capabilities, changed.metadata) == (
        1,
        ("geo.search", "b"),
        {"zone": "b", "rack": "1"},
    )


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.json", '{\n"id": "a",\n"port" 1}', ":3: not JSON: Expecting ':' delimiter, in column 8"),
        ("a.json", '{"id": "a",\n"port": 1,\n"port": 2}', ": port: is there twice"),
        ("a.json", '{"id": "a"}', ":1: port missing: expected here, or as an option"),
        ("a.json", "[]", ":1: expected an object with fields such as id and port, not a list"),
        ("a.json", "[" * 100_000, ": nested too deep"),
        ("a.json", '{"id": "a",\n"port": 65536}', ":2: port: a port is a number from 1 to 65535"),
        ("a.toml", 'id = "a"\nport = 0\n', ":2: port: a port is a number from 1 to 65535"),
        ("a.toml", 'id = "a"\nport = \n', ":2: not TOML: Invalid value"),
        ("a.toml", 'id = "a', ":1: not TOML: "),
        ("a.toml", 'id = "a"\nprot = 1', ":2: prot: no such field; did you mean 'port'?; expected id, name, "),
        ("a.yaml", "", ":1: expected an object with fields such as id and port, not nothing"),
        ("a.yaml", "id: a\nport: 1\nport: 2", ":3: not YAML: 'port' is there twice"),
        ("a.yaml", "? [id, a]\n: 1", ":1: not YAML: found unhashable key"),
        ("a.yaml", "id: a\n port: 1", ":2: not YAML: mapping values are not allowed here"),
        ("a.yaml", "id: a\nport: 1\nversion: 1.4", ":3: version: "),
        ("a.yaml", "id: a\nport: 1\nversion: 1.4", ": write it in quotes"),
        ("a.yaml", "id: a\nport: 1\nmetadata:\n- a", ":3: metadata: expected text by name"),
        ("a.yaml", "id: a\nport: 1\ncapabilities: geo", ":3: capabilities: "),
        ("a.yaml", "id: a\nport: 1\nstatus: fine", ":3: status: expected one of starting, healthy, "),
        ("a.yaml", "port: 1\nendpoints:\n  rest:\n    port: 0\n    protocol: http", ":4: endpoints.rest.port: a port"),
        ("a.yaml", "port: 1\nendpoints:\n  rest:\n    port: 1", ":3: endpoints.rest: protocol is missing"),
        ("a.yaml", "port: 1\nendpoints:\n  rest: 1", ":3: endpoints.rest: expected an object with protocol, "),
        ("a.yaml", "endpoints: 1", ":1: endpoints: expected objects with protocol, port and path by name"),
        ("a.yaml", "id: a\nchecks: x", ":2: checks: expected a list of objects such as "),
        ("a.yaml", "id: a\nchecks:\n- ftp: x", ":2: checks[0]: expected an object with either http, a URL, or tcp"),
        ("a.yaml", "checks:\n- tcp: h:1\n  interval: soon", ":3: checks[0].interval: 'soon' is not a duration"),
        ("a.yaml", "checks:\n- tcp: h", ":2: checks[0].tcp: "),
        ("a.yaml", "checks:\n- tcp: h:1\n  retries: 3", ":3: checks[0].retries: no such field"),
        ("a.yaml", "id: !!python/object:os.system a", ":1: not YAML: could not determine a constructor"),
        ("a.ini", "id = a", "the ending says what it is: .json, .toml, .yaml or .yml, not '.ini'"),
        ("a.yaml", b"id: a\nname: \xff", ":2: expected UTF-8"),
        ("a.yaml", "#" * (1 << 20) + "\n", ": over 1048576 bytes"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(name: str, text: str | bytes, words: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigError) as caught:
        assemble(read(file), {}, [])
    assert str(caught.value).startswith(str(file))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "give --id and --port, or a FILE"),
        (("--id=a",), "give --port, or a FILE"),
        (("--id=a", "--port=0"), "a port is a number from 1 to 65535"),
        (("--id=..", "--port=65536"), ""),
        (("--id=", "--port=1"), ""),
        (("--id=a", "--port=1", "--metadata=zone"), "--metadata 'zone' is not NAME=VALUE"),
        (("--id=a", "--port=1", "--endpoint=rest=9700"), "is not PROTOCOL:PORT or PROTOCOL:PORT/PATH"),
        (("--id=a", "--port=1", "--http-check=file:///etc/passwd"), "http"),
        (("--id=a", "--port=1", "--tcp-check=here"), "has no port"),
        (("--id=a", "--port=1", "--propagation=-1s"), "duration"),
        (("no-such-file.toml",), "no-such-file.toml: No such file or directory"),
    ],
)
def test_bad_options_are_mistakes_of_usage(args: tuple[str, ...], words: str, invoke: Invoke) -> None:
    told = invoke("--url", "memory://", "register", *args, "--", "true")
    assert (told.code, told.err.count("\n")) == (2, 1)
    assert words in told.err


def test_options_say_all_that_a_file_can(memory_url: str, start: Start) -> None:
    options = ("--name=geo", "--version=1.4.0", "--host=10.0.0.7", "--capability=geo.search", "--metadata=zone=a")
    running = start(
        "register", "--id=geo-1", "--port=9700", *options, "--endpoint=rest=http:9700/geo", "--json", url="memory://"
    )
    told: dict[str, Any] = json.loads(running.line())["extension"]
    assert told.pop("status") == "healthy"
    assert told["endpoints"] == {"rest": {"protocol": "http", "port": 9700, "path": "/geo"}}
    assert (told["metadata"], told["capabilities"]) == ({"zone": "a"}, ["geo.search"])
    running.send(signal.SIGINT)
    assert running.end(PATIENCE).code == 130
