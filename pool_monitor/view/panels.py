"""The framed charts of the overview: throughput with errors, and the distribution of latency."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from pool_monitor.snapshot import Bar, CallStats, Distribution, PoolDetail, Snapshot
from pool_monitor.view import chart
from pool_monitor.view import format as fmt
from pool_monitor.view.text import Line, Meaning, Segment, clean, fit, fit_line, line_width, truncate_line, width


def panel(
    title: Line, body: Sequence[Line], cells: int, *, note: str = "", foot: Sequence[tuple[int, str]] = ()
) -> list[Line]:
    """Return *body* in a frame, with *title* and *note* in its top edge and the texts of *foot* in its bottom edge."""
    inner = max(cells - 2, 0)
    head = truncate_line([Segment(" "), *title, Segment(" ")], inner - 2) if title else []
    tail = [Segment(f" {note} ", "dim")] if note and line_width(head) + width(note) + 6 <= inner else []
    rule = "─" * (inner - 2 - line_width(head) - line_width(tail))
    top = [Segment("╭─", "frame"), *head, Segment(rule, "frame"), *tail, Segment("─╮", "frame")]
    edge = "─" * inner
    for column, text in foot:
        edge = edge[:column] + text + edge[column + len(text) :]
    sides = [[Segment("│", "frame"), *fit_line(line, inner), Segment("│", "frame")] for line in body]
    return [top, *sides, [Segment(f"╰{edge}╯", "frame")]]


_WHOLE = 0.98
"""The covered share from which a window counts as whole: a window that slides by steps lacks up to one step."""
GUTTER = 6
"""Cells for the axis of a chart and its labels."""


def throughput(snapshot: Snapshot, pool: PoolDetail, cells: int, rows: int) -> list[Line]:
    """Return the chart of calls that ended well per second, as a line. Bars below it, on the same time axis, show the
    calls that failed and, if there were any, the calls that were refused.
    """
    trend = pool.trend
    title = [Segment("throughput", "strong"), Segment(" ok/s", "dim"), Segment(_window_in_words(snapshot), "dim")]
    inner, room = cells - 2, rows - 2
    if not any(value for value in (*trend.ok, *trend.errors, *trend.rejected)):
        return panel(title, _reason_for_no_chart(snapshot, pool, inner, room), cells)
    columns = inner - GUTTER
    error_rows = 1 if room < 9 else 2 if room < 15 else 3
    rejected = chart.means(chart.trend_bins(trend, trend.rejected, columns))
    most_rejected = max((value for value in rejected if value is not None), default=0.0)
    rejected_rows = min(error_rows, 2) if most_rejected else 0
    line_rows = room - error_rows - rejected_rows
    limit = chart.nice_limit(max((value for value in trend.ok if value is not None), default=0.0))
    body = plot(chart.trend_bins(trend, trend.ok, columns * 2, align=2), line_rows, limit, fmt.axis_number)
    errors = chart.means(chart.trend_bins(trend, trend.errors, columns))
    peak = max((value for value in errors if value is not None), default=0.0)
    body += error_bars(errors, error_rows, peak)
    body += error_bars(rejected, rejected_rows, most_rejected, "rej")
    seconds = len(trend.ok) * trend.step
    foot = time_axis(inner, f"-{fmt.period(seconds)}", f"-{fmt.period(seconds / 2)}", "now")
    note = f"errors up to {fmt.rate(peak)}/s" if peak else "no errors"
    note += f", rejected up to {fmt.rate(most_rejected)}/s" if most_rejected else ""
    return panel(title, body, cells, note=note, foot=foot)


def plot(points: Sequence[chart.Bin | None], rows: int, limit: float, label: chart.Label) -> list[Line]:
    """Return a line chart of *points*, two per cell, in *rows* rows, with its axis labels."""
    labels, drawing = chart.axis_labels(rows, limit, label), chart.line_chart(points, rows, limit)
    return [_row(text, drawn, "data") for text, drawn in zip(labels, drawing, strict=True)]


def error_bars(errors: chart.Values, rows: int, peak: float, label: str = "err") -> list[Line]:
    """Return bars of *errors*, one per cell, scaled to *peak*."""
    bars = chart.column_chart(errors, rows, peak or 1.0)
    return [_row(label if row == rows - 1 else None, drawn, "bad") for row, drawn in enumerate(bars)]


def time_axis(inner: int, first: str, half: str, last: str) -> list[tuple[int, str]]:
    """Return the time labels for the bottom edge of a chart panel with *inner* cells, each with its column."""
    columns = inner - GUTTER
    half, last = f" {half} ", f" {last} "
    return [(GUTTER - 1, f" {first} "), (GUTTER + columns // 2 - len(half) // 2, half), (inner - len(last) - 1, last)]


def _row(label: str | None, text: str, meaning: Meaning) -> Line:
    axis = "┤" if label is not None else "│"
    return [Segment(fit(label or "", GUTTER - 1, "right"), "dim"), Segment(axis, "frame"), *chart_line(text, meaning)]


def _window_in_words(snapshot: Snapshot) -> str:
    """Return the window in words, with its covered part while the monitor is younger than the window."""
    if snapshot.covered_seconds < snapshot.window_seconds * _WHOLE:
        return f" · {fmt.whole_age(snapshot.covered_seconds)} of {clean(snapshot.window)} so far"
    return f" · last {clean(snapshot.window)}"


def _reason_for_no_chart(snapshot: Snapshot, pool: PoolDetail, cells: int, rows: int) -> list[Line]:
    """Return the words that replace an empty chart. They count the same calls as the tables. A chart consists of whole
    steps, so the latest calls may be in the tables and not yet in the chart.
    """
    total, window = pool.total, clean(snapshot.window)
    before = pool.completed - sum(pool.refusals.values()) - total.calls
    counts = ((total.errors, "failed"), (total.cancelled, "cancelled"), (total.rejected, "rejected"))
    parts = [f"{fmt.count(number)} {word}" for number, word in counts if number]
    if before > 0:
        parts.append(f"{fmt.plural(before, 'call')} before")
    if total.ok:
        words = [f"{fmt.plural(total.calls, 'call')} ended in the last {window}", "this chart has them in a moment"]
    elif total.calls:
        words = [f"no call ended well in the last {window}", ", ".join(parts)]
    elif parts or pool.completed:
        words = [f"no call ended in the last {window}", ", ".join(parts)]
    else:
        words = ["no calls yet", "the first one that ends is shown here within a second"]
    lines: list[Line] = [[] for _ in range((rows - len(words)) // 2)]
    lines += [[Segment(fit("", (cells - len(text)) // 2) + text, "dim")] for text in words]
    return (lines + [[] for _ in range(rows)])[:rows]


def latency(snapshot: Snapshot, pool: PoolDetail, cells: int, rows: int) -> list[Line]:
    """Return the distribution of the durations of calls that ended well; the bars with p50, p95 and p99 are marked."""
    distribution = pool.total.latency
    inner, room = cells - 2, rows - 2
    title = [Segment("latency", "strong"), Segment(_window_in_words(snapshot), "dim")]
    if not pool.histogram or not distribution.count:
        return panel(title, _reason_for_no_chart(snapshot, pool, inner, room), cells)
    bars = fold_bars(pool.histogram, room)
    marked = _marks(bars, distribution)
    mark_cells = 11 if inner >= 44 else 7
    marks = [_mark(names, distribution.count, mark_cells) for names in marked]
    drawn = inner - 8 - 1 - 1 - 5 - 1 - mark_cells - 1
    highest = max(bar.count for bar in bars)
    everything = sum(bar.count for bar in bars)
    body: list[Line] = []
    for index, (bar, mark) in enumerate(zip(bars, marks, strict=True)):
        lower = (bars[index - 1].upper or 0.0) if index else 0.0
        bound = fmt.more_than(lower) if bar.upper is None else fmt.at_most(bar.upper)
        body.append(
            [
                Segment(f"{bound:>8} ", "dim"),
                Segment(chart.bar(bar.count / highest if highest else 0.0, drawn), "data"),
                Segment(f" {fmt.percent(bar.count / everything if everything else None):>5}"),
                Segment(f" {fit(mark, mark_cells)}", "strong"),
            ]
        )
    if room - len(body) >= 4:
        body += [[], *_more_figures(pool.total)]
    body += [[] for _ in range(room - len(body))]
    return panel(title, body, cells, note=f"{fmt.count(distribution.count)} ok")


def _more_figures(total: CallStats) -> list[Line]:
    """Return the figures that the bars do not show."""
    everything = total.latency
    rows = (
        (("p90", everything.p90), ("p99.9", everything.p999)),
        (("queue p95", total.queue.p95), ("execution p95", total.execution.p95)),
        (("mean", everything.mean), ("max", everything.max)),
    )
    lines: list[Line] = []
    for row in rows:
        line: Line = [Segment("  ")]
        for name, value in row:
            text = fmt.duration(value) if name in {"mean", "max"} else fmt.percentile(value, everything.count)
            line += [Segment(f"{name} ", "dim"), Segment(fit(text, 7))]
        lines.append(line)
    return lines


def fold_bars(bars: Sequence[Bar], most: int) -> list[Bar]:
    """Return at most *most* bars. The first or the last bar, whichever counts less, is merged into its neighbour until
    they fit. Every duration stays counted, and the bound of every bar stays true.
    """
    folded = list(bars)
    while len(folded) > max(most, 1):
        if folded[0].count <= folded[-1].count:
            folded[:2] = [Bar(folded[1].upper, folded[0].count + folded[1].count)]
        else:
            folded[-2:] = [Bar(None, folded[-2].count + folded[-1].count)]
    return folded


def _marks(bars: Sequence[Bar], distribution: Distribution) -> list[list[str]]:
    """Return, for every bar, the percentiles that lie in it, in ascending order."""
    marks: list[list[str]] = [[] for _ in bars]
    for name, value in (("p50", distribution.p50), ("p95", distribution.p95), ("p99", distribution.p99)):
        if value is not None:
            place = next((i for i, bar in enumerate(bars) if bar.upper is None or value <= bar.upper), len(bars) - 1)
            marks[place].append(name)
    return marks


def _mark(names: Sequence[str], samples: int, cells: int) -> str:
    """Return the percentiles of one bar side by side, or as a range from first to last if they do not fit."""
    few = "~" if samples < fmt.FEW else ""
    side_by_side = " ".join(few + name for name in names)
    return side_by_side if width(side_by_side) <= cells else f"{few}{names[0]}-{names[-1].removeprefix('p')}"


def chart_line(text: str, meaning: Meaning) -> Line:
    """Return a row of a chart in *meaning*, with the marks of gaps dim."""
    return [Segment("".join(run), "dim" if gap else meaning) for gap, run in groupby(text, lambda char: char == "·")]
