"""`look`: one pass over the histories of all pools. It needs nothing but its arguments, so that a thread can run it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pool_monitor.advisor.detection import Detection, PatternCheck
from pool_monitor.advisor.gil_pauses import yield_gil
from pool_monitor.advisor.history import SPAN_S, PoolHistory
from pool_monitor.advisor.patterns import PATTERNS
from pool_monitor.advisor.replay import needed
from pool_monitor.snapshot.advice import Pattern
from pool_monitor.telemetry import FAILURES, describe, pass_on

REPLAYED = 20_000
"""Most calls of a span that are played again: the latest."""
TARGET_SHARE = 0.7
"""The part of the target that a size has to keep to be called enough."""
FOUND_MAX = 500
"""Most detections of one pattern in one pool that are taken."""


class Look(NamedTuple):
    """What a pass has found."""

    now: float
    wall: float
    found: tuple[tuple[str, Detection], ...]
    """The detections, each with its pool."""
    failures: Mapping[Pattern, str]
    """The patterns that have raised, and what."""
    needed: Mapping[str, Mapping[float, float]]
    """By pool: the sizes that spans have needed, by the beginning of the span. For `Journal.note_needed`."""
    settings: Mapping[str, Mapping[str, float]]
    """By pool: the values of its tunables."""


def look(histories: Sequence[PoolHistory], patterns: Mapping[Pattern, PatternCheck] = PATTERNS) -> Look:
    """Look for *patterns* in *histories*. A pattern that raises finds nothing in that pool, and is reported."""
    found: list[tuple[str, Detection]] = []
    failures: dict[Pattern, str] = {}
    spans: dict[str, dict[float, float]] = {}
    for history in histories:
        try:
            fresh = needed_sizes(history)
        except FAILURES as error:
            pass_on(error)
            fresh, failures["underused"] = {}, describe(error)  # the pattern that stands on them
        spans[history.pool] = fresh
        shown = _with_needed(history, fresh)
        for pattern, check in patterns.items():
            yield_gil()
            try:
                ours = [(history.pool, one) for one in check(shown)]
            except FAILURES as error:
                pass_on(error)
                failures[pattern] = describe(error)
            else:
                found += ours[:FOUND_MAX]
    return Look(
        now=max((history.now for history in histories), default=0.0),
        wall=max((history.wall for history in histories), default=0.0),
        found=tuple(found),
        failures=failures,
        needed=spans,
        settings={history.pool: history.settings for history in histories},
    )


def needed_sizes(history: PoolHistory) -> dict[float, float]:
    """The sizes that the spans have needed of which that is not known yet, by the beginning of the span.

    A busy pool forgets the first calls of a span before the span is over. Then the latest that are kept count, in each
    pass, and the span that goes on is among the spans. At most `REPLAYED` calls are played again.
    """
    spans, calls = history.spans, history.calls
    target = TARGET_SHARE * history.wait_target
    if not target > 0 or history.one_in > 1:
        return {}
    unknown = np.isnan(spans.needed)
    empty = unknown & (spans.calls == 0) & ~np.isnan(spans.size)
    found = dict.fromkeys(spans.at[empty].tolist(), 1.0)
    if not len(calls.arrived):
        return found
    kept_since = float(calls.arrived[0])
    begins = spans.at[unknown & ~empty & (spans.at + SPAN_S > kept_since)].tolist()
    going_on = math.floor(history.now / SPAN_S) * SPAN_S
    if len(calls.arrived) >= history.calls_most and kept_since > going_on:
        begins.append(going_on)
    for at in begins:
        inside = np.flatnonzero((calls.arrived >= at) & (calls.arrived < at + SPAN_S) & ~np.isnan(calls.started))
        inside = inside[-REPLAYED:]
        inside = inside[np.argsort(calls.arrived[inside], kind="stable")]
        size = needed(calls.arrived[inside], (calls.ended - calls.started)[inside], target)
        if size is not None and len(inside):
            found[at] = float(size)
    return found


def _with_needed(history: PoolHistory, fresh: Mapping[float, float]) -> PoolHistory:
    if not fresh:
        return history
    sizes = history.spans.needed.copy()
    for at, size in fresh.items():
        sizes[history.spans.at == at] = size
    return history._replace(spans=history.spans._replace(needed=sizes))
