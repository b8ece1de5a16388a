"""The Pool: what a service embeds. Owns its workers' lives, from first start to last exit.

Theory of operation
-------------------
A pool is a number of slots, each kept by one task of `Supervisor`. The tasks run in a group of their own, inside one
runner task, so that a pool may be entered and left in different tasks, and so that a cancelled caller cannot take the
workers with it. Calls never touch those tasks: they are handed over by the `Dispatcher`, synchronously.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, NamedTuple, Self, Unpack

import anyio

from pool_monitor import emit
from pool_monitor.config import PoolConfig, PoolFields, build
from pool_monitor.emit import PoolIdentity
from pool_monitor.errors import ConfigError, PoolClosed, PoolError, StartError
from pool_monitor.log import logger
from pool_monitor.pool.admission import Admission
from pool_monitor.pool.call import Options
from pool_monitor.pool.caller import PoolCaller, Session, with_options
from pool_monitor.pool.dispatcher import Dispatcher
from pool_monitor.pool.home_loop import HomeLoop
from pool_monitor.pool.pool_arguments import SIZE, check_target, checked_count, checked_size
from pool_monitor.pool.roster import Roster
from pool_monitor.pool.sessions import Sessions
from pool_monitor.pool.supervisor import Supervisor
from pool_monitor.pool.transport.launcher import Launcher, LaunchSpec, ProcessLauncher, resolve_launch_spec
from pool_monitor.pool.transport.nesting import refuse_endless_nesting
from pool_monitor.pool.transport.process import ProcessTransport
from pool_monitor.pool.worker import Worker
from pool_monitor.snapshot import PoolState, PoolView, WorkerView

if TYPE_CHECKING:
    from types import TracebackType

    from pool_monitor.pool.transport.base import Sink

_HOUSEKEEPING = 60.0  # most seconds between looks at sessions that are out of date


class DrainResult(NamedTuple):
    """What became of the calls a pool had when it was drained."""

    finished: int
    """Ended by themselves."""
    cancelled: int
    """Interrupted when the time was up."""
    abandoned: int
    """Of those, calls whose worker had to be killed."""


class Pool(PoolCaller):
    """A pool of worker processes that load *target* and run its operations.

    *target* is ``"module:attribute"`` or ``"path/to/file.py:attribute"``; the attribute is a class, instantiated
    once per worker, or a module-like namespace of functions. Its public methods or functions are the operations. For
    the functions of a module, *target* is ``"package.module"`` or ``"path/to/file.py"`` alone.
    *name* is what events, snapshots and its workers (``name-0``) are known by. *size* is how many workers it has until
    `resize` is told otherwise, which may go from *min_size* to *max_size* (None: 4 per processor, and never less than
    *size*). *config* is a `PoolConfig` (None: the defaults); every further keyword is a field of it, and wins.

    Use as ``async with Pool(...) as pool``. Entering starts the workers and returns when all are ready (``min_size``
    of them with ``warmup="staged"``); it raises StartError, with the target's traceback, when one cannot be started,
    and ConfigError for a path that no worker can be started with. What is relative is taken from the working directory
    at this moment; workers start in it, also those that are started later.
    Leaving lets accepted calls end (``drain_timeout``), or interrupts them when the block raised, and returns when no
    worker process is left.

    Raises ConfigError for a bad argument; nothing is started before the pool is entered. All methods but `status` and
    `workers` belong to the event loop that the pool was entered on: elsewhere they raise WrongLoop and do nothing.
    From another thread, use ``asyncio.run_coroutine_threadsafe(pool.run(...), loop)``.
    """

    def __init__(
        self,
        target: str,
        *,
        name: str = "default",
        size: int = SIZE,
        min_size: int = 1,
        max_size: int | None = None,
        config: PoolConfig | None = None,
        **fields: Unpack[PoolFields],
    ) -> None:
        super().__init__(self, Options())
        self.config = build(PoolConfig, config, fields)
        self._check_target(target)
        if not isinstance(name, str) or not name or not name.isprintable():
            raise ConfigError(f"Pool(name={name!r}): needs a non-empty printable string")
        self.target = target
        self.name = name
        self.min_size = checked_count("min_size", min_size, 0)
        if max_size is None:
            max_size = max(4 * (os.cpu_count() or 1), size if isinstance(size, int) else 0)
        self.max_size = checked_count("max_size", max_size, 1)
        self._size = checked_size(size, self.min_size, self.max_size)
        self._state: PoolState = "new"
        self._entered_ns = 0
        self._paused_ns = 0
        self._warm = False
        self._identity = PoolIdentity.new(name)
        self._roster = Roster(self._identity, self.config.concurrency)
        self._sessions = Sessions(self._roster, self.config)
        self._admission = Admission(self._identity, self._size, self.config)
        self._dispatcher: Dispatcher | None = None
        self._supervisor: Supervisor | None = None
        self._launch: LaunchSpec | None = None
        self._launcher: Launcher | None = None
        self._runner: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._home: HomeLoop | None = None
        self._closing: asyncio.Event | None = None
        self._started: asyncio.Future[None] | None = None

    def _check_target(self, target: str) -> None:
        check_target(target, is_python=not self.config.command)

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
    def instance(self) -> str:
        """An id that no other pool has, also none of the same name."""
        return self._identity.instance

    @property
    def size(self) -> int:
        """How many workers the pool wants."""
        return self._size

    def session(self, session_id: str, *, affinity: str | None = None) -> Session:
        """A caller on behalf of one session: its operations share ``session.data`` and prefer the same worker, or with
        ``affinity="strict"`` insist on the same process, and raise SessionLost, once, when it is gone.
        """
        return Session(self, with_options(self._options, {"session": session_id, "affinity": affinity}))

    # -- views ----------------------------------------------------------------------------------------------------

    def status(self) -> PoolView:
        """The pool's gauges now. Synchronous, never raises, and independent of the number of calls."""
        calls, counts = self._dispatcher, self._roster.counts
        breaker = None if calls is None else self._admission.breaker
        return PoolView(
            name=self.name,
            state=self._state,
            size=self._size,
            busy=counts["busy"],
            idle=counts["idle"],
            starting=counts["starting"],
            draining=counts["draining"],
            dead=counts["dead"],
            waiting=0 if calls is None else calls.waiting,
            queue_limit=self.config.queue_limit,
            sessions=len(self._sessions),
            restarts=0 if self._supervisor is None else self._supervisor.restarts,
            completed=0 if calls is None else calls.completed,
            crash_loops=sum(worker.crash_loop for worker in self._roster.workers.values()),
            breaker=None if breaker is None else breaker.state.value,
            refusals=dict(self._admission.refusals),
            relative_time=None if calls is None else calls.relative_s,
            retries_refused=0 if calls is None else calls.budget.refused,
            target=self.target,
            instance=self.instance,
        )

    def workers(self) -> list[WorkerView]:
        """The gauges of every slot now, in slot order. Synchronous; statistics of calls are left empty."""
        now_ns = time.monotonic_ns()
        return [_view(worker, now_ns) for worker in sorted(self._roster.workers.values(), key=lambda one: one.index)]

    # -- life -----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._state != "new":
            raise PoolError(f"pool {self.name!r} has been entered already; make another Pool")
        home = self._home = HomeLoop(self.name)
        loop = self._loop = home.loop
        self._launch = self._resolve_launch_spec()
        dispatcher = self._dispatcher = Dispatcher(self._roster, self._sessions, self._admission, self.config)
        supervisor = self._supervisor = Supervisor(
            self.target,
            self._size,
            self.config,
            self._roster,
            self._admission,
            dispatcher,
            self._make_transport,
            self._changed,
        )
        dispatcher.control = supervisor
        launcher = self._launcher = self._make_launcher(self._launch)
        self._state = "starting"
        self._entered_ns = time.monotonic_ns()
        closing = self._closing = asyncio.Event()
        self._started = loop.create_future()
        self._started.add_done_callback(_seen)  # entering may have been given up
        emit.pool_init(self._identity, size=self._size, target=self.target)
        running = self._main(home, dispatcher, supervisor, launcher, closing)
        self._runner = loop.create_task(running, name=f"pool {self.name}")
        self._runner.add_done_callback(self._runner_ended)
        try:
            await asyncio.shield(self._started)
        except BaseException:
            await self._end()
            raise
        if self._state != "starting":  # drained meanwhile
            await self._end()
            raise dispatcher.rejected(PoolClosed, "the pool was drained before it was ready")
        self._state = "paused" if dispatcher.paused else "running"
        dispatcher.accepting = True
        duration = time.monotonic_ns() - self._entered_ns
        emit.pool_ready(self._identity, duration=duration, workers=self._roster.counts["idle"])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        if asyncio._get_running_loop() is not self._loop:
            self._left_elsewhere()
            return
        try:
            if self._state in ("running", "paused") or self._calls().open_calls:  # drained by other code meanwhile
                await self.drain(self.config.drain_timeout if error is None else 0.0)
        finally:
            await self._end()
            if not self._runner.cancelled():
                self._runner.result()

    async def _end(self) -> None:
        """Have the runner close the pool, and return when no worker process is left. Where this is cancelled, the
        runner goes on alone.
        """
        assert self._closing is not None
        assert self._runner is not None
        self._closing.set()
        with anyio.CancelScope(shield=True):  # a scope that is cancelled would cancel this again and again
            await asyncio.wait([self._runner])

    def _left_elsewhere(self) -> None:
        """Leave the pool where its event loop does not run. Raises WrongLoop where that loop can still do it."""
        assert self._home is not None
        if self._home.is_forked or self._state == "closed":
            return  # it is the parent's to close; or it ended with its loop
        if self._home.loop.is_running():
            raise self._home.wrong_loop()
        self._abort()
        if not self._home.loop.is_closed() and self._closing is not None:
            self._closing.set()  # should it go on, the runner ends there too

    async def drain(self, timeout: float | None = None) -> DrainResult:
        """Accept no more calls and let the accepted ones end, for *timeout* seconds (default: ``drain_timeout``).

        What is left then is interrupted: its callers get OperationCancelled, or PoolClosed when it was still
        waiting; workers that do not let go are killed. The pool stays closed for calls.
        """
        calls = self._calls()
        patience = self.config.drain_timeout if timeout is None else timeout
        started_ns = time.monotonic_ns()
        before = calls.open_calls
        if self._state == "starting" and self._closing is not None:
            self._closing.set()
        if self._state in ("starting", "running", "paused"):
            self._state = "draining"
        calls.accepting = False
        calls.resume()
        cancelled, abandoned = 0, 0
        with anyio.move_on_after(patience):
            await calls.quiet()
        if calls.open_calls:
            held_up = [(worker, worker.process, set(worker.calls)) for worker in calls.workers.values() if worker.calls]
            cancelled = calls.interrupt_all()
            await asyncio.sleep(self.config.cancel_grace)
            for worker, process, held in held_up:
                killed = process is not None and process.end_reason == "close"
                abandoned += len(held if killed else held & worker.calls.keys())
        result = DrainResult(before - cancelled, cancelled, abandoned)
        emit.pool_drain(self._identity, duration=time.monotonic_ns() - started_ns, **result._asdict())
        return result

    async def resize(self, size: int) -> None:
        """Want *size* workers from now on. Returns at once: more are started, or the surplus retired, idle ones
        first and busy ones after their call. Raises ConfigError outside ``min_size`` to ``max_size``, PoolClosed
        once the pool drains.
        """
        self._calls()
        supervisor = self._supervisor
        assert supervisor is not None
        self._must_be_open("another size")
        before, self._size = self._size, checked_size(size, self.min_size, self.max_size)
        self._admission.size = size
        emit.pool_resize(self._identity, before=before, after=size)
        supervisor.resize(size)

    async def pause(self) -> None:
        """Hand nothing more to workers from now on; what they run goes on, and calls are accepted and wait for as long
        as their deadlines let them. Returns at once; does nothing when paused already. Raises PoolClosed once the
        pool drains.
        """
        calls = self._calls()
        self._must_be_open("pausing")
        if not calls.paused:
            self._state = "paused" if self._state == "running" else self._state
            self._paused_ns = time.monotonic_ns()
            calls.paused = True
            emit.pool_pause(self._identity, waiting=calls.waiting)

    async def resume(self) -> None:
        """End a `pause`: what waits is handed over, in order. Returns at once; does nothing when not paused."""
        calls = self._calls()
        if calls.paused:
            self._state = "running" if self._state == "paused" else self._state
            emit.pool_resume(self._identity, duration=time.monotonic_ns() - self._paused_ns, waiting=calls.waiting)
            calls.resume()

    async def restart(self) -> None:
        """Replace every worker process, one after the other, each only once the next one is ready and its calls have
        ended: no call fails, and there is never a worker less. Returns when all are replaced. Raises StartError, with
        the rest as it was, when a fresh one cannot be started; PoolClosed once the pool drains. Cancelling stops
        between two.
        """
        self._calls()
        supervisor = self._supervisor
        assert supervisor is not None
        self._must_be_open("a restart")
        began_ns, replaced = time.monotonic_ns(), 0
        for worker in sorted(self._roster.workers.values(), key=lambda worker: worker.index):
            before = worker.process
            error = await supervisor.recycle(worker, before, "restart")
            if error is not None:
                raise error
            replaced += worker.process is not before
        emit.pool_restart(self._identity, duration=time.monotonic_ns() - began_ns, workers=replaced)

    def _must_be_open(self, what: str) -> None:
        if self._state not in ("starting", "running", "paused"):
            raise self._calls().rejected(PoolClosed, f"a pool that is {self._state} has no use for {what}")

    def _calls(self) -> Dispatcher:
        if self._dispatcher is None:
            text = "the pool is not entered yet: use `async with Pool(...) as pool`"
            raise PoolClosed(text, pool=self.name, waited_s=0.0, waiting=0, size=self._size)
        if asyncio._get_running_loop() is not self._loop:
            self._check_home()
        return self._dispatcher

    def _check_home(self) -> None:
        """Raise unless the pool may be used here, where its event loop does not run: WrongLoop, or PoolClosed once
        that loop has ended. What need not wait may be asked in the loop's thread before and after it runs.
        """
        home = self._home
        assert home is not None
        assert self._dispatcher is not None
        if home.is_this_thread:
            return
        if not home.is_forked and (self._state == "closed" or home.loop.is_closed()):
            raise self._dispatcher.rejected(PoolClosed, "the pool is closed, or its event loop is")
        raise home.wrong_loop()

    # -- the runner -----------------------------------------------------------------------------------------------

    async def _main(
        self, home: HomeLoop, dispatcher: Dispatcher, supervisor: Supervisor, launcher: Launcher, closing: asyncio.Event
    ) -> None:
        """Keep the slots filled until closing."""
        loop, config = home.loop, self.config
        step = min(_HOUSEKEEPING, config.health_interval / 2, config.health_timeout / 2)
        try:
            async with anyio.create_task_group() as group:
                supervisor.open(group)
                supervisor.add(self._size)
                self._changed()
                while not closing.is_set():
                    self._sessions.expire(loop.time())
                    supervisor.look_after(loop.time())
                    with anyio.move_on_after(step):
                        await closing.wait()
                supervisor.begin_closing()
                dispatcher.accepting = False
                dispatcher.interrupt_all()  # there are none, unless the pool was not drained
                for worker in list(self._roster.workers.values()):
                    supervisor.retire(worker)
            await launcher.close()
        finally:
            if not home.is_forked:  # a forked process that ends as its parent would takes nothing along
                self._abort()

    def _abort(self) -> None:
        """Whatever is left, on whatever way out: no call may hang, no process stay. Blocks for milliseconds."""
        supervisor, dispatcher, launcher = self._supervisor, self._dispatcher, self._launcher
        assert supervisor is not None
        assert dispatcher is not None
        assert launcher is not None
        assert self._loop is not None
        if self._state == "closed":
            return
        self._state = "closed"
        dispatcher.accepting = False
        if not self._loop.is_closed():  # else no caller waits there any more
            dispatcher.interrupt_all()
        dispatcher.close()
        supervisor.abort()
        launcher.abandon()
        emit.pool_terminate(self._identity, duration=time.monotonic_ns() - self._entered_ns)

    def _runner_ended(self, runner: asyncio.Task[None]) -> None:
        """The runner must not end by itself. If it does, its error is logged, and an entering caller gets it."""
        if runner.cancelled():
            error: BaseException | None = PoolError(f"pool {self.name!r} was cancelled with its event loop")
        else:
            error = runner.exception()
            if error is not None:
                logger("pool").error("pool failed", pool=self.name, error=repr(error))
        if self._started is not None and not self._started.done():
            self._started.set_exception(error or PoolError(f"pool {self.name!r} was closed before it was ready"))

    def _changed(self, error: StartError | None = None) -> None:
        """A worker has become ready, has gone for good, or could not be started."""
        assert self._started is not None
        counts = self._roster.counts
        missing = counts["starting"] + counts["dead"]
        if not self._started.done():
            if error is not None:
                self._started.set_exception(error)
            elif not missing or (self.config.warmup == "staged" and counts["idle"] >= min(self.min_size, self._size)):
                self._started.set_result(None)
        started = self._started
        opened = started.done() and not started.cancelled() and started.exception() is None
        if opened and not missing and not self._warm:
            self._warm = True
            duration, workers = time.monotonic_ns() - self._entered_ns, counts["idle"] + counts["busy"]
            emit.pool_warmup(self._identity, duration=duration, workers=workers, mode=self.config.warmup)

    def _warn(self, reason: str) -> None:
        """Something is not as it should be with how workers are started."""
        emit.error(self._identity, category="initialization", severity="warning", reason=reason)

    def _resolve_launch_spec(self) -> LaunchSpec:
        """How workers are started. Raises ConfigError, and StartError where it would not end."""
        launch = resolve_launch_spec(self.target, self.config, self._warn)
        refuse_endless_nesting(self.name, launch.target)
        return launch

    def _make_launcher(self, launch: LaunchSpec) -> Launcher:
        return ProcessLauncher(launch, self._warn)

    def _make_transport(self, sink: Sink) -> ProcessTransport:
        assert self._launch is not None
        assert self._launcher is not None
        return ProcessTransport(self._launch, sink, self._launcher)


def _seen(future: asyncio.Future[None]) -> None:
    """Have an error in *future* count as retrieved."""
    if not future.cancelled():
        future.exception()


def _view(worker: Worker, now_ns: int) -> WorkerView:
    process, call = worker.process, worker.call
    return WorkerView(
        id=worker.id,
        state=worker.lifecycle.state.value,
        state_age=(now_ns - worker.lifecycle.since_ns) / 1e9,
        pid=None if process is None or process.ready is None else process.ready.pid,
        age=None if process is None else (now_ns - process.started_ns) / 1e9,
        restarts=worker.restarts,
        operation=None if call is None else call.operation,
        call_age=None if call is None else (now_ns - call.sent_ns) / 1e9,
        calls_held=len(worker.calls),
        health=None if process is None or process.verdict is None else process.verdict.value,
        rss=None if process is None else process.rss,
        crash_loop=worker.crash_loop,
    )
