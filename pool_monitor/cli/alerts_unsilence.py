"""``pool-monitor alerts unsilence``: end a silence."""

from __future__ import annotations

import asyncio

import click

from pool_monitor.cli.alert_options import ADDRESS_OPTION
from pool_monitor.service.client import open_client, resolve


@click.command("unsilence")
@click.argument("silence_id", metavar="ID")
@ADDRESS_OPTION
def command(silence_id: str, address: str | None) -> None:
    """End a silence, also before it begins. ID is what `alerts silence` and `alerts list` print."""
    asyncio.run(_unsilence(address, silence_id))


async def _unsilence(address: str | None, silence_id: str) -> None:
    async with open_client(resolve(address)) as service:
        await service.unsilence(silence_id)
