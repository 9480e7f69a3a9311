"""Records of other writers: the bad are skipped and reported, the newer are read, and the stored form stays."""

from __future__ import annotations

import asyncio

import pytest
from extensions import REGISTRATION, info, observer, registered
from worlds import World, until

from osdisco._records import encode
from osdisco.backend import Delete, Put
from osdisco.discovery import EndpointInfo
from osdisco.discovery.registration import Registration

BAD = {
    "empty": b"",
    "not json": b"{",
    "a list": b"[]",
    "nothing in it": b"{}",
    "not utf-8": b"\xff\xfe",
    "deep": b"[" * 10_000,
    "huge": b'{"x": "' + b"x" * 70_000 + b'"}',
    "port as text": REGISTRATION.replace("9700", '"9700"').encode(),
    "port out of range": REGISTRATION.replace("9700", "70000").encode(),
    "letters for capabilities": REGISTRATION.replace('"port"', '"capabilities":"abc","port"').encode(),
    "null": REGISTRATION.replace('"h"', "null").encode(),
    "unknown status": REGISTRATION.replace('"port"', '"status":"fine","port"').encode(),
    "status of no kind": REGISTRATION.replace('"port"', '"status":[],"port"').encode(),
    "field twice": REGISTRATION.replace('"port"', '"name":"x","port"').encode(),
    "lone surrogate": REGISTRATION.replace('"h"', '"\\ud800"').encode(),
    "NaN": REGISTRATION.replace('"incarnation":0', '"incarnation":NaN').encode(),
    "incarnation as truth": REGISTRATION.replace('"incarnation":0', '"incarnation":true').encode(),
    "id of another": REGISTRATION.replace('"id":"geo"', '"id":"knn"').encode(),
    "id that is none": REGISTRATION.replace('"id":"geo"', '"id":""').encode(),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_record_is_skipped_and_reported(world: World, name: str, caplog: pytest.LogCaptureFixture) -> None:
    seer = await observer(world.process())
    await registered(world.process(), "knn")
    world.store.commit([Put("ns/ext/geo/foreign", BAD[name])], {})
    await until(lambda: seer.extensions.skipped)
    assert list(seer.extensions) == ["knn"] == [extension.id for extension in await seer.discover_extensions()]
    assert list(seer.extensions.skipped) == ["ext/geo/foreign"]
    assert "skipped the registration at 'ext/geo/foreign'" in caplog.text
    world.store.commit([Put("ns/ext/geo/foreign", REGISTRATION.encode())], {})
    await until(lambda: "geo" in seer.extensions)
    assert not seer.extensions.skipped
    world.store.commit([Put("ns/ext/geo/foreign", BAD[name])], {})
    await until(lambda: "geo" not in seer.extensions)
    world.store.commit([Delete("ns/ext/geo/foreign")], {})
    await until(lambda: not seer.extensions.skipped)


@pytest.mark.parametrize("key", ["ext/geo", "ext/geo/a/b", "ext/=zz/1", "ext/é/1", "ext//1", "ext/geo/\udcff"])
async def test_a_record_at_a_foreign_place_is_nobodys(world: World, key: str) -> None:
    seer = await observer(world.process())
    world.store.commit([Put(f"ns/{key}", REGISTRATION.encode())], {})
    await asyncio.sleep(1)
    assert dict(seer.extensions) == {}
    assert await seer.discover_extensions() == []
    world.store.commit([Delete(f"ns/{key}")], {})


async def test_a_newer_writer_with_more_fields_is_read(world: World) -> None:
    seer = await observer(world.process())
    world.store.commit([Put("ns/ext/geo/other", REGISTRATION.replace('"port"', '"new":[1],"port"').encode())], {})
    await until(lambda: "geo" in seer.extensions)
    world.store.commit([Delete("ns/ext/geo/other")], {})


def test_the_form_in_which_a_record_is_stored_stays() -> None:
    """Other languages and versions read it."""
    record = encode(Registration(info(endpoints={"rest": EndpointInfo("http", 1)}, capabilities=["a"]), 7))
    assert record == (
        b'{"extension":{"id":"geo","name":"geo","version":"1.0.0","host":"10.0.0.7","port":9700,"capabilities":["a"],'
        b'"endpoints":{"rest":{"protocol":"http","port":1,"path":"/"}},"metadata":{},"status":"starting"},'
        b'"incarnation":7}'
    )
