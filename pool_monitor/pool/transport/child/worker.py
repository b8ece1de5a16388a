"""The worker: its handshake, its messages, and the one answer to each call."""

from __future__ import annotations

import collections
import inspect
import json
import os
import signal
import socket
import sys
import time

from . import PROTOCOL
from .channel import Channel, ParentGone
from .codec import PayloadError, first_codec, json_codec
from .report import describe, text_of
from .target import load_target, operations_of

TYPE_CHECKING = False  # as in typing, without its import
if TYPE_CHECKING:
    import asyncio
    from typing import Any, Callable, Coroutine

    from .target import Operation


class OperationCancelled(BaseException):
    """The caller gave up. No Exception, so that a target's ``except Exception`` does not swallow it."""


class Session:
    """What an operation with a keyword parameter named ``session`` receives."""

    def __init__(self, session_id: str, data: dict[str, Any]) -> None:
        self.id = session_id
        self.data = data


class Worker:
    def __init__(self, sock: socket.socket) -> None:
        self.channel = Channel(sock)
        self.codec = json_codec()
        self.operations: dict[str, Operation] = {}
        self.session_data_limit = 0
        self.loop: asyncio.AbstractEventLoop | None = None
        self.task: asyncio.Task[Any] | None = None  # the asyncio task of a running coroutine operation
        self.on_loop = False  # asyncio runs it: nothing may be raised there, the task is cancelled instead
        self.cancelled = False  # while asyncio ran it
        self.call_id: int | None = None  # the call under way
        self.started = (0, 0)  # its wall and processor time then, ns
        self.interruptible = False  # the target's own code is running
        self.urgent = False  # SIGURG came while it was not
        self.backlog: collections.deque[list[Any]] = collections.deque()  # messages read while an operation ran

    # handshake

    def start(self) -> bool:
        """Shake hands and load the target. Returns False when the target could not be loaded."""
        hello = json.loads(self.receive())
        if PROTOCOL not in hello["protocols"]:
            sys.exit("pool_monitor: the pool speaks protocols %s, this worker %d" % (hello["protocols"], PROTOCOL))
        codec = first_codec(hello["codecs"])
        self.channel.limit = hello["frame_limit"]
        self.session_data_limit = hello["session_data_limit"]
        answer = {"type": "hello", "protocol": PROTOCOL, "codec": codec.name, "pid": os.getpid()}
        answer["python"] = ".".join(map(str, sys.version_info[:3]))
        self.send(answer)
        self.codec = codec
        _, target, path, init = self.codec.decode(self.receive())
        try:
            args, kwargs = self.codec.unpack(init)
            self.operations = operations_of(load_target(target, path, args, kwargs))
            if not self.operations:
                raise LookupError("%s has no public functions or methods" % target)
        except BaseException as error:
            self.channel.send(self.failure(0, "operation", error))
            return False
        signal.signal(signal.SIGURG, self.on_urgent)  # before the parent can have anything urgent to say
        self.send(["ready", {name: operation.kind for name, operation in self.operations.items()}])
        return True

    def receive(self) -> bytes:
        body = self.channel.receive()
        assert body is not None  # it blocks
        return body

    def send(self, message: Any) -> None:
        self.channel.send(self.codec.encode(message))

    # messages

    def serve(self) -> None:
        """Answer messages until the parent says stop or goes away."""
        while True:
            message = self.backlog.popleft() if self.backlog else self.codec.decode(self.receive())
            if message[0] == "call":
                self.call(*message[1:])
            else:
                self.control(message)

    def control(self, message: list[Any]) -> None:
        kind = message[0]
        if kind == "ping":
            self.send(["pong", message[1], self.call_id])
        elif kind == "cancel":
            if message[1] == self.call_id:
                self.cancel()
        elif kind == "stop":
            if self.call_id is not None:
                self.backlog.append(message)
            else:
                raise ParentGone
        else:
            sys.exit("pool_monitor: unknown message %r" % (kind,))

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
                self.drain()
            finally:
                self.interruptible = before

    def drain(self) -> None:
        body = self.channel.receive(socket.MSG_DONTWAIT)
        while body is not None:
            message = self.codec.decode(body)
            if message[0] == "call":
                self.backlog.append(message)
            else:
                self.control(message)
            body = self.channel.receive(socket.MSG_DONTWAIT)

    def cancel(self) -> None:
        if not self.on_loop:
            raise OperationCancelled
        self.cancelled = True
        if self.task is not None and self.loop is not None:
            self.loop.call_soon_threadsafe(self.task.cancel)

    # calls

    def call(self, call_id: int, name: str, payload: Any, stream: bool, session: list[Any] | None) -> None:
        """Run one operation and send exactly one of ``reply``, ``end`` and ``error``."""
        self.call_id = call_id
        self.started = time.perf_counter_ns(), time.process_time_ns()
        try:
            body = self.answer(call_id, name, payload, stream, session)
        except ParentGone:
            raise
        except PayloadError as error:
            body = self.failure(call_id, "payload", error)
        except BaseException as error:  # SystemExit too: it is the operation that failed, not the worker
            body = self.failure(call_id, "cancelled" if _is_cancellation(error) else "operation", error)
        self.interruptible = False  # again: the exception may have come before the line that says so
        self.call_id = None
        flush_output()
        self.channel.send(body)

    def answer(self, call_id: int, name: str, payload: Any, stream: bool, session: list[Any] | None) -> bytes:
        """Run the operation; the encoded ``reply`` or ``end``."""
        operation = self.operations.get(name)
        if operation is None:
            raise LookupError("no operation %r; there are %s" % (name, ", ".join(sorted(self.operations))))
        args, kwargs = self.unpack("the arguments", payload)
        state = None
        if session is not None and operation.takes_session:
            state = kwargs["session"] = Session(session[0], self.codec.unpack(session[1]))
        result = self.run(operation.function, args, kwargs)
        if stream:
            self.run_stream(call_id, result)
            result = None
        times = self.times()
        data = None if state is None else self.pack_session(state.data)
        packed = self.pack("the result", result)
        return self.encode("the result", ["end" if stream else "reply", call_id, packed, data, times])

    def failure(self, call_id: int, kind: str, error: BaseException) -> bytes:
        texts, times = describe(error), self.times()
        body = self.codec.encode(["error", call_id, kind, *texts, times])
        if len(body) > self.channel.limit:  # a short report rather than none; a character takes 12 bytes at most
            room = self.channel.limit // 48
            body = self.codec.encode(["error", call_id, kind, *(text[:room] for text in texts), times])
        return body

    def times(self) -> list[int]:
        return [time.perf_counter_ns() - self.started[0], time.process_time_ns() - self.started[1]]

    def run(self, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """The target's code, and nothing else, is interruptible."""
        try:
            self.interruptible = True
            if self.urgent:
                self.read_urgent()
            result = function(*args, **kwargs)
            if inspect.iscoroutine(result):
                result = self.run_async(result)
            return result
        finally:
            self.interruptible = False

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
        if inspect.isasyncgen(result):
            step: Callable[[Any], Any] = _step_async
            close: Callable[[Any], Any] = _close_async
        elif hasattr(result, "__next__"):
            step, close = _step, _close
        else:
            raise PayloadError("it returned a %s, which is no generator: call it with run()" % type(result).__name__)
        try:
            while True:
                item = self.run(step, (result,), {})
                if item is _END:
                    return
                self.channel.send(self.encode("an item", ["item", call_id, self.pack("an item", item)]))
        finally:
            self.run(close, (result,), {})

    # payloads

    def unpack(self, what: str, packed: Any) -> Any:
        try:
            return self.codec.unpack(packed)
        except Exception as error:
            raise PayloadError("%s cannot be rebuilt: %s" % (what, text_of(error))) from error

    def pack(self, what: str, value: Any) -> Any:
        try:
            return self.codec.pack(value)
        except Exception as error:
            raise self.not_carried(what, error) from error

    def encode(self, what: str, message: Any) -> bytes:
        try:
            body = self.codec.encode(message)
        except Exception as error:
            raise self.not_carried(what, error) from error
        if len(body) > self.channel.limit:
            raise PayloadError(
                "%s takes %d bytes, over the frame limit of %d; raise frame_limit or return less"
                % (what, len(body), self.channel.limit)
            )
        return body

    def not_carried(self, what: str, error: Exception) -> PayloadError:
        return PayloadError("%s cannot be carried as %s: %s" % (what, self.codec.name, text_of(error)))

    def pack_session(self, data: dict[str, Any]) -> Any:
        if not isinstance(data, dict):
            raise PayloadError("session.data is to be a dict, not %r" % type(data).__name__)
        packed = self.pack("session.data", data)
        size = len(self.encode("session.data", packed))
        if size > self.session_data_limit:
            raise PayloadError(
                "session.data takes %d bytes, over the limit of %d; keep less in it or raise session_data_limit"
                % (size, self.session_data_limit)
            )
        return packed


def _is_cancellation(error: BaseException) -> bool:
    asyncio = sys.modules.get("asyncio")
    return isinstance(error, OperationCancelled) or (asyncio is not None and isinstance(error, asyncio.CancelledError))


_END = object()


def _step(generator: Any) -> Any:
    return next(generator, _END)


def _close(generator: Any) -> None:
    if hasattr(generator, "close"):  # an iterator that is no generator need not have it
        generator.close()


async def _close_async(generator: Any) -> None:
    await generator.aclose()


async def _step_async(generator: Any) -> Any:
    try:
        return await generator.__anext__()
    except StopAsyncIteration:
        return _END


def flush_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105 - at every call, where a context manager would cost half as much again
            stream.flush()
        except (AttributeError, ValueError, OSError):  # the target may have replaced or closed it
            pass
