"""What outlives the process: the history, which is counts on disk, and the state file (`state`).

`History` writes the file, in tiers that get coarser with age. `Reader` reads it, also after its process has died.
`HistoryMetrics` answers queries of it; it is `Monitor.history`. Other names are internal to this package.
"""

from pool_monitor.config import HistoryConfig, Tier
from pool_monitor.storage.history import History, HistoryStats
from pool_monitor.storage.history_metrics import HistoryMetrics
from pool_monitor.storage.reader import Reader

__all__ = ["History", "HistoryConfig", "HistoryMetrics", "HistoryStats", "Reader", "Tier"]
