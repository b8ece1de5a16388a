"""``pool-monitor dashboard``: attach to a running service."""

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
    """Watch a running service; ? shows the keys, q leaves. Watching changes nothing in the service.

    ADDRESS is a service's name or pid, a socket's path, a URL or HOST:PORT; without it, the only service running here,
    or your choice. Where there is no terminal, the state is printed once.
    """
    asyncio.run(_watch(address or _chosen(), window))


def _chosen() -> str | None:
    """Which of several services the person at the terminal wants to see."""
    running = services() if can_run() else []
    if len(running) < 2:
        return None
    for number, one in enumerate(running, 1):
        remark(f"  {number}  {one.id}")
    number = click.prompt("Which one", type=click.IntRange(1, len(running)), default=1, err=True)
    chosen = running[number - 1]
    # By its name, if no other has it, the service is found again after it was restarted: then it has another pid.
    return chosen.name if [one.name for one in running].count(chosen.name) == 1 else chosen.id


async def _watch(wanted: str | None, window: str) -> None:
    address = resolve(wanted)
    first = await fetch(address, window)  # so that a wrong address is an error and no waiting screen
    if not can_run():
        print_text(report(first, width=text_width(), glyphs=stdout_glyphs()))
        remark("no terminal to draw on: printed once")
        return
    from pool_monitor.dashboard.app import run
    from pool_monitor.dashboard.remote import RemoteFeed

    # By name when none was wanted in particular: the one that is left, should this one go, may be another service.
    with screen_in_use():
        await run(RemoteFeed(wanted or address.label), title=first.service.name, window=window)
