"""`MonitoredCalls`: async callables that are no pool, watched as if they were one."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar, overload

from pool_monitor.adapters.tracker import Call, Ledger, checked, operation_of
from pool_monitor.errors import ConfigError

if TYPE_CHECKING:
    from pool_monitor.snapshot import PoolView, WorkerView

P = ParamSpec("P")
R = TypeVar("R")
Asked: TypeAlias = Callable[P, Awaitable[R]]
Given: TypeAlias = Callable[P, Coroutine[Any, Any, R]]

_MARK = "__pool_monitor_calls__"


class MonitoredCalls:
    """Async callables, such as the methods of a client, for a Monitor to watch under *name*.

        calls = MonitoredCalls(name="openai", limit=8)
        ask = calls.wrap(client.ask)

        @calls
        async def search(text: str) -> list[str]: ...

    *limit* is how many calls at once are thought right: it is the pool's ``size``, and nothing is held back for it, so
    ``busy`` can be above it and ``waiting`` is always 0. Without a limit ``size`` is the most calls there were at once.

    Workers are slots ``name-0`` ..., one per call under way, the lowest that is free: so the table shows what hangs and
    since when, and how busy the second, third or eighth place ever is. There are *limit* of them, or 16 without one,
    and never more than 64; calls beyond share them.

    Events are told in the thread of the event loop that runs where this is made, used or looked at. Raises ConfigError
    for a bad name or limit.
    """

    def __init__(self, *, name: str, limit: int | None = None) -> None:
        checked("MonitoredCalls", name, ("limit", limit))
        self.limit = limit
        self._ledger = Ledger(name, lambda: limit, shows=True)

    def __repr__(self) -> str:
        view = self.status()
        return f"<MonitoredCalls {view.name!r} [{view.busy} of {view.size} busy]>"

    @property
    def name(self) -> str:
        """What events and snapshots call it."""
        return self._ledger.name

    def status(self) -> PoolView:
        """Its gauges now. ``queue_limit``, ``sessions`` and ``restarts`` are 0, because there are none."""
        return self._ledger.status()

    def workers(self) -> list[WorkerView]:
        """The gauges of the slots that have had a call."""
        return self._ledger.workers()

    @overload
    def wrap(self, function: Asked[P, R], *, operation: str | None = None) -> Given[P, R]: ...
    @overload
    def wrap(self, function: None = None, *, operation: str | None = None) -> Callable[[Asked[P, R]], Given[P, R]]: ...

    def wrap(self, function: Any = None, *, operation: str | None = None) -> Any:
        """*function*, with its calls told as *operation* (None: its ``__name__``). Without *function*, a decorator.

        *function* is an ``async def``, or an object that gives an awaitable when it is called. A call lasts until what
        it gave has been awaited; one that is cancelled, or closed, has the outcome ``cancelled``. Raises TypeError for
        a plain function, of which only the making of an answer could be timed, and for an async generator, which takes
        as long as its reader does; ConfigError for what is wrapped already and for a bad operation.
        """
        if operation is not None and (not isinstance(operation, str) or not operation):
            raise ConfigError(f"{self._said(function)}: operation={operation!r:.80} needs to be a non-empty string")
        if function is None:
            return functools.partial(self.wrap, operation=operation)
        certain = self._certain(function)
        name = operation or operation_of(function)

        @functools.wraps(function, updated=("__dict__",) if inspect.isroutine(function) else ())
        async def told(*args: Any, **kwargs: Any) -> Any:
            call, ledger = Call(name), self._ledger
            ledger.start(call)
            ledger.begin(call)
            try:
                answer = function(*args, **kwargs)
                if not (certain or inspect.isawaitable(answer)):
                    raise TypeError(f"{self._said(function)}: gave {answer!r:.80}, which cannot be awaited")
                result = await answer
            except (asyncio.CancelledError, GeneratorExit) as error:
                ledger.end(call, error, "cancelled")
                raise
            except BaseException as error:
                ledger.end(call, error, "error")
                raise
            ledger.end(call)
            return result

        setattr(told, _MARK, self.name)
        return told

    __call__ = wrap

    def _certain(self, function: object) -> bool:
        """Whether what it gives can be awaited, for certain. Raises for what cannot be wrapped."""
        if not callable(function):
            raise TypeError(f"{self._said(function)}: needs an async callable")
        if hasattr(function, _MARK):
            raise ConfigError(f"{self._said(function)}: is wrapped already, by {getattr(function, _MARK)!r}")
        inner: Any = function
        while isinstance(inner, functools.partial):
            inner = inner.func
        ways = (inner, type(inner).__call__)
        if any(map(inspect.isasyncgenfunction, ways)):
            raise TypeError(
                f"{self._said(function)}: is an async generator, which takes as long as its reader does; "
                "wrap the async function that reads it"
            )
        certain = any(map(inspect.iscoroutinefunction, ways))
        if inspect.isroutine(inner) and not certain:
            raise TypeError(
                f"{self._said(function)}: is not async, so only the making of its answer could be timed; wrap an "
                "'async def', or give plain functions to a MonitoredExecutor"
            )
        return certain

    def _said(self, function: object) -> str:
        return f"MonitoredCalls(name={self.name!r}).wrap({function!r:.80})"
