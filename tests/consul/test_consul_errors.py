"""The error tables: what an answer or a failure of the transport proves."""

from __future__ import annotations

import json

import aiohttp
import pytest

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
from osdisco_consul._errors import CutOffError, UnknownServiceError, failure, go_seconds, refusal, ttl_range

TTL_REFUSED = "Invalid Session TTL '5000000000', must be between [10s=24h0m0s]"


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, "Bad request: Invalid query parameter: Namespaces are a Consul Enterprise feature", ConfigError),
        (400, 'Failed to parse body: json: unknown field "Partition"', ConfigError),
        (400, "Client sent an HTTP request to an HTTPS server.", UnavailableError),
        (400, "Bad request", UnavailableError),
        (401, "ACL support disabled", DeniedError),
        (403, "Permission denied", DeniedError),
        (403, "ACL not found", DeniedError),
        (404, "Session id '1' not found", LeaseExpiredError),
        (404, "unknown service ID: search:geo-1", UnknownServiceError),
        (404, 'Unknown service ID "search:geo-1". Ensure that the service ID is passed.', UnknownServiceError),
        (404, 'Unknown check ID "osdisco:search:geo-1:status".', UnknownServiceError),
        (500, 'CheckID "osdisco:search:geo-1:status" does not have associated TTL', UnknownServiceError),
        (413, "Request body(800052 bytes) too large", LimitError),
        (429, "Your IP is issuing too many concurrent connections", UnavailableError),
        (500, TTL_REFUSED, LimitError),
        (500, "Missing node registration", UnavailableError),
        (500, "No cluster leader", UnavailableError),
        (500, "rpc error making call: No cluster leader", UnavailableError),
        (500, "rpc error making call: Permission denied", DeniedError),
        (503, "rate limit exceeded", UnavailableError),
    ],
)
@pytest.mark.parametrize("write", [False, True])
def test_an_answer_that_proves_that_nothing_was_applied(
    status: int, body: str, error: type[OsdiscoError], write: bool
) -> None:
    found = refusal("PUT /v1/txn on h:8500", status, body.encode(), write=write)
    assert type(found) is error
    assert "h:8500" in str(found)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, "leadership lost while committing log"),
        (500, "rpc error making call: EOF"),
        (502, "<html>Bad Gateway</html>"),
        (504, ""),
        (301, '<a href="/v1/agent/leave">Moved Permanently</a>'),
        (302, ""),
        (307, ""),
        (404, "404 page not found"),
        (405, "method not allowed"),
        (409, "<html>Conflict</html>"),
        (409, '{"Errors": null}'),
        (409, '{"Errors": [{"OpIndex": 0}]}'),
        (409, "[" * 100_000),
        (204, ""),
        (418, "teapot"),
    ],
)
def test_an_answer_that_proves_nothing_leaves_a_write_unknown(status: int, body: str) -> None:
    assert type(refusal("GET x on h", status, body.encode(), write=False)) is UnavailableError
    assert type(refusal("PUT x on h", status, body.encode(), write=True)) is IndeterminateError


@pytest.mark.parametrize(
    ("errors", "error"),
    [
        (['key "x/a" exists'], ConflictError),
        (['failed index check for key "x/a", current modify index 8 != 3'], ConflictError),
        (['failed session check for key "x/a", current session "" != "abc"'], ConflictError),
        (['invalid session "abc"'], LeaseExpiredError),
        (["key is locked due to lock delay"], ConflictError),
        (["Permission denied"], DeniedError),
        # every error counts, not only the first: the guard fails because the lease is gone
        (['failed to check session, key "k" doesn\'t exist', 'invalid session "abc"'], LeaseExpiredError),
        (['key "x/a" exists', 'invalid session "abc"', "Permission denied"], DeniedError),
    ],
)
def test_a_refused_transaction_is_told_by_all_of_its_errors(errors: list[str], error: type[OsdiscoError]) -> None:
    body = json.dumps({"Results": None, "Errors": [{"OpIndex": n, "What": what} for n, what in enumerate(errors)]})
    assert type(refusal("PUT /v1/txn on h", 409, body.encode(), write=True)) is error


@pytest.mark.parametrize(
    "exc",
    [
        aiohttp.ServerDisconnectedError(),
        aiohttp.ClientPayloadError("half"),
        CutOffError("reset"),
        TimeoutError(),
        aiohttp.SocketTimeoutError(),
        ConnectionResetError(),
    ],
)
def test_a_failure_after_sending_leaves_a_write_unknown(exc: Exception) -> None:
    assert type(failure("GET x on h", exc, write=False)) is UnavailableError
    assert type(failure("PUT x on h", exc, write=True)) is IndeterminateError


@pytest.mark.parametrize("exc", [aiohttp.ConnectionTimeoutError(), aiohttp.InvalidURL("http://1.2:8500")])
def test_a_failure_to_connect_proves_that_nothing_was_sent(exc: Exception) -> None:
    assert type(failure("PUT x on h", exc, write=True)) is UnavailableError


def test_what_an_html_page_says_is_quoted_short_and_escaped() -> None:
    text = str(refusal("GET x on h", 404, b"<html>\x1b[31m" + b"a" * 5000, write=False))
    assert "\x1b" not in text
    assert len(text) < 300


@pytest.mark.parametrize(
    ("text", "seconds"), [("10s", 10.0), ("24h0m0s", 86400.0), ("1m30s", 90.0), ("1.5s", 1.5), ("500ms", 0.5), ("", 0)]
)
def test_go_durations(text: str, seconds: float) -> None:
    assert go_seconds(text) == seconds


def test_the_ttl_limits_are_read_from_a_refusal() -> None:
    refused = refusal("PUT s on h", 500, TTL_REFUSED.encode(), write=True)
    assert isinstance(refused, LimitError)
    assert ttl_range(refused) == (10.0, 86400.0)
    assert ttl_range(LimitError("too large")) is None
