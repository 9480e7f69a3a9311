"""Secrets: nothing that is printed, logged, raised or pickled shows them."""

from __future__ import annotations

import logging
import pickle
import traceback
from io import StringIO
from pathlib import Path

import attrs
import pytest

import osdisco
from osdisco.errors import ConfigError
from osdisco.runtime import Credentials, Runtime, Secret
from osdisco.url import StoreURL, TlsOptions

CANARY = "s3cr3t-canary"


def test_no_way_of_printing_shows_a_secret() -> None:
    secret = Secret(CANARY)
    shown = [repr(secret), str(secret), f"{secret}", f"{secret:>40}", f"{secret!a}", f"{secret!r}"]
    shown += ["{}".format(secret), "%s %r" % (secret, secret), f"{[secret]} {({'k': secret},)}"]  # noqa: UP031, UP032
    assert not [text for text in shown if CANARY in text]
    assert secret.reveal() == CANARY


def test_a_secret_is_not_pickled_nor_copied_into_anything_that_is() -> None:
    for holder in (Secret(CANARY), Credentials("u", CANARY), StoreURL.parse(f"etcd://u:{CANARY}@h")):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(holder)


def test_a_secret_has_no_attributes_to_print() -> None:
    with pytest.raises(TypeError):
        vars(Secret(CANARY))


def test_secrets_compare_and_hash_by_what_they_hold() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    assert hash(Secret("a")) != hash("a")
    assert bool(Secret("a"))
    assert not Secret("")


def test_credentials_show_the_user_only() -> None:
    credentials = Credentials("user", password=CANARY, token=CANARY)
    assert isinstance(credentials.password, Secret)
    assert isinstance(credentials.token, Secret)
    for shown in (repr(credentials), str(attrs.asdict(credentials)), str(attrs.astuple(credentials))):
        assert CANARY not in shown
        assert "user" in shown


def test_a_log_does_not_show_a_secret() -> None:
    stream = StringIO()
    log = logging.Logger("canary")
    log.addHandler(logging.StreamHandler(stream))
    log.warning("%s %r %s", Secret(CANARY), Credentials("u", CANARY), {"password": Secret(CANARY)})
    assert CANARY not in stream.getvalue()
    assert "***" in stream.getvalue()


def test_a_parsed_url_shows_no_secret_in_any_form() -> None:
    url = StoreURL.parse(f"etcd://{CANARY}:{CANARY}@h:1/ns?password_file={CANARY}")
    for shown in (repr(url), str(url), f"{url}", repr([url]), repr({"url": url})):
        assert CANARY not in shown
    assert CANARY not in repr(url.password)


