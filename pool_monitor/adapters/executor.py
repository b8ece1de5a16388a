"""`MonitoredExecutor`: any ``concurrent.futures.Executor``, with its calls told and its gauges readable.

Theory of operation
-------------------
What is submitted to the executor is not the function but a `_Task` around it, which has its name and signature. In this
process the task stamps the beginning and the end itself. Pickled on its way to another process, it becomes one of two
things. Executors in `STRAIGHT` send a result back as the function returned it, and nothing looks at it on the way: for
them the task becomes a `there.Away`, which sends the stamps back with the result, and the caller gets a future of ours,
into which the result is put without them. Any other executor may look at results (compose, cache, retry), so the task
becomes the function itself: what the other process did with it is then unknown.

A call has the outcome of its future, because an executor may run a task more than once. Only a ThreadPoolExecutor is
known to run it once and never to pickle it: its calls end with the function, and its own futures are handed out, which
saves half the cost.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor
from itertools import islice, repeat
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from pool_monitor.adapters import remote
from pool_monitor.adapters.tracker import Call, Ledger, attribute, checked, operation_of
from pool_monitor.errors import ConfigError

if TYPE_CHECKING:
    from pool_monitor.snapshot import PoolView, WorkerView

P = ParamSpec("P")
T = TypeVar("T")

STRAIGHT = {
    "concurrent.futures.process.ProcessPoolExecutor",
    "loky.process_executor.ProcessPoolExecutor",
    "loky.reusable_executor._ReusablePoolExecutor",
    "joblib.externals.loky.process_executor.ProcessPoolExecutor",
    "joblib.externals.loky.reusable_executor._ReusablePoolExecutor",
    "distributed.cfexecutor.ClientExecutor",
}
"""Classes whose ``submit`` hands the function to another process and its result back, both as they are."""


class MonitoredExecutor(Executor):
    """*executor*, for a Monitor to watch under *name*. Use it wherever you used that one: it is an Executor itself.

    Results, exceptions and cancellation are those of *executor*. Operations are called as their functions are
    (``__name__``). Workers are slots ``name-0`` ..., given to its threads or processes as they show up, and shared
    when there are more than 64. *size* is how many workers it has, where *executor* does not say (``_max_workers``);
    without either, as many as were seen. Its processes have to be able to import this package. Times are taken where
    the call runs; on another machine, whose clock says nothing here, all but the execution counts as waiting.

    Where other processes run the calls, their times and workers are known of the executors of the standard library,
    loky and dask, and of subclasses that leave ``submit`` alone. Of executors that are composed of others nothing is
    known of what happens there: monitor the innermost one instead.

    Events are told in the thread of the event loop that runs where this is made, used or looked at, else where they
    happen. Safe from any thread. Raises TypeError for what is no Executor, ConfigError for one that is monitored
    already and for a bad name or size.
    """

    def __init__(self, executor: Executor, *, name: str, size: int | None = None) -> None:
        if not isinstance(executor, Executor):
            raise TypeError(
                f"MonitoredExecutor({executor!r:.80}): needs a concurrent.futures.Executor, such as a "
                "ThreadPoolExecutor; for async callables there is MonitoredCalls"
            )
        if isinstance(executor, MonitoredExecutor):
            raise ConfigError(
                f"MonitoredExecutor({executor!r:.80}): is monitored already; give that one to the Monitor"
            )
        checked("MonitoredExecutor", name, ("size", size))
        self.executor = executor
        """The one that runs the calls."""
        # What a subclass does to a call on its way is unknown.
        self._own_futures = type(executor) is ThreadPoolExecutor
        self._kind: type[_Task] = _TaskOfThreads if self._own_futures else _Task
        if _home_of_submit(executor) in STRAIGHT:
            self._kind = _TaskAway
        self._ledger = Ledger(name, _Size(executor, size), shows=self._own_futures)

    def __repr__(self) -> str:
        view = self.status()
        return (
            f"<MonitoredExecutor {view.name!r} [{view.state} | {view.busy} busy, {view.idle} idle of {view.size}, "
            f"{view.waiting} waiting]>"
        )

    @property
    def name(self) -> str:
        """What events and snapshots call it."""
        return self._ledger.name

    def status(self) -> PoolView:
        """Its gauges now. Of workers that are processes, as many count as busy as there are calls for.

        ``queue_limit``, ``sessions`` and ``restarts`` are 0, because there are none or nobody tells. Once its workers
        have died and it takes no more calls, or is shut down, it is ``closed``.
        """
        return self._ledger.status()

    def workers(self) -> list[WorkerView]:
        """The gauges of the slots that have had a call. Which processes are busy nobody tells: those are said to be
        that were not heard of for longest, with the calls that were submitted first.
        """
        return self._ledger.workers()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As that of the executor."""
        task = self._kind(fn, operation_of(fn, args), self._ledger)
        self._ledger.start(task)
        try:
            future = self.executor.submit(task, *args, **kwargs)
        except BaseException as error:
            self._not_accepted(task, error)
            raise
        if self._own_futures:
            future.add_done_callback(task.settled)
            return future
        return _Relayed(task, future)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        **options: Any,
    ) -> Iterator[T]:
        """As that of the executor. Where it heeds *chunksize*, every chunk is one call."""
        if type(self.executor).map is Executor.map or chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout, **options)
        if chunksize < 1:
            raise ValueError(f"chunksize={chunksize}: needs to be at least 1")
        chunks = _chunks(zip(*iterables, strict=False), chunksize)
        return _flat(super().map(remote.run_chunk, repeat(fn), chunks, timeout=timeout, **options))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False, **options: Any) -> None:
        """As that of the executor, which may know further *options*."""
        self._ledger.closing = True
        if cancel_futures:
            options["cancel_futures"] = True
        self.executor.shutdown(wait, **options)
        self._ledger.catch_up()

    def _not_accepted(self, task: _Task, error: BaseException) -> None:
        if isinstance(error, RuntimeError):  # as all of the standard library's: it is shut down, or broken
            self._ledger.refuse(task, error, "closed")
        elif isinstance(error, queue.Full):
            self._ledger.refuse(task, error, "saturated")
        else:
            self._ledger.end(task, error, "error" if isinstance(error, Exception) else "cancelled")


