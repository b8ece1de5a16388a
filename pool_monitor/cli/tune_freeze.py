"""``pool-monitor tune freeze``: let the tuner change nothing for some time."""

from __future__ import annotations

import asyncio

import click

from pool_monitor.cli.alert_options import ADDRESS_OPTION, AUTHOR_OPTION, duration_of
from pool_monitor.cli.output import print_text
from pool_monitor.dashboard.prompt import user
from pool_monitor.service.client import open_client, resolve


@click.command("freeze")
@click.argument("reason")
@click.option(
    "--duration", metavar="1h", callback=duration_of, help="How long it lasts; by default, until `tune thaw`."
)
@AUTHOR_OPTION
@ADDRESS_OPTION
def command(reason: str, duration: str | None, author: str | None, address: str | None) -> None:
    """Let the tuner change nothing, for REASON, such as release. What is on trial is undone."""
    asyncio.run(_freeze(address, reason, duration, user() if author is None else author))
    print_text(f"frozen {'until `pool-monitor tune thaw`' if duration is None else f'for {duration}'}: {reason}\n")


async def _freeze(address: str | None, reason: str, duration: str | None, author: str) -> None:
    async with open_client(resolve(address)) as service:
        await service.freeze(reason, duration, author=author)
