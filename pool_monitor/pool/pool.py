"""The Pool: the class that a service embeds. It owns its workers, from the first start to the last exit.

Theory of operation
-------------------
A pool is a number of slots. One task of `Supervisor` keeps each slot filled. These tasks run in one task group inside
one runner task. So a pool can be entered in one task and left in another, and cancelling a caller does not end the
workers. Calls never touch these tasks: the `Dispatcher` hands them over synchronously.
"""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Self, Unpack

import anyio

from pool_monitor import emit
from pool_monitor.config import PoolConfig, PoolFields, build
from pool_monitor.emit import PoolIdentity
from pool_monitor.errors import ConfigError, PoolClosed, PoolError, StartError
from pool_monitor.log import logger
from pool_monitor.pool.admission import Admission
from pool_monitor.pool.argument_checks import SIZE, check_target, checked_count
from pool_monitor.pool.call import Options
from pool_monitor.pool.caller import PoolCaller, Session, with_options
from pool_monitor.pool.dispatcher import Dispatcher
from pool_monitor.pool.home_loop import HomeLoop
from pool_monitor.pool.roster import Roster
from pool_monitor.pool.sessions import Sessions
from pool_monitor.pool.settings import PoolSettings
from pool_monitor.pool.stacks import stack_of
from pool_monitor.pool.supervisor import Supervisor
from pool_monitor.pool.transport.launcher import Launcher, LaunchSpec, ProcessLauncher, resolve_launch_spec
from pool_monitor.pool.transport.nesting import refuse_endless_nesting
from pool_monitor.pool.transport.process import ProcessTransport
from pool_monitor.pool.tunables import tunables_of
from pool_monitor.pool.worker import view_of
from pool_monitor.snapshot import PoolState, PoolView, WorkerView

if TYPE_CHECKING:
    from types import TracebackType

    from pool_monitor.pool.transport.interface import Sink
    from pool_monitor.tunable import Tunable

_HOUSEKEEPING = 60.0  # seconds: expired sessions are dropped at least this often


class DrainResult(NamedTuple):
    """How the calls ended that were open when the pool was drained."""

    finished: int
    """Calls that ended by themselves."""
    cancelled: int
    """Calls that were interrupted when the time was up."""
    abandoned: int
    """Interrupted calls whose worker had to be killed; they are counted in ``cancelled`` too."""


