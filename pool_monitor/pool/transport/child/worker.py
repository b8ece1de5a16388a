"""A worker with one call at a time: loads the target, runs its operations, and answers each call once."""

from __future__ import annotations

import functools
import math
import os
import signal
import sys
import time

from .channel import ParentGone
from .codec import LARGE, PayloadError, Undecodable
from .forked_copy import exit_copy
from .memory_usage import PeakMemory
from .messenger import Messenger
from .output import flush_output
from .streams import END, close_async_iterator, close_iterator, iterator_of, next_async_item, next_item
from .target import find_variables, load_target, operations_of
from .telemetry import Telemetry

TYPE_CHECKING = False  # as in typing, without its import
if TYPE_CHECKING:
    import asyncio
    from typing import Any, Callable, Coroutine, Dict, List, Optional

    from .handshake import Connection, Init
    from .payloads import Body
    from .target import Operation

_LONG_NS = 100_000  # answers held back are sent before an operation that is expected to take longer
_SHORT_NS = 20_000  # the processor time of a shorter operation is not measured: that costs 1 us
_WEIGHT = 0.1  # of the latest call in the running mean of an operation
# Types that cannot be awaited: a lookup is quicker than asking. By id: a type of the target may be unhashable.
_PLAIN = frozenset(map(id, (type(None), bool, int, float, str, bytes, list, tuple, dict)))


class OperationCancelled(BaseException):
    """The call was cancelled. No Exception, so that a target's ``except Exception`` does not swallow it."""


class Session:
    """Passed to an operation with a keyword parameter named ``session``."""

    def __init__(self, session_id: str, data: dict[str, Any]) -> None:
        self.id = session_id
        self.data = data


