"""Typed functions that emit the events of the catalogue, one per event, so that no emitter builds a mapping by hand.

Each function takes the `PoolIdentity` of the pool that the event belongs to. Durations are integer nanoseconds. The
handlers run before a function returns, and no exception of a handler reaches its caller. Without a handler, a function
only builds two small mappings; where even those cost too much, ask the event's ``on`` first.

Pools emit through these functions; adapters and pools of other packages may do the same. `operation` times one call.
Two kinds of events are emitted elsewhere: the events of a `Pool`'s calls (`pool/call_events.py`), for which a mapping
is too slow, and the events of `telemetry` itself.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from pool_monitor import events
from pool_monitor.errors import Category, Outcome, PoolError, Severity, first_line
from pool_monitor.telemetry import describe, traceback_of


class PoolIdentity(NamedTuple):
    """Which pool an event belongs to. A pool of another package calls `new` once and keeps the result."""

    name: str
    """The name of the pool, as people and the labels of its metrics use it."""
    instance: str
    """An id that no other pool has, in any process, not even an earlier pool of the same name."""

    @classmethod
    def new(cls, name: str) -> PoolIdentity:
        """Return the identity of a new pool. Its instance is 12 random hexadecimal digits."""
        return cls(name, os.urandom(6).hex())

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata that every event of the pool carries; a new dict each time."""
        return {"pool": self.name, "pool_instance": self.instance}

    def worker(self, worker: str) -> dict[str, Any]:
        """Return `metadata` with the id of the worker's slot added."""
        return {"pool": self.name, "pool_instance": self.instance, "worker": worker}


# -- the pool -----------------------------------------------------------------------------------------------------


def pool_init(pool: PoolIdentity, *, size: int, target: str) -> None:
    """Emit ``pool.init``."""
    events.POOL_INIT.event.emit({"system_time": time.time_ns(), "size": size}, {**pool.metadata, "target": target})


def pool_ready(pool: PoolIdentity, *, duration: int, workers: int) -> None:
    """Emit ``pool.ready``."""
    events.POOL_READY.event.emit({"duration": duration, "workers": workers}, pool.metadata)


def pool_warmup(pool: PoolIdentity, *, duration: int, workers: int, mode: str) -> None:
    """Emit ``pool.warmup``."""
    events.POOL_WARMUP.event.emit({"duration": duration, "workers": workers}, {**pool.metadata, "mode": mode})


def pool_resize(pool: PoolIdentity, *, before: int, after: int) -> None:
    """Emit ``pool.resize``."""
    events.POOL_RESIZE.event.emit({"size_before": before, "size_after": after}, pool.metadata)


def pool_pause(pool: PoolIdentity, *, waiting: int) -> None:
    """Emit ``pool.pause``."""
    events.POOL_PAUSE.event.emit({"waiting": waiting}, pool.metadata)


def pool_resume(pool: PoolIdentity, *, duration: int, waiting: int) -> None:
    """Emit ``pool.resume``."""
    events.POOL_RESUME.event.emit({"duration": duration, "waiting": waiting}, pool.metadata)


def pool_restart(pool: PoolIdentity, *, duration: int, workers: int) -> None:
    """Emit ``pool.restart``."""
    events.POOL_RESTART.event.emit({"duration": duration, "workers": workers}, pool.metadata)


def pool_drain(pool: PoolIdentity, *, duration: int, finished: int, cancelled: int, abandoned: int) -> None:
    """Emit ``pool.drain``."""
    measurements = {"duration": duration, "finished": finished, "cancelled": cancelled, "abandoned": abandoned}
    events.POOL_DRAIN.event.emit(measurements, pool.metadata)


def pool_terminate(pool: PoolIdentity, *, duration: int) -> None:
    """Emit ``pool.terminate``."""
    events.POOL_TERMINATE.event.emit({"duration": duration}, pool.metadata)


def breaker_transition(pool: PoolIdentity, *, before: str, after: str, trigger: str) -> None:
    """Emit ``pool.breaker.transition``."""
    metadata = {**pool.metadata, "from": before, "to": after, "trigger": trigger}
    events.BREAKER_TRANSITION.event.emit({"system_time": time.time_ns()}, metadata)


