"""Events of a monitor."""

from __future__ import annotations

from pool_monitor.events.spec import MONITOR_KEY, declare

MONITOR_DEGRADE = declare(
    "monitor.degrade",
    "A part of a monitor became degraded, or recovered. The pools are not affected.",
    {"system_time": "ns: wall clock"},
    {
        **MONITOR_KEY,
        "service": "str: the monitor's service name",
        "part": "str: the part concerned: collector, history, otlp, socket, resources, alerts or ticker",
        "state": "str: degraded or recovered",
        "reason": "str: why it is degraded, in words; for a recovery, what works again",
        "mode": "str?: of the collector: what it keeps of each call from now on: full, sampled, counters or off",
    },
)
MONITOR_SELF = declare(
    "monitor.self",
    "The monitor measured itself.",
    {
        "cpu_ratio": "ratio?: processor time of the monitor's own work, as a share of one processor",
        "memory": "bytes: what its stores hold",
        "memory_limit": "bytes: its memory budget",
        "lag_duration": "ns?: the longest time from an event to its being counted, in the last 10 s",
        "buffered": "count: calls in the buffer that are not folded yet",
        "dropped": "count: events not counted, since the monitor was made",
    },
    {**MONITOR_KEY, "service": "str: the monitor's service name", "mode": "str: full, sampled, counters or off"},
)
MONITOR_ACTION = declare(
    "monitor.action",
    "Somebody changed something of a service through its HTTP interface, or failed to. A request that is refused is no "
    "event.",
    {"system_time": "ns: wall clock"},
    {
        **MONITOR_KEY,
        "service": "str: the monitor's service name",
        "action": "str: its name, such as silence",
        "subject": "str: what it was about, in words",
        "outcome": "str: done or failed",
        "reason": "str: why it failed, in words; else empty",
        "author": "str: who did it, as they say themselves",
        "origin": "str: where it came from: 'local socket', or the address of a client",
        "uid": "int?: over the local socket, the user id of the process that asked",
        "pid": "int?: the same: its process id",
    },
)
