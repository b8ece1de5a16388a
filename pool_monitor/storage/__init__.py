"""What outlives the process: the history, which is counts on disk, and the state file (`state`).

`History` writes the file, in tiers that get coarser with age. `Reader` reads it, also after its process has died.
`HistoryMetrics` answers queries of it; it is `Monitor.history`. Other names are internal to this package.

Each name is imported when it is first used: a service without a history does not wait for one.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pool_monitor.config import HistoryConfig, Tier
    from pool_monitor.storage.history import History, HistoryStats
    from pool_monitor.storage.history_metrics import HistoryMetrics
    from pool_monitor.storage.reader import Reader

__all__ = ["History", "HistoryConfig", "HistoryMetrics", "HistoryStats", "Reader", "Tier"]

_HOME_OF = {
    "History": "pool_monitor.storage.history",
    "HistoryConfig": "pool_monitor.config",
    "HistoryMetrics": "pool_monitor.storage.history_metrics",
    "HistoryStats": "pool_monitor.storage.history",
    "Reader": "pool_monitor.storage.reader",
    "Tier": "pool_monitor.config",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value  # looked up once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
