"""``pool-monitor alerts history``: the latest changes, of a service or in a history."""

from __future__ import annotations

import asyncio

import click

from pool_monitor.alerts.recording import decode_transitions
from pool_monitor.cli import text_width
from pool_monitor.cli.alert_options import JSON_OPTION, print_rows, table_text
from pool_monitor.cli.output import print_text, remark
from pool_monitor.cli.report_sources import is_store
from pool_monitor.service.client import open_client, resolve
from pool_monitor.snapshot import AlertReport, AlertTransition
from pool_monitor.storage import Reader
from pool_monitor.view import format as fmt
from pool_monitor.view.alert_report import change_columns

HISTORY_MAX = 10_000
"""The most changes of one answer."""


@click.command("history")
@click.argument("source", required=False, metavar="[ADDRESS|STORE.db]")
@click.option("--limit", type=click.IntRange(1, HISTORY_MAX), default=100, show_default=True, help="The most changes.")
@JSON_OPTION
def command(source: str | None, limit: int, as_json: bool) -> None:
    """List the latest changes of alerts, the newest first.

    STORE.db is the file of a history; its process need not run any more.
    """
    if source is not None and is_store(source):
        changes = _stored(source, limit)
    else:
        changes = list(asyncio.run(_report(source, limit)).transitions[:limit])
    if as_json:
        print_rows(list(changes))
    elif changes:
        length = changes[0].at - changes[-1].at
        columns = change_columns(lambda at: fmt.short_time(at, length, 1))
        print_text(f"{table_text(columns, changes, text_width())}\n")
    else:
        print_text("no alert has changed yet\n")


async def _report(address: str | None, limit: int) -> AlertReport:
    async with open_client(resolve(address)) as service:
        return await service.alerts(limit=limit)


def _stored(path: str, limit: int) -> list[AlertTransition]:
    """The latest changes in a history. Those that cannot be read are left out, with a remark."""
    with Reader(path) as reader:
        newest = reversed(reader.transitions(0.0, float(2**40))[-limit:])
    found, bad = decode_transitions(body for _at, body in newest)
    if bad:
        remark(f"{path}: {fmt.plural(bad, 'change')} cannot be read, and left out")
    return found
