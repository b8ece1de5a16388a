"""Run a pool of external Python and LLM workers from asyncio, and know at every moment how it is doing.

async with Pool("my_service.workers:Summarizer", size=4) as pool, Monitor(pool) as monitor:
    text = await pool.run("summarize", document)
    monitor.snapshot().pools["default"].operations["summarize"].latency.p99
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pool_monitor import errors, telemetry

if TYPE_CHECKING:
    from pool_monitor.config import MonitorConfig, PoolConfig
    from pool_monitor.errors import *  # noqa: F403
    from pool_monitor.monitor import Monitor
    from pool_monitor.pool.caller import Caller
    from pool_monitor.pool.pool import DrainResult, Pool
    from pool_monitor.pool.session import Session
    from pool_monitor.snapshot import Snapshot

__version__ = "0.1.0"
