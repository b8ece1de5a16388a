"""How operations are called: `run`, `stream` and `map`, with options or on behalf of a session.

Code that uses a pool can take a `Caller`, so that a test can pass something else. `PoolCaller` is the implementation
that pools share.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, runtime_checkable

import msgspec

from pool_monitor.errors import ConfigError, PoolError
from pool_monitor.pool.call import Call, Options, refused
from pool_monitor.pool.map_results import MapResults

if TYPE_CHECKING:
    from types import TracebackType

    from pool_monitor.config import PoolConfig
    from pool_monitor.pool.dispatcher import Dispatcher


_WAITING_MAX = 1000  # while this many calls wait for workers, a `map` makes no others


class CallResult(NamedTuple):
    """How a call ended: what `Pool.try_run` returns."""

    result: Any
    """What the operation returned; None when it failed."""
    error: PoolError | None
    """Why the call failed; None when it succeeded."""
    worker: str | None
    """The id of the slot that the call ran on last; None when it never reached a worker."""
    seconds: float
    """The time from making the call to its end."""


@runtime_checkable
class Caller(Protocol):
    """Runs operations: the interface that code needs to use a pool.

    A `Pool`, a `Session`, the result of `options` and a `pool_monitor.testing.InlinePool` are callers. So is any object
    of yours that has these four methods. Each method does what the method of `Pool` with the same name does.
    """

    async def run(self, operation: str, /, *args: Any, **kwargs: Any) -> Any:
        """Run *operation* and return its result."""

    def stream(self, operation: str, /, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        """Iterate over the items that a generator *operation* yields."""

    def map(
        self,
        operation: str,
        items: Iterable[Any] | AsyncIterable[Any],
        /,
        *,
        ordered: bool = True,
        in_flight: int | None = None,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> AsyncGenerator[Any, None]:
        """Run *operation* once for each of *items*; iterate over the results."""

    def options(
        self,
        *,
        timeout: float | None = None,
        first_item_timeout: float | None = None,
        item_timeout: float | None = None,
        session: str | None = None,
        idempotent: bool | None = None,
        priority: int | None = None,
        key: str | None = None,
        worker: str | None = None,
        affinity: str | None = None,
        zero_copy: bool | None = None,
    ) -> Caller:
        """Return the same caller with other options."""


class CallTarget(Protocol):
    """The pool that a `PoolCaller` calls, reduced to what the caller uses."""

    @property
    def config(self) -> PoolConfig:
        """The configuration now."""

    @property
    def size(self) -> int:
        """The number of workers that the pool is to have."""

    def _calls(self) -> Dispatcher:
        """Return the dispatcher. Raises PoolClosed before the pool is entered, and WrongLoop where the pool cannot be
        used.
        """


class PoolCaller:
    """Calls a pool's operations. A `Pool`, a `Session` and the result of `options` are PoolCallers."""

    def __init__(self, pool: CallTarget, options: Options) -> None:
        self._pool = pool
        self._options = options

    async def run(self, operation: str, /, *args: Any, **kwargs: Any) -> Any:
        """Run *operation* on a worker and return its result.

        Waits for a free worker. One deadline (``timeout`` of the options, else of the configuration) covers waiting
        and execution. Cancelling the caller ends the call. A call that still waits is removed from the queue. If the
        call is on a worker, the operation is interrupted; a worker that still runs it after ``cancel_grace`` is killed
        and replaced.

        Arguments are encoded when a worker takes the call: do not change them before. Some values change on their way:
        except with ``codec="pickle"``, tuples become lists, for example. docs/POOL_GUIDE.md, "What travels", lists
        them.

        Raises OperationError when the target raises; PayloadError when arguments or result cannot be carried;
        OperationTimeout; WorkerDied; ProtocolError when the worker violates the protocol; SessionLost when a session
        with strict affinity has lost its process; OperationCancelled when the pool closes while the call runs;
        UnknownOperation; WrongLoop on an event loop other than the pool's, or in another process; and Rejected
        (PoolSaturated, QueueTimeout, CircuitOpen, PoolClosed) when the call never reaches a worker.
        """
        dispatcher = self._pool._calls()
        call = dispatcher.admit(operation, args, kwargs, self._options, stream=False)
        try:
            if call.done:
                await _yield_to_loop(call)
            result = await call.future
        except asyncio.CancelledError:
            dispatcher.cancel(call)
            del call  # a cancelled task that is kept keeps this frame, and with `call` a result that has just arrived
            raise
        return as_view(result) if self._options.zero_copy else result

    async def try_run(self, operation: str, /, *args: Any, **kwargs: Any) -> CallResult:
        """Like `run`, but return an error instead of raising it, together with where the call ran and how long it took.

        Also accepts a generator operation: the result is the list of its items. This process holds all of them until
        the generator ends, which only the deadline bounds. Cancellation is still raised.
        """
        started = time.monotonic()
        call: Call | None = None
        result: Any = None
        error: PoolError | None = None
        try:
            dispatcher = self._pool._calls()
            stream = dispatcher.operations.get(operation) == "generator"
            call = dispatcher.admit(operation, args, kwargs, self._options, stream=stream, collect=True)
            if call.done:
                await _yield_to_loop(call)
            result = await call.future
            if call.items is not None:
                result = list(call.items.buffer)
            if self._options.zero_copy:
                result = as_view(result) if call.items is None else list(map(as_view, result))
        except PoolError as failure:
            error = failure
        except asyncio.CancelledError:
            if call is not None:
                dispatcher.cancel(call)
                call = None  # as in `run`
            raise
        worker = None if call is None or call.worker is None else call.worker.id
        return CallResult(result, error, worker, time.monotonic() - started)

    async def stream(self, operation: str, /, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        """Iterate over the items of a generator *operation* as it yields them.

        The call is made when the first item is requested. A slow reader makes the worker wait: this process holds at
        most 64 items or 16 MiB, or, if the items are small, those that arrive in one read of 64 KiB. Leaving the loop
        early, or cancelling, interrupts the generator; use ``contextlib.aclosing`` to have that happen at once. The
        deadline covers the whole stream; ``first_item_timeout`` and ``item_timeout`` of the options bound its pauses.
        Raises the errors of `run`, after the items that were yielded before the error.
        """
        dispatcher = self._pool._calls()
        call = dispatcher.admit(operation, args, kwargs, self._options, stream=True)
        async with aclosing(_read(dispatcher, call)) as items:
            async for item in items:
                yield as_view(item) if self._options.zero_copy else item

    async def map(
        self,
        operation: str,
        items: Iterable[Any] | AsyncIterable[Any],
        /,
        *,
        ordered: bool = True,
        in_flight: int | None = None,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> AsyncGenerator[Any, None]:
        """Run *operation* once for each of *items*; iterate over the results. The item is the only positional argument.

        At most *in_flight* calls (default: twice the pool's size) are under way or finished and not yet read. So
        *items* may be endless: it is read as the results are read. Reading *items* stops while 1,000 calls wait for
        workers, or while half of the queue is taken if that is less. Every millisecond, other tasks of the event loop
        get their turn. Results come in the order of *items*, or with ``ordered=False`` as they are ready.

        The first error is raised in the place of its result and ends the iteration. With ``return_exceptions=True``
        each error is yielded in place of its result instead. An exception of *items* itself is raised after all
        results. Leaving the loop early cancels the calls that are under way.
        """
        dispatcher = self._pool._calls()  # raises here, once, what every call would raise
        limit = in_flight if in_flight is not None else 2 * max(1, self._pool.size)
        if limit < 1:
            raise ConfigError(f"map(in_flight={in_flight}): needs at least 1")

        def admit(item: Any) -> Call:
            try:
                return dispatcher.admit(operation, (item,), kwargs, self._options, stream=False)
            except PoolError as error:
                return refused(operation, error)

        most = min(_WAITING_MAX, self._pool.config.queue_limit // 2)  # a map may always have this many calls waiting
        few = limit if limit <= most else 2 * max(1, self._pool.size)
        results = MapResults(
            admit,
            dispatcher.cancel,
            limit,
            ordered=ordered,
            few=few,
            enough=lambda: dispatcher.waiting >= most,
        )
        try:
            results.read(items)
            while (ended := results.next_ended()) is not None or not results.exhausted:
                if ended is None:
                    await results.wait()
                    continue
                error = ended.exception()
                if error is not None and not return_exceptions:
                    raise error
                if error is None and self._options.zero_copy:
                    yield as_view(ended.result())  # without a variable, which would keep it during the next wait
                else:
                    yield ended.result() if error is None else error
                results.free_place()
            if results.failure is not None:
                raise results.failure
        finally:
            await results.close()

    def options(
        self,
        *,
        timeout: float | None = None,
        first_item_timeout: float | None = None,
        item_timeout: float | None = None,
        session: str | None = None,
        idempotent: bool | None = None,
        priority: int | None = None,
        key: str | None = None,
        worker: str | None = None,
        affinity: str | None = None,
        zero_copy: bool | None = None,
    ) -> PoolCaller:
        """Return a caller with the same `run`, `stream` and `map`, and with these options added to those of this
        caller. Making one costs next to nothing.

        *timeout*: seconds for queue and execution together. *first_item_timeout*, *item_timeout*: seconds to the first
        item of a stream, and from each item to the next, as in `PoolConfig`. *session*: the id of the session to call
        for. *idempotent*: running the operation twice does no harm; so the call may be sent again after a failure that
        it did not cause itself. *priority*: higher priorities are served first. *key*: calls with different keys take
        turns in the queue. *worker*: the id of the only slot to run on. *affinity*: ``hint`` or ``strict``: how firmly
        the session is bound to its worker, as in `PoolConfig.affinity`.

        *zero_copy*: a result or stream item of type ``bytes`` arrives as a read-only ``memoryview``. From 128 KiB on,
        it is wherever possible memory shared with the worker, and this process makes no copy. The view stays valid as
        long as you keep it, or a slice or an array made of it, even after the worker has ended or the pool is closed.
        While you keep it, it takes room from the worker's next large results, which then take a slower way. So release
        it soon, or copy it with ``bytes()``. A worker does not change this memory, but a faulty one could, while you
        read it.
        """
        changes: dict[str, Any] = {"first_item_timeout": first_item_timeout, "item_timeout": item_timeout}
        changes |= {"timeout": timeout, "session": session, "idempotent": idempotent, "priority": priority}
        changes |= {"key": key, "worker": worker, "affinity": affinity, "zero_copy": zero_copy}
        return PoolCaller(self._pool, with_options(self._options, changes))


class Session(PoolCaller):
    """A caller bound to one session. Made by `Pool.session`.

    Leaving its ``async with`` block does not end the session: the session and its data are kept until they have been
    unused for ``session_ttl`` seconds, or until `end` is called.
    """

    @property
    def id(self) -> str:
        """The session's id."""
        assert self._options.session is not None
        return self._options.session

    @property
    def data(self) -> dict[str, Any]:
        """A copy of the data that the session's operations have stored; empty before the first call."""
        return self._pool._calls().sessions.data(self.id)

    def end(self) -> bool:
        """Drop the session and its data now. Returns whether the session existed."""
        return self._pool._calls().sessions.end(self.id)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


_SECONDS = (lambda value: _number(value) and 0 < value < math.inf, "a number of seconds above 0")
_OPTIONS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "timeout": _SECONDS,
    "first_item_timeout": _SECONDS,
    "item_timeout": _SECONDS,
    "session": (lambda value: isinstance(value, str) and value != "", "a non-empty string"),
    "idempotent": (lambda value: isinstance(value, bool), "True or False"),
    "priority": (lambda value: _number(value) and isinstance(value, int), "a whole number"),
    "key": (lambda value: isinstance(value, str), "a string"),
    "worker": (lambda value: isinstance(value, str), "the id of a slot, such as 'default-0'"),
    "affinity": (lambda value: value in ("hint", "strict"), "'hint' or 'strict'"),
    "zero_copy": (lambda value: isinstance(value, bool), "True or False"),
}
"""The valid values of each option of a call: a test, and its description."""


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def as_view(value: Any) -> Any:
    """Return *value*, as a view if it is bytes."""
    return memoryview(value) if type(value) is bytes else value


def with_options(base: Options, changes: dict[str, Any]) -> Options:
    """Return *base* with those *changes* that are not None. Raises ConfigError that names a bad value."""
    given = {name: value for name, value in changes.items() if value is not None}
    for name, value in given.items():
        fits, needed = _OPTIONS[name]
        if not fits(value):
            raise ConfigError(f"options({name}={value!r}): needs {needed}")
    return msgspec.structs.replace(base, **given)


async def _yield_to_loop(call: Call) -> None:
    """Give other tasks a turn after *call* was refused at once: a caller that retries in a loop must not block them."""
    if not call.future.cancelled():
        call.future.exception()  # marks it as retrieved, in case the caller is cancelled during the sleep
    await asyncio.sleep(0)


async def _read(dispatcher: Dispatcher, call: Call) -> AsyncGenerator[Any, None]:
    """Yield the items of a streaming call until it has ended. Raises the error it ended with."""
    items = call.items
    assert items is not None
    try:
        while True:
            while items.buffer:
                value, go_on = items.take()
                if go_on:
                    dispatcher.read_on(call)
                yield value
            if call.future.done():
                break
            await items.changed()
        if call.worker is None:
            await _yield_to_loop(call)
        call.future.result()
    finally:
        dispatcher.cancel(call)  # the reader has left; does nothing if the call has ended
        if call.future.done() and not call.future.cancelled():
            call.future.exception()  # marks it as retrieved, or asyncio would log an error that no reader is left for
