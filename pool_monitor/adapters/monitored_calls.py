"""`MonitoredCalls`: monitors async callables as if they were a pool."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar, overload

from pool_monitor.adapters.tracked_call import TrackedCall
from pool_monitor.adapters.tracker import CallTracker, check_arguments, operation_of
from pool_monitor.errors import ConfigError

if TYPE_CHECKING:
    from pool_monitor.snapshot import PoolView, WorkerView

P = ParamSpec("P")
R = TypeVar("R")
AsyncCallable: TypeAlias = Callable[P, Awaitable[R]]
CoroutineFunction: TypeAlias = Callable[P, Coroutine[Any, Any, R]]

_MARK = "__pool_monitor_calls__"


class MonitoredCalls:
    """Async callables, such as the methods of a client, for a Monitor to watch under *name*.

        calls = MonitoredCalls(name="openai", limit=8)
        ask = calls.wrap(client.ask)

        @calls
        async def search(text: str) -> list[str]: ...

    *limit* is the intended number of calls at once, and becomes the pool's ``size``. It is not enforced: ``busy`` can
    exceed it, and ``waiting`` is always 0. Without a limit, ``size`` is the highest number of calls at once so far.

    Workers are slots ``name-0`` ..., one per running call; a call takes the lowest free slot. So the table of workers
    shows which call hangs and for how long, and how often the second, third or eighth slot is used at all. There are
    *limit* slots, or 16 without a limit, and never more than 64; further calls share slots.

    Events are emitted in the thread of the event loop that runs where this object is made, used or read. Raises
    ConfigError for a bad name or limit.
    """

    def __init__(self, *, name: str, limit: int | None = None) -> None:
        check_arguments("MonitoredCalls", name, ("limit", limit))
        self.limit = limit
        self._tracker = CallTracker(name, lambda: limit, sees_begin=True)

    def __repr__(self) -> str:
        view = self.status()
        return f"<MonitoredCalls {view.name!r} [{view.busy} of {view.size} busy]>"

    @property
    def name(self) -> str:
        """The pool's name in events and snapshots."""
        return self._tracker.identity.name

    @property
    def instance(self) -> str:
        """An id that no other pool has, not even one with the same name."""
        return self._tracker.identity.instance

    def status(self) -> PoolView:
        """Return the gauges now. ``queue_limit``, ``sessions`` and ``restarts`` are always 0."""
        return self._tracker.status()

    def workers(self) -> list[WorkerView]:
        """Return the gauges of all slots that have had a call."""
        return self._tracker.workers()

    @overload
    def wrap(self, function: AsyncCallable[P, R], *, operation: str | None = None) -> CoroutineFunction[P, R]: ...
    @overload
    def wrap(
        self, function: None = None, *, operation: str | None = None
    ) -> Callable[[AsyncCallable[P, R]], CoroutineFunction[P, R]]: ...

    def wrap(self, function: Any = None, *, operation: str | None = None) -> Any:
        """Return *function*, monitored. Its calls have the operation *operation* (None: its ``__name__``). Without
        *function*, return a decorator.

        *function* is an ``async def``, or an object that returns an awaitable when it is called. A call ends when that
        awaitable has been awaited; a call that is cancelled or closed has the outcome ``cancelled``. Raises TypeError
        for a plain function, because only the creation of its result could be timed, and for an async generator,
        because its duration depends on its reader. Raises ConfigError for a function that is wrapped already, and for a
        bad operation.
        """
        if operation is not None and (not isinstance(operation, str) or not operation):
            raise ConfigError(f"{self._prefix(function)}: operation={operation!r:.80} needs to be a non-empty string")
        if function is None:
            return functools.partial(self.wrap, operation=operation)
        is_async = self._is_async(function)
        name = operation or operation_of(function)

        @functools.wraps(function, updated=("__dict__",) if inspect.isroutine(function) else ())
        async def monitored(*args: Any, **kwargs: Any) -> Any:
            call, tracker = TrackedCall(name), self._tracker
            tracker.start(call)
            tracker.begin(call)
            try:
                awaitable = function(*args, **kwargs)
                if not (is_async or inspect.isawaitable(awaitable)):
                    raise TypeError(f"{self._prefix(function)}: returned {awaitable!r:.80}, which cannot be awaited")
                result = await awaitable
            except (asyncio.CancelledError, GeneratorExit) as error:
                tracker.end(call, error, "cancelled")
                raise
            except BaseException as error:
                tracker.end(call, error, "error")
                raise
            tracker.end(call)
            return result

        setattr(monitored, _MARK, self.name)
        return monitored

    __call__ = wrap

    def _is_async(self, function: object) -> bool:
        """Whether every result of *function* is known to be awaitable. Raises TypeError or ConfigError if it cannot be
        wrapped.
        """
        if not callable(function):
            raise TypeError(f"{self._prefix(function)}: needs an async callable")
        if hasattr(function, _MARK):
            raise ConfigError(f"{self._prefix(function)}: is wrapped already, by {getattr(function, _MARK)!r}")
        inner: Any = function
        while isinstance(inner, functools.partial):
            inner = inner.func
        candidates = (inner, type(inner).__call__)
        if any(map(inspect.isasyncgenfunction, candidates)):
            raise TypeError(
                f"{self._prefix(function)}: is an async generator, whose duration depends on its reader; "
                "wrap the async function that reads it"
            )
        is_async = any(map(inspect.iscoroutinefunction, candidates))
        if inspect.isroutine(inner) and not is_async:
            raise TypeError(
                f"{self._prefix(function)}: is not async, so only the creation of its result could be timed; wrap an "
                "'async def', or submit plain functions to a MonitoredExecutor"
            )
        return is_async

    def _prefix(self, function: object) -> str:
        """Return the beginning of error texts about *function*."""
        return f"MonitoredCalls(name={self.name!r}).wrap({function!r:.80})"
