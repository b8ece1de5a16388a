"""The catalogue: every event there is, with the unit of each measurement and the meaning of each metadata key.

Docs, schema checks in tests and exporter descriptions are made from this file and nothing else. Names are tuples
in code and dotted in text. A ``?`` after a unit or type marks a key that is absent when there is nothing to say.

Units: ``ns`` integer nanoseconds (durations and ``monotonic_time`` from the monotonic clock, ``system_time`` from
the wall clock; a few durations are signed, and say so), ``count`` a number of things, ``bytes``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pool_monitor import telemetry

SESSION_KINDS = ("none", "hint", "strict")
"""What a call's session wants of its worker, as ``session_kind`` says it; ``none``: it has no session."""

ABSENT = -(2**63)
"""In a lane: a number that was not measured, where a mapping leaves the key out. Smaller than any measurement."""

_UNITS: dict[str, tuple[type, ...]] = {"ns": (int,), "count": (int,), "bytes": (int,)}
_TYPES: dict[str, type] = {"str": str, "int": int, "dict": dict, "tuple": tuple, "any": object}

# Metadata keys that mean the same wherever they appear.
_POOL = {"pool": "str: the pool's name"}
_WORKER = {**_POOL, "worker": "str: the slot's id, such as 'summarizers-0'; survives restarts"}
_PROCESS = {**_WORKER, "pid": "int: the worker's process id"}
_CALL = {
    **_POOL,
    "operation": "str: the operation's name",
    "call_id": "int: the call's number, unique in this process",
    "session": "str?: the session's id",
    "session_kind": "str: none, hint or strict: what the call's session, if any, wants of its worker",
}
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


@dataclass(frozen=True, slots=True)
class EventSpec:
    """One event: its name, when it is emitted, and what its measurements and metadata mean.

    Each key maps to ``"unit: meaning"``. ``event`` is the pre-bound emitter. ``labels`` (keys of the metadata) and
    ``numbers`` (of the measurements) are its lane, for handlers attached with ``bind``, in this order; most events
    have none. All labels are strings; a number that was not measured is `ABSENT`.
    """

    name: telemetry.EventName
    meaning: str
    measurements: Mapping[str, str]
    metadata: Mapping[str, str]
    event: telemetry.Event = field(repr=False)
    labels: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()

    @property
    def dotted(self) -> str:
        return ".".join(self.name)

    def problems(self, measurements: Mapping[str, Any], metadata: Mapping[str, Any]) -> list[str]:
        """What is wrong with one execution, in words: empty when it is as the catalogue says."""
        found = _problems(self.measurements, measurements, _UNITS)
        return found + _problems(self.metadata, metadata, {key: (value,) for key, value in _TYPES.items()})


def _problems(
    declared: Mapping[str, str], given: Mapping[str, Any], types: Mapping[str, tuple[type, ...]]
) -> list[str]:
    found = [f"undeclared key {key!r}" for key in given.keys() - declared.keys()]
    for key, text in declared.items():
        kind = text.partition(":")[0]
        if key not in given:
            if not kind.endswith("?"):
                found.append(f"missing key {key!r}")
        elif not isinstance(given[key], wanted := types[kind.rstrip("?")]) or (
            isinstance(given[key], bool) and int in wanted
        ):
            found.append(f"{key!r} is {given[key]!r}, not {kind}")
    return found


CATALOGUE: dict[telemetry.EventName, EventSpec] = {}


def _spec(
    dotted: str,
    meaning: str,
    measurements: Mapping[str, str],
    metadata: Mapping[str, str],
    *,
    labels: tuple[str, ...] = (),
    numbers: tuple[str, ...] = (),
) -> EventSpec:
    name = tuple(dotted.split("."))
    spec = EventSpec(name, meaning, measurements, metadata, telemetry.event(name), labels, numbers)
    CATALOGUE[name] = spec
    return spec


# -- the pool -----------------------------------------------------------------------------------------------------

