"""Leaving well under signals and web frameworks. Each module needs only what it is named after."""

from osdisco.integrations.signals import leave_on_signals, run_until_terminated

__all__ = ["leave_on_signals", "run_until_terminated"]
