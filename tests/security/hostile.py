"""Hostile names, keys of foreign writers and answers of servers that no other suite has, each with its error."""

from __future__ import annotations

import json
from collections.abc import Mapping

from osdisco.errors import (
    ConfigError,
    ConflictError,
    DeniedError,
    IndeterminateError,
    LeaseExpiredError,
    LimitError,
    OsdiscoError,
    UnavailableError,
)

Error = type[OsdiscoError]

HARMLESS_NAMES = [
    "job/../../agent/leave",
    "../../v1/agent/leave",
    "..%2F..%2Fagent%2Fleave",
    "a?dc=x",
    "a#b",
    "a&recurse=true",
    "a;b",
    "a\\..\\b",
    "/".join([".."] * 20),
    "con/nul",
    "\r\nX-Consul-Token: x",
    "a\0b",
    "\u202egnp.exe",
    "\ufeffa",
    "ａ",
    "a\u0301",
    "${jndi:ldap:h}",
    "{{7*7}}",
    "'; DROP TABLE kv; --",
    "=2E=2E",
    "sess/x/live",
    "epoch",
]
"""What looks dangerous and is a name as any other: nothing in it means anything where it comes to stand."""

NO_ITEM: dict[str, object] = {
    "no key": {"Value": None, "CreateIndex": 1, "ModifyIndex": 2},
    "key a number": {"Key": 5, "Value": None, "CreateIndex": 1, "ModifyIndex": 2},
    "key null": {"Key": None, "Value": None, "CreateIndex": 1, "ModifyIndex": 2},
    "key a list": {"Key": ["ns/k"], "Value": None, "CreateIndex": 1, "ModifyIndex": 2},
    "no value": {"Key": "ns/k", "CreateIndex": 1, "ModifyIndex": 2},
    "value no base64": {"Key": "ns/k", "Value": "é", "CreateIndex": 1, "ModifyIndex": 2},
    "value half of base64": {"Key": "ns/k", "Value": "YWF", "CreateIndex": 1, "ModifyIndex": 2},
    "value a number": {"Key": "ns/k", "Value": 7, "CreateIndex": 1, "ModifyIndex": 2},
    "value a list": {"Key": "ns/k", "Value": [1], "CreateIndex": 1, "ModifyIndex": 2},
    "created null": {"Key": "ns/k", "Value": None, "CreateIndex": None, "ModifyIndex": 2},
    "created text": {"Key": "ns/k", "Value": None, "CreateIndex": "1", "ModifyIndex": 2},
    "created a float": {"Key": "ns/k", "Value": None, "CreateIndex": 1.5, "ModifyIndex": 2},
    "modified text": {"Key": "ns/k", "Value": None, "CreateIndex": 1, "ModifyIndex": "2"},
    "modified true": {"Key": "ns/k", "Value": None, "CreateIndex": 1, "ModifyIndex": True},
    "modified an object": {"Key": "ns/k", "Value": None, "CreateIndex": 1, "ModifyIndex": {}},
    "session a number": {"Key": "ns/k", "Value": None, "CreateIndex": 1, "ModifyIndex": 2, "Session": 7},
    "session a list": {"Key": "ns/k", "Value": None, "CreateIndex": 1, "ModifyIndex": 2, "Session": ["a"]},
    "a list": ["ns/k"],
    "text": "ns/k",
    "null": None,
}
NONSENSE: dict[str, bytes] = {
    "nothing": b"",
    "html": b"<html>Welcome to nginx</html>",
    "half": b'[{"Key": "ns/k", "Val',
    "deep": b"[" * 100_000,
    "a number of 5,000 digits": b"9" * 5000,
    "a float beyond all": b"1e999",
    "infinity": b"Infinity",
    "utf-16": '"leader"'.encode("utf-16"),
    "no utf-8": b'"\xff\xfe"',
    "binary": bytes(range(256)),
    "null": b"null",
    "false": b"false",
    "an object": b"{}",
    "a list of a list": b"[[]]",
    "ssh": b"SSH-2.0-OpenSSH_9.6",
}
READS = ("get", "scan", "poll")
WRITES = ("commit", "create", "renew", "destroy")


