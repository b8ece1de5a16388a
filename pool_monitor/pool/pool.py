"""The Pool: what a service embeds. Owns its workers' lives, from first start to last exit.

Theory of operation
-------------------
A pool is a number of slots, each kept by one task (`Pool._keep`): start a process, wait until it has gone, start
the next. The tasks run in a group of their own, inside one runner task, so that a pool may be entered and left in
different tasks, and so that a cancelled caller cannot take the workers with it. Calls never touch those tasks: they
are handed over by the `Dispatcher`, synchronously.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import anyio

from pool_monitor import events
from pool_monitor.config import PoolConfig, build
from pool_monitor.errors import ConfigError, PoolClosed, PoolError, ProtocolError, StartError, WorkerDied
from pool_monitor.log import logger
from pool_monitor.pool.caller import Caller, Session, with_options
from pool_monitor.pool.calls import Options
from pool_monitor.pool.dispatcher import Dispatcher
from pool_monitor.pool.supervisor import Backoff
from pool_monitor.pool.transport.process import Launch, ProcessTransport, exit_words, import_path
from pool_monitor.pool.worker import State, Worker
from pool_monitor.snapshot import PoolState, PoolView, WorkerView

if TYPE_CHECKING:
    from types import TracebackType

    from pool_monitor.pool.transport.base import CallTimes, Failure

_HOUSEKEEPING = 60.0  # seconds between looks for sessions that are out of date
_OUTPUT = events.WORKER_OUTPUT.event
_CODECS = {"auto": ["msgpack", "json"]}


class DrainResult(NamedTuple):
    """What became of the calls a pool had when it was drained."""

    finished: int
    """Ended by themselves."""
    cancelled: int
    """Interrupted when the time was up."""
    abandoned: int
    """Of those, calls whose worker had to be killed."""


class Pool(Caller):
    """A pool of worker processes that load *target* and run its operations.

    *target* is ``"module:attribute"`` or ``"path/to/file.py:attribute"``; the attribute is a class, instantiated
    once per worker, or a module-like namespace of functions. Its public methods or functions are the operations.
    Every further keyword is a field of `PoolConfig`.

    Use as ``async with Pool(...) as pool``. Entering starts the workers and returns when all are ready; it raises
    StartError, with the target's traceback, when one cannot be started. Leaving lets accepted calls end
    (``drain_timeout``), or interrupts them when the block raised, and returns when no worker process is left.

    Raises ConfigError for a bad argument; nothing is started before the pool is entered. All methods belong to the
    event loop the pool was entered in.
    """

    def __init__(
        self,
        target: str,
        *,
        name: str = "default",
        size: int = 4,
        min_size: int = 1,
        max_size: int | None = None,
        config: PoolConfig | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(self, Options())
        self.config = build(PoolConfig, config, fields)
        where, colon, attribute = target.rpartition(":") if isinstance(target, str) else ("", "", "")
        if not (where and colon and attribute):
            raise ConfigError(
                f"Pool(target={target!r}): needs 'module:attribute' or 'path/to/file.py:attribute', "
                "such as 'my_service.workers:Summarizer'"
            )
        if not isinstance(name, str) or not name or not name.isprintable():
            raise ConfigError(f"Pool(name={name!r}): needs a non-empty printable string")
        self.target = target
        self.name = name
        self.min_size = _count("min_size", min_size, 0)
        default_max = max(_count("size", size, 0), 4 * (os.cpu_count() or 1))
        self.max_size = _count("max_size", default_max if max_size is None else max_size, 1)
        self._size = self._checked_size(size)
        self._state: PoolState = "new"
        self._restarts = 0
        self._entered_ns = 0
        self._dispatcher: Dispatcher | None = None
        self._launch: Launch | None = None
        self._runner: asyncio.Task[None] | None = None
        self._closing: asyncio.Event | None = None
        self._started: asyncio.Future[None] | None = None
        self._group: anyio.abc.TaskGroup | None = None

    def __repr__(self) -> str:
        if self._dispatcher is None:
            return f"<Pool {self.name!r} [{self._state}]>"
        view = self.status()
        return (
            f"<Pool {self.name!r} [{view.state} | {view.busy} busy, {view.idle} idle, {view.starting} starting of "
            f"{view.size} | {view.waiting} waiting]>"
        )

    # -- callers --------------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """How many workers the pool wants."""
        return self._size

    def options(
        self,
        *,
        timeout: float | None = None,
        session: str | None = None,
        idempotent: bool | None = None,
        priority: int | None = None,
        key: str | None = None,
        worker: str | None = None,
    ) -> Caller:
        """A light caller with the same `run`, `stream` and `map`, and options of its own. Costs nothing to make.

        *timeout*: seconds for queue and execution together. *session*: on behalf of that session. *idempotent*:
        running it twice does no harm, so it may be sent again when its worker died. *priority*: higher goes first.
        *key*: calls of different keys take turns in the queue. *worker*: only on that slot.
        """
        changes = {"timeout": timeout, "session": session, "idempotent": idempotent}
        return Caller(
            self, with_options(self._options, {**changes, "priority": priority, "key": key, "worker": worker})
        )

    def session(self, session_id: str) -> Session:
        """A caller on behalf of one session: its operations share ``session.data`` and prefer the same worker."""
        return Session(self, with_options(self._options, {"session": session_id}))

    # -- views ----------------------------------------------------------------------------------------------------

    def status(self) -> PoolView:
        """The pool's gauges now. O(1), synchronous, never raises."""
        calls = self._dispatcher
        count = {} if calls is None else calls.counts
        return PoolView(
            name=self.name,
            state=self._state,
            size=self._size,
            busy=count.get("busy", 0),
            idle=count.get("idle", 0),
            starting=count.get("starting", 0),
            draining=count.get("draining", 0),
            dead=count.get("dead", 0),
            waiting=0 if calls is None else calls.waiting,
            queue_limit=self.config.queue_limit,
            sessions=0 if calls is None else len(calls.sessions),
            restarts=self._restarts,
            completed=0 if calls is None else calls.completed,
        )

    def workers(self) -> list[WorkerView]:
        """The gauges of every slot now, in slot order. Synchronous; statistics of calls are left empty."""
        now_ns = time.monotonic_ns()
        slots = [] if self._dispatcher is None else self._dispatcher.workers.values()
        return [_view(worker, now_ns) for worker in sorted(slots, key=lambda worker: worker.index)]

    # -- life -----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._state != "new":
            raise PoolError(f"pool {self.name!r} has been entered already; make another Pool")
        loop = asyncio.get_running_loop()
        self._launch = self._how_to_launch()
        self._state = "starting"
        self._entered_ns = time.monotonic_ns()
        self._dispatcher = Dispatcher(self.name, self._size, self.config, self._end_worker, self._retire)
        self._closing = asyncio.Event()
        self._started = loop.create_future()
        events.POOL_INIT.event.emit(
            {"system_time": time.time_ns(), "size": self._size}, {"pool": self.name, "target": self.target}
        )
        self._runner = loop.create_task(self._main(), name=f"pool {self.name}")
        self._runner.add_done_callback(self._runner_ended)
        try:
            await asyncio.shield(self._started)
        except BaseException:
            self._closing.set()
            await self._runner
            raise
        self._state = "running"
        self._dispatcher.accepting = True
        measurements = {"duration": time.monotonic_ns() - self._entered_ns, "workers": self._size}
        events.POOL_READY.event.emit(measurements, {"pool": self.name})
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._closing is not None
        assert self._runner is not None
        try:
            if self._state == "running":
                await self.drain(self.config.drain_timeout if error is None else 0.0)
        finally:
            self._closing.set()
            # Shielded: cancelled here, the runner still ends every worker.
            await asyncio.shield(self._runner)

    async def drain(self, timeout: float | None = None) -> DrainResult:
        """Accept no more calls and let the accepted ones end, for *timeout* seconds (default: ``drain_timeout``).

        What is left then is interrupted: its callers get OperationCancelled, or PoolClosed when it was still
        waiting; workers that do not let go are killed. The pool stays closed for calls.
        """
        calls = self._calls()
        patience = self.config.drain_timeout if timeout is None else timeout
        started_ns = time.monotonic_ns()
        before = calls.open_calls
        if self._state == "running":
            self._state = "draining"
        calls.accepting = False
        cancelled, abandoned = 0, 0
        with anyio.move_on_after(patience):
            await calls.quiet()
        if calls.open_calls:
            held_up = [(worker, worker.call) for worker in calls.workers.values() if worker.call is not None]
            cancelled = calls.interrupt_all()
            await asyncio.sleep(self.config.cancel_grace)
            abandoned = sum(worker.end_reason == "close" or worker.call is call for worker, call in held_up)
        result = DrainResult(before - cancelled, cancelled, abandoned)
        measurements = {"duration": time.monotonic_ns() - started_ns, **result._asdict()}
        events.POOL_DRAIN.event.emit(measurements, {"pool": self.name})
        return result

    async def resize(self, size: int) -> None:
        """Want *size* workers from now on. Returns at once: more are started, or the surplus retired, idle ones
        first and busy ones after their call. Raises ConfigError outside ``min_size`` to ``max_size``, PoolClosed
        once the pool drains.
        """
        calls = self._calls()
        if self._state not in ("starting", "running"):
            raise calls.rejected(PoolClosed, f"a pool that is {self._state} has no use for another size")
        before, self._size = self._size, self._checked_size(size)
        calls.size = size
        events.POOL_RESIZE.event.emit({"size_before": before, "size_after": size}, {"pool": self.name})
        wanted = [worker for worker in calls.workers.values() if worker.wanted]
        surplus = sorted(wanted, key=lambda worker: (worker.lifecycle.state is State.BUSY, -worker.index))
        for worker in surplus[: max(0, len(wanted) - size)]:
            worker.wanted = False
            if worker.lifecycle.state is not State.BUSY:
                self._retire(worker)
        self._add_slots(size - len(wanted))

    def _calls(self) -> Dispatcher:
        if self._dispatcher is None:
            text = "the pool is not entered yet: use `async with Pool(...) as pool`"
            raise PoolClosed(text, pool=self.name, waited_s=0.0, waiting=0, size=self._size)
        return self._dispatcher

    def _checked_size(self, size: int) -> int:
        if not self.min_size <= _count("size", size, 0) <= self.max_size:
            raise ConfigError(f"Pool(size={size}): must lie from min_size={self.min_size} to max_size={self.max_size}")
        return size

    # -- the runner -----------------------------------------------------------------------------------------------

    async def _main(self) -> None:
        """Keep the slots filled until closing."""
        assert self._closing is not None
        calls = self._calls()
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                self._add_slots(self._size)
                self._note_started()
                while not self._closing.is_set():
                    with anyio.move_on_after(_HOUSEKEEPING):
                        await self._closing.wait()
                    calls.expire_sessions()
                calls.accepting = False
                calls.interrupt_all()  # there are none, unless nobody waited for the pool to drain
                for worker in list(calls.workers.values()):
                    self._retire(worker)
        finally:
            self._state = "closed"
            self._abort()
            events.POOL_TERMINATE.event.emit({"duration": time.monotonic_ns() - self._entered_ns}, {"pool": self.name})

    def _abort(self) -> None:
        """Whatever is left, on whatever way out: no call may hang, no process stay."""
        calls = self._calls()
        calls.accepting = False
        calls.interrupt_all()
        calls.close()
        for worker in list(calls.workers.values()):
            if worker.transport is not None:
                worker.transport.abandon()

    def _runner_ended(self, runner: asyncio.Task[None]) -> None:
        """The runner must not end by itself; should it, nobody may wait for ever, and it must be heard of."""
        if runner.cancelled():
            error: BaseException | None = PoolError(f"pool {self.name!r} was cancelled with its event loop")
        else:
            error = runner.exception()
            if error is not None:
                logger("pool").error("pool failed", pool=self.name, error=repr(error))
        if self._started is not None and not self._started.done():
            self._started.set_exception(error or PoolError(f"pool {self.name!r} was closed before it was ready"))

    # -- slots ----------------------------------------------------------------------------------------------------

    def _add_slots(self, count: int) -> None:
        assert self._group is not None
        calls = self._calls()
        index = 0
        for _ in range(count):
            while f"{self.name}-{index}" in calls.workers:
                index += 1
            worker = Worker(self.name, index, time.monotonic_ns())
            calls.workers[worker.id] = worker
            calls.counts["dead"] += 1
            self._group.start_soon(self._keep, worker, name=f"pool {self.name} slot {index}")

    async def _keep(self, worker: Worker) -> None:
        """One slot's whole life: a process after the other, until it is no longer wanted."""
        backoff = Backoff(self.config.backoff_min, self.config.backoff_max)
        calls = self._calls()
        while worker.wanted:
            error = await self._live(worker)
            if error is None:
                backoff.reset()
            elif worker.wanted:
                self._start_failed(worker, error)
                with anyio.move_on_after(backoff.next()):
                    await worker.unwanted.wait()
        calls.forget(worker)
        calls.counts["dead"] -= 1
        del calls.workers[worker.id]
        self._note_started()

    async def _live(self, worker: Worker) -> StartError | None:
        """One process from its start to its end. Returns why it could not be started, or None."""
        calls = self._calls()
        line = _Line(self, worker)
        assert self._launch is not None
        worker.transport = transport = ProcessTransport(self._launch, line)
        worker.started_ns, worker.ready, worker.end_reason = time.monotonic_ns(), None, None
        measurements = {"system_time": time.time_ns(), "restarts": worker.processes}
        if worker.processes:
            self._restarts += 1
        worker.processes += 1
        worker.starts += 1
        calls.move(worker, "start", worker.started_ns)
        events.WORKER_INIT.event.emit(measurements, {"pool": self.name, "worker": worker.id})
        error: StartError | None = None
        try:
            async with asyncio.timeout(self.config.start_timeout):
                worker.ready = await transport.start()
        except TimeoutError:
            error = StartError(
                f"worker {worker.id} had not loaded {self.target!r} after {self.config.start_timeout:g} s; "
                "raise start_timeout, or see what it does on import"
            )
        except StartError as failure:
            error = failure
        finally:
            if worker.ready is None:
                transport.kill()
        if error is None and worker.lifecycle.state is State.INITIALIZING:
            self._loaded(worker)
        await line.ended.wait()
        return error

    def _loaded(self, worker: Worker) -> None:
        calls, ready = self._calls(), worker.ready
        assert ready is not None
        now_ns = time.monotonic_ns()
        calls.operations = ready.operations
        calls.move(worker, "loaded", now_ns)
        about = {"pool": self.name, "worker": worker.id}
        events.WORKER_READY.event.emit(
            {"duration": now_ns - worker.started_ns},
            {**about, "pid": ready.pid, "python": ready.python, "codec": ready.codec},
        )
        if worker.died_ns is not None:
            measurements = {"duration": now_ns - worker.died_ns, "attempts": worker.starts}
            events.POOL_RECOVERY.event.emit(measurements, about)
        worker.died_ns, worker.starts = None, 0
        calls.ready(worker)
        self._note_started()

    def _note_started(self) -> None:
        """Let `__aenter__` go on once every slot there is has a worker that is ready."""
        counts = self._calls().counts
        assert self._started is not None
        if not self._started.done() and counts["starting"] + counts["dead"] == 0:
            self._started.set_result(None)

    def _start_failed(self, worker: Worker, error: StartError) -> None:
        self._report(worker, error)
        if self._started is not None and not self._started.done():
            self._started.set_exception(error)

    def _report(self, worker: Worker, error: PoolError) -> None:
        """An error no call can be told."""
        about = {"pool": self.name, "worker": worker.id, "category": error.category, "severity": error.severity}
        events.POOL_ERROR.event.emit({"system_time": time.time_ns()}, {**about, "reason": str(error)})
        logger("pool").warning("worker failed", reason=str(error), **about)

    def _retire(self, worker: Worker) -> None:
        """End a slot that is no longer wanted, gently; its keeper sees to the rest."""
        worker.wanted = False
        worker.unwanted.set()
        if worker.lifecycle.state in (State.TERMINATING, State.TERMINATED) or worker.transport is None:
            return
        calls = self._calls()
        calls.withdraw(worker)
        worker.end_reason = "close" if self._closing is not None and self._closing.is_set() else "resize"
        calls.move(worker, "stop", time.monotonic_ns())
        assert self._group is not None
        self._group.start_soon(worker.transport.stop, self.config.stop_grace, self.config.kill_grace)

    def _end_worker(self, worker: Worker, reason: str) -> None:
        """Kill a worker that does not let go of its call, or that spoke nonsense; it is replaced."""
        calls = self._calls()
        worker.end_reason = reason
        calls.withdraw(worker)
        if worker.lifecycle.state in (State.READY, State.BUSY):
            calls.move(worker, "stop", time.monotonic_ns())
        if worker.transport is not None:
            worker.transport.kill()

    def _broke(self, worker: Worker, reason: str) -> None:
        """The worker spoke nonsense and is being killed."""
        error = ProtocolError(f"worker {worker.id} broke the protocol: {reason}")
        worker.broken = error
        self._report(worker, error)
        self._end_worker(worker, "protocol")

    def _gone(self, worker: Worker, exit_code: int | None, stderr: str) -> None:
        """The slot's process has ended, as asked or not."""
        calls = self._calls()
        now_ns = time.monotonic_ns()
        how = exit_words(exit_code)
        was_ready, call = worker.ready, worker.call
        calls.move(worker, "exited", now_ns)
        about: dict[str, Any] = {"pool": self.name, "worker": worker.id}
        if was_ready is not None:
            about["pid"] = was_ready.pid
            uptime = {"uptime": now_ns - worker.started_ns}
            if worker.end_reason is not None:
                events.WORKER_TERMINATE.event.emit(uptime, {**about, "reason": worker.end_reason})
            else:
                about |= {"reason": how, "stderr": stderr}
                if exit_code is not None:
                    about["exit_code"] = exit_code
                if call is not None:
                    about["operation"] = call.operation
                events.WORKER_CRASH.event.emit(uptime, about)
            worker.died_ns = now_ns if worker.died_ns is None else worker.died_ns
        worker.transport = None
        broken = worker.broken
        worker.broken = None
        text = f"worker {worker.id} ended meanwhile: {how}"
        calls.lost(worker, broken or WorkerDied(text, worker=worker.id, exit_code=exit_code, stderr=stderr))

    def _how_to_launch(self) -> Launch:
        """How every worker is started: settled once, so that a restart finds what the first start found."""
        config = self.config
        python = config.python or sys.executable
        return Launch(
            target=self.target,
            python=python,
            path=import_path(python, config.sys_path),
            env=config.env,
            init=(config.init_args, config.init_kwargs),
            codecs=_CODECS.get(config.codec, [config.codec]),
            frame_limit=config.frame_limit,
            session_data_limit=config.session_data_limit,
        )


