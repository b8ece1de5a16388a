"""``pool-monitor report``: what happened, for the time after an incident and for people who did not watch it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import click
import msgspec

from pool_monitor.cli import text_width
from pool_monitor.cli.options import check_period, moment
from pool_monitor.cli.output import print_bytes, print_json, print_text
from pool_monitor.cli.report_sources import (
    ReportData,
    ReportQuery,
    Step,
    from_service,
    from_store,
    is_store,
    seconds_back,
)
from pool_monitor.dashboard.terminal import stdout_glyphs
from pool_monitor.export import hdr
from pool_monitor.export.tabular import to_csv
from pool_monitor.metrics.timespan import seconds_of
from pool_monitor.snapshot import WINDOW_NAMES
from pool_monitor.view import period_report

FORMATS = ["text", "md", "json", "csv", "hlog"]


@click.command("report")
@click.argument("source", required=False, metavar="[ADDRESS|STORE.db]")
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True)
@click.option("--window", type=click.Choice(WINDOW_NAMES), help="The period up to now to report on.")
@click.option("--since", metavar="24h", help="For a history: the length of the period, such as 90m, 7d or 2w.")
@click.option(
    "--start", callback=moment, metavar="TIME", help="Start of the period; ISO 8601, in local time if it has no zone."
)
@click.option("--end", callback=moment, metavar="TIME", help="End of the period; by default, the end of the history.")
@click.option("--step", metavar="10s", help="Time step of the charts and of csv.")
def command(
    source: str | None,
    form: str,
    window: str | None,
    since: str | None,
    start: float | None,
    end: float | None,
    step: str | None,
) -> None:
    """Report what happened: calls, errors and latencies, by operation and worker, and the worst moments.

    ADDRESS is a running service: its name or pid, the path of its socket, a URL or HOST:PORT. Without ADDRESS, it is
    the only service running here. The report covers a window, by default 15m.

    STORE.db is the file of a history; its process need not run any more. The report covers the last 24 hours in the
    file, or the period that --since, --start and --end select.

    json has everything, with a version. csv has one row per operation and measured step; its times are seconds since
    the epoch. hlog, only for a history, is a log for the HdrHistogram tools.
    """
    check_period(window, since, start, end)
    query = ReportQuery(
        since=seconds_back(window, since),
        start=start,
        end=end,
        step=None if step is None else seconds_of(step, "--step"),
        by_operation=form == "csv",
    )
    if form == "hlog" and (source is None or not is_store(source)):
        raise click.UsageError("--format hlog needs whole histograms, which only a history has: give a STORE.db")
    if source is not None and is_store(source):
        data = from_store(source, query)
    else:
        data = asyncio.run(from_service(source, query))
    _FORMATS[form](data)


def _text(data: ReportData) -> None:
    print_text(period_report.text(data.report, width=text_width(), glyphs=stdout_glyphs()))


def _markdown(data: ReportData) -> None:
    print_text(period_report.markdown(data.report))


def _json(data: ReportData) -> None:
    text = msgspec.json.encode(data.report)
    print_json(text, msgspec.json.format(text, indent=2))


def _csv(data: ReportData) -> None:
    print_bytes(to_csv(Step, data.steps))


def _hlog(data: ReportData) -> None:
    assert data.recording is not None
    print_bytes(hdr.log(data.recording))


_FORMATS: dict[str, Callable[[ReportData], None]] = {
    "text": _text, "md": _markdown, "json": _json, "csv": _csv, "hlog": _hlog
}  # fmt: skip
