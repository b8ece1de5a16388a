"""How long an operation used to take, in stretches of time, oldest first.

A mixture of all calls is a bad figure of "before": after an hour with a hot cache, or half an hour in which each call
failed at once, what was always normal is slower than the mixture. So that a level counts as new only if it was rare.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pool_monitor.advisor.extracts import YOUNG_S, ServedCalls
from pool_monitor.advisor.history import SPAN_S, Floats, OperationHistory

USUAL_SHARE = 1 / 3
"""A level that an operation had for this share of the time is usual."""
FORMER_S = 480.0
"""Seconds that must be known, at least, without the first `YOUNG_S`."""
FORMER_RATIO = 1 / 4
"""And this share of the time for which the calls have had their level, if nobody saw it begin: a short memory fades."""
STRETCH_CALLS = 200
"""Calls of a stretch, at least: the mean of fewer is not sure to 10 %."""
_STRETCH_S = 300.0
_DAY_S = 86_400.0


class FormerStretch(NamedTuple):
    """Some time, and the calls in it."""

    seconds: float
    level: float
    """Mean of the logarithms of their seconds on a worker."""


def of_day(operation: OperationHistory, now: float) -> NDArray[np.bool_]:
    """Return which hours of *operation* are about the same of a day before."""
    age = now - operation.hours
    return np.asarray((np.abs((age + _DAY_S / 2) % _DAY_S - _DAY_S / 2) <= 5400.0) & (age > _DAY_S / 2))


def level_of(service: Floats) -> float:
    """Return the level of some calls: the mean of the logarithms of their seconds."""
    return float(np.log(np.maximum(service, 1e-6)).mean())


def former_stretches(
    operation: OperationHistory, calls: ServedCalls, since: float, until: float, now: float
) -> list[FormerStretch]:
    """Return the stretches before *until*, oldest first: the same hours of the days before if two days or more have
    them, or else all: ten minutes or more each, and five minutes or more of the *calls* that are in the buffer. *since*
    is when the history began. The first `YOUNG_S` of the operation are left out: its caches were cold, or empty.
    """
    same = of_day(operation, now)
    hours = operation.hours[same]
    if len(hours) and hours[-1] - hours[0] >= _DAY_S / 2 and operation.span_calls[same].sum() >= STRETCH_CALLS:
        return list(_of_spans(operation.span_calls[same].ravel(), operation.span_levels[same].ravel()))
    buffered = float(calls.started.min()) if calls.total else until
    if int(operation.counts.sum()) <= calls.total:  # it has them all
        return list(_of_calls(calls, max(since, buffered) + YOUNG_S, until))
    at = (operation.hours[:, None] + np.arange(operation.span_calls.shape[1]) * SPAN_S).ravel()
    counts, levels = operation.span_calls.ravel(), operation.span_levels.ravel()
    began = max(since, float(at[counts > 0].min(initial=until)))
    kept = (at >= began + YOUNG_S) & (at < buffered) & (at + SPAN_S <= until)
    return [*_of_spans(counts[kept], levels[kept]), *_of_calls(calls, max(buffered, began + YOUNG_S), until)]


def is_new(former: list[FormerStretch], level: float, shift: float, lasted: float) -> bool:
    """Return whether calls of this *level* were rare: of the time before they began to have it, less than `USUAL_SHARE`
    had it. *shift* is by how much their logarithms are more than those of all calls before; a stretch has their level
    if it is below it by less than half of that. *lasted* is for how many seconds after *former* they have had it; 0: it
    was seen when that began. False: too little is known.
    """
    alike = [level - one.level < shift / 2 for one in former]
    while alike and alike[-1]:
        lasted += former[len(alike) - 1].seconds
        alike.pop()
    known = sum(one.seconds for one in former[: len(alike)])
    usual = sum(one.seconds for one, is_alike in zip(former, alike, strict=False) if is_alike)
    return known >= max(FORMER_S, FORMER_RATIO * lasted) and usual < USUAL_SHARE * known


def _of_spans(counts: Floats, levels: Floats) -> Iterator[FormerStretch]:
    """Yield stretches of ten minutes or more. Times without a call do not count."""
    calls = seconds = total = 0.0
    for count, level in zip(counts.tolist(), levels.tolist(), strict=True):
        if not count or not math.isfinite(level):
            continue
        calls, seconds, total = calls + count, seconds + SPAN_S, total + count * level
        if calls >= STRETCH_CALLS:
            yield FormerStretch(seconds, total / calls)
            calls = seconds = total = 0.0


def _of_calls(calls: ServedCalls, since: float, until: float) -> Iterator[FormerStretch]:
    """Yield stretches with equal numbers of calls, of `_STRETCH_S` on the average or more."""
    found = calls.between(since, until)
    count = min(int((until - since) / _STRETCH_S), found.total // STRETCH_CALLS)
    if count < 1:
        return
    order = np.argsort(found.started, kind="stable")
    started, service = found.started[order], found.service[order]
    ends = (np.arange(1, count) * found.total) // count
    borders = np.concatenate(([since], started[ends], [until]))
    for length, part in zip(np.diff(borders).tolist(), np.split(service, ends), strict=True):
        yield FormerStretch(length, level_of(part))
