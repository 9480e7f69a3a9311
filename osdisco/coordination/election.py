"""The election: candidates under `election/<name>/`, of which at most one leads.

Exclusion rests on the store alone: `leader` is made only where it is missing. Who is next is a matter of priority and
order, and priority never unseats a living leader. Effects outside the store are safe only if the resource refuses older
tokens (`Fence`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from osdisco._connection import backoff
from osdisco._epoch import EPOCH_MAX
from osdisco._records import encode_readable
from osdisco.client import Client
from osdisco.coordination._acquire import Acquisition
from osdisco.coordination._board import Board, Candidacy, Leader, Leadership
from osdisco.coordination._calls import checked_info, checked_timeout, within
from osdisco.coordination._candidate import Candidate, Sight
from osdisco.coordination._ears import Ear, Listener
from osdisco.coordination._observation import Observation
from osdisco.coordination._term import Term
from osdisco.errors import (
    ConfigError,
    IndeterminateError,
    LostError,
    UnavailableError,
)
from osdisco.names import escape
from osdisco.session import Session


class LeaderElection:
    """A candidate in an election by name. Every `campaign` gives a fresh term; `participate` leads again and again."""

    def __init__(
        self,
        client: Client,
        session: Session | None,
        name: str,
        *,
        candidate_id: str | None,
        priority: int,
        info: Mapping[str, Any],
    ) -> None:
        self.name: Final = name
        self.candidate_id: Final = client.runtime.name if candidate_id is None else candidate_id
        self._client = client
        self._session = session
        self._board = Board(client._keys, name)
        self._record = _checked(Candidacy(self.candidate_id, priority, client.runtime.name, checked_info(info)))
        self._ears: dict[object, Ear] = {}
        self._term: Term | None = None

    def __repr__(self) -> str:
        return f"<LeaderElection {self.name!a}: {self.candidate_id!a}{' leads' if self.is_leader else ''}>"

    @property
    def is_leader(self) -> bool:
        """Whether we lead, and the deadline of our session has not passed. No I/O."""
        return self.term is not None

    @property
    def term(self) -> Term | None:
        """The term that we lead; None while we do not. No I/O."""
        return self._term if self._term is not None and self._term.leading else None

    def add_listener(self, listener: Listener) -> Callable[[], None]:
        """Tell `listener` whenever we begin or cease to lead, and now if we do; returns a function that removes it.

        Raises:
            ConfigError: it has none of the methods of LeadershipListener and cannot be called.
        """
        token, ear = object(), Ear(self._client._connection.finishing, listener)
        self._ears[token] = ear
        ear.tell(self.term)

        def remove() -> None:
            ear.close()
            self._ears.pop(token, None)

        return remove

    def campaign(self, timeout: float | None = None) -> Acquisition[Term]:
        """Stand until we lead, for one term; await it, or enter it with `async with`.

        Raises:
            TimedOutError: not elected within `timeout` seconds.
            ConfigError: a timeout that is not above zero.
            LostError: the session was lost while waiting.
            UnavailableError: the store could not be reached to begin with. Later outages are waited out.
        """
        timeout = checked_timeout(timeout)
        return Acquisition(lambda: self._campaign(timeout))

    async def _campaign(self, timeout: float | None) -> Term:
        async with within(timeout, f"{self.candidate_id!a} was not elected {self.name!a}"):
            return await self._elected(self._session or await self._client.shared_session())

    async def _elected(self, session: Session) -> Term:
        sight, again = Sight(self._client, self._board), 0
        try:
            while True:
                candidate = Candidate(self._client, self._board, session, self._record)
                try:
                    if (tenure := await candidate.elect(sight)) is not None:
                        self._term = Term(self._client, self._board, tenure, self._turn)
                        self._turn()
                        return self._term
                except BaseException:
                    candidate.withdraw()  # without an await: a second cancel cannot interrupt it
                    raise
                candidate.withdraw()
                await asyncio.sleep(backoff(self._client.runtime, again))  # somebody removed its entry: stand again
                again += 1
        finally:
            await sight.aclose()

    def _turn(self) -> None:
        """Whether we lead may have changed."""
        for ear in list(self._ears.values()):
            ear.tell(self.term)

    async def participate(self) -> None:
        """Campaign, lead, and on loss campaign again, for ever; trouble of the store is waited out. Resigns at the end.

        Raises:
            LostError: the session of one's own was lost.
            ClosedError: the client was closed.
            DeniedError: the store no longer lets us look, or lead.
        """
        failures = 0
        while True:
            try:
                async with self.campaign() as term:
                    failures = 0
                    await term.over.wait()
            except (LostError, UnavailableError, IndeterminateError):
                if self._session is not None:
                    self._session.check()
            await asyncio.sleep(backoff(self._client.runtime, failures))
            failures += 1

    async def resign(self) -> None:
        """Give up the leadership that we have; who participates then stands again, behind the others.

        Raises:
            LostError: we do not lead.
            IndeterminateError: see `Term.resign`.
        """
        term = self._term
        if term is None or (term.over.is_set() and not term.lost.is_set()):
            raise LostError(f"{self.candidate_id!a} does not lead {self.name!a}: it was not elected, or gave it up")
        await term.resign()

    async def leader(self) -> Leader | None:
        """Return who leads. Linearizable."""
        return self._board.shown((await self._client._connection.scan(self._board.prefix)).items)

    def observe(self) -> Observation:
        """Return `async with` around an iterator of Leader | None: the present one first, then every other."""
        return Observation(self._client, self._board)


def _checked(record: Candidacy) -> Candidacy:
    """Refuse now what could not be written, or not be read, when it comes to that."""
    escape(record.id)
    if not isinstance(record.priority, int) or isinstance(record.priority, bool):
        raise ConfigError(f"a priority is an integer, not {type(record.priority).__name__}")
    longest = Leadership("0" * 32, record.id, 1700000000.1234567, EPOCH_MAX, record.info)
    for written in (record, longest):
        encode_readable(written)
    return record
