"""What the advisor remembers of the operations of one pool: hourly histograms of their times on a worker, and the mean
of the logarithms by ten minutes.
"""

from __future__ import annotations

import math
import statistics
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pool_monitor.advisor.history import (
    ERROR,
    OK,
    OPERATIONS,
    SPAN_S,
    TIMEOUT,
    WORKER_LOST,
    OperationHistory,
    service_bounds,
)

HOUR_S = 3600.0
HOURS = 8 * 24
OPERATION_HOURS = 10 * HOURS
"""Hours of operations that are kept: with more than ten operations, less than eight days of each."""
TIMEOUTS = 20
"""Ends with a time-out from which the time-out is read."""

_BOUNDS = service_bounds()
_CLASSES = len(_BOUNDS) + 1
_TIMED_OUT, _FAILED = _CLASSES, _CLASSES + 1  # columns after those of the classes
_PARTS = int(HOUR_S / SPAN_S)
_PART_CALLS = _CLASSES + 2  # then, for each ten minutes of the hour, the calls in the classes, and
_PART_LOGS = _PART_CALLS + _PARTS  # the sum of the logarithms of their microseconds: in 64ths
_COLUMNS = _PART_LOGS + _PARTS
_LOG_UNIT = 1 / 64
_MEAN_UNIT = _LOG_UNIT / 2**16  # of the means of rows that are closed
_LOG_OF_SECOND = math.log(1e6)
BYTES = OPERATION_HOURS * (_COLUMNS * 4 + 200) + OPERATIONS * (_COLUMNS * 8 + TIMEOUTS * 32 + 600)
"""Most bytes of an `OperationJournal`."""


class OperationJournal:
    """The histograms of one pool: at most `OPERATION_HOURS` rows of `HOURS` hours, and the hour that goes on."""

    def __init__(self) -> None:
        self._hour: int | None = None
        self._now = np.zeros((1, _COLUMNS), np.int64)  # by operation: the hour that goes on
        self._rows: OrderedDict[tuple[int, int], NDArray[np.uint32]] = OrderedDict()  # by hour and operation
        self._timeouts: dict[int, deque[float]] = {}

    @property
    def nbytes(self) -> int:
        return int(self._now.nbytes) + len(self._rows) * (_COLUMNS * 4 + 200) + len(self._timeouts) * 1200

    def add(
        self,
        ended: NDArray[np.float64],
        operation: NDArray[np.int32],
        outcome: NDArray[np.int32],
        seconds: NDArray[np.float64],
        whole: NDArray[np.float64],
        weight: NDArray[np.float64],
    ) -> None:
        """Count calls that a worker had. *seconds* is their time on it, *whole* the time since they arrived."""
        self._turn(math.floor(float(ended[-1]) / HOUR_S))
        operations = int(operation.max()) + 1
        if operations > len(self._now):
            more = np.zeros((operations - len(self._now), _COLUMNS), np.int64)
            self._now = np.concatenate((self._now, more))
        self._add_levels(ended, operation, outcome, seconds, weight)
        column = np.searchsorted(_BOUNDS, seconds)
        rest = outcome > ERROR
        if rest.any():
            column = np.where(outcome == TIMEOUT, _TIMED_OUT, column)
            column = np.where(outcome == WORKER_LOST, _FAILED, column)
            for number, duration in zip(operation[outcome == TIMEOUT], whole[outcome == TIMEOUT], strict=True):
                self._timeouts.setdefault(int(number), deque(maxlen=TIMEOUTS)).append(float(duration))
            counted = (outcome <= TIMEOUT) | (outcome == WORKER_LOST)
            operation, column, outcome, weight = (a[counted] for a in (operation, column, outcome, weight))
        size = self._now.size
        flat = operation * np.int64(_COLUMNS) + column
        self._now += np.bincount(flat, weight, size).astype(np.int64).reshape(self._now.shape)
        failed = outcome == ERROR
        if failed.any():  # in their class, and among the failed
            counts = np.bincount(operation[failed], weight[failed], len(self._now)).astype(np.int64)
            self._now[:, _FAILED] += counts

    def _add_levels(
        self,
        ended: NDArray[np.float64],
        operation: NDArray[np.int32],
        outcome: NDArray[np.int32],
        seconds: NDArray[np.float64],
        weight: NDArray[np.float64],
    ) -> None:
        """Count calls for the ten minutes that go on, and add up their logarithms."""
        part = math.floor(float(ended[-1]) % HOUR_S / SPAN_S)
        counted = weight * (outcome <= ERROR)
        logs = np.log(np.maximum(seconds * 1e6, 1.0)) / _LOG_UNIT
        rows = len(self._now)
        self._now[:, _PART_CALLS + part] += np.bincount(operation, counted, rows).astype(np.int64)
        self._now[:, _PART_LOGS + part] += np.rint(np.bincount(operation, counted * logs, rows)).astype(np.int64)

    def taken(self, now: float) -> Callable[[], dict[int, OperationHistory]]:
        """What there is now. The function makes the histories of it, by operation; a thread may call it."""
        self._turn(math.floor(now / HOUR_S))
        timeouts = {number: tuple(seen) for number, seen in self._timeouts.items()}
        return partial(_histories, list(self._rows.items()), self._hour or 0, self._now.copy(), timeouts)

    def histories(self, now: float) -> dict[int, OperationHistory]:
        """The hours of each operation that was called, oldest first, with the one that goes on."""
        return self.taken(now)()

    def _turn(self, hour: int) -> None:
        """Put the hour that went on among the others, if another one has begun."""
        if self._hour is None:
            self._hour = hour
        if hour <= self._hour:
            return
        for number in np.flatnonzero(self._now.any(axis=1)).tolist():
            self._rows[self._hour, number] = _closed(self._now[number])
        self._now[:] = 0
        self._hour = hour
        while self._rows and (len(self._rows) > OPERATION_HOURS or next(iter(self._rows))[0] <= hour - HOURS):
            self._rows.popitem(last=False)


