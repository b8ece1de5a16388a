"""Replaces a process that has done enough, without a gap: its successor is started beside it."""

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
    """Replaces processes of a pool. When one has done enough is decided by `policy.recycle`."""

    def __init__(self, roster: Roster, dispatcher: Dispatcher, processes: ProcessControl) -> None:
        self._roster, self._dispatcher, self._processes = roster, dispatcher, processes
        self._identity = roster.identity
        self._group: TaskGroup | None = None
        self._one_at_a_time = asyncio.Lock()  # a recycled slot holds two processes
        self.enabled = True
        """False: `recycle_soon` does nothing any more, since the pool closes."""

    def open(self, group: TaskGroup) -> None:
        """Recycle with tasks of *group* from now on."""
        self._group = group

    def recycle_soon(self, worker: Worker, reason: str) -> None:
        """Recycle the worker with a task of its own, unless it is being recycled, or is not to be kept."""
        if not worker.recycling and self._group is not None and worker.keep and self.enabled:
            worker.recycling = True
            name = f"pool {self._identity.name} recycles {worker.id}"
            self._group.start_soon(self._recycle_unasked, worker, worker.process, reason, name=name)

    async def _recycle_unasked(self, worker: Worker, process: WorkerProcess | None, reason: str) -> None:
        try:
            if await self.recycle(worker, process, reason) is None or process is None:
                return
            if process.used_up:  # it is handed nothing more, with a successor or without
                await self._wait_for_calls(worker, process)
                if worker.process is process and worker.keep:
                    self._processes.kill(worker, "recycle")
            else:
                with anyio.move_on_after(worker.backoff.next()):  # before it is found to be due again
                    await worker.retiring.wait()
        finally:
            worker.recycling = False
            now = worker.process
            due = now is not None and now.recycle_due and (now.used_up or now is not process)
            if due and worker.lifecycle.state in ALIVE:
                self.recycle_soon(worker, "calls")  # it became due while this task could not see to it

    async def recycle(self, worker: Worker, old: WorkerProcess | None, reason: str) -> StartError | None:
        """Replace *old*, the slot's process, by a fresh one: started first, changed when the slot is idle, so that
        there is never a worker less. One slot at a time, except for processes that may soon be handed no more calls.
        Returns why the fresh one could not be started, or None.
        """
        turn = contextlib.nullcontext() if reason == "calls" else self._one_at_a_time
        async with turn, worker.replacing:
            return await self._recycle(worker, old, reason)

    async def _recycle(self, worker: Worker, old: WorkerProcess | None, reason: str) -> StartError | None:
        began_ns = time.monotonic_ns()
        if old is None or worker.process is not old or not worker.keep or worker.lifecycle.state not in ALIVE:
            return None  # it has gone already, or never came to be
        successor = worker.successor = self._processes.new(worker)
        try:
            error = await self._processes.launch(worker, successor)
            if error is not None and worker.keep:
                self._processes.report(worker, error)
                return error
            if error is not None:
                return None  # the slot is not kept either
            if worker.process is old:  # else it has gone meanwhile, and the fresh one may be in its place already
                self._roster.withdraw(worker)
                await self._wait_for_calls(worker, old)
            if successor.transport is None:
                return StartError(f"the fresh process of worker {worker.id} ended before it was needed")
            if worker.process is old and worker.keep and worker.lifecycle.state in (State.READY, State.DEGRADED):
                self._replace(worker, old, successor, reason, began_ns)
        finally:
            left_over = successor.ready is not None and worker.process is None and worker.keep
            if worker.successor is successor and not left_over:  # else the vacant slot is filled with it
                worker.successor = None
                if worker.process is not successor:  # it is of no use
                    if successor.transport is not None:
                        successor.end_reason = "recycle"
                        successor.transport.kill()
                    if worker.process is old and worker.keep and worker.lifecycle.state in (State.READY, State.BUSY):
                        self._dispatcher.ready(worker)  # as it was before
        return None

    async def _wait_for_calls(self, worker: Worker, process: WorkerProcess) -> None:
        """Wait until the slot's process has no more calls, or the slot has another one."""
        worker.calls_done.clear()
        while worker.calls and worker.process is process and worker.keep:
            await worker.calls_done.wait()
            worker.calls_done.clear()

    def _replace(self, worker: Worker, old: WorkerProcess, new: WorkerProcess, reason: str, began_ns: int) -> None:
        """From one event to the next, another process fills the slot."""
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
        if new.transport is None:  # it ended in this very moment
            self._processes.vacate(worker, new, None, "", now_ns)
        else:
            self._dispatcher.ready(worker)
