"""``pool-monitor alerts list``: what fires now, and the silences."""

from __future__ import annotations

import asyncio
from typing import get_args

import click
import msgspec

from pool_monitor.cli import text_width
from pool_monitor.cli.alert_options import JSON_OPTION, print_rows, table_text
from pool_monitor.cli.output import print_text
from pool_monitor.service.client import open_client, resolve
from pool_monitor.snapshot import AlertReport, AlertState, AlertView, Snapshot
from pool_monitor.view import alert_words, delivery_words
from pool_monitor.view.alerts_page import alert_columns, evaluation
from pool_monitor.view.text import clean

STATES = get_args(AlertState)[1:]


@click.command("list")
@click.argument("address", required=False)
@click.option("--state", "states", multiple=True, type=click.Choice(STATES), help="Only these; may be given often.")
@JSON_OPTION
def command(address: str | None, states: tuple[str, ...], as_json: bool) -> None:
    """List the alerts of a service: what fires first, and the silences.

    The exit code is 0, whether anything fires or not: use --json in scripts.
    """
    snapshot, report = asyncio.run(_now(address))
    chosen = [alert for alert in alert_words.in_order(report.alerts) if not states or alert.state in states]
    if as_json:
        print_rows(chosen)
        return
    width = text_width()
    shown = msgspec.structs.replace(snapshot, alerts=report.alerts)
    lines = [evaluation(shown)]
    if chosen:
        lines.append(table_text(alert_columns(snapshot.taken_at), chosen, width))
        lines += [_about(alert, snapshot.taken_at) for alert in chosen]
    if report.silences:
        lines += ["", "silences:"]
        lines += [f"{clean(one.id)}  {alert_words.silence_words(one, snapshot.taken_at)}" for one in report.silences]
    print_text("".join(f"{line}\n" for line in lines))


def _about(alert: AlertView, now: float) -> str:
    """The fingerprint and the name, who deals with it, and what its receivers know."""
    known = filter(None, [alert_words.acknowledged(alert, now), *delivery_words.told(alert, now)])
    return f"{clean(alert.fingerprint)}  {'; '.join([alert_words.name(alert), *known])}"


async def _now(address: str | None) -> tuple[Snapshot, AlertReport]:
    async with open_client(resolve(address)) as service:
        return await service.snapshot("1m"), await service.alerts(limit=1)
