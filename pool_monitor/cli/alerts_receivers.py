"""``pool-monitor alerts receivers``: who is told of alerts, what is owed to each, and why it has not arrived."""

from __future__ import annotations

import asyncio

import click

from pool_monitor.cli import text_width
from pool_monitor.cli.alert_options import JSON_OPTION, lines_text, print_rows
from pool_monitor.cli.output import print_text
from pool_monitor.service.client import open_client, resolve
from pool_monitor.snapshot import Snapshot
from pool_monitor.view.alerts_page import evaluation, receiver_lines


@click.command("receivers")
@click.argument("address", required=False)
@JSON_OPTION
def command(address: str | None, as_json: bool) -> None:
    """List who is told of alerts, what is owed to each of them, and why it has not arrived.

    The exit code is 0, whether anything is owed or not: use --json in scripts.
    """
    snapshot = asyncio.run(_now(address))
    alerting = snapshot.monitor.alerts
    if as_json:
        print_rows([] if alerting is None else list(alerting.receivers))
    elif alerting is None:
        print_text(f"{evaluation(snapshot)}\n")
    elif not alerting.receivers:
        print_text("nobody is told of alerts: no file of rules has receivers\n")
    else:
        print_text(f"{lines_text(receiver_lines(alerting, text_width())[1:])}\n")


async def _now(address: str | None) -> Snapshot:
    async with open_client(resolve(address)) as service:
        return await service.snapshot("1m")