def _closed(hour: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Return the row of an hour with means instead of sums of the logarithms: a sum may not fit into 32 bits."""
    row, calls = hour.copy(), hour[_PART_CALLS:_PART_LOGS]
    row[_PART_LOGS:] = np.rint(row[_PART_LOGS:] / np.maximum(calls, 1) * 2**16)
    return row.astype(np.uint32)


_Rows = list[tuple[tuple[int, int], NDArray[np.uint32]]]


def _histories(
    rows: _Rows, hour: int, going_on: NDArray[np.int64], timeouts: Mapping[int, Sequence[float]]
) -> dict[int, OperationHistory]:
    hours: dict[int, list[int]] = {}
    counts: dict[int, list[NDArray[np.int64]]] = {}
    for (at, number), row in rows:
        hours.setdefault(number, []).append(at)
        counts.setdefault(number, []).append(row.astype(np.int64))
    for number in np.flatnonzero(going_on.any(axis=1)).tolist():
        hours.setdefault(number, []).append(hour)
        counts.setdefault(number, []).append(_closed(going_on[number]).astype(np.int64))
    return {number: _history(hours[number], counts[number], timeouts.get(number, ())) for number in sorted(hours)}


def _history(hours: list[int], counts: list[NDArray[np.int64]], timeouts: Sequence[float]) -> OperationHistory:
    table = np.stack(counts)
    calls = table[:, _PART_CALLS:_PART_LOGS].astype(np.float64)
    levels = np.where(calls > 0, table[:, _PART_LOGS:] * _MEAN_UNIT - _LOG_OF_SECOND, np.nan)
    return OperationHistory(
        hours=np.array(hours, np.float64) * HOUR_S,
        counts=table[:, :_CLASSES],
        timeouts=table[:, _TIMED_OUT].astype(np.float64),
        failed=table[:, _FAILED].astype(np.float64),
        timeout=_timeout(timeouts),
        span_calls=calls,
        span_levels=levels,
    )


def _timeout(seen: Sequence[float]) -> float | None:
    """The time-out that the latest calls that timed out have had; None: there are none, or they differ."""
    if not seen:
        return None
    middle = statistics.median(seen)
    alike = sum(abs(duration - middle) <= 0.1 * middle for duration in seen)
    return middle if alike >= 0.8 * len(seen) else None


assert OK < ERROR < TIMEOUT
