"""The corpus: hostile names, URLs, records and answers of servers, each with the error that it must end in.

What the suites of each part have in tables of their own is gathered from there, where it is tested with what is said.
Only what must be refused is counted, and each input once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
OTHERS = ("core", "discovery", "consul", "cluster_state")
sys.path[:0] = [str(TESTS / name) for name in OTHERS]  # as pytest does when it runs those

import answers
import cluster_bodies
import hostile
import targets
from attrs import frozen
from targets import Outcome
from test_hostile_records import BAD
from test_names import EMPTY, FOREIGN, SURROGATES, TOO_LONG
from test_records import NO_RECORD, WRONG_TYPE, House, house
from test_secrets import BROKEN
from test_ssrf import ALWAYS_REFUSED
from test_state_build import HOSTILE
from test_state_cut import NO_STATE, WRONG_FIELDS
from test_url import WRONG, WRONG_OPTIONS

import osdisco
from osdisco._records import decode
from osdisco.cluster._pack import pack
from osdisco.discovery._addresses import Gate
from osdisco.discovery._target import RefusedError, Target, is_address
from osdisco.errors import ClusterDocumentError, ConfigError, InvalidNameError, OsdiscoError, RecordError
from osdisco.mesh._histogram import SIZE
from osdisco.serve._envoy import TYPE

FINDINGS = Path(__file__).parent / "findings"


@frozen
class Case:
    """One input. `run` returns the type of the error that it ended in; `given` tells it from others of its kind."""

    kind: str
    given: object
    error: type[OsdiscoError]
    run: Callable[[], Outcome]


def raw(text: str) -> bytes:
    """Return text as bytes, lone surrogates included."""
    return text.encode("utf-8", "surrogatepass")


def ended(call: Callable[[], object]) -> Outcome:
    """Return the type of the error of osdisco that a call ends in."""
    try:
        call()
    except OsdiscoError as exc:
        return type(exc)
    return None


def names() -> Iterator[Case]:
    """Names and prefixes that are none, and keys of foreign writers."""
    for text in [*EMPTY, *SURROGATES, *TOO_LONG]:
        yield Case("name", text, InvalidNameError, lambda text=text: ended(lambda: targets.escape_key(text)))
    for text in FOREIGN:
        yield Case("stored name", text, InvalidNameError, lambda text=text: ended(lambda: targets.unescape(text)))


def urls() -> Iterator[Case]:
    """URLs of stores, their options, and URLs that probes and checks would ask."""
    everything = Gate(["0.0.0.0/0", "::/0"])

    def asks(text: str) -> None:
        target = Target.parse(text)
        if is_address(target.host):
            everything.admit([target.host])

    for text in [*(text for text, _ in WRONG), *(f"etcd://h?{option}" for option, _ in WRONG_OPTIONS)]:
        yield Case("url", text, ConfigError, lambda text=text: targets.url(raw(text)))
    for text in BROKEN:
        filled = text.format(p="s3cr3t-canary", long="a" * 300)
        yield Case("url", filled, ConfigError, lambda filled=filled: ended(lambda: osdisco.connect(filled)))
    for text in ALWAYS_REFUSED:
        yield Case("url to ask", text, RefusedError, lambda text=text: ended(lambda: asks(text)))


def records() -> Iterator[Case]:
    """Records of any class, and those of extensions."""
    for data in [*(data for data, _ in NO_RECORD), *(house(**{name: value}) for name, value, _ in WRONG_TYPE)]:
        yield Case("record", data, RecordError, lambda data=data: ended(lambda: decode(data, House)))
    for number, bad in enumerate(BAD.values()):
        for data in bad.values():
            filed = b"alone/f%d\t" % number + data.replace(b"\n", b" ")
            yield Case("extension", data, RecordError, lambda filed=filed: targets.event(filed))


def answered() -> Iterator[Case]:
    """Answers of servers, to reads and to writes."""
    for call, status, body, error in hostile.consul_answers().values():
        given = (call, status, body)
        yield Case("consul", given, error, lambda given=given: answers.consul(*given))
    for call, status, body in hostile.ETCD.values():
        given = (call, status, body)
        yield Case("etcd", given, osdisco.UnavailableError, lambda given=given: answers.gateway(*given))


def states() -> Iterator[Case]:
    """Answers of a search cluster, and packs of a mirror."""
    wrong = (cluster_bodies.changed(path, value) for path, value, _ in WRONG_FIELDS)
    for data in [*(data for _, data, _ in NO_STATE), *wrong]:
        yield Case("state", data, ClusterDocumentError, lambda data=data: targets.cluster_state(data))
    for data in PACKS:
        yield Case("pack", data, ClusterDocumentError, lambda data=data: targets.cluster_pack(data))


PACKS = [packs[0][1] for component, packs, _ in HOSTILE if component == "nodes" and len(packs) == 1 and packs[0][1]]
"""What is wrong as nodes, and of no other component either."""

CASES: list[Case] = list(
    {(one.kind, one.given): one for part in (names, urls, records, answered, states) for one in part()}.values()
)


# What fuzzing starts from


def seeds_of(target: str) -> Iterator[bytes]:
    """Return inputs of a target: of the corpus, good ones, and what was found before."""
    yield from SEEDS[target]()
    for path in sorted((FINDINGS / target).glob("*")):
        yield path.read_bytes()


def _codec() -> Iterator[bytes]:
    yield from (raw(text) for text in [*EMPTY, *SURROGATES, *FOREIGN, *hostile.HARMLESS_NAMES, "a=20b/=2E=2E", "é"])


def _url() -> Iterator[bytes]:
    yield from (raw(str(one.given)) for one in CASES if one.kind == "url")
    yield b"etcds://u:p%40w@h1:2379,[::1]:1/a/b?ttl=15s&tls_verify=false&timeout=1500ms"


def _records() -> Iterator[bytes]:
    yield from (data for bad in BAD.values() for data in bad.values() if len(data) < 4096)
    yield from GOOD_RECORDS


GOOD_RECORDS = [
    b'{"extension":{"id":"a","name":"n","version":"1","host":"h","port":1,"capabilities":["c"],"endpoints":{"e":'
    b'{"protocol":"http","port":1,"path":"/"}},"metadata":{"z":"a"},"status":"healthy"},"incarnation":3}',
    b'{"endpoint":{"extension_id":"a","address":"10.0.0.7:9700","metadata":{"z":"a"},"health_check_url":null,'
    b'"weight":1,"zone":"a","version":"1","status":"healthy"},"incarnation":3}',
    b'{"uniqueId":"a","name":"n","version":"1","hostAddress":"h","port":"1","opensearchVersion":"3.0.0",'
    b'"minimumCompatibleVersion":"3.0.0","dependencies":[{"uniqueId":"b","version":"1"}]}',
]


def _events() -> Iterator[bytes]:
    for data in [*GOOD_RECORDS, *list(BAD["no record"].values())[:8]]:
        if len(data) < 1000:
            line = data.replace(b"\n", b" ")
            yield b"\n".join([b"a/p.1\t" + line, b"a/q.1\t" + line.replace(b"3}", b"4}"), b"a/p.1", b"a/q.1", b"=\t{}"])


def _rules() -> Iterator[bytes]:
    """What a canary and all that rules may say look like in the store, and each value of it replaced by each other."""
    subsets = {"v1": {"version": ">=1,<2", "zone": "a"}, "v2": {"metadata": {"a": "b"}, "only_passing": True}}
    match = [{"method": {"one_of": ["m"], "invert": True}, "metadata": {"x": {"present": True}}, "subset": "v2"}]
    document = {
        "match": [*match, {"method": "m", "splits": [{"weight": 100, "service": "b"}], "retry": {"attempts": 1}}],
        "splits": [{"subset": "v1", "weight": 99.5}, {"subset": "v2", "weight": 0.5}],
        "default_subset": "v1",
        "subsets": subsets,
        "failover": {"*": [{"zone": "b"}], "v2": [{"service": "c"}]},
        "mirror": {"percent": 1, "service": "d"},
        "fault": {"percent": 0.1, "delay": 1, "status": 503},
        "rate_limit": {"per_second": 5, "burst": 9},
        "lb": {"policy": "random"},
        "timeout": 5,
    }
    canary = {"plan": {"stable": "v1", "canary": "v2"}, "weight": 0.5, "checks": 1}
    whole = {"version": 7, "previous": 3, "by": "me", "at": 1.5, "why": "set", "rules": document, "canary": canary}
    yield json.dumps(whole).encode()
    yield b'{"version":1,"rules":{"redirect":{"service":"b"}}}'
    for place in (whole, document):
        for key in place:
            written = json.dumps(
                {**whole, "rules": {**document, key: "@"}} if place is document else {**whole, key: "@"}
            )
            yield from (written.replace('"@"', value).encode() for value in ODD)


def _mesh_report() -> Iterator[bytes]:
    """A report, and each value of it replaced by each odd one."""
    numbers = dict.fromkeys(("calls", "failed", "retries", "refused", "in_flight", "endpoints", "ejected", "open"), 2)
    service = {**numbers, "took": [0] * SIZE, "panic": False, "budget": 7.5}
    whole = {"caller": "h:1", "at": 3.5, "services": {"geo": service}}
    yield json.dumps(whole).encode()
    for place in (whole, service):
        for key in place:
            changed = {**whole, key: "@"} if place is whole else {**whole, "services": {"a": {**service, key: "@"}}}
            yield from (json.dumps(changed).replace('"@"', value).encode() for value in ODD)


def _envoy_request() -> Iterator[bytes]:
    whole = {"version_info": "7", "node": {"id": "e"}, "resource_names": ["geo"], "type_url": TYPE}
    yield json.dumps(whole).encode()
    for key in whole:
        yield from (json.dumps({**whole, key: "@"}).replace('"@"', value).encode() for value in ODD)


ODD = ("null", "-1", "1e999", "9" * 400, '"\\ud800"', "[[[]]]", '{"v1":{}}', "true", '"v1"')


def _etcd_frames() -> Iterator[bytes]:
    readers, methods = list(answers.JSON_READERS), list(answers.GRPC_READERS)
    for call, _, body in hostile.ETCD.values():
        if len(body) < 1000:
            yield b"j" + bytes([readers.index(call)]) + body
            if call == "watch":
                yield b"s\x05" + body + b"\n"
    good = '{"result":{%s,"events":[{"kv":{"key":"bnMv","create_revision":"8","mod_revision":"%d"}}]}}'
    lines = [f'{{"result":{{{hostile.HEAD},"created":true}}}}', *(good % (hostile.HEAD, at) for at in (8, 9))]
    yield b"s\x07" + "\n".join(lines).encode() + b"\n"
    for reader, message in answers.messages():
        yield b"g" + bytes([methods.index(reader)]) + message


def _consul_json() -> Iterator[bytes]:
    calls = list(answers.CALLS)
    for call, status, body, _ in hostile.consul_answers().values():
        if len(body) < 1000 and status in answers.STATUSES:
            yield bytes([calls.index(call), answers.STATUSES.index(status) + 8]) + body


def _cluster_state() -> Iterator[bytes]:
    small = cluster_bodies.document()
    for section in ("metadata", "routing_table"):
        small[section]["indices"] = {"new": small[section]["indices"]["new"]}
    small["nodes"] = {"d1": small["nodes"]["d1"]}
    yield cluster_bodies.body(small)
    yield from (one.given for one in CASES if one.kind == "state" and len(one.given) < 4096)


def _cluster_pack() -> Iterator[bytes]:
    yield from PACKS
    cut = cluster_bodies.joined(cluster_bodies.body(cluster_bodies.STATE))
    yield from (one.text for parts in cut.parts.values() for one in pack(parts).packs)


SEEDS: dict[str, Callable[[], Iterator[bytes]]] = {
    "codec": _codec,
    "url": _url,
    "record": _records,
    "event": _events,
    "rules": _rules,
    "mesh_report": _mesh_report,
    "envoy_request": _envoy_request,
    "etcd_frames": _etcd_frames,
    "consul_json": _consul_json,
    "cluster_state": _cluster_state,
    "cluster_pack": _cluster_pack,
}
FUZZED = {name: getattr(targets, name, None) or getattr(answers, name) for name in SEEDS}
