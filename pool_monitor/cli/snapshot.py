"""``pool-monitor snapshot``: the state as JSON, for scripts, cron and the first minute of an incident."""

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
@click.option("--json", "_as_json", is_flag=True, help="Print JSON, as without this option: there is no other form.")
def command(address: str | None, window: str, *, _as_json: bool) -> None:
    """Print one Snapshot of a running service as JSON.

    ADDRESS is a service's name or pid, the path of its socket, a URL or HOST:PORT. Without ADDRESS, it is the only
    service running here. While "version" stays the same, fields are only added, never changed.
    """
    taken = asyncio.run(fetch(resolve(address), window))
    text = msgspec.json.encode(taken)
    print_json(text, msgspec.json.format(text, indent=2))
