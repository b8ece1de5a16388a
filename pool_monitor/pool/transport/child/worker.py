"""The worker: its handshake, its messages, and the one answer to each call."""

from __future__ import annotations

import collections
import contextlib
import functools
import json
import math
import os
import signal
import sys
import threading
import time

from . import PROTOCOL
from .channel import Channel, ParentGone
from .codec import LARGE, PayloadError, Unreadable, first_codec, json_codec
from .exception_text import describe
from .memory_usage import Peak, expect_large, resident
from .payloads import Payloads
from .shared_memory import Shared
from .streams import END, close, close_later, iterator_of, next_of, step
from .target import find_variable, load_target, operations_of
from .telemetry import Telemetry

TYPE_CHECKING = False  # as in typing, without its import
if TYPE_CHECKING:
    import asyncio
    from typing import Any, Callable, Coroutine, Deque, Dict, List, Optional, Sequence, Tuple

    from .codec import Buffer
    from .link import Pipes
    from .payloads import Body
    from .target import Operation

_LONG_NS = 100_000  # an operation expected to take longer does not begin before the answers held back are sent
_SHORT_NS = 20_000  # the processor time of an operation that takes less is not worth 1 us for asking
_WEIGHT = 0.1  # of the latest call in an operation's running mean
CALL_LENGTH = 6  # of a call's message, without options
# Types that cannot be awaited: to see that is quicker than to ask. By id, for a type of the target may have no hash.
_PLAIN = frozenset(map(id, (type(None), bool, int, float, str, bytes, list, tuple, dict)))


class OperationCancelled(BaseException):
    """The caller gave up. No Exception, so that a target's ``except Exception`` does not swallow it."""


class Session:
    """What an operation with a keyword parameter named ``session`` receives."""

    def __init__(self, session_id: str, data: dict[str, Any]) -> None:
        self.id = session_id
        self.data = data