def consul_answers() -> Mapping[str, tuple[str, int, bytes, Error]]:
    """Return answers of Consul by name: to which call, status, body, error."""
    found: dict[str, tuple[str, int, bytes, Error]] = {}
    for name, item in NO_ITEM.items():
        for call in READS:
            found[f"{call}: {name}"] = (call, 200, json.dumps([item]).encode(), UnavailableError)
        results = json.dumps({"Results": [{"KV": item}], "Errors": None}).encode()
        if "value" not in name and "session" not in name and "created" not in name:  # which a commit does not read
            found[f"commit: {name}"] = ("commit", 200, results, IndeterminateError)
    for name, body in NONSENSE.items():
        for call in READS:
            found[f"{call}: {name}"] = (call, 200, body, UnavailableError)
        for call in WRITES:
            found[f"{call}: {name}"] = (call, 200, body, IndeterminateError)
    return found | OTHER_CONSUL


OTHER_CONSUL: dict[str, tuple[str, int, bytes, Error]] = {
    "a redirect of a read": ("get", 301, b"", UnavailableError),
    "a redirect of a write": ("commit", 307, b"", IndeterminateError),
    "an empty list": ("scan", 200, b"[]", UnavailableError),
    "a ttl that is none": ("renew", 200, b'[{"ID": "abc", "TTL": "soon"}]', IndeterminateError),
    "a ttl that is a number": ("renew", 200, b'[{"ID": "abc", "TTL": 15}]', IndeterminateError),
    "a session without id": ("create", 200, b'{"ID": ""}', IndeterminateError),
    "a session whose id is a number": ("create", 200, b'{"ID": 7}', IndeterminateError),
    "destroyed: false": ("destroy", 200, b"false", IndeterminateError),
    "destroyed: 1": ("destroy", 200, b"1", IndeterminateError),
    "results of another key": (
        "commit",
        200,
        b'{"Results": [{"KV": {"Key": "x", "ModifyIndex": 1}}]}',
        IndeterminateError,
    ),
    "results that are text": ("commit", 200, b'{"Results": "ns/k"}', IndeterminateError),
    "no results": ("commit", 200, b'{"Errors": null}', IndeterminateError),
    "a conflict": ("commit", 409, b'{"Errors": [{"What": "key exists"}]}', ConflictError),
    "a conflict without words": ("commit", 409, b'{"Errors": [{}]}', IndeterminateError),
    "a conflict that is html": ("commit", 409, b"<html>", IndeterminateError),
    "an invalid session": ("commit", 409, b'{"Errors": [{"What": "invalid session"}]}', LeaseExpiredError),
    "denied": ("get", 403, b"Permission denied", DeniedError),
    "denied in escapes": ("get", 403, b"\x1b[2J\x1b[31mPermission denied", DeniedError),
    "too large": ("commit", 413, b"", LimitError),
    "no leader": ("get", 500, b"No cluster leader", UnavailableError),
    "an error of a write that proves nothing": ("commit", 500, b"leadership lost", IndeterminateError),
    "enterprise": ("get", 400, b"Namespaces are a Consul Enterprise feature", ConfigError),
    "leader a number": ("leader", 200, b"7", UnavailableError),
    "leader a list": ("leader", 200, b'["10.0.0.1:8300"]', UnavailableError),
    "self without config": ("self", 200, b"{}", UnavailableError),
    "self a list": ("self", 200, b"[]", UnavailableError),
    "self whose config is text": ("self", 200, b'{"Config": "x"}', UnavailableError),
    "info an object": ("info", 200, b"{}", UnavailableError),
    "info without ttl": ("info", 200, b'[{"ID": "abc"}]', UnavailableError),
    "info whose ttl is null": ("info", 200, b'[{"TTL": null}]', UnavailableError),
}