POOL_INIT = _spec(
    "pool.init",
    "A pool was entered; its workers are about to start.",
    {"system_time": "ns: wall clock", "size": "count: how many workers it wants"},
    {**_POOL, "target": "str: what its workers load"},
)
POOL_READY = _spec(
    "pool.ready",
    "The workers a pool starts with are ready; calls are accepted.",
    {"duration": "ns: since pool.init", "workers": "count: how many are ready"},
    _POOL,
)
POOL_RESIZE = _spec(
    "pool.resize",
    "A pool was told another size.",
    {"size_before": "count: workers wanted until now", "size_after": "count: workers wanted from now on"},
    _POOL,
)
POOL_WARMUP = _spec(
    "pool.warmup",
    "Every worker a pool starts with has been ready once.",
    {"duration": "ns: since pool.init", "workers": "count: how many there are"},
    {**_POOL, "mode": "str: parallel, sequential or staged"},
)
POOL_PAUSE = _spec(
    "pool.pause",
    "A pool stopped handing calls to workers; calls are accepted and wait.",
    {"waiting": "count: calls in the queue"},
    _POOL,
)
POOL_RESUME = _spec(
    "pool.resume",
    "A paused pool hands calls to workers again.",
    {"duration": "ns: how long it was paused", "waiting": "count: calls in the queue"},
    _POOL,
)
POOL_RESTART = _spec(
    "pool.restart",
    "Every worker of a pool was replaced, one after the other.",
    {"duration": "ns: how long that took", "workers": "count: how many were replaced"},
    _POOL,
)
POOL_DRAIN = _spec(
    "pool.drain",
    "A pool stopped accepting calls and has let the accepted ones end.",
    {
        "duration": "ns: how long that took",
        "finished": "count: calls that ended by themselves",
        "cancelled": "count: calls that were interrupted when the time was up",
        "abandoned": "count: of those, calls whose worker had to be killed",
    },
    _POOL,
)
POOL_TERMINATE = _spec(
    "pool.terminate",
    "A pool has closed; no worker of it is left.",
    {"duration": "ns: since pool.init"},
    _POOL,
)
POOL_ERROR = _spec(
    "pool.error",
    "Something went wrong that no single call can be told: a worker that cannot start or that spoke nonsense.",
    {"system_time": "ns: wall clock"},
    {
        **_POOL,
        "worker": "str?: the slot it happened on",
        "category": "str: as in errors.py",
        "severity": "str: warning, error or critical",
        "reason": "str: what happened",
    },
)
POOL_RECOVERY = _spec(
    "pool.recovery",
    "A worker that had died is ready again.",
    {"duration": "ns: from its death to ready", "attempts": "count: starts it took"},
    _WORKER,
)
POOL_RETRY = _spec(
    "pool.retry",
    "An idempotent call that failed will be sent again.",
    {"attempt": "count: hand-overs so far", "pause_duration": "ns: how long it waits before that"},
    {**_CALL, "category": "str: of what failed, as in errors.py", "reason": "str: why the attempt before failed"},
)
BREAKER_TRANSITION = _spec(
    "pool.breaker.transition",
    "A pool's circuit breaker went from one state to another.",
    {"system_time": "ns: wall clock"},
    {
        **_POOL,
        "from": "str: closed, open or half_open",
        "to": "str: the same",
        "trigger": "str: what caused it: failures, ratio, elapsed, worker_started, trial_failed or trials_succeeded",
    },
)

# -- workers ------------------------------------------------------------------------------------------------------

