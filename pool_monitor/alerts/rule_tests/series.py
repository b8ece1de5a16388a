"""Series as tests of rules write them, in the notation of promtool: ``pool.size{pool="p"}`` and ``0+10x5 _ stale 1x3``.

A series is kept as runs, so ``0x100000`` takes as little room as ``0``.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Literal, NamedTuple

from pool_monitor.alerts.catalogue import Unit
from pool_monitor.alerts.quantity import parse
from pool_monitor.alerts.rule_file.nodes import shown

LOOKBACK_S = 300.0
"""How long a value holds while no other one follows, in seconds, as in Prometheus."""
RUNS_MAX = 10_000
"""Most runs of a series."""
POINTS_MAX = 10**9
"""Most points of a series."""

_NAME = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_.]*)\s*(?:\{(.*)\}\s*)?", re.DOTALL)
_LABEL = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')\s*(,|$)")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_VALUE = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?: ?(?:%|/s|[A-Za-wyzµ]+))?|[Ii]nf|[Nn]a[Nn]"
_ITEM = re.compile(rf"([+-]?(?:{_VALUE}))(?:([+-](?:{_VALUE})))?(?:x([0-9]{{1,12}}))?")
_NOTHING = re.compile(r"(_|stale)(?:x([0-9]{1,12}))?")


class SeriesName(NamedTuple):
    metric: str
    labels: dict[str, str]


class PointRun(NamedTuple):
    """Points that follow one another: *first*, and *number* of them. The n-th has the value ``value + n * step``."""

    first: int
    number: int
    value: float
    step: float
    what: Literal["value", "missing", "stale"]


class Course:
    """The points of one series, *interval* seconds apart, from 0 on. At most `RUNS_MAX` runs."""

    def __init__(self, runs: list[PointRun], interval: float) -> None:
        self.interval = interval
        self._runs = runs
        self._firsts = [run.first for run in runs]

    def at(self, time: float) -> float | None:
        """Return the value at *time*, in seconds after the beginning: that of the latest point. NaN is an unknown
        value; None means that there is no such series at that time.
        """
        index = math.floor(time / self.interval + 1e-9)
        place = bisect_right(self._firsts, index) - 1
        while place >= 0:
            run = self._runs[place]
            latest = min(index, run.first + run.number - 1)
            if time - latest * self.interval >= LOOKBACK_S or run.what == "stale":
                return None
            if run.what == "value":
                return run.value + (latest - run.first) * run.step
            place -= 1
        return None


def name_of_series(text: str) -> SeriesName:
    """Return what ``metric{label="value", ...}`` names. Raises ValueError with what is wrong and the remedy."""
    match = _NAME.fullmatch(text)
    if match is None:
        raise ValueError(
            f'{shown(text)} is not a series; needs a metric with its labels, such as pool.size{{pool="p"}}'
        )
    labels: dict[str, str] = {}
    rest = match[2] or ""
    while rest.strip():
        label = _LABEL.match(rest)
        if label is None:
            raise ValueError(f'{shown(rest.strip())} is not a label; needs name="value", with a comma between two')
        if label[1] in labels:
            raise ValueError(f"the label {label[1]} is there twice")
        labels[label[1]] = _ESCAPED.sub(_unescaped, label[2][1:-1])
        rest = rest[label.end() :]
    return SeriesName(match[1], labels)


def course_of(text: str, interval: float, unit: Unit) -> Course:
    """Return the points that *text* describes. Numbers are in the base *unit*, or have a unit, such as ``5%``.

    Raises ValueError with what is wrong and the remedy.
    """
    runs: list[PointRun] = []
    first = 0
    for number, item in enumerate(text.split(), 1):
        for run in _runs(item, number, first, unit):
            runs.append(run)
            first = run.first + run.number
        if len(runs) > RUNS_MAX or first > POINTS_MAX:
            raise ValueError(f"has more than {RUNS_MAX} items or {POINTS_MAX:,} points, the most that are read")
    if not runs:
        raise ValueError("is empty; needs values, such as 0+10x5 _ stale 1x3")
    return Course(runs, interval)


def _runs(item: str, number: int, first: int, unit: Unit) -> Iterator[PointRun]:
    if nothing := _NOTHING.fullmatch(item):
        count = int(nothing[2] or 1)
        if count:
            yield PointRun(first, count, 0.0, 0.0, "missing" if nothing[1] == "_" else "stale")
        return
    match = _ITEM.fullmatch(item)
    if match is None:
        raise ValueError(
            f"item {number}, {shown(item)}, is not known; needs a value, as in 3, 5x4 or 0+10x5, or _ or stale"
        )
    value, step = _number(match[1], number, unit), _number(match[2], number, unit) if match[2] else 0.0
    if match[2] and match[3] is None:
        raise ValueError(f"item {number}, {shown(item)}, does not say how often it grows; write {item}x5")
    yield PointRun(first, int(match[3] or 0) + 1, value, step, "value")


def _number(text: str, number: int, unit: Unit) -> float:
    sign = -1.0 if text[0] == "-" else 1.0
    digits = text.lstrip("+-")
    try:
        return sign * float(digits)
    except ValueError:
        pass
    try:
        return sign * parse(digits, unit)
    except ValueError as error:
        raise ValueError(f"item {number}: {error}") from None


def _unescaped(match: re.Match[str]) -> str:
    return {"n": "\n", "t": "\t"}.get(match[1], match[1])