HEAD = '"header":{"revision":"7","member_id":"1"}'
ETCD: dict[str, tuple[str, int, bytes]] = {
    **{f"{call}: {name}": (call, 200, body) for name, body in NONSENSE.items() for call in ("get", "put", "watch")},
    "no header": ("put", 200, b"{}"),
    "a header that is text": ("put", 200, b'{"header": "7"}'),
    "a header without revision": ("put", 200, b'{"header": {}}'),
    "revision text": ("put", 200, b'{"header": {"revision": "high"}}'),
    "revision null": ("put", 200, b'{"header": {"revision": null}}'),
    "revision a list": ("put", 200, b'{"header": {"revision": [7]}}'),
    "revision beyond all": ("put", 200, b'{"header": {"revision": 1e999}}'),
    "revision NaN": ("put", 200, b'{"header": {"revision": NaN}}'),
    "revision of 5,000 digits": ("put", 200, b'{"header": {"revision": "' + b"9" * 5000 + b'"}}'),
    "result that is a list": ("watch", 200, b'{"result": []}'),
    "result that is null": ("watch", 200, b'{"result": null}'),
    "html with 502": ("put", 502, b"<html>Bad Gateway</html>"),
    "a redirect": ("get", 301, b""),
    "an error that is a list": ("put", 200, b'{"error": [1]}'),
    "an error without words": ("put", 500, b'{"error": {}}'),
    "an error whose code is text": ("put", 500, b'{"error": {"code": "7", "message": "permission denied"}}'),
    **{
        f"kvs: {name}": ("range", 200, f'{{{HEAD},"kvs":{kvs}}}'.encode())
        for name, kvs in {
            "text": '"abc"',
            "null": "null",
            "a number": "7",
            "of text": '["abc"]',
            "of null": "[null]",
            "without key": '[{"create_revision":"1","mod_revision":"1"}]',
            "key a number": '[{"key":7,"create_revision":"1","mod_revision":"1"}]',
            "key null": '[{"key":null,"create_revision":"1","mod_revision":"1"}]',
            "key half of base64": '[{"key":"YWF","create_revision":"1","mod_revision":"1"}]',
            "key no base64": '[{"key":"é","create_revision":"1","mod_revision":"1"}]',
            "value a list": '[{"key":"YQ==","value":[],"create_revision":"1","mod_revision":"1"}]',
            "without revisions": '[{"key":"YQ=="}]',
            "created beyond all": '[{"key":"YQ==","create_revision":1e999,"mod_revision":"1"}]',
            "modified text": '[{"key":"YQ==","create_revision":"1","mod_revision":"x"}]',
            "lease text": '[{"key":"YQ==","create_revision":"1","mod_revision":"1","lease":"x"}]',
            "lease null": '[{"key":"YQ==","create_revision":"1","mod_revision":"1","lease":null}]',
            "lease beyond all": '[{"key":"YQ==","create_revision":"1","mod_revision":"1","lease":-1e999}]',
        }.items()
    },
    **{
        f"events: {name}": ("watch", 200, f'{{"result":{{{HEAD},"events":{events}}}}}'.encode())
        for name, events in {
            "text": '"abc"',
            "null": "null",
            "of null": "[null]",
            "without kv": '[{"type":"DELETE"}]',
            "kv text": '[{"kv":"a"}]',
            "kv without revision": '[{"kv":{"key":"YQ=="}}]',
            "a delete without revision": '[{"type":"DELETE","kv":{"key":"YQ=="}}]',
            "a delete at infinity": '[{"type":"DELETE","kv":{"key":"YQ==","mod_revision":1e999}}]',
        }.items()
    },
    "compacted at infinity": ("watch", 200, f'{{"result":{{{HEAD},"compact_revision":1e999}}}}'.encode()),
    "compacted at text": ("watch", 200, f'{{"result":{{{HEAD},"compact_revision":"x"}}}}'.encode()),
    "a txn without responses": ("txn_and_range", 200, f'{{{HEAD},"succeeded":true}}'.encode()),
    "a txn with no response": ("txn_and_range", 200, f'{{{HEAD},"succeeded":true,"responses":[]}}'.encode()),
    "a txn with another": ("txn_and_range", 200, f'{{{HEAD},"succeeded":true,"responses":[{{}}]}}'.encode()),
    "a ttl that is text": ("grant", 200, f'{{{HEAD},"TTL":"x"}}'.encode()),
    "a ttl beyond all": ("grant", 200, f'{{{HEAD},"TTL":1e999}}'.encode()),
    "a lease without grant": ("lease", 200, f'{{{HEAD},"TTL":"5"}}'.encode()),
    "a status without version": ("status", 200, f'{{{HEAD},"leader":"1"}}'.encode()),
    "a status whose errors are numbers": (
        "status",
        200,
        f'{{{HEAD},"leader":"1","version":"3","errors":[1]}}'.encode(),
    ),
    "a status whose version is a number": ("status", 200, f'{{{HEAD},"leader":"1","version":3}}'.encode()),
}
"""Answers of etcd's gateway by name: to which call, status, body. None of them proves anything."""
