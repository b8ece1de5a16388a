"""Starts the processes that fill slots, stops or kills them, and handles their end."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from pool_monitor import emit
from pool_monitor.errors import PoolError, ProtocolError, StartError, WorkerDied
from pool_monitor.log import logger
from pool_monitor.pool import stacks
from pool_monitor.pool.kernel_kills import KernelKillWatch
from pool_monitor.pool.policy.health import Health
from pool_monitor.pool.policy.lifecycle import State
from pool_monitor.pool.policy.operation_offers import merge_offers
from pool_monitor.pool.policy.recycle import RecycleLimits
from pool_monitor.pool.transport.spawn import exit_text
from pool_monitor.pool.worker import Worker, WorkerProcess
from pool_monitor.redaction import redact

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from pool_monitor.config import PoolConfig
    from pool_monitor.pool.call import Call
    from pool_monitor.pool.dispatcher import Dispatcher
    from pool_monitor.pool.roster import Roster
    from pool_monitor.pool.transport.interface import Transport

_START_WEIGHT = 0.3  # of the latest start in the mean
ALIVE = (State.READY, State.BUSY, State.DEGRADED)
"""The states of a slot whose process has loaded the target and is not being ended."""
_ENDED_BECAUSE = {
    "timeout": "it was killed because {} was not done in time and could not be interrupted",
    "cancel": "it was killed because {} was cancelled and could not be interrupted",
    "close": "the pool was closed",
    "health": "it was killed because it did not answer pings",
    "resize": "the pool was made smaller",
    "recycle": "it was replaced",
    "payload": "it was killed because {} yielded an item that cannot be carried and could not be interrupted",
}
"""Why a process was ended, as a text; ``{}`` stands for the operation that was the reason."""


def _kill_with(process: WorkerProcess, transport: Transport, stack: str | None) -> None:
    process.stack = stack
    transport.kill()


class ProcessControl:
    """Starts and ends the processes of a pool's slots. *make* makes the transport of a process. `Supervisor` and
    `Recycler` decide when a slot needs another process.
    """

    def __init__(
        self,
        target: str,
        config: PoolConfig,
        roster: Roster,
        dispatcher: Dispatcher,
        make: Callable[[Worker, WorkerProcess], Transport],
    ) -> None:
        self._target, self._config = target, config
        self._roster, self._dispatcher = roster, dispatcher
        self._identity = roster.identity
        self._make = make
        self._group: TaskGroup | None = None
        self._living: dict[WorkerProcess, Worker] = {}
        self._kernel_kills = KernelKillWatch(time.monotonic)
        self._random = random.Random()  # noqa: S311 - jitter, not used for secrets
        self.start_seconds: float | None = None
        """Mean of the latest starts; None before the first."""

    def open(self, group: TaskGroup) -> None:
        """Use *group* for the tasks that stop processes."""
        self._group = group

    def configure(self, config: PoolConfig) -> None:
        """Use *config* for what is done from now on. Limits on age and memory, and the health interval, change for the
        processes that run too. The limit on calls does not: it is in their counters.
        """
        before, self._config = self._config, config
        for process in self._living:
            process.health.interval = config.health_interval
            process.limits = process.limits.changed(before, config)

    # -- starts ---------------------------------------------------------------------------------------------------

    def new(self, worker: Worker) -> WorkerProcess:
        """Make another process for the slot, without starting it."""
        worker.processes += 1
        health = Health(self._config.health_interval, self._config.health_timeout, self._config.health_misses)
        limits = RecycleLimits.draw(self._config, self._random)
        process = WorkerProcess(worker.processes, time.monotonic_ns(), health, limits, self._config.concurrency)
        self._living[process] = worker
        return process

    async def launch(self, worker: Worker, process: WorkerProcess) -> StartError | None:
        """Start a process and wait until it has loaded the target. Returns the error if that failed, else None."""
        emit.worker_init(self._identity, worker.id, restarts=worker.restarts)
        process.transport = transport = self._make(worker, process)
        try:
            async with asyncio.timeout(self._config.start_timeout):
                process.ready = ready = await transport.start()
        except TimeoutError:
            cause = (
                f"had not loaded {self._target!r} after {self._config.start_timeout:g} s; "
                "raise start_timeout, or check what the target does on import"
            )
            return StartError(f"worker {worker.id} {cause}", cause=cause)
        except StartError as failure:
            return self._start_failure(process, failure)
        except Exception as failure:  # noqa: BLE001 - any error fails this start, and does not end the pool
            logger("pool").exception("a worker could not be started", pool=self._identity.name, worker=worker.id)
            cause = f"could not be started: {failure!r:.500}"
            return StartError(f"worker {worker.id} {cause}", cause=cause)
        finally:
            if process.ready is None:
                transport.kill()
        process.ready_ns = time.monotonic_ns()
        duration = process.ready_ns - process.started_ns
        self.start_seconds = _mean_start(self.start_seconds, duration / 1e9)
        emit.worker_ready(
            self._identity, worker.id, duration=duration, pid=ready.pid, python=ready.python, codec=ready.codec
        )
        return None

    def _start_failure(self, process: WorkerProcess, failure: StartError) -> StartError:
        """Return *failure*, or, if the kernel killed the process for want of memory, an error that says so."""
        if process.end_reason is not None:
            return failure
        ending = self._kernel_kills.judge(process.exit_code, self._running_pids)
        if ending.text is None:
            return failure
        return StartError(f"{failure}\nIt was {ending.text}.", cause=ending.text)

    def update_operations(self) -> None:
        """Update the pool's operations with those that its workers offer now."""
        processes = [worker.process for worker in self._roster.workers.values()]
        offers = [
            process.ready.operations for process in processes if process is not None and process.ready is not None
        ]
        self._dispatcher.operations = merge_offers(self._dispatcher.operations, offers)

    # -- ends -----------------------------------------------------------------------------------------------------

    def kill(self, worker: Worker, reason: str, culprit: str = "") -> None:
        """Kill the slot's process, as soon as its stack is taken; its keeper starts the next one. *culprit*: the
        operation that is the reason.
        """
        process = worker.process
        if process is not None and process.transport is not None:
            process.culprit = culprit
            self.withdraw(worker, reason)
            stacks.before_end(process.transport, partial(_kill_with, process, process.transport), often=False)

    def withdraw(self, worker: Worker, reason: str) -> None:
        """Hand no more calls to the slot's process, which is about to be ended for *reason*."""
        assert worker.process is not None
        worker.process.end_reason = reason
        self._roster.withdraw(worker)
        if worker.lifecycle.state in (State.INITIALIZING, *ALIVE):
            self._roster.move(worker, "stop", time.monotonic_ns())

    def stop(self, process: WorkerProcess) -> None:
        """Ask the process to exit, and kill it if it does not. Returns at once."""
        assert self._group is not None
        assert process.transport is not None
        self._group.start_soon(self._stopped, process.transport)

    async def _stopped(self, transport: Transport) -> None:
        try:
            await transport.stop(self._config.stop_grace, self._config.kill_grace)
        except Exception:  # noqa: BLE001 - the process is killed instead: no reason to end the pool
            logger("pool").exception("a worker could not be asked to exit", pool=self._identity.name)
            transport.kill()

    def kill_for_breach(self, worker: Worker, process: WorkerProcess, reason: str) -> None:
        """Kill a process that has violated the protocol. Does nothing the second time."""
        if process.transport is not None and process.protocol_error is None:
            self.note_breach(worker, process, reason)
            process.transport.kill()

    def note_breach(self, worker: Worker, process: WorkerProcess, reason: str) -> None:
        """Report that the process has violated the protocol. Its transport kills it."""
        cause = f"broke the protocol: {reason}"
        process.protocol_error = error = ProtocolError(f"worker {worker.id} {cause}")
        error.cause = cause
        self.report(worker, error)
        if process is worker.process:
            self.withdraw(worker, "protocol")

    def gone(self, worker: Worker, process: WorkerProcess, exit_code: int | None, stderr: str) -> None:
        """Handle the end of a process, whether the pool ended it or not."""
        del self._living[process]
        process.transport, process.exit_code = None, exit_code
        now_ns = time.monotonic_ns()
        current = process is worker.process
        if process.ready is not None:
            about: dict[str, Any] = {"uptime": now_ns - process.started_ns, "pid": process.ready.pid}
            if process.end_reason is not None:
                emit.worker_terminate(
                    self._identity, worker.id, **about, reason=process.end_reason, stack=process.stack
                )
            else:
                process.ending = self._kernel_kills.judge(exit_code, self._running_pids)
                call = worker.call if current else None
                crash = emit.worker_crash(
                    self._identity,
                    worker.id,
                    **about,
                    exit_code=exit_code,
                    reason=process.ending.text or exit_text(exit_code),
                    out_of_memory=process.ending.out_of_memory,
                    stderr=stderr,
                    operation=None if call is None else call.operation,
                )
                fields = {key: value for key, value in crash.items() if key != "pool_instance"} | {
                    "stderr": redact(stderr)
                }
                logger("pool").warning("worker crashed", **fields)
        if current:
            if process.ready is not None and worker.died_ns is None:
                worker.died_ns = now_ns
            self.vacate(worker, process, exit_code, stderr, now_ns)

    def vacate(self, worker: Worker, process: WorkerProcess, exit_code: int | None, stderr: str, now_ns: int) -> None:
        """Empty the slot after its process has ended: fail or take back its calls, and wake the slot's keeper."""
        reason = process.end_reason
        ending = None if process.ending is None else process.ending.text  # set only if the pool did not end it
        ended_by_pool = None if reason is None else _ENDED_BECAUSE.get(reason, reason).format(process.culprit)
        how = ended_by_pool or ending or exit_text(exit_code)

        def error_for(call: Call) -> PoolError:
            if process.protocol_error is not None:
                return ProtocolError(f"{call.operation}: {process.protocol_error}")
            text = f"{call.operation}: worker {worker.id} ended during the call: {how}"
            error = WorkerDied(text, worker=worker.id, exit_code=exit_code, stderr=stderr, reason=reason)
            error.cause = ending
            stacks.with_stack(error, process.stack)
            return error

        self._roster.move(worker, "exited", now_ns)
        worker.last_end = (process.end_reason not in (None, "protocol"), process.served)
        try:
            self._dispatcher.lost(worker, error_for)
        finally:
            worker.process = None
            worker.calls_done.set()
            worker.process_gone.set()

    def _running_pids(self) -> list[int]:
        """The processes whose ends were not noticed yet, and that the pool has not ended."""
        return [each.ready.pid for each in self._living if each.ready is not None and each.end_reason is None]

    def refresh_kernel_kills(self) -> None:
        """Read what the kernel has killed, every few seconds. To be called more often."""
        self._kernel_kills.refresh()

    def report(self, worker: Worker, error: PoolError) -> None:
        """Emit and log an error that belongs to no single call. Secrets are replaced in the log, not in the event."""
        about: dict[str, Any] = {"worker": worker.id, "category": error.category, "severity": error.severity}
        emit.error(self._identity, **about, reason=str(error), cause=error.cause)
        logger("pool").warning("worker failed", reason=redact(str(error)), pool=self._identity.name, **about)

    def abort(self) -> None:
        """Kill all processes that are left. Blocks for milliseconds."""
        for process in list(self._living):
            if process.transport is not None:
                with contextlib.suppress(RuntimeError):  # the event loop is closed: the end cannot be reported any more
                    process.transport.abandon()


def _mean_start(mean: float | None, seconds: float) -> float:
    """Return the mean with one more start; an earlier start counts less with each."""
    return seconds if mean is None else mean + _START_WEIGHT * (seconds - mean)
