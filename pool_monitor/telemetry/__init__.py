"""Events: attach handlers to names, execute events, time a block of code as a span.

The semantics are those of Elixir's ``:telemetry``. An event has a name (a tuple of strings), measurements (numbers)
and metadata (everything else). Handlers are matched by the whole name and run synchronously in the emitter. A handler
that raises is detached, ``("telemetry", "handler", "failure")`` is emitted, and the other handlers run; the emitter is
not affected.

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
from pool_monitor.telemetry.failures import FAILURES, describe, pass_on, traceback_of
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
    "traceback_of",
    "weight",
]
