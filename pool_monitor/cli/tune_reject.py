"""``pool-monitor tune reject``: end a change that waits."""

from __future__ import annotations

import asyncio

import click

from pool_monitor.cli.alert_options import ADDRESS_OPTION, AUTHOR_OPTION
from pool_monitor.cli.output import print_text
from pool_monitor.cli.tune_options import ID_ARGUMENT, REASON_OPTION, trial_named
from pool_monitor.dashboard.prompt import user
from pool_monitor.service.client import open_client, resolve
from pool_monitor.snapshot import TrialView
from pool_monitor.view import advice_words


@click.command("reject")
@ID_ARGUMENT
@REASON_OPTION
@AUTHOR_OPTION
@ADDRESS_OPTION
def command(name: str, reason: str, author: str | None, address: str | None) -> None:
    """End a change that waits: it is not made.

    ID is what `tune status` shows; its beginning is enough.
    """
    trial = asyncio.run(_reject(address, name, reason, user() if author is None else author))
    print_text(f"rejected: {advice_words.trial_name(trial)}\n")


async def _reject(address: str | None, prefix: str, reason: str, author: str) -> TrialView:
    async with open_client(resolve(address)) as service:
        trial = await trial_named(service, prefix, waiting=True)
        await service.tune("reject", trial.id, author=author, reason=reason)
        return trial