class Worker(Messenger):
    """Runs one call at a time, in the main thread."""

    def __init__(self, connection: Connection, init: Init) -> None:
        super().__init__(connection)
        self.init = init
        self.operations: Dict[str, Operation] = {}
        self.variables: Dict[str, Any] = {}  # the context variables that calls may bring, by name
        self.telemetry: Telemetry  # set by `load`
        self.peak: PeakMemory  # set by `on_loaded`
        self.pid = os.getpid()
        self.loop: Optional[asyncio.AbstractEventLoop] = None
        self.task: Optional[asyncio.Task[Any]] = None  # the asyncio task of a running coroutine operation
        self.on_loop = False  # the call is a task: it is cancelled, because nothing may be raised inside asyncio
        self.cancelled = False  # the call was cancelled while it was a task
        self.started = 0  # when the call under way began, ns
        self.cpu_before: Optional[int] = None  # processor time at that moment, ns; None: not measured

    # the target

    def load(self) -> bool:
        """Load the target and send ``ready``. If that fails, send the error and return False."""
        init = self.init
        self.telemetry = Telemetry(self.channel, self.codec, self.uninterrupted)
        try:
            args, kwargs = self.payloads.unpack("they", init.payload)
            init.payload = None  # it may be large: free it
            self.operations = operations_of(self.make_target(init.target, init.path, args, kwargs))
            if not self.operations:
                raise LookupError("%s has no public functions or methods" % init.target)
            self.variables = find_variables(init.variables)
            self.exit_if_copy()
        except BaseException as error:
            self.exit_if_copy(error)
            kind = "payload" if isinstance(error, PayloadError) else "operation"
            self.channel.send(self.failure(0, kind, error, [0, 0, None]))
            return False
        self.on_loaded()
        ready: List[Any] = ["ready", {name: operation.kind for name, operation in self.operations.items()}]
        if init.stack_signal is not None:
            ready += self.offer_stacks(init.stack_signal)
        self.send(ready)
        return True

    def offer_stacks(self, signal_number: int) -> List[Any]:
        """Prepare for telling what this worker does. Return what ``ready`` says about it."""
        from .stacks import register

        return [{"stack": register(signal_number) if signal_number else {}}]

    def make_target(self, target: str, path: List[str], args: Any, kwargs: Any) -> Any:
        return load_target(target, path, args, kwargs, self.telemetry)

    def on_loaded(self) -> None:
        self.peak = PeakMemory()
        signal.signal(signal.SIGURG, self.on_urgent)  # before the parent can send an urgent message

    def set_context(self, options: Any) -> None:
        """Set the context variables of a call in the current context."""
        carried = options if type(options) is Undecodable else options["context"]
        for name, value in self.payloads.unpack("the context", carried).items():
            self.variables[name].set(value)

    def tasks_of_calls(self) -> List[Any]:
        """Return the calls that are tasks of an event loop, as pairs of the operation and the task. The name is empty
        where only one call can run.
        """
        return [] if self.task is None else [("", self.task)]

    def describe_stacks(self) -> List[Any]:
        from .stacks import describe

        return describe(self.loop, self.tasks_of_calls())

    # calls

    def call(self, number: int, message: List[Any]) -> None:
        """Run one operation and send exactly one of ``reply``, ``end`` and ``error``."""
        _, call_id, name, payload, stream, session = message
        channel = self.channel
        operation = self.operations.get(name)
        mean = math.inf if operation is None else operation.mean_ns
        if channel.held and (stream or mean > _LONG_NS):
            channel.flush()
        self.call_id = call_id
        if self.shared is not None:
            self.shared.counters[0] = number
        self.started = time.perf_counter_ns()
        self.cpu_before = time.process_time_ns() if mean > _SHORT_NS else None
        try:
            if operation is None:
                raise self.unknown_operation(name)
            body = self.answer(call_id, operation, payload, stream, session)
        except ParentGone:
            raise
        except BaseException as error:  # also SystemExit: the operation failed, not the worker
            body = self.failure(call_id, failure_kind(error), error, self.times())
        self.interruptible = False  # again: an exception may have skipped the line that does this
        self.call_id = None
        flush_output()
        if type(body) is not bytes or len(body) >= LARGE:
            self.send_encoded(body)
        elif not (channel.frames or self.backlog) or self.urgent:
            self.transmit(body)
        elif not channel.hold(body):
            channel.send(body)
        if self.telemetry.dropped:
            self.telemetry.report_dropped()

    def answer(self, call_id: int, operation: Operation, payload: Any, stream: bool, session: Any) -> Body:
        """Run the operation. Return the encoded ``reply`` or ``end``."""
        args, kwargs = self.payloads.arguments(payload)
        state = None
        if session is not None or operation.takes_telemetry:
            state = self.add_extras(operation, kwargs, session)
        result = self.run(operation.function, args, kwargs)
        if stream:
            self.run_stream(call_id, result)
            result = None
        times = self.times()
        wall, mean = times[0], operation.mean_ns
        if wall > _SHORT_NS:  # a fork takes longer
            self.exit_if_copy()
        operation.mean_ns = wall if mean == math.inf else mean + _WEIGHT * (wall - mean)
        data = None if state is None else self.payloads.pack_session(state.data)
        return self.payloads.carry("the result", ["end" if stream else "reply", call_id, result, data, times])

    def unknown_operation(self, name: str) -> LookupError:
        return LookupError("no operation %r; there are %s" % (name, ", ".join(sorted(self.operations))))

    def add_extras(self, operation: Operation, kwargs: Dict[str, Any], session: Any) -> Optional[Session]:
        """Add the session and the telemetry to *kwargs* if the operation takes them. Return the session."""
        state = None
        if session is not None and operation.takes_session:
            session_id, data = self.payloads.session(session)
            state = kwargs["session"] = Session(session_id, data)
        if operation.takes_telemetry:
            kwargs.setdefault("telemetry", self.telemetry)
        return state

    def times(self) -> List[Any]:
        """Return the times of the call under way so far."""
        wall = time.perf_counter_ns() - self.started
        cpu: Optional[int] = None
        if self.cpu_before is not None:
            cpu = time.process_time_ns() - self.cpu_before
        elif wall < _SHORT_NS:
            cpu = wall
        return [wall, cpu, self.peak.growth(wall)]

    def run(self, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """Call a function of the target. Only while it runs is the worker interruptible."""
        try:
            self.interruptible = True
            if self.urgent:
                self.read_urgent()
            result = function(*args, **kwargs)
            if id(type(result)) not in _PLAIN and hasattr(type(result), "__await__"):
                result = self.run_async(self.awaited(result))
        except BaseException as error:
            self.exit_if_copy(error)
            raise
        finally:
            self.interruptible = False
        return result

    def cancel(self, call_id: int) -> None:
        if call_id != self.call_id:
            if self.withdraw(call_id):
                self.send_encoded(self.failure(call_id, "cancelled", OperationCancelled(), [0, 0, None]))
            return
        if not self.on_loop:
            raise OperationCancelled
        self.cancelled = True
        if self.task is not None and self.loop is not None:
            self.loop.call_soon_threadsafe(self.task.cancel)

    # coroutines

    def run_async(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        self.cancelled = False
        self.on_loop = True
        try:
            if self.loop is None:
                import asyncio  # a third of a worker's start: only where it is needed

                self.loop = asyncio.new_event_loop()
                asyncio.set_event_loop(self.loop)
                self.wake_by_signal(self.loop)
            self.task = self.loop.create_task(coroutine)
            if self.cancelled:  # before the task existed
                self.task.cancel()
            result = self.loop.run_until_complete(self.task)
        finally:
            self.task = None
            self.on_loop = False
        if self.cancelled:  # after the task ended
            raise OperationCancelled
        return result

    async def awaited(self, awaitable: Any) -> Any:
        """Await *awaitable*, and end this process if it is a copy by then."""
        try:
            result = await awaitable
        except BaseException as error:
            self.exit_if_copy(error)
            raise
        self.exit_if_copy()
        return result

    @staticmethod
    def wake_by_signal(loop: asyncio.AbstractEventLoop) -> None:
        """Make a signal wake the loop. Otherwise one that comes just before the loop sleeps is handled too late."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        loop.add_reader(reader, os.read, reader, 4096)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    # streams

    def run_stream(self, call_id: int, result: Any) -> None:
        """Send every item of a generator. A cancellation closes it."""
        self.exit_if_copy()
        result, asynchronous = self.run(iterator_of, (result,), {})
        if asynchronous:
            self.run(self.run_async_stream, (call_id, result), {})
            return
        try:
            while True:
                item = self.run(next_item, (result,), {})
                self.exit_if_copy()
                if item is END:
                    return
                self.send_item(call_id, item)
        finally:
            self.run(close_iterator, (result,), {})

    async def run_async_stream(self, call_id: int, items: Any) -> None:
        """Send every item of an asynchronous iterator. One task takes all items, so that the target can keep something
        open across a ``yield``: a timeout, a task group, a token of a context variable.
        """
        import asyncio

        try:
            while True:
                item = await self.awaited(next_async_item(items))
                if item is END:
                    return
                self.uninterrupted(functools.partial(self.send_item, call_id, item))
                await asyncio.sleep(0)  # give other tasks a turn
                if self.cancelled:
                    await asyncio.sleep(0)  # raises CancelledError here, unless the target has swallowed it
                    raise OperationCancelled
        finally:
            await close_async_iterator(items)

    def send_item(self, call_id: int, item: Any) -> None:
        self.send_encoded(self.payloads.carry("an item", ["item", call_id, item]))

    # copies that the target forks off

    def become_copy(self) -> None:
        """Give up the channel, the backlog and the event loop: this process is a copy that the target has forked off.
        It shares their descriptors with the worker, and must not use them.
        """
        self.backlog.clear()
        self.shared = None
        self.channel.become_copy()
        loop = self.loop
        ready = getattr(loop, "_ready", None)  # every loop of asyncio itself has it
        if loop is not None and ready is not None:
            ready.clear()
            loop.call_soon(exit_copy, RuntimeError("a copy of a worker cannot go on in the event loop of the worker"))

    def exit_if_copy(self, error: Optional[BaseException] = None) -> None:
        """End this process if it is a copy that the target has forked off. Called when the target's code has ended.
        Only the original worker answers the call.
        """
        if os.getpid() != self.pid:
            exit_copy(error)


def failure_kind(error: BaseException) -> str:
    """Return the kind of failure of a call that ended with *error*."""
    if isinstance(error, PayloadError):
        return "payload"
    asyncio = sys.modules.get("asyncio")
    cancelled = isinstance(error, OperationCancelled) or (
        asyncio is not None and isinstance(error, asyncio.CancelledError)
    )
    return "cancelled" if cancelled else "operation"
