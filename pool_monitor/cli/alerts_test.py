"""``pool-monitor alerts test``: send a test message to a receiver."""

from __future__ import annotations

import asyncio

import click

from pool_monitor.cli.alert_options import ADDRESS_OPTION
from pool_monitor.cli.output import print_text, remark
from pool_monitor.service.client import open_client, resolve
from pool_monitor.view.text import one_line


@click.command("test")
@click.argument("receiver")
@ADDRESS_OPTION
def command(receiver: str, address: str | None) -> None:
    """Send a message to RECEIVER that says it is a test, and say whether it has arrived.

    If it has arrived, what the receiver is owed is tried at once. The exit code is 1 if it has not.
    """
    why = asyncio.run(_test(address, receiver))
    if why:
        remark(f"{one_line(receiver)} has not got the test: {one_line(why)}")
        raise SystemExit(1)
    print_text(f"{one_line(receiver)} has got the test\n")


async def _test(address: str | None, receiver: str) -> str:
    async with open_client(resolve(address)) as service:
        return await service.test_receiver(receiver)
