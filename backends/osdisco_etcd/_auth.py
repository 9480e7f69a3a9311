"""The token: fetched when first needed, and anew when the server no longer takes it, once for all who wait."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

from osdisco.errors import ConfigError, OsdiscoError, UnavailableError
from osdisco.runtime import CredentialProvider, Credentials, Secret

Login = Callable[[str, Secret], Awaitable[object]]
"""Sends user and password; gives back what requests carry from then on."""


class Auth:
    """What requests carry: nothing special without credentials, a token with them.

    `carried` is what the next request takes along, None until the first login. It is opaque here, because a token has
    another form in each transport; it has no repr that shows it.
    """

    __slots__ = ("_flight", "_login", "_provider", "carried")

    def __init__(self, provider: CredentialProvider | None, login: Login, anonymous: object) -> None:
        self._provider = provider
        self._login = login
        self._flight: asyncio.Future[object] | None = None
        self.carried: object | None = anonymous if provider is None else None

    @property
    def renewable(self) -> bool:
        """Whether there is something to log in with."""
        return self._provider is not None

    @property
    def logged_in(self) -> bool:
        """Whether the server took user and password."""
        return self.renewable and self.carried is not None

    async def renew(self, stale: object | None, timeout: float) -> object:
        """Log in, unless somebody has since `stale` was read; callers at the same time share one login.

        Raises:
            DeniedError: the server refuses user or password.
            UnavailableError: no answer within `timeout` seconds; the request itself was not sent.
        """
        if self.carried is not None and self.carried is not stale:
            return self.carried
        if self._flight is None:
            self._flight = asyncio.ensure_future(self._fly())
            self._flight.add_done_callback(self._landed)
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(self._flight)
        except TimeoutError as exc:
            raise UnavailableError(f"etcd did not answer the login within {timeout:.3g} s; not applied") from exc

    async def _fly(self) -> object:
        assert self._provider is not None
        credentials = await _ask(self._provider)
        if not (isinstance(credentials, Credentials) and credentials.username and credentials.password):
            raise ConfigError("the credentials for etcd hold no user or no password; both are needed")
        self.carried = await self._login(credentials.username, credentials.password)
        return self.carried

    def _landed(self, flight: asyncio.Future[object]) -> None:
        self._flight = None
        if not flight.cancelled():
            flight.exception()  # seen, also when everybody who waited for it was cancelled

    async def aclose(self) -> None:
        """Cut a login that is under way."""
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.wait((self._flight,))


async def _ask(provider: CredentialProvider) -> Credentials:
    try:
        given = provider()
        return await given if inspect.isawaitable(given) else given
    except OsdiscoError:
        raise
    except Exception as exc:  # the caller's own code, which may ask a vault that is down; its message may hold secrets
        raise UnavailableError(f"the function for credentials failed with {type(exc).__name__}; not applied") from None
