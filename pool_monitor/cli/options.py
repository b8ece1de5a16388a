"""What several commands have in common."""

from __future__ import annotations

import click

from pool_monitor.view import WINDOWS

WINDOW = click.option("--window", type=click.Choice(WINDOWS), default="5m", show_default=True)
"""The option of every command that looks at a window."""