BROKEN = """
    etcd//u:{p}@h                       etcd:/u:{p}@h                   u:{p}@h:2379/ns
    ://u:{p}@h                          1etcd://u:{p}@h                 et_cd://u:{p}@h
    etcd://u:{p}/x@h                    etcd://u:x/{p}@h                etcd://u:{p}?x@h
    etcd://u:x?{p}@h                    etcd://u:{p}#x@h                etcd://u:x#{p}@h
    etcd://u:{p}@x@h                    etcd://u:x@{p}@h                etcd://u:{p}%@h
    etcd://u:%{p}@h                     etcd://u:%FF{p}@h               etcd://u:{p}%FF@h
    etcd://u:{p}%C3@h                   etcd://u:{p}\x01@h              etcd://u:{p}\ud800@h
    etcd://u:{p}@                       etcd://u:{p}@:1                 etcd://u:{p}@h:
    etcd://u:{p}@h:0                    etcd://u:{p}@h:99999            etcd://u:{p}@h:x
    etcd://u:{p}@h:1:2                  etcd://u:{p}@::1                etcd://u:{p}@[::1
    etcd://u:{p}@[h]                    etcd://u:{p}@[::1]x             etcd://u:{p}@h,,i
    etcd://u:{p}@h,                     etcd://u:{p}@ü                  etcd://u:{p}@h;i
    etcd://u:{p}                        etcd://u:x:{p}                  etcd://[{p}]
    etcd://[{p}                         etcd://h,u:{p}                  etcd://[::1]{p}
    etcd://u:{p}@h//a                   etcd://u:{p}@h/a//b             etcd://u:{p}@h/%zz
    etcd://u:{p}@h/%FF                  etcd://u:{p}@h/a@b              etcd://u:{p}@h/{long}
    etcd://u:{p}@h?x                    etcd://u:{p}@h?=x               etcd://u:{p}@h?ttl=1&ttl=2
    etcd://u:{p}@h?password={p}         etcd://u:{p}@h?{p}              etcd://h?passwort={p}
    etcd://u:{p}@h?ttl=x                etcd://u:{p}@h?ttl=0            etcd://u:{p}@h?strict_ttl=x
    etcd://u:{p}@h?tls_ca=x             etcds://u:{p}@h?tls_ca=/nowhere etcds://u:{p}@h?tls_cert=/nowhere
    etcd://u:{p}@h                      etcd://u:{p}@10.0.0.1,h         etcd+http://u:{p}@h
    etcd://:{p}@h                       etcd://u:{p}@h?password=x       etcd+https://u:{p}@h?tls_key=/nowhere
    consul://u:{p}@h                    consul://{p}@h                  consul://:{p}@h
    consul://h?token={p}                consul://u:{p}@h?dc=            consul+https://u:{p}@h?dc=%zz
    memory://u:{p}@x                    memory://:{p}@x                 memory://u:{p}@x:1
    memory://x?token={p}                foo://u:{p}@h                   ftp://u:{p}@h?a=b
    etcd://u:{p}@h?a={p}%zz             etcd://u:{p}@h?tls_ca=%00       etcd://u:{p}%2@h
    etcd://u:1/{p}@h                    etcd://u/{p}@h                  etcd://u:1?x={p}@h
""".split()  # noqa: SIM905 - a table reads better


def test_the_corpus_is_large_and_each_of_its_urls_is_broken() -> None:
    assert len(BROKEN) == len(set(BROKEN)) >= 60


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("canary", [CANARY, "s3cr3t%2Fcan%61ry"], ids=["plain", "quoted"])
def test_no_error_log_or_traceback_of_a_broken_url_shows_its_password(
    broken: str, canary: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.delenv("OSDISCO_PASSWORD", raising=False)
    with pytest.raises(ConfigError) as caught:
        osdisco.connect(broken.format(p=canary, long="a" * 300))
    told = traceback.TracebackException.from_exception(caught.value)
    own_lines = "".join(line for line in told.format() if "osdisco.connect(broken" not in line)
    for shown in (str(caught.value), repr(caught.value), str(caught.value.args), own_lines, caplog.text):
        assert "s3cr3t" not in shown
        assert canary not in shown


async def test_a_client_shows_where_it_is_and_not_by_what_it_got_in() -> None:
    url = StoreURL.parse(f"memory://u:{CANARY}@x/ns")
    from osdisco_memory import MemoryBackend, MemoryStore

    runtime = Runtime(credentials=lambda: Credentials("u", CANARY))
    async with osdisco.Client(MemoryBackend(MemoryStore(), runtime), runtime, namespace="ns", url=url) as client:
        for shown in (repr(client), repr(client.url), repr(client.runtime), repr(client.scoped("a"))):
            assert CANARY not in shown
        assert repr(client) == "<Client of memory://x/ns at 'ns/'>"


async def test_values_are_no_part_of_what_is_printed() -> None:
    async with osdisco.connect("memory://") as client:
        await client.put("password", CANARY.encode())
        item = await client.get("password")
        snapshot = await client.scan()
        async with client.view() as view, client.watch() as changes:
            change = await anext(changes)
            put = osdisco.Put("k", CANARY.encode())
            for shown in (repr(item), repr(snapshot), repr(view), repr(dict(view)), repr(change), repr(put)):
                assert CANARY not in shown
        assert f"<{len(CANARY)} bytes>" in repr(item)


def test_options_of_a_url_are_not_shown_with_it(tmp_path: Path) -> None:
    options = StoreURL.parse(f"etcds://h?tls_server_name={CANARY}").structure(TlsOptions)
    assert options.tls_server_name == CANARY
    assert CANARY not in str(StoreURL.parse(f"etcds://h?tls_server_name={CANARY}"))
