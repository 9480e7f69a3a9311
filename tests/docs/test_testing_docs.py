"""The files on the page on testing run as they stand there, each by pytest with nothing but osdisco's plugin."""

from __future__ import annotations

import re

import pytest
from examples import DOCS

import osdisco.testing
from osdisco.testing import Fault, FaultyBackend, Servers

PAGE = (DOCS / "testing.md").read_text()
FILES = dict(re.findall(r"```python\n# (test_\w+)\.py\n(.*?)```", PAGE, re.DOTALL))
EXPECTED = {
    "test_leading": 3,
    "test_registering": 4,
    "test_outage": 1,
    "test_lost_answer": 4,
    "test_search_cluster": 2,
    "test_my_store": 3,
}
PLAIN = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:anyio", "-p", "no:asyncio")


@pytest.fixture
def servers(osdisco_servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give them the servers that run already; a test that breaks one has its own."""
    monkeypatch.setenv("OSDISCO_TEST_ETCD_URL", osdisco_servers.url("etcd"))
    monkeypatch.setenv("OSDISCO_TEST_ETCD_GATEWAY_URL", osdisco_servers.url("etcd+http"))
    monkeypatch.setenv("OSDISCO_TEST_CONSUL_URL", osdisco_servers.url("consul"))


@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize("name", EXPECTED)
def test_a_file_runs_as_it_stands_there(pytester: pytest.Pytester, name: str) -> None:
    pytester.makepyfile(**{name: FILES[name]})
    pytester.runpytest_subprocess(*PLAIN).assert_outcomes(passed=EXPECTED[name])


def test_every_file_is_run() -> None:
    assert set(FILES) == set(EXPECTED)
    assert PAGE.count("```python") == len(FILES)


CARELESS = {
    "test_leading": {
        'async with CoordinationService(client).lock("leader") as guard:': "if True:",
        "guard.check()": "...",
    },
    "test_registering": {"port=port": "port=1"},
    "test_lost_answer": {'drop_answer("commit"': 'drop("commit"'},
}


@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize("name", CARELESS)
def test_its_tests_notice_what_they_are_for(pytester: pytest.Pytester, name: str) -> None:
    text = FILES[name]
    for careful, careless in CARELESS[name].items():
        assert careful in text
        text = text.replace(careful, careless)
    pytester.makepyfile(**{name: text})
    failed = pytester.runpytest_subprocess(*PLAIN).parseoutcomes().get("failed", 0)
    assert failed >= EXPECTED[name] - 1  # to lead for an hour is no trouble for who does not look


def test_what_the_page_names_is_there() -> None:
    told = set(re.findall(r"`(\w*(?:Container|Cluster|Process|Proxy|Suite|Servers|Simulation|FaultyBackend))`", PAGE))
    assert told <= {*osdisco.testing.__all__}
    assert set(re.findall(r"`(fresh_\w+)\(\)`", PAGE)) <= set(dir(Servers))
    assert {name.lower() for name in re.findall(r"`([A-Z_]+)`", PAGE.split("`Fault` has")[1].split("\n\n")[0])} == {
        *Fault
    }
    faults = PAGE.split("`outage`, `deny`")[1].split("each return")[0]
    assert all(hasattr(FaultyBackend(None).faults, name) for name in re.findall(r"`(\w+)`", faults))  # type: ignore[arg-type]
