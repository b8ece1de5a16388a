"""From buffered records to a batch that every window can add: all the arithmetic of one call, in bulk.

A record is four whole numbers in a plain list: the call's code (`code_of`), its ``duration``, ``queue_duration`` and
``execution_duration`` in nanoseconds, the last one `ABSENT` when it was not measured. A row is one series of
calls (`pool_monitor.metrics.series`) and has `DISTRIBUTIONS` histograms, `TALLIES` sums and three maxima.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pool_monitor.metrics.histogram import BUCKET_BITS, HIGHEST_NS, Ints, bucket_of

RECORD = 4
"""Numbers per record."""
ABSENT = -(2**63)
LONGEST_NS = 10**15
"""Eleven days. A longer duration is no measurement but a mistake: it would spoil the exact sums."""

DISTRIBUTIONS = ("latency", "queue", "execution")
OUTCOMES = ("ok", "error", "timeout", "worker_lost", "cancelled", "rejected")
OUTCOME_BITS = 3
FAILED = slice(1, 4)
"""The outcomes that are errors."""

# The columns of the tallies: calls per outcome, then sums in ns.
TALLIES = len(OUTCOMES) + 4
SUMS = slice(len(OUTCOMES), len(OUTCOMES) + 3)
"""Sums of `DISTRIBUTIONS`, over calls that ended well."""
BUSY = len(OUTCOMES) + 3
"""Time on the worker, over all calls, however they ended."""


class Batch(NamedTuple):
    """What some records add to a window."""

    keys: NDArray[np.intp]
    """One per duration: ``(row * len(DISTRIBUTIONS) + distribution) * BUCKETS + bucket``."""
    tallies: NDArray[np.int64]
    """Shape (rows, TALLIES)."""
    maxima: NDArray[np.int64]
    """Shape (rows, 3): longest of each distribution, ns."""
    events: int
    dropped: int
    clamped: int


def code_of(row: int, outcome: str = "ok") -> int:
    """A row and an outcome in one number."""
    return (row << OUTCOME_BITS) + OUTCOMES.index(outcome)


def fold(buffer: list[Any], rows: int) -> Batch:
    """The records in *buffer* as one batch over rows ``0 .. rows-1``.

    A duration that is no whole number, negative or longer than `LONGEST_NS` drops its record. One longer than the
    histogram reaches (`HIGHEST_NS`) is clamped: counted in the last bucket, exact in sum and maximum.
    """
    records = _records(buffer)
    codes, duration, queue, execution = np.ascontiguousarray(records.T)
    measured = execution != ABSENT
    execution = np.where(measured, execution, 0)
    lowest = np.minimum(np.minimum(duration, queue), execution)
    highest = np.maximum(np.maximum(duration, queue), execution)
    sane = (lowest >= 0) & (highest <= LONGEST_NS)
    if not sane.all():
        codes, duration, queue, execution, measured = (
            column[sane] for column in (codes, duration, queue, execution, measured)
        )
    row, outcome = codes >> OUTCOME_BITS, codes & ((1 << OUTCOME_BITS) - 1)

    tallies = np.zeros((rows, TALLIES), np.int64)
    flat = tallies.reshape(-1)
    np.add.at(flat, row * TALLIES + outcome, np.int64(1))
    # What was not measured in the worker is taken from outside: all the time since the hand-over.
    np.add.at(flat, row * TALLIES + BUSY, np.where(measured, execution, np.maximum(duration - queue, 0)))

    ended_well = outcome == 0
    executed = ended_well & measured
    series = len(DISTRIBUTIONS) * row
    series = np.concatenate((series[ended_well], series[ended_well] + 1, series[executed] + 2))
    times = np.concatenate((duration[ended_well], queue[ended_well], execution[executed]))
    sums, maxima = np.zeros((2, rows * len(DISTRIBUTIONS)), np.int64)
    np.add.at(sums, series, times)
    np.maximum.at(maxima, series, times)
    tallies[:, SUMS] = sums.reshape(rows, -1)
    return Batch(
        keys=(series << BUCKET_BITS) + bucket_of(times),
        tallies=tallies,
        maxima=maxima.reshape(rows, -1),
        events=len(codes),
        dropped=len(buffer) // RECORD - len(codes),
        clamped=int(np.count_nonzero(times > HIGHEST_NS)),
    )


def _records(buffer: list[Any]) -> Ints:
    """The buffer as an array of shape (records, RECORD), without the records that hold anything but integers."""
    try:
        # Packing by struct is the fastest way from a list to an array: 3.6 ns a number against 9.4 of np.array.
        packed = struct.pack(f"{len(buffer)}q", *buffer)
    except Exception:  # noqa: BLE001 - whatever an emitter put there: find it and leave it out
        packed = b"".join(_packed(buffer[at : at + RECORD]) for at in range(0, len(buffer), RECORD))
    return np.frombuffer(packed, np.int64).reshape(-1, RECORD)


def _packed(record: list[Any]) -> bytes:
    try:
        return struct.pack(f"{RECORD}q", *record)
    except Exception:  # noqa: BLE001 - as above
        return b""
