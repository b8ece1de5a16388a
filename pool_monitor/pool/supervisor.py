"""Keeps the slots of a pool filled with processes, from the first start to the last exit.

Theory of operation
-------------------
One task keeps each slot (`Supervisor._keep`): it starts a process, waits until the process has gone, and starts the
next. A process that is due is replaced without a gap: its successor is started beside it, and takes over when the slot
is idle (`Recycler`). The slot stays ready or busy throughout.

The supervisor acts on what processes do; the `Dispatcher` asks it to act for calls (`WorkerControl`). `ProcessControl`
starts and ends processes for the supervisor, for `Recycler` and for `Checkups`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio

from pool_monitor import emit
from pool_monitor.log import logger
from pool_monitor.pool.checkups import Checkups
from pool_monitor.pool.policy.lifecycle import State
from pool_monitor.pool.policy.restarts import RestartIntensity
from pool_monitor.pool.process_events import ProcessEvents
from pool_monitor.pool.processes import ALIVE, ProcessControl
from pool_monitor.pool.recycler import Recycler
from pool_monitor.pool.worker import Worker, WorkerProcess

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from pool_monitor.config import PoolConfig
    from pool_monitor.errors import StartError
    from pool_monitor.pool.admission import Admission
    from pool_monitor.pool.dispatcher import Dispatcher
    from pool_monitor.pool.roster import Roster
    from pool_monitor.pool.transport.interface import Sink, Transport

_AT_ONCE = 16  # processes that a parallel warm-up starts at the same time: more would only slow each other down
_RETIRED_FIRST = (
    State.TERMINATED,
    State.TERMINATING,
    State.INITIALIZING,
    State.DEGRADED,
    State.READY,
    State.BUSY,
)


class Supervisor:
    """Keeps the slots of one pool filled, and is the dispatcher's `WorkerControl`. *make* makes a transport. *changed*
    is called when a worker has become ready, a slot has gone, or a start has failed (then with the error).
    """

    def __init__(
        self,
        target: str,
        size: int,
        config: PoolConfig,
        roster: Roster,
        admission: Admission,
        dispatcher: Dispatcher,
        make: Callable[[Sink], Transport],
        changed: Callable[[StartError | None], None],
    ) -> None:
        self._pool = roster.pool
        self._config = config
        self._roster, self._admission, self._dispatcher = roster, admission, dispatcher
        self.restarts = 0
        self._closing = False
        self._make, self._changed = make, changed
        self._processes = ProcessControl(target, config, roster, dispatcher, self._make_transport)
        self._recycler = Recycler(roster, dispatcher, self._processes)
        self._checkups = Checkups(roster, dispatcher, self._processes, self._recycler)
        self._loop = asyncio.get_running_loop()
        self._group: TaskGroup | None = None
        self._intensity = RestartIntensity(2 * size, max(1, size))  # for all slots together
        self._starting = asyncio.Semaphore(_AT_ONCE if config.warmup == "parallel" else 1)

    def _make_transport(self, worker: Worker, process: WorkerProcess) -> Transport:
        identity = self._roster.identity
        sink = ProcessEvents(identity, self._config, worker, process, self._dispatcher, self._processes, self._checkups)
        return self._make(sink)

    @property
    def start_seconds(self) -> float | None:
        """How long the latest starts took, on the average; None before the first."""
        return self._processes.start_seconds

    def configure(self, config: PoolConfig) -> None:
        """Use *config* from now on, as `ProcessControl.configure` does."""
        self._config = config
        self._processes.configure(config)
        for worker in self._roster.workers.values():
            worker.backoff.change(config.backoff_min)

    def open(self, group: TaskGroup) -> None:
        """Use *group* for the tasks that keep slots."""
        self._group = group
        self._processes.open(group)
        self._recycler.open(group)

    def begin_closing(self) -> None:
        """Note that the pool closes: recycle no more workers, and give ``close`` as the reason for ending slots."""
        self._closing = True
        self._recycler.enabled = False

    def abort(self) -> None:
        """Kill all processes that are left. Blocks for milliseconds."""
        self._processes.abort()

    def resize(self, size: int) -> None:
        """Set the number of slots to *size*: add slots, or retire the surplus, idle slots first."""
        self._intensity = RestartIntensity(2 * size, max(1, size))
        kept = [worker for worker in self._roster.workers.values() if worker.keep]
        surplus = sorted(kept, key=lambda worker: (_RETIRED_FIRST.index(worker.lifecycle.state), -worker.index))
        for worker in surplus[: max(0, len(kept) - size)]:
            worker.keep = False
            self._roster.withdraw(worker)
            if worker.lifecycle.state is not State.BUSY:  # else `idle` retires it
                self.retire(worker)
        self.add(size - len(kept))

    def add(self, count: int) -> None:
        """Add *count* slots. Does nothing before `open`; the pool then adds its slots itself."""
        if self._group is None:
            return
        index = 0
        for _ in range(count):
            while f"{self._pool}-{index}" in self._roster.workers:
                index += 1
            worker = Worker(self._pool, index, time.monotonic_ns(), self._config)
            self._roster.add(worker)
            self._group.start_soon(self._keep, worker, name=f"pool {self._pool} slot {index}")

    def retire(self, worker: Worker) -> None:
        """Retire a slot: ask its process to exit. The slot's keeper drops the slot when the process has gone."""
        worker.keep = False
        worker.retiring.set()
        worker.calls_done.set()
        process, successor = worker.process, worker.successor
        if successor is not None and successor.transport is not None:
            successor.transport.kill()
        if process is None or process.transport is None or worker.lifecycle.state is State.TERMINATING:
            return
        self._processes.withdraw(worker, "close" if self._closing else "resize")
        self._processes.stop(process)

    # -- one slot -------------------------------------------------------------------------------------------------

    async def _keep(self, worker: Worker) -> None:
        """Fill one slot with one process after the other, until the slot is not to be kept."""
        async with self._starting:  # for the first start only
            error = await self._start(worker) if worker.keep else None
        while worker.keep:
            await worker.process_gone.wait()
            if worker.keep:
                await self._pause(worker, error)
                error = await self._start(worker)
        if worker.process is not None:
            await worker.process_gone.wait()
        self._dispatcher.forget(worker)
        self._roster.drop(worker)
        self._changed(None)

    async def _pause(self, worker: Worker, error: StartError | None) -> None:
        """Count a restart, and wait if the last start failed or there were too many restarts."""
        ended_by_pool, served = worker.last_end
        if error is None and ended_by_pool:
            return  # not a failure
        now = self._loop.time()
        within = worker.intensity.record(now)
        within = self._intensity.record(now) and within
        if served:
            worker.backoff.reset()
        if within and error is None:
            return
        pause = worker.backoff.next()
        if not within:
            self._crash_loop(worker, pause)
        with anyio.move_on_after(pause):
            await worker.retiring.wait()

    def _crash_loop(self, worker: Worker, pause: float | None) -> None:
        """Note that the slot is in a crash loop and pauses for *pause* seconds; None: it has left the crash loop."""
        if worker.crash_loop == (pause is not None):
            return
        worker.crash_loop = pause is not None
        state = "entered" if worker.crash_loop else "left"
        emit.worker_crash_loop(self._roster.identity, worker.id, pause=round((pause or 0.0) * 1e9), state=state)
        logger("pool").warning("crash loop", pool=self._pool, worker=worker.id, state=state)

    async def _start(self, worker: Worker) -> StartError | None:
        """Fill a vacant slot. Returns the error if that failed, else None."""
        if worker.successor is not None:  # wait for its start, which takes no longer than another one
            async with worker.replacing:
                pass
        if not worker.keep:
            return None
        worker.process_gone.clear()
        if worker.processes:
            worker.restarts += 1
            self.restarts += 1
        worker.starts += 1
        now_ns = time.monotonic_ns()
        successor, worker.successor = worker.successor, None
        if successor is not None and successor.ready is not None and successor.transport is not None:
            worker.process = successor  # it was started to replace the process that has gone
            self._roster.move(worker, "start", now_ns)
            error = None
        else:
            process = worker.process = self._processes.new(worker)
            self._roster.move(worker, "start", now_ns)
            error = await self._processes.launch(worker, process)
        if error is not None:
            await worker.process_gone.wait()
            if worker.keep:
                self._processes.report(worker, error)
                self._admission.start_failed(error)
                self._changed(error)
        elif worker.lifecycle.state is State.INITIALIZING:
            self._loaded(worker)
        return error

    def _loaded(self, worker: Worker) -> None:
        """Mark the worker as ready: the slot's process has loaded the target."""
        process = worker.process
        assert process is not None
        assert process.ready is not None
        now_ns = time.monotonic_ns()
        self._processes.update_operations()
        self._roster.move(worker, "loaded", now_ns)
        worker.transport = process.transport
        if worker.died_ns is not None:
            duration = now_ns - worker.died_ns
            emit.recovery(self._roster.identity, worker.id, duration=duration, attempts=worker.starts)
        worker.died_ns, worker.starts = None, 0
        self._admission.started()
        self._dispatcher.ready(worker)
        self._changed(None)

    # -- requests of the dispatcher -------------------------------------------------------------------------------

    def kill(self, worker: Worker, reason: str, culprit: str) -> None:
        """Kill the slot's process now; its keeper starts the next one."""
        self._processes.kill(worker, reason, culprit)

    def misbehaved(self, worker: Worker, reason: str) -> None:
        """Kill the slot's process now: it has violated the protocol."""
        if worker.process is not None:
            self._processes.kill_for_breach(worker, worker.process, reason)

    def idle(self, worker: Worker) -> None:
        """Note that a withdrawn worker has become idle. Retires the slot if it is not to be kept."""
        worker.calls_done.set()
        if not worker.keep:
            self.retire(worker)

    def recycle_due(self, worker: Worker) -> None:
        """Recycle the worker: its process has been handed as many calls as its limit allows."""
        self._recycler.recycle_soon(worker, "calls")

    # -- requests of the pool -------------------------------------------------------------------------------------

    async def recycle(self, worker: Worker, old: WorkerProcess | None, reason: str) -> StartError | None:
        """Replace *old*, the slot's process, as `Recycler.recycle` does."""
        return await self._recycler.recycle(worker, old, reason)

    def check_workers(self, now: float) -> None:
        """Check every worker. To be called a few times per health interval."""
        self._processes.refresh_kernel_kills()
        for worker in list(self._roster.workers.values()):
            process = worker.process
            if worker.crash_loop and process is not None and worker.lifecycle.state in ALIVE:
                lived = (time.monotonic_ns() - process.ready_ns) / 1e9
                if lived > self._config.restart_period:
                    self._crash_loop(worker, None)
            self._checkups.check(worker, now)
