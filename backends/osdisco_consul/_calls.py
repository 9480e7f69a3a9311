"""Every request that the adapter makes, built by python-consul2, with the parser of its answer. No I/O.

Parsers are our own where python-consul2 is too trusting: it takes `{}` for a missing key, and such a "missing" key
would look like a delete. They may raise anything that `json`, a lookup or an attribute raises; `_wire` expects it.
"""

from __future__ import annotations

import json
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from enum import IntEnum
from typing import Any
from urllib.parse import urlencode

from attrs import define, evolve
from consul import base

from osdisco.backend import Absent, Condition, Delete, Item, LeaseStatus, Op, Put, Revision
from osdisco.errors import ConflictError
from osdisco_consul._errors import go_seconds

INDEX = "X-Consul-Index"
PROBE = "_probe"
"""A name under a prefix that nobody writes: reading it tells whether the prefix may be read."""

Headers = Mapping[str, str]

_LIST = "recurse=1&consistent=1"


class Lane(IntEnum):
    """A pool of connections, so that neither watches nor a flood of requests hold up renewals; the value is its size.

    Together they stay below the 200 connections that an agent takes from one address.
    """

    REQUESTS = 64
    WATCHES = 100
    SESSIONS = 8


@define
class Answer:
    """What a parser gets. python-consul2's parsers want these names."""

    code: int
    headers: Headers
    body: bytes


@define
class Call:
    """A request, the parser of its answer, and how to treat it.

    `write`: a missing answer leaves the outcome unknown. `missing`: a 404 that carries an index is an answer.
    `probe` is sent after such a 404, and must not be denied for a 404 to be believed, which is that of another read:
    rights that came back before the probe would otherwise make an empty list of the denied one.
    """

    method: str
    path: str
    query: str
    data: str
    parse: Callable[[Answer], Any]
    lane: Lane = Lane.REQUESTS
    write: bool = False
    missing: bool = False
    probe: Call | None = None

    def again(self) -> Call:
        """Return the call to be sent after its probe: what is there now, without waiting for news."""
        return evolve(self, query=_LIST, probe=None)


class _Builder(base.HTTPClient):  # type: ignore[misc]
    """Where python-consul2 would send, it gets back what it would have sent. Tokens are no matter of it."""

    def get(self, callback: Any, path: str, params: Any = None, headers: Any = None) -> Call:
        return Call("GET", path, urlencode(params or ()), "", callback)

    def put(self, callback: Any, path: str, params: Any = None, data: str = "", headers: Any = None) -> Call:
        return Call("PUT", path, urlencode(params or ()), data, callback)

    def delete(self, callback: Any, path: str, params: Any = None, data: str = "", headers: Any = None) -> Call:
        raise NotImplementedError("writes go through PUT /v1/txn only")

    post = delete


