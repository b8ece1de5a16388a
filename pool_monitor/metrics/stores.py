"""The stores of a collector: the windows, and everything that has no place in windows.

The intake fills the stores, the collector reads them. Each store has a bound on its memory; `Stores` adds them up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pool_monitor.metrics.block import Block
from pool_monitor.metrics.error_groups import ErrorGroups
from pool_monitor.metrics.failure_histograms import FailureHistograms
from pool_monitor.metrics.last_errors import LastErrors
from pool_monitor.metrics.last_failures import LastFailures
from pool_monitor.metrics.trend import TrendRing
from pool_monitor.metrics.window import Windows


class Stores:
    """The stores of *pools*, with at most *rows* rows, and *groups* error groups of a pool. The attributes exist only
    after the first `reset`.

    The windows take at most *windows_limit* bytes, the others at most `bytes_beside_windows`. *gapless*: see `Windows`.
    """

    windows: Windows
    trend: TrendRing
    failures: LastFailures
    failure_histograms: FailureHistograms
    last_errors: LastErrors
    error_groups: ErrorGroups

    def __init__(self, pools: Sequence[str], rows: int, windows_limit: int, groups: int, *, gapless: bool) -> None:
        self._pools, self._rows, self.windows_limit, self._groups = pools, rows, windows_limit, groups
        self._gapless = gapless

    @staticmethod
    def bytes_beside_windows(rows: int, pools: int, groups: int) -> int:
        """Bytes that everything except the windows holds at most."""
        return (
            LastErrors.most_bytes()
            + TrendRing.bytes_for(pools)
            + LastFailures.bytes_for(pools)
            + FailureHistograms.most_bytes(pools, rows)
            + ErrorGroups.bytes_for(pools, groups)
        )

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        stores = (self.last_errors, self.failures, self.error_groups, self.trend, self.failure_histograms, self.windows)
        return sum(store.nbytes for store in stores)

    def reset(self, now_ns: int, closed: Callable[[int, Block], object]) -> None:
        """Empty all stores. *closed* is called for every second that closes from *now_ns* on, as by `Windows`.

        Raises OSError or MemoryError when the system has no room for the windows.
        """
        number = len(self._pools)
        self.failures = LastFailures(self._pools)
        self.failure_histograms = FailureHistograms(number, self._rows)
        self.last_errors = LastErrors()
        known = self.error_groups.known() if "error_groups" in self.__dict__ else {}
        self.error_groups = ErrorGroups(self._pools, self._groups)
        self.error_groups.know(known)  # it comes from the history, which is opened before collecting begins
        self.trend = TrendRing(number)
        self.__dict__.pop("windows", None)  # free the old windows first: both at once would take twice the memory
        self.windows = Windows(now_ns, self._rows, number, self.windows_limit, closed, gapless=self._gapless)
