"""Gauges over time: means and maxima of readings, per step, subject and figure.

The readings of one second become a `GaugeBlock`. Blocks are merged without loss: the mean of a long step is the mean of
its readings, and its maximum is the highest of them. Memory keeps the last hour (`GaugeStore`), the history the rest.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pool_monitor.errors import ConfigError, UnknownName
from pool_monitor.metrics.timespan import TimeSpan
from pool_monitor.snapshot import GaugeSeries, ResourceRange

SUBJECTS_MAX = 10_200
"""Most subjects with readings in one second: 10,000 workers, and some of the machine."""
VALUES_MAX = 500_000
"""Most values in a `ResourceRange`: series times steps."""
LEVELS = ((1, 300), (10, 3600))
"""The steps that memory keeps and for how long, in seconds."""


class GaugeBlock(NamedTuple):
    """The readings of one step. All arrays have the shape (subjects, figures)."""

    subjects: tuple[str, ...]
    figures: tuple[str, ...]
    counts: NDArray[np.uint32]
    """Readings. 0: there was none, and mean and high are 0 too."""
    means: NDArray[np.float32]
    highs: NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        """An upper estimate of the memory it takes; the names are shared with other blocks."""
        return 400 + 8 * (len(self.subjects) + len(self.figures)) + 12 * self.counts.size


class TimedGauges(NamedTuple):
    """The gauges of *length* seconds from *start* on, in seconds since the epoch."""

    start: int
    length: int
    block: GaugeBlock


class OpenGauges:
    """The readings of the open second: at most `SUBJECTS_MAX` subjects; readings of others are dropped."""

    def __init__(self) -> None:
        self._sums: dict[str, dict[str, list[float]]] = {}

    def add(self, subject: str, figures: Mapping[str, float]) -> bool:
        """Count one reading. Returns whether there was room for it."""
        subject = sys.intern(subject)
        sums = self._sums.get(subject)
        if sums is None:
            if len(self._sums) >= SUBJECTS_MAX:
                return False
            sums = self._sums[subject] = {}
        for name, value in figures.items():
            held = sums.get(name)
            if held is None:
                sums[name] = [1, value, value]
            else:
                held[0] += 1
                held[1] += value
                held[2] = max(held[2], value)
        return True

    def close(self) -> GaugeBlock | None:
        """Return the readings as a block, and begin anew; None: there were none."""
        sums, self._sums = self._sums, {}
        subjects = tuple(sorted(sums))
        figures = tuple(sorted({name for found in sums.values() for name in found}))
        if not figures:
            return None
        column = {name: number for number, name in enumerate(figures)}
        table = np.zeros((3, len(subjects), len(figures)))
        for row, subject in enumerate(subjects):
            for name, held in sums[subject].items():
                table[:, row, column[name]] = held
        return _block(subjects, figures, *table)


def merged(blocks: Sequence[GaugeBlock]) -> GaugeBlock:
    """The readings of all *blocks*, of which there is at least one."""
    subjects = tuple(sorted({name for block in blocks for name in block.subjects}))
    figures = tuple(sorted({name for block in blocks for name in block.figures}))
    rows, columns = _numbers(subjects), _numbers(figures)
    counts = np.zeros((len(subjects), len(figures)))
    sums, highs = np.zeros_like(counts), np.full_like(counts, -np.inf)
    for block in blocks:
        at = np.ix_([rows[name] for name in block.subjects], [columns[name] for name in block.figures])
        counts[at] += block.counts
        sums[at] += block.counts * block.means.astype(float)
        highs[at] = np.maximum(highs[at], np.where(block.counts > 0, block.highs, -np.inf))
    return _block(subjects, figures, counts, sums, np.where(counts > 0, highs, 0))


def _block(
    subjects: tuple[str, ...],
    figures: tuple[str, ...],
    counts: NDArray[np.float64],
    sums: NDArray[np.float64],
    highs: NDArray[np.float64],
) -> GaugeBlock:
    most = float(np.finfo(np.float32).max)  # a figure has no more digits than this type, but its sum may be larger
    means = np.clip(sums / np.maximum(counts, 1), -most, most)
    return GaugeBlock(
        subjects,
        figures,
        np.minimum(counts, 2**32 - 1).astype(np.uint32),
        means.astype(np.float32),
        np.clip(highs, -most, most).astype(np.float32),
    )


def _numbers(names: Iterable[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}


class GaugeStore:
    """The blocks of the last hour, as `LEVELS` says: at most *limit* bytes, without the oldest ones if need be."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.nbytes = 0
        self._levels: list[deque[TimedGauges]] = [deque() for _level in LEVELS]
        self._pending: list[TimedGauges] = []
        """The fine blocks of the coarse step that is not over: at most one for each of its seconds."""

    def add(self, second: int, block: GaugeBlock) -> None:
        """Add the readings of a *second* of the collector's clock."""
        step = LEVELS[1][0]
        if self._pending and self._pending[0].start // step != second // step:
            start = self._pending[0].start // step * step
            self._append(1, TimedGauges(start, step, merged([timed.block for timed in self._pending])))
            self._pending.clear()
        self._pending.append(TimedGauges(second, 1, block))
        self._append(0, self._pending[-1])
        for level, (_step, reach) in zip(self._levels, LEVELS, strict=True):
            while level and level[0].start < second - reach:
                self._drop(level)
        while self.nbytes > self.limit and any(self._levels):
            self._drop(max(self._levels, key=lambda level: sum(timed.block.nbytes for timed in level)))

    def _append(self, level: int, timed: TimedGauges) -> None:
        self._levels[level].append(timed)
        self.nbytes += timed.block.nbytes

    def _drop(self, level: deque[TimedGauges]) -> None:
        self.nbytes -= level.popleft().block.nbytes

    def read(self, step: int, first: int) -> Iterator[TimedGauges]:
        """Every block from *first* on, each reading once, in steps that *step* is a multiple of.

        The coarse blocks where they fit and only they reach back to *first*; the fine blocks for everything else.
        """
        fine, coarse = self._levels
        if step % LEVELS[1][0] == 0 and coarse and (not fine or fine[0].start > first):
            yield from coarse
            yield from self._pending
        else:
            yield from fine


