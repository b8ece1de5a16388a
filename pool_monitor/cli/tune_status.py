"""``pool-monitor tune status``: the tuner now, and what is recommended."""

from __future__ import annotations

import asyncio
import time

import click

from pool_monitor.cli import text_width
from pool_monitor.cli.alert_options import JSON_OPTION, table_text
from pool_monitor.cli.output import print_text
from pool_monitor.cli.tune_options import print_value
from pool_monitor.service.client import open_client, resolve
from pool_monitor.snapshot import TRIAL_RUNNING, AdviceReport, TuningReport
from pool_monitor.view import advice_words as words
from pool_monitor.view.advice_page import ADVICE_COLUMNS, AdviceRow
from pool_monitor.view.text import clean, one_line


@click.command("status")
@click.argument("address", required=False)
@JSON_OPTION
def command(address: str | None, as_json: bool) -> None:
    """Show the tuner of a service, the sizes it wants, what waits for approval, what is on trial, and what is
    recommended, the most urgent first.
    """
    report, advice = asyncio.run(_now(address))
    if as_json:
        print_value({"tuning": report.tuning, "recommendations": advice.recommendations})
    else:
        print_text("".join(f"{line}\n" for line in _lines(report, advice)))


def _lines(report: TuningReport, advice: AdviceReport) -> list[str]:
    tuning, now = report.tuning, time.time()
    lines = [words.tuner_words(tuning, now)]
    lines += [words.sizing_words(one) for one in (() if tuning is None else tuning.sizing)]
    trials = () if tuning is None else (*tuning.pending, *(one for one in tuning.trials if one.state in TRIAL_RUNNING))
    rows = [AdviceRow(trial=one) for one in trials] + [AdviceRow(found=one) for one in advice.recommendations]
    if not rows:
        return [*lines, "nothing is recommended, and nothing waits"]
    lines.append(table_text(ADVICE_COLUMNS, rows, text_width()))
    for row in rows:
        if row.trial is not None:
            lines.append(f"{clean(row.id)}  {words.trial_name(row.trial)}: {words.trial_reason(row.trial)}")
        elif row.found is not None:
            lines.append(f"{clean(row.id)}  {words.recommendation_name(row.found)}: {one_line(row.found.action)}")
    return lines


async def _now(address: str | None) -> tuple[TuningReport, AdviceReport]:
    async with open_client(resolve(address)) as service:
        return await service.tuning(limit=0), await service.recommendations()
