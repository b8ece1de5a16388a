"""What several commands have in common."""

from __future__ import annotations

import click

from pool_monitor.snapshot import WINDOW_NAMES

WINDOW_OPTION = click.option("--window", type=click.Choice(WINDOW_NAMES), default="5m", show_default=True)
"""The option of every command that looks at a window."""
