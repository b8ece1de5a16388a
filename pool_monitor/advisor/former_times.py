"""The execution times that an operation used to have, in stretches of time, oldest first.

A mixture of all of them is a bad figure of "before": after an hour with a hot cache, or half an hour in which each call
failed at once, what was always normal is slower than the mixture. So that a level counts as new only if it was rare.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pool_monitor.advisor.extracts import YOUNG_S, ServedCalls, is_shifted
from pool_monitor.advisor.gil_pauses import yield_gil
from pool_monitor.advisor.history import Floats, OperationHistory, service_bounds

USUAL_SHARE = 1 / 3
"""A level that an operation had for this share of the time is usual."""
FORMER_S = 480.0
"""Seconds that must be known, at least, without the first `YOUNG_S`."""
STRETCH_CALLS = 200
"""Calls of a stretch, at least: the median of fewer is not sure to 10 %."""
_STRETCH_S = 300.0
_HOUR_S = 3600.0
_DAY_S = 86_400.0
_VALUES = 4_000


class FormerStretch(NamedTuple):
    """Some time, and the calls in it."""

    seconds: float
    logs: Floats
    """Logarithms of their execution times, in order."""


def of_day(operation: OperationHistory, now: float) -> NDArray[np.bool_]:
    """Return which hours of *operation* are about the same of a day before."""
    age = now - operation.hours
    return np.asarray((np.abs((age + _DAY_S / 2) % _DAY_S - _DAY_S / 2) <= 5400.0) & (age > _DAY_S / 2))


def former_stretches(
    operation: OperationHistory, calls: ServedCalls, since: float, until: float, now: float
) -> list[FormerStretch]:
    """Return the stretches before *until*, oldest first: the same hours of the days before if two days or more have
    them, or else hours, and five minutes or more of the *calls* that are in the buffer. *since* is when the history
    began. The first `YOUNG_S` of an operation are left out: its caches were cold, or its data were few.
    """
    rows, same = operation.counts.astype(np.int64), of_day(operation, now)
    hours = operation.hours[same]
    if len(hours) and hours[-1] - hours[0] >= _DAY_S / 2 and int(rows[same].sum()) >= STRETCH_CALLS:
        return list(_of_hours(rows[same], np.full(len(hours), _HOUR_S), 0.0))
    buffered = float(calls.started.min()) if calls.total else until
    if int(rows.sum()) <= calls.total:  # it has them all
        return list(_of_calls(calls, max(since, buffered) + YOUNG_S, until))
    begins = np.maximum(operation.hours, since)
    seconds = np.minimum(operation.hours + _HOUR_S, min(buffered, until)) - begins
    kept = seconds > 0
    last = operation.hours[kept][-1:]  # the buffer has some calls of it
    rows = rows[kept]
    if len(last):
        inside = calls.service[calls.ended < last[0] + _HOUR_S]
        classes = np.searchsorted(service_bounds(), inside)
        rows[-1] = np.maximum(rows[-1] - np.bincount(classes, minlength=rows.shape[1]), 0)
    return [*_of_hours(rows, seconds[kept], 3 * YOUNG_S), *_of_calls(calls, buffered, until)]


def is_new(former: list[FormerStretch], logs: Floats, shift: float) -> bool:
    """Return whether calls with *logs*, which are in order, have a level that was rare: of the time before, without
    that of this level just now, less than `USUAL_SHARE` had it. *shift* is by how much they are longer than all calls
    before; a stretch has their level if they are longer than it by less than half of that. False: too little is known.
    """
    alike = []
    for one in former:
        yield_gil()
        alike.append(not is_shifted(one.logs, logs, shift / 2))
    while alike and alike[-1]:
        alike.pop()
    known = sum(one.seconds for one in former[: len(alike)])
    usual = sum(one.seconds for one, is_alike in zip(former, alike, strict=False) if is_alike)
    return known >= FORMER_S and usual < USUAL_SHARE * known


def values_of(counts: NDArray[np.int64]) -> Floats:
    """Return values that have the histogram *counts*: at most 4,000, spread evenly within each class."""
    bounds = service_bounds()
    total = int(counts.sum())
    shown = min(total, _VALUES)
    places = (np.arange(shown) + 0.5) * total / shown
    ends = np.cumsum(counts)
    at = np.searchsorted(ends, places)
    high = np.append(bounds, bounds[-1] * 1.05)[at]
    within = (places - (ends[at] - counts[at])) / counts[at]
    return np.asarray(high / 1.05 * 1.05**within)


def _of_hours(rows: NDArray[np.int64], seconds: Floats, first_s: float) -> Iterator[FormerStretch]:
    """Yield stretches of one hour or more; the first one has *first_s* at least."""
    counts, length, least = np.zeros(rows.shape[1], np.int64), 0.0, first_s
    for row, part in zip(rows, seconds.tolist(), strict=True):
        counts, length = counts + row, length + part
        if length >= least and int(counts.sum()) >= STRETCH_CALLS:
            yield FormerStretch(length, np.log(values_of(counts)))
            counts, length, least = np.zeros(rows.shape[1], np.int64), 0.0, 0.0


def _of_calls(calls: ServedCalls, since: float, until: float) -> Iterator[FormerStretch]:
    """Yield stretches with equal numbers of calls, of `_STRETCH_S` on the average or more."""
    found = calls.between(since, until)
    count = min(int((until - since) / _STRETCH_S), found.total // STRETCH_CALLS)
    if count < 1:
        return
    order = np.argsort(found.started, kind="stable")
    started, logs = found.started[order], np.log(np.maximum(found.service[order], 1e-7))
    ends = (np.arange(1, count) * found.total) // count
    borders = np.concatenate(([since], started[ends], [until]))
    for length, part in zip(np.diff(borders).tolist(), np.split(logs, ends), strict=True):
        yield FormerStretch(length, np.sort(part))
