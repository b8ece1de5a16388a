"""``pool-monitor tune rollback``: restore the value before a change."""

from __future__ import annotations

import asyncio

import click

from pool_monitor.cli.alert_options import ADDRESS_OPTION, AUTHOR_OPTION
from pool_monitor.cli.output import print_text
from pool_monitor.cli.tune_options import trial_named
from pool_monitor.dashboard.prompt import user
from pool_monitor.service.client import Client, open_client, resolve
from pool_monitor.view import advice_words

_ALL = "Restore each setting to the value with which its pool began; in the mode auto, all but the sizes."


@click.command("rollback")
@click.argument("name", metavar="[ID]", required=False)
@click.option("--all", "everything", is_flag=True, help=_ALL)
@AUTHOR_OPTION
@ADDRESS_OPTION
def command(name: str | None, everything: bool, author: str | None, address: str | None) -> None:
    """Restore the value before a change. Without ID: before what is on trial, or else before the latest change that
    was kept.

    ID is what `tune status` and `tune history` show; its beginning is enough.
    """
    if name is not None and everything:
        raise click.UsageError("--all stands alone: leave out the ID")
    by = user() if author is None else author
    print_text(f"rolled back: {asyncio.run(_rollback(address, name, everything, by))}\n")


async def _rollback(address: str | None, prefix: str | None, everything: bool, author: str) -> str:
    async with open_client(resolve(address)) as service:
        if prefix is None:
            undone = await service.roll_back(everything=everything, author=author)
            return await _everything(service) if everything else ", ".join(undone)
        trial = await trial_named(service, prefix)
        await service.tune("rollback", trial.id, author=author)
        return advice_words.trial_name(trial)


async def _everything(service: Client) -> str:
    tuning = (await service.tuning(limit=0)).tuning
    if tuning is None or tuning.mode != "auto":
        return "everything"
    return "everything but the sizes, which the policy chooses in the mode auto: `pool-monitor tune mode recommend`"