# -- errors and recoveries ----------------------------------------------------------------------------------------


def error(
    pool: PoolIdentity,
    *,
    category: Category,
    severity: Severity,
    reason: str,
    cause: str | None = None,
    worker: str | None = None,
) -> None:
    """Emit ``pool.error``. *reason* is the message; *cause* is its core in one line, by default its first line."""
    metadata = pool.metadata if worker is None else pool.worker(worker)
    metadata |= {"category": category, "severity": severity, "reason": reason}
    metadata["cause"] = first_line(cause or reason)
    events.POOL_ERROR.event.emit({"system_time": time.time_ns()}, metadata)


def recovery(pool: PoolIdentity, worker: str, *, duration: int, attempts: int) -> None:
    """Emit ``pool.recovery``."""
    events.POOL_RECOVERY.event.emit({"duration": duration, "attempts": attempts}, pool.worker(worker))


# -- workers ------------------------------------------------------------------------------------------------------


def worker_init(pool: PoolIdentity, worker: str, *, restarts: int) -> None:
    """Emit ``pool.worker.init``."""
    events.WORKER_INIT.event.emit({"system_time": time.time_ns(), "restarts": restarts}, pool.worker(worker))


def worker_ready(pool: PoolIdentity, worker: str, *, duration: int, pid: int, python: str, codec: str) -> None:
    """Emit ``pool.worker.ready``."""
    metadata = {**pool.worker(worker), "pid": pid, "python": python, "codec": codec}
    events.WORKER_READY.event.emit({"duration": duration}, metadata)


def worker_transition(pool: PoolIdentity, worker: str, *, duration: int, before: str, after: str, trigger: str) -> None:
    """Emit ``pool.worker.transition``."""
    metadata = {**pool.worker(worker), "from": before, "to": after, "trigger": trigger}
    events.WORKER_TRANSITION.event.emit({"duration": duration}, metadata)


def worker_crash(
    pool: PoolIdentity,
    worker: str,
    *,
    uptime: int,
    pid: int,
    exit_code: int | None,
    reason: str,
    out_of_memory: str,
    stderr: str,
    operation: str | None,
) -> dict[str, Any]:
    """Emit ``pool.worker.crash``. Return its metadata, for the log."""
    about = {"pid": pid, "reason": reason, "out_of_memory": out_of_memory, "stderr": stderr}
    metadata = {**pool.worker(worker), **about}
    if exit_code is not None:
        metadata["exit_code"] = exit_code
    if operation is not None:
        metadata["operation"] = operation
    events.WORKER_CRASH.event.emit({"uptime": uptime}, metadata)
    return metadata


def worker_crash_loop(pool: PoolIdentity, worker: str, *, pause: int, state: str) -> None:
    """Emit ``pool.worker.crash_loop``; *state* is ``entered`` or ``left``."""
    events.WORKER_CRASH_LOOP.event.emit({"pause_duration": pause}, {**pool.worker(worker), "state": state})


def worker_health_check(
    pool: PoolIdentity, worker: str, *, pid: int, verdict: str, missed: int, duration: int | None, rss: int | None
) -> None:
    """Emit ``pool.worker.health_check``. *duration* is None while the answer is late, *rss* if it is unknown."""
    measurements = {"missed": missed}
    if duration is not None:
        measurements["duration"] = duration
    if rss is not None:
        measurements["rss"] = rss
    metadata = {**pool.worker(worker), "pid": pid, "verdict": verdict}
    events.WORKER_HEALTH_CHECK.event.emit(measurements, metadata)


def worker_recycle(
    pool: PoolIdentity, worker: str, *, uptime: int, duration: int, calls: int, pid: int, reason: str
) -> None:
    """Emit ``pool.worker.recycle``."""
    measurements = {"uptime": uptime, "duration": duration, "calls": calls}
    events.WORKER_RECYCLE.event.emit(measurements, {**pool.worker(worker), "pid": pid, "reason": reason})


