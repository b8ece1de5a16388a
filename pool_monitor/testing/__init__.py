"""Helpers for tests of code that uses a pool: a pool without processes, and a clock that the test advances.

    async with InlinePool(Summarizer) as pool:
        assert await service(pool).answer("...") == "..."

`pool_monitor.telemetry.capture` records events. See "Test code that uses a pool" in docs/POOL_GUIDE.md.
"""

from __future__ import annotations

from pool_monitor.clock import ManualClock
from pool_monitor.testing.inline import InlinePool

__all__ = ["InlinePool", "ManualClock"]