class Api(base.Consul):  # type: ignore[misc]
    """python-consul2's API as a builder of calls. Its own constructor lets CONSUL_HTTP_* win over the URL: left out."""

    def __init__(self, place: Mapping[str, str], session_node: str | None) -> None:
        self.token = self.dc = None
        self.http = self.http_connect()
        self.agent = base.Consul.Agent(self)
        self.catalog = base.Consul.Catalog(self)
        self.session = base.Consul.Session(self)
        self.status = base.Consul.Status(self)
        self.txn = base.Consul.Txn(self)
        self._node = session_node
        self._dc = place.get("dc")
        self._scope = {
            name: place[key] for name, key in (("Namespace", "ns"), ("Partition", "partition")) if key in place
        }

    def http_connect(self, *_: object, **__: object) -> _Builder:
        """Connect nowhere."""
        return _Builder()

    def read(self, target: str) -> Call:
        """Read a key, or all under a prefix, linearizable. (Without `kv.get`, whose time showed in a plain read.)

        A denied list looks empty while a denied key is a 403, so an empty list needs a probe.
        """
        path = "/v1/kv/" + target
        if target and not target.endswith("/"):
            return Call("GET", path, "consistent=1", "", _items, missing=True)
        return Call("GET", path, _LIST, "", _items, missing=True, probe=self.read(target + PROBE))

    def probe(self) -> Call:
        """Read what is not there, to learn whether the server takes our parameters."""
        return self.read(PROBE)

    def poll(self, target: str, index: int, wait: float, *, probe: bool) -> Call:
        """Read for a watch; with an index, wait up to `wait` seconds for another one.

        A read with an index is not `consistent`, which would cost a round of the servers each time. A prefix that was
        empty already needs no probe: nothing can be lost by it.
        """
        call = self.read(target)
        if index:
            call.query = call.query.replace("consistent=1", f"index={index}&wait={wait:g}s")
        call.lane = Lane.WATCHES
        if not probe:
            call.probe = None
        return call

    def commit(self, ops: Sequence[Op], expect: Mapping[str, Condition]) -> Call:
        """Write in one transaction. `PUT /v1/kv` would do, but returns no index."""
        puts = [op.key for op in ops if isinstance(op, Put)]
        return self._transaction(ops, expect, (), lambda results: _revisions(results, puts))

    def commit_and_scan(self, ops: Sequence[Op], expect: Mapping[str, Condition], prefix: str) -> Call:
        """Write and then read in one transaction."""
        puts = [op.key for op in ops if isinstance(op, Put)]
        before = len(puts) + sum(not isinstance(condition, Absent) for condition in expect.values())

        def parse(results: Sequence[Any]) -> tuple[dict[str, int], dict[str, Item] | None]:
            return _revisions(results, puts), _tree(results[before:], prefix)

        return self._transaction(ops, expect, [{"Verb": "get-tree", "Key": prefix}], parse)

    def _transaction(
        self,
        ops: Sequence[Op],
        expect: Mapping[str, Condition],
        reads: Sequence[Mapping[str, object]],
        parse: Callable[[Sequence[Any]], Any],
    ) -> Call:
        verbs = [*(_guard(key, condition) for key, condition in expect.items()), *map(_verb, ops), *reads]
        call: Call = self.txn.put([{"KV": {**verb, **self._scope}} for verb in verbs])
        call.parse, call.write = lambda answer: parse(json.loads(answer.body)["Results"] or ()), True
        return call

    def create_session(self, name: str, ttl: int) -> Call:
        """Open a session whose end deletes its keys, at once free to lock again, that lives by its ttl alone.

        `NodeChecks: []` matters: by default a session dies with its agent's health check. python-consul2's
        `session.create` knows no NodeChecks, and no ttl below 10 s.
        """
        body = {"Name": name, "TTL": f"{ttl}s", "Behavior": "delete", "LockDelay": "0s", "NodeChecks": []}
        body |= {"Node": self._node} if self._node else {}
        return _on_session(self.http.put(None, "/v1/session/create", data=json.dumps(body)), _session_id)

    def register_node(self) -> Call:
        """Put the node that sessions hang on into the catalog; one that is there already stays as it is."""
        meta = {"external-node": "true"}
        call = self.catalog.register(self._node, "127.0.0.1", skipnodeupdate=True, dc=self._dc, node_meta=meta)
        return _on_session(call, _true)

    def renew_session(self, lease: str) -> Call:
        """Renew; the answer is the ttl."""
        return _on_session(self.session.renew(lease), _ttl)

    def destroy_session(self, lease: str) -> Call:
        """End a session."""
        return _on_session(self.session.destroy(lease), _true)

    def session_info(self, lease: str) -> Call:
        """Read a session, linearizable."""
        call: Call = self.session.info(lease, consistency="consistent")
        call.parse = _session
        return call

    def leader(self) -> Call:
        """Ask for the leader's address and the agent's time."""
        call: Call = self.status.leader()
        call.parse = _leader
        return call

    def agent_self(self) -> Call:
        """Ask an agent about itself."""
        call: Call = self.agent.self()
        call.parse = _agent
        return call


def _on_session(call: Call, parse: Callable[[Answer], Any]) -> Call:
    call.parse, call.lane, call.write = parse, Lane.SESSIONS, True
    return call