def worker_terminate(
    pool: PoolIdentity, worker: str, *, uptime: int, pid: int, reason: str, stack: str | None = None
) -> None:
    """Emit ``pool.worker.terminate``. *stack*: taken before the process was killed."""
    metadata = {**pool.worker(worker), "pid": pid, "reason": reason}
    if stack is not None:
        metadata["stack"] = stack
    events.WORKER_TERMINATE.event.emit({"uptime": uptime}, metadata)


def worker_output(pool: PoolIdentity, worker: str, *, stream: str, text: str, size: int) -> None:
    """Emit ``pool.worker.output``; *size* is the length of the line in bytes before any cut."""
    metadata = {**pool.worker(worker), "stream": stream, "text": text}
    events.WORKER_OUTPUT.event.emit({"bytes": size}, metadata)


def worker_log(pool: PoolIdentity, worker: str, *, level: str, text: str, fields: Mapping[str, Any]) -> None:
    """Emit ``pool.worker.log``."""
    metadata = {**pool.worker(worker), "level": level, "text": text, "fields": fields}
    events.WORKER_LOG.event.emit({"system_time": time.time_ns()}, metadata)


def worker_drop(pool: PoolIdentity, worker: str, *, count: int) -> None:
    """Emit ``pool.worker.drop``."""
    events.WORKER_DROP.event.emit({"count": count}, pool.worker(worker))


# -- sessions -----------------------------------------------------------------------------------------------------


def session_start(pool: PoolIdentity, session: str, *, sessions: int) -> None:
    """Emit ``pool.session.start``."""
    events.SESSION_START.event.emit({"sessions": sessions}, {**pool.metadata, "session": session})


def session_affinity(pool: PoolIdentity, session: str, *, worker: str, calls: int, result: str) -> None:
    """Emit ``pool.session.affinity``."""
    metadata = {**pool.worker(worker), "session": session, "result": result}
    events.SESSION_AFFINITY.event.emit({"calls": calls}, metadata)


def session_expire(pool: PoolIdentity, session: str, *, idle: int, sessions: int, reason: str) -> None:
    """Emit ``pool.session.expire``."""
    measurements = {"idle_duration": idle, "sessions": sessions}
    events.SESSION_EXPIRE.event.emit(measurements, {**pool.metadata, "session": session, "reason": reason})


def session_limit(pool: PoolIdentity, *, sessions: int, limit: int) -> None:
    """Emit ``pool.session.limit``."""
    events.SESSION_LIMIT.event.emit({"sessions": sessions, "limit": limit}, pool.metadata)


def session_end(pool: PoolIdentity, session: str, *, calls: int, sessions: int) -> None:
    """Emit ``pool.session.end``."""
    events.SESSION_END.event.emit({"calls": calls, "sessions": sessions}, {**pool.metadata, "session": session})


# -- calls --------------------------------------------------------------------------------------------------------


def call_metadata(
    pool: PoolIdentity,
    operation: str,
    call_id: int,
    session_kind: str = "none",
    session: str | None = None,
    worker: str | None = None,
) -> dict[str, Any]:
    """Return the metadata that all events of one call share. *worker* is the slot; None: the call has no worker yet."""
    metadata: dict[str, Any] = {
        "pool": pool.name,
        "pool_instance": pool.instance,
        "operation": operation,
        "call_id": call_id,
        "session_kind": session_kind,
    }
    if session is not None:
        metadata["session"] = session
    if worker is not None:
        metadata["worker"] = worker
    return metadata


def call_measurements(
    duration: int,
    queue: int,
    attempts: int,
    execution: int | None = None,
    *,
    cpu: int | None = None,
    rss_growth: int | None = None,
) -> dict[str, int]:
    """Return the measurements of a call that ended. *execution*, *cpu* and *rss_growth* are None if not measured.

    ``transport_duration`` is *duration* less *queue* and *execution*.
    """
    measurements = {"duration": duration, "queue_duration": queue, "attempts": attempts}
    if execution is not None:
        measurements["execution_duration"] = execution
        measurements["transport_duration"] = max(0, duration - queue - execution)
    if cpu is not None:
        measurements["cpu_duration"] = cpu
    if rss_growth is not None:
        measurements["rss_growth"] = rss_growth
    return measurements