class Pool(PoolCaller):
    """A pool of worker processes that load *target* and run its operations.

    *target* is ``"module:attribute"`` or ``"path/to/file.py:attribute"``; the attribute is a class, instantiated
    once per worker, or a module-like namespace of functions. Its public methods or functions are the operations. For
    the functions of a module, *target* is ``"package.module"`` or ``"path/to/file.py"`` alone.
    *name* identifies the pool in events and snapshots, and its workers are named after it (``name-0``). *size* is the
    number of workers until `resize` changes it, within *min_size* and *max_size* (None: 4 per processor, but at least
    *size*). *config* is a `PoolConfig` (None: the defaults). Further keywords are fields of it, and override *config*.

    Use as ``async with Pool(...) as pool``. Entering starts the workers and returns when all of them are ready, or with
    ``warmup="staged"`` when *min_size* of them are. It raises StartError, with the target's traceback, when a worker
    cannot be started, and ConfigError for a path that no worker can be started with. Relative paths are resolved
    against the working directory at the moment of entering; all workers start in it, also those started later.
    Leaving lets accepted calls end, for at most ``drain_timeout`` seconds, or interrupts them if the block raised. It
    returns when no worker process is left.

    Raises ConfigError for a bad argument; nothing is started before the pool is entered. All methods except `status`
    and `workers` belong to the event loop that the pool was entered on: elsewhere they raise WrongLoop and do nothing.
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
        config = build(PoolConfig, config, fields)
        self._check_target(target, config)
        if not isinstance(name, str) or not name or not name.isprintable():
            raise ConfigError(f"Pool(name={name!r}): needs a non-empty printable string")
        self.target = target
        self.name = name
        self.min_size = checked_count("min_size", min_size, 0)
        if max_size is None:
            max_size = max(4 * (os.cpu_count() or 1), size if isinstance(size, int) else 0)
        self.max_size = checked_count("max_size", max_size, 1)
        self._settings = PoolSettings(config, size, self.min_size, self.max_size)
        self._tunables = tunables_of(name, self._settings, lambda: self._open_calls("changed"))
        self._state: PoolState = "new"
        self._entered_ns = 0
        self._paused_ns = 0
        self._warm = False
        self._identity = PoolIdentity.new(name)
        self._roster = Roster(self._identity, config.concurrency)
        self._warn = partial(_warn, self._identity)
        self._no_stack: dict[str, str | None] = {}  # by slot
        self._sessions = Sessions(self._roster, config)
        self._admission = Admission(self._identity, self.size, config)
        self._dispatcher: Dispatcher | None = None
        self._supervisor: Supervisor | None = None
        self._launch: LaunchSpec | None = None
        self._launcher: Launcher | None = None
        self._runner: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._home: HomeLoop | None = None
        self._closing: asyncio.Event | None = None
        self._started: asyncio.Future[None] | None = None

    def _check_target(self, target: str, config: PoolConfig) -> None:
        check_target(target, is_python=not config.command)

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
        """An id that no other pool has, not even one with the same name."""
        return self._identity.instance

    @property
    def size(self) -> int:
        """The number of workers that the pool is to have."""
        return self._settings.size

    @property
    def config(self) -> PoolConfig:
        """The configuration now: that of the constructor, with what `tunables` have changed."""
        return self._settings.config

    def tunables(self) -> list[Tunable]:
        """Return the settings that may be changed while the pool runs: docs/POOL_GUIDE.md, "Settings that may change",
        lists them. They raise PoolClosed before the pool is entered and once it drains, and WrongLoop elsewhere.
        """
        return list(self._tunables)

    def session(self, session_id: str, *, affinity: str | None = None) -> Session:
        """Return a caller for one session. Its operations share ``session.data`` and prefer the same worker. With
        ``affinity="strict"`` they run on the same process only; when that process is gone, one call raises SessionLost,
        and later calls bind to another process.
        """
        return Session(self, with_options(self._options, {"session": session_id, "affinity": affinity}))

    # -- views ----------------------------------------------------------------------------------------------------

    def status(self) -> PoolView:
        """Return the pool's gauges now. Synchronous; never raises; takes no longer when there are many calls."""
        calls, counts = self._dispatcher, self._roster.counts
        breaker = None if calls is None else self._admission.breaker
        return PoolView(
            name=self.name,
            state=self._state,
            size=self.size,
            busy=counts["busy"],
            idle=counts["idle"],
            starting=counts["starting"],
            draining=counts["draining"],
            dead=counts["dead"],
            waiting=0 if calls is None else calls.waiting,
            queue_limit=self.config.queue_limit,
            sessions=len(self._sessions),
            sessions_limit=self.config.session_limit,
            wait_limit=min(self.config.max_wait or self.config.timeout, self.config.timeout),
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
        """Return the gauges of every slot now, in slot order. Synchronous. The statistics of calls are left empty."""
        now_ns = time.monotonic_ns()
        return [view_of(worker, now_ns) for worker in sorted(self._roster.workers.values(), key=lambda one: one.index)]

    async def stack(self, slot: str) -> str | None:
        """Return what the worker in *slot* (``"name-0"``) does now: the Python stack of its main thread, its other
        threads, and for coroutine operations the chain of awaits; innermost frame last. Its call goes on undisturbed.

        None where it cannot be had; `why_no_stack` says why. Takes at most a second, usually a few milliseconds. Raises
        UnknownName for a slot that does not exist.
        """
        self._calls()
        answer = await stack_of(self._roster.workers, slot)
        self._no_stack[slot] = answer.reason
        return answer.text

    def why_no_stack(self, slot: str) -> str | None:
        """Return why the last `stack` of *slot* gave None, in words. None if it gave a stack, or was not asked for."""
        return self._no_stack.get(slot)

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
            self.size,
            self.config,
            self._roster,
            self._admission,
            dispatcher,
            self._make_transport,
            self._changed,
        )
        dispatcher.control = supervisor
        self._settings.tell(self._identity, self._admission, dispatcher, supervisor)
        launcher = self._launcher = self._make_launcher(self._launch)
        self._state = "starting"
        self._entered_ns = time.monotonic_ns()
        closing = self._closing = asyncio.Event()
        self._started = loop.create_future()
        self._started.add_done_callback(_mark_retrieved)  # entering may have been cancelled
        emit.pool_init(self._identity, size=self.size, target=self.target)
        running = self._main(home, dispatcher, supervisor, launcher, closing)
        self._runner = loop.create_task(running, name=f"pool {self.name}")
        self._runner.add_done_callback(self._runner_ended)
        try:
            await asyncio.shield(self._started)
        except BaseException:
            await self._end()
            raise
        if self._state != "starting":  # `drain` was called during the start
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
            if self._state in ("running", "paused") or self._calls().open_calls:  # else other code has drained it
                await self.drain(self.config.drain_timeout if error is None else 0.0)
        finally:
            await self._end()
            if not self._runner.cancelled():
                self._runner.result()

    async def _end(self) -> None:
        """Have the runner close the pool, and return when no worker process is left. If this is cancelled, the runner
        still closes the pool.
        """
        assert self._closing is not None
        assert self._runner is not None
        self._closing.set()
        with anyio.CancelScope(shield=True):  # an enclosing scope that is cancelled would cancel this repeatedly
            await asyncio.wait([self._runner])

    def _left_elsewhere(self) -> None:
        """Leave the pool outside its event loop. Raises WrongLoop if that loop still runs and can do it."""
        assert self._home is not None
        if self._home.is_forked or self._state == "closed":
            return  # in a forked process: the parent closes it; else it is closed already
        if self._home.loop.is_running():
            raise self._home.wrong_loop()
        self._abort()
        if not self._home.loop.is_closed() and self._closing is not None:
            self._closing.set()  # if the loop runs again, the runner ends too

    async def drain(self, timeout: float | None = None) -> DrainResult:
        """Accept no more calls and let the accepted calls end, for *timeout* seconds (default: ``drain_timeout``).

        Calls that are still open then are interrupted. Their callers get OperationCancelled, or PoolClosed if the call
        was still waiting. A worker that does not stop running its call is killed. The pool accepts no calls any more.
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
            await calls.all_ended()
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
        """Set the number of workers to *size*. Returns at once: workers are started, or the surplus is retired, idle
        workers first and busy workers after their calls. Raises ConfigError for a size outside ``min_size`` to
        ``max_size``, and PoolClosed once the pool drains.
        """
        self._open_calls("resized")
        self._settings.resize(size)

    async def pause(self) -> None:
        """Hand no more calls to workers. Calls that run go on; new calls are accepted and wait until their deadlines.
        Returns at once; does nothing if the pool is paused already. Raises PoolClosed once the pool drains.
        """
        calls = self._open_calls("paused")
        if not calls.paused:
            self._state = "paused" if self._state == "running" else self._state
            self._paused_ns = time.monotonic_ns()
            calls.paused = True
            emit.pool_pause(self._identity, waiting=calls.waiting)

    async def resume(self) -> None:
        """End a `pause`: hand over the waiting calls, in order. Returns at once; does nothing if the pool is not
        paused.
        """
        calls = self._calls()
        if calls.paused:
            self._state = "running" if self._state == "paused" else self._state
            emit.pool_resume(self._identity, duration=time.monotonic_ns() - self._paused_ns, waiting=calls.waiting)
            calls.resume()

    async def restart(self) -> None:
        """Replace every worker process, one after the other. A process is replaced once its successor is ready and its
        calls have ended. So no call fails, and the number of workers never drops. Returns when all are replaced. Raises
        StartError when a successor cannot be started; the remaining processes are then kept. Raises PoolClosed once the
        pool drains. Cancelling stops after the current process.
        """
        self._open_calls("restarted")
        supervisor = self._supervisor
        assert supervisor is not None
        began_ns, replaced = time.monotonic_ns(), 0
        for worker in sorted(self._roster.workers.values(), key=lambda worker: worker.index):
            before = worker.process
            error = await supervisor.recycle(worker, before, "restart")
            if error is not None:
                raise error
            replaced += worker.process is not before
        emit.pool_restart(self._identity, duration=time.monotonic_ns() - began_ns, workers=replaced)

    def _open_calls(self, participle: str) -> Dispatcher:
        """Return the dispatcher of a pool that takes calls, or is about to. Else raise what `_calls` does, or
        PoolClosed.
        """
        calls = self._calls()
        if self._state not in ("starting", "running", "paused"):
            raise calls.rejected(PoolClosed, f"a pool that is {self._state} cannot be {participle}")
        return calls

    def _calls(self) -> Dispatcher:
        if self._dispatcher is None:
            text = "the pool is not entered yet: use `async with Pool(...) as pool`"
            raise PoolClosed(text, pool=self.name, waited_s=0.0, waiting=0, size=self.size)
        if asyncio._get_running_loop() is not self._loop:
            assert self._home is not None
            if not self._home.allows(closed=self._state == "closed"):
                raise self._dispatcher.rejected(PoolClosed, "the pool or its event loop is closed")
        return self._dispatcher

    # -- the runner -----------------------------------------------------------------------------------------------

    async def _main(
        self, home: HomeLoop, dispatcher: Dispatcher, supervisor: Supervisor, launcher: Launcher, closing: asyncio.Event
    ) -> None:
        """Keep the slots filled until the pool closes."""
        loop = home.loop
        try:
            async with anyio.create_task_group() as group:
                supervisor.open(group)
                supervisor.add(self.size)
                self._changed()
                while not closing.is_set():
                    self._sessions.expire(loop.time())
                    supervisor.check_workers(loop.time())
                    config = self.config
                    step = min(_HOUSEKEEPING, config.health_interval / 2, config.health_timeout / 2)
                    with anyio.move_on_after(step):
                        await closing.wait()
                supervisor.begin_closing()
                dispatcher.accepting = False
                dispatcher.interrupt_all()  # there are open calls only if the pool was not drained
                for worker in list(self._roster.workers.values()):
                    supervisor.retire(worker)
            await launcher.close()
        finally:
            if not home.is_forked:  # else the workers and calls are the parent's
                self._abort()

    def _abort(self) -> None:
        """End all open calls and processes, however the pool comes to its end. Blocks for milliseconds."""
        supervisor, dispatcher, launcher = self._supervisor, self._dispatcher, self._launcher
        assert supervisor is not None
        assert dispatcher is not None
        assert launcher is not None
        assert self._loop is not None
        if self._state == "closed":
            return
        self._state = "closed"
        dispatcher.accepting = False
        if not self._loop.is_closed():  # else no caller waits on it
            dispatcher.interrupt_all()
        dispatcher.close()
        supervisor.abort()
        launcher.abandon()
        emit.pool_terminate(self._identity, duration=time.monotonic_ns() - self._entered_ns)

    def _runner_ended(self, runner: asyncio.Task[None]) -> None:
        """Handle the end of the runner. If it failed, log its error, and raise it for a caller that is entering."""
        if runner.cancelled():
            error: BaseException | None = PoolError(f"pool {self.name!r} was cancelled with its event loop")
        else:
            error = runner.exception()
            if error is not None:
                logger("pool").error("pool failed", pool=self.name, error=repr(error))
        if self._started is not None and not self._started.done():
            self._started.set_exception(error or PoolError(f"pool {self.name!r} was closed before it was ready"))

    def _changed(self, error: StartError | None = None) -> None:
        """Handle that a worker has become ready, that a slot has gone, or that a start has failed (*error*)."""
        assert self._started is not None
        counts = self._roster.counts
        missing = counts["starting"] + counts["dead"]
        if not self._started.done():
            if error is not None:
                self._started.set_exception(error)
            elif not missing or (self.config.warmup == "staged" and counts["idle"] >= min(self.min_size, self.size)):
                self._started.set_result(None)
        started = self._started
        opened = started.done() and not started.cancelled() and started.exception() is None
        if opened and not missing and not self._warm:
            self._warm = True
            duration, workers = time.monotonic_ns() - self._entered_ns, counts["idle"] + counts["busy"]
            emit.pool_warmup(self._identity, duration=duration, workers=workers, mode=self.config.warmup)

    def _resolve_launch_spec(self) -> LaunchSpec:
        """Return how workers are started. Raises ConfigError, and StartError if pools would nest without end."""
        launch = resolve_launch_spec(self.target, self.config, self._warn)
        refuse_endless_nesting(self.name, launch.target)
        return launch

    def _make_launcher(self, launch: LaunchSpec) -> Launcher:
        return ProcessLauncher(launch, self._warn)

    def _make_transport(self, sink: Sink) -> ProcessTransport:
        assert self._launch is not None
        assert self._launcher is not None
        return ProcessTransport(self._launch._replace(concurrency=self.config.concurrency), sink, self._launcher)


def _warn(identity: PoolIdentity, reason: str) -> None:
    """Emit a warning about how workers are started."""
    emit.error(identity, category="initialization", severity="warning", reason=reason)


def _mark_retrieved(future: asyncio.Future[None]) -> None:
    """Mark the exception of *future* as retrieved: asyncio logs exceptions that are never retrieved."""
    if not future.cancelled():
        future.exception()
