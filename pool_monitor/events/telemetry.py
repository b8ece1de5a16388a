"""Events of telemetry itself."""

from __future__ import annotations

from pool_monitor.events.spec import declare

HANDLER_FAILURE = declare(
    "telemetry.handler.failure",
    "A handler raised and has been detached.",
    {"monotonic_time": "ns: monotonic clock", "system_time": "ns: wall clock"},
    {
        "event_name": "tuple: the name of the event that it was handling",
        "handler_id": "str: its id",
        "handler_config": "any: what it was attached with",
        "kind": "str: the type of what it raised",
        "reason": "str: what it raised, in words",
        "stacktrace": "str: where",
    },
)
TELEMETRY_FILTER = declare(
    "telemetry.filter",
    "Other events are told from now on: the filters that take effect right after this one.",
    {"system_time": "ns: wall clock"},
    {
        "allow": "str: patterns of dotted names, one of which has to match; '*' for all",
        "deny": "str: patterns none of which may match; empty when there are none",
        "sample": "str: of which events one execution in how many is told, as pattern=number",
    },
)
