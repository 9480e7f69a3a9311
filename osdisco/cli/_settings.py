"""What holds for all commands: `--url`, `--json` and `-v`, taken before and after the command's name."""

from __future__ import annotations

import logging
from typing import Any

import click


class Settings:
    """The global options of one run."""

    def __init__(self) -> None:
        self.url: str | None = None
        self.json = False
        self.verbose = 0

    def set_up_logging(self) -> None:
        """Send logs to stderr: errors, with -v what the library does, with -vv all of it."""
        level = (logging.ERROR, logging.INFO, logging.DEBUG)[min(self.verbose, 2)]
        logging.basicConfig(level=level, format="%(asctime)s %(name)s %(levelname)s %(message)s", force=True)


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value and param.name and not ctx.resilient_parsing:
        setattr(ctx.find_root().ensure_object(Settings), param.name, value)


def common_options() -> list[click.Parameter]:
    """Return the global options, fresh for one command."""
    return [
        click.Option(["--url"], metavar="URL", expose_value=False, callback=_keep, help="The store; else OSDISCO_URL."),
        click.Option(["--json"], is_flag=True, expose_value=False, callback=_keep, help="One JSON document a line."),
        click.Option(
            ["-v", "--verbose"],
            count=True,
            expose_value=False,
            callback=_keep,
            help="Show logs and tracebacks; -vv: all.",
        ),
    ]


class Command(click.Command):
    """A command that takes the global options, too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += common_options()

    def invoke(self, ctx: click.Context) -> Any:
        """Run it, with logs as the options want them."""
        ctx.find_root().ensure_object(Settings).set_up_logging()
        return super().invoke(ctx)


class Group(click.Group):
    """A group of such commands. Alone it shows its help, as a mistake of usage."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["no_args_is_help"] = False
        super().__init__(*args, **kwargs)
        self.params += common_options()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, or show the help when there is nothing to parse."""
        if not args and not ctx.resilient_parsing:
            click.echo(self.get_help(ctx), err=True)
            ctx.exit(2)
        return super().parse_args(ctx, args)


class CommandBehindDashes(Command):
    """A command that runs another one, which stands behind `--` and is given to it as `command`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse what stands before the dashes."""
        own = args[: args.index("--")] if "--" in args else args
        ctx.params["command"] = tuple(args[len(own) + 1 :])
        if len(own) == len(args) - 1:
            raise click.UsageError("there is no command behind '--'", ctx)
        return super().parse_args(ctx, own)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Say in the usage that it can be there."""
        return [*super().collect_usage_pieces(ctx), "[-- CMD…]"]
