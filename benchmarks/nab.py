"""Scores detectors on the Numenta Anomaly Benchmark (NAB), by its rules. The data are the user's: none are here.

Written from the rules (Lavin and Ahmad, Evaluating Real-time Anomaly Detection Algorithms: the Numenta Anomaly
Benchmark, 2015), without code of theirs:

- A detector sees the values of a file one by one. The first 15 % of a file, and at most 750 rows, do not count.
- A row is declared anomalous if its score reaches the threshold, which is the same for all files.
- A declared row within a labelled window is worth the more the earlier it is, and only the best row of a window counts.
  A window without a declared row is missed. A declared row outside of all windows is a false alarm; it costs the less
  the closer it is behind a window.
- The sum is put on a scale on which 0 is to declare nothing, and 100 to declare the first row of each window and
  nothing else.

NAB publishes the score at the threshold that is best for these files. A product does not know it beforehand, so
`Judge.at` returns the score at a given threshold.
"""

from __future__ import annotations

import csv
import json
import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

PROBATION = 0.15
PROBATION_ROWS = 750
NOTHING = math.inf
"""The threshold at which nothing is declared."""


class Weights(NamedTuple):
    """What counts how much: a window found at its first row, a false alarm, a window that is missed."""

    found: float
    false: float
    missed: float


PROFILES = {
    "standard": Weights(1.0, 0.11, 1.0),
    "low_fp": Weights(1.0, 0.22, 1.0),
    "low_fn": Weights(1.0, 0.11, 2.0),
}


class Series(NamedTuple):
    name: str
    times: list[datetime]
    values: list[float]
    windows: list[tuple[int, int]]
    """First and last row of each labelled window, in order."""


class Row(NamedTuple):
    """A row that counts."""

    score: float
    window: int
    """The number of the labelled window that it is in; -1: none."""
    worth: float
    """What declaring it is worth: from 0 to 1 in a window, from -1 to 0 outside."""


class Result(NamedTuple):
    score: float
    threshold: float
    found: int
    """Labelled windows with a declared row."""
    false: int
    """Declared rows outside of windows."""


def load(folder: Path) -> list[Series]:
    """Return all labelled series under *folder*, which is laid out as numenta/NAB is. Raises ValueError, in words, if
    it is not.
    """
    labels = folder / "labels" / "combined_windows.json"
    try:
        labelled = json.loads(labels.read_text(encoding="utf-8"))
        if not isinstance(labelled, dict) or not labelled:
            raise ValueError("no files are named in it")
    except (OSError, ValueError) as error:
        raise ValueError(f"{labels} cannot be read: {error}") from None
    return [_series(folder / "data", name, spans) for name, spans in sorted(labelled.items())]


def _series(data: Path, name: str, spans: Any) -> Series:
    try:
        with (data / name).open(newline="", encoding="utf-8") as file:
            rows = [(datetime.fromisoformat(row["timestamp"]), float(row["value"])) for row in csv.DictReader(file)]
        times = [at for at, _ in rows]
        first = {at: number for number, at in reversed(list(enumerate(times)))}
        windows = sorted((first[_time(begin)], first[_time(end)]) for begin, end in spans)
    except KeyError as error:
        raise ValueError(f"{data / name}: it has no {error}") from None
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{data / name} cannot be read: {error}") from None
    return Series(name, times, [value for _, value in rows], windows)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def worth(position: float) -> float:
    """Return the worth of a declared row. *position* is -1 at the first row of a window, and 0 behind its last; behind
    the window it goes on, by the rows that a window has.
    """
    return -1.0 if position > 3 else 2 / (1 + math.exp(5 * position)) - 1


def rows_of(series: Series, scores: Sequence[float], first_number: int) -> list[Row]:
    """Return the rows of *series* that count. Its windows are numbered from *first_number* on."""
    ends = [last for _, last in series.windows]
    rows = []
    for at in range(min(math.floor(PROBATION * len(scores)), PROBATION_ROWS), len(scores)):
        number = bisect_left(ends, at)
        if number < len(ends) and series.windows[number][0] <= at:
            first, last = series.windows[number]
            position = (at - last - 1) / (last - first + 1)
            rows.append(Row(scores[at], first_number + number, worth(position) / worth(-1.0)))
        elif number == 0:
            rows.append(Row(scores[at], -1, -1.0))
        else:
            first, last = series.windows[number - 1]
            rows.append(Row(scores[at], -1, worth((at - last) / max(last - first, 1))))
    return rows


class Judge:
    """Scores what a detector said about each row of all *series*, by the weights of a profile."""

    def __init__(self, series: Sequence[Series], scores: Sequence[Sequence[float]]) -> None:
        rows: list[Row] = []
        self.windows = 0
        for one, said in zip(series, scores, strict=True):
            rows += rows_of(one, said, self.windows)
            self.windows += len(one.windows)
        self.rows = sorted(rows, key=lambda row: -row.score)
        self._within = len({row.window for row in rows} - {-1})
        """Windows that reach beyond the first rows, which do not count."""

    def best(self, weights: Weights) -> Result:
        """Return the score at the threshold that is best for these series: what NAB publishes."""
        return max(self._results(weights), key=lambda result: result.score)

    def at(self, threshold: float, weights: Weights) -> Result:
        """Return the score at *threshold*."""
        *_, last = (one for one in self._results(weights) if one.threshold >= threshold)
        return last._replace(threshold=threshold)

    def _results(self, weights: Weights) -> Iterable[Result]:
        """Yield the result at each threshold that makes a difference, the highest first."""
        gained = 0.0
        false = 0
        best: dict[int, float] = {}
        perfect = self.windows * weights.found + self._within * weights.missed
        yield Result(0.0, NOTHING, 0, 0)
        for threshold, rows in groupby(self.rows, key=lambda row: row.score):
            for row in rows:
                if row.window < 0:
                    false += 1
                    gained += weights.false * row.worth
                    continue
                before = best.get(row.window, -weights.missed)
                best[row.window] = max(before, weights.found * row.worth)
                gained += best[row.window] - before
            yield Result(100 * gained / (perfect or 1.0), threshold, len(best), false)


def scores_of(make: Callable[[], Any], series: Iterable[Series]) -> list[list[float]]:
    """Return what a new detector for each of *series* says, value by value. Raises ValueError if that is no score."""
    found = []
    for one in series:
        handle = make().handle
        said = [float(handle(at, value)) for at, value in zip(one.times, one.values, strict=True)]
        wrong = next((score for score in said if not 0 <= score <= 1), None)
        if wrong is not None:
            raise ValueError(f"{one.name}: a score is from 0 to 1, and one was {wrong}")
        found.append(said)
    return found
