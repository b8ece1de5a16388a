"""Events of worker processes: their lifecycle, their calls and their output."""

from __future__ import annotations

from pool_monitor.events.spec import CALL_KEYS, PROCESS_KEYS, WORKER_KEYS, declare

WORKER_INIT = declare(
    "pool.worker.init",
    "A worker process is about to be started.",
    {"system_time": "ns: wall clock", "restarts": "count: restarts of the slot after a process had ended unplanned"},
    WORKER_KEYS,
)
WORKER_READY = declare(
    "pool.worker.ready",
    "A worker has loaded the target and can take calls.",
    {"duration": "ns: since pool.worker.init"},
    {**PROCESS_KEYS, "python": "str: its Python version", "codec": "str: the codec that both sides use"},
)
WORKER_TRANSITION = declare(
    "pool.worker.transition",
    "A worker changed from one state of the lifecycle table to another.",
    {"duration": "ns: time spent in the state it left"},
    {**WORKER_KEYS, "from": "str: state left", "to": "str: state entered", "trigger": "str: what caused it"},
)
WORKER_CHECKOUT = declare(
    "pool.worker.checkout",
    "A call was handed to a worker.",
    {
        "queue_duration": "ns: how long the call had waited",
        "relative_duration": "ns: signed: above 0, how long the call had waited for a worker; below 0, how long the "
        "worker had waited for a call",
        "waiting": "count: calls still in the queue",
    },
    {**CALL_KEYS, **WORKER_KEYS},
)
WORKER_CHECKIN = declare(
    "pool.worker.checkin",
    "A worker is done with a call: it answered, or returned the call without having begun it.",
    {"duration": "ns: since pool.worker.checkout of the call"},
    {**CALL_KEYS, **WORKER_KEYS},
)
WORKER_CRASH = declare(
    "pool.worker.crash",
    "A worker process ended without being asked to stop.",
    {"uptime": "ns: how long the process lived"},
    {
        **PROCESS_KEYS,
        "exit_code": "int?: its exit code; negative: the number of the signal that ended it; absent when unknown",
        "reason": "str: the exit code in words; of a process that the kernel killed for want of memory, that",
        "out_of_memory": "str: yes: the kernel killed it for want of memory; probably: only the count of the machine "
        "says so; no: nothing says so",
        "operation": "str?: the operation it was running",
        "stderr": "str: the last lines it wrote to stderr",
    },
)
WORKER_CRASH_LOOP = declare(
    "pool.worker.crash_loop",
    "A slot entered or left a crash loop: its workers end more often than the restart limit allows. In a crash loop, "
    "each start is preceded by a pause.",
    {"pause_duration": "ns: the pause before the next start; 0 when the slot has left the loop"},
    {**WORKER_KEYS, "state": "str: entered or left"},
)
WORKER_HEALTH_CHECK = declare(
    "pool.worker.health_check",
    "A worker was pinged, and a verdict was reached from its answer or silence.",
    {
        "duration": "ns?: how long the answer took; absent while it is late",
        "missed": "count: pings in a row without an answer",
        "rss": "bytes?: resident memory, as reported by the worker",
    },
    {
        **PROCESS_KEYS,
        "verdict": "str: responsive; late (idle, no answer); unresponsive (idle, too many answers missing in a row); "
        "busy (no answer, but it computes); or stuck (on a call, no answer, and it does not compute)",
    },
)
WORKER_RECYCLE = declare(
    "pool.worker.recycle",
    "A worker process was recycled; its successor is ready and has taken its slot.",
    {
        "uptime": "ns: how long the process lived",
        "duration": "ns: from the decision to the replacement",
        "calls": "count: calls it answered",
    },
    {**PROCESS_KEYS, "reason": "str: calls, age, rss or restart"},
)
WORKER_TERMINATE = declare(
    "pool.worker.terminate",
    "A worker process has ended that was asked to stop or was killed by the pool.",
    {"uptime": "ns: how long the process lived"},
    {
        **PROCESS_KEYS,
        "reason": "str: close, resize, recycle, timeout, cancel, health or protocol",
        "stack": "str?: what it was doing before it was killed, innermost frame last",
    },
)
WORKER_OUTPUT = declare(
    "pool.worker.output",
    "A worker, or a process it started, wrote a line to stdout or stderr.",
    {"bytes": "bytes: the line's length before any cut"},
    {
        **WORKER_KEYS,
        "stream": "str: stdout or stderr",
        "text": "str: the line, cut at 8 KiB; of a line overwritten by carriage returns, the last text",
    },
)
WORKER_LOG = declare(
    "pool.worker.log",
    "A target logged a line.",
    {"system_time": "ns: wall clock, when it arrived"},
    {
        **WORKER_KEYS,
        "level": "str: the level that the target gave, such as warning",
        "text": "str: the line",
        "fields": "dict: the other fields of the line",
    },
)
WORKER_DROP = declare(
    "pool.worker.drop",
    "Events and log lines of a target were dropped, because sending them would have blocked it.",
    {"count": "count: events and lines dropped"},
    WORKER_KEYS,
)
