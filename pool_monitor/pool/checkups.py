"""Pings workers and acts on the answers. `policy.health` decides what an answer or its absence means."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from pool_monitor import emit
from pool_monitor.errors import WorkerDied
from pool_monitor.log import logger
from pool_monitor.pool.policy.health import Verdict
from pool_monitor.pool.policy.lifecycle import State
from pool_monitor.pool.processes import ALIVE
from pool_monitor.pool.worker import Worker, WorkerProcess

if TYPE_CHECKING:
    from pool_monitor.pool.dispatcher import Dispatcher
    from pool_monitor.pool.processes import ProcessControl
    from pool_monitor.pool.recycler import Recycler
    from pool_monitor.pool.roster import Roster


class Checkups:
    """Checks a pool's workers: sends pings, and compares processes with their limits."""

    def __init__(self, roster: Roster, dispatcher: Dispatcher, processes: ProcessControl, recycler: Recycler) -> None:
        self._roster, self._dispatcher = roster, dispatcher
        self._processes, self._recycler = processes, recycler
        self._identity = roster.identity
        self._loop = asyncio.get_running_loop()

    def check(self, worker: Worker, now: float) -> None:
        """Check one worker. To be called a few times per health interval. *now*: the event loop's time. Never raises: a
        checkup that fails is logged, and the next one tries again.
        """
        process = worker.process
        if process is not None and worker.transport is not None and worker.lifecycle.state in ALIVE:
            try:
                self._check(worker, process, now)
            except Exception:  # noqa: BLE001 - the next checkup tries again: no reason to end the pool
                logger("pool").exception("a worker could not be checked", pool=self._identity.name, worker=worker.id)

    def _check(self, worker: Worker, process: WorkerProcess, now: float) -> None:
        health, first = process.health, worker.call
        busy = first is not None and worker.has_begun(first)
        late = health.late
        assert process.ready is not None
        assert worker.transport is not None
        verdict = health.verdict(now, busy, _processor_time(process.ready.pid) if late and busy else None)
        known = process.verdict is not None or health.late > 0  # before the first answer there is no verdict
        if known and (health.late > late or verdict is not process.verdict):
            process.verdict = verdict
            if health.late:
                self._emit_health(worker, process, None)
        if verdict is Verdict.UNRESPONSIVE:
            cause = f"is idle and has not answered {health.late} times"
            error = WorkerDied(f"worker {worker.id} {cause}", worker=worker.id, exit_code=None, reason="health")
            error.cause = cause
            self._processes.report(worker, error)
            self._processes.kill(worker, "health")
            return
        if health.suspect and not busy and worker.lifecycle.state is State.READY:
            self._roster.withdraw(worker)
            self._roster.move(worker, "degrade", time.monotonic_ns())
        if health.due(now):
            worker.transport.ping(health.ping(now))
        age = (time.monotonic_ns() - process.started_ns) / 1e9
        reason = process.limits.reason(process.handed, age, process.rss)
        if reason is not None:
            self._recycler.recycle_soon(worker, reason)

    def ponged(self, worker: Worker, process: WorkerProcess, token: int, rss: int | None) -> None:
        """Handle an answer to a ping. *rss*: bytes of resident memory of the process; None: not known."""
        if not process.health.has_sent(token):
            self._processes.kill_for_breach(worker, process, f"an answer to ping {token}, which was not sent")
            return
        took = process.health.pong(token, self._loop.time())
        process.rss = rss
        process.verdict = Verdict.RESPONSIVE
        if process is not worker.process:
            return
        self._emit_health(worker, process, took)
        if worker.lifecycle.state is State.DEGRADED:
            self._roster.move(worker, "recover", time.monotonic_ns())
            self._dispatcher.ready(worker)

    def _emit_health(self, worker: Worker, process: WorkerProcess, took: float | None) -> None:
        assert process.ready is not None
        assert process.verdict is not None
        emit.worker_health_check(
            self._identity,
            worker.id,
            pid=process.ready.pid,
            verdict=process.verdict.value,
            missed=process.health.late,
            duration=None if took is None else round(took * 1e9),
            rss=process.rss,
        )


def _processor_time(pid: int) -> float | None:
    """Return the seconds of processor time that a process has used; None if they cannot be read."""
    try:
        import psutil

        times = psutil.Process(pid).cpu_times()
    except Exception:  # noqa: BLE001 - the process is gone, or no file descriptor is left to read it with
        return None
    return float(times.user + times.system)