class _Line:
    """What one process of a slot reports: the transport's `Sink`."""

    def __init__(self, pool: Pool, worker: Worker) -> None:
        self._pool, self._worker, self._calls = pool, worker, pool._calls()
        self.ended = asyncio.Event()

    def replied(self, call_id: int, result: Any, session_data: dict[str, Any] | None, times: CallTimes) -> None:
        self._calls.replied(self._worker, call_id, result, session_data, times)

    def failed(self, call_id: int, failure: Failure, times: CallTimes) -> None:
        self._calls.failed(self._worker, call_id, failure, times)

    def item(self, call_id: int, value: Any) -> None:
        self._calls.item(self._worker, call_id, value)

    def ponged(self, token: int, call_id: int | None) -> None:
        """Nobody asks yet."""

    def wrote(self, stream: str, text: str, size: int) -> None:
        if _OUTPUT.on:
            metadata = {"pool": self._pool.name, "worker": self._worker.id, "stream": stream, "text": text}
            _OUTPUT.emit({"bytes": size}, metadata)

    def broke(self, reason: str) -> None:
        self._pool._broke(self._worker, reason)

    def gone(self, exit_code: int | None, stderr: str) -> None:
        try:
            self._pool._gone(self._worker, exit_code, stderr)
        finally:
            self.ended.set()


def _view(worker: Worker, now_ns: int) -> WorkerView:
    running = worker.transport is not None
    return WorkerView(
        id=worker.id,
        state=worker.lifecycle.state.value,
        state_age=(now_ns - worker.lifecycle.since_ns) / 1e9,
        pid=worker.ready.pid if running and worker.ready is not None else None,
        age=(now_ns - worker.started_ns) / 1e9 if running else None,
        restarts=max(0, worker.processes - 1),
        operation=None if worker.call is None else worker.call.operation,
    )


def _count(name: str, value: object, minimum: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise ConfigError(f"Pool({name}={value!r}): needs a whole number of at least {minimum}")
    return value