def step_reaching(first: float, now: float) -> int:
    """The finest step that memory keeps from *first* on."""
    return next((step for step, reach in LEVELS if first >= now - reach), LEVELS[-1][0])


def resource_range(
    timed: Iterable[TimedGauges], asked: TimeSpan, subject: str | None, figure: str | None = None
) -> ResourceRange:
    """The figures of *subject* (None: of all) in the steps of *asked*, or that *figure* alone.

    Raises UnknownName when *subject* has no reading in that time, and ConfigError for more than `VALUES_MAX` values.
    """
    inside = [
        (step, block)
        for start, _length, block in timed
        if 0 <= (step := (start - asked.start) // asked.step) < asked.steps
    ]
    if subject is not None:
        found = {name for _step, block in inside for name in block.subjects}
        if subject not in found:
            shown = ", ".join(sorted(found)[:20]) + (f" and {len(found) - 20} more" if len(found) > 20 else "")
            raise UnknownName(f"resource {subject!r} was not measured then; measured: {shown or 'nothing'}")
    keys: dict[tuple[str, str], int] = {}
    placed = []
    for step, block in inside:
        wanted = block.counts > 0
        if subject is not None:
            wanted &= np.array([name == subject for name in block.subjects])[:, None]
        if figure is not None:
            wanted &= np.array([name == figure for name in block.figures])
        rows, columns = np.nonzero(wanted)
        names = ((block.subjects[row], block.figures[column]) for row, column in zip(rows, columns, strict=True))
        at = np.array([keys.setdefault(name, len(keys)) for name in names], np.intp)
        if len(keys) * asked.steps > VALUES_MAX:
            raise ConfigError(
                f"resources(...): more than {VALUES_MAX:,} values; ask for one subject, such as "
                f"{next(iter(keys))[0]!r}, for a larger step, or for less time"
            )
        placed.append((step, at, block.counts[wanted], block.means[wanted], block.highs[wanted]))
    counts = np.zeros((len(keys), asked.steps))
    sums, highs = np.zeros_like(counts), np.full_like(counts, -np.inf)
    for step, at, number, means, high in placed:
        counts[at, step] += number
        sums[at, step] += number * means.astype(float)
        highs[at, step] = np.maximum(highs[at, step], high)
    known = counts > 0
    means_of = np.where(known, sums / np.maximum(counts, 1), np.nan)
    return ResourceRange(
        start=float(asked.start),
        end=float(asked.end),
        step=float(asked.step),
        subject=subject,
        series=tuple(
            GaugeSeries(
                subject=key[0],
                figure=key[1],
                mean=_known(means_of[keys[key]], known[keys[key]]),
                high=_known(highs[keys[key]], known[keys[key]]),
            )
            for key in sorted(keys)
        ),
    )


def _known(values: NDArray[np.float64], known: NDArray[np.bool_]) -> tuple[float | None, ...]:
    return tuple(value if is_known else None for value, is_known in zip(values.tolist(), known.tolist(), strict=True))
