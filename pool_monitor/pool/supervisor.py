"""The workers' lives: each slot's processes, from first start to last exit.

Theory of operation
-------------------
Each slot is kept by one task (`Slots._keep`): start a process, wait until it has gone, start the next. A process that
has done enough is replaced without a gap: its successor is started beside it, and takes the slot over in the instant
when the slot is idle (`Slots.recycle`); the slot itself is ready or busy all the while.

What is decided here follows from what processes do; what calls need (`Wardens`) comes from the `Dispatcher`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from pool_monitor import events, telemetry
from pool_monitor.errors import PoolError, ProtocolError, StartError, WorkerDied
from pool_monitor.log import logger
from pool_monitor.pool.dispatcher import Dispatcher
from pool_monitor.pool.policy.health import Health, Verdict
from pool_monitor.pool.policy.operations import offered
from pool_monitor.pool.policy.recycle import RecycleLimits
from pool_monitor.pool.policy.restarts import RestartIntensity
from pool_monitor.pool.transport.spawn import exit_text
from pool_monitor.pool.worker import Process, State, Worker
from pool_monitor.pool.worker_output import WorkerOutput

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from pool_monitor.config import PoolConfig
    from pool_monitor.pool.call import Call
    from pool_monitor.pool.transport.base import Sink, Transport

_AT_ONCE = 16  # processes started at the same time by a parallel warm-up: more would only wait for each other
_ALIVE = (State.READY, State.BUSY, State.DEGRADED)
_ENDED = {
    "timeout": "it was killed because {} was not done in time and did not let go",
    "cancel": "it was killed because {} was cancelled and did not let go",
    "close": "the pool was closed",
    "health": "it was killed because it did not answer",
    "resize": "the pool was made smaller",
    "recycle": "it was replaced",
    "payload": "it was killed because {} yielded what cannot be carried and did not let go",
}
"""Why a process was ended, in words; with the operation that was the reason."""


class Slots:
    """The slots of one pool. *make* makes a transport; *changed* is told when a worker has become ready, a slot has
    gone, or a start has failed (with the error).
    """

    def __init__(
        self,
        pool: str,
        target: str,
        size: int,
        config: PoolConfig,
        make: Callable[[Sink], Transport],
        changed: Callable[[StartError | None], None],
    ) -> None:
        self.pool = pool
        self.config = config
        self.calls = Dispatcher(pool, size, config, self)
        self.restarts = 0
        self.closing = False
        self._target = target
        self._make, self._changed = make, changed
        self._loop = asyncio.get_running_loop()
        self._group: TaskGroup | None = None
        self._living: dict[Process, Worker] = {}
        self._intensity = RestartIntensity(2 * size, max(1, size))  # of all slots together
        self._gate = asyncio.Semaphore(_AT_ONCE if config.warmup == "parallel" else 1)
        self._one_at_a_time = asyncio.Lock()  # a recycled slot holds two processes
        self._random = random.Random()  # noqa: S311 - jitter, no secret

    @property
    def workers(self) -> dict[str, Worker]:
        return self.calls.roster.workers

    def open(self, group: TaskGroup) -> None:
        """Keep slots with tasks of *group* from now on."""
        self._group = group

    def resized(self, size: int) -> None:
        """The pool wants so many workers from now on."""
        self.calls.gate.size = size
        self._intensity = RestartIntensity(2 * size, max(1, size))

    def add(self, count: int) -> None:
        """That many slots more. Before `open` it does nothing: whoever opens adds as many as are wanted then."""
        if self._group is None:
            return
        index = 0
        for _ in range(count):
            while f"{self.pool}-{index}" in self.workers:
                index += 1
            worker = Worker(self.pool, index, time.monotonic_ns(), self.config)
            self.calls.roster.add(worker)
            self._group.start_soon(self._keep, worker, name=f"pool {self.pool} slot {index}")

    def retire(self, worker: Worker) -> None:
        """End a slot that is no longer wanted, gently; its keeper sees to the rest."""
        worker.wanted = False
        worker.unwanted.set()
        worker.settled.set()
        process, successor = worker.process, worker.successor
        if successor is not None and successor.transport is not None:
            successor.transport.kill()
        if process is None or process.transport is None or worker.lifecycle.state is State.TERMINATING:
            return
        self._withdraw(worker, "close" if self.closing else "resize")
        self._stop(process)

    def abort(self) -> None:
        """Whatever is left, on whatever way out: no process may stay. Blocks for milliseconds."""
        for process in list(self._living):
            if process.transport is not None:
                with contextlib.suppress(RuntimeError):  # its event loop is closed: it cannot report the end any more
                    process.transport.abandon()

    # -- one slot -------------------------------------------------------------------------------------------------

    async def _keep(self, worker: Worker) -> None:
        """One slot's whole life: a process after the other, until it is no longer wanted."""
        async with self._gate:  # for the first one only
            error = await self._start(worker) if worker.wanted else None
        while worker.wanted:
            await worker.vacant.wait()
            if worker.wanted:
                await self._pause(worker, error)
                error = await self._start(worker)
        if worker.process is not None:
            await worker.vacant.wait()
        self.calls.forget(worker)
        self.calls.roster.drop(worker)
        self._changed(None)

    async def _pause(self, worker: Worker, error: StartError | None) -> None:
        """Before another process: see whether there were too many, and wait if so."""
        asked, served = worker.last_end
        if error is None and asked:
            return  # nothing is wrong with it
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
            await worker.unwanted.wait()

    def _crash_loop(self, worker: Worker, pause: float | None) -> None:
        """The slot is in a crash loop, and pauses; or with None no longer is."""
        if worker.crash_loop == (pause is not None):
            return
        worker.crash_loop = pause is not None
        metadata = {"pool": self.pool, "worker": worker.id, "state": "entered" if worker.crash_loop else "left"}
        events.WORKER_CRASH_LOOP.event.emit({"pause_duration": round((pause or 0.0) * 1e9)}, metadata)
        logger("pool").warning("crash loop", **metadata)

    async def _start(self, worker: Worker) -> StartError | None:
        """Fill a vacant slot. Returns why that failed, or None."""
        if worker.successor is not None:  # let it be ready first: it is as quick as another
            async with worker.replacing:
                pass
        if not worker.wanted:
            return None
        worker.vacant.clear()
        if worker.processes:
            worker.restarts += 1
            self.restarts += 1
        worker.starts += 1
        now_ns = time.monotonic_ns()
        successor, worker.successor = worker.successor, None
        if successor is not None and successor.ready is not None and successor.transport is not None:
            worker.process = successor  # it was to replace the one that has died meanwhile
            self.calls.roster.move(worker, "start", now_ns)
            error = None
        else:
            process = worker.process = self._process(worker)
            self.calls.roster.move(worker, "start", now_ns)
            error = await self._launch(worker, process)
        if error is not None:
            await worker.vacant.wait()
            if worker.wanted:
                self._report(worker, error)
                self.calls.gate.start_failed(error)
                self._changed(error)
        elif worker.lifecycle.state is State.INITIALIZING:
            self._loaded(worker)
        return error

    def _process(self, worker: Worker) -> Process:
        """Another process for the slot, not yet started."""
        worker.processes += 1
        health = Health(self.config.health_interval, self.config.health_timeout, self.config.health_misses)
        limits = RecycleLimits.draw(self.config, self._random)
        process = Process(worker.processes, time.monotonic_ns(), health, limits)
        self._living[process] = worker
        return process

    async def _launch(self, worker: Worker, process: Process) -> StartError | None:
        """Start a process and wait until it has loaded the target. Returns why that failed, or None."""
        about: dict[str, Any] = {"pool": self.pool, "worker": worker.id}
        measurements = {"system_time": time.time_ns(), "restarts": worker.restarts}
        events.WORKER_INIT.event.emit(measurements, about)
        process.transport = transport = self._make(Line(self, worker, process))
        try:
            async with asyncio.timeout(self.config.start_timeout):
                process.ready = ready = await transport.start()
        except TimeoutError:
            return StartError(
                f"worker {worker.id} had not loaded {self._target!r} after {self.config.start_timeout:g} s; "
                "raise start_timeout, or see what it does on import"
            )
        except StartError as failure:
            return failure
        except Exception as failure:  # noqa: BLE001 - whatever it is, it costs a start and not the pool
            logger("pool").exception("a worker could not be started", **about)
            return StartError(f"worker {worker.id} could not be started: {failure!r:.500}")
        finally:
            if process.ready is None:
                transport.kill()
        process.ready_ns = time.monotonic_ns()
        events.WORKER_READY.event.emit(
            {"duration": process.ready_ns - process.started_ns},
            {**about, "pid": ready.pid, "python": ready.python, "codec": ready.codec},
        )
        return None

    def _loaded(self, worker: Worker) -> None:
        """The slot's process is ready."""
        process = worker.process
        assert process is not None
        assert process.ready is not None
        now_ns = time.monotonic_ns()
        self._settle_operations()
        self.calls.roster.move(worker, "loaded", now_ns)
        worker.transport = process.transport
        if worker.died_ns is not None:
            measurements = {"duration": now_ns - worker.died_ns, "attempts": worker.starts}
            events.POOL_RECOVERY.event.emit(measurements, {"pool": self.pool, "worker": worker.id})
        worker.died_ns, worker.starts = None, 0
        self.calls.gate.started()
        self.calls.ready(worker)
        self._changed(None)

    def _settle_operations(self) -> None:
        """The pool offers what its workers do."""
        processes = [worker.process for worker in self.workers.values()]
        offers = [one.ready.operations for one in processes if one is not None and one.ready is not None]
        self.calls.operations = offered(self.calls.operations, offers)

    # -- ends -----------------------------------------------------------------------------------------------------

    def kill(self, worker: Worker, reason: str, culprit: str = "") -> None:
        """End the slot's process now; the next one is started."""
        process = worker.process
        if process is not None and process.transport is not None:
            process.culprit = culprit
            self._withdraw(worker, reason)
            process.transport.kill()

    def _withdraw(self, worker: Worker, reason: str) -> None:
        """Its process is about to be ended."""
        assert worker.process is not None
        worker.process.end_reason = reason
        self.calls.roster.withdraw(worker)
        if worker.lifecycle.state in (State.INITIALIZING, *_ALIVE):
            self.calls.roster.move(worker, "stop", time.monotonic_ns())

    def _stop(self, process: Process) -> None:
        """Ask it to leave, then make it."""
        assert self._group is not None
        assert process.transport is not None
        self._group.start_soon(self._stopped, process.transport)

    async def _stopped(self, transport: Transport) -> None:
        try:
            await transport.stop(self.config.stop_grace, self.config.kill_grace)
        except Exception:  # noqa: BLE001 - it cannot be asked: no reason to end the pool
            logger("pool").exception("a worker could not be asked to leave", pool=self.pool)
            transport.kill()

    def misbehaved(self, worker: Worker, reason: str) -> None:
        """The slot's process does what the protocol does not allow."""
        if worker.process is not None:
            self._break(worker, worker.process, reason)

    def _break(self, worker: Worker, process: Process, reason: str) -> None:
        if process.transport is not None and process.broken is None:
            self.broke(worker, process, reason)
            process.transport.kill()

    def broke(self, worker: Worker, process: Process, reason: str) -> None:
        """A process broke the protocol and is being killed."""
        process.broken = ProtocolError(f"worker {worker.id} broke the protocol: {reason}")
        self._report(worker, process.broken)
        if process is worker.process:
            self._withdraw(worker, "protocol")

    def gone(self, worker: Worker, process: Process, exit_code: int | None, stderr: str) -> None:
        """A process has ended, as asked or not."""
        del self._living[process]
        process.transport = None
        now_ns = time.monotonic_ns()
        how = exit_text(exit_code)
        current = process is worker.process
        call = worker.call if current else None
        if process.ready is not None:
            about: dict[str, Any] = {"pool": self.pool, "worker": worker.id, "pid": process.ready.pid}
            uptime = {"uptime": now_ns - process.started_ns}
            if process.end_reason is not None:
                events.WORKER_TERMINATE.event.emit(uptime, {**about, "reason": process.end_reason})
            else:
                about |= {"reason": how, "stderr": stderr}
                if exit_code is not None:
                    about["exit_code"] = exit_code
                if call is not None:
                    about["operation"] = call.operation
                events.WORKER_CRASH.event.emit(uptime, about)
                logger("pool").warning("worker crashed", **about)
        if current:
            if process.ready is not None and worker.died_ns is None:
                worker.died_ns = now_ns
            self._vacated(worker, process, exit_code, stderr, now_ns)

    def _vacated(self, worker: Worker, process: Process, exit_code: int | None, stderr: str, now_ns: int) -> None:
        reason = process.end_reason
        how = exit_text(exit_code) if reason is None else _ENDED.get(reason, reason).format(process.culprit)

        def error_for(call: Call) -> PoolError:
            if process.broken is not None:
                return ProtocolError(f"{call.operation}: {process.broken}")
            text = f"{call.operation}: worker {worker.id} ended meanwhile: {how}"
            return WorkerDied(text, worker=worker.id, exit_code=exit_code, stderr=stderr, reason=reason)

        self.calls.roster.move(worker, "exited", now_ns)
        worker.last_end = (process.end_reason not in (None, "protocol"), process.served)
        try:
            self.calls.lost(worker, error_for)
        finally:
            worker.process = None
            worker.settled.set()
            worker.vacant.set()

    def _report(self, worker: Worker, error: PoolError) -> None:
        """An error no call can be told."""
        about = {"pool": self.pool, "worker": worker.id, "category": error.category, "severity": error.severity}
        events.POOL_ERROR.event.emit({"system_time": time.time_ns()}, {**about, "reason": str(error)})
        logger("pool").warning("worker failed", reason=str(error), **about)

    # -- recycling ------------------------------------------------------------------------------------------------

    def idle(self, worker: Worker) -> None:
        """It is idle, and not offered calls."""
        worker.settled.set()
        if not worker.wanted:
            self.retire(worker)

    def worn(self, worker: Worker) -> None:
        """Its process has been handed as many calls as are due."""
        self._recycle_soon(worker, "calls")

    def _recycle_soon(self, worker: Worker, reason: str) -> None:
        if not worker.recycling and self._group is not None and worker.wanted and not self.closing:
            worker.recycling = True
            name = f"pool {self.pool} recycles {worker.id}"
            self._group.start_soon(self._recycle_unasked, worker, worker.process, reason, name=name)

    async def _recycle_unasked(self, worker: Worker, process: Process | None, reason: str) -> None:
        try:
            if await self.recycle(worker, process, reason) is None or process is None:
                return
            if process.spent:  # it is handed nothing more, with a successor or without
                await self._settled(worker, process)
                if worker.process is process and worker.wanted:
                    self.kill(worker, "recycle")
            else:
                with anyio.move_on_after(worker.backoff.next()):  # before it is found to be due again
                    await worker.unwanted.wait()
        finally:
            worker.recycling = False
            now = worker.process
            if now is not None and now.worn and (now.spent or now is not process) and worker.lifecycle.state in _ALIVE:
                self.worn(worker)  # it came to be so while this task could not see to it

    async def recycle(self, worker: Worker, old: Process | None, reason: str) -> StartError | None:
        """Replace *old*, the slot's process, by a fresh one: started first, changed when the slot is idle, so that
        there is never a worker less. One slot at a time, but for processes that may soon be handed no more calls.
        Returns why the fresh one could not be started, or None.
        """
        turn = contextlib.nullcontext() if reason == "calls" else self._one_at_a_time
        async with turn, worker.replacing:
            return await self._recycle(worker, old, reason)

    async def _recycle(self, worker: Worker, old: Process | None, reason: str) -> StartError | None:
        began_ns = time.monotonic_ns()
        if old is None or worker.process is not old or not worker.wanted or worker.lifecycle.state not in _ALIVE:
            return None  # it has gone already, or never came to be
        successor = worker.successor = self._process(worker)
        try:
            error = await self._launch(worker, successor)
            if error is not None and worker.wanted:
                self._report(worker, error)
                return error
            if error is not None:
                return None  # nor is the slot wanted any more
            if worker.process is old:  # else it has gone meanwhile, and the fresh one may be in its place already
                self.calls.roster.withdraw(worker)
                await self._settled(worker, old)
            if successor.transport is None:
                return StartError(f"the fresh process of worker {worker.id} ended before it was needed")
            if worker.process is old and worker.wanted and worker.lifecycle.state in (State.READY, State.DEGRADED):
                self._change(worker, old, successor, reason, began_ns)
        finally:
            left_over = successor.ready is not None and worker.process is None and worker.wanted
            if worker.successor is successor and not left_over:  # else the vacant slot is filled with it
                worker.successor = None
                if worker.process is not successor:  # nobody has use for it
                    if successor.transport is not None:
                        successor.end_reason = "recycle"
                        successor.transport.kill()
                    if worker.process is old and worker.wanted and worker.lifecycle.state in (State.READY, State.BUSY):
                        self.calls.ready(worker)  # as it was before
        return None

    async def _settled(self, worker: Worker, process: Process) -> None:
        """Wait until the slot's process has no more calls, or the slot has another one."""
        worker.settled.clear()
        while worker.calls and worker.process is process and worker.wanted:
            await worker.settled.wait()
            worker.settled.clear()

    def _change(self, worker: Worker, old: Process, new: Process, reason: str, began_ns: int) -> None:
        """From one event to the next, another process fills the slot."""
        assert old.ready is not None
        assert new.ready is not None
        now_ns = time.monotonic_ns()
        worker.process, worker.transport = new, new.transport
        self.calls.roster.move(worker, "recycle", now_ns)
        old.end_reason = "recycle"
        events.WORKER_RECYCLE.event.emit(
            {"uptime": now_ns - old.started_ns, "duration": now_ns - began_ns, "calls": old.served},
            {"pool": self.pool, "worker": worker.id, "pid": old.ready.pid, "reason": reason},
        )
        if old.transport is not None:
            self._stop(old)
        self._settle_operations()
        if new.transport is None:  # it ended in this very moment
            self._vacated(worker, new, None, "", now_ns)
        else:
            self.calls.ready(worker)

    # -- health ---------------------------------------------------------------------------------------------------

    def look_after(self, now: float) -> None:
        """See how every worker is; to be called a few times per health interval."""
        for worker in list(self.workers.values()):
            process = worker.process
            if worker.crash_loop and process is not None and worker.lifecycle.state in _ALIVE:
                lived = (time.monotonic_ns() - process.ready_ns) / 1e9
                if lived > self.config.restart_period:
                    self._crash_loop(worker, None)
            if process is not None and worker.transport is not None and worker.lifecycle.state in _ALIVE:
                try:
                    self._look_at(worker, process, now)
                except Exception:  # noqa: BLE001 - it is looked at again: no reason to end the pool
                    logger("pool").exception("a worker could not be looked at", pool=self.pool, worker=worker.id)

    def _look_at(self, worker: Worker, process: Process, now: float) -> None:
        health, first = process.health, worker.call
        busy = first is not None and worker.has_begun(first)
        late = health.late
        assert process.ready is not None
        assert worker.transport is not None
        verdict = health.verdict(now, busy, _processor_time(process.ready.pid) if late and busy else None)
        known = process.verdict is not None or health.late > 0  # before the first answer nobody can say
        if known and (health.late > late or verdict is not process.verdict):
            process.verdict = verdict
            if health.late:
                self._tell_health(worker, process, None)
        if verdict is Verdict.UNRESPONSIVE:
            text = f"worker {worker.id} is idle and has not answered {health.late} times"
            self._report(worker, WorkerDied(text, worker=worker.id, exit_code=None, reason="health"))
            self.kill(worker, "health")
            return
        if health.suspect and not busy and worker.lifecycle.state is State.READY:
            self.calls.roster.withdraw(worker)
            self.calls.roster.move(worker, "degrade", time.monotonic_ns())
        if health.due(now):
            worker.transport.ping(health.ask(now))
        age = (time.monotonic_ns() - process.started_ns) / 1e9
        reason = process.limits.reason(process.handed, age, process.rss)
        if reason is not None:
            self._recycle_soon(worker, reason)

    def ponged(self, worker: Worker, process: Process, token: int, rss: int | None) -> None:
        """A process has answered."""
        if not process.health.asked(token):
            self._break(worker, process, f"an answer to ping {token}, which was not sent")
            return
        took = process.health.answered(token, self._loop.time())
        process.rss = rss
        process.verdict = Verdict.RESPONSIVE
        if process is not worker.process:
            return
        self._tell_health(worker, process, took)
        if worker.lifecycle.state is State.DEGRADED:
            self.calls.roster.move(worker, "recover", time.monotonic_ns())
            self.calls.ready(worker)

    def _tell_health(self, worker: Worker, process: Process, took: float | None) -> None:
        assert process.ready is not None
        assert process.verdict is not None
        measurements = {"missed": process.health.late}
        if took is not None:
            measurements["duration"] = round(took * 1e9)
        if process.rss is not None:
            measurements["rss"] = process.rss
        about = {"pool": self.pool, "worker": worker.id, "pid": process.ready.pid}
        events.WORKER_HEALTH_CHECK.event.emit(measurements, {**about, "verdict": process.verdict.value})


