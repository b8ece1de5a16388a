"""From events to windows with true percentiles, and from windows to the values of a Snapshot.

`Collector` handles events and counts calls. `LiveMetrics` answers queries of its numbers; it is `Monitor.metrics`.
Exporters and the history also use the shared forms in the modules `block`, `columns`, `recording`, `series` and
`totals`.
"""

from pool_monitor.metrics.collector import Collector
from pool_monitor.metrics.ladder import KEPT, Mode
from pool_monitor.metrics.live_metrics import LiveMetrics
from pool_monitor.metrics.pool_stats import PoolStats, WorkerStats, detail
from pool_monitor.metrics.window import WINDOWS, Window, parse_window

__all__ = [
    "KEPT",
    "WINDOWS",
    "Collector",
    "LiveMetrics",
    "Mode",
    "PoolStats",
    "Window",
    "WorkerStats",
    "detail",
    "parse_window",
]
