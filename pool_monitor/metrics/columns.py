"""The columns of the arrays that hold the counts of calls and pools.

A row has a histogram and a maximum for each of `DISTRIBUTIONS`, and `TALLIES` sums. A pool has `POOL_SUMS` sums and
`PEAKS` maxima. Windows, blocks on disk and exporters all use this layout, so a new metric begins with a column here.
`pool_monitor.metrics.fold` computes the columns from calls.
"""

from __future__ import annotations

from typing import get_args

from pool_monitor.errors import Category
from pool_monitor.events import SESSION_KINDS
from pool_monitor.metrics.histogram import Ints

DISTRIBUTIONS = ("latency", "queue", "execution")
OUTCOMES = ("ok", "error", "timeout", "worker_lost", "cancelled", "rejected")
FAILED = slice(1, 4)
"""The outcomes that are errors."""
ACCEPTED = slice(0, 5)
"""All outcomes except ``rejected``."""
CATEGORIES = (*get_args(Category), "other")
"""The categories of errors.py, and ``other`` for any other category in an event."""

# The columns of the tallies: calls per outcome, then sums in ns.
TALLIES = len(OUTCOMES) + 4
SUMS = slice(len(OUTCOMES), len(OUTCOMES) + 3)
"""Sums of `DISTRIBUTIONS`, over calls that ended well."""
BUSY = len(OUTCOMES) + 3
"""Sum of the time on the worker, over calls of every outcome."""

# The columns of a pool's sums.
GAUGES = ("size", "busy", "idle", "starting", "waiting", "sessions")
"""Gauges that are sampled, at most once a second."""
BY_SESSION_KIND = slice(0, len(SESSION_KINDS) * len(OUTCOMES))
"""Calls per session kind and outcome."""
BY_CATEGORY = slice(BY_SESSION_KIND.stop, BY_SESSION_KIND.stop + len(CATEGORIES))
"""Calls that failed (`FAILED`), per category."""
DEATHS, MEASURED_NS, SAMPLES = range(BY_CATEGORY.stop, BY_CATEGORY.stop + 3)
"""Workers that died; ns measured; how many samples of the gauges were taken."""
GAUGE_SUMS = slice(SAMPLES + 1, SAMPLES + 1 + len(GAUGES))
"""Sums of the samples of `GAUGES`. Divided by `SAMPLES` they are means."""
POOL_SUMS = GAUGE_SUMS.stop
PEAK_GAUGES = ("busy", "waiting")
"""Gauges whose highest sample is kept."""
PEAKS = len(PEAK_GAUGES)


def by_session_kind(pool_sums: Ints) -> Ints:
    """The calls of pools per session kind and outcome: shape (..., SESSION_KINDS, OUTCOMES)."""
    return pool_sums[..., BY_SESSION_KIND].reshape(*pool_sums.shape[:-1], len(SESSION_KINDS), len(OUTCOMES))
