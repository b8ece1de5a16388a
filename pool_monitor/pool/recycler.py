"""Replaces a process that is due, without a gap: its successor is started beside it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import anyio

from pool_monitor import emit
from pool_monitor.errors import StartError
from pool_monitor.pool.policy.lifecycle import State
from pool_monitor.pool.processes import ALIVE
from pool_monitor.pool.worker import Worker, WorkerProcess

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from pool_monitor.pool.dispatcher import Dispatcher
    from pool_monitor.pool.processes import ProcessControl
    from pool_monitor.pool.roster import Roster


class Recycler:
    """Replaces processes of a pool. `policy.recycle` decides when a process is due."""

    def __init__(self, roster: Roster, dispatcher: Dispatcher, processes: ProcessControl) -> None:
        self._roster, self._dispatcher, self._processes = roster, dispatcher, processes
        self._identity = roster.identity
        self._group: TaskGroup | None = None
        self._one_at_a_time = asyncio.Lock()  # a slot that is being recycled has two processes
        self.enabled = True
        """False once the pool closes: `recycle_soon` then does nothing."""

    def open(self, group: TaskGroup) -> None:
        """Use *group* for the tasks that recycle."""
        self._group = group

    def recycle_soon(self, worker: Worker, reason: str) -> None:
        """Start a task that recycles the worker, unless it is being recycled already, or is not to be kept."""
        if not worker.recycling and self._group is not None and worker.keep and self.enabled:
            worker.recycling = True
            name = f"pool {self._identity.name} recycles {worker.id}"
            self._group.start_soon(self._recycle_unasked, worker, worker.process, reason, name=name)

    async def _recycle_unasked(self, worker: Worker, process: WorkerProcess | None, reason: str) -> None:
        try:
            if await self.recycle(worker, process, reason) is None or process is None:
                return
            if process.used_up:  # it is handed no more calls, even without a successor
                await self._wait_for_calls(worker, process)
                if worker.process is process and worker.keep:
                    self._processes.kill(worker, "recycle")
            else:
                with anyio.move_on_after(worker.backoff.next()):  # a pause before the next try
                    await worker.retiring.wait()
        finally:
            worker.recycling = False
            current = worker.process
            due = current is not None and current.recycle_due and (current.used_up or current is not process)
            if due and worker.lifecycle.state in ALIVE:
                self.recycle_soon(worker, "calls")  # it became due while this task was busy

    async def recycle(self, worker: Worker, old: WorkerProcess | None, reason: str) -> StartError | None:
        """Replace *old*, the slot's process. Its successor is started first, and takes over when the slot is idle, so
        the number of workers never drops. One slot is recycled at a time, except for *reason* ``calls``: such a process
        may soon be handed no more calls. Returns the error if the successor could not be started, else None.
        """
        turn = contextlib.nullcontext() if reason == "calls" else self._one_at_a_time
        async with turn, worker.replacing:
            return await self._recycle(worker, old, reason)

    async def _recycle(self, worker: Worker, old: WorkerProcess | None, reason: str) -> StartError | None:
        began_ns = time.monotonic_ns()
        if old is None or worker.process is not old or not worker.keep or worker.lifecycle.state not in ALIVE:
            return None  # the process has gone already, or was never started
        successor = worker.successor = self._processes.new(worker)
        try:
            error = await self._processes.launch(worker, successor)
            if error is not None and worker.keep:
                self._processes.report(worker, error)
                return error
            if error is not None:
                return None  # the slot is being retired, which ended the start
            if worker.process is old:  # else it has ended, and its successor may fill the slot already
                self._roster.withdraw(worker)
                await self._wait_for_calls(worker, old)
            if successor.transport is None:
                return StartError(f"the new process of worker {worker.id} ended before it could take over")
            if worker.process is old and worker.keep and worker.lifecycle.state in (State.READY, State.DEGRADED):
                self._replace(worker, old, successor, reason, began_ns)
        finally:
            left_over = successor.ready is not None and worker.process is None and worker.keep
            if worker.successor is successor and not left_over:  # else its keeper fills the vacant slot with it
                worker.successor = None
                if worker.process is not successor:  # it is not needed
                    if successor.transport is not None:
                        successor.end_reason = "recycle"
                        successor.transport.kill()
                    if worker.process is old and worker.keep and worker.lifecycle.state in (State.READY, State.BUSY):
                        self._dispatcher.ready(worker)  # the old process goes on
        return None

    async def _wait_for_calls(self, worker: Worker, process: WorkerProcess) -> None:
        """Wait until the slot's process has no more calls, or the slot has another process."""
        worker.calls_done.clear()
        while worker.calls and worker.process is process and worker.keep:
            await worker.calls_done.wait()
            worker.calls_done.clear()

    def _replace(self, worker: Worker, old: WorkerProcess, new: WorkerProcess, reason: str, began_ns: int) -> None:
        """Put the new process in the slot, and stop the old one."""
        assert old.ready is not None
        assert new.ready is not None
        now_ns = time.monotonic_ns()
        worker.process, worker.transport = new, new.transport
        self._roster.move(worker, "recycle", now_ns)
        old.end_reason = "recycle"
        emit.worker_recycle(
            self._identity,
            worker.id,
            uptime=now_ns - old.started_ns,
            duration=now_ns - began_ns,
            calls=old.served,
            pid=old.ready.pid,
            reason=reason,
        )
        if old.transport is not None:
            self._processes.stop(old)
        self._processes.update_operations()
        if new.transport is None:  # it has just ended
            self._processes.vacate(worker, new, None, "", now_ns)
        else:
            self._dispatcher.ready(worker)