def _guard(key: str, condition: Condition) -> dict[str, object]:
    if isinstance(condition, Absent):
        return {"Verb": "check-not-exists", "Key": key}
    if isinstance(condition, Revision):
        if not 0 < condition.number < 2**64:
            raise ConflictError(f"the condition on {key!a} can never hold on Consul; nothing was sent")
        return {"Verb": "check-index", "Key": key, "Index": condition.number}
    return {"Verb": "check-session", "Key": key, "Session": condition.lease}


def _verb(op: Op) -> dict[str, object]:
    if isinstance(op, Delete):
        return {"Verb": "delete", "Key": op.key}  # never delete-cas: it succeeds on a missing key
    value = b2a_base64(op.value, newline=False).decode()
    if op.lease is None:
        return {"Verb": "set", "Key": op.key, "Value": value}
    return {"Verb": "lock", "Key": op.key, "Value": value, "Session": op.lease}


def _items(answer: Answer) -> tuple[int, list[Item]]:
    """Return index and items. An index of 0, or none, counts as 1: 0 would turn the next poll into one that spins."""
    index = max(1, int(answer.headers.get(INDEX, 1)))
    if answer.code == 404:
        return index, []
    entries = json.loads(answer.body.decode())
    if not (isinstance(entries, list) and entries):
        raise ValueError("an agent says 404 when there is nothing")
    return index, [_item(entry) for entry in entries]


def _item(entry: Mapping[str, Any]) -> Item:
    key, value, session = entry["Key"], entry["Value"], entry.get("Session") or ""
    created, modified = entry["CreateIndex"], entry["ModifyIndex"]
    if type(key) is not str or type(created) is not int or type(modified) is not int or type(session) is not str:
        raise TypeError("readers compare and sort these")
    return Item(key, a2b_base64(value) if value else b"", created, modified, session or None)


def _revisions(results: Sequence[Any], puts: Sequence[str]) -> dict[str, int]:
    """Return the index of each key put. Checks report their key too, before its put does."""
    found = {(kv := result["KV"])["Key"]: kv["ModifyIndex"] for result in results}
    revisions = {key: found[key] for key in puts}
    if not all(type(revision) is int for revision in revisions.values()):
        raise TypeError("an index is a number")
    return revisions


def _tree(results: Sequence[Any], prefix: str) -> dict[str, Item] | None:
    """Return what a `get-tree` at the end of a transaction has found.

    None when that is not what follows the results of puts and checks: those of deletes and of checks for absence are
    left out by all servers that are known, but are documented nowhere.
    """
    found = [result["KV"] for result in results]
    if not all(kv["Key"].startswith(prefix) for kv in found) or len({kv["Key"] for kv in found}) < len(found):
        return None
    return {kv["Key"]: _item(kv) for kv in found}


def _session_id(answer: Answer) -> str:
    found = json.loads(answer.body)["ID"]
    if not (isinstance(found, str) and found):
        raise ValueError("a session without an id")
    return found


def _ttl(answer: Answer) -> float:
    ttl = go_seconds(json.loads(answer.body)[0]["TTL"])
    if not ttl:
        raise ValueError("a session without a ttl")
    return ttl


def _session(answer: Answer) -> LeaseStatus | None:
    found = json.loads(answer.body)
    if not isinstance(found, list):
        raise ValueError("no list of sessions")
    return LeaseStatus(go_seconds(found[0]["TTL"]) or None) if found else None


def _true(answer: Answer) -> None:
    if json.loads(answer.body) is not True:
        raise ValueError("not true")


def _leader(answer: Answer) -> tuple[str, float | None]:
    leader = json.loads(answer.body)
    if not isinstance(leader, str):
        raise ValueError("no address")
    date = answer.headers.get("Date")
    return leader, parsedate_to_datetime(date).timestamp() if date else None


def _agent(answer: Answer) -> dict[str, str]:
    """Return version, whether it is the leader ("true"), node and datacenter."""
    found = json.loads(answer.body)
    config = found["Config"]
    consul = (found.get("Stats") or {}).get("consul") or {}
    facts = {"version": config.get("Version"), "leader": consul.get("leader")}
    facts |= {"node": config.get("NodeName"), "datacenter": config.get("Datacenter")}
    return {name: str(fact) for name, fact in facts.items() if fact is not None}
