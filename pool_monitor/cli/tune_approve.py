"""``pool-monitor tune approve``: let a change that waits begin."""

from __future__ import annotations

import asyncio

import click

from pool_monitor.cli.alert_options import ADDRESS_OPTION, AUTHOR_OPTION
from pool_monitor.cli.output import print_text
from pool_monitor.cli.tune_options import ID_ARGUMENT, trial_named
from pool_monitor.dashboard.prompt import user
from pool_monitor.service.client import open_client, resolve
from pool_monitor.snapshot import TrialView
from pool_monitor.view import advice_words


@click.command("approve")
@ID_ARGUMENT
@AUTHOR_OPTION
@ADDRESS_OPTION
def command(name: str, author: str | None, address: str | None) -> None:
    """Let a change that waits begin: it is made, validated, and rolled back if it does harm.

    ID is what `tune status` shows; its beginning is enough.
    """
    trial = asyncio.run(_approve(address, name, user() if author is None else author))
    print_text(f"approved: {advice_words.trial_name(trial)}\n")


async def _approve(address: str | None, prefix: str, author: str) -> TrialView:
    async with open_client(resolve(address)) as service:
        trial = await trial_named(service, prefix, waiting=True)
        await service.tune("approve", trial.id, author=author)
        return trial
