"""From buffered records to a batch that every window can add: all the arithmetic of one call, in bulk.

A record is four whole numbers in a plain list: the call's code (`code_of`), its ``duration``, ``queue_duration`` and
``execution_duration`` in nanoseconds, the last one `ABSENT` when it was not measured. A row is one series of
calls (`pool_monitor.metrics.series`). Which sum stands in which column is in `pool_monitor.metrics.columns`.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pool_monitor.events import ABSENT, SESSION_KINDS
from pool_monitor.metrics.columns import (
    BUSY,
    BY_CATEGORY,
    CATEGORIES,
    DISTRIBUTIONS,
    FAILED,
    OUTCOMES,
    POOL_SUMS,
    SUMS,
    TALLIES,
)
from pool_monitor.metrics.histogram import BUCKET_BITS, HIGHEST_NS, Ints, bucket_of
from pool_monitor.telemetry import FAILURES, pass_on

RECORD = 4
"""Numbers per record."""
LONGEST_NS = 10**15
"""Eleven days. A longer duration is no measurement but a mistake: it would spoil the exact sums."""

# A code: the row, then the category of what failed, the session kind, the outcome.
_OUTCOME_BITS, _KIND_BITS, _CATEGORY_BITS = 3, 2, 4
_ROW_SHIFT = _OUTCOME_BITS + _KIND_BITS + _CATEGORY_BITS
KIND_CODES = {kind: number << _OUTCOME_BITS for number, kind in enumerate(SESSION_KINDS)}
"""What a session kind adds to a code."""
CATEGORY_CODES = {name: number << (_OUTCOME_BITS + _KIND_BITS) for number, name in enumerate(CATEGORIES)}
"""What a category adds to a code."""


class UnsuccessfulCalls(NamedTuple):
    """The calls of a batch whose outcome is not ``ok``, one by one."""

    rows: NDArray[np.int64]
    outcomes: NDArray[np.int64]
    """Places in `OUTCOMES`."""
    durations: NDArray[np.int64]
    """From the call to its end, ns."""
    weight: int
    """How many calls each of them stands for."""


class CallBatch(NamedTuple):
    """What some records add to a window."""

    keys: NDArray[np.intp]
    """One per duration: ``(row * len(DISTRIBUTIONS) + distribution) * BUCKETS + bucket``."""
    weight: int
    """How many durations each of them stands for."""
    tallies: NDArray[np.int64]
    """Shape (rows, TALLIES)."""
    maxima: NDArray[np.int64]
    """Shape (rows, 3): longest of each distribution, ns."""
    pool_sums: NDArray[np.int64]
    """Shape (pools, POOL_SUMS)."""
    events: int
    dropped: int
    clamped: int
    unsuccessful: UnsuccessfulCalls | None = None
    """None: there is none."""


def code_of(row: int, outcome: str = "ok") -> int:
    """A row and an outcome in one number, for a call without a session; see `KIND_CODES` and `CATEGORY_CODES`."""
    return (row << _ROW_SHIFT) + OUTCOMES.index(outcome)


def fold(buffer: list[Any], pool_of_rows: NDArray[np.intp], pools: int, weights: tuple[int, int] = (1, 1)) -> CallBatch:
    """The records in *buffer* as one batch over the rows that *pool_of_rows* has, of so many *pools*.

    *weights* is how many calls a record stands for: one of a call that ended well, and any other. A duration that is
    no whole number, negative or longer than `LONGEST_NS` drops its record. One longer than the histogram reaches
    (`HIGHEST_NS`) is clamped: counted in the last bucket, exact in sum and maximum.
    """
    records = _records(buffer)
    dropped = len(buffer) // RECORD - len(records)
    codes, times, measured, insane = _checked(records)
    rows = len(pool_of_rows)
    row, outcome = codes >> _ROW_SHIFT, codes & ((1 << _OUTCOME_BITS) - 1)

    ended_well = outcome == 0
    # One number for all where it can be: a whole array of ones takes twice as long.
    weight: Any = np.int64(1) if weights == (1, 1) else np.where(ended_well, *weights).astype(np.int64)

    tallies = np.zeros((rows, TALLIES), np.int64)
    flat, columns = tallies.reshape(-1), row * TALLIES
    np.add.at(flat, columns + outcome, weight)
    # What was not measured in the worker is taken from outside: all the time since the hand-over.
    outside = np.maximum(times[:, 0] - times[:, 1], 0)
    np.add.at(flat, columns + BUSY, np.where(measured, times[:, 2], outside) * weight)

    unsuccessful = None
    if not ended_well.all():
        some = np.flatnonzero(~ended_well)
        unsuccessful = UnsuccessfulCalls(row[some], outcome[some], times[some, 0], weights[1])

    series = row[:, None] * len(DISTRIBUTIONS) + np.arange(len(DISTRIBUTIONS))
    if not (ended_well.all() and measured.all()):
        counted = np.repeat(ended_well[:, None], len(DISTRIBUTIONS), axis=1)
        counted[:, 2] &= measured
        series, times = series[counted], times[counted]
    series, times = series.reshape(-1), times.reshape(-1)
    each = weights[0]  # only calls that ended well have durations
    sums, maxima = np.zeros((2, rows * len(DISTRIBUTIONS)), np.int64)
    np.add.at(sums, series, times * each)
    np.maximum.at(maxima, series, times)
    tallies[:, SUMS] = sums.reshape(rows, -1)
    return CallBatch(
        keys=(series << BUCKET_BITS) + bucket_of(times),
        weight=each,
        tallies=tallies,
        maxima=maxima.reshape(rows, -1),
        pool_sums=_pool_sums(codes, pool_of_rows[row], pools, weight),
        events=int(np.broadcast_to(weight, len(codes)).sum()),
        dropped=dropped + insane,
        clamped=int(np.count_nonzero(times > HIGHEST_NS)) * each,
        unsuccessful=unsuccessful,
    )


def _checked(records: Ints) -> tuple[Ints, Ints, NDArray[np.bool_], int]:
    """Codes, times (shape (records, 3)), whether the execution was measured, and how many had to be dropped."""
    codes, times = np.ascontiguousarray(records[:, 0]), np.ascontiguousarray(records[:, 1:])
    measured = np.asarray(times[:, 2] != ABSENT)
    if not measured.all():
        times = times.copy()  # the memory of a single record is that of bytes, which cannot be written
        times[~measured, 2] = 0
    if not len(times) or (times.min() >= 0 and times.max() <= LONGEST_NS):
        return codes, times, measured, 0
    sane = ((times >= 0) & (times <= LONGEST_NS)).all(axis=1)
    return codes[sane], times[sane], measured[sane], len(records) - int(np.count_nonzero(sane))


def _pool_sums(codes: Ints, pool: NDArray[np.intp], pools: int, weight: Any) -> NDArray[np.int64]:
    """The sums of pools by session kind and by category."""
    outcome = codes & ((1 << _OUTCOME_BITS) - 1)
    kind = (codes >> _OUTCOME_BITS) & ((1 << _KIND_BITS) - 1)
    sums = np.zeros(pools * POOL_SUMS, np.int64)
    np.add.at(sums, pool * POOL_SUMS + kind * len(OUTCOMES) + outcome, weight)
    failed = np.flatnonzero((outcome >= FAILED.start) & (outcome < FAILED.stop))
    if len(failed):
        category = (codes[failed] >> (_OUTCOME_BITS + _KIND_BITS)) & ((1 << _CATEGORY_BITS) - 1)
        np.add.at(
            sums, pool[failed] * POOL_SUMS + BY_CATEGORY.start + category, np.broadcast_to(weight, codes.shape)[failed]
        )
    return sums.reshape(pools, POOL_SUMS)


def _records(buffer: list[Any]) -> Ints:
    """The buffer as an array of shape (records, RECORD), without the records that hold anything but integers."""
    try:
        # Packing by struct is the fastest way from a list to an array: 3.6 ns a number against 9.4 of np.array.
        packed = struct.pack(f"{len(buffer)}q", *buffer)
    except FAILURES as error:  # whatever an emitter put there: find it and leave it out
        pass_on(error)
        packed = b"".join(_packed(buffer[at : at + RECORD]) for at in range(0, len(buffer), RECORD))
    return np.frombuffer(packed, np.int64).reshape(-1, RECORD)


def _packed(record: list[Any]) -> bytes:
    try:
        return struct.pack(f"{RECORD}q", *record)
    except FAILURES as error:
        pass_on(error)
        return b""
