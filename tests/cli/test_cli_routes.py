"""Rules for traffic and canaries at the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_processes import Invoke, Ran

DOCUMENT = {"subsets": {"v1": {"version": ">=1,<2"}, "v2": {"version": ">=2"}}, "default_subset": "v1"}

Do = Callable[..., Ran]


@pytest.fixture
def do(invoke: Invoke, memory_url: str) -> Do:
    return lambda *args, **more: invoke("--url", memory_url, "routes", *args, **more)


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., str]:
    def write(name: str = "geo.json", **fields: Any) -> str:
        path = tmp_path / name
        path.write_text(json.dumps({**DOCUMENT, **fields}, indent=2))
        return str(path)

    return write


def test_rules_are_set_shown_and_rolled_back(do: Do, file: Callable[..., str]) -> None:
    assert do("set", "geo", file()).out == "1\tset\n"
    assert do("set", "geo", file(timeout=2), "--expect", "1").out == "2\tset\n"
    assert json.loads(do("show", "geo").out) == {**DOCUMENT, "timeout": 2}
    assert [line.split("\t")[0] for line in do("history", "geo").out.splitlines()] == ["2", "1"]
    assert do("rollback", "geo").out == "3\tback to version 1\n"
    assert json.loads(do("show", "geo").out) == DOCUMENT
    assert do("rollback", "geo", "--to", "2").out.startswith("4\t")
    (document,) = do("show", "geo", "--json").documents
    assert (document["service"], document["version"], document["rules"]["timeout"]) == ("geo", 4, 2)


def test_rules_come_from_toml_yaml_and_stdin_too(do: Do, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('default_subset = "v1"\n[subsets.v1]\nversion = ">=1,<2"\n')
    (tmp_path / "a.yaml").write_text('default_subset: v1\nsubsets: {v1: {version: ">=1,<2"}}\n')
    assert do("set", "a", str(tmp_path / "a.toml")).code == 0
    assert do("set", "b", str(tmp_path / "a.yaml")).code == 0
    assert do("set", "c", "-", stdin=b'{"subsets": {"v1": {"version": ">=1,<2"}}, "default_subset": "v1"}').code == 0
    assert len({do("show", name).out for name in "abc"}) == 1
    assert [line.split("\t")[0] for line in do("show").out.splitlines()] == ["a", "b", "c"]
    assert [document["service"] for document in do("show", "--json").documents] == ["a", "b", "c"]


def test_what_is_wrong_is_told_with_its_line(do: Do, file: Callable[..., str]) -> None:
    wrong = file(splits=[{"subset": "v1", "weight": -5}])
    told = do("set", "geo", wrong)
    assert (told.code, told.out) == (2, "")
    line = Path(wrong).read_text().splitlines().index('      "weight": -5') + 1
    assert f"geo.json:{line}: splits[0].weight: is -5; from 0 to 100 is allowed" in told.err
    assert do("set", "geo", file(), "--check").code == 0
    assert do("show", "geo").code == 3
    assert do("set", "geo", "-", stdin=b"{").code == 2
    assert do("set", "geo", "-", stdin=b'{"x": 1}').code == 2


def test_conditions_that_do_not_hold_are_code_4(do: Do, file: Callable[..., str]) -> None:
    assert do("set", "geo", file(), "--expect", "1").code == 4
    assert do("rollback", "geo").code == 4
    assert do("promote", "geo").code == 4
    assert do("set", "geo", file(), "--expect", "0").code == 0
    told = do("rollback", "geo", "--to", "7")
    assert (told.code, "kept are 1" in told.err) == (4, True)


@pytest.mark.parametrize("name", ["a.json", "a.yaml", "-"])
def test_a_rule_that_is_there_twice_is_refused_and_not_halved(do: Do, tmp_path: Path, name: str) -> None:
    twice = '{"timeout": 1,\n"timeout": 2}'
    (tmp_path / "a.json").write_text(twice)
    (tmp_path / "a.yaml").write_text("timeout: 1\ntimeout: 2\n")
    told = do("set", "geo", name if name == "-" else str(tmp_path / name), stdin=twice.encode())
    assert (told.code, "is there twice" in told.err) == (2, True), told.err


def test_what_stands_may_be_anything(do: Do, file: Callable[..., str], invoke: Invoke, memory_url: str) -> None:
    """A time that no calendar has, and a document that is none: neither is a mistake of who looks."""
    do("set", "geo", file())
    do("set", "maps", file())
    foreign = json.dumps({"version": 7, "at": 1e12, "rules": DOCUMENT})
    assert invoke("--url", memory_url, "kv", "put", "routes/geo", foreign).code == 0
    assert do("show").out.startswith("geo\t7\t-\t")
    assert invoke("--url", memory_url, "kv", "put", "routes/geo", "{").code == 0
    for command in (("show", "geo"), ("canary", "geo", "v2")):
        told = do(*command)
        assert (told.code, "what stands for 'geo' is no rules" in told.err) == (1, True), told.err
    told = do("show")
    assert (told.code, "geo: the document cannot be read" in told.err) == (0, True)
    assert "maps" in told.out
    assert do("rollback", "geo").code == 0


def test_faults_that_are_left_on_are_told_of(do: Do, file: Callable[..., str]) -> None:
    do(
        "set",
        "geo",
        file(fault={"percent": 5, "delay": 2, "status": 503}, match=[{"method": "m", "fault": {"delay": 1}}]),
    )
    for told in (do("show"), do("show", "geo"), do("show", "geo", "--json")):
        assert "geo: 5 % of its calls are 2 s late and fail with 503, on purpose (fault)" in told.err
        assert "geo: 100 % of those of match[0] are 1 s late, on purpose (fault)" in told.err
        assert (told.code, "on purpose" in told.out) == (0, False)


def test_what_is_not_there_is_code_3(do: Do) -> None:
    for command in ("show", "history", "rm"):
        told = do(command, "nothing")
        assert told.code == 3
        assert "'nothing'" in told.err


def test_show_says_where_a_call_would_go(do: Do, file: Callable[..., str]) -> None:
    match = [{"name": "beta", "method": "search", "metadata": {"x-beta": {"present": True}}, "subset": "v2"}]
    do("set", "geo", file(match=match, failover={"v2": [{"subset": "v1"}]}))
    assert do("show", "geo", "--method", "search").out == "geo/v1  (rules of geo)\n"
    told = do("show", "geo", "--method", "search", "--header", "X-Beta=1", "--key", "ann").out
    assert told == "geo/v2  (beta of geo)\nelse geo/v1\n"
    (document,) = do("show", "geo", "--key", "ann", "--json").documents
    assert document == {"service": "geo", "targets": ["geo/v1"], "reason": "rules of geo"}
    assert do("show", "--key", "ann").code == 2
    assert do("show", "geo", "--header", "x").code == 2


def test_blue_green_canary_and_promotion_by_hand(do: Do, file: Callable[..., str]) -> None:
    do("set", "geo", file())
    assert do("blue-green", "geo", "v2").out == "2\tall calls to 'v2'\n"
    assert do("rollback", "geo").code == 0
    begun = do("canary", "geo", "v2", "--step", "10", "--interval", "30s")
    assert begun.out == "4\tcanary 'v2': 10 %\n"
    (document,) = do("show", "geo", "--json").documents
    assert document["canary"]["plan"] == {"stable": "v1", "canary": "v2", "interval": 30.0, "step": 10.0}
    assert do("canary", "geo", "v2").code == 4
    assert do("promote", "geo").out == "5\tcanary 'v2' promoted by hand\n"
    assert json.loads(do("show", "geo").out)["default_subset"] == "v2"


def test_a_canary_that_cannot_be_is_refused(do: Do, file: Callable[..., str]) -> None:
    assert do("canary", "geo", "v2").code == 3
    do("set", "geo", file())
    for arguments, said in (
        (("v9",), "canary is 'v9'"),
        (("v1",), "canary is 'v1', which is the stable subset, too"),
        (("v2", "--step", "0"), "step is 0"),
        (("v2", "--stable", "v9"), "stable is 'v9'"),
    ):
        told = do("canary", "geo", *arguments)
        assert (told.code, said in told.err) == (2, True), told.err
    do("set", "other", "-", stdin=b'{"subsets": {"v2": {}}}')
    assert "--stable" in do("canary", "other", "v2").err


def test_removed_rules_come_back_by_a_rollback(do: Do, file: Callable[..., str]) -> None:
    do("set", "geo", file())
    assert do("rm", "geo", "--json").documents == [{"service": "geo", "removed": True}]
    assert do("show", "geo").code == 3
    assert do("rollback", "geo").out == "2\tback to version 1\n"


def test_run_controls_the_canary_from_here_and_says_how_it_ended(do: Do, file: Callable[..., str]) -> None:
    """Nobody calls, so nobody tells how it goes: it is rolled back. One that is under way is taken over as it is."""
    do("set", "geo", file())
    do("canary", "geo", "v2", "--interval", "1s", "--threshold", "2")
    assert (
        do("canary", "geo", "v2", "--run", "--threshold", "900")
        .out.splitlines()[-1]
        .startswith("4\tcanary 'v2': rolled")
    )
    told = do("canary", "geo", "v2", "--run", "--interval", "1s", "--threshold", "2")
    assert told.code == 1
    lines = [line.split("\t")[1] for line in told.out.splitlines()]
    assert lines[0] == "canary 'v2': 5 %"
    assert lines[-1] == "canary 'v2': rolled back; 2 checks failed, at last: no figures"
    assert "rolled back" in told.err
