"""``pool-monitor rules metrics``: what rules can measure."""

from __future__ import annotations

import fnmatch

import click
import msgspec

from pool_monitor.alerts.catalogue import METRICS, Metric
from pool_monitor.cli import EXIT_FAILED
from pool_monitor.cli.output import print_json, print_text, remark

_HEADS = ("metric", "unit", "covers", "labels", "past", "meaning")


@click.command("metrics")
@click.argument("pattern", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def command(pattern: str | None, as_json: bool) -> None:
    """List the metrics that rules may name. PATTERN chooses some, such as 'worker.*' or rss.

    A metric that covers the window has the window that its rule names. One of now is what it is at the moment. What has
    a past can be compared with what it was, and forecast. Exit codes: 0 there is one; 1 there is none.
    """
    chosen = [metric for metric in METRICS.values() if pattern is None or _matches(metric.name, pattern)]
    if as_json:
        encoded = msgspec.json.encode([_as_json(metric) for metric in chosen])
        print_json(encoded, msgspec.json.format(encoded, indent=2))
    elif chosen:
        print_text(_table([_HEADS, *map(_row, chosen)]))
    if not chosen:
        remark(f"no metric matches {pattern!r}; try a part of a name, such as latency")
        raise click.exceptions.Exit(EXIT_FAILED)


def _matches(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern) or pattern in name


def _row(metric: Metric) -> tuple[str, ...]:
    return (
        metric.name,
        metric.unit or "-",
        "window" if metric.windowed else "now",
        " ".join(metric.labels) or "-",
        "yes" if metric.kept else "-",
        metric.meaning + (f" Its limit is {metric.limit}." if metric.limit else ""),
    )


def _as_json(metric: Metric) -> dict[str, object]:
    return {
        "metric": metric.name,
        "scope": metric.scope,
        "unit": metric.unit,
        "windowed": metric.windowed,
        "labels": metric.labels,
        "past": bool(metric.kept),
        "limit": metric.limit,
        "meaning": metric.meaning,
    }


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines)
