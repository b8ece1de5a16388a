"""Events of a monitor."""

from __future__ import annotations

from pool_monitor.events.spec import declare

MONITOR_DEGRADE = declare(
    "monitor.degrade",
    "A part of a monitor can do less than it should, or is well again. The pools are not touched by it.",
    {"system_time": "ns: wall clock"},
    {
        "service": "str: the monitor's service name",
        "part": "str: history, otlp or socket",
        "state": "str: degraded or recovered",
        "reason": "str: why, in words; of a recovery, what is well again",
    },
)
