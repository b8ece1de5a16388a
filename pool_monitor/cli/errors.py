"""``pool-monitor errors``: the few errors that many failures are."""

from __future__ import annotations

import asyncio

import click
import msgspec

from pool_monitor.cli import text_width
from pool_monitor.cli.options import check_period, moment
from pool_monitor.cli.output import print_json, print_text
from pool_monitor.cli.report_sources import (
    ReportQuery,
    from_to,
    is_store,
    nothing_recorded,
    period,
    recorded,
    seconds_back,
)
from pool_monitor.dashboard.terminal import stdout_glyphs
from pool_monitor.errors import ConfigError
from pool_monitor.service.client import open_client, resolve
from pool_monitor.snapshot import WINDOW_NAMES, ErrorReport
from pool_monitor.storage import Reader
from pool_monitor.storage.error_groups import with_pending
from pool_monitor.view import error_report
from pool_monitor.view.format import timestamp


@click.command("errors")
@click.argument("source", required=False, metavar="[ADDRESS|STORE.db]")
@click.option("--window", type=click.Choice(WINDOW_NAMES), help="The period up to now; of a service, by default 5m.")
@click.option("--since", metavar="24h", help="For a history: the length of the period, such as 90m, 7d or 2w.")
@click.option(
    "--start", callback=moment, metavar="TIME", help="Start of the period; ISO 8601, in local time if it has no zone."
)
@click.option("--end", callback=moment, metavar="TIME", help="End of the period; by default, the end of the history.")
@click.option("--pool", metavar="NAME", help="Only the errors of this pool.")
@click.option("--group", metavar="FINGERPRINT", help="Only this group, in full; the first digits are enough.")
@click.option("--full", is_flag=True, help="Show operations, workers, frames and a sample of every group.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(
    source: str | None,
    window: str | None,
    since: str | None,
    start: float | None,
    end: float | None,
    pool: str | None,
    group: str | None,
    full: bool,
    as_json: bool,
) -> None:
    """Show which few errors the failures are: how often, since when, in which operations and on which workers.

    Failures are equal when they agree in type, in the message without numbers, ids, paths and quoted values, and in the
    innermost frames of the target. Secrets in messages and tracebacks are replaced.

    ADDRESS is a running service: its name or pid, the path of its socket, a URL or HOST:PORT. Without ADDRESS, it is
    the only service running here. STORE.db is the file of a history; its process need not run any more. Its period is
    by default the last 24 hours in the file.
    """
    check_period(window, since, start, end)
    if source is not None and is_store(source):
        report = _from_store(source, ReportQuery(seconds_back(window, since), start, end), pool)
    elif since is not None or start is not None or end is not None:
        raise click.UsageError("--since, --start and --end need a STORE.db: a running service has a --window")
    else:
        report = asyncio.run(_from_service(source, window or "5m", pool))
    if group is not None:
        report = _only(report, group)
    if as_json:
        encoded = msgspec.json.encode(report)
        print_json(encoded, msgspec.json.format(encoded, indent=2))
    else:
        shown = error_report.text(report, width=text_width(), full=full or group is not None, glyphs=stdout_glyphs())
        print_text(shown)


async def _from_service(address: str | None, window: str, pool: str | None) -> ErrorReport:
    async with open_client(resolve(address)) as service:
        return await service.errors(window, pool)


def _from_store(path: str, query: ReportQuery, pool: str | None) -> ErrorReport:
    with Reader(path) as reader:
        _future, kept = recorded(reader, path, query)
        if pool is not None and pool not in (pools := reader.pools()):
            raise ConfigError(f"{path}: has no pool {pool!r}; it has {', '.join(pools)}")
        start, end = period(kept, query)
        if end <= kept[0] or start >= kept[1]:
            raise nothing_recorded(
                path, f"from {from_to(start, end)}" if end > start else f"from {timestamp(start)} on", kept
            )
        first, last, found = reader.error_groups(int(start), max(int(end), int(start) + 1), pool)
    # What was recorded may begin after, and end before, the whole steps.
    begun, ended = max(first, kept[0]), max(min(last, kept[1]), first)
    covered = max(ended - begun, 0)
    return ErrorReport(start=begun, end=ended, covered_seconds=covered, pools=with_pending(found, (), covered, pool))


def _only(report: ErrorReport, fingerprint: str) -> ErrorReport:
    """*report* with only the groups whose fingerprint begins with *fingerprint*."""
    pools = {
        name: tuple(group for group in groups if group.fingerprint.startswith(fingerprint))
        for name, groups in report.pools.items()
    }
    if not fingerprint or not any(pools.values()):
        raise ConfigError(f"--group {fingerprint}: there is no such group in this period; run without --group for all")
    return msgspec.structs.replace(report, pools={name: groups for name, groups in pools.items() if groups})