WORKER_INIT = _spec(
    "pool.worker.init",
    "A worker process is about to be started.",
    {"system_time": "ns: wall clock", "restarts": "count: of the slot, those because a process had gone"},
    _WORKER,
)
WORKER_READY = _spec(
    "pool.worker.ready",
    "A worker has loaded the target and can be handed calls.",
    {"duration": "ns: since pool.worker.init"},
    {**_PROCESS, "python": "str: its Python version", "codec": "str: the codec both sides settled on"},
)
WORKER_TRANSITION = _spec(
    "pool.worker.transition",
    "A worker went from one state of the lifecycle table to another.",
    {"duration": "ns: time spent in the state it left"},
    {**_WORKER, "from": "str: state left", "to": "str: state entered", "trigger": "str: what caused it"},
)
WORKER_CHECKOUT = _spec(
    "pool.worker.checkout",
    "A call was handed to a worker.",
    {
        "queue_duration": "ns: how long the call had waited",
        "relative_duration": "ns: signed: above 0, how long the call waited for a worker; below, how long the worker "
        "had waited for a call",
        "waiting": "count: calls still in the queue",
    },
    {**_CALL, **_WORKER},
)
WORKER_CHECKIN = _spec(
    "pool.worker.checkin",
    "A worker is done with a call: it answered, or gave it back without having begun it.",
    {"duration": "ns: since its pool.worker.checkout"},
    {**_CALL, **_WORKER},
)
WORKER_CRASH = _spec(
    "pool.worker.crash",
    "A worker process ended though nobody had asked it to.",
    {"uptime": "ns: how long the process lived"},
    {
        **_PROCESS,
        "exit_code": "int?: its exit code; negative: the number of the signal that ended it; absent when unknown",
        "reason": "str: the same in words",
        "operation": "str?: what it was doing",
        "stderr": "str: the last lines it wrote there",
    },
)
WORKER_CRASH_LOOP = _spec(
    "pool.worker.crash_loop",
    "A slot's workers end more often than the restart limit allows, or no longer do. While they do, each start is "
    "preceded by a pause.",
    {"pause_duration": "ns: before the next start; 0 when it is over"},
    {**_WORKER, "state": "str: entered, or left"},
)
WORKER_HEALTH_CHECK = _spec(
    "pool.worker.health_check",
    "A worker was asked for a sign of life, and answered or did not.",
    {
        "duration": "ns?: how long the answer took; absent when it is late",
        "missed": "count: answers missing in a row",
        "rss": "bytes?: its resident memory, as it says",
    },
    {
        **_PROCESS,
        "verdict": "str: responsive; late (idle, and does not answer); unresponsive (the same, too often in a row); "
        "busy (computes, and does not answer); or stuck (neither)",
    },
)
WORKER_RECYCLE = _spec(
    "pool.worker.recycle",
    "A worker process has done enough; the next one has taken its place, ready.",
    {
        "uptime": "ns: how long the process lived",
        "duration": "ns: from the decision to the change",
        "calls": "count: calls it answered",
    },
    {**_PROCESS, "reason": "str: calls, age, rss or restart"},
)
WORKER_TERMINATE = _spec(
    "pool.worker.terminate",
    "A worker process that was asked to stop, or killed on purpose, is gone.",
    {"uptime": "ns: how long the process lived"},
    {**_PROCESS, "reason": "str: close, resize, recycle, timeout, cancel, health or protocol"},
)
WORKER_OUTPUT = _spec(
    "pool.worker.output",
    "A worker, or a process it started, wrote a line to stdout or stderr.",
    {"bytes": "bytes: the line's length before any cut"},
    {**_WORKER, "stream": "str: stdout or stderr", "text": "str: the line, cut at 8 KiB; of one written over, its end"},
)

WORKER_LOG = _spec(
    "pool.worker.log",
    "A target wrote a line to the log it was given.",
    {"system_time": "ns: wall clock, when it arrived"},
    {
        **_WORKER,
        "level": "str: as the target says, such as warning",
        "text": "str: the line",
        "fields": "dict: what else the target said",
    },
)
WORKER_DROP = _spec(
    "pool.worker.drop",
    "Events and log lines of a target were lost, because sending them would have made it wait.",
    {"count": "count: how many"},
    _WORKER,
)

# -- operations ---------------------------------------------------------------------------------------------------

