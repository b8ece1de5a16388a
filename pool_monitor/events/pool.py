"""Events of a pool as a whole: its life, its size, its circuit breaker."""

from __future__ import annotations

from pool_monitor.events.spec import CALL_KEYS, POOL_KEYS, WORKER_KEYS, declare

POOL_INIT = declare(
    "pool.init",
    "A pool was entered; its workers are about to start.",
    {"system_time": "ns: wall clock", "size": "count: how many workers it wants"},
    {**POOL_KEYS, "target": "str: what its workers load"},
)
POOL_READY = declare(
    "pool.ready",
    "The workers a pool starts with are ready; calls are accepted.",
    {"duration": "ns: since pool.init", "workers": "count: how many are ready"},
    POOL_KEYS,
)
POOL_RESIZE = declare(
    "pool.resize",
    "A pool was told another size.",
    {"size_before": "count: workers wanted until now", "size_after": "count: workers wanted from now on"},
    POOL_KEYS,
)
POOL_WARMUP = declare(
    "pool.warmup",
    "Every worker a pool starts with has been ready once.",
    {"duration": "ns: since pool.init", "workers": "count: how many there are"},
    {**POOL_KEYS, "mode": "str: parallel, sequential or staged"},
)
POOL_PAUSE = declare(
    "pool.pause",
    "A pool stopped handing calls to workers; calls are accepted and wait.",
    {"waiting": "count: calls in the queue"},
    POOL_KEYS,
)
POOL_RESUME = declare(
    "pool.resume",
    "A paused pool hands calls to workers again.",
    {"duration": "ns: how long it was paused", "waiting": "count: calls in the queue"},
    POOL_KEYS,
)
POOL_RESTART = declare(
    "pool.restart",
    "Every worker of a pool was replaced, one after the other.",
    {"duration": "ns: how long that took", "workers": "count: how many were replaced"},
    POOL_KEYS,
)
POOL_DRAIN = declare(
    "pool.drain",
    "A pool stopped accepting calls and has let the accepted ones end.",
    {
        "duration": "ns: how long that took",
        "finished": "count: calls that ended by themselves",
        "cancelled": "count: calls that were interrupted when the time was up",
        "abandoned": "count: of those, calls whose worker had to be killed",
    },
    POOL_KEYS,
)
POOL_TERMINATE = declare(
    "pool.terminate",
    "A pool has closed; no worker of it is left.",
    {"duration": "ns: since pool.init"},
    POOL_KEYS,
)
POOL_ERROR = declare(
    "pool.error",
    "Something went wrong that no single call can be told: a worker that cannot start or that spoke nonsense.",
    {"system_time": "ns: wall clock"},
    {
        **POOL_KEYS,
        "worker": "str?: the slot it happened on",
        "category": "str: as in errors.py",
        "severity": "str: warning, error or critical",
        "reason": "str: what happened: a message, perhaps of several lines",
        "cause": "str: why, in one line, without the pool, the worker and the target",
    },
)
POOL_RECOVERY = declare(
    "pool.recovery",
    "A worker that had died is ready again.",
    {"duration": "ns: from its death to ready", "attempts": "count: starts it took"},
    WORKER_KEYS,
)
POOL_RETRY = declare(
    "pool.retry",
    "An idempotent call that failed will be sent again.",
    {"attempt": "count: hand-overs so far", "pause_duration": "ns: how long it waits before that"},
    {**CALL_KEYS, "category": "str: of what failed, as in errors.py", "reason": "str: why the attempt before failed"},
)
BREAKER_TRANSITION = declare(
    "pool.breaker.transition",
    "A pool's circuit breaker went from one state to another.",
    {"system_time": "ns: wall clock"},
    {
        **POOL_KEYS,
        "from": "str: closed, open or half_open",
        "to": "str: the same",
        "trigger": "str: what caused it: failures, ratio, elapsed, worker_started, trial_failed or trials_succeeded",
    },
)
