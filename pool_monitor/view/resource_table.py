"""The figures of resources over a period, as rows of a table: mean, highest reading, and when it was read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import tzinfo
from typing import NamedTuple

from pool_monitor.snapshot import GaugeSeries, ResourceRange
from pool_monitor.view import format as fmt
from pool_monitor.view.table import Column, number
from pool_monitor.view.text import clean

WORKERS_MAX = 10
"""Most workers in the table: those with the most memory at one time."""


def _bytes(value: float | None) -> str:
    return fmt.size(None if value is None else round(value))


FIGURES: dict[str, tuple[tuple[str, str, Callable[[float | None], str]], ...]] = {
    "host": (
        ("cpu_ratio", "cpu", fmt.percent),
        ("throttled_ratio", "throttled", fmt.percent),
        ("load1", "load", fmt.rate),
        ("memory_ratio", "memory", fmt.percent),
        ("swap_used", "swap", _bytes),
        ("pressure_cpu", "waited for cpu", fmt.percent),
        ("pressure_memory", "waited for memory", fmt.percent),
        ("pressure_io", "waited for io", fmt.percent),
        ("oom_kills", "killed for memory", fmt.mean),
    ),
    "process": (
        ("cpu_ratio", "cpu", fmt.percent),
        ("rss", "rss", _bytes),
        ("fds", "fds", fmt.mean),
        ("threads", "threads", fmt.mean),
        ("tasks", "tasks", fmt.mean),
    ),
    "loop": (("lag", "lag", fmt.duration),),
    "gpu": (("utilisation", "busy", fmt.percent), ("memory_ratio", "memory", fmt.percent)),
    "worker": (("cpu_ratio", "cpu", fmt.percent), ("rss", "rss", _bytes)),
}
"""The figures in the table by kind of subject, each with its name there and its format."""


class FigureRow(NamedTuple):
    subject: str
    figure: str
    mean: str
    high: str
    at: str
    """When the step of the highest reading began."""


FIGURE_COLUMNS: tuple[Column[FigureRow], ...] = (
    Column("RESOURCE", lambda row: clean(row.subject), 18, "left", grow=14, keep_end=True),
    Column("FIGURE", lambda row: row.figure, 17, "left"),
    Column("MEAN", lambda row: number(row.mean), 7),
    Column("HIGHEST", lambda row: number(row.high), 7),
    Column("AT", lambda row: row.at, 14),
)


def figure_rows(found: ResourceRange, zone: tzinfo | None = None) -> list[FigureRow]:
    """Return the rows for *found*: machine, process, event loop, GPUs, and the `WORKERS_MAX` largest workers."""
    by_subject: dict[str, dict[str, GaugeSeries]] = {}
    for series in found.series:
        by_subject.setdefault(series.subject, {})[series.figure] = series
    kinds = list(FIGURES)
    others = [subject for subject in by_subject if _kind(subject) in FIGURES and _kind(subject) != "worker"]
    others.sort(key=lambda subject: (kinds.index(_kind(subject)), subject))
    workers = [subject for subject in by_subject if _kind(subject) == "worker"]
    largest = sorted(workers, key=lambda subject: -(_highest(by_subject[subject].get("rss")) or 0.0))[:WORKERS_MAX]
    return [
        _row(subject, label, by_subject[subject][figure], shown, found, zone)
        for subject in (*others, *largest)
        for figure, label, shown in FIGURES[_kind(subject)]
        if figure in by_subject[subject]
    ]


def _kind(subject: str) -> str:
    return subject.partition(" ")[0]


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _highest(series: GaugeSeries | None) -> float | None:
    return max(_known(series.high), default=None) if series is not None else None


def _row(
    subject: str,
    label: str,
    series: GaugeSeries,
    shown: Callable[[float | None], str],
    found: ResourceRange,
    zone: tzinfo | None,
) -> FigureRow:
    means, highest = _known(series.mean), _highest(series)
    at = fmt.UNKNOWN
    if highest is not None:
        began = found.start + series.high.index(highest) * found.step
        at = fmt.short_time(began, found.end - found.start, found.step, zone)
    return FigureRow(subject, label, shown(sum(means) / len(means) if means else None), shown(highest), at)
