"""``pool-monitor tune explain``: why a change was tried, or why something is recommended."""

from __future__ import annotations

import asyncio

import click

from pool_monitor.cli.alert_options import ADDRESS_OPTION, JSON_OPTION
from pool_monitor.cli.output import print_text
from pool_monitor.cli.tune_options import ID_ARGUMENT, only, print_value, trials_of
from pool_monitor.service.client import open_client, resolve
from pool_monitor.view import advice_words
from pool_monitor.view.text import clean

_DECISIONS_MOST = 20


@click.command("explain")
@ID_ARGUMENT
@ADDRESS_OPTION
@JSON_OPTION
def command(name: str, address: str | None, as_json: bool) -> None:
    """Say why a change was tried, kept or rolled back, or why something is recommended, with all figures.

    ID is what `tune status` and `tune history` show; its beginning is enough. POOL/SETTING, such as text/size, tells
    the latest changes without a trial, such as those of the policy.
    """
    found, text = asyncio.run(_explained(address, name))
    if as_json:
        print_value({"id": found, "text": text})
    else:
        print_text("".join(f"{clean(line)}\n" for line in text.rstrip().splitlines()))


async def _explained(address: str | None, prefix: str) -> tuple[str, str]:
    async with open_client(resolve(address)) as service:
        report = await service.tuning(limit=1000)
        if made := [one for one in report.history if advice_words.is_decision(one) and one.id == prefix]:
            return prefix, "\n".join(advice_words.decision_line(one) for one in made[:_DECISIONS_MOST])
        trials = trials_of(report)
        advice = {one.id: one for one in (await service.recommendations()).recommendations}
        names = {one: advice_words.trial_name(trial) for one, trial in trials.items()}
        names |= {one: advice_words.recommendation_name(found) for one, found in advice.items()}
        chosen = only(prefix, names, "change or recommendation")
        return chosen, await service.explain("tuning" if chosen in trials else "recommendations", chosen)
