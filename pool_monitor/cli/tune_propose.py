"""``pool-monitor tune propose``: propose a change by hand."""

from __future__ import annotations

import asyncio
import math

import click

from pool_monitor.cli.alert_options import ADDRESS_OPTION, AUTHOR_OPTION
from pool_monitor.cli.output import print_text
from pool_monitor.cli.tune_options import REASON_OPTION
from pool_monitor.dashboard.prompt import user
from pool_monitor.service.client import open_client, resolve


def _finite(_context: click.Context, _parameter: click.Parameter, value: float) -> float:
    """Refuse what JSON cannot carry."""
    if not math.isfinite(value):
        raise click.BadParameter(f"{value:g} is not a number that can be set")
    return value


@click.command("propose")
@click.argument("pool")
@click.argument("setting")
@click.argument("value", type=float, callback=_finite)
@REASON_OPTION
@AUTHOR_OPTION
@ADDRESS_OPTION
def command(pool: str, setting: str, value: float, reason: str, author: str | None, address: str | None) -> None:
    """Propose VALUE for a SETTING of POOL, such as size. It waits for approval, and is validated, like any other
    change. The id is printed, for `tune approve`.
    """
    print_text(
        f"{asyncio.run(_propose(address, pool, setting, value, reason, user() if author is None else author))}\n"
    )


async def _propose(address: str | None, pool: str, setting: str, value: float, reason: str, author: str) -> str:
    async with open_client(resolve(address)) as service:
        return await service.propose(pool, setting, value, reason=reason, author=author)
