"""Events of worker processes: their life, their calls, and what they write."""

from __future__ import annotations

from pool_monitor.events.spec import CALL_KEYS, PROCESS_KEYS, WORKER_KEYS, declare

WORKER_INIT = declare(
    "pool.worker.init",
    "A worker process is about to be started.",
    {"system_time": "ns: wall clock", "restarts": "count: of the slot, those because a process had gone"},
    WORKER_KEYS,
)
WORKER_READY = declare(
    "pool.worker.ready",
    "A worker has loaded the target and can be handed calls.",
    {"duration": "ns: since pool.worker.init"},
    {**PROCESS_KEYS, "python": "str: its Python version", "codec": "str: the codec both sides settled on"},
)
WORKER_TRANSITION = declare(
    "pool.worker.transition",
    "A worker went from one state of the lifecycle table to another.",
    {"duration": "ns: time spent in the state it left"},
    {**WORKER_KEYS, "from": "str: state left", "to": "str: state entered", "trigger": "str: what caused it"},
)
WORKER_CHECKOUT = declare(
    "pool.worker.checkout",
    "A call was handed to a worker.",
    {
        "queue_duration": "ns: how long the call had waited",
        "relative_duration": "ns: signed: above 0, how long the call waited for a worker; below, how long the worker "
        "had waited for a call",
        "waiting": "count: calls still in the queue",
    },
    {**CALL_KEYS, **WORKER_KEYS},
)
WORKER_CHECKIN = declare(
    "pool.worker.checkin",
    "A worker is done with a call: it answered, or gave it back without having begun it.",
    {"duration": "ns: since its pool.worker.checkout"},
    {**CALL_KEYS, **WORKER_KEYS},
)
WORKER_CRASH = declare(
    "pool.worker.crash",
    "A worker process ended though nobody had asked it to.",
    {"uptime": "ns: how long the process lived"},
    {
        **PROCESS_KEYS,
        "exit_code": "int?: its exit code; negative: the number of the signal that ended it; absent when unknown",
        "reason": "str: the same in words",
        "operation": "str?: what it was doing",
        "stderr": "str: the last lines it wrote there",
    },
)
WORKER_CRASH_LOOP = declare(
    "pool.worker.crash_loop",
    "A slot's workers end more often than the restart limit allows, or no longer do. While they do, each start is "
    "preceded by a pause.",
    {"pause_duration": "ns: before the next start; 0 when it is over"},
    {**WORKER_KEYS, "state": "str: entered, or left"},
)
WORKER_HEALTH_CHECK = declare(
    "pool.worker.health_check",
    "A worker was asked for a sign of life, and answered or did not.",
    {
        "duration": "ns?: how long the answer took; absent when it is late",
        "missed": "count: answers missing in a row",
        "rss": "bytes?: its resident memory, as it says",
    },
    {
        **PROCESS_KEYS,
        "verdict": "str: responsive; late (idle, and does not answer); unresponsive (the same, too often in a row); "
        "busy (computes, and does not answer); or stuck (neither)",
    },
)
WORKER_RECYCLE = declare(
    "pool.worker.recycle",
    "A worker process has done enough; the next one has taken its place, ready.",
    {
        "uptime": "ns: how long the process lived",
        "duration": "ns: from the decision to the change",
        "calls": "count: calls it answered",
    },
    {**PROCESS_KEYS, "reason": "str: calls, age, rss or restart"},
)
WORKER_TERMINATE = declare(
    "pool.worker.terminate",
    "A worker process that was asked to stop, or killed on purpose, is gone.",
    {"uptime": "ns: how long the process lived"},
    {**PROCESS_KEYS, "reason": "str: close, resize, recycle, timeout, cancel, health or protocol"},
)
WORKER_OUTPUT = declare(
    "pool.worker.output",
    "A worker, or a process it started, wrote a line to stdout or stderr.",
    {"bytes": "bytes: the line's length before any cut"},
    {
        **WORKER_KEYS,
        "stream": "str: stdout or stderr",
        "text": "str: the line, cut at 8 KiB; of one written over, its end",
    },
)
WORKER_LOG = declare(
    "pool.worker.log",
    "A target wrote a line to the log it was given.",
    {"system_time": "ns: wall clock, when it arrived"},
    {
        **WORKER_KEYS,
        "level": "str: as the target says, such as warning",
        "text": "str: the line",
        "fields": "dict: what else the target said",
    },
)
WORKER_DROP = declare(
    "pool.worker.drop",
    "Events and log lines of a target were lost, because sending them would have made it wait.",
    {"count": "count: how many"},
    WORKER_KEYS,
)
