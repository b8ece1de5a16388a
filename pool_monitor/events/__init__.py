"""The catalogue: every event, with the unit of each measurement and the meaning of each metadata key.

The documents, the schema checks of the tests and the descriptions in exports are made from this folder alone. A name
is a tuple in code and dotted in text. A ``?`` after a unit or type marks a key that is absent when its value is
unknown or does not apply.

Units: ``ns`` is integer nanoseconds, ``count`` is a number of things, ``bytes`` is bytes, ``ratio`` is a number
that need not be whole. Durations and ``monotonic_time`` are read from the monotonic clock, ``system_time`` from the
wall clock. A signed duration is marked as signed.
"""

# The order of these imports is the order of the catalogue and of the documents.
# isort: off
from pool_monitor.events.spec import ABSENT, CATALOGUE, EventSpec
from pool_monitor.events.pool import (
    BREAKER_TRANSITION,
    POOL_DRAIN,
    POOL_ERROR,
    POOL_INIT,
    POOL_PAUSE,
    POOL_READY,
    POOL_RECOVERY,
    POOL_RESIZE,
    POOL_RESTART,
    POOL_RESUME,
    POOL_RETRY,
    POOL_TERMINATE,
    POOL_WARMUP,
)
from pool_monitor.events.worker import (
    WORKER_CHECKIN,
    WORKER_CHECKOUT,
    WORKER_CRASH,
    WORKER_CRASH_LOOP,
    WORKER_DROP,
    WORKER_HEALTH_CHECK,
    WORKER_INIT,
    WORKER_LOG,
    WORKER_OUTPUT,
    WORKER_READY,
    WORKER_RECYCLE,
    WORKER_TERMINATE,
    WORKER_TRANSITION,
)
from pool_monitor.events.operation import (
    OPERATION_EXCEPTION,
    OPERATION_START,
    OPERATION_STOP,
    QUEUE_REJECT,
    SESSION_KINDS,
)
from pool_monitor.events.session import SESSION_AFFINITY, SESSION_END, SESSION_EXPIRE, SESSION_LIMIT, SESSION_START
from pool_monitor.events.telemetry import HANDLER_FAILURE, TELEMETRY_FILTER
from pool_monitor.events.monitor import MONITOR_ACTION, MONITOR_DEGRADE, MONITOR_SELF
from pool_monitor.events.resource import (
    LOOP_LAG,
    LOOP_RESUME,
    RESOURCE_GPU,
    RESOURCE_HOST,
    RESOURCE_LIMIT,
    RESOURCE_LOOP,
    RESOURCE_PROCESS,
    RESOURCE_WORKER,
)
from pool_monitor.events.alert import ALERT_NOTIFY, ALERT_TRANSITION
from pool_monitor.events.tuning import ADVICE_TRANSITION, TUNING_TRANSITION
# isort: on

__all__ = [
    "ABSENT",
    "ADVICE_TRANSITION",
    "ALERT_NOTIFY",
    "ALERT_TRANSITION",
    "BREAKER_TRANSITION",
    "CATALOGUE",
    "HANDLER_FAILURE",
    "LOOP_LAG",
    "LOOP_RESUME",
    "MONITOR_ACTION",
    "MONITOR_DEGRADE",
    "MONITOR_SELF",
    "OPERATION_EXCEPTION",
    "OPERATION_START",
    "OPERATION_STOP",
    "POOL_DRAIN",
    "POOL_ERROR",
    "POOL_INIT",
    "POOL_PAUSE",
    "POOL_READY",
    "POOL_RECOVERY",
    "POOL_RESIZE",
    "POOL_RESTART",
    "POOL_RESUME",
    "POOL_RETRY",
    "POOL_TERMINATE",
    "POOL_WARMUP",
    "QUEUE_REJECT",
    "RESOURCE_GPU",
    "RESOURCE_HOST",
    "RESOURCE_LIMIT",
    "RESOURCE_LOOP",
    "RESOURCE_PROCESS",
    "RESOURCE_WORKER",
    "SESSION_AFFINITY",
    "SESSION_END",
    "SESSION_EXPIRE",
    "SESSION_KINDS",
    "SESSION_LIMIT",
    "SESSION_START",
    "TELEMETRY_FILTER",
    "TUNING_TRANSITION",
    "WORKER_CHECKIN",
    "WORKER_CHECKOUT",
    "WORKER_CRASH",
    "WORKER_CRASH_LOOP",
    "WORKER_DROP",
    "WORKER_HEALTH_CHECK",
    "WORKER_INIT",
    "WORKER_LOG",
    "WORKER_OUTPUT",
    "WORKER_READY",
    "WORKER_RECYCLE",
    "WORKER_TERMINATE",
    "WORKER_TRANSITION",
    "EventSpec",
]