class Worker:
    """One call at a time, in the main thread."""

    def __init__(self, link: Pipes) -> None:
        self.channel = Channel(link)
        self.codec = json_codec()
        self.operations: Dict[str, Operation] = {}
        self.payloads: Payloads  # once the handshake has settled the codec and the limits
        self.shared: Optional[Shared] = None
        self.telemetry: Telemetry  # once the target is being loaded
        self.peak: Peak  # once the target is loaded
        self.main_thread = threading.get_ident()
        self.pid = os.getpid()
        self.loop: Optional[asyncio.AbstractEventLoop] = None
        self.task: Optional[asyncio.Task[Any]] = None  # the asyncio task of a running coroutine operation
        self.on_loop = False  # asyncio runs it: nothing may be raised there, the task is cancelled instead
        self.cancelled = False  # while asyncio ran it
        self.received = 0  # calls
        self.call_id: Optional[int] = None  # the call under way
        self.started = 0  # when it began, ns
        self.cpu_before: Optional[int] = None  # processor time then, ns; None: not asked for
        self.interruptible = False  # the target's own code is running
        self.urgent = False  # SIGURG came while it was not
        self.deputy: Worker = self  # who does the work: another one when calls run beside each other
        self.variables: Dict[str, Any] = {}  # context variables that may come with a call, by name
        self.backlog: Deque[Tuple[int, List[Any]]] = collections.deque()  # which call it is, and its message

    # handshake

    def start(self) -> bool:
        """Shake hands and load the target. Returns False when the target could not be loaded."""
        hello = json.loads(bytes(self.channel.receive()))
        if PROTOCOL not in hello["protocols"]:
            sys.exit("pool_monitor: the pool speaks protocols %s, this worker %d" % (hello["protocols"], PROTOCOL))
        codec = first_codec(hello["codecs"])
        self.channel.limit = hello["frame_limit"]
        self.payloads = Payloads(codec, hello["frame_limit"], hello["session_data_limit"])
        self.shared = self.channel.shared = self.map_shared(hello["frame_limit"])
        answer = {"type": "hello", "protocol": PROTOCOL, "codec": codec.name, "context": True}
        answer["python"] = ".".join(map(str, sys.version_info[:3]))
        if self.shared is not None:
            answer["shared"] = answer["offsets"] = True
            self.shared.offsets = hello.get("offsets") is True
        self.send(answer)
        self.codec = codec
        message = self.decode(self.channel.receive())
        self.has_read()
        options = message[4] if len(message) > 4 else {}
        self.variables = dict.fromkeys(options.get("context", ()))
        self.deputy = self.make_deputy(options.get("concurrency", 1))
        return self.deputy.load(*message[1:4])

    def map_shared(self, frame_limit: int) -> Optional[Shared]:
        return map_shared(int(os.environ.pop("POOL_MONITOR_SHARED", -1)), frame_limit)

    def make_deputy(self, concurrency: int) -> Worker:
        if concurrency > 1:
            from .concurrent import ConcurrentWorker  # with asyncio: a third of a worker's start

            return ConcurrentWorker(self, concurrency)
        if self.variables:
            from .context import ContextWorker

            return ContextWorker(self)
        return self

    def load(self, target: str, path: List[str], init: Any) -> bool:
        self.telemetry = Telemetry(self.channel, self.codec, self.quietly)
        try:
            args, kwargs = self.payloads.unpack("they", init)
            self.operations = operations_of(self.make_target(target, path, args, kwargs))
            if not self.operations:
                raise LookupError("%s has no public functions or methods" % target)
            self.find_variables()
            self.end_copy()
        except BaseException as error:
            self.end_copy(error)
            kind = "payload" if isinstance(error, PayloadError) else "operation"
            self.channel.send(self.failure(0, kind, error, [0, 0, None]))
            return False
        self.be_ready()
        self.send(["ready", {name: operation.kind for name, operation in self.operations.items()}])
        return True

    def find_variables(self) -> None:
        try:
            self.variables = {name: find_variable(name) for name in self.variables}
        except LookupError as error:
            text = "%s; have it importable for the workers too, or leave it out of the pool's context"
            raise LookupError(text % error) from error

    def use(self, options: Any) -> None:
        """Set the context variables that came with a call, for what runs in the present context."""
        carried = options if type(options) is Unreadable else options["context"]
        for name, value in self.payloads.unpack("the context", carried).items():
            self.variables[name].set(value)

    def make_target(self, target: str, path: List[str], args: Any, kwargs: Any) -> Any:
        return load_target(target, path, args, kwargs, self.telemetry)

    def be_ready(self) -> None:
        self.peak = Peak()
        signal.signal(signal.SIGURG, self.on_urgent)  # before the parent can have anything urgent to say

    def send(self, message: Any) -> None:
        self.post(self.codec.encode(message))

    def post(self, body: Body) -> None:
        """Send an encoded message, by the channel or through the shared memory."""
        if type(body) is bytes and len(body) < LARGE:
            self.put(body)
            return
        self.channel.unneeded = 0
        pieces = (body,) if isinstance(body, bytes) else body
        size = sum(map(len, pieces))
        shared = self.shared
        lent = None if shared is None else shared.lend(pieces, size)
        if lent is None and shared is not None and shared.lent:
            self.drain()  # the parent may have returned something
            lent = shared.lend(pieces, size)
        if lent is not None:
            self.put(self.codec.encode(lent))
        else:
            self.put_large(pieces, size)

    def put(self, body: bytes) -> None:
        if self.channel.held and self.channel.hold(body):
            self.channel.flush()
        else:
            self.channel.send(body)

    def put_large(self, pieces: Sequence[Buffer], size: int) -> None:
        self.channel.send_pieces(pieces, size)

    def borrow(self, length: int, offset: int = 0) -> Any:
        """The message the parent lends."""
        assert self.shared is not None
        self.channel.unneeded = 0
        expect_large(length, 4)
        message = self.decode(self.shared.borrowed(length, offset))
        self.has_read()
        self.give_back(self.codec.encode(["returned"]))
        return message

    def give_back(self, body: bytes) -> None:
        if not self.channel.hold(body):  # it leaves with the answer if that comes soon
            self.put(body)

    # messages

    def decode(self, body: Buffer) -> Any:
        """A message; a value in it that cannot be decoded is left to the call that gets it."""
        shared = self.shared
        if shared is not None:
            shared.counters[2] = self.received + 1  # should it be the end of this process, the parent knows of which
        try:
            return self.codec.decode(body)
        except Exception:
            message = self.codec.parts(memoryview(body))
            if message[0] == "call" and len(message) < CALL_LENGTH:  # it ends with what cannot be decoded
                message += [False, None][len(message) - CALL_LENGTH :]
            return message

    def has_read(self) -> None:
        """What was decoded last is no call, or one that is to begin later."""
        if self.shared is not None:
            self.shared.counters[2] = 0

    def serve(self) -> None:
        """Answer messages until the parent says stop or goes away."""
        if self.deputy is not self:
            self.deputy.serve()
            return
        backlog, frames, receive, decode = self.backlog, self.channel.frames, self.channel.receive, self.decode
        while True:
            if backlog:
                number, message = backlog.popleft()
            else:
                number, message = 0, decode(frames.popleft() if frames else receive())
            if message[0] == "call":
                if not number:
                    self.received = number = self.received + 1
                self.call(number, message)
            else:
                self.has_read()
                self.control(message)

    def control(self, message: List[Any]) -> None:
        kind = message[0]
        if kind == "ping":
            self.send(["pong", message[1], self.running(), resident()])
        elif kind == "cancel":
            self.cancel(message[1])
        elif kind == "recall":
            for call_id in message[1]:
                if self.take_back(call_id):
                    self.send(["recalled", call_id])
        elif kind == "lent":
            self.keep(self.borrow(*message[1:]))
        elif kind == "returned":
            if self.shared is not None:
                self.shared.returned()
        elif kind == "stop":
            self.stop(message)
        else:
            sys.exit("pool_monitor: unknown message %r" % (kind,))

    def keep(self, message: List[Any]) -> None:
        """Put a call at the end of the backlog."""
        self.received += 1
        self.backlog.append((self.received, message))

    def take_back(self, call_id: int) -> bool:
        """Take a call that has not begun out of the backlog."""
        for entry in self.backlog:
            if entry[0] and entry[1][1] == call_id:
                self.backlog.remove(entry)
                return True
        return False

    def running(self) -> Optional[int]:
        return self.call_id

    def stop(self, message: List[Any]) -> None:
        if self.call_id is not None:
            self.backlog.append((0, message))
        else:
            self.channel.leave()
            raise ParentGone

    def on_urgent(self, _signal: int, _frame: Any) -> None:
        self.urgent = True
        if self.interruptible:
            self.read_urgent()

    def read_urgent(self) -> None:
        """Read what has arrived while an operation runs. Raises OperationCancelled when that is its end."""
        while self.urgent:  # again, if the next signal came while this one was seen to
            self.urgent = False
            self.interruptible, before = False, self.interruptible
            try:
                self.channel.flush()
                self.drain()
                self.channel.flush()
            finally:
                self.interruptible = before

    def drain(self) -> None:
        channel, decode = self.channel, self.decode
        body = channel.receive_now()
        while body is not None:
            message = decode(body)
            self.has_read()
            if message[0] == "call":
                self.keep(message)
            else:
                self.control(message)
            body = channel.receive_now()

    def quietly(self, action: Callable[[], None]) -> None:
        """Run *action*, which uses the channel, from within the target's code."""
        if threading.get_ident() != self.main_thread or not self.interruptible:
            action()
            return
        self.interruptible = False
        try:
            action()
        finally:
            self.interruptible = True
        if self.urgent:
            self.read_urgent()

    def cancel(self, call_id: int) -> None:
        if call_id != self.call_id:
            if self.take_back(call_id):
                self.post(self.failure(call_id, "cancelled", OperationCancelled(), [0, 0, None]))
            return
        if not self.on_loop:
            raise OperationCancelled
        self.cancelled = True
        if self.task is not None and self.loop is not None:
            self.loop.call_soon_threadsafe(self.task.cancel)

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
                raise self.unknown(name)
            body = self.answer(call_id, operation, payload, stream, session)
        except ParentGone:
            raise
        except BaseException as error:  # SystemExit too: it is the operation that failed, not the worker
            body = self.failure(call_id, kind_of(error), error, self.times())
        self.interruptible = False  # again: the exception may have come before the line that says so
        self.call_id = None
        flush_output()
        if type(body) is not bytes or len(body) >= LARGE:
            self.post(body)
        elif not (channel.frames or self.backlog) or self.urgent:
            self.put(body)
        elif not channel.hold(body):
            channel.send(body)
        if self.telemetry.dropped:
            self.telemetry.settle()

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
            self.end_copy()
        operation.mean_ns = wall if mean == math.inf else mean + _WEIGHT * (wall - mean)
        data = None if state is None else self.payloads.pack_session(state.data)
        return self.payloads.carry("the result", ["end" if stream else "reply", call_id, result, data, times])

    def unknown(self, name: str) -> LookupError:
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

    def failure(self, call_id: int, kind: str, error: BaseException, times: List[Any]) -> bytes:
        texts = describe(error)
        body = self.codec.encode(["error", call_id, kind, *texts, times])
        if len(body) > self.channel.limit:  # a short report rather than none; a character takes 12 bytes at most
            room = self.channel.limit // 48
            body = self.codec.encode(["error", call_id, kind, *(text[:room] for text in texts), times])
        return body

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
            self.end_copy(error)
            raise
        finally:
            self.interruptible = False
        return result

    async def awaited(self, awaitable: Any) -> Any:
        """What *awaitable* gives, in this process."""
        try:
            result = await awaitable
        except BaseException as error:
            self.end_copy(error)
            raise
        self.end_copy()
        return result

    def be_copy(self) -> None:
        """Become no more than a copy that the target has forked off: it shares the channel and the event loop's
        descriptors with the worker, and may use neither.
        """
        for worker in (self, self.deputy):
            worker.backlog.clear()
            worker.shared = None
        self.channel.be_copy()
        loop = self.deputy.loop
        ready = getattr(loop, "_ready", None)  # of every loop of asyncio's own
        if loop is not None and ready is not None:
            ready.clear()
            loop.call_soon(end_copy, RuntimeError("a copy of a worker cannot go on in the event loop of the worker"))

    def end_copy(self, error: Optional[BaseException] = None) -> None:
        """End this process if it is a copy that the target has forked off, as the target's code ended in it: the answer
        is the original's to give.
        """
        if os.getpid() != self.pid:
            end_copy(error)

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

    @staticmethod
    def wake_by_signal(loop: asyncio.AbstractEventLoop) -> None:
        """A signal that comes just before the loop goes to sleep would be seen to when it wakes: have it wake."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        loop.add_reader(reader, os.read, reader, 4096)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def run_stream(self, call_id: int, result: Any) -> None:
        """Send every item of a generator; a cancel closes it."""
        self.end_copy()
        result, asynchronous = self.run(iterator_of, (result,), {})
        if asynchronous:
            self.run(self.pass_on, (call_id, result), {})
            return
        try:
            while True:
                item = self.run(step, (result,), {})
                self.end_copy()
                if item is END:
                    return
                self.give(call_id, item)
        finally:
            self.run(close, (result,), {})

    async def pass_on(self, call_id: int, items: Any) -> None:
        """Send every item of an asynchronous iterator. One task takes them all, so that what the target opens around a
        ``yield`` holds until it is closed: a timeout, a task group, a token of a context variable.
        """
        import asyncio

        try:
            while True:
                item = await self.awaited(next_of(items))
                if item is END:
                    return
                self.quietly(functools.partial(self.give, call_id, item))
                await asyncio.sleep(0)  # others have their turn
                if self.cancelled:
                    await asyncio.sleep(0)  # where that comes to the task, if the target has not kept it to itself
                    raise OperationCancelled
        finally:
            await close_later(items)

    def give(self, call_id: int, item: Any) -> None:
        self.post(self.payloads.carry("an item", ["item", call_id, item]))


def kind_of(error: BaseException) -> str:
    """Of a call that ended with it."""
    if isinstance(error, PayloadError):
        return "payload"
    asyncio = sys.modules.get("asyncio")
    cancelled = isinstance(error, OperationCancelled) or (
        asyncio is not None and isinstance(error, asyncio.CancelledError)
    )
    return "cancelled" if cancelled else "operation"


def end_copy(error: Optional[BaseException] = None) -> None:
    """End this process, a copy of a worker, as Python would have after *error* or without."""
    status: Any = 0
    if isinstance(error, SystemExit):
        status = error.code
        if status is not None and not isinstance(status, int):
            sys.stderr.write("%s\n" % (status,))
            status = 1
    elif error is not None and not isinstance(error, ParentGone):
        import traceback

        traceback.print_exception(type(error), error, error.__traceback__)
        status = 1
    flush_output()
    os._exit((status or 0) & 0xFF)


def flush_output() -> None:
    """Have what was printed leave. The target may have replaced, closed or deleted either stream."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        for name in ("stdout", "stderr"):
            with contextlib.suppress(BaseException):
                getattr(sys, name).flush()


def map_shared(fd: int, frame_limit: int) -> Optional[Shared]:
    """The memory shared with the parent, if it gave us any (*fd*, which is closed) and this system can map it."""
    if fd < 0:
        return None
    try:
        return Shared(fd, frame_limit, False)
    except (OSError, ValueError):
        return None
    finally:
        os.close(fd)
