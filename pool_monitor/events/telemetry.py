"""Events of telemetry itself."""

from __future__ import annotations

from pool_monitor.events.spec import declare

HANDLER_FAILURE = declare(
    "telemetry.handler.failure",
    "A handler raised and has been detached.",
    {"monotonic_time": "ns: monotonic clock", "system_time": "ns: wall clock"},
    {
        "event_name": "tuple: the name of the event it was called for",
        "handler_id": "str: the id it was attached under",
        "handler_config": "any: the config it was attached with",
        "kind": "str: the type of the exception",
        "reason": "str: the exception in one line: type and text",
        "stacktrace": "str: the traceback",
    },
)
TELEMETRY_FILTER = declare(
    "telemetry.filter",
    "The event filters changed. The metadata holds the filters that apply from the next event on.",
    {"system_time": "ns: wall clock"},
    {
        "allow": "str: patterns of dotted names; an event needs to match one of them; '*': every event does",
        "deny": "str: patterns of dotted names; an event that matches one of them is not emitted; may be empty",
        "sample": "str: pattern=n for events of which one execution in n is emitted; may be empty",
    },
)
