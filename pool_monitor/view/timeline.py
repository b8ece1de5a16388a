"""Small charts over time: throughput with errors, and p99 of latency; and when things were worst, in words."""

from __future__ import annotations

from collections.abc import Callable
from datetime import tzinfo
from functools import partial
from itertools import groupby
from math import ceil

from pool_monitor.snapshot import Point, Range
from pool_monitor.view import chart, panels
from pool_monitor.view import format as fmt
from pool_monitor.view.text import Line, Segment

_ROWS = 4
_NARROWEST = 40
"""The fewest columns in which a chart is drawn."""
_NAMED = 3
"""Up to this many times are named; the rest are counted."""


def charts(timeline: Range, cells: int, zone: tzinfo | None = None) -> list[Line]:
    """Return two framed charts, one above the other, over the same time. Empty: no call ended, or there is no room."""
    if cells < _NARROWEST or not any(point.ok or point.errors for point in timeline.points):
        return []
    times = (timeline.start, (timeline.start + timeline.end) // 2, timeline.end)
    first, half, last = (_clock(timeline, zone, at) for at in times)
    foot = panels.time_axis(cells - 2, first, half, last)
    steps = f" · steps of {fmt.period(timeline.step)}"
    return [*_throughput(timeline, cells, steps, foot), *_slowest(timeline, cells, steps, foot)]


def _throughput(timeline: Range, cells: int, steps: str, foot: list[tuple[int, str]]) -> list[Line]:
    columns = cells - 2 - panels.GUTTER
    ok = [_per_second(point, point.ok) for point in timeline.points]
    errors = chart.means(_bins([_per_second(point, point.errors) for point in timeline.points], columns))
    peak = _highest(errors)
    body = panels.plot(_bins(ok, columns * 2), _ROWS, chart.nice_limit(_highest(ok)), fmt.axis_number)
    body += panels.error_bars(errors, 1, peak)
    title = [Segment("throughput", "strong"), Segment(f" ok/s{steps}", "dim")]
    return panels.panel(title, body, cells, note=f"errors up to {fmt.rate(peak)}/s" if peak else "no errors", foot=foot)


def _slowest(timeline: Range, cells: int, steps: str, foot: list[tuple[int, str]]) -> list[Line]:
    values = [point.latency.p99 for point in timeline.points]
    points = _bins(values, (cells - 2 - panels.GUTTER) * 2)
    highest = _highest(values)
    body = panels.plot(points, _ROWS, chart.nice_limit(highest), fmt.axis_duration)
    title = [Segment("latency", "strong"), Segment(f" p99{steps}", "dim")]
    return panels.panel(title, body, cells, note=f"up to {fmt.duration(highest)}" if highest else "", foot=foot)


def _per_second(point: Point, calls: int) -> float | None:
    return calls / point.covered_seconds if point.covered_seconds else None


def _highest(values: chart.Values) -> float:
    return max((value for value in values if value is not None), default=0.0)


def _bins(values: chart.Values, number: int) -> list[chart.Bin | None]:
    """Return *number* bins that *values* fill from edge to edge. A value may fill several bins."""
    times = ceil(number / len(values))
    repeated = [value for value in values for _ in range(times)]
    return chart.bins(repeated, 1.0, float(len(repeated)), number)


def highlights(timeline: Range, zone: tzinfo | None = None) -> list[str]:
    """Return, in words, when failures, latency and waiting peaked, when workers died, and when nothing was measured."""
    points, found = timeline.points, []
    clock = partial(_clock, timeline, zone)
    for what, measure, words in _WORST:
        worst = max(points, key=measure)
        if measure(worst):
            found.append(f"{what}: {words(worst)}, in the {fmt.period(timeline.step)} from {clock(worst.start)}")
    runs = [list(run) for gap, run in groupby(points, lambda point: not point.covered_seconds) if gap]
    lists = {
        "workers died": [
            f"{clock(point.start)}{f' ({point.deaths})' if point.deaths > 1 else ''}"
            for point in points
            if point.deaths
        ],
        "not measured": [f"{clock(run[0].start)} to {clock(run[-1].start + timeline.step)}" for run in runs],
    }
    return [*found, *(f"{what}: {_named(when)}" for what, when in lists.items() if when)]


_WORST: tuple[tuple[str, Callable[[Point], float], Callable[[Point], str]], ...] = (
    (
        "most failed",
        lambda point: point.errors,
        lambda point: f"{fmt.count(point.errors)} of {fmt.plural(point.calls, 'call')}",
    ),
    (
        "slowest",
        lambda point: point.latency.p99 or 0.0,
        lambda point: f"p99 {fmt.percentile(point.latency.p99, point.latency.count)}",
    ),
    ("most waiting", lambda point: point.waiting_max or 0, lambda point: fmt.plural(point.waiting_max or 0, "call")),
)


def _clock(timeline: Range, zone: tzinfo | None, at: float) -> str:
    return fmt.short_time(at, timeline.end - timeline.start, timeline.step, zone)


def _named(times: list[str]) -> str:
    more = f" and {len(times) - _NAMED} more" if len(times) > _NAMED else ""
    return ", ".join(times[:_NAMED]) + more
