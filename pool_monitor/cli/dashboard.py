"""``pool-monitor dashboard``: attach to a running service."""

from __future__ import annotations

import asyncio
import sys

import click

from pool_monitor.service.client import fetch, resolve
from pool_monitor.view.report import report


@click.command("dashboard")
@click.argument("address", required=False)
@click.option("--window", default="5m", show_default=True, help="1m, 5m or 15m.")
def command(address: str | None, window: str) -> None:
    """Watch a running service; ? shows the keys, q leaves. Watching changes nothing in the service.

    ADDRESS is a service's name or pid, a socket's path or a URL; without it, the only service running here. Where
    there is no terminal, the state is printed once.
    """
    asyncio.run(_watch(address, window))


async def _watch(address: str | None, window: str) -> None:
    first = await fetch(resolve(address), window)  # so that a wrong address is an error and no waiting screen
    from pool_monitor.dashboard.terminal import can_run

    if not can_run():
        click.echo(report(first), nl=False)
        click.echo("no terminal to draw on: printed once", err=True)
        return
    from pool_monitor.dashboard.app import run
    from pool_monitor.dashboard.remote import RemoteFeed

    await run(RemoteFeed(address), title=first.service.name, window=window)
    sys.stdout.flush()
