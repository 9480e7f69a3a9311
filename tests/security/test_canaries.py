"""The search for secrets finds them: a run in which one shows, in any way, fails at the test that shows it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import canaries

CONFTEST = """
import canaries

def pytest_configure(config):
    config.pluginmanager.register(canaries.Plugin())
"""

TESTS = """
import asyncio
import logging
import warnings

import pytest

import osdisco
from osdisco.errors import ConfigError, UnavailableError
from osdisco.runtime import Credentials, Runtime, Secret
from osdisco_memory import MemoryBackend

SHOWN = "hunter2"
log = logging.getLogger("osdisco")


def test_message():
    log.warning("logged in with %s", SHOWN)


def test_detail():
    log.debug("logged in with %s", SHOWN)


def test_detail_of_a_part():
    logging.getLogger("osdisco.etcd").info("logged in with %s", SHOWN)


def test_detail_of_a_driver():
    logging.getLogger("aiohttp.client").debug("sent %s", SHOWN)


def test_stranger():
    logging.getLogger("somebody").warning("saw %s", SHOWN)


def test_log_of_who_listens_alone():
    logging.basicConfig(level=logging.WARNING, force=True)
    log.info("went in with %s", SHOWN)


def test_stranger_after_that():
    logging.getLogger("somebody").error("saw it: %s", SHOWN)


def test_traceback():
    try:
        raise ValueError(SHOWN)
    except ValueError:
        log.exception("that failed")


def test_warning():
    warnings.warn(f"the token {SHOWN} is old")


def test_output():
    print(SHOWN)


def test_swallowed_error():
    try:
        raise ConfigError(f"the password {SHOWN} is wrong")
    except ConfigError:
        pass


def test_cause_of_an_expected_error():
    with pytest.raises(UnavailableError):
        try:
            raise OSError(f"cannot log in as {SHOWN}")
        except OSError as exc:
            raise UnavailableError("not logged in") from exc


def test_failure():
    assert len("hunter" + "2") == 0, SHOWN


def test_client():
    class Talkative(MemoryBackend):
        def __repr__(self):
            return f"<Talkative by {SHOWN}>"

    osdisco.Client(Talkative.from_url(osdisco.url.StoreURL.parse("memory://"), Runtime()))


def test_token_of_etcd():
    log.warning("carried KzuFYDNJKKQfwYdK.42")


def test_fine_and_caplog_as_ever(caplog):
    log.info("not for all")
    log.warning("for all")
    with caplog.at_level(logging.DEBUG):
        log.debug("for who asks")
    with caplog.at_level(logging.INFO, "osdisco"):
        log.info("for who asks that log")
    assert caplog.messages == ["for all", "for who asks", "for who asks that log"]


def test_fine():
    log.warning("%s %s", Secret(SHOWN), Credentials("me", SHOWN))
    print("hunter", 2, "osdiscodiscovery.1 processprocessAa.1 aaaaaaaaaaaaaaaa.7")
    with pytest.raises(ConfigError):
        osdisco.connect(f"etcd://me:{SHOWN}@h?nonsense=1")
    with pytest.raises(UnavailableError):
        try:
            raise OSError(SHOWN)
        except OSError:
            raise UnavailableError("not logged in") from None
"""


FOUND = {
    "message": "the log of osdisco: …logged in with <SECRET>…",
    "detail": "the log of osdisco: …logged in with <SECRET>…",
    "detail_of_a_part": "the log of osdisco.etcd: …logged in with <SECRET>…",
    "detail_of_a_driver": "the log of aiohttp.client: …sent <SECRET>…",
    "stranger": "the log of somebody: …saw <SECRET>…",
    "log_of_who_listens_alone": "the log of osdisco: …went in with <SECRET>…",
    "stranger_after_that": "the log of somebody: …saw it: <SECRET>…",
    "traceback": "a traceback in the log of osdisco: …ValueError: <SECRET>",
    "warning": "a warning: …the token <SECRET> is old…",
    "output": "Captured stdout call: …<SECRET>",
    "swallowed_error": "an error: …the password <SECRET> is wrong…",
    "cause_of_an_expected_error": "an expected error: …OSError: cannot log in as <SECRET>",
    "failure": "AssertionError: <SECRET>",
    "client": "a repr: …<Talkative by <SECRET>>",
    "token_of_etcd": "the log of osdisco: …carried <SECRET>…",
}


def test_each_way_to_show_a_secret_fails_the_test_that_shows_it(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_shown.py").write_text(TESTS)
    path = os.pathsep.join([str(Path(canaries.__file__).parent), *sys.path])
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-W", "default"]
    done = subprocess.run(
        [*command, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    failures = dict(
        re.findall(r"^_+ test_(\w+) _+$(.*?)(?=^_+ test_\w+ _+$|^=+ )", done.stdout, re.DOTALL | re.MULTILINE)
    )
    assert failures.keys() == FOUND.keys()  # and nothing that is fine
    assert [name for name, found in FOUND.items() if found not in failures[name]] == []
    assert done.returncode == 1
