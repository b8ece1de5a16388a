"""How operations are called: `run`, `stream` and `map`, with options of one's own or on behalf of a session.

`Caller` is what code that uses a pool may ask for, so that it can be given something else in a test. `PoolCaller` is
what pools have.
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


_WAITING = 1000  # calls that wait for workers, with which a `map` has no need to add others


class CallResult(NamedTuple):
    """How a call ended: what `Pool.try_run` returns."""

    result: Any
    """What the operation returned; None when it failed."""
    error: PoolError | None
    """What went wrong, or None."""
    worker: str | None
    """The slot it ran on last; None when it never reached one."""
    seconds: float
    """From the call to its end."""


@runtime_checkable
class Caller(Protocol):
    """Runs operations: what code that uses a pool needs of it, whatever it is.

    A `Pool`, a `Session`, what `options` returns and `pool_monitor.testing.InlinePool` are callers, and so is anything
    of your own with these four methods. Each does what the method of that name of `Pool` does.
    """

    async def run(self, operation: str, /, *args: Any, **kwargs: Any) -> Any:
        """Run *operation* and return its result."""

    def stream(self, operation: str, /, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        """Iterate over what a generator *operation* yields."""

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
        """The same caller with other options."""


class CallTarget(Protocol):
    """The pool that a `PoolCaller` calls, as far as the caller must know it."""

    config: PoolConfig

    @property
    def size(self) -> int:
        """How many workers it wants."""

    def _calls(self) -> Dispatcher:
        """Where calls are made. Raises PoolClosed while the pool is not entered, WrongLoop where it cannot be used."""


class PoolCaller:
    """Calls a pool's operations. `Pool` is one, `options` makes others, a `Session` is one."""

    def __init__(self, pool: CallTarget, options: Options) -> None:
        self._pool = pool
        self._options = options

    async def run(self, operation: str, /, *args: Any, **kwargs: Any) -> Any:
        """Run *operation* on a worker and return its result.

        Waits for a free worker. One deadline (``timeout`` of the options, else of the configuration) covers waiting
        and execution. Cancelling the caller ends the call: still in the queue it leaves no trace; on a worker the
        operation is interrupted, or its worker killed and replaced after ``cancel_grace``.

        Arguments are encoded when a worker takes the call: do not change them before. Not everything arrives as it
        was sent: except with ``codec="pickle"`` tuples become lists, for one. What does is in docs/POOL_GUIDE.md,
        "What travels".

        Raises OperationError when the target raised; PayloadError when arguments or result cannot be carried;
        OperationTimeout; WorkerDied; ProtocolError when the worker spoke nonsense; SessionLost when the process that
        a session insists on is gone; OperationCancelled when the pool was closed meanwhile; UnknownOperation; WrongLoop
        on another event loop than the pool's, or in another process; and Rejected (PoolSaturated, QueueTimeout,
        CircuitOpen, PoolClosed) when no worker ever saw the call.
        """
        dispatcher = self._pool._calls()
        call = dispatcher.admit(operation, args, kwargs, self._options, stream=False)
        try:
            if call.done:
                await _let_others(call)
            result = await call.future
        except asyncio.CancelledError:
            dispatcher.cancel(call)
            del call  # whoever keeps the cancelled task keeps this frame, and so would keep a result that came just now
            raise
        return as_view(result) if self._options.zero_copy else result

    async def try_run(self, operation: str, /, *args: Any, **kwargs: Any) -> CallResult:
        """Like `run`, but what goes wrong is returned and not raised, and with it where the call ran and how long it
        took. Takes a generator operation too: its items come as a list, all held here until it ends, which only the
        deadline bounds. Cancellation is raised as ever.
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
                await _let_others(call)
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
        """Iterate over what a generator *operation* yields, as it yields it.

        The call begins with the first item asked for. Reading slowly makes the worker wait: 64 items or 16 MiB are held
        here, or, where they are small, as many as arrive in one read of 64 KiB. Leaving the loop early, or cancelling,
        interrupts the generator; use ``contextlib.aclosing`` where the moment matters. The deadline covers the whole
        stream; ``first_item_timeout`` and ``item_timeout`` of the options bound its pauses. Errors as for `run`; items
        yielded before an error are delivered first.
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
        """Run *operation* once for each of *items*, its only positional argument; iterate over the results.

        At most *in_flight* calls (default: twice the pool's size) are under way or finished and not yet read, so
        *items* may be endless; it is read as results are, and no further while 1,000 calls wait for workers, or half
        as many as the queue holds. However many calls there are, the event loop is left to others every millisecond.
        Results come in the order of *items*, or with ``ordered=False`` as they are ready.

        The first error is raised where its result would stand and ends the iteration, or with
        ``return_exceptions=True`` takes the result's place; what *items* itself raises comes after all results.
        Leaving early cancels what is under way.
        """
        dispatcher = self._pool._calls()  # refuses the whole where each call would be
        limit = in_flight if in_flight is not None else 2 * max(1, self._pool.size)
        if limit < 1:
            raise ConfigError(f"map(in_flight={in_flight}): needs at least 1")

        def admit(item: Any) -> Call:
            try:
                return dispatcher.admit(operation, (item,), kwargs, self._options, stream=False)
            except PoolError as error:
                return refused(operation, error)

        most = min(_WAITING, self._pool.config.queue_limit // 2)  # of this map's own it may be so many in any case
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
                    yield as_view(ended.result())  # and is not kept here while the next one is waited for
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
        """A light caller with the same `run`, `stream` and `map`, and these options on top of this one's. Costs nothing
        to make.

        *timeout*: seconds for queue and execution together. *first_item_timeout*, *item_timeout*: seconds to the first
        item of a stream, and from one to the next, as in `PoolConfig`. *session*: on behalf of that session.
        *idempotent*: running it twice does no harm, so it may be sent again when it failed and not through itself.
        *priority*: higher goes first. *key*: calls of different keys take turns in the queue. *worker*: only on that
        slot. *affinity*: ``hint`` or ``strict``, what the session's worker means, as in `PoolConfig.affinity`.

        *zero_copy*: a result, or an item of a stream, that is ``bytes`` comes as a read-only ``memoryview``. From 128
        KiB on it is, wherever possible, memory that is shared with the worker, and is not copied here. It is good for
        as long as you keep it, or a slice or an array made of it, also when the worker has ended or the pool is closed.
        All that time it takes room from the worker's next large results, which then come a slower way: use it and let
        it go, or copy it with ``bytes()``. The worker leaves it alone; one that runs wild could change it as you read.
        """
        changes: dict[str, Any] = {"first_item_timeout": first_item_timeout, "item_timeout": item_timeout}
        changes |= {"timeout": timeout, "session": session, "idempotent": idempotent, "priority": priority}
        changes |= {"key": key, "worker": worker, "affinity": affinity, "zero_copy": zero_copy}
        return PoolCaller(self._pool, with_options(self._options, changes))


class Session(PoolCaller):
    """A caller bound to one session: runs like a pool does. Made by `Pool.session`.

    Leaving its ``async with`` block ends nothing: the session and its data are kept until they were unused for
    ``session_ttl`` seconds, or until `end`.
    """

    @property
    def id(self) -> str:
        assert self._options.session is not None
        return self._options.session

    @property
    def data(self) -> dict[str, Any]:
        """A copy of what the session's operations have kept; empty before the first call."""
        return self._pool._calls().sessions.data(self.id)

    def end(self) -> bool:
        """Forget the session and its data now. Returns whether there was one."""
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
"""What each option of a call may be: a test, and the same in words."""


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def as_view(value: Any) -> Any:
    """*value*, as a view if it is bytes."""
    return memoryview(value) if type(value) is bytes else value


def with_options(base: Options, changes: dict[str, Any]) -> Options:
    """*base* with what is not None in *changes*. Raises ConfigError naming a bad value."""
    given = {name: value for name, value in changes.items() if value is not None}
    for name, value in given.items():
        fits, needed = _OPTIONS[name]
        if not fits(value):
            raise ConfigError(f"options({name}={value!r}): needs {needed}")
    return msgspec.structs.replace(base, **given)


async def _let_others(call: Call) -> None:
    """A caller whose *call* was refused at once, and who tries again and again, shall not keep the loop to itself."""
    if not call.future.cancelled():
        call.future.exception()  # seen, also when the caller is cancelled meanwhile
    await asyncio.sleep(0)


async def _read(dispatcher: Dispatcher, call: Call) -> AsyncGenerator[Any, None]:
    """What a streaming call yields, until it has ended; raises what it ended with."""
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
            await _let_others(call)
        call.future.result()
    finally:
        dispatcher.cancel(call)  # nobody reads on; nothing happens when it has ended
        if call.future.done() and not call.future.cancelled():
            call.future.exception()  # an error nobody asked for is not worth asyncio's complaint
