"""``pool-monitor tune history``: the latest changes of settings."""

from __future__ import annotations

import asyncio

import click

from pool_monitor.cli import text_width
from pool_monitor.cli.alert_options import JSON_OPTION, table_text
from pool_monitor.cli.output import print_text
from pool_monitor.cli.tune_options import print_value
from pool_monitor.service import TRANSITIONS_MAX
from pool_monitor.service.client import open_client, resolve
from pool_monitor.snapshot import TrialView
from pool_monitor.view import format as fmt
from pool_monitor.view.tuning_report import trial_columns


@click.command("history")
@click.argument("address", required=False)
@click.option(
    "--limit", type=click.IntRange(1, TRANSITIONS_MAX), default=100, show_default=True, help="The most changes."
)
@JSON_OPTION
def command(address: str | None, limit: int, as_json: bool) -> None:
    """List the latest changes of settings, the newest first: what was changed, why, and what became of it."""
    changes = asyncio.run(_changes(address, limit))
    if as_json:
        print_value(changes)
    elif changes:
        length = changes[0].started_at - changes[-1].started_at
        columns = trial_columns(lambda at: fmt.short_time(at, length, 1))
        print_text(f"{table_text(columns, changes, text_width())}\n")
    else:
        print_text("nothing has been changed yet\n")


async def _changes(address: str | None, limit: int) -> tuple[TrialView, ...]:
    async with open_client(resolve(address)) as service:
        return (await service.tuning(limit=limit)).history[:limit]
