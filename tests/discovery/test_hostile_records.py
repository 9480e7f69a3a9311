"""Records of hostile writers: each is skipped, counted and reported, and harms nobody else.

Those in `BAD` must be refused, whatever else is right about them; those in `ODD` must be read.
"""

from __future__ import annotations

import json
import random

import pytest
from extensions import Diary, info, observer, registered
from worlds import World, connect, until

from osdisco._records import RECORD_MAX, decode, encode
from osdisco.backend import Delete, Put
from osdisco.discovery import EndpointInfo
from osdisco.discovery.registration import Registration, read
from osdisco.errors import OsdiscoError, RecordError

WHOLE = encode(Registration(info("bad", endpoints={"rest": EndpointInfo("http", 1)}, metadata={"zone": "a"}), 3))
"""In the form that osdisco writes, which is read on a path of its own."""
LEAST = b'{"extension":{"id":"bad","name":"n","version":"1","host":"h","port":1}}'
SECRET = "hunter2"
PLACE = "ns/ext/bad/foreign"


def without(record: bytes, name: str) -> bytes:
    said = json.loads(record)
    (said["extension"] if name in said["extension"] else said).pop(name)
    return json.dumps(said).encode()


def changed(record: bytes, name: str, text: str) -> bytes:
    """Return the record with the JSON `text` for a field, whether it was there or not."""
    said = json.loads(record)
    (said if name in ("incarnation", "extension") else said["extension"])[name] = "?!"
    return json.dumps(said, separators=(",", ":")).replace('"?!"', text).encode(errors="surrogatepass")


MANY = json.dumps([f"c{number}" for number in range(10_000)])
TEXT = '"' + "x" * 5000 + '"'
ENDPOINT = '{"protocol":"http","port":%s,"path":%s}'

