"""Monitors other pools beside Pools, in the same Snapshot: any ``concurrent.futures.Executor``, any async callable.

    executor = MonitoredExecutor(ThreadPoolExecutor(4), name="thumbnails")
    calls = MonitoredCalls(name="openai", limit=8)
    async with Monitor([executor, calls]) as monitor: ...

Each of these emits the events of a pool's calls and has a pool's gauges. Values that it cannot know are None or left
out. Both names are imported when they are first used, so a worker process that only needs `timed_call` does not wait
for the rest.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pool_monitor.adapters.monitored_calls import MonitoredCalls
    from pool_monitor.adapters.monitored_executor import MonitoredExecutor

__all__ = ["MonitoredCalls", "MonitoredExecutor"]

_HOME_OF = {"MonitoredCalls": "monitored_calls", "MonitoredExecutor": "monitored_executor"}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value  # so that this function is called only once for each name
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
