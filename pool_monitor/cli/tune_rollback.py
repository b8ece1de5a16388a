"""``pool-monitor tune rollback``: restore the value before a change."""

from __future__ import annotations

import asyncio

import click

from pool_monitor.cli.alert_options import ADDRESS_OPTION, AUTHOR_OPTION
from pool_monitor.cli.output import print_text
from pool_monitor.cli.tune_options import trial_named
from pool_monitor.dashboard.prompt import user
from pool_monitor.service.client import open_client, resolve
from pool_monitor.view import advice_words


@click.command("rollback")
@click.argument("name", metavar="[ID]", required=False)
@AUTHOR_OPTION
@ADDRESS_OPTION
def command(name: str | None, author: str | None, address: str | None) -> None:
    """Restore the value before a change. Without ID: before what is on trial, or else before the latest change that
    was kept.

    ID is what `tune status` and `tune history --json` show; its beginning is enough.
    """
    what = asyncio.run(_rollback(address, name, user() if author is None else author))
    print_text(f"rolled back: {what}\n")


async def _rollback(address: str | None, prefix: str | None, author: str) -> str:
    async with open_client(resolve(address)) as service:
        if prefix is None:
            await service.tune("rollback", None, author=author)
            return "the latest change"
        trial = await trial_named(service, prefix)
        await service.tune("rollback", trial.id, author=author)
        return advice_words.trial_name(trial)