class _Task(Call, remote.Wrapper):
    """A call, and what is submitted in place of its function."""

    __slots__ = ("__wrapped__", "ledger")

    def __init__(self, function: Callable[..., Any], operation: str, ledger: Ledger) -> None:
        super().__init__(operation)
        self.__wrapped__: Any = function
        self.ledger = ledger

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        self.ledger.begin(self, threading.get_ident())
        try:
            result = self.__wrapped__(*args, **kwargs)
        except BaseException as error:
            self._ran(error)
            raise
        self._ran(None)
        return result

    def _ran(self, _error: BaseException | None) -> None:
        """It ran here, and may run again: its future says how the call ends."""
        self.ledger.pause(self)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        self.attempts = max(self.attempts, 1)  # it is being handed to a process
        return remote.unwrapped, (self.__wrapped__,)

    def settled(self, future: Future[Any], ran: remote.Ran | None = None) -> None:
        """Its future is done, *ran* says where and when it ran if that was elsewhere."""
        if future.cancelled():
            self.ledger.end(self, CancelledError(), "cancelled")
        elif (error := future.exception()) is not None:
            lost = ran is None and self.begun_ns is None and isinstance(error, BrokenExecutor)
            self.ledger.end(self, error, "worker_lost" if lost else "error", ran)
        else:
            self.ledger.end(self, ran=ran)


class _TaskOfThreads(_Task):
    """A call that runs once, in this process."""

    __slots__ = ()

    def _ran(self, error: BaseException | None) -> None:
        self.ledger.end(self, error, "ok" if error is None else "error")

    def settled(self, future: Future[Any], ran: remote.Ran | None = None) -> None:
        if self.begun_ns is None:
            super().settled(future, ran)
        self.__wrapped__ = None  # the future keeps this, and the function may hold anything


class _TaskAway(_Task):
    """A call of which the other process sends back where and when it ran."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return remote.Away, super().__reduce__()[1]


class _Relayed(Future[T]):
    """The future of a call that may run elsewhere: gets what the executor's own has, without what came along."""

    def __init__(self, task: _Task, future: Future[Any]) -> None:
        super().__init__()
        self._task: _Task | None = task
        self._future: Future[Any] | None = future
        future.add_done_callback(self._settle)

    def cancel(self) -> bool:
        future = self._future
        return super().cancel() if future is None else future.cancel()

    def running(self) -> bool:
        future = self._future
        return super().running() if future is None else future.running()

    def _settle(self, future: Future[Any]) -> None:
        task, self._task, self._future = self._task, None, None  # they refer to this one
        assert task is not None  # a future is done once
        if future.cancelled():
            task.settled(future)
            super().cancel()
            self.set_running_or_notify_cancel()
        elif (error := future.exception()) is not None:
            task.settled(future, remote.taken_from(error))
            self.set_exception(error)
        else:
            result, ran = future.result(), None
            if isinstance(result, remote.Answer):
                result, ran = result.result, remote.Ran(*result.ran)
            task.settled(future, ran)
            self.set_result(result)


class _Size:
    """How many workers an executor has: as the user says, else as it says itself. It is not kept alive for that."""

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


def _home_of_submit(executor: Executor) -> str:
    """The class whose ``submit`` *executor* has."""
    home = next(kind for kind in type(executor).__mro__ if "submit" in vars(kind))
    return f"{home.__module__}.{home.__qualname__}"


def _chunks(items: Iterator[tuple[Any, ...]], size: int) -> Iterator[list[tuple[Any, ...]]]:
    while chunk := list(islice(items, size)):
        yield chunk


def _flat(chunks: Iterable[list[T]]) -> Iterator[T]:
    for chunk in chunks:
        chunk.reverse()
        while chunk:
            yield chunk.pop()  # nothing that was handed out is held any longer
