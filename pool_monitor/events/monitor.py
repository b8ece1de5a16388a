"""Events of a monitor."""

from __future__ import annotations

from pool_monitor.events.spec import declare

MONITOR_DEGRADE = declare(
    "monitor.degrade",
    "A part of a monitor became degraded, or recovered. The pools are not affected.",
    {"system_time": "ns: wall clock"},
    {
        "service": "str: the monitor's service name",
        "part": "str: history, otlp or socket",
        "state": "str: degraded or recovered",
        "reason": "str: why it is degraded, in words; for a recovery, what works again",
    },
)
