"""The ACL token: where it comes from, how it is renewed, and that nothing shows it. It travels as a header only."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Mapping
from pathlib import Path

from osdisco.errors import OsdiscoError, UnavailableError
from osdisco.runtime import Runtime, Secret
from osdisco_consul._options import TOKEN_VARIABLE, read_token

HEADER = "X-Consul-Token"
Headers = Mapping[str, str]


class _Hidden(str):
    """A header's value that goes onto the wire, but not into a repr: those of aiohttp's errors show the headers."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class Tokens:
    """The headers of every request. The token is from the runtime's credentials, else a file, else the environment."""

    def __init__(self, runtime: Runtime, file: Path | None) -> None:
        self.headers: Headers | None = None
        """None until `fetch`. Each new token makes a new mapping, so identity tells whether it was renewed."""
        self._provider = runtime.credentials
        self._file = file
        self._environment = read_token(os.environ.get(TOKEN_VARIABLE, ""), TOKEN_VARIABLE)
        self._lock = asyncio.Lock()

    async def fetch(self, refused: Headers | None, timeout: float) -> Headers | None:
        """Return headers other than those that were `refused`, or None when the source has no other token.

        Raises:
            UnavailableError: the source did not answer within `timeout` seconds, or failed.
        """
        try:
            async with asyncio.timeout(timeout), self._lock:
                if self.headers is refused:  # else somebody else has renewed it meanwhile
                    found = _headers(await self._ask())
                    if found == refused:
                        return None
                    self.headers = found
                return self.headers
        except TimeoutError as exc:
            raise UnavailableError(f"no token within {timeout:.3g} s: its source did not answer") from exc

    async def _ask(self) -> Secret | None:
        try:
            if self._provider is not None:
                given = self._provider()
                token = (await given if inspect.isawaitable(given) else given).token
                return read_token(token.reveal(), "credentials") if token else None
            return read_token(self._file.read_text(), str(self._file)) if self._file else self._environment
        except (OsdiscoError, TimeoutError):
            raise
        except Exception as exc:  # the message of somebody else's error could hold the secret
            source = "credentials callable" if self._provider else f"token file {self._file}"
            raise UnavailableError(f"the {source} failed with {type(exc).__name__}") from None


def _headers(token: Secret | None) -> Headers:
    return {HEADER: _Hidden(token.reveal())} if token else {}
