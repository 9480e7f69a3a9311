"""How the calls to a canary went, asked of a Prometheus."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.util import find_spec
from math import isfinite
from typing import Any, Final

from osdisco.errors import ConfigError, UnavailableError
from osdisco.mesh._canary import Sample

ANSWER_MAX: Final = 1 << 20
"""Bytes of an answer that are read."""

_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "'": "\\'", "`": "\\x60", "\n": "\\n"})


_NAMES: Final = re.compile(r"\$(service|subset|window)\b")


class PrometheusFigures:
    """CanaryMetrics by queries in PromQL, each of which gives one number.

    In a query `$service`, `$subset` and `$window` (as `60s`) are filled in; names are escaped for a text in quotes.

    Args:
        url: of the server, such as `http://prometheus:9090`.
        calls: how many calls there were in the window.
        success_rate: per cent of them that did not fail.
        p99: seconds within which 99 % were answered; None when the canary's plan does not look at that.
        headers: sent with each query, such as Authorization.

    Raises:
        ConfigError: a URL that is none of http or https, a query that is no text, or aiohttp is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        calls: str,
        success_rate: str,
        p99: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if find_spec("aiohttp") is None:
            raise ConfigError("PrometheusFigures needs aiohttp: pip install 'osdisco[mesh]'")
        if not isinstance(url, str) or not url.startswith(("http://", "https://")):
            raise ConfigError("the URL of a Prometheus begins with http:// or https://")
        queries = {"calls": calls, "success_rate": success_rate, "p99": p99 or ""}
        for name, query in queries.items():
            if not isinstance(query, str):
                raise ConfigError(f"{name} is a query in PromQL, as text, not {type(query).__name__}")
        self._url = f"{url.rstrip('/')}/api/v1/query"
        self._shown = _without_user(self._url)
        self._calls = calls
        self._success_rate = success_rate
        self._p99 = p99
        self._headers = dict(headers or {})

    async def sample(self, service: str, subset: str, window: float) -> Sample | None:
        """Return how calls went in the last `window` seconds; None when it knows nothing of them.

        Raises:
            UnavailableError: it could not be asked, or its answer is none.
        """
        import aiohttp

        filled = {"service": service.translate(_ESCAPES), "subset": subset.translate(_ESCAPES)}
        filled["window"] = f"{window:.0f}s"
        try:
            async with aiohttp.ClientSession(headers=self._headers, trust_env=False) as session:
                calls = await self._number(session, self._calls, filled)
                rate = await self._number(session, self._success_rate, filled)
                p99 = None if self._p99 is None else await self._number(session, self._p99, filled)
        except (aiohttp.ClientError, OSError, ValueError, LookupError, TypeError) as exc:
            raise UnavailableError(f"no figures from {self._shown}: {type(exc).__name__}") from None  # which has it all
        return None if calls is None or rate is None else Sample(round(calls), rate, p99)

    async def _number(self, session: Any, query: str, filled: Mapping[str, str]) -> float | None:
        query = _NAMES.sub(lambda found: filled[found[1]], query)
        async with session.get(self._url, params={"query": query}, allow_redirects=False) as response:
            answer = json.loads(await _read(response.content))
        if answer["status"] != "success":
            raise ValueError(answer.get("errorType"))
        return _value(answer["data"])


def _without_user(url: str) -> str:
    """Return a URL as it may be shown: who asks, and the password, are left out."""
    scheme, _, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    return f"{scheme}://{place.rpartition('@')[2]}{slash}{path.partition('?')[0]}"


async def _read(content: Any) -> bytes:
    """Read an answer. Raises ValueError when it is too long."""
    data = bytearray()
    async for chunk in content.iter_any():
        data += chunk
        if len(data) > ANSWER_MAX:
            raise ValueError("too long an answer")
    return bytes(data)


def _value(data: Mapping[str, Any]) -> float | None:
    """Return the number of a vector of one, or of a scalar. Raises ValueError for more than one."""
    result = data["result"]
    if data["resultType"] == "vector":
        if len(result) > 1:
            raise ValueError("more than one number")
        if not result:
            return None
        result = result[0]["value"]
    number = float(result[1])
    return number if isfinite(number) else None
