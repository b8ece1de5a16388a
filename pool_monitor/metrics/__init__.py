"""From events to windows with true percentiles, and from those to the values of a Snapshot.

`Collector` listens and counts. `LiveMetrics` answers queries of what it counted: it is `Monitor.metrics`. Exporters and
the history also use the modules `block`, `columns`, `recording`, `series` and `totals`, which hold the common forms.
"""

from pool_monitor.metrics.collector import Collector
from pool_monitor.metrics.live_metrics import LiveMetrics
from pool_monitor.metrics.pool_stats import PoolStats, WorkerStats, detail
from pool_monitor.metrics.window import WINDOWS, Window, parse_window

__all__ = ["WINDOWS", "Collector", "LiveMetrics", "PoolStats", "Window", "WorkerStats", "detail", "parse_window"]
