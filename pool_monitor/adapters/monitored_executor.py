"""`MonitoredExecutor`: adds events of calls, and gauges, to any ``concurrent.futures.Executor``.

Theory of operation
-------------------
The executor gets a `_Task` in place of the function. The task wraps the function and has its name and signature. In
this process the task itself measures when the function begins and ends. When it is pickled for another process, it
becomes one of two things:

- For executors in `TRANSPARENT`, a `timed_call.TimedCall`. These executors send results back exactly as the function
  returned them, without inspecting them. So the timing travels with the result, and the caller gets a future of this
  module that holds the result alone.
- For any other executor, the function itself. Such an executor may inspect results (compose, cache, retry), so nothing
  can be added to them. When and where the call ran is then unknown.

A call has the outcome of its future, because an executor may run a task more than once. Only a ThreadPoolExecutor is
known to run a task once and never to pickle it. So its calls end when the function ends, and its own futures are
returned, which saves half the cost.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor
from itertools import islice, repeat
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from pool_monitor.adapters import timed_call
from pool_monitor.adapters.tracked_call import TrackedCall
from pool_monitor.adapters.tracker import CallTracker, attribute, check_arguments, operation_of
from pool_monitor.errors import ConfigError

if TYPE_CHECKING:
    from pool_monitor.snapshot import PoolView, WorkerView

P = ParamSpec("P")
T = TypeVar("T")

TRANSPARENT = {
    "concurrent.futures.process.ProcessPoolExecutor",
    "loky.process_executor.ProcessPoolExecutor",
    "loky.reusable_executor._ReusablePoolExecutor",
    "joblib.externals.loky.process_executor.ProcessPoolExecutor",
    "joblib.externals.loky.reusable_executor._ReusablePoolExecutor",
    "distributed.cfexecutor.ClientExecutor",
}
"""Classes whose ``submit`` passes the function to another process, and its result back, both unchanged."""


class MonitoredExecutor(Executor):
    """Wraps *executor* for a Monitor to watch under *name*. It is an Executor itself: use it in place of *executor*.

    Results, exceptions and cancellation are those of *executor*. An operation has the name of its function
    (``__name__``). Workers are slots ``name-0`` ..., assigned to the threads or processes of *executor* as they are
    seen, and shared if there are more than 64. *size* is the number of workers, for an executor that has no
    ``_max_workers``; without either, the number of workers seen is used. The processes of *executor* must be able to
    import this package.

    Times are measured where the call runs. The clocks of two machines cannot be compared. So for a call that runs on
    another machine, all time except its execution counts as waiting.

    For calls in other processes, times and workers are known for the executors of the standard library, loky and dask,
    and for subclasses that do not override ``submit``. For an executor that is composed of others they are unknown:
    monitor the innermost executor instead.

    Events are emitted in the thread of the event loop that runs where this object is made, used or read; without a
    loop, in the thread where they happen. All methods are safe from any thread. Raises TypeError if *executor* is not
    an Executor, and ConfigError if it is monitored already, and for a bad name or size.
    """

    def __init__(self, executor: Executor, *, name: str, size: int | None = None) -> None:
        if not isinstance(executor, Executor):
            raise TypeError(
                f"MonitoredExecutor({executor!r:.80}): needs a concurrent.futures.Executor, such as a "
                "ThreadPoolExecutor; for async callables there is MonitoredCalls"
            )
        if isinstance(executor, MonitoredExecutor):
            raise ConfigError(
                f"MonitoredExecutor({executor!r:.80}): is monitored already; pass this one to the Monitor"
            )
        check_arguments("MonitoredExecutor", name, ("size", size))
        self.executor = executor
        """The executor that runs the calls."""
        # Not for subclasses, which may treat calls in other ways.
        self._own_futures = type(executor) is ThreadPoolExecutor
        self._task_class: type[_Task] = _ThreadTask if self._own_futures else _Task
        if _class_of_submit(executor) in TRANSPARENT:
            self._task_class = _RemoteTask
        self._tracker = CallTracker(name, _WorkerCount(executor, size), sees_begin=self._own_futures)

    def __repr__(self) -> str:
        view = self.status()
        return (
            f"<MonitoredExecutor {view.name!r} [{view.state} | {view.busy} busy, {view.idle} idle of {view.size}, "
            f"{view.waiting} waiting]>"
        )

    @property
    def name(self) -> str:
        """The pool's name in events and snapshots."""
        return self._tracker.identity.name

    @property
    def instance(self) -> str:
        """An id that no other pool has, not even one with the same name."""
        return self._tracker.identity.instance

    def status(self) -> PoolView:
        """Return the gauges now. If the workers are processes, open calls count as running, up to the number of
        workers.

        ``queue_limit``, ``sessions`` and ``restarts`` are always 0. The state is ``closed`` once the workers have died
        and the executor refuses calls, and once it is shut down.
        """
        return self._tracker.status()

    def workers(self) -> list[WorkerView]:
        """Return the gauges of all slots that have had a call. Which processes are busy is unknown: the slots that have
        been silent longest are shown as busy, with the calls that were submitted first.
        """
        return self._tracker.workers()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Submit the call to the executor and return a future. Raises the errors of the executor's ``submit``."""
        task = self._task_class(fn, operation_of(fn, args), self._tracker)
        self._tracker.start(task)
        try:
            future = self.executor.submit(task, *args, **kwargs)
        except BaseException as error:
            self._refused(task, error)
            raise
        if self._own_futures:
            future.add_done_callback(task.on_done)
            return future
        return _UnwrappingFuture(task, future)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        **options: Any,
    ) -> Iterator[T]:
        """Do the same as ``map`` of the executor. If its ``map`` uses *chunksize*, each chunk is one call."""
        if type(self.executor).map is Executor.map or chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout, **options)
        if chunksize < 1:
            raise ValueError(f"chunksize={chunksize}: needs to be at least 1")
        chunks = _chunks(zip(*iterables, strict=False), chunksize)
        return _flattened(super().map(timed_call.run_chunk, repeat(fn), chunks, timeout=timeout, **options))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False, **options: Any) -> None:
        """Shut down the executor. Further *options* are passed to its ``shutdown``."""
        self._tracker.closing = True
        if cancel_futures:
            options["cancel_futures"] = True
        self.executor.shutdown(wait, **options)
        self._tracker.flush()

    def _refused(self, task: _Task, error: BaseException) -> None:
        """End a call for which ``submit`` of the executor raised *error*."""
        if isinstance(error, RuntimeError):  # raised by the standard library's once they are shut down or broken
            self._tracker.refuse(task, error, "closed")
        elif isinstance(error, queue.Full):
            self._tracker.refuse(task, error, "saturated")
        else:
            self._tracker.end(task, error, "error" if isinstance(error, Exception) else "cancelled")


