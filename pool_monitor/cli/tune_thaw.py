"""``pool-monitor tune thaw``: end a freeze."""

from __future__ import annotations

import asyncio

import click

from pool_monitor.cli.alert_options import ADDRESS_OPTION, AUTHOR_OPTION
from pool_monitor.cli.output import print_text
from pool_monitor.dashboard.prompt import user
from pool_monitor.service.client import open_client, resolve


@click.command("thaw")
@AUTHOR_OPTION
@ADDRESS_OPTION
def command(author: str | None, address: str | None) -> None:
    """End a freeze, also one that the tuner has set itself after repeated rollbacks."""
    asyncio.run(_thaw(address, user() if author is None else author))
    print_text("the tuner goes on\n")


async def _thaw(address: str | None, author: str) -> None:
    async with open_client(resolve(address)) as service:
        await service.thaw(author=author)
