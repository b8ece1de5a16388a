"""Charts as text: line, bar, sparkline, and their scales.

Theory of operation: a series is cut into *bins*, one per column. Each bin keeps its lowest and highest value, so a
spike of one second stays visible in a line, however long the window is. Bars show the mean. Bins begin at multiples of
their length in absolute time: a new value changes only the last bin, and now and then moves the chart by one whole
cell. Bins counted back from "now" would regroup all values at every tick, and the chart would flicker.

A bin in which nothing was measured is None. It is drawn as a gap: not as zero, and not as a line across.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, floor, log10
from statistics import fmean
from typing import NamedTuple

from pool_monitor.snapshot import Trend

Values = Sequence[float | None]


class Bin(NamedTuple):
    """The values of one stretch of time."""

    low: float
    high: float
    mean: float


def bins(values: Values, step: float, end: float, number: int, align: int = 1) -> list[Bin | None]:
    """Return *values* in *number* bins, oldest first. The last value is in one of the last *align* bins.

    *values* are *step* seconds apart; the last one ends at *end*. Bins begin at multiples of their length, and the
    first bin at a multiple of *align* bins, so that a cell of several dots always shows the same bins.
    """
    if not values or number <= 0:
        return [None] * max(number, 0)
    length = len(values) * step / number
    last = (floor((end - step / 2) / length / align + 1e-6) + 1) * align
    begin = end - len(values) * step
    result: list[Bin | None] = []
    for index in range(last - number, last):
        left, right = ((edge * length - begin) / step for edge in (index, index + 1))
        # A value belongs to the bin that contains its middle. A bin shorter than a step shows the value around it.
        first, stop = ceil(left - 0.5 - 1e-6), ceil(right - 0.5 - 1e-6)
        if first >= stop:
            first = floor((left + right) / 2)
            stop = first + 1
        known = [value for value in values[max(first, 0) : max(stop, 0)] if value is not None]
        result.append(Bin(min(known), max(known), fmean(known)) if known else None)
    return result


def trend_bins(trend: Trend, values: Values, number: int, align: int = 1) -> list[Bin | None]:
    """Return the `bins` of *values*, a series of *trend*."""
    return bins(values, trend.step, trend.end, number, align)


def nice_limit(highest: float) -> float:
    """Return the top of an axis for *highest*: 1, 1.5, 2, 3 or 5 times a power of ten, so that it seldom changes."""
    if highest <= 0:
        return 1.0
    highest = max(highest, 1e-6)  # smaller values would be lost in rounding, and matter to no reader
    power = 10.0 ** floor(log10(highest))
    for factor in (1, 1.5, 2, 3, 5, 10):
        if highest <= factor * power * (1 + 1e-9):
            return factor * power
    raise AssertionError(highest)


_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # bits of the left and right column, from the top


def line_chart(points: Sequence[Bin | None], rows: int, limit: float) -> list[str]:
    """Return *points* as a braille line in *rows* lines of text, two points per cell. *limit* is at the very top, 0 at
    the very bottom. Neighbouring points are joined; gaps stay open.
    """
    height = rows * 4 - 1
    cells = [[0] * (len(points) // 2) for _ in range(rows)]
    before: tuple[int, int] | None = None
    for column, point in enumerate(points[: len(points) // 2 * 2]):
        if point is None:
            before = None
            continue
        low, high = (round(min(max(value / limit, 0.0), 1.0) * height) for value in (point.low, point.high))
        here = (low, high)
        if before is not None:
            low, high = min(low, before[1] + 1), max(high, before[0] - 1)
        before = here
        for level in range(low, high + 1):
            row, dot = divmod(height - level, 4)
            cells[row][column // 2] |= _DOTS[column % 2][dot]
    return ["".join(chr(0x2800 + dots) for dots in row) for row in cells]


_EIGHTHS_UP = " ▁▂▃▄▅▆▇█"
_EIGHTHS_RIGHT = " ▏▎▍▌▋▊▉█"


def column_chart(values: Values, rows: int, limit: float) -> list[str]:
    """Return vertical bars in *rows* lines of text. A value above zero shows at least one eighth; ``·`` marks a gap."""
    lines = []
    for row in range(rows - 1, -1, -1):
        floor_eighths = row * 8
        lines.append("".join(_column_cell(value, floor_eighths, rows, limit) for value in values))
    return lines


def _column_cell(value: float | None, floor_eighths: int, rows: int, limit: float) -> str:
    if value is None:
        return "·" if floor_eighths == 0 else " "
    eighths = max(1, round(min(value / limit, 1.0) * rows * 8)) if value > 0 else 0
    return _EIGHTHS_UP[min(max(eighths - floor_eighths, 0), 8)]


def sparkline(values: Values) -> str:
    """Return a `column_chart` of one line, scaled to the highest of *values*."""
    return column_chart(values, 1, max((value for value in values if value is not None), default=0.0) or 1.0)[0]


def means(points: Sequence[Bin | None]) -> list[float | None]:
    """Return the mean of every bin."""
    return [None if point is None else point.mean for point in points]


def bar(share: float, cells: int) -> str:
    """Return a bar that fills *share* of *cells* cells, to an eighth of a cell. A share above 0 shows at least one."""
    eighths = round(min(max(share, 0.0), 1.0) * cells * 8)
    if share > 0:
        eighths = max(eighths, 1)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS_RIGHT[rest] if rest else ""))[:cells].ljust(cells)


Label = Callable[[float], str]


def axis_labels(rows: int, limit: float, label: Label) -> list[str | None]:
    """Return the axis label of each row of a chart: the limit, half of it if a row is exactly there, and 0."""
    labels: list[str | None] = [None] * rows
    if rows % 2 == 1 and rows >= 3:
        labels[rows // 2] = label(limit / 2)
    labels[0] = label(limit)
    labels[-1] = label(0.0) if rows > 1 else labels[-1]
    return labels
