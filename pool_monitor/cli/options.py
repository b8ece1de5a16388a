"""Options that several commands share."""

from __future__ import annotations

import click

from pool_monitor.snapshot import WINDOW_NAMES

WINDOW_OPTION = click.option(
    "--window",
    type=click.Choice(WINDOW_NAMES),
    default="5m",
    show_default=True,
    help="The period up to now that the numbers cover.",
)
"""The option of every command that shows a window."""
