"""``pool-monitor alerts retry``: try now what a receiver is owed."""

from __future__ import annotations

import asyncio

import click

from pool_monitor.cli.alert_options import ADDRESS_OPTION
from pool_monitor.service.client import open_client, resolve


@click.command("retry")
@click.argument("receiver")
@ADDRESS_OPTION
def command(receiver: str, address: str | None) -> None:
    """Try now what RECEIVER is owed, also if it has refused it. `alerts receivers` says what came of it."""
    asyncio.run(_retry(address, receiver))


async def _retry(address: str | None, receiver: str) -> None:
    async with open_client(resolve(address)) as service:
        await service.retry_receiver(receiver)