OPERATION_START = _spec(
    "pool.operation.start",
    "A caller asked for an operation. Exactly one pool.operation.stop or .exception follows.",
    {
        "system_time": "ns: wall clock",
        "monotonic_time": "ns: monotonic clock",
        "waiting": "count: calls queued before it",
    },
    _CALL,
)
OPERATION_STOP = _spec(
    "pool.operation.stop",
    "An operation ended well and its result was delivered.",
    _CALL_TIMES,
    {**_CALL, "worker": "str: the slot it ran on"},
    labels=("pool", "operation", "worker", "session_kind"),
    numbers=("duration", "queue_duration", "execution_duration"),
)
OPERATION_EXCEPTION = _spec(
    "pool.operation.exception",
    "A call ended without a result.",
    _CALL_TIMES,
    {
        **_CALL,
        **_ON_WORKER,
        "kind": "str: error or cancelled",
        "outcome": "str: error, timeout, cancelled, worker_lost or rejected",
        "category": "str: as in errors.py; 'cancelled' when the caller gave up",
        "error": "str: the type of what went wrong; for the target's own exceptions, theirs",
        "reason": "str: the error in words",
    },
)
QUEUE_REJECT = _spec(
    "pool.queue.reject",
    "A call was refused before any worker saw it.",
    {"queue_duration": "ns: how long it had waited", "waiting": "count: calls in the queue"},
    {**_CALL, "reason": "str: saturated, deadline, timeout, circuit_open or closed"},
)

# -- sessions -----------------------------------------------------------------------------------------------------

_SESSION = {**_POOL, "session": "str: the session's id"}
SESSION_START = _spec(
    "pool.session.start",
    "A session was used for the first time.",
    {"sessions": "count: sessions alive, this one included"},
    _SESSION,
)
SESSION_AFFINITY = _spec(
    "pool.session.affinity",
    "A call of a session was handed to a worker.",
    {"calls": "count: calls of the session so far, this one included"},
    {
        **_SESSION,
        "worker": "str: the slot it got",
        "result": "str: new (first call), hit (the worker it had last), miss (another, that one being busy) or "
        "broken (another, that process being gone)",
    },
)
SESSION_EXPIRE = _spec(
    "pool.session.expire",
    "A session was dropped: unused for longer than its time to live, or the oldest when there were too many.",
    {"idle_duration": "ns: time since its last call", "sessions": "count: sessions left"},
    {**_SESSION, "reason": "str: ttl or limit"},
)
SESSION_LIMIT = _spec(
    "pool.session.limit",
    "A pool keeps four fifths of the sessions it may; past the limit the one unused longest is dropped.",
    {"sessions": "count: sessions alive", "limit": "count: how many may be"},
    _POOL,
)
SESSION_END = _spec(
    "pool.session.end",
    "A session was ended by its owner.",
    {"calls": "count: calls it made", "sessions": "count: sessions left"},
    _SESSION,
)

# -- telemetry itself ---------------------------------------------------------------------------------------------

HANDLER_FAILURE = _spec(
    "telemetry.handler.failure",
    "A handler raised and has been detached.",
    {"monotonic_time": "ns: monotonic clock", "system_time": "ns: wall clock"},
    {
        "event_name": "tuple: the name of the event that it was handling",
        "handler_id": "str: its id",
        "handler_config": "any: what it was attached with",
        "kind": "str: the type of what it raised",
        "reason": "str: what it raised, in words",
        "stacktrace": "str: where",
    },
)
TELEMETRY_FILTER = _spec(
    "telemetry.filter",
    "Other events are told from now on: the filters that take effect right after this one.",
    {"system_time": "ns: wall clock"},
    {
        "allow": "str: patterns of dotted names, one of which has to match; '*' for all",
        "deny": "str: patterns none of which may match; empty when there are none",
        "sample": "str: of which events one execution in how many is told, as pattern=number",
    },
)

# -- the monitor itself -------------------------------------------------------------------------------------------

MONITOR_DEGRADE = _spec(
    "monitor.degrade",
    "A part of a monitor can do less than it should, or is well again. The pools are not touched by it.",
    {"system_time": "ns: wall clock"},
    {
        "service": "str: the monitor's service name",
        "part": "str: history or otlp",
        "state": "str: degraded or recovered",
        "reason": "str: why, in words; of a recovery, what is well again",
    },
)