class _Task(TrackedCall, timed_call.FunctionProxy):
    """A call, and the callable that is submitted in place of its function."""

    __slots__ = ("__wrapped__", "tracker")

    def __init__(self, function: Callable[..., Any], operation: str, tracker: CallTracker) -> None:
        super().__init__(operation)
        self.__wrapped__: Any = function
        self.tracker = tracker

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        self.tracker.begin(self, threading.get_ident())
        try:
            result = self.__wrapped__(*args, **kwargs)
        except BaseException as error:
            self._on_returned(error)
            raise
        self._on_returned(None)
        return result

    def _on_returned(self, _error: BaseException | None) -> None:
        """Note that the function has returned or raised here. It may run again: the future decides the outcome."""
        self.tracker.pause(self)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        self.attempts = max(self.attempts, 1)  # pickled for a process that will run it
        return timed_call.unwrapped, (self.__wrapped__,)

    def on_done(self, future: Future[Any], timing: timed_call.Timing | None = None) -> None:
        """End the call: its future is done. *timing*: where and when it ran, if in another process and known."""
        if future.cancelled():
            self.tracker.end(self, CancelledError(), "cancelled")
        elif (error := future.exception()) is not None:
            lost = timing is None and self.begun_ns is None and isinstance(error, BrokenExecutor)
            self.tracker.end(self, error, "worker_lost" if lost else "error", timing)
        else:
            self.tracker.end(self, timing=timing)


class _ThreadTask(_Task):
    """A call that runs once, in this process."""

    __slots__ = ()

    def _on_returned(self, error: BaseException | None) -> None:
        self.tracker.end(self, error, "ok" if error is None else "error")

    def on_done(self, future: Future[Any], timing: timed_call.Timing | None = None) -> None:
        if self.begun_ns is None:
            super().on_done(future, timing)
        self.__wrapped__ = None  # the future keeps this task, and the function may hold large objects


class _RemoteTask(_Task):
    """A call that runs in another process, which sends its timing back."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return timed_call.TimedCall, super().__reduce__()[1]


class _UnwrappingFuture(Future[T]):
    """The future of a call that may run in another process. Its result is that of the executor's future, without the
    timing.
    """

    def __init__(self, task: _Task, future: Future[Any]) -> None:
        super().__init__()
        self._task: _Task | None = task
        self._future: Future[Any] | None = future
        future.add_done_callback(self._resolve)

    def cancel(self) -> bool:
        future = self._future
        return super().cancel() if future is None else future.cancel()

    def running(self) -> bool:
        future = self._future
        return super().running() if future is None else future.running()

    def _resolve(self, future: Future[Any]) -> None:
        task, self._task, self._future = self._task, None, None  # breaks the reference cycles
        assert task is not None  # callbacks of a future run once
        if future.cancelled():
            task.on_done(future)
            super().cancel()
            self.set_running_or_notify_cancel()
        elif (error := future.exception()) is not None:
            task.on_done(future, timed_call.timing_of(error))
            self.set_exception(error)
        else:
            result, timing = future.result(), None
            if isinstance(result, timed_call.TimedResult):
                result, timing = result.result, timed_call.Timing(*result.timing)
            task.on_done(future, timing)
            self.set_result(result)


class _WorkerCount:
    """Returns how many workers an executor has: *size*, or else its ``_max_workers``. Does not keep it alive."""

    def __init__(self, executor: Executor, size: int | None) -> None:
        self._executor = weakref.ref(executor)
        self._last = size
        self._fixed = size is not None

    def __call__(self) -> int | None:
        if not self._fixed and (executor := self._executor()) is not None:
            self._last = _max_workers(executor)
        return self._last


def _max_workers(executor: Executor) -> int | None:
    size = attribute(executor, "_max_workers")
    return size if isinstance(size, int) and size > 0 else None


def _class_of_submit(executor: Executor) -> str:
    """Return the name of the class that defines the ``submit`` of *executor*."""
    home = next(kind for kind in type(executor).__mro__ if "submit" in vars(kind))
    return f"{home.__module__}.{home.__qualname__}"


def _chunks(items: Iterator[tuple[Any, ...]], size: int) -> Iterator[list[tuple[Any, ...]]]:
    while chunk := list(islice(items, size)):
        yield chunk


def _flattened(chunks: Iterable[list[T]]) -> Iterator[T]:
    for chunk in chunks:
        chunk.reverse()
        while chunk:
            yield chunk.pop()  # does not keep yielded results in memory