FIELDS: dict[str, list[str]] = {
    "id": ['""', '"other"', "1", "null", '["bad"]', TEXT, '"\\ud800"', '"bad/"', '"b\\u0061d "'],
    "name": ['""', "1", "null", TEXT, '"\\ud800"', '{"a":1}'],
    "version": ['""', "1.0", "null", TEXT, "[1,2]"],
    "host": ['""', '"a b"', '"http://h"', '"h/p"', '"h?q"', '"[::1]"', '"u@h"', '"h\\n"', '"\\u0000"', "null", TEXT],
    "port": [
        "0",
        "65536",
        "-1",
        '"9700"',
        "9700.0",
        "9e3",
        "true",
        "null",
        "1" + "0" * 30,
        "NaN",
        "[9700]",
        "9" * 5000,
    ],
    "capabilities": ['"abc"', '{"a":1}', "[1]", '[["a"]]', "null", "[null]", "true", '[""]', f"[{TEXT}]", MANY],
    "endpoints": [
        "[]",
        '"rest"',
        "null",
        '{"a":1}',
        '{"a":{}}',
        '{"a":{"protocol":"http"}}',
        '{"a":%s}' % (ENDPOINT % ("0", '"/"')),
        '{"a":%s}' % (ENDPOINT % ("65536", '"/"')),
        '{"a":%s}' % (ENDPOINT % ('"1"', '"/"')),
        '{"a":%s}' % (ENDPOINT % ("true", '"/"')),
        '{"a":%s}' % (ENDPOINT % ("1", "null")),
        '{"":%s}' % (ENDPOINT % ("1", '"/"')),
        "{" + ",".join(f'"e{number}":' + ENDPOINT % ("1", '"/"') for number in range(65)) + "}",
    ],
    "metadata": [
        "[]",
        '"zone"',
        "null",
        '{"a":1}',
        '{"a":null}',
        '{"a":["b"]}',
        '{"":"b"}',
        f'{{"a":{TEXT}}}',
        '{"a":"\\udfff"}',
        '{"\\ud800":"a"}',
        '{"a":"1","a":"2"}',
        "{" + ",".join(f'"m{number}":""' for number in range(129)) + "}",
    ],
    "status": ['"fine"', '"HEALTHY"', '""', "[]", "null", "1", "true", '{"a":1}'],
    "incarnation": ["NaN", "Infinity", "1e400", "true", '"1"', "1.5", "null", "[]", "9" * 5000],
    "extension": ["null", "[]", '"bad"', "1", "{}"],
    "unknown": ["NaN", "-Infinity", "1e999", "[" * 5000 + "]" * 5000, '{"a":1,"a":2}', "9" * 5000, TEXT[:-1]],
}
RAW: dict[str, bytes] = {
    "empty": b"",
    "space": b" \n",
    "half": WHOLE[: len(WHOLE) // 2],
    "null": b"null",
    "number": b"5",
    "text": b'"bad"',
    "list": b"[" + WHOLE + b"]",
    "no fields": b"{}",
    "two": WHOLE + WHOLE,
    "more behind it": WHOLE + b"x",
    "nul behind it": WHOLE + b"\0",
    "bom": b"\xef\xbb\xbf" + WHOLE,
    "utf-16": WHOLE.decode().encode("utf-16"),
    "latin-1": WHOLE.replace(b'"a"', b'"\xe9"'),
    "encoded surrogate": WHOLE.replace(b'"a"', b'"\xed\xa0\x80"'),
    "python": WHOLE.replace(b'"', b"'"),
    "comment": b"/* */" + WHOLE,
    "comma at the end": WHOLE[:-1] + b",}",
    "control character": WHOLE.replace(b'"a"', b'"\x01"'),
    "deep lists": b"[" * 20_000,
    "deep objects": b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    "over the limit": WHOLE[:-1] + b" " * RECORD_MAX + b"}",
    "a mebibyte": b"[" + b"0," * 2**19,
    "field twice": WHOLE.replace(b'"port":9700', b'"port":1,"port":9700'),
    "extension twice": WHOLE.replace(b'"incarnation"', b'"extension":null,"incarnation"'),
    "incarnation twice": WHOLE[:-1] + b',"incarnation":9}',
    "unknown twice": WHOLE[:-1] + b',"new":1,"new":1}',
    "binary": bytes(range(256)),
}
NAMES = ("extension", "id", "name", "version", "host", "port")
BAD: dict[str, dict[str, bytes]] = {
    "no record": RAW,
    "without": {name: without(record, name) for name in NAMES for record in (WHOLE, LEAST)},
    **{
        name: {
            f"{form} {text:.30}": changed(record, name, text)
            for text in texts
            for form, record in (("whole", WHOLE), ("least", LEAST))
        }
        for name, texts in FIELDS.items()
    },
}
"""By kind and name."""
ODD: dict[str, bytes] = {
    "as we write it": WHOLE,
    "the least": LEAST,
    "unknown fields": changed(WHOLE, "tags", '"abc"'),
    "unknown fields beside it": WHOLE[:-1] + b',"new":{"a":[1,null]}}',
    "clock of long ago": changed(WHOLE, "registered_at", "-62135596801.5"),
    "clock of the far future": changed(WHOLE, "registered_at", "253402300800e3"),
    "clock that is none": changed(WHOLE, "registered_at", '"tomorrow"'),
    "other order, and space": json.dumps(dict(reversed(json.loads(WHOLE).items())), indent=2).encode(),
    "escapes": WHOLE.replace(b'"a"', b'"\\u00e9\\ud83d\\ude00"'),
    "quotes and colons": WHOLE.replace(b'"a"', b'"\\":\\":"'),
    "all that is allowed": encode(
        Registration(
            info("bad", capabilities=[f"c{n}" for n in range(256)], metadata={f"m{n}": "é" * 100 for n in range(128)})
        )
    ),
    "older than all": changed(WHOLE, "incarnation", "-1"),
}


def test_there_are_many() -> None:
    assert sum(map(len, BAD.values())) > 200


@pytest.mark.fault("F21")
@pytest.mark.parametrize("kind", BAD)
async def test_bad_records_are_skipped_and_harm_nobody(
    world: World, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither alone, nor beside a good one of the same id."""
    seer = await observer(world.process())
    living = await registered(world.process(), "bad")
    await until(lambda: seer.extensions)
    diary = Diary(seer)
    values = list(BAD[kind].values())
    bad = {f"ext/bad/f{number}": value for number, value in enumerate(values)}
    bad |= {f"ext/alone/f{number}": value.replace(b'"bad"', b'"alone"') for number, value in enumerate(values)}
    for key, value in bad.items():
        world.store.commit([Put(f"ns/{key}", value)], {})
    await registered(world.process(), "knn")
    await until(lambda: "knn" in seer.extensions)
    taken = set(bad) - set(seer.extensions.skipped)
    assert not taken, [bad[key] for key in taken]
    assert dict(seer.extensions) == {"bad": living.extension, "knn": info("knn")}
    assert [one.id for one in await seer.discover_extensions()] == ["bad", "knn"]
    assert living.registered
    assert not living.superseded
    assert all(repr(key) in caplog.text for key in seer.extensions.skipped)
    assert max(map(len, seer.extensions.skipped.values())) < 300
    for key in bad:
        world.store.commit([Delete(f"ns/{key}")], {})
    await until(lambda: not seer.extensions.skipped)
    assert diary.lines == ["+bad starting", "+knn starting"]


@pytest.mark.parametrize("name", ODD)
async def test_an_odd_record_is_read(world: World, name: str) -> None:
    seer = await observer(world.process())
    world.store.commit([Put(PLACE, ODD[name])], {})
    await until(lambda: "bad" in seer.extensions, 1)
    assert not seer.extensions.skipped
    world.store.commit([Delete(PLACE)], {})


async def test_no_value_of_a_bad_record_is_shown(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """It may be somebody's password that was put at the wrong place."""
    seer = await observer(world.process())
    wrong = [SECRET, f'{{"extension":"{SECRET}"}}', changed(WHOLE, "port", f'"{SECRET}"').decode()]
    wrong += [changed(WHOLE, field, f'["{SECRET}"]').decode() for field in FIELDS]
    puts = [Put(f"ns/ext/bad/{number}", text.encode()) for number, text in enumerate(wrong)]
    world.store.commit(puts, {})
    await until(lambda: seer.extensions.skipped)
    assert SECRET not in caplog.text
    assert SECRET not in str(dict(seer.extensions.skipped))
    world.store.commit([Delete(put.key) for put in puts], {})


def test_the_quick_path_takes_nothing_that_the_strict_one_refuses() -> None:
    """Records with small mistakes, by chance: what is read at all is read as the strict decoder does."""
    chance, taken = random.Random(0), 0
    for _ in range(4000):
        value = spoilt(WHOLE, chance)
        try:
            extension, incarnation = read(value)
        except (RecordError, OsdiscoError):
            continue
        expected = decode(value, Registration)
        assert (extension, incarnation) == (expected.extension, expected.incarnation), value
        taken += 1
    assert 100 < taken < 3900


TOKENS = [
    b'"',
    b":",
    b",",
    b"{}",
    b"[]",
    b"\\",
    b"NaN",
    b"1e999",
    b"true",
    b"null",
    b'"a":1,',
    b'"port":2,',
    b"\\ud800",
]
TOKENS += [b" ", b"\n", b"\xed\xa0\x80", b"\xc3\xa9", b"0", b"-", b".5", b'"":"",', b'\\":']


def spoilt(record: bytes, chance: random.Random) -> bytes:
    """Return the record with a few bytes left out, doubled or put in."""
    for _ in range(chance.randint(1, 2)):
        at = chance.randrange(len(record))
        end = min(at + chance.randint(0, 3), len(record))
        new = chance.choice([b"", record[at:end] * 2, chance.choice(TOKENS)])
        record = record[:at] + new + record[end:]
    return record


@pytest.mark.fault("F21")
@pytest.mark.osdisco("etcd", "etcd+http", "consul")
async def test_bad_records_on_real_stores(osdisco_url: str) -> None:
    """A few of each kind; some are larger than a store takes at once."""
    few = [value for kind in BAD.values() for value in list(kind.values())[:3] if value]
    async with connect(osdisco_url) as client, connect(osdisco_url) as writer:
        seer = await observer(client)
        living = await registered(client, "bad")
        for number, value in enumerate(few):
            await writer.commit([Put(f"ext/bad/f{number}", value)])
        await until(lambda: len(seer.extensions.skipped) == len(few))
        assert dict(seer.extensions) == {"bad": living.extension}
        assert [one.id for one in await seer.discover_extensions()] == ["bad"]
        await writer.commit([Delete(name) for name in seer.extensions.skipped])
        await until(lambda: not seer.extensions.skipped)
        await living.stop()
        await seer.stop()
