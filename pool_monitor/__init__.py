"""Run a pool of external Python and LLM workers from asyncio, and know at every moment how it is doing.

    async with Pool("my_service.workers:Summarizer", name="summarizers", size=4) as pool, Monitor(pool) as monitor:
        text = await pool.run("summarize", document)
        monitor.snapshot(window="5m").pools["summarizers"].operations["summarize"].latency.p99

This file re-exports the public names and holds nothing else. `Monitor` is imported when it is first asked for: it
brings numpy, and a service that only runs a pool need not wait for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pool_monitor import telemetry
from pool_monitor.config import MonitorConfig, PoolConfig
from pool_monitor.errors import (
    CircuitOpen,
    ConfigError,
    ConnectError,
    OperationCancelled,
    OperationError,
    OperationTimeout,
    PayloadError,
    PoolClosed,
    PoolError,
    PoolSaturated,
    ProtocolError,
    QueueTimeout,
    Rejected,
    SessionLost,
    StartError,
    UnknownOperation,
    WorkerDied,
)
from pool_monitor.pool.caller import Caller, Session
from pool_monitor.pool.pool import DrainResult, Pool
from pool_monitor.snapshot import PoolView, Snapshot

if TYPE_CHECKING:
    from pool_monitor.monitor import Monitor

__version__ = "0.1.0"

__all__ = [
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
    "Pool",
    "PoolClosed",
    "PoolConfig",
    "PoolError",
    "PoolSaturated",
    "PoolView",
    "ProtocolError",
    "QueueTimeout",
    "Rejected",
    "Session",
    "SessionLost",
    "Snapshot",
    "StartError",
    "UnknownOperation",
    "WorkerDied",
    "telemetry",
]


def __getattr__(name: str) -> Any:
    if name == "Monitor":
        from pool_monitor.monitor import Monitor

        return Monitor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
