"""Events of calls: their start, and their one end."""

from __future__ import annotations

from pool_monitor.events.spec import CALL_KEYS, declare

SESSION_KINDS = ("none", "hint", "strict")
"""What a call's session wants of its worker, as ``session_kind`` says it; ``none``: it has no session."""

_ON_WORKER = {"worker": "str?: the slot it ran on; absent when it never reached one"}
_CALL_TIMES = {
    "duration": "ns: from the call to its end",
    "queue_duration": "ns: from the call until its last worker had it to itself (to its end, if it had none then)",
    "execution_duration": "ns?: wall time of the operation, measured in the worker",
    "transport_duration": "ns?: the rest of duration: encoding, the way there and back, decoding",
    "cpu_duration": "ns?: processor time of the operation, measured in the worker; absent where calls overlap in it. "
    "Where an operation takes less than 20 us: its wall time, and absent when it took longer for once",
    "rss_growth": "bytes?: by how much it raised the worker's peak resident memory, measured there. What a call "
    "below 100 us adds shows with the next longer one",
    "attempts": "count: how many times it was handed to a worker",
}

OPERATION_START = declare(
    "pool.operation.start",
    "A caller asked for an operation. Exactly one pool.operation.stop or .exception follows.",
    {
        "system_time": "ns: wall clock",
        "monotonic_time": "ns: monotonic clock",
        "waiting": "count: calls queued before it",
    },
    CALL_KEYS,
)
OPERATION_STOP = declare(
    "pool.operation.stop",
    "An operation ended well and its result was delivered.",
    _CALL_TIMES,
    {**CALL_KEYS, "worker": "str: the slot it ran on"},
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
        "category": "str: as in errors.py; 'cancelled' when the caller gave up",
        "error": "str: the type of what went wrong; for the target's own exceptions, theirs",
        "reason": "str: the error in words",
    },
)
QUEUE_REJECT = declare(
    "pool.queue.reject",
    "A call was refused before any worker saw it.",
    {"queue_duration": "ns: how long it had waited", "waiting": "count: calls in the queue"},
    {**CALL_KEYS, "reason": "str: saturated, deadline, timeout, circuit_open or closed"},
)
