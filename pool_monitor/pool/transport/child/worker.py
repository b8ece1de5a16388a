"""The worker: it loads the target, runs one operation after the other, and answers each call once."""

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

_LONG_NS = 100_000  # an operation expected to take longer does not begin before the answers held back are sent
_SHORT_NS = 20_000  # the processor time of an operation that takes less is not worth 1 us for asking
_WEIGHT = 0.1  # of the latest call in an operation's running mean
# Types that cannot be awaited: to see that is quicker than to ask. By id, for a type of the target may have no hash.
_PLAIN = frozenset(map(id, (type(None), bool, int, float, str, bytes, list, tuple, dict)))


class OperationCancelled(BaseException):
    """The caller gave up. No Exception, so that a target's ``except Exception`` does not swallow it."""


class Session:
    """What an operation with a keyword parameter named ``session`` receives."""

    def __init__(self, session_id: str, data: dict[str, Any]) -> None:
        self.id = session_id
        self.data = data


class Worker(Messenger):
    """One call at a time, in the main thread."""

    def __init__(self, connection: Connection, init: Init) -> None:
        super().__init__(connection)
        self.init = init
        self.operations: Dict[str, Operation] = {}
        self.variables: Dict[str, Any] = {}  # context variables that may come with a call, by name
        self.telemetry: Telemetry  # once the target is being loaded
        self.peak: PeakMemory  # once the target is loaded
        self.pid = os.getpid()
        self.loop: Optional[asyncio.AbstractEventLoop] = None
        self.task: Optional[asyncio.Task[Any]] = None  # the asyncio task of a running coroutine operation
        self.on_loop = False  # asyncio runs it: nothing may be raised there, the task is cancelled instead
        self.cancelled = False  # while asyncio ran it
        self.started = 0  # when the call under way began, ns
        self.cpu_before: Optional[int] = None  # processor time then, ns; None: not asked for

    # the target

    def load(self) -> bool:
        """Load the target. False when that failed: the pool has been told why."""
        init = self.init
        self.telemetry = Telemetry(self.channel, self.codec, self.uninterrupted)
        try:
            args, kwargs = self.payloads.unpack("they", init.payload)
            init.payload = None  # it may be large, and is not kept for the worker's whole life
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
        self.send(["ready", {name: operation.kind for name, operation in self.operations.items()}])
        return True

    def make_target(self, target: str, path: List[str], args: Any, kwargs: Any) -> Any:
        return load_target(target, path, args, kwargs, self.telemetry)

    def on_loaded(self) -> None:
        self.peak = PeakMemory()
        signal.signal(signal.SIGURG, self.on_urgent)  # before the parent can have anything urgent to say

    def set_context(self, options: Any) -> None:
        """Set the context variables that came with a call, for what runs in the present context."""
        carried = options if type(options) is Undecodable else options["context"]
        for name, value in self.payloads.unpack("the context", carried).items():
            self.variables[name].set(value)

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
        except BaseException as error:  # SystemExit too: it is the operation that failed, not the worker
            body = self.failure(call_id, failure_kind(error), error, self.times())
        self.interruptible = False  # again: the exception may have come before the line that says so
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
        """Run the operation; the encoded ``reply`` or ``end``."""
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
        if wall > _SHORT_NS:  # no copy is forked off in less
            self.exit_if_copy()
        operation.mean_ns = wall if mean == math.inf else mean + _WEIGHT * (wall - mean)
        data = None if state is None else self.payloads.pack_session(state.data)
        return self.payloads.carry("the result", ["end" if stream else "reply", call_id, result, data, times])

    def unknown_operation(self, name: str) -> LookupError:
        return LookupError("no operation %r; there are %s" % (name, ", ".join(sorted(self.operations))))

    def add_extras(self, operation: Operation, kwargs: Dict[str, Any], session: Any) -> Optional[Session]:
        """Add the session and the telemetry to *kwargs*, as far as the operation takes them. Returns the session."""
        state = None
        if session is not None and operation.takes_session:
            session_id, data = self.payloads.session(session)
            state = kwargs["session"] = Session(session_id, data)
        if operation.takes_telemetry:
            kwargs.setdefault("telemetry", self.telemetry)
        return state

    def times(self) -> List[Any]:
        """What the call under way has taken so far."""
        wall = time.perf_counter_ns() - self.started
        cpu: Optional[int] = None
        if self.cpu_before is not None:
            cpu = time.process_time_ns() - self.cpu_before
        elif wall < _SHORT_NS:
            cpu = wall
        return [wall, cpu, self.peak.growth(wall)]

    def run(self, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """The target's code, and nothing else, is interruptible."""
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
                import asyncio  # a third of a worker's start, for those that need it

                self.loop = asyncio.new_event_loop()
                asyncio.set_event_loop(self.loop)
                self.wake_by_signal(self.loop)
            self.task = self.loop.create_task(coroutine)
            if self.cancelled:  # before there was a task
                self.task.cancel()
            result = self.loop.run_until_complete(self.task)
        finally:
            self.task = None
            self.on_loop = False
        if self.cancelled:  # after the task had ended
            raise OperationCancelled
        return result

    async def awaited(self, awaitable: Any) -> Any:
        """What *awaitable* gives, in this process."""
        try:
            result = await awaitable
        except BaseException as error:
            self.exit_if_copy(error)
            raise
        self.exit_if_copy()
        return result

    @staticmethod
    def wake_by_signal(loop: asyncio.AbstractEventLoop) -> None:
        """A signal that comes just before the loop goes to sleep would be seen to when it wakes: have it wake."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        loop.add_reader(reader, os.read, reader, 4096)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    # streams

    def run_stream(self, call_id: int, result: Any) -> None:
        """Send every item of a generator; a cancel closes it."""
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
        """Send every item of an asynchronous iterator. One task takes them all, so that what the target opens around a
        ``yield`` holds until it is closed: a timeout, a task group, a token of a context variable.
        """
        import asyncio

        try:
            while True:
                item = await self.awaited(next_async_item(items))
                if item is END:
                    return
                self.uninterrupted(functools.partial(self.send_item, call_id, item))
                await asyncio.sleep(0)  # others have their turn
                if self.cancelled:
                    await asyncio.sleep(0)  # where that comes to the task, if the target has not kept it to itself
                    raise OperationCancelled
        finally:
            await close_async_iterator(items)

    def send_item(self, call_id: int, item: Any) -> None:
        self.send_encoded(self.payloads.carry("an item", ["item", call_id, item]))

    # copies that the target forks off

    def become_copy(self) -> None:
        """Become no more than a copy that the target has forked off: it shares the channel and the event loop's
        descriptors with the worker, and may use neither.
        """
        self.backlog.clear()
        self.shared = None
        self.channel.become_copy()
        loop = self.loop
        ready = getattr(loop, "_ready", None)  # of every loop of asyncio's own
        if loop is not None and ready is not None:
            ready.clear()
            loop.call_soon(exit_copy, RuntimeError("a copy of a worker cannot go on in the event loop of the worker"))

    def exit_if_copy(self, error: Optional[BaseException] = None) -> None:
        """End this process if it is a copy that the target has forked off, as the target's code ended in it: the answer
        is the original's to give.
        """
        if os.getpid() != self.pid:
            exit_copy(error)


def failure_kind(error: BaseException) -> str:
    """Of a call that ended with it."""
    if isinstance(error, PayloadError):
        return "payload"
    asyncio = sys.modules.get("asyncio")
    cancelled = isinstance(error, OperationCancelled) or (
        asyncio is not None and isinstance(error, asyncio.CancelledError)
    )
    return "cancelled" if cancelled else "operation"