class Line:
    """What one process of a slot reports: the transport's `Sink`."""

    def __init__(self, slots: Slots, worker: Worker, process: Process) -> None:
        self._slots, self._worker, self._process = slots, worker, process
        calls = slots.calls  # what happens to calls goes straight there, without a frame of our own
        self.returned, self.caught_up = partial(calls.returned, worker), partial(calls.caught_up, worker)
        self.replied, self.failed = partial(calls.replied, worker), partial(calls.failed, worker)
        self.recalled = partial(calls.recalled, worker)
        self.output = WorkerOutput(slots.pool, slots.config, worker, process)
        self.wrote, self.logged = self.output.wrote, self.output.logged
        self.item, self.undecodable_item = (
            partial(calls.streams.item, worker),
            partial(calls.streams.undecodable_item, worker),
        )

    def takes_view(self, call_id: int) -> bool:
        call = self._worker.calls.get(call_id)
        return call is not None and call.options.zero_copy

    def ponged(self, token: int, _call_id: int | None, rss: int | None) -> None:
        self._slots.ponged(self._worker, self._process, token, rss)

    def emitted(self, event: tuple[str, ...], measurements: dict[str, Any], metadata: dict[str, Any]) -> None:
        telemetry.execute(event, measurements, {**metadata, "pool": self._slots.pool, "worker": self._worker.id})

    def dropped(self, count: int) -> None:
        metadata = {"pool": self._slots.pool, "worker": self._worker.id}
        events.WORKER_DROP.event.emit({"count": count}, metadata)

    def broke(self, reason: str) -> None:
        self._slots.broke(self._worker, self._process, reason)

    def gone(self, exit_code: int | None, stderr: str) -> None:
        self.output.settle()
        self._slots.gone(self._worker, self._process, exit_code, stderr)


def _processor_time(pid: int) -> float | None:
    """Seconds a process has computed; None when it cannot be told."""
    try:
        import psutil

        times = psutil.Process(pid).cpu_times()
    except Exception:  # noqa: BLE001 - it is gone, or there is no descriptor left to ask with
        return None
    return float(times.user + times.system)
