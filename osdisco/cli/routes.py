"""`osdisco routes`: rules for the traffic of services, and canaries."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import click

from osdisco.cli._arguments import Duration
from osdisco.cli._errors import FailedError, NotFoundError
from osdisco.cli._files import Described, read, read_stdin
from osdisco.cli._output import at_terminal, document, fields, line, note, table, warn
from osdisco.cli._running import Interrupts, run_with_client
from osdisco.cli._settings import Group, Settings
from osdisco.client import Client
from osdisco.errors import RulesError
from osdisco.mesh._canary import CanaryPhase, CanaryPlan
from osdisco.mesh._documents import plain
from osdisco.mesh._rules_record import RulesVersion
from osdisco.mesh.canary import CanaryController
from osdisco.mesh.rules import ServiceRules
from osdisco.mesh.traffic_rules import TrafficRules

COLUMNS = ("version", "when", "by", "why")


@click.group(cls=Group)
def routes() -> None:
    """Show and change where the calls of a service go.

    Every change is a new version; 'rollback' returns to the one before it.
    """


@routes.command()
@click.argument("service", required=False)
@click.option("--method", metavar="M", help="Show where calls of this method would go.")
@click.option("--key", metavar="K", help="Show where calls with this key would go.")
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="Sent with the call; may be repeated.")
@click.pass_obj
def show(
    settings: Settings, /, service: str | None, method: str | None, key: str | None, headers: tuple[str, ...]
) -> None:
    """Show the rules of SERVICE, or a line for each service that has some.

    With --method, --key or --header: where such a call goes.
    """
    metadata = dict(_pair(header) for header in headers)
    asked = method is not None or key is not None or bool(metadata)
    if asked and service is None:
        raise click.UsageError("--method, --key and --header need a SERVICE")

    async def work(client: Client, _: Interrupts) -> None:
        if service is None:
            await _list(client, settings)
        elif asked:
            await _explain(client, settings, service, method or "", metadata, key)
        else:
            _print(settings, service, await _standing(client, service))

    run_with_client(settings, work)


def _pair(header: str) -> tuple[str, str]:
    name, sign, value = header.partition("=")
    if not sign or not name:
        raise click.UsageError(f"--header is NAME=VALUE, not {header!a}")
    return name, value


async def _standing(client: Client, service: str) -> RulesVersion:
    try:
        version = await TrafficRules(client).get(service)
    except RulesError as exc:
        why = f"{exc}; calls follow what was good last, and 'osdisco routes set' or 'rollback' replaces it"
        raise FailedError(f"what stands for {service!a} is no rules: {why}") from None
    if version is None:
        raise NotFoundError(
            f"no rules of {service!a}: its calls go to all its endpoints; 'osdisco routes set' sets some"
        )
    return version


async def _list(client: Client, settings: Settings) -> None:
    async with TrafficRules(client).view() as view:
        found = {service: view[service] for service in sorted(view)}
        for service, version in found.items():
            _warn_of_faults(service, version.rules)
        for service, why in sorted(view.problems.items()):
            warn(f"{service}: {why}")
    if settings.json:
        for service, version in found.items():
            document({"service": service, **plain(version)})
    else:
        table(("service", *COLUMNS), [(service, *_row(version)) for service, version in found.items()])


async def _explain(
    client: Client, settings: Settings, service: str, method: str, metadata: dict[str, str], key: str | None
) -> None:
    async with TrafficRules(client).view() as view:
        route = view.router.route(service, method, metadata, key)
    targets = [str(target) for target in route.targets]
    if settings.json:
        document({"service": service, "targets": targets, "reason": route.reason})
    else:
        line(f"{targets[0]}  ({route.reason})")
        for target in targets[1:]:
            line(f"else {target}")


def _warn_of_faults(service: str, rules: ServiceRules) -> None:
    """Say which calls fail or are late on purpose: it is for tests, and easily left on."""
    named = [(f"those of {match.name or f'match[{number}]'}", match.fault) for number, match in enumerate(rules.match)]
    for which, fault in (("its calls", rules.fault), *named):
        if fault is not None:
            late = [f"are {fault.delay:g} s late"] if fault.delay else []
            fail = [] if fault.status is None else [f"fail with {fault.status}"]
            warn(f"{service}: {fault.percent:g} % of {which} {' and '.join(late + fail)}, on purpose (fault)")


def _print(settings: Settings, service: str, version: RulesVersion) -> None:
    _warn_of_faults(service, version.rules)
    if settings.json:
        document({"service": service, **plain(version)})
        return
    if at_terminal():
        note("  ".join(_row(version)))
    sys.stdout.write(json.dumps(version.rules.document(), indent=2, ensure_ascii=False) + "\n")


def _row(version: RulesVersion) -> tuple[str, ...]:
    return str(version.version), _when(version.at), version.by or "-", version.why


def _when(at: float) -> str:
    """Return a time; `-` also for one that no calendar has, which somebody else has written."""
    try:
        return datetime.fromtimestamp(at).astimezone().isoformat(" ", "seconds") if at else "-"
    except (ValueError, OverflowError, OSError):
        return "-"


@routes.command(name="set")
@click.argument("service")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--expect", type=click.IntRange(min=0), metavar="VERSION", help="Only if this version stands; 0: if none."
)
@click.option("--check", is_flag=True, help="Only say whether the file could be set, without the store.")
@click.pass_obj
def set_(settings: Settings, /, service: str, file: Path, expect: int | None, check: bool) -> None:
    """Set the rules of SERVICE from FILE (.json, .toml, .yaml; '-': JSON from stdin), and print the version.

    Exit code 2 when the rules cannot be so, 4 when another version stands; nothing is written then.
    """
    rules = _rules_in(file)
    if check:
        note("the rules are fine")
        return
    _change(settings, service, lambda them: them.set(service, rules, expect=expect))


def _rules_in(file: Path) -> ServiceRules:
    described = read_stdin() if str(file) == "-" else read(file)
    try:
        return ServiceRules.parse(described.content)
    except RulesError as exc:
        _wrong(described, exc)


def _wrong(described: Described, exc: RulesError) -> NoReturn:
    """Raise ConfigError with the line of the field."""
    names = [name for name in exc.field.replace("[", ".").replace("]", "").replace("'", "").split(".") if name]
    described.wrong([int(name) if name.isdigit() else name for name in names], exc.message)


def _change(settings: Settings, service: str, change: Callable[[TrafficRules], Awaitable[RulesVersion]]) -> None:
    async def work(client: Client, _: Interrupts) -> None:
        _tell(settings, service, await change(TrafficRules(client)))

    run_with_client(settings, work)


def _tell(settings: Settings, service: str, version: RulesVersion) -> None:
    if settings.json:
        document({"service": service, **plain(version)})
    else:
        fields(str(version.version), version.why)


@routes.command()
@click.argument("service")
@click.argument("subset")
@click.option("--stable", metavar="SUBSET", help="Where all calls go now. Default: the default_subset.")
@click.option("--interval", type=Duration(), default="60s", show_default=True, help="Between checks.")
@click.option("--step", type=float, default=5.0, show_default=True, help="Per cent more at each good check.")
@click.option(
    "--max", "max_weight", type=float, default=50.0, show_default=True, help="Per cent that end in promotion."
)
@click.option("--success", type=float, default=99.0, show_default=True, help="Per cent that must succeed.")
@click.option(
    "--p99",
    type=Duration(zero=True),
    default="500ms",
    show_default=True,
    help="Within which 99 % are answered; 0: any.",
)
@click.option("--threshold", type=int, default=5, show_default=True, help="Failed checks that roll it back.")
@click.option("--min-calls", type=int, default=1, show_default=True, help="Calls that a check needs.")
@click.option("--hold", is_flag=True, help="Do not promote it by itself.")
@click.option("--run", "follow", is_flag=True, help="Control it from here, and wait until it is over.")
@click.pass_obj
def canary(
    settings: Settings,
    /,
    service: str,
    subset: str,
    stable: str | None,
    success: float,
    p99: float,
    follow: bool,
    **options: Any,
) -> None:
    """Move the calls of SERVICE to SUBSET, step by step, or back when they fail there.

    The leader of all processes that run a CanaryController does it; with --run this one takes part, also in a canary of
    SUBSET that is under way already. Then the exit code is 0 when it was promoted, and 1 when it ended otherwise.
    """

    async def work(client: Client, _: Interrupts) -> None:
        begun = await _standing(client, service)
        if not (follow and begun.canary and begun.canary.running and begun.canary.plan.canary == subset):
            from_ = stable or begun.rules.default_subset
            if from_ is None:
                raise click.UsageError(f"{service!a} has no default_subset: say with --stable where its calls go now")
            plan = CanaryPlan(from_, subset, success_rate=success, p99=p99 or None, **options)
            begun = await TrafficRules(client).canary(service, plan)
        _tell(settings, service, begun)
        if follow:
            await _follow(client, settings, service, begun)

    run_with_client(settings, work)


async def _follow(client: Client, settings: Settings, service: str, begun: RulesVersion) -> None:
    last = begun
    async with TrafficRules(client).view() as view, CanaryController(client):
        while last.canary is not None and last.canary.running:
            await view.until(partial(_differs, service, last.version))
            if service not in view:
                raise FailedError(f"the rules of {service!a} were removed")
            last = view[service]
            _tell(settings, service, last)
    if last.canary is None or last.previous != begun.previous:
        raise FailedError(f"others set the rules of {service!a} meanwhile; its canary is over")
    if last.canary.phase is not CanaryPhase.PROMOTED:
        raise FailedError(last.why)


def _differs(service: str, version: int, rules: Mapping[str, RulesVersion]) -> bool:
    return service not in rules or rules[service].version > version


@routes.command()
@click.argument("service")
@click.pass_obj
def promote(settings: Settings, /, service: str) -> None:
    """Give all calls of SERVICE to its canary, now."""
    _change(settings, service, lambda rules: rules.promote(service))


@routes.command()
@click.argument("service")
@click.option("--to", type=click.IntRange(min=1), metavar="VERSION", help="See 'history'. Default: the one before.")
@click.pass_obj
def rollback(settings: Settings, /, service: str, to: int | None) -> None:
    """Return SERVICE to the version before the one that stands; from a canary to its stable subset."""
    _change(settings, service, lambda rules: rules.rollback(service, to))


@routes.command(name="blue-green")
@click.argument("service")
@click.argument("subset")
@click.pass_obj
def blue_green(settings: Settings, /, service: str, subset: str) -> None:
    """Give all calls of SERVICE to SUBSET in one step; 'rollback' gives them back."""
    _change(settings, service, lambda rules: rules.blue_green(service, subset))


@routes.command()
@click.argument("service")
@click.pass_obj
def history(settings: Settings, /, service: str) -> None:
    """Show the versions of the rules of SERVICE that are kept, the newest first."""

    async def work(client: Client, _: Interrupts) -> None:
        kept = await TrafficRules(client).history(service)
        if not kept:
            raise NotFoundError(f"no rules of {service!a} were ever set, as far as is kept")
        if settings.json:
            for version in kept:
                document({"service": service, **plain(version)})
        else:
            table(COLUMNS, map(_row, kept))

    run_with_client(settings, work)


@routes.command()
@click.argument("service")
@click.pass_obj
def rm(settings: Settings, /, service: str) -> None:
    """Remove the rules of SERVICE: its calls go to all endpoints. 'rollback' brings them back."""

    async def work(client: Client, _: Interrupts) -> None:
        if not await TrafficRules(client).remove(service):
            raise NotFoundError(f"no rules of {service!a}; nothing was removed")
        if settings.json:
            document({"service": service, "removed": True})

    run_with_client(settings, work)
