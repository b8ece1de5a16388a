"""Run work in a pool of worker processes from asyncio, and measure how its calls and workers are doing.

    async with Pool("my_service.workers:Summarizer", name="summarizers", size=4) as pool, Monitor(pool) as monitor:
        text = await pool.run("summarize", document)
        monitor.snapshot(window="5m").pools["summarizers"].operations["summarize"].latency.p99

This file only re-exports the public names. Each name is imported on first use, so that a program that needs only
telemetry, or only the help of the command line, does not wait for the other imports.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pool_monitor.version import __version__ as __version__

if TYPE_CHECKING:
    from pool_monitor import telemetry
    from pool_monitor.alerts import Rule
    from pool_monitor.config import MonitorConfig, PoolConfig
    from pool_monitor.errors import (
        CircuitOpen,
        ConfigError,
        ConnectError,
        OperationCancelled,
        OperationError,
        OperationTimeout,
        PayloadError,
        PoisonedCall,
        PoolClosed,
        PoolError,
        PoolSaturated,
        ProtocolError,
        QueueTimeout,
        Rejected,
        SessionLost,
        StartError,
        UnknownName,
        UnknownOperation,
        WorkerDied,
        WrongLoop,
    )
    from pool_monitor.monitor import Monitor
    from pool_monitor.pool.caller import Caller, CallResult, Session
    from pool_monitor.pool.pool import DrainResult, Pool
    from pool_monitor.snapshot import PoolView, Snapshot

__all__ = [
    "CallResult",
    "Caller",
    "CircuitOpen",
    "ConfigError",
    "ConnectError",
    "DrainResult",
    "Monitor",
    "MonitorConfig",
    "OperationCancelled",
    "OperationError",
    "OperationTimeout",
    "PayloadError",
    "PoisonedCall",
    "Pool",
    "PoolClosed",
    "PoolConfig",
    "PoolError",
    "PoolSaturated",
    "PoolView",
    "ProtocolError",
    "QueueTimeout",
    "Rejected",
    "Rule",
    "Session",
    "SessionLost",
    "Snapshot",
    "StartError",
    "UnknownName",
    "UnknownOperation",
    "WorkerDied",
    "WrongLoop",
    "telemetry",
]

_HOMES = {
    "monitor": ["Monitor"],
    "pool.pool": ["DrainResult", "Pool"],
    "pool.caller": ["CallResult", "Caller", "Session"],
    "snapshot": ["PoolView", "Snapshot"],
    "alerts": ["Rule"],
    "config": ["MonitorConfig", "PoolConfig"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "telemetry":
        return importlib.import_module("pool_monitor.telemetry")
    value = getattr(importlib.import_module(f"pool_monitor.{_HOME_OF.get(name, 'errors')}"), name)
    globals()[name] = value  # looked up once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
