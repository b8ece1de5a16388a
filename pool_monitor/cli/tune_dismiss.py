"""``pool-monitor tune dismiss``: show a recommendation no more."""

from __future__ import annotations

import asyncio

import click

from pool_monitor.cli.alert_options import ADDRESS_OPTION, AUTHOR_OPTION
from pool_monitor.cli.output import print_text
from pool_monitor.cli.tune_options import ID_ARGUMENT, REASON_OPTION, recommendation_named
from pool_monitor.dashboard.prompt import user
from pool_monitor.service.client import open_client, resolve
from pool_monitor.snapshot import Recommendation
from pool_monitor.view import advice_words


@click.command("dismiss")
@ID_ARGUMENT
@REASON_OPTION
@AUTHOR_OPTION
@ADDRESS_OPTION
def command(name: str, reason: str, author: str | None, address: str | None) -> None:
    """Show a recommendation no more, for a week or until it is much worse.

    ID is what `tune status` shows; its beginning is enough.
    """
    found = asyncio.run(_dismiss(address, name, reason, user() if author is None else author))
    print_text(f"dismissed: {advice_words.recommendation_name(found)}\n")


async def _dismiss(address: str | None, prefix: str, reason: str, author: str) -> Recommendation:
    async with open_client(resolve(address)) as service:
        found = await recommendation_named(service, prefix)
        await service.dismiss(found.id, reason, author=author)
        return found
