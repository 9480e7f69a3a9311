"""`osdisco elect`: lead, run a command while leading, or follow who leads."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import click

from osdisco._records import parse
from osdisco.cli._arguments import timeout_option
from osdisco.cli._errors import Exit
from osdisco.cli._hold import Job, held_for, job_options
from osdisco.cli._output import at_terminal, document, fields, line, note, talking
from osdisco.cli._running import Interrupts, run_with_client
from osdisco.cli._settings import CommandBehindDashes, Settings
from osdisco.cli._text import info_text
from osdisco.cli._things import leader_document, named
from osdisco.client import Client
from osdisco.coordination import CoordinationService, Leader, LeaderElection, Term
from osdisco.errors import RecordError


@click.command(cls=CommandBehindDashes)
@click.argument("name")
@click.argument("value", required=False)
@click.option("-l", "--listen", is_flag=True, help="Follow who leads, the present leader first.")
@click.option("--id", "candidate_id", metavar="ID", help="Whom others see lead; else host:pid.")
@click.option("--priority", type=int, metavar="N", help="The highest one leads next; else 0.")
@timeout_option("to be elected")
@job_options
@click.pass_obj
def elect(
    settings: Settings,
    /,
    name: str,
    value: str | None,
    command: tuple[str, ...],
    listen: bool,
    candidate_id: str | None,
    priority: int | None,
    timeout: float | None,
    **how: Any,
) -> None:
    """Lead NAME until interrupted, or while a command runs: osdisco elect NAME [VALUE] -- CMD…

    VALUE is what others see of the leader: text, or a JSON object. The fencing token of the term is printed once it
    leads. CMD finds it as OSDISCO_FENCE in its environment, with OSDISCO_ELECTION_NAME and OSDISCO_CANDIDATE_ID.
    Signals are passed on. When the leadership is lost CMD is ended, with SIGTERM and then SIGKILL.

    With -l: a line for each change of the leader, until interrupted; '-' while nobody leads.

    The exit code is CMD's own; 124 when not elected in time, 125 on trouble with the store or when the leadership was
    lost. Without CMD: 4 and 5, or 1 when it was lost.
    """
    job = Job(command, **how)
    if listen:
        if job or any(given is not None for given in (value, candidate_id, priority, timeout)):
            raise click.UsageError("-l only follows: it takes NAME alone")
        run_with_client(settings, lambda client, _: _follow(client, name, settings))
        return
    info = _info(value)

    async def work(client: Client, interrupts: Interrupts) -> int:
        election = CoordinationService(client).election(
            name, candidate_id=candidate_id, priority=priority or 0, info=info
        )
        await _say_who_leads(election)
        async with await election.campaign(timeout) as term:
            return await (job.run(_environment(election, term), interrupts) if job else _lead(election, term, settings))

    with held_for(job, f"the leadership of {name!a}"):
        code = run_with_client(settings, work)
    click.get_current_context().exit(code)


def _info(value: str | None) -> Mapping[str, Any]:
    if value is None or not value.startswith("{"):
        return {} if value is None else {"value": value}
    try:
        info: Mapping[str, Any] = parse(value.encode(errors="surrogateescape"))
    except RecordError as exc:
        raise click.UsageError(f"VALUE begins with '{{' and is no JSON object: {exc}") from None
    return info


async def _say_who_leads(election: LeaderElection) -> None:
    if talking() and (leader := await election.leader()) is not None:
        note(f"waiting to lead {election.name!a}: {named(leader)} does, with token {leader.token}")


async def _lead(election: LeaderElection, term: Term, settings: Settings) -> int:
    if settings.json:
        about = {"election": election.name, "id": election.candidate_id, "token": term.token}
        document({"event": "elected"} | about)
    else:
        line(str(term.token))
        note(f"{election.candidate_id} leads {election.name!a} with the token above, until you press Ctrl-C")
    await asyncio.Event().wait()
    return Exit.DONE


def _environment(election: LeaderElection, term: Term) -> Mapping[str, str]:
    return {
        "OSDISCO_ELECTION_NAME": election.name,
        "OSDISCO_CANDIDATE_ID": election.candidate_id,
        "OSDISCO_FENCE": str(term.token),
    }


async def _follow(client: Client, name: str, settings: Settings) -> None:
    election = CoordinationService(client).election(name)
    await election.leader()  # says when the store cannot be reached; the observation alone would wait for it
    note(f"following who leads {name!a} in {client.url}; Ctrl-C ends")
    async with election.observe() as leaders:
        async for leader in leaders:
            _tell(name, leader, client.runtime.clock.wall(), settings)


def _tell(name: str, leader: Leader | None, when: float, settings: Settings) -> None:
    if settings.json:
        document({"election": name, "leader": leader and leader_document(leader)})
    elif not at_terminal():
        fields(*(("-", "-", "-") if leader is None else (named(leader), str(leader.token), info_text(leader.info))))
    else:
        said = "nobody leads" if leader is None else f"{named(leader)} leads, with token {leader.token}"
        about = f": {info_text(leader.info)}" if leader and leader.info else ""
        line(f"{datetime.fromtimestamp(when).astimezone():%H:%M:%S}  {said}{about}")