def failure_metadata(
    outcome: Outcome,
    *,
    category: str,
    error: str,
    reason: str,
    message: str | None = None,
    traceback: str | None = None,
) -> dict[str, str]:
    """Return the metadata that ``pool.operation.exception`` has in addition to `call_metadata`.

    *message* and *traceback* are those of the exception that the operation itself raised; None: it raised none.
    """
    kind = "cancelled" if outcome == "cancelled" else "error"
    metadata = {"kind": kind, "outcome": outcome, "category": category, "error": error, "reason": reason}
    if message is not None:
        metadata["message"] = message
    if traceback:
        metadata["traceback"] = traceback
    return metadata


def raised_metadata(error: BaseException, reason: str) -> dict[str, str]:
    """Return `failure_metadata` for *error*, an exception of the operation itself, that `describe` puts as *reason*."""
    name = type(error).__name__
    return failure_metadata(
        "error",
        category="operation",
        error=name,
        reason=reason,
        message=reason.removeprefix(name).removeprefix(": "),
        traceback=traceback_of(error, reason),
    )


class OperationTiming:
    """The call that a ``with operation(...)`` block times."""

    def __init__(self, pool: PoolIdentity, operation: str, worker: str | None) -> None:
        self._pool, self._operation = pool, operation
        self._id = next(_call_ids)
        self._worker = worker
        self._started_ns = time.monotonic_ns()
        self._begun_ns = None if worker is None else self._started_ns

    def begin(self, worker: str) -> None:
        """Mark the end of the wait: *worker*, the id of a slot, has the call now."""
        self._worker = worker
        self._begun_ns = time.monotonic_ns()

    def _start(self) -> None:
        times = {"system_time": time.time_ns(), "monotonic_time": self._started_ns, "waiting": 0}
        events.OPERATION_START.event.emit(times, call_metadata(self._pool, self._operation, self._id))

    def _end(self, error: BaseException | None) -> None:
        now_ns = time.monotonic_ns()
        duration = now_ns - self._started_ns
        begun_ns = self._begun_ns
        failed = error is not None  # not whether it is true: an error may say how many things it holds
        if begun_ns is None:
            measurements = call_measurements(duration, duration if failed else 0, 0 if failed else 1)
        else:
            measurements = call_measurements(duration, begun_ns - self._started_ns, 1, now_ns - begun_ns)
        worker = self._worker if failed else self._worker or f"{self._pool.name}-0"
        metadata = call_metadata(self._pool, self._operation, self._id, worker=worker)
        if error is None:
            events.OPERATION_STOP.event.emit(measurements, metadata)
        else:
            events.OPERATION_EXCEPTION.event.emit(measurements, metadata | _failure_of(error))


_call_ids = itertools.count(1 << 42)  # call ids of a Pool begin at 1, of adapters at 1 << 40


@contextmanager
def operation(pool: PoolIdentity, name: str, *, worker: str | None = None) -> Iterator[OperationTiming]:
    """Time a ``with`` block as one call: emit ``pool.operation.start``, then either ``.stop`` or ``.exception``.

    *worker* is the slot that runs the call, such as ``"renders-0"``. If the call first waits for a worker, leave
    *worker* out and call ``timing.begin(worker)`` when the call has one. A call that succeeds without either counts on
    the slot ``NAME-0``. An exception of the block is raised again. The outcome of a PoolError is its ``outcome``, of a
    cancellation ``cancelled``, of any other exception ``error``. Works across ``await``.
    """
    timing = OperationTiming(pool, name, worker)
    timing._start()
    try:
        yield timing
    except BaseException as error:
        timing._end(error)
        raise
    timing._end(None)


def _failure_of(error: BaseException) -> dict[str, str]:
    name, reason = type(error).__name__, describe(error)
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return failure_metadata("cancelled", category="cancelled", error=name, reason=reason)
    if isinstance(error, PoolError):
        return failure_metadata(error.outcome, category=error.category, error=name, reason=reason)
    return raised_metadata(error, reason)
