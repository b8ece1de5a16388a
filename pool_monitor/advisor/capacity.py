"""What a worker of a pool takes of the machine: memory and processors."""

from __future__ import annotations

import numpy as np

from pool_monitor.advisor.history import BUCKET_S, PoolHistory

_UNCROWDED = 0.75
_BUSY = 1.0
_ROWS = 6


def worker_memory(history: PoolHistory) -> float | None:
    """Return the bytes of a large worker: the 95th percentile of the latest samples; None: not known."""
    latest = [float(worker.rss[-1]) for worker in history.by_worker.values() if len(worker.rss)]
    return float(np.quantile(latest, 0.95)) if latest else None


def cpu_fraction(history: PoolHistory) -> float | None:
    """Return the processor-seconds that a worker uses in a second in which it is busy; None: not known.

    Measured while the processors are not crowded (at most three quarters are in use), in at least a minute of such
    times. Workers that wait for a processor seem to need less, even for moments: so it is the upper quartile.
    """
    found = history.buckets
    with np.errstate(invalid="ignore", divide="ignore"):
        alone = found.host_cpu_ratio <= _UNCROWDED
        alone |= np.isnan(found.host_cpu_ratio) & (found.own_cpus <= _UNCROWDED * found.host_cpus)
        used = alone & (found.busy >= _BUSY) & ~np.isnan(found.cpu)
    if int(np.count_nonzero(used)) < _ROWS:
        return None
    return float(np.quantile(found.cpu[used] / (BUCKET_S * found.busy[used]), 0.75))
