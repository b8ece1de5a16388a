"""Events of calls: the start and the end of each."""

from __future__ import annotations

from pool_monitor.events.spec import CALL_KEYS, declare

SESSION_KINDS = ("none", "hint", "strict")
"""The values of ``session_kind``: the affinity of the call's session, or ``none`` for a call without a session."""

_ON_WORKER = {"worker": "str?: the slot that ran it; absent when the call never reached a worker"}
_CALL_TIMES = {
    "duration": "ns: from the start of the call to its end",
    "queue_duration": "ns: from the start of the call until its last worker was free for it; of a call that ended "
    "while it waited, until its end",
    "execution_duration": "ns?: wall time of the operation, measured in the worker",
    "transport_duration": "ns?: the rest of duration: encoding, transport in both directions, decoding",
    "cpu_duration": "ns?: processor time of the operation, measured in the worker; absent where calls overlap in the "
    "worker. Of an operation that usually takes less than 20 us: its wall time, or absent when a call took longer",
    "rss_growth": "bytes?: growth of the worker's peak resident memory during the call, measured in the worker. The "
    "growth during a call below 100 us is counted with the next longer call",
    "attempts": "count: how many times the call was handed to a worker",
}

OPERATION_START = declare(
    "pool.operation.start",
    "A call was made. Exactly one pool.operation.stop or .exception follows.",
    {
        "system_time": "ns: wall clock",
        "monotonic_time": "ns: monotonic clock",
        "waiting": "count: calls in the queue ahead of it",
    },
    CALL_KEYS,
)
OPERATION_STOP = declare(
    "pool.operation.stop",
    "A call succeeded and its result was delivered.",
    _CALL_TIMES,
    {**CALL_KEYS, "worker": "str: the slot that ran it"},
    labels=("pool", "operation", "worker", "session_kind", "pool_instance"),
    numbers=("duration", "queue_duration", "execution_duration"),
)
OPERATION_EXCEPTION = declare(
    "pool.operation.exception",
    "A call ended without a result.",
    _CALL_TIMES,
    {
        **CALL_KEYS,
        **_ON_WORKER,
        "kind": "str: error or cancelled",
        "outcome": "str: error, timeout, cancelled, worker_lost or rejected",
        "category": "str: as in errors.py; 'cancelled' when the caller cancelled the call",
        "error": "str: the type of the error; for an exception of the target, the type of that exception",
        "reason": "str: the error in words",
        "message": "str?: the message of the target's exception",
        "traceback": "str?: the traceback of the target's exception",
        "stack": "str?: what the worker was running before it was interrupted or killed, innermost frame last",
    },
)
QUEUE_REJECT = declare(
    "pool.queue.reject",
    "The pool refused a call before it reached a worker.",
    {"queue_duration": "ns: how long the call had waited", "waiting": "count: calls in the queue"},
    {**CALL_KEYS, "reason": "str: saturated, deadline, timeout, circuit_open or closed"},
)
