"""Emits the events of a call: its start, its hand-overs and its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pool_monitor import emit, events
from pool_monitor.emit import PoolIdentity
from pool_monitor.errors import OperationError, PoolError, Rejected
from pool_monitor.events import ABSENT, SESSION_KINDS
from pool_monitor.pool.call import Call, CallWorker
from pool_monitor.pool.transport.interface import CallTimes
from pool_monitor.pool.worker import Worker
from pool_monitor.telemetry import FAILURES, Record

_RECORDS_MAX = 1000  # records kept per worker: more operations than targets have, and a bound if names never end

_START = events.OPERATION_START.event
_STOP = events.OPERATION_STOP.event
_EXCEPTION = events.OPERATION_EXCEPTION.event
_REJECT = events.QUEUE_REJECT.event
_RETRY = events.POOL_RETRY.event
_CHECKOUT = events.WORKER_CHECKOUT.event
_CHECKIN = events.WORKER_CHECKIN.event


def started(pool: PoolIdentity, call: Call, waiting: int, system_ns: int) -> None:
    """Emit that the call was made. To be called in the caller's context."""
    skip = _START.skip
    if skip is not None and skip():
        return
    measurements = {"system_time": system_ns, "monotonic_time": call.started_ns, "waiting": waiting}
    _START.emit_all(measurements, _metadata(pool, call))


def checked_out(pool: PoolIdentity, call: Call, worker: Worker, waiting: int, relative_ns: int) -> None:
    """Emit that the call was handed to a worker."""
    skip = _CHECKOUT.skip
    if skip is not None and skip():
        return
    measurements = {"queue_duration": call.queue_ns or 0, "relative_duration": relative_ns, "waiting": waiting}
    call.in_context(_CHECKOUT.emit_all)(measurements, _metadata(pool, call, worker))


def checked_in(pool: PoolIdentity, call: Call, worker: Worker, now_ns: int) -> None:
    """Emit that the worker is done with the call."""
    skip = _CHECKIN.skip
    if skip is not None and skip():
        return
    call.in_context(_CHECKIN.emit_all)({"duration": now_ns - call.sent_ns}, _metadata(pool, call, worker))


def retried(pool: PoolIdentity, call: Call, error: PoolError, pause: float) -> None:
    """Emit that the call will be sent again after *pause* seconds."""
    measurements = {"attempt": call.attempts, "pause_duration": round(pause * 1e9)}
    call.in_context(_RETRY.emit)(
        measurements, {**_metadata(pool, call), "category": error.category, "reason": str(error)}
    )


def ended(pool: PoolIdentity, call: Call, error: BaseException | None, times: CallTimes | None, now_ns: int) -> None:
    """Emit that the call has ended. Without *error* it was on a worker, and the caller has checked `_STOP.on`."""
    if error is not None:
        _failed(pool, call, error, times, now_ns)
        return
    skip = _STOP.skip
    if skip is not None and skip():
        return
    series = _STOP.series
    if series is not None:
        worker = call.worker
        assert worker is not None
        # The records are kept on the worker, which the processor has in its caches. Looking up a tuple of four in
        # `series` takes half as long again as everything else here, and several times as long in a service that fills
        # the caches.
        if worker.records_of is not series:
            worker.records_of, worker.records = series, {kind: {} for kind in SESSION_KINDS}
        records = worker.records[call.session_kind]
        try:
            record = records.get(call.operation)
            if record is None:
                if len(records) >= _RECORDS_MAX:
                    records.clear()
                record = records[call.operation] = series[
                    pool.name, call.operation, worker.id, call.session_kind, pool.instance
                ]
            record(now_ns - call.started_ns, call.queue_ns, ABSENT if times is None else times.execution_ns)
        except FAILURES as failure:
            series.failed(failure)
    if _STOP.mapped:
        call.in_context(_STOP.emit_mapped)(_measurements(call, now_ns, times), _metadata(pool, call, call.worker))


def records_of(worker: Worker) -> Mapping[str, Record] | None:
    """Return the records, by operation, of calls without a session that end well on *worker*. None if the ends of these
    calls also emit events. Valid until the next event is emitted, because its handlers may attach or detach handlers.
    """
    series = _STOP.series
    if series is None or worker.records_of is not series or _STOP.mapped or _STOP.skip is not None:
        return None
    return worker.records["none"]


def _failed(pool: PoolIdentity, call: Call, error: BaseException, times: CallTimes | None, now_ns: int) -> None:
    measurements = _measurements(call, now_ns, times)
    if isinstance(error, Rejected) and _REJECT.on:
        call.in_context(_REJECT.emit)(
            {"queue_duration": measurements["queue_duration"], "waiting": error.waiting},
            {**_metadata(pool, call), "reason": error.reason},
        )
    if _EXCEPTION.on:
        outcome = error.outcome if isinstance(error, PoolError) else "cancelled"
        raised = error if isinstance(error, OperationError) else None
        failure = emit.failure_metadata(
            outcome,
            category=error.category if isinstance(error, PoolError) else "cancelled",
            error=type(error).__name__ if raised is None else raised.type_name,
            reason=str(error) or type(error).__name__,
            message=None if raised is None else raised.message,
            traceback=None if raised is None else raised.traceback,
        )
        stack = getattr(error, "stack", None) if isinstance(error, PoolError) else None
        if stack is not None:
            failure["stack"] = stack
        call.in_context(_EXCEPTION.emit)(measurements, _metadata(pool, call, call.worker) | failure)


# These two build what `emit.call_metadata` and `emit.call_measurements` build. To call those would make the events of a
# call a third dearer for a service with handlers.


def _metadata(pool: PoolIdentity, call: Call, worker: CallWorker | None = None) -> dict[str, Any]:
    name, instance = pool
    metadata: dict[str, Any] = {
        "pool": name,
        "pool_instance": instance,
        "operation": call.operation,
        "call_id": call.id,
        "session_kind": call.session_kind,
        "worker": None if worker is None else worker.id,
    }
    if worker is None:  # most have one, and a sixth key that came later would resize the dict
        del metadata["worker"]
    if call.options.session is not None:
        metadata["session"] = call.options.session
    return metadata


def _measurements(call: Call, now_ns: int, times: CallTimes | None) -> dict[str, int]:
    """Return the measurements of a call that ends now."""
    duration = now_ns - call.started_ns
    queue = duration if call.queue_ns is None else call.queue_ns
    measurements = {"duration": duration, "queue_duration": queue, "attempts": call.attempts}
    if times is not None:
        measurements["execution_duration"] = times.execution_ns
        measurements["transport_duration"] = max(0, duration - queue - times.execution_ns)
        if times.cpu_ns is not None:
            measurements["cpu_duration"] = times.cpu_ns
        if times.rss_growth is not None:
            measurements["rss_growth"] = times.rss_growth
    return measurements
