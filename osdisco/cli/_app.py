"""The commands by name, each loaded when it is called, and the way out: every run ends in `App.main`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

import click

from osdisco._version import __version__
from osdisco.cli._errors import report
from osdisco.cli._settings import Group, Settings
from osdisco.errors import nearest

_COMMANDS: Final = {
    "barrier": "Let everybody wait, wait, or let everybody pass.",
    "cluster": "Show the search cluster, who mirrors it, and mirror it.",
    "counter": "Show a counter, or add to it.",
    "demo": "Watch the main job done: register, find each other, fail over.",
    "describe": "Show all that is known of one extension.",
    "doctor": "Check the store, and say what to do about each finding.",
    "elect": "Lead, or run a command while leading, or follow who leads.",
    "kv": "Read and write keys.",
    "lock": "Hold a lock, or run a command under it.",
    "ls": "List the registered extensions.",
    "mesh": "See how the calls of services go.",
    "register": "Register an extension, while a command runs or until interrupted.",
    "routes": "Show and change where the calls of services go.",
    "serve": "Serve extensions and metrics by HTTP.",
    "status": "Show what is held, by whom, and who waits.",
    "watch": "Follow the changes under a prefix.",
    "watch-events": "Follow extensions as they come, change and go.",
}
_HIDDEN: Final = {"demo-extension": ("osdisco.cli.demo.worker", "demo_extension")}


class App(Group):
    """The root: knows its commands' names and one line about each without importing any."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command. Raises UsageError for what is none."""
        plain = cmd_name.replace("-", "_")
        module, attribute = _HIDDEN.get(cmd_name, (f"osdisco.cli.{plain}", plain))
        if cmd_name in _COMMANDS or cmd_name in _HIDDEN:
            command: click.Command = getattr(import_module(module), attribute)
            return command
        if ctx.resilient_parsing:
            return None
        known = ", ".join(sorted(_COMMANDS))
        raise click.UsageError(f"no command {cmd_name!a}{nearest(cmd_name, _COMMANDS)}; commands are {known}", ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands for the help."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(_COMMANDS.items()))

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        """Run, and exit with the code that says how it went."""
        given = list(sys.argv[1:] if args is None else args)
        settings = Settings()
        _write_all_characters()
        try:
            code = super().main(given, *rest, **{**extra, "standalone_mode": False, "obj": settings})
            sys.stdout.flush()
        except (KeyboardInterrupt, click.Abort):  # outside of a command's own handling, or a second one
            code = 128 + signal.SIGINT
        except Exception as exc:
            if isinstance(exc, BrokenPipeError):
                _forget_stdout()
            as_json = settings.json or (isinstance(exc, click.UsageError) and "--json" in given)
            code = report(exc, as_json=as_json, verbose=settings.verbose > 0)
        sys.exit(code)


def _write_all_characters() -> None:
    """A terminal that lacks a letter gets its escape instead of a failure."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _forget_stdout() -> None:
    """The reader went away (`| head`): nothing more is said, also not by the interpreter's last flush."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.command(cls=App, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="osdisco", message="%(prog)s %(version)s")
def app() -> None:
    """Discovery and clustering for OpenSearch extensions, on etcd, Consul or memory.

    Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 conflict or not acquired, 5 store unavailable, 130
    interrupted.
    """
