"""Other pools, monitored beside ours in the same Snapshot: any ``concurrent.futures.Executor``, any async callable.

    executor = MonitoredExecutor(ThreadPoolExecutor(4), name="thumbnails")
    calls = MonitoredCalls(name="openai", limit=8)
    async with Monitor([executor, calls]) as monitor: ...

Each emits the events of a pool's calls and has a pool's gauges; what it cannot know is None or left out. The names are
imported when they are first used: a worker process that only needs `remote` does not wait for the rest.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pool_monitor.adapters.calls import MonitoredCalls
    from pool_monitor.adapters.executor import MonitoredExecutor

__all__ = ["MonitoredCalls", "MonitoredExecutor"]

_HOME_OF = {"MonitoredCalls": "calls", "MonitoredExecutor": "executor"}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value  # looked up once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
