"""Reads the error groups of a collector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pool_monitor.metrics.error_groups import SAMPLES_SHOWN
from pool_monitor.metrics.stores import Stores
from pool_monitor.metrics.window import SECOND_NS, Window
from pool_monitor.snapshot import ErrorGroup


class GroupReader:
    """The error groups of *pools* in *stores*. *catch_up* brings the windows up to now and returns now in ns. *drift_s*
    returns by how many seconds the wall clock has been set ahead.
    """

    def __init__(
        self, stores: Stores, pools: Sequence[str], catch_up: Callable[[], int], drift_s: Callable[[], int]
    ) -> None:
        self._stores = stores
        self.pools = pools
        self._catch_up, self._drift_s = catch_up, drift_s

    def of(self, pool: str, window: Window, *, samples: int = SAMPLES_SHOWN) -> tuple[ErrorGroup, ...]:
        """The error groups of *pool* in *window*, the most frequent first; the first *samples* with their sample.

        Raises KeyError for a pool that is not collected.
        """
        now_ns = self._catch_up()
        store = self._stores.windows[window]
        covered_s = store.covered_ns(now_ns) / SECOND_NS
        return self._stores.error_groups.of(pool, store, covered_s, self._drift_s() * SECOND_NS, samples)

    def know(self, first_seen: Mapping[tuple[str, str], float]) -> None:
        """Take over when error groups were first seen, in seconds since the epoch, by pool and fingerprint."""
        self._stores.error_groups.know(first_seen)
