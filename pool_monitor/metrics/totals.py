"""Everything counted since the collector was attached: the source of exported counters and histograms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from pool_monitor.metrics.block import CHUNK
from pool_monitor.metrics.columns import BUSY, OUTCOMES, SUMS
from pool_monitor.metrics.event_counters import CounterValues, EventCounters
from pool_monitor.metrics.failure_histograms import FailureDurations, FailureHistograms
from pool_monitor.metrics.loop_lag import LagTotals
from pool_monitor.metrics.series import Names, RowKey, RowRegistry
from pool_monitor.metrics.window import SECOND_NS, Windows
from pool_monitor.metrics.worker_readings import ProcessTotals


@dataclass(frozen=True, slots=True)
class Totals:
    """Everything counted since the monitor was entered: the source of exported counters and histograms.

    The arrays must not be changed. Bucket *j* of ``counts`` is the base-2 exponential bucket of scale 5 with index
    ``FIRST_INDEX + first + j`` (`pool_monitor.metrics.histogram`): it holds ``(2**(index/32), 2**((index+1)/32)]``
    seconds. Counts only grow, also when a worker restarts. When rows run out, a row in which nothing was counted for
    longer than the longest window may be given to another name. Its totals are missing from then on.
    """

    since: float
    """When counting began, seconds since the epoch, by the wall clock as it is set now."""
    at: float
    """Now, seconds since the epoch. ``at - since`` is how long was counted, to within a second, also after a step of
    the clock."""
    names: Names
    outcomes: NDArray[np.int64]
    """Calls, shape (rows, `columns.OUTCOMES`)."""
    sums: NDArray[np.int64]
    """Sums of durations in ns, shape (rows, `columns.DISTRIBUTIONS`), of calls that ended well."""
    counts: NDArray[np.int64]
    """Shape (rows, `columns.DISTRIBUTIONS`, buckets), of calls that ended well."""
    first: int
    pool_sums: NDArray[np.int64]
    """Shape (pools, `columns.POOL_SUMS`): errors by category, deaths, calls by session kind."""
    busy: NDArray[np.int64] | None = None
    """Time on workers in ns, of all calls however they ended, shape (rows,); None: not known."""
    born: NDArray[np.float64] | None = None
    """When each row began to count, seconds since the epoch; None: not known."""
    failures: FailureDurations = field(default_factory=FailureDurations)
    """Durations of calls that did not end well."""
    occurrences: CounterValues | None = None
    """Counts of events other than calls (`pool_monitor.metrics.event_counters`); None: not known."""
    lag: LagTotals | None = None
    """How late the event loop ran; None: not known."""
    processes: Sequence[ProcessTotals] = ()
    """What the processes of each measured slot have used together."""

    def by_operation(self) -> Totals:
        """These totals with all workers of an operation added up. The worker in their names is None."""
        return self._by([(pool, operation, None) for pool, operation, _worker in self.names.rows])

    def by_worker(self) -> Totals:
        """These totals with all operations of a worker added up. The operation in their names is empty.

        Calls that never reached a worker are left out.
        """
        return self._by([(pool, "", worker) if worker else None for pool, _operation, worker in self.names.rows])

    def _by(self, keys: list[RowKey | None]) -> Totals:
        """These totals with the rows of equal *keys* added up. Rows whose key is None are left out."""
        place = {
            key: number
            for number, key in enumerate(
                sorted(set(filter(None, keys)), key=lambda key: (key[0], key[1], key[2] or ""))
            )
        }
        some = np.array([key is not None for key in keys], np.bool_)
        at = np.array([place[key] for key in keys if key is not None], np.intp)
        counts = np.zeros((len(place), *self.counts.shape[1:]), np.int64)
        for row, key in enumerate(keys):  # np.add.at takes ten times as long on wide rows
            if key is not None:
                counts[place[key]] += self.counts[row]

        def summed(array: NDArray[np.int64]) -> NDArray[np.int64]:
            sums = np.zeros((len(place), *array.shape[1:]), np.int64)
            np.add.at(sums, at, array[some])
            return sums

        born = None
        if self.born is not None:
            born = np.full(len(place), np.inf)
            np.minimum.at(born, at, self.born[some])
        return replace(
            self,
            names=Names(tuple(place), self.names.pools),
            outcomes=summed(self.outcomes),
            sums=summed(self.sums),
            counts=counts,
            busy=None if self.busy is None else summed(self.busy),
            born=born,
        )


def totals_of(
    windows: Windows, registry: RowRegistry, failure_histograms: FailureHistograms, event_counters: EventCounters,
    *, since_s: float, at_s: float, drift_s: float, lag: LagTotals,
    processes: Sequence[ProcessTotals],
) -> Totals:  # fmt: skip
    """Everything counted from *since_s* to *at_s*. *drift_s* is how far the wall clock is ahead of the collector's."""
    sums, opened, pages, names = windows.totals, windows.open.sums, windows.pages, registry.names()
    rows = np.array(registry.rows(), np.intp)
    chunk_range = pages.chunk_range(rows)
    tallies = sums.tallies[rows] + opened.tallies[rows]
    return Totals(
        since=since_s,
        at=at_s,
        names=Names(tuple(names.rows[row] for row in rows), names.pools),
        outcomes=tallies[:, : len(OUTCOMES)],
        sums=tallies[:, SUMS],
        counts=pages.dense(sums.counts, rows, chunk_range) + pages.dense(opened.counts, rows, chunk_range),
        first=chunk_range.start * CHUNK,
        pool_sums=sums.pool_sums + opened.pool_sums,
        busy=tallies[:, BUSY],
        born=np.maximum(np.array(registry.born_ns)[rows] / SECOND_NS + drift_s, since_s),
        failures=failure_histograms.totals(since_s, drift_s),
        occurrences=event_counters.counters.copy(),
        lag=lag if lag.counts.any() else None,
        processes=processes,
    )
