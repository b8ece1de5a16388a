"""``pool-monitor snapshot``: for scripts, cron and the first minute of an incident."""

from __future__ import annotations

import asyncio

import click
import msgspec

from pool_monitor.cli.options import WINDOW_OPTION
from pool_monitor.cli.output import print_json
from pool_monitor.service.client import fetch, resolve


@click.command("snapshot")
@click.argument("address", required=False)
@WINDOW_OPTION
def command(address: str | None, window: str) -> None:
    """Print one Snapshot of a running service as JSON.

    ADDRESS is a service's name or pid, a socket's path, a URL or HOST:PORT; without it, the only service running here.
    The schema is versioned: fields are added, never changed, while "version" stays.
    """
    taken = asyncio.run(fetch(resolve(address), window))
    text = msgspec.json.encode(taken)
    print_json(text, msgspec.json.format(text, indent=2))
