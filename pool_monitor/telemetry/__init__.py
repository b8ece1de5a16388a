"""Events: attach handlers to names, execute events, span a piece of work.

The semantics are those of Elixir's ``:telemetry``: an event has a name (a tuple of strings), measurements
(numbers) and metadata (everything else). Handlers are matched by the whole name, run synchronously in the
caller, and can never hurt it: a handler that raises is detached, ``("telemetry", "handler", "failure")`` says
so, and the remaining handlers run.

Durations and ``monotonic_time`` are integer nanoseconds of `time.monotonic_ns`; ``system_time`` is integer
nanoseconds of the wall clock. The two are never mixed.
"""

from pool_monitor.telemetry.bus import (
    FILTER,
    HANDLER_FAILURE,
    Event,
    Series,
    attach,
    attach_many,
    configure,
    detach,
    event,
    execute,
    filters,
    list_handlers,
    weight,
)
from pool_monitor.telemetry.capturing import CapturedEvent, capture
from pool_monitor.telemetry.failures import FAILURES, describe, pass_on
from pool_monitor.telemetry.filtering import Filters
from pool_monitor.telemetry.spans import Span, span
from pool_monitor.telemetry.types import (
    Bind,
    EventName,
    Handler,
    HandlerExists,
    HandlerFunction,
    Measurements,
    Metadata,
    Record,
)

__all__ = [
    "FAILURES",
    "FILTER",
    "HANDLER_FAILURE",
    "Bind",
    "CapturedEvent",
    "Event",
    "EventName",
    "Filters",
    "Handler",
    "HandlerExists",
    "HandlerFunction",
    "Measurements",
    "Metadata",
    "Record",
    "Series",
    "Span",
    "attach",
    "attach_many",
    "capture",
    "configure",
    "describe",
    "detach",
    "event",
    "execute",
    "filters",
    "list_handlers",
    "pass_on",
    "span",
    "weight",
]
