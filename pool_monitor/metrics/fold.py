"""Fold buffered records of calls into a batch that every window can add: the arithmetic of calls, in bulk.

A record is four whole numbers in a plain list: the call's code (`code_of`), and its ``duration``, ``queue_duration``
and ``execution_duration`` in nanoseconds. ``execution_duration`` is `ABSENT` when it was not measured. Rows are
explained in `pool_monitor.metrics.series`, columns in `pool_monitor.metrics.columns`.
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
"""Eleven days. A longer duration is an error of measurement, and would spoil the exact sums."""

# A code holds, from the highest bits to the lowest: the row, the category of the error, the session kind, the outcome.
_OUTCOME_BITS, _KIND_BITS, _CATEGORY_BITS = 3, 2, 4
_ROW_SHIFT = _OUTCOME_BITS + _KIND_BITS + _CATEGORY_BITS
KIND_CODES = {kind: number << _OUTCOME_BITS for number, kind in enumerate(SESSION_KINDS)}
"""The number to add to a code for each session kind."""
CATEGORY_CODES = {name: number << (_OUTCOME_BITS + _KIND_BITS) for number, name in enumerate(CATEGORIES)}
"""The number to add to a code for each category."""


class UnsuccessfulCalls(NamedTuple):
    """The calls of a batch whose outcome is not ``ok``, one by one."""

    rows: NDArray[np.int64]
    outcomes: NDArray[np.int64]
    """Indices into `OUTCOMES`."""
    durations: NDArray[np.int64]
    """From the call to its end, ns."""
    weight: int
    """How many calls each element stands for."""


class CallBatch(NamedTuple):
    """Folded records, ready to be added to a window."""

    keys: NDArray[np.intp]
    """One per duration: ``(row * len(DISTRIBUTIONS) + distribution) * BUCKETS + bucket``."""
    weight: np.int32 | NDArray[np.int32]
    """How many durations each key stands for; a single number if it is the same for all."""
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
    """None: every call was successful."""


def code_of(row: int, outcome: str = "ok") -> int:
    """The code of a call without a session; add one of `KIND_CODES` or `CATEGORY_CODES` for other calls."""
    return (row << _ROW_SHIFT) + OUTCOMES.index(outcome)


def fold(
    buffer: list[Any],
    pool_of_rows: NDArray[np.intp],
    pools: int,
    weights: tuple[int, int] = (1, 1),
    *,
    one_in: int = 1,
    phase: int = 0,
) -> CallBatch:
    """Fold the records in *buffer* into one batch. *pool_of_rows* has the pool of every row; there are *pools* pools.

    *weights* is how many calls a record stands for: first for a call that ended well, then for any other. A record is
    dropped when a duration is not a whole number, is negative, or exceeds `LONGEST_NS`. A duration above `HIGHEST_NS`
    is clamped: it counts in the last bucket, and stays exact in sum and maximum.

    *one_in* is how many durations of a series share a bucket: with 1, each counts in its own. With more, the durations
    of a series are taken in runs of that length, and one of each run counts for all of it; *phase* chooses which. So a
    histogram has as many durations as before, and fewer buckets in use. With 0, no duration is recorded: there are no
    keys, sums, maxima and no unsuccessful calls.
    """
    records = _records(buffer)
    dropped = len(buffer) // RECORD - len(records)
    codes, times, measured, out_of_range = _checked(records)
    rows = len(pool_of_rows)
    row, outcome = codes >> _ROW_SHIFT, codes & ((1 << _OUTCOME_BITS) - 1)

    ended_well = outcome == 0
    # A single number if all weights are 1: an array of ones takes twice as long.
    weight: Any = np.int64(1) if weights == (1, 1) else np.where(ended_well, *weights).astype(np.int64)

    tallies = np.zeros((rows, TALLIES), np.int64)
    flat, columns = tallies.reshape(-1), row * TALLIES
    np.add.at(flat, columns + outcome, weight)
    # Where the worker did not measure the execution, the time since the hand-over counts instead.
    outside = np.maximum(times[:, 0] - times[:, 1], 0)
    np.add.at(flat, columns + BUSY, np.where(measured, times[:, 2], outside) * weight)

    unsuccessful = None
    if one_in and not ended_well.all():
        some = np.flatnonzero(~ended_well)
        unsuccessful = UnsuccessfulCalls(row[some], outcome[some], times[some, 0], weights[1])

    series = row[:, None] * len(DISTRIBUTIONS) + np.arange(len(DISTRIBUTIONS))
    if not one_in:
        series, times = series[:0], times[:0]
    elif not (ended_well.all() and measured.all()):
        counted = np.repeat(ended_well[:, None], len(DISTRIBUTIONS), axis=1)
        counted[:, 2] &= measured
        series, times = series[counted], times[counted]
    series, times = series.reshape(-1), times.reshape(-1)
    each = weights[0]  # only calls that ended well have durations
    sums, maxima = np.zeros((2, rows * len(DISTRIBUTIONS)), np.int64)
    np.add.at(sums, series, times * each)
    np.maximum.at(maxima, series, times)
    tallies[:, SUMS] = sums.reshape(rows, -1)
    clamped = int(np.count_nonzero(times > HIGHEST_NS)) * each
    each_key: np.int32 | NDArray[np.int32] = np.int32(each)  # a plain 1 costs np.add.at fifty times as much
    if one_in > 1:
        series, times, lengths = _sampled(series, times, one_in, phase)
        each_key = lengths * each_key
    return CallBatch(
        keys=(series << BUCKET_BITS) + bucket_of(times),
        weight=each_key,
        tallies=tallies,
        maxima=maxima.reshape(rows, -1),
        pool_sums=_pool_sums(codes, pool_of_rows[row], pools, weight),
        events=int(np.broadcast_to(weight, len(codes)).sum()),
        dropped=dropped + out_of_range,
        clamped=clamped,
        unsuccessful=unsuccessful,
    )


def _sampled(series: Ints, times: Ints, one_in: int, phase: int) -> tuple[Ints, Ints, NDArray[np.int32]]:
    """One duration of every run of *one_in* durations of a series, and the lengths of the runs."""
    small = not len(series) or int(series.max()) < 2**16
    order = np.argsort(series.astype(np.uint16) if small else series, kind="stable")  # a radix sort for small numbers
    series, times = series[order], times[order]
    places = np.arange(len(series))
    first_of_series = np.flatnonzero(np.diff(series, prepend=-1))
    place_in_series = places - np.repeat(first_of_series, np.diff(first_of_series, append=len(series)))
    runs = np.flatnonzero(place_in_series % one_in == 0)
    lengths = np.diff(runs, append=len(series))
    chosen = runs + phase % np.maximum(lengths, 1)
    return series[chosen], times[chosen], lengths.astype(np.int32)


def _checked(records: Ints) -> tuple[Ints, Ints, NDArray[np.bool_], int]:
    """Codes, times (shape (records, 3)) and whether the execution was measured; and the number of records dropped."""
    codes, times = np.ascontiguousarray(records[:, 0]), np.ascontiguousarray(records[:, 1:])
    measured = np.asarray(times[:, 2] != ABSENT)
    if not measured.all():
        times = times.copy()  # the array of a single record is a read-only view of bytes
        times[~measured, 2] = 0
    if not len(times) or (times.min() >= 0 and times.max() <= LONGEST_NS):
        return codes, times, measured, 0
    valid = ((times >= 0) & (times <= LONGEST_NS)).all(axis=1)
    return codes[valid], times[valid], measured[valid], len(records) - int(np.count_nonzero(valid))


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
    """The buffer as an array of shape (records, RECORD). Records with a value that is not an integer are left out."""
    try:
        # struct is the fastest way from a list to an array: 3.6 ns per number; np.array takes 9.4.
        packed = struct.pack(f"{len(buffer)}q", *buffer)
    except FAILURES as error:  # an emitter may put any value into an event: pack the records one by one
        pass_on(error)
        packed = b"".join(_packed(buffer[at : at + RECORD]) for at in range(0, len(buffer), RECORD))
    return np.frombuffer(packed, np.int64).reshape(-1, RECORD)


def _packed(record: list[Any]) -> bytes:
    try:
        return struct.pack(f"{RECORD}q", *record)
    except FAILURES as error:
        pass_on(error)
        return b""
