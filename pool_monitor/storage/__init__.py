"""The storage room: what was counted, on disk, so that it outlives the process and the memory it was counted in.

`History` writes, in tiers that get coarser with age; `Reader` reads, also the file of a process that is dead.
"""

from pool_monitor.config import HistoryConfig, Tier
from pool_monitor.storage.history import History, HistoryStats
from pool_monitor.storage.history_metrics import HistoryMetrics
from pool_monitor.storage.reader import Reader

__all__ = ["History", "HistoryConfig", "HistoryMetrics", "HistoryStats", "Reader", "Tier"]
