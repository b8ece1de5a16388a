"""``pool-monitor tune mode``: show or set the mode of the tuner."""

from __future__ import annotations

import asyncio
from typing import get_args

import click

from pool_monitor.cli.alert_options import ADDRESS_OPTION, AUTHOR_OPTION, JSON_OPTION
from pool_monitor.cli.output import print_text
from pool_monitor.cli.tune_options import print_value
from pool_monitor.dashboard.prompt import user
from pool_monitor.service.client import open_client, resolve
from pool_monitor.snapshot import TunerMode


@click.command("mode")
@click.argument("mode", required=False, type=click.Choice(get_args(TunerMode)))
@AUTHOR_OPTION
@ADDRESS_OPTION
@JSON_OPTION
def command(mode: str | None, author: str | None, address: str | None, as_json: bool) -> None:
    """Show the mode of the tuner, or set it: off (nothing is proposed), recommend (changes wait for approval), auto
    (they are made, validated, and rolled back if they do harm). To switch it off undoes what is on trial.
    """
    now = asyncio.run(_mode(address, mode, user() if author is None else author))
    if as_json:
        print_value({"mode": now})
    else:
        print_text(f"{now}\n")


async def _mode(address: str | None, mode: str | None, author: str) -> str:
    async with open_client(resolve(address)) as service:
        if mode is not None:
            await service.set_tuner_mode(mode, author=author)
        tuning = (await service.tuning(limit=0)).tuning
        return "off" if tuning is None else tuning.mode
