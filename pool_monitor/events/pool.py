"""Events of a pool as a whole: its lifecycle, its size and its circuit breaker."""

from __future__ import annotations

from pool_monitor.events.spec import CALL_KEYS, POOL_KEYS, WORKER_KEYS, declare

POOL_INIT = declare(
    "pool.init",
    "A pool was entered; its workers are about to start.",
    {"system_time": "ns: wall clock", "size": "count: workers wanted"},
    {**POOL_KEYS, "target": "str: the target that its workers load"},
)
POOL_READY = declare(
    "pool.ready",
    "A pool is open: enough workers are ready, and calls are accepted.",
    {"duration": "ns: since pool.init", "workers": "count: workers that are ready"},
    POOL_KEYS,
)
POOL_RESIZE = declare(
    "pool.resize",
    "The wanted size of a pool changed.",
    {"size_before": "count: workers wanted before the change", "size_after": "count: workers wanted after the change"},
    POOL_KEYS,
)
POOL_WARMUP = declare(
    "pool.warmup",
    "Every worker that a pool starts with has become ready.",
    {"duration": "ns: since pool.init", "workers": "count: the number of these workers"},
    {**POOL_KEYS, "mode": "str: parallel, sequential or staged"},
)
POOL_PAUSE = declare(
    "pool.pause",
    "A pool was paused. It still accepts calls, which wait; no call is handed to a worker.",
    {"waiting": "count: calls in the queue"},
    POOL_KEYS,
)
POOL_RESUME = declare(
    "pool.resume",
    "A paused pool was resumed. It hands calls to workers again.",
    {"duration": "ns: how long it was paused", "waiting": "count: calls in the queue"},
    POOL_KEYS,
)
POOL_RESTART = declare(
    "pool.restart",
    "Every worker of a pool was replaced, one after the other.",
    {"duration": "ns: how long the restart took", "workers": "count: workers replaced"},
    POOL_KEYS,
)
POOL_DRAIN = declare(
    "pool.drain",
    "A pool stopped accepting calls, and every accepted call has ended.",
    {
        "duration": "ns: how long the drain took",
        "finished": "count: calls that ended by themselves",
        "cancelled": "count: calls that were interrupted when the drain timed out",
        "abandoned": "count: of the cancelled calls, those whose worker had to be killed",
    },
    POOL_KEYS,
)
POOL_TERMINATE = declare(
    "pool.terminate",
    "A pool has closed, and all its worker processes have ended.",
    {"duration": "ns: since pool.init"},
    POOL_KEYS,
)
POOL_ERROR = declare(
    "pool.error",
    "Something failed that is not the error of one call: a worker cannot start, or it violated the protocol.",
    {"system_time": "ns: wall clock"},
    {
        **POOL_KEYS,
        "worker": "str?: the slot concerned",
        "category": "str: as in errors.py",
        "severity": "str: warning, error or critical",
        "reason": "str: the error message, possibly of several lines",
        "cause": "str: the cause in one line, without the names of the pool, the worker and the target",
    },
)
POOL_RECOVERY = declare(
    "pool.recovery",
    "A slot whose process had died has a ready worker again.",
    {"duration": "ns: from the death to ready", "attempts": "count: starts that were needed"},
    WORKER_KEYS,
)
POOL_RETRY = declare(
    "pool.retry",
    "An idempotent call that failed will be sent again.",
    {"attempt": "count: hand-overs so far", "pause_duration": "ns: how long the call waits before it is sent"},
    {**CALL_KEYS, "category": "str: of the failure, as in errors.py", "reason": "str: why the last attempt failed"},
)
BREAKER_TRANSITION = declare(
    "pool.breaker.transition",
    "The circuit breaker of a pool changed its state.",
    {"system_time": "ns: wall clock"},
    {
        **POOL_KEYS,
        "from": "str: the state left: closed, open or half_open",
        "to": "str: the state entered",
        "trigger": "str: what caused it: failures, ratio, elapsed, worker_started, trial_failed or trials_succeeded",
    },
)
