"""``pool-monitor dashboard``: watch a running service."""

from __future__ import annotations

import asyncio

import click

from pool_monitor.cli import text_width
from pool_monitor.cli.options import WINDOW_OPTION
from pool_monitor.cli.output import print_text, remark, screen_in_use
from pool_monitor.dashboard.terminal import can_run, stdout_glyphs
from pool_monitor.service.client import fetch, resolve
from pool_monitor.service.discovery import services
from pool_monitor.view.snapshot_report import report


@click.command("dashboard")
@click.argument("address", required=False)
@WINDOW_OPTION
def command(address: str | None, window: str) -> None:
    """Watch a running service; ? shows the keys, q quits. Watching changes nothing in the service.

    ADDRESS is a service's name or pid, the path of its socket, a URL or HOST:PORT. Without ADDRESS, it is the only
    service running here; if there are several, you choose one. Without a terminal, the state is printed once.
    """
    asyncio.run(_watch(address or _chosen(), window))


def _chosen() -> str | None:
    """Ask for one of several services. None: there are not several, or there is no terminal."""
    running = services() if can_run() else []
    if len(running) < 2:
        return None
    for number, one in enumerate(running, 1):
        remark(f"  {number}  {one.id}")
    number = click.prompt("Which one", type=click.IntRange(1, len(running)), default=1, err=True)
    chosen = running[number - 1]
    # A name that is unique still finds the service after a restart, when its pid is another.
    return chosen.name if [one.name for one in running].count(chosen.name) == 1 else chosen.id


async def _watch(wanted: str | None, window: str) -> None:
    address = resolve(wanted)
    first = await fetch(address, window)  # so that a wrong address is an error, not a waiting screen
    if not can_run():
        print_text(report(first, width=text_width(), glyphs=stdout_glyphs()))
        remark("no terminal for a dashboard: printed once")
        return
    from pool_monitor.dashboard.app import run
    from pool_monitor.dashboard.remote import RemoteFeed

    # Without an address, follow this service by name: if it ends, the only service left may be another one.
    with screen_in_use():
        await run(RemoteFeed(wanted or address.name), title=first.service.name, window=window)
