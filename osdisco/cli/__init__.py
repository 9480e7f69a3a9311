"""The command line, `osdisco`. Imports next to nothing: what a command needs is loaded when it runs."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line on this process's arguments, and exit."""
    try:
        import click  # noqa: F401 - only whether it is there
    except ImportError:
        sys.stderr.write("osdisco: the command line needs click and rich: pip install 'osdisco[cli]'\n")
        raise SystemExit(2) from None
    from osdisco.cli._app import app

    app(prog_name="osdisco")
