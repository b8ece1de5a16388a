"""The history: what was counted, on disk, so that it outlives the process that counted it.

`History` writes it, in tiers that get coarser with age. `Reader` reads it, also the file of a process that is dead.
`HistoryMetrics` answers queries from it: it is `Monitor.history`.
Other names are internal to this package.
"""

from pool_monitor.config import HistoryConfig, Tier
from pool_monitor.storage.history import History, HistoryStats
from pool_monitor.storage.history_metrics import HistoryMetrics
from pool_monitor.storage.reader import Reader

__all__ = ["History", "HistoryConfig", "HistoryMetrics", "HistoryStats", "Reader", "Tier"]
